package bulk_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// The counters are read soon after something was counted, every 100 ms while messages move, and once a second otherwise.
func TestFeedReadsCountersAsOftenAsTheyChange(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.accept(f.newChannel(0), f.newLeads(100))
		r := f.start(window(50), func(d *bulk.RunnerDeps) { d.Timing.Stall = time.Hour; d.Timing.Reconcile = time.Hour })
		reads := func(d time.Duration) int {
			before := len(f.called("Follow"))
			pass(d)
			return len(f.called("Follow")) - before
		}
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 50 })
		pass(10 * time.Second)
		if n := reads(10 * time.Second); n != 10 {
			t.Errorf("%d reads in 10 s without movement", n)
		}
		if n := reads(time.Hour) / 3_600; n != 1 {
			t.Errorf("%d reads a second", n)
		}
		f.deliver(5)
		pass(time.Second)
		if n := reads(200 * time.Millisecond); n < 1 || n > 3 {
			t.Errorf("%d reads in 200 ms while messages move", n)
		}
		pass(10 * time.Second)
		f.deliver(1)
		before := len(f.called("Follow"))
		for id := range f.queued() {
			r.NotifyCounted(id)
		}
		r.NotifyCounted(uuid.New())
		pass(5 * time.Millisecond)
		if n := len(f.called("Follow")) - before; n < 1 {
			t.Errorf("%d reads within 5 ms of a count", n)
		}
	})
}

// The pause between two reads of the counters doubles from 5 to 100 ms while messages move, and to 1 s afterwards.
func TestFeedReadsCountersAtDoublingIntervals(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.accept(f.newChannel(0), f.newLeads(100))
		f.start(window(50), func(d *bulk.RunnerDeps) { d.Timing.Stall, d.Timing.Reconcile = time.Hour, time.Hour })
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 50 })
		pass(10 * time.Second)
		f.deliver(5)
		before := len(f.called("Follow"))
		pass(5 * time.Second)
		reads := f.called("Follow")[before:]
		var gaps []string
		for i := range reads[1:] {
			gaps = append(gaps, fmt.Sprint(reads[i+1].at.Sub(reads[i].at)))
		}
		want := "[5ms 10ms 20ms 40ms 80ms 100ms 100ms 100ms 100ms 100ms 100ms 100ms 100ms 100ms 100ms 200ms 400ms 800ms 1s]"
		if got := fmt.Sprint(gaps); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	})
}

// Counters expire in Redis. A running bulk extends the expiry once an hour.
func TestFeedKeepsTheCounters(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(2))
		f.start()
		pass(59 * time.Minute)
		if n := len(f.called("Keep")); n != 0 {
			t.Errorf("kept %d times within the hour", n)
		}
		pass(64 * time.Minute)
		if n := len(f.called("Keep")); n != 2 {
			t.Errorf("kept %d times in two hours", n)
		}
		f.finish(b)
		if n := len(f.called("Keep")); n != 3 {
			t.Errorf("kept %d times with the end of the bulk", n)
		}
	})
}

// A bulk that ends at once does not extend the expiry of its counters: they are new.
func TestFeedDoesNotKeepNewCounters(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(2))
		f.start()
		f.finish(b)
		if n := len(f.called("Keep")); n != 0 {
			t.Errorf("kept %d times", n)
		}
	})
}

// Counters that are lost are rebuilt from all messages that were fed, and every message that waits is enqueued again.
func TestFeedRebuildsLostCounters(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(200))
		f.start(window(100))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 100 })
		f.deliver(30)
		pass(2 * time.Second)
		f.mu.Lock()
		delete(f.counts, b.ID)
		f.mu.Unlock()
		f.dropTasks()
		fed := f.now(b).FeedSeq
		f.until(5*time.Second, "the counters are back", func() bool {
			c, ok, err := f.Read(t.Context(), b.ID)
			return err == nil && ok && c.Settled() == 30
		})
		f.until(5*time.Second, "what waited is in the queue again", func() bool { return f.waiting() == int(fed)-30 })
		f.finish(b)
		if got := f.now(b).Final; got.Settled() != 200 || got.Cost != 600 {
			t.Errorf("%+v", got)
		}
	})
}

// Redis that is restored to an older state has fewer settled messages than the ledger.
func TestFeedRebuildsCountersOfAnOlderTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
		f.deliver(9)
		f.until(time.Minute, "they are behind the cursor", func() bool { return f.now(b).SettledSeq == 9 })
		f.mu.Lock()
		clear(f.counts[b.ID])
		f.mu.Unlock()
		f.until(time.Minute, "the counters are whole", func() bool {
			c, ok, err := f.Read(t.Context(), b.ID)
			return err == nil && ok && c.Settled() == 9
		})
		f.finish(b)
	})
}

// Only rows below the cursor are counted: those above are counted when they are fed.
func TestFeedCountsNothingAboveItsCursor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(40)
		f.leads[leads[30]] = message.Lead{ID: leads[30]}
		b := f.accept(f.newChannel(0), leads)
		f.start(window(20))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 20 })
		f.mu.Lock()
		delete(f.counts, b.ID)
		f.mu.Unlock()
		pass(10 * time.Second)
		for _, c := range f.called("CountAll") {
			for _, m := range c.args[1].([]stats.MessageState) {
				t.Errorf("message %d is counted, the cursor is at 20", m.Seq)
			}
		}
	})
}
