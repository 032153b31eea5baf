package bulk_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// leasedBulks returns how many bulks have a lease.
func (f *fake) leasedBulks() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.bulks {
		if !b.free() {
			n++
		}
	}
	return n
}

// acceptMany accepts n bulks to the same leads.
func (f *fake) acceptMany(n int, c *channel.Channel, leads []uuid.UUID, change ...func(r *bulk.Request)) (bulks []*bulk.Bulk) {
	f.t.Helper()
	for range n {
		bulks = append(bulks, f.accept(c, leads, change...))
	}
	return bulks
}

func (f *fake) untilPlanned(bulks ...*bulk.Bulk) {
	f.t.Helper()
	for _, b := range bulks {
		f.until(time.Minute, "it is planned", f.planned(b))
	}
}

// deliverAll delivers every message of one bulk as its tasks arrive, and leaves the tasks of other bulks in the queue.
func (f *fake) deliverAll(b *bulk.Bulk) {
	f.t.Helper()
	f.until(time.Minute, "its messages are delivered", func() bool {
		f.deliverOf(b)
		return f.now(b).Final != nil
	})
}

// Bulks of a paused channel are planned and parked. The only statement executed for them is the look for work, until the
// channel is active again.
func TestFaultBulksOfAPausedChannelAreParked(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		const n = 30
		c := f.newChannel(0)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		bulks := f.acceptMany(n, c, f.newLeads(2))
		f.start()
		f.untilPlanned(bulks...)
		f.until(time.Minute, "no bulk has a lease", func() bool { return f.leasedBulks() == 0 })
		acquired, looked := len(f.called("Acquire")), len(f.called("Running"))
		pass(21 * time.Second)
		if n := len(f.called("Running")) - looked; n < 20 {
			t.Errorf("%d looks in 21 s", n)
		}
		if n := len(f.called("Acquire")) - acquired; n != 0 {
			t.Errorf("parked bulks were acquired %d times", n)
		}
		if f.waiting() != 0 {
			t.Errorf("%d tasks of a paused channel", f.waiting())
		}
		f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 2*n })
		f.finish(bulks...)
	})
}

// A channel with a rate has few slots, independent of the number of its bulks. They delay no bulk of another channel, and each
// gets its turn.
func TestFaultSlotsBelongToAChannel(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		const n, maxTasks = 25, 20
		slow := f.acceptMany(n, f.newChannel(1), f.newLeads(3))
		f.start()
		f.untilPlanned(slow...)
		f.until(time.Minute, "the slow channel's window is in use", func() bool { return f.waiting() >= 6 })
		if n := f.waiting(); n > maxTasks {
			t.Fatalf("%d tasks of a channel with a rate of 1", n)
		}
		other := f.accept(f.newChannel(0), f.newLeads(5))
		f.deliverAll(other)
		if n := f.leasedBulks(); n > 10 {
			t.Errorf("%d bulks of the slow channel have a lease", n)
		}
		for done := 0; done < 3*n; {
			f.until(time.Minute, "the next bulks are fed", func() bool { return f.waiting() > 0 })
			if n := f.waiting(); n > maxTasks {
				t.Fatalf("%d tasks of a channel with a rate of 1", n)
			}
			done += f.deliver(maxTasks)
		}
		f.finish(slow...)
	})
}

// A small bulk does not wait for the end of larger ones that were accepted before and could fill every slot of its channel.
func TestFaultASmallBulkDoesNotWaitBehindLargeOnes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(1) // two slots of ten tasks
		large := f.acceptMany(3, c, f.newLeads(120))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Stall, d.Timing.Reconcile = time.Hour, time.Hour })
		f.untilPlanned(large...)
		small := f.accept(c, f.newLeads(4))
		delivered := 0
		for f.now(small).Final == nil {
			delivered += f.deliver(10)
			pass(2 * time.Second)
		}
		if delivered > 120 {
			t.Errorf("%d messages were delivered before the small bulk ended", delivered)
		}
		f.finish(large...)
		tasks := map[uuid.UUID]int{}
		for _, page := range f.enqueued() {
			for _, task := range page {
				if tasks[task.MessageID]++; tasks[task.MessageID] > 1 {
					t.Fatalf("%s was enqueued %d times", task.MessageID, tasks[task.MessageID])
				}
			}
		}
	})
}

// Bulks whose open messages all wait for a resend occupy neither a slot nor a lease.
func TestFaultBulksThatWaitForAResendAreParked(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		const n = 66 // a channel has 64 slots
		c := f.newChannel(0)
		bulks := f.acceptMany(n, c, f.newLeads(1))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Reconcile = time.Hour })
		unknown := 0
		f.until(time.Minute, "each has a message that is UNKNOWN", func() bool {
			unknown += f.settle(n, func(m *fakeMessage) { m.Status, m.Reason, m.waiting = message.Unknown, message.UnknownOutcome, true })
			return unknown == n
		})
		f.until(time.Minute, "no bulk has a lease", func() bool { return f.leasedBulks() == 0 })
		f.deliverAll(f.accept(c, f.newLeads(5)))
		for _, b := range bulks {
			if got := f.now(b); got.Status != bulk.Processing || got.Final != nil {
				t.Fatalf("%s, %+v", got.Status, got.Final)
			}
		}
	})
}

// Bulks with expensive audiences are planned one at a time. They delay neither other bulks of their channel nor bulks that are
// planned while their channel is paused.
func TestFaultExpensiveAudiencesDelayNoOther(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, paused := f.newChannel(0), f.newChannel(0)
		f.changed(paused, func(c *channel.Channel) { c.State = channel.Paused })
		expensive := f.acceptMany(66, c, f.newLeads(1), words(200)) // a channel has 64 slots
		blocked := f.blockResolve(200)
		f.start()
		f.until(time.Minute, "one is being planned", func() bool { return len(f.called("Resolve")) > 0 })
		for range 3 {
			f.deliverAll(f.accept(c, f.newLeads(4)))
		}
		f.untilPlanned(f.accept(paused, f.newLeads(2)))
		if blocked.most != 1 {
			t.Errorf("%d expensive pages at a time", blocked.most)
		}
		close(blocked.release)
		f.finish(expensive...)
	})
}

// leasedElsewhere accepts bulks that another process runs.
func (f *fake) leasedElsewhere(n int, c *channel.Channel) {
	f.t.Helper()
	for _, b := range f.acceptMany(n, c, f.newLeads(1)) {
		f.mu.Lock()
		row := f.bulks[b.ID]
		row.token, row.expires = uuid.New(), time.Now().Add(time.Hour)
		f.mu.Unlock()
	}
}

// Bulks of other processes have a share of the window, too: those of the channel, or without a rate those of all channels.
func TestOtherProcessesHaveAShareOfTheWindow(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]int{40: 60 / 4, 0: 2_000 / 4} {
		inBubble(t, func(t *testing.T, f *fake) {
			c, other := f.newChannel(rate), f.newChannel(rate)
			if rate > 0 {
				other = c
			}
			f.leasedElsewhere(3, other)
			f.accept(c, f.newLeads(3_000))
			f.start()
			pass(20 * time.Second) // the share is known with the look after the lease
			f.deliver(f.waiting())
			pass(5 * time.Second)
			if n := f.waiting(); n != want {
				t.Errorf("rate %v: %d tasks, the share is %d", rate, n, want)
			}
		})
	}
}

// When no bulk waits any more, the others keep their slots for longer than a time slice.
func TestASlotIsKeptAfterTheWait(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0.5) // two slots
		large := f.acceptMany(2, c, f.newLeads(2_000))
		f.start()
		f.untilPlanned(large...)
		small := f.accept(c, f.newLeads(5))
		deliver := func(n int) {
			for range n {
				pass(100 * time.Millisecond)
				f.deliver(3)
			}
		}
		for f.now(small).Final == nil {
			deliver(1)
		}
		deliver(50)
		before := len(f.called("Release"))
		deliver(200)
		if n := len(f.called("Release")) - before; n != 0 {
			t.Errorf("released %d times although no bulk waits", n)
		}
	})
}

// A run reads its channel once a second, also when the runner looks for bulks less often.
func TestAPauseIsNoticedWithinASecond(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		f.accept(c, f.newLeads(100))
		f.start(window(20), func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 20 })
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		pass(2 * time.Second) // a second until the channel is read, and one until the counters are
		f.deliver(10)
		pass(2 * time.Second)
		if n := f.waiting(); n != 10 {
			t.Errorf("%d tasks: the window was filled during the pause", n)
		}
	})
}

// Bulks that start together share the window from the start, before a look has seen their leases.
func TestTheWindowIsSharedFromTheStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.acceptMany(3, f.newChannel(40), f.newLeads(200)) // a window of 60 tasks
		f.start()
		pass(900 * time.Millisecond) // the second look is a second after the first
		queued := f.queued()
		for _, n := range queued {
			if n != 20 || len(queued) != 3 {
				t.Errorf("%d tasks of a bulk, %d bulks with tasks", n, len(queued))
			}
		}
	})
}

// A page has at least a quarter of its bulk's share, also when the rest of the window is smaller than the rest of the share. Only
// the last page of a bulk may be smaller.
func TestPagesAreNotSmallerThanAQuarter(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		bulks := f.acceptMany(6, f.newChannel(0.5), f.newLeads(60)) // a window of 20 tasks, shares of 10
		f.start()
		f.untilPlanned(bulks...)
		for range 2_000 {
			pass(50 * time.Millisecond)
			f.deliver(1)
		}
		for _, page := range f.enqueued() {
			if m := f.byID[page[len(page)-1].MessageID]; len(page) < 2 && m.seq != 59 {
				t.Fatalf("a page of %d tasks ends with message %d", len(page), m.seq)
			}
		}
	})
}
