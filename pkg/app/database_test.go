package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"herald/pkg/app"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// inFlight deploys on a database, gets sends of a bulk and of singles under way, lets the database change meanwhile, and looks
// whether every outcome is on record.
func inFlight(t *testing.T, database string, meanwhile func()) string {
	timing := quick()
	timing.Delivery.Claim, timing.Delivery.Stale = app.DefaultTiming().Delivery.Claim, app.DefaultTiming().Delivery.Stale
	b, err := json.Marshal(timing)
	if err != nil {
		t.Fatal(err)
	}
	s := faulty(t, plan{database: database, env: []string{"HERALD_TIMING=" + string(b)}})
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
	testenv.Eventually(t, 30*time.Second, "all sends are under way", func() bool {
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
	return inFlight(t, fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable", primary.Addr, replica.Addr), func() {
		primary.SwitchOver(replica)
	})
}

// change runs a statement on the deployment's database.
func (s *system) change(sql string, args ...any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// diskFull is a database that reports for a while that it cannot extend the table of messages. It answers every read.
func diskFull(t *testing.T) string {
	database := matrix.cluster.Database(t)
	conn := func(sql string) {
		(&system{t: t, database: database}).change(sql)
	}
	ready := func(s *system) (int, string) { return s.try("GET", "/readyz", "") }
	return awayDatabaseOf(t, plan{database: database}, func(s *system) {
		conn(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON messages EXECUTE FUNCTION full_disk()`)
		full := time.Now()
		testenv.Eventually(t, 10*time.Second, "/readyz names the full disk", func() bool {
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
		conn("DROP TRIGGER full_disk ON messages")
		testenv.Eventually(t, 10*time.Second, "/readyz says that there is room again", func() bool {
			status, _ := ready(s)
			return status == 200
		})
	})
}

// poison is a message whose rendering ends the process.
func poison(t *testing.T) string {
	s := faulty(t, plan{})
	ids := s.load(20)
	s.patch("/api/channels/"+textChannel+"/sms", `{"rate_per_second":50}`) // rendered before it is claimed
	f := s.sendBulkOf("sms", ids[:1])
	var deaths int
	for range 2 {
		s.died(s.start("worker", at(fault.MessageRendering, "kill", 1)))
		deaths++
	}
	s.start("worker")
	f = s.over(f.BulkID)
	if f.Reasons[message.RenderCrashed] != 1 || f.Failed != 1 {
		t.Errorf("%+v", f)
	}
	others := s.over(s.sendBulkOf("sms", ids[1:]).BulkID)
	if copies := s.settled(others, 19); copies != 0 || others.Sent != 19 {
		t.Errorf("%d second copies, %+v", copies, others)
	}
	return fmt.Sprintf("FAILED render_crashed after %d deaths; the third worker lives", deaths)
}

// channelDeleted deletes a channel over one API process while another one has it cached, and behind the back of a running bulk.
func channelDeleted(t *testing.T) string {
	s := faulty(t, plan{})
	ids := s.load(40)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=2")
	port := testenv.FreePort(t)
	other := *s
	other.base = fmt.Sprintf("http://127.0.0.1:%d", port)
	s.start("api", fmt.Sprintf("HERALD_LISTEN=127.0.0.1:%d", port))
	testenv.Eventually(t, 30*time.Second, "the second API is ready", func() bool {
		status, _ := other.try("GET", "/readyz", "")
		return status == 200
	})
	single := fmt.Sprintf(`{"sender_identifier":%q,"sender_type":"sms","message_data":{"recipient":"+15550009999","content":"c"}}`, textChannel)
	if status, body := other.try("POST", "/api/messaging/send", single); status != 200 { // it has the channel cached now
		t.Fatalf("%d %s", status, body)
	}
	if status, body := s.try("DELETE", "/api/channels/"+textChannel+"/sms", ""); status != 204 {
		t.Fatalf("%d %s", status, body)
	}
	for _, body := range []string{single, s.order("sms", ids)} {
		if status, answer := other.try("POST", "/api/messaging/send", body); status != 404 && status != 422 {
			t.Errorf("accepted over a deleted channel: %d %s", status, answer)
		}
	}
	if n := s.number("SELECT count(*) FROM bulks"); n != 0 {
		t.Errorf("%d bulks", n)
	}
	s.sim.SetLatency(200 * time.Millisecond)
	f := s.sendBulk(ids)
	s.reach(f.BulkID, 2)
	s.change("DELETE FROM channels WHERE id = $1 AND type = 'EMAIL'", mailChannel)
	f = s.over(f.BulkID)
	if f.Sent+int(f.Reasons[message.ChannelDeleted]) != 40 || f.Reasons[message.ChannelDeleted] == 0 {
		t.Errorf("%+v", f)
	}
	if status, body := s.try("GET", "/api/messaging/bulk", ""); status != 200 {
		t.Errorf("the list of bulks: %d %s", status, body)
	}
	return fmt.Sprintf("not accepted over it; of a bulk under way %d were sent, %d FAILED channel_deleted", f.Sent, f.Reasons[message.ChannelDeleted])
}

// erased erases leads while a bulk to them is planned, fed, sent, resent and cancelled.
func erased(t *testing.T) string {
	s := faulty(t, plan{})
	n := pick(400, 3_000)
	ids := s.load(n)
	s.sim.SetLatency(20 * time.Millisecond)
	s.sim.Script(simulator.Rule{Recipient: "7@", Fault: simulator.ErrorAfter, Times: n / 20}, simulator.Rule{Recipient: "3@", Fault: simulator.Unavailable, Times: n / 20})
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	f := s.sendBulk(ids)
	gone := ids[:n/2]
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for _, id := range gone[part*len(gone)/4 : (part+1)*len(gone)/4] {
				if status, body := s.try("DELETE", "/api/leads/"+id, ""); status != 204 {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
	wg.Wait()
	f = s.over(f.BulkID)
	s.settledErased(f, n)
	left := s.number(`SELECT count(*) FROM messages WHERE lead_id = ANY($1::uuid[]) AND (recipient <> '' OR address_hash IS NOT NULL OR content IS NOT NULL)`, gone)
	if left != 0 || s.number("SELECT count(*) FROM leads WHERE id = ANY($1::uuid[])", gone) != 0 {
		t.Errorf("%d messages still name an erased lead", left)
	}
	return fmt.Sprintf("%d leads erased under way: %d of %d sent, %d SKIPPED erased, none readable", len(gone), f.Sent, n, f.Reasons[message.Erased])
}

// settledErased compares a bulk with its rows where erased ones have no recipient. Leads that were erased before they were planned
// are not among them.
func (s *system) settledErased(f figures, n int) {
	s.t.Helper()
	if open := s.number("SELECT count(*) FROM messages WHERE status IN ('PENDING', 'QUEUED', 'SENDING')"); open != 0 || f.Total > n || f.Sent+f.Failed != f.Total {
		s.t.Errorf("%d open messages, %+v", open, f)
	}
	if sent := s.number("SELECT count(*) FROM messages WHERE status = 'SENT'"); sent != f.Sent {
		s.t.Errorf("%d SENT, the figures say %d", sent, f.Sent)
	}
	for who, times := range s.sim.Report().Repeated {
		if times > 2 {
			s.t.Errorf("%s was called %d times", who, times)
		}
	}
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
