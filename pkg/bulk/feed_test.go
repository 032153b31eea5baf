package bulk_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// enqueued returns the tasks of each call that enqueued some.
func (f *fake) enqueued() (out [][]bulk.Task) {
	for _, c := range f.called("Enqueue") {
		if tasks := c.args[2].([]bulk.Task); len(tasks) > 0 {
			out = append(out, tasks)
		}
	}
	return out
}

func (f *fake) completed(b *bulk.Bulk) func() bool {
	return func() bool { return f.now(b).Final != nil }
}

// window sets a fixed window for each bulk.
func window(n int) func(d *bulk.RunnerDeps) {
	return func(d *bulk.RunnerDeps) { d.Window = n }
}

// Messages go into the queue in their order, each once, and the cursor follows them. Messages that the plan settled get no
// task, and are counted when the cursor passes them.
func TestFeedEnqueuesEachMessageOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.workers = 2
		leads := f.newLeads(3_000)
		f.leads[leads[7]] = message.Lead{ID: leads[7]} // no address
		b := f.accept(f.newChannel(0), leads, func(r *bulk.Request) { r.Priority = message.High })
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.now(b).FeedSeq == 3_000 })
		var seq int
		rows := f.rows(b)
		for _, tasks := range f.enqueued() {
			if len(tasks) > 2_000 {
				t.Errorf("%d tasks at once", len(tasks))
			}
			for _, task := range tasks {
				if seq == 7 {
					seq++
				}
				if task != (bulk.Task{MessageID: rows[seq].ID}) {
					t.Fatalf("task %d is %+v", seq, task)
				}
				seq++
			}
		}
		if seq != 3_000 {
			t.Errorf("%d messages in the queue", seq)
		}
		for _, c := range f.called("Enqueue") {
			if c.args[0] != message.Email || c.args[1] != message.High {
				t.Errorf("enqueued as %v %v", c.args[0], c.args[1])
			}
		}
		last := int64(0)
		for _, c := range f.called("Advance") {
			if next := c.args[0].(int64); next < last {
				t.Errorf("the cursor goes back from %d to %d", last, next)
			} else {
				last = next
			}
		}
		counts, ok, err := f.Read(t.Context(), b.ID)
		if err != nil || !ok || counts.Settled() != 1 {
			t.Errorf("%d messages are counted as settled, %v, %v", counts.Settled(), ok, err)
		}
		f.finish(b)
		if got := f.now(b); got.Status != bulk.Completed || got.Final.Settled() != 3_000 || f.events("completed") != 1 {
			t.Errorf("%s %d", got.Status, got.Final.Settled())
		}
		if n := len(f.enqueued()); n != len(slices.CompactFunc(f.enqueued(), func(a, b []bulk.Task) bool { return a[0] == b[0] })) {
			t.Errorf("%d calls repeat tasks", n)
		}
	})
}

// A page that was just planned is fed from memory, and only then; a bulk that was planned earlier is read from the ledger.
func TestFeedReadsTheLedgerOnlyWhereItMust(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
		if n := len(f.called("Walk")); n != 0 {
			t.Errorf("the ledger was read %d times", n)
		}
		f.finish(b)

		paused := f.newChannel(0)
		f.changed(paused, func(c *channel.Channel) { c.State = channel.Paused })
		later := f.accept(paused, f.newLeads(10))
		f.until(time.Minute, "it is parked", func() bool { return f.now(later).Planned && f.leaseOf(later) == uuid.Nil })
		f.changed(paused, func(c *channel.Channel) { c.State = channel.Active })
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
		walks := f.called("Walk")
		if len(walks) != 1 || walks[0].args[0] != later.ID || walks[0].args[1] != int64(0) || walks[0].args[2] != 10 {
			t.Errorf("the ledger was read %+v", walks)
		}
		f.finish(later)
	})
}

// A page that is read from the ledger has 2,000 messages at most.
func TestFeedReadsTheLedgerInPages(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.workers = 3 // a window of 6,000 tasks
		c := f.newChannel(0)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		b := f.accept(c, f.newLeads(5_000))
		f.start()
		f.until(time.Minute, "it is parked", func() bool { return f.now(b).Planned && f.leaseOf(b) == uuid.Nil })
		f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
		f.until(time.Minute, "all are fed", func() bool { return f.now(b).FeedSeq == 5_000 })
		var pages []string
		for _, c := range f.called("Walk") {
			pages = append(pages, fmt.Sprint(c.args[1], "+", c.args[2]))
		}
		if got := fmt.Sprint(pages); got != "[0+2000 2000+2000 4000+1000]" {
			t.Errorf("read %s", got)
		}
	})
}

// The share is filled again when a quarter of it is free.
func TestFeedRefillsByQuarters(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.accept(f.newChannel(0), f.newLeads(400))
		f.start(window(100))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 100 })
		f.deliver(24)
		pass(2 * time.Second)
		if n := f.waiting(); n != 76 {
			t.Errorf("%d tasks after 24 of 100 are done", n)
		}
		f.deliver(1)
		pass(2 * time.Second)
		if n := f.waiting(); n != 100 {
			t.Errorf("%d tasks after 25 of 100 are done", n)
		}
	})
}

// The last messages do not wait for a quarter of the window.
func TestFeedDoesNotHoldBackTheLastMessages(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(101))
		f.start(window(100))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 100 })
		f.deliver(1)
		f.until(2*time.Second, "the last one is fed", func() bool { return f.now(b).FeedSeq == 101 })
		if n := f.waiting(); n != 100 {
			t.Errorf("%d tasks", n)
		}
	})
}

// slowPages makes each page of a plan but the first take a minute.
func slowPages(f *fake) {
	f.on("Resolve", func(ctx context.Context, n int) error {
		if n == 1 {
			return nil
		}
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
}

// A bulk is fed while it is planned. It keeps its lease and does not try to finish before its last page is planned.
func TestFeedFollowsThePlan(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		slowPages(f)
		b := f.accept(f.newChannel(0), f.newLeads(1_600)) // pages of 500, 1,000 and 100
		f.start()
		for _, fed := range []int64{500, 1_500} {
			f.until(2*time.Minute, "a page is fed", func() bool { return f.now(b).FeedSeq == fed })
			f.deliver(1_000)
		}
		pass(30 * time.Second)
		if n := len(f.called("Finish")); n != 0 || len(f.called("Release")) != 0 || f.now(b).Planned {
			t.Errorf("tried to finish %d times, released %d times before the plan is complete", n, len(f.called("Release")))
		}
		f.finish(b)
		if n := len(f.called("Acquire")); n != 1 {
			t.Errorf("acquired %d times", n)
		}
	})
}

// Before the first message is fed, neither the counters nor the ledger are read.
func TestFeedReadsNothingBeforeTheFirstMessage(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		blocked := f.blockResolve(0)
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		pass(2 * time.Minute)
		for _, port := range []string{"Follow", "Read", "Walk", "Enqueue"} {
			if n := len(f.called(port)); n != 0 {
				t.Errorf("%s was called %d times", port, n)
			}
		}
		close(blocked.release)
		f.finish(b)
	})
}

// A page is enqueued first and the cursor moved then: a death in between enqueues it again. Counting comes last.
func TestFeedRepeatsAPageThatFailed(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"Enqueue", "Advance", "CountAll"} {
		t.Run(port, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				leads := f.newLeads(10)
				f.leads[leads[3]] = message.Lead{ID: leads[3]}
				f.fails(port, 2, errDown)
				b := f.accept(f.newChannel(0), leads)
				f.start()
				f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 9 })
				f.finish(b)
				if got := f.now(b).Final.Settled(); got != 10 {
					t.Errorf("%d settled", got)
				}
				if got := f.reported(); len(got) == 0 || got[0] != "feed" {
					t.Errorf("reported %v", got)
				}
			})
		})
	}
}

// The queue's failure does not stop reconciling of other bulks, and a stop of the runner ends a retry at once.
func TestStopEndsARetry(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Enqueue", func(context.Context, int) error { return errDown })
		b := f.accept(f.newChannel(0), f.newLeads(2))
		r := f.start(func(d *bulk.RunnerDeps) { d.Timing.Retry = time.Hour })
		pass(time.Second)
		began := time.Now()
		r.Stop()
		if took := time.Since(began); took > time.Millisecond || f.leaseOf(b) != uuid.Nil {
			t.Errorf("stopped after %v, the lease is %v", took, f.leaseOf(b))
		}
	})
}
