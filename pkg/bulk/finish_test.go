package bulk_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// Cancelling settles what is not being sent, lets the other messages end, and counts exactly.
func TestCancelTakesBackWhatWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(100))
		f.start(window(20))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 20 })
		f.deliver(5)
		f.settle(1, func(m *fakeMessage) { m.Status, m.claimed = message.Sending, time.Now().Add(time.Minute) })
		f.settle(1, func(m *fakeMessage) { m.Status, m.Reason, m.waiting = message.Unknown, message.UnknownOutcome, true })
		pass(time.Second) // the feed continues to the 27th message
		if _, err := f.newService().Cancel(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		before := len(f.enqueued())
		pass(time.Second)
		f.mu.Lock()
		rows := f.bulks[b.ID].rows
		for i, m := range rows {
			want := message.Cancelled
			switch {
			case i < 5:
				want = message.Sent
			case i == 5:
				want = message.Sending
			case i == 6:
				want = message.Unknown
			}
			if m.Status != want || m.waiting {
				t.Errorf("message %d is %s, waiting %v", i, m.Status, m.waiting)
			}
		}
		f.mu.Unlock()
		if f.now(b).Final != nil || len(f.enqueued()) != before {
			t.Error("it ended while a message was being sent, or more was enqueued")
		}
		pass(4 * time.Second)
		if f.leaseOf(b) != uuid.Nil {
			t.Error("its lease is kept for longer than two seconds")
		}
		released := f.called("Release")
		if last := released[len(released)-1]; last.args[1] != bulk.DefaultTiming().Stall {
			t.Errorf("released %+v", last)
		}
		f.mu.Lock()
		rows[5].Status, rows[5].cost = message.Sent, 3
		f.mu.Unlock()
		f.until(10*time.Second, "it ends", f.completed(b))
		if got := f.now(b); got.Status != bulk.Cancelled || got.Final.Settled() != 100 {
			t.Errorf("%s %d", got.Status, got.Final.Settled())
		}
	})
}

// Finishing a bulk ends its lease: the lease is neither reported as lost nor released again.
func TestFinishEndsTheLease(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("Finish", 2, errDown)
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		f.finish(b)
		pass(time.Minute)
		if f.events("left") != 0 || len(f.called("Release")) != 0 || f.events("completed") != 1 {
			t.Errorf("left %d, released %d, completed %d", f.events("left"), len(f.called("Release")), f.events("completed"))
		}
	})
}

// A message that is settled in the counters and open in the ledger keeps the bulk from ending.
func TestFinishBelievesTheLedger(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(2))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 2 })
		f.deliver(1)
		f.mu.Lock()
		f.count(b.ID, stats.MessageState{Seq: 1, Status: message.Sent}) // wrong
		f.mu.Unlock()
		pass(10 * time.Second)
		if f.now(b).Final != nil || len(f.called("Finish")) == 0 {
			t.Errorf("it has ended: %v, tried %d times", f.now(b).Final, len(f.called("Finish")))
		}
		f.finish(b)
	})
}
