package app_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/message"
	"herald/pkg/testenv"
)

// postgresRows are the rows in which PostgreSQL fails, or holds rows that cannot be decoded.
var postgresRows = []row{
	{"11 PostgreSQL restarts at once", func(t *testing.T) string {
		cluster := testenv.StartPostgres(t)
		return awayDatabase(t, plan{database: cluster.Database(t)}, cluster.Restart)
	}},
	{"11 PostgreSQL freezes", func(t *testing.T) string {
		proxy, through := testenv.ProxyDatabase(t, sharedPostgres(t).Database(t))
		return awayDatabase(t, plan{database: through}, func() {
			proxy.Freeze()
			<-time.After(pick(4*time.Second, 20*time.Second))
			proxy.Thaw()
		})
	}},
	{"11 PostgreSQL's answers to commits are lost", func(t *testing.T) string {
		proxy, through := testenv.ProxyDatabase(t, sharedPostgres(t).Database(t))
		said := awayDatabase(t, plan{database: through}, func() {
			for range 15 {
				proxy.LoseAnswers(2)
				<-time.After(100 * time.Millisecond)
			}
			proxy.LoseAnswers(0)
		})
		return fmt.Sprintf("%d answers lost; %s", proxy.Lost(), said)
	}},
	{"11 PostgreSQL is read-only for ten seconds", readOnly},
	{"11 PostgreSQL's replica takes over", switchOver},
	{"11 PostgreSQL's disk is full", diskFull},
	{"19 rows cannot be decoded", undecodable},
}

// awayDatabase runs a bulk while the database misbehaves. Requests get 200 or 503 meanwhile and nothing else.
func awayDatabase(t *testing.T, p plan, misbehave func()) string {
	return awayDatabaseOf(t, p, func(*system) { misbehave() })
}

func awayDatabaseOf(t *testing.T, p plan, misbehave func(*system)) string {
	p.env = quickly(t, patientClaims())
	s := faulty(t, p)
	s.sim.SetLatency(30 * time.Millisecond)
	n := pick(600, 3_000)
	ids := s.load(n)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	f := s.sendBulkOf("sms", ids)
	s.reach(f.BulkID, n/4)
	stop, done := make(chan struct{}), make(chan struct{})
	answers := map[int]int{}
	sent := []string{}
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			status, body := s.try("POST", "/api/messaging/send",
				fmt.Sprintf(`{"message_data":{"recipient":"single%d@example.com","subject":"s","content":"c"}}`, i))
			answers[status]++
			if status == 200 {
				var m struct {
					MessageID string `json:"message_id"`
				}
				_ = json.Unmarshal([]byte(body), &m)
				sent = append(sent, m.MessageID)
			} else if status != 503 {
				t.Errorf("%d %s", status, body)
			}
		}
	}()
	misbehave(s)
	<-time.After(500 * time.Millisecond)
	close(stop)
	<-done
	f = s.over(f.BulkID)
	if copies := s.settled(f, n); copies != 0 || f.Sent != n || f.Unknown != 0 {
		t.Errorf("%d second copies, %+v", copies, f)
	}
	if n := s.number("SELECT count(*) FROM messages WHERE id = ANY($1)", sent); n != len(sent) {
		t.Errorf("%d singles were answered 200, the ledger knows %d of them", len(sent), n)
	}
	return fmt.Sprintf("all sent once; singles: %d answered 200, %d 503", answers[200], answers[503])
}

// inFlight deploys on a database, gets sends of a bulk and of singles under way, lets the database change meanwhile, and looks
// whether every outcome is on record.
func inFlight(t *testing.T, database string, meanwhile func()) string {
	s := faulty(t, plan{database: database, env: quickly(t, patientClaims())})
	const bulk, singles = 150, 50
	ids := s.load(bulk)
	s.start("worker", fmt.Sprintf("HERALD_WORKER_CONCURRENCY=%d", bulk))
	s.sim.SetLatency(5 * time.Second)
	f := s.sendBulkOf("sms", ids)
	answers := make([]string, singles)
	var wg sync.WaitGroup
	for i := range singles {
		wg.Go(func() {
			_, answers[i] = s.try("POST", "/api/messaging/send", fmt.Sprintf(`{"message_data":{"recipient":"single%d@example.com","subject":"s","content":"c"}}`, i))
		})
	}
	s.eventually(30*time.Second, "all sends are under way", func() bool {
		return s.number("SELECT count(*) FROM messages WHERE status = 'SENDING'") == bulk+singles
	})
	meanwhile()
	s.sim.SetLatency(0)
	wg.Wait()
	for _, a := range answers {
		if !strings.Contains(a, `"SENT"`) {
			t.Errorf("a single: %s", a)
		}
	}
	f = s.over(f.BulkID)
	if copies := s.settled(f, bulk); copies != 0 || f.Sent != bulk || s.unknowns() != 0 {
		t.Errorf("%d second copies, %d UNKNOWN, %+v", copies, s.unknowns(), f)
	}
	return fmt.Sprintf("%d sends in flight: all SENT, 0 UNKNOWN, 0 copies", bulk+singles)
}

// readOnly is a database that refuses writes for ten seconds.
func readOnly(t *testing.T) string {
	cluster := testenv.StartPostgres(t)
	return inFlight(t, cluster.Database(t), func() {
		cluster.ReadOnly(true)
		<-time.After(10 * time.Second)
		cluster.ReadOnly(false)
	})
}

// switchOver is a replica that takes the place of its primary; the programs know both addresses.
func switchOver(t *testing.T) string {
	primary := testenv.StartPostgres(t)
	replica := primary.Replica()
	return inFlight(t, primary.URLWith(replica), func() {
		primary.SwitchOver(replica)
	})
}

// diskFull is a database that reports for a while that it cannot extend the table of messages. It answers every read.
func diskFull(t *testing.T) string {
	database := sharedPostgres(t).Database(t)
	ready := func(s *system) (int, string) { return s.try("GET", "/readyz", "") }
	return awayDatabaseOf(t, plan{database: database}, func(s *system) {
		s.change(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON messages EXECUTE FUNCTION full_disk()`)
		full := time.Now()
		s.eventually(10*time.Second, "/readyz names the full disk", func() bool {
			status, body := ready(s)
			return status == 503 && strings.Contains(body, "disk full")
		})
		if took := time.Since(full); took > 5*time.Second {
			t.Errorf("/readyz names the full disk after %s", took)
		}
		if status, body := s.try("POST", "/api/messaging/send", `{"message_data":{"recipient":"full@example.com","subject":"s","content":"c"}}`); status != 503 {
			t.Errorf("a single while the disk is full: %d %s", status, body)
		}
		<-time.After(pick(time.Second, 20*time.Second))
		s.change("DROP TRIGGER full_disk ON messages")
		s.eventually(10*time.Second, "/readyz says that there is room again", func() bool {
			status, _ := ready(s)
			return status == 200
		})
	})
}

// undecodable is rows whose content or lead cannot be decoded, among others.
func undecodable(t *testing.T) string {
	s := faulty(t, plan{})
	ids := s.load(size())
	bad := ids[:5]
	s.change(`UPDATE leads SET tags = '{"a": 1}' WHERE id = ANY($1::uuid[])`, bad)
	s.start("worker")
	f := s.over(s.sendBulk(ids).BulkID)
	if f.Sent != size()-len(bad) || int(f.Reasons[message.RenderInvalid]) != len(bad) || f.Unknown != 0 {
		t.Errorf("%+v", f)
	}
	for _, id := range bad {
		if status, body := s.try("DELETE", "/api/leads/"+id, ""); status != 204 {
			t.Errorf("%d %s", status, body)
		}
	}
	return fmt.Sprintf("%d FAILED alone, %d sent, 0 UNKNOWN; they can be erased", len(bad), f.Sent)
}
