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
	"herald/pkg/stats"
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

// Counters expire in Redis. A bulk that runs longer than that puts the end off once an hour.
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

// Redis that comes back with an older state knows fewer ended messages than the ledger.
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

// While a channel is paused neither the feed nor a reconciliation enqueues tasks. After the resume every PENDING message is
// enqueued, because workers drop the tasks of a paused channel.
func TestFeedRespectsAPausedChannel(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		b := f.accept(c, f.newLeads(100))
		f.start(window(40))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 40 })
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		pass(2 * time.Second)
		f.settle(5, func(m *fakeMessage) { m.Status, m.claimed = message.Sending, time.Now().Add(time.Hour) })
		f.dropTasks()
		before := len(f.enqueued())
		pass(5 * time.Minute)
		if n := len(f.enqueued()) - before; n != 0 || f.waiting() != 0 {
			t.Errorf("%d pages of tasks over a paused channel", n)
		}
		f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
		f.until(time.Minute, "what waited is enqueued", func() bool { return f.waiting() >= 35 })
		if fed := f.now(b).FeedSeq; f.waiting() != int(fed)-5 {
			t.Errorf("%d tasks of %d messages that were fed", f.waiting(), fed)
		}
	})
}

// A bulk that can do nothing gives its lease back, and says when to look at it again.
func TestFeedParks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		fed  func(f *fake) // what becomes of the ten messages in the queue
		want time.Duration
	}{
		{"a message is resent later", func(f *fake) {
			f.deliver(9)
			f.settle(1, func(m *fakeMessage) { m.Status, m.Reason, m.waiting = message.Unknown, message.UnknownOutcome, true })
		}, bulk.DefaultTiming().Reconcile},
		{"the channel is paused with messages in flight", func(f *fake) {
			for _, c := range f.channels {
				f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
			}
		}, bulk.DefaultTiming().Reconcile},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				b := f.accept(f.newChannel(0), f.newLeads(10))
				f.start()
				f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 10 })
				c.fed(f)
				f.until(10*time.Second, "it is parked", func() bool { return f.leaseOf(b) == uuid.Nil })
				released := f.called("Release")
				if len(released) != 1 || released[0].args[1] != c.want {
					t.Errorf("released %+v, want to be due again after %v", released, c.want)
				}
				pass(5 * c.want)
				if n := len(f.called("Acquire")); n < 4 || n > 6 {
					t.Errorf("acquired %d times", n)
				}
			})
		})
	}
}

// A bulk that waits for a slot, or for a paused channel without messages in flight, is due again at once.
func TestFeedParksWithoutDelay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		b := f.accept(c, f.newLeads(10))
		f.start()
		f.until(time.Minute, "it is parked", func() bool { return f.now(b).Planned && f.leaseOf(b) == uuid.Nil })
		released := f.called("Release")
		if len(released) != 1 || released[0].args[1] != time.Duration(0) {
			t.Errorf("released %+v", released)
		}
	})
}

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

// Finishing ends the lease by itself, which is neither a loss nor released once more.
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

// A message that the counters hold for settled and the ledger for open keeps the bulk from ending.
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

// While no message was fed, the counters and the ledger have nothing to say.
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

// A channel that is active again while its bulk is still planned: workers dropped the bulk's tasks during the pause, so all of
// them are enqueued at once. Without that, two looks would pass before.
func TestFeedEnqueuesAgainAfterAPauseDuringThePlan(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		slowPages(f)
		c := f.newChannel(0)
		b := f.accept(c, f.newLeads(600))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Stall = time.Hour; d.Timing.Reconcile = time.Hour })
		f.until(time.Minute, "the first page is fed", func() bool { return f.now(b).FeedSeq == 500 })
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		pass(3 * time.Second)
		f.dropTasks()
		f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
		f.until(3*time.Second, "the first page is in the queue again", func() bool { return f.waiting() == 500 })
		if f.now(b).Planned || f.events("left") != 0 || len(f.called("Release")) != 0 {
			t.Error("the bulk was parked or planned meanwhile")
		}
		f.finish(b)
	})
}

// A bulk of a paused channel with messages in flight and others that are not fed yet is reconciled every Timing.Reconcile, so that
// expired claims are rescued during the pause.
func TestFeedReconcilesDuringAPause(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		b := f.accept(c, f.newLeads(30))
		f.start(window(10))
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 10 })
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		f.until(10*time.Second, "it is parked", func() bool { return f.leaseOf(b) == uuid.Nil })
		f.settle(1, func(m *fakeMessage) { m.Status, m.claimed = message.Sending, time.Now().Add(time.Minute) })
		pass(2 * time.Minute)
		if n := len(f.called("Rescue")); n != 1 {
			t.Errorf("rescued %d times during the pause", n)
		}
		if n := len(f.called("Acquire")); n < 4 || n > 6 {
			t.Errorf("acquired %d times in two minutes", n)
		}
	})
}
