package bulk_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

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
