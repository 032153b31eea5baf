package app_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"herald/pkg/client"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
)

// apiRows are the rows in which the API dies.
var apiRows = []row{
	{"1 the API dies before the commit of a bulk", func(t *testing.T) string {
		s := faulty(t, plan{api: []string{at(fault.BulkInserting, "kill", 1)}})
		ids := s.load(50)
		if status, body := s.try("POST", "/api/messaging/send", s.order("email", ids)); status != 0 {
			t.Fatalf("%d %s", status, body)
		}
		s.died(s.startedAPI)
		s.startAPI()
		s.start("worker")
		if n := s.number("SELECT count(*) FROM bulks"); n != 0 {
			t.Errorf("%d bulks, none was accepted", n)
		}
		s.settled(s.over(s.sendBulk(ids).BulkID), 50)
		return "not accepted; the next request is"
	}},
	{"1 the API dies after the commit, before the answer", func(t *testing.T) string {
		s := faulty(t, plan{api: []string{at(fault.BulkInserted, "kill", 1)}})
		ids := s.load(50)
		if status, body := s.try("POST", "/api/messaging/send", s.order("email", ids)); status != 0 {
			t.Fatalf("%d %s", status, body)
		}
		s.died(s.startedAPI)
		s.start("worker")
		s.startAPI()
		var bulks []string
		for b, err := range s.api.Bulks(t.Context(), client.BulkFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			bulks = append(bulks, b.BulkID)
		}
		if len(bulks) != 1 {
			t.Fatalf("%d bulks", len(bulks))
		}
		if copies := s.settled(s.over(bulks[0]), 50); copies != 0 {
			t.Errorf("%d second copies", copies)
		}
		return "the bulk is on record and is sent, once"
	}},
	{"1 the API is killed under keyed sends that are repeated", keyedSends},
}

// keyedSends lets clients that repeat their sends under keys meet an API that is killed again and again.
func keyedSends(t *testing.T) string {
	n, kills := pick(400, 5_000), pick(4, 10)
	const clients = 24
	s := faulty(t, plan{fixed: true})
	s.load(1)
	s.sim.SetLatency(20 * time.Millisecond)
	s.start("worker")
	patient, err := client.New(s.base, client.WithRetryTimeout(2*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	answers := make([]message.Status, n)
	ids := make([]string, n)
	var done, replays atomic.Int64
	var wg sync.WaitGroup
	next := make(chan int)
	for range clients {
		wg.Go(func() {
			for i := range next {
				var replayed bool
				res, err := patient.Send(ctx, client.SendRequest{SenderType: "sms", MessageData: client.MessageData{Recipient: number(i), Content: "c"}},
					client.UnderKey(fmt.Sprintf("order %d", i)), client.Replayed(&replayed))
				if err != nil {
					t.Errorf("send %d: %v", i, err)
					continue
				}
				answers[i], ids[i] = res.Status, res.MessageID
				if done.Add(1); replayed {
					replays.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for k := range kills {
		at := int64(n * (k + 1) / (kills + 1))
		s.eventually(2*time.Minute, "sends go on between kills", func() bool { return done.Load() >= at-rand.Int64N(int64(clients)) })
		s.kill(s.startedAPI)
		s.startAPI()
	}
	wg.Wait()
	if t.Failed() {
		return ""
	}
	s.eventually(time.Minute, "every message is settled", func() bool {
		return s.number("SELECT count(*) FROM messages WHERE status NOT IN ('SENT', 'UNKNOWN')") == 0
	})
	return s.keptKeys(answers, ids, kills*clients, replays.Load())
}

func number(i int) string { return fmt.Sprintf("+1555%07d", i) }

// keptKeys checks that each key has one message, which reached its recipient at most once, and that what was answered
// is what became of it. A send may only be UNKNOWN if it was under way when the API was killed.
func (s *system) keptKeys(answers []message.Status, ids []string, most int, replays int64) string {
	s.t.Helper()
	type row struct{ ID, Recipient, Status string }
	rows := query(s, pgx.RowToStructByPos[row], "SELECT id::text, recipient, status FROM messages")
	keys := s.number("SELECT count(*) FROM idempotency_keys k JOIN messages m ON m.id = k.effect_id")
	if len(rows) != len(answers) || keys != len(answers) {
		s.t.Errorf("%d messages and %d keys for %d sends", len(rows), keys, len(answers))
	}
	status, accepted, unknown := map[string]string{}, s.sim.Times(), 0
	for _, r := range rows {
		status[r.ID] = r.Status
		switch times := accepted[r.Recipient]; {
		case times > 1:
			s.t.Errorf("%s was accepted %d times", r.Recipient, times)
		case r.Status == "UNKNOWN":
			unknown++
		case times != 1:
			s.t.Errorf("%s is %s and was accepted %d times", r.Recipient, r.Status, times)
		}
	}
	for i, a := range answers {
		if now := status[ids[i]]; now == "" || (string(a) != now && a != message.Queued) {
			s.t.Errorf("send %d was answered with %s, and is %q", i, a, now)
		}
	}
	if unknown > most {
		s.t.Errorf("%d are UNKNOWN, at most %d were under way", unknown, most)
	}
	if rep := s.sim.Report(); rep.ByProvider[simulator.Twilio] > int64(len(answers)) || len(rep.Repeated) > 0 {
		s.t.Errorf("%+v", rep)
	}
	return fmt.Sprintf("%d keyed sends, 0 twice, %d UNKNOWN, %d answered by replay", len(answers), unknown, replays)
}
