package bulk_test

import (
	"fmt"
	"testing"
	"time"

	"herald/pkg/bulk"
	"herald/pkg/message"
)

// A count that was lost is found when nothing has moved for Stall, and then at growing intervals up to Reconcile.
func TestFeedReconcilesABulkThatStalls(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
		began := time.Now()
		pass(3 * time.Minute)
		var gaps []string
		last := began
		for _, c := range f.called("Walk") {
			gaps = append(gaps, fmt.Sprint(c.at.Sub(last).Truncate(5*time.Second)))
			last = c.at
			if c.args[1] != int64(0) || c.args[2] != 5_000 {
				t.Errorf("walked from %v, %v rows", c.args[1], c.args[2])
			}
		}
		if got := fmt.Sprint(gaps); got != "[5s 10s 20s 30s 30s 30s 30s]" {
			t.Errorf("reconciled after %s", got)
		}
		f.finish(b)
	})
}

// While messages move a bulk is reconciled every Reconcile.
func TestFeedReconcilesABulkThatMoves(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(100))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Reconcile = 20 * time.Second })
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 100 })
		for range 65 {
			f.deliver(1)
			pass(time.Second)
		}
		walks := f.called("Walk")
		if len(walks) != 3 {
			t.Fatalf("%d walks in 65 s", len(walks))
		}
		if from := walks[1].args[1].(int64); from < 15 || from > 22 {
			t.Errorf("the second walk begins at %d: settled messages are read again", from)
		}
		if got := f.now(b).SettledSeq; got < 55 || got > 62 {
			t.Errorf("the cursor of settled messages is at %d", got)
		}
		f.finish(b)
	})
}

// The cursor of settled messages stops at the first that is not over.
func TestFeedStopsItsCursorAtAnOpenMessage(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(m *fakeMessage){
		"pending": func(*fakeMessage) {},
		"sending": func(m *fakeMessage) { m.Status, m.claimed = message.Sending, time.Now().Add(time.Hour) },
		"waiting": func(m *fakeMessage) { m.Status, m.Reason, m.waiting = message.Unknown, message.UnknownOutcome, true },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				b := f.accept(f.newChannel(0), f.newLeads(10))
				f.start()
				f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
				f.deliver(4)
				f.settle(1, open)
				f.deliver(3)
				pass(time.Minute)
				if got := f.now(b).SettledSeq; got != 4 {
					t.Errorf("the cursor is at %d", got)
				}
				if len(f.called("BeginRebuild")) > 0 {
					t.Error("the counters were rebuilt although none is missing")
				}
			})
		})
	}
}

// A message whose task vanished is enqueued again when it is seen PENDING a second time, not earlier: it may wait its turn.
func TestFeedEnqueuesAMessageThatStaysPending(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
		f.deliver(4)
		f.dropTasks()
		pass(8 * time.Second)
		if n := f.waiting(); n != 0 {
			t.Errorf("%d tasks after the first look", n)
		}
		pass(20 * time.Second)
		if n := f.waiting(); n != 6 {
			t.Errorf("%d tasks after the second look", n)
		}
		f.finish(b)
	})
}

// Reconciling counts what was settled and not counted, and leaves messages to another process that holds them.
func TestFeedRepairsWhatWasLost(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(4))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 4 })
		f.mu.Lock()
		rows := f.bulks[b.ID].rows
		rows[0].Status = message.Sent // not counted
		rows[1].Status, rows[1].claimed = message.Sending, time.Now().Add(time.Hour)
		rows[2].Status, rows[2].claimed = message.Sending, time.Now().Add(-time.Second)
		f.queue = f.queue[3:]
		f.mu.Unlock()
		pass(10 * time.Second)
		rescued := f.called("Rescue")
		if len(rescued) != 1 || rescued[0].args[0] != rows[2].ID {
			t.Errorf("rescued %+v", rescued)
		}
		c, _, err := f.Read(t.Context(), b.ID)
		if err != nil || c.Settled() != 1 {
			t.Errorf("%d counted after the first look, %v", c.Settled(), err)
		}
		pass(20 * time.Second)
		if c, _, err = f.Read(t.Context(), b.ID); err != nil || c.Settled() != 2 {
			t.Errorf("%d counted after the second look, %v", c.Settled(), err)
		}
	})
}
