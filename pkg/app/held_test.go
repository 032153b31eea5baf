package app_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/queue"
)

// tasks counts the tasks of emails in every queue and state.
func (s *system) tasks() (n int64) {
	s.t.Helper()
	for name := range queue.QueuesOf(message.Email) {
		depth, err := s.q.Depth(s.t.Context(), name)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, d := range depth {
			n += d
		}
	}
	return n
}

// Singles of a paused channel have one task each, after any number of sweeps, and are sent when the channel is resumed.
func TestFaultHeldSinglesKeepTheirTasks(t *testing.T) {
	t.Parallel()
	s := faulty(t, plan{})
	s.load(1)
	s.start("worker")
	s.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Unavailable, RetryIn: 1})
	const singles = 3
	for i := range singles {
		if status, body := s.try("POST", "/api/messaging/send", fmt.Sprintf(`{"message_data":{"recipient":"held%d@example.com","subject":"s","content":"c"}}`, i)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	s.patch("/api/channels/"+mailChannel+"/email", `{"state":"PAUSED"}`)
	s.sim.Script()
	before := s.sim.Report().Accepted
	swept := s.number("SELECT count(*) FROM messages WHERE status = 'QUEUED'")
	if swept != singles {
		t.Fatalf("%d singles wait", swept)
	}
	// The sweep moves next_attempt_at each time it has looked at a row.
	looks, last := 0, ""
	s.eventually(pick(2*time.Minute, 10*time.Minute), "the sweep looks at the singles again and again", func() bool {
		now := query(s, pgx.RowTo[string], "SELECT max(next_attempt_at)::text FROM messages WHERE status = 'QUEUED'")[0]
		if now != last {
			looks, last = looks+1, now
		}
		if tasks := s.tasks(); tasks > singles {
			t.Fatalf("%d tasks for %d singles after %d looks", tasks, singles, looks)
		}
		return looks > pick(6, 100)
	})
	if after := s.sim.Report().Accepted; after != before {
		t.Errorf("%d were sent over a paused channel", after-before)
	}
	s.patch("/api/channels/"+mailChannel+"/email", `{"state":"ACTIVE"}`)
	s.eventually(time.Minute, "the singles are sent", func() bool {
		return s.number("SELECT count(*) FROM messages WHERE status = 'SENT'") == singles
	})
}
