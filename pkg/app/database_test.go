package app_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/app"
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
