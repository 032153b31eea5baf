package bulk_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
)

// A channel's window follows its rate, 1.5 seconds of it and at least 20; without a rate it follows the workers, 2,000 each
// and 20,000 at most. It is shared by the bulks of the channel, or, without a rate, by all bulks.
func TestWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		rate    float64
		workers int
		bulks   int
		want    int // tasks in the queue
		each    int // tasks of one bulk at most
	}{
		{"one bulk without a rate", 0, 1, 1, 2_000, 2_000},
		{"two workers", 0, 2, 1, 4_000, 4_000},
		{"many workers", 0, 100, 1, 20_000, 20_000},
		{"no worker is known", 0, 0, 1, 2_000, 2_000},
		{"two bulks without a rate", 0, 1, 2, 2_000, 2_000},
		{"a rate", 100, 1, 1, 150, 150},
		{"a rate with a fraction", 99.1, 1, 1, 149, 149},
		{"a low rate", 0.5, 1, 1, 20, 20},
		{"three bulks with a rate", 40, 1, 3, 60, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				f.workers = c.workers
				ch, leads := f.newChannel(c.rate), f.newLeads(c.want+500)
				for range c.bulks {
					f.accept(ch, leads)
				}
				f.start()
				pass(30 * time.Second)
				if n := f.waiting(); n > c.want || n < c.want*3/4 {
					t.Errorf("%d tasks are in the queue, the window is %d", n, c.want)
				}
				if c.bulks == 1 && c.want <= 2_000 && f.waiting() != c.want {
					t.Errorf("one bulk fills %d of %d", f.waiting(), c.want)
				}
			})
		})
	}
}

// Each bulk gets its share of a channel's window, and no less than ten tasks.
func TestFaultTheWindowIsSharedEvenly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate        float64
		bulks       int
		least, most int // tasks of a bulk in the queue
		running     int // bulks with tasks
	}{
		{80, 3, 30, 40, 3},  // 120 tasks, 40 each
		{20, 10, 7, 10, 3},  // 30 tasks: three slots
		{0.1, 10, 7, 10, 2}, // 20 tasks: two slots
	} {
		inBubble(t, func(t *testing.T, f *fake) {
			ch, leads := f.newChannel(c.rate), f.newLeads(200)
			for range c.bulks {
				b := f.accept(ch, leads)
				f.bulks[b.ID].Planned = false
			}
			f.start(func(d *bulk.RunnerDeps) { d.Timing.TimeSlice = time.Hour })
			for range 20 { // the first may have filled the window before the others came
				pass(2 * time.Second)
				f.deliver(5)
			}
			pass(5 * time.Second)
			queued := f.queued()
			if len(queued) != c.running {
				t.Errorf("rate %v: %d bulks have tasks, want %d", c.rate, len(queued), c.running)
			}
			for _, n := range queued {
				if n < c.least || n > c.most {
					t.Errorf("rate %v: a bulk has %d tasks, want %d to %d", c.rate, n, c.least, c.most)
				}
			}
		})
	}
}

// The bulks of a channel never have more tasks in the queue than its window, also while they come and go.
func TestTheWindowIsNeverExceeded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		ch, leads := f.newChannel(40), f.newLeads(150) // 60 tasks, 6 slots
		var bulks []*bulk.Bulk
		f.start()
		most := 0
		for i := range 400 {
			if i%20 == 0 {
				bulks = append(bulks, f.accept(ch, leads))
			}
			f.deliver(13)
			pass(50 * time.Millisecond)
			most = max(most, f.waiting())
		}
		if most > 60 || most < 50 {
			t.Errorf("%d tasks at most, the window is 60", most)
		}
		f.finish(bulks...)
	})
}

// The tasks of a run that ended do not count against the window of its channel any more: the next run counts them itself.
func TestARunThatEndsLeavesTheWindow(t *testing.T) {
	t.Parallel()
	inBubble(t, func(_ *testing.T, f *fake) {
		c := f.newChannel(40) // a window of 60 tasks
		b := f.accept(c, f.newLeads(200))
		f.start()
		for range 3 {
			f.until(time.Minute, "the window is full", func() bool { return f.waiting() >= 60 })
			f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
			f.until(10*time.Second, "it is parked", func() bool { return f.leaseOf(b) == uuid.Nil })
			f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
			f.until(10*time.Second, "it runs again", func() bool { return f.leaseOf(b) != uuid.Nil })
			f.deliver(20)
		}
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 60 })
		f.finish(b)
	})
}

// A channel that cannot be read keeps its last window. A deleted channel is fed like any other.
func TestAChannelThatCannotBeRead(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(40) // 60 tasks
		b := f.accept(c, f.newLeads(200))
		f.start()
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 60 })
		f.on("Get", func(context.Context, int) error { return errDown })
		for range 10 {
			pass(time.Second)
			f.deliver(20)
		}
		pass(time.Second)
		if n := f.waiting(); n > 60 {
			t.Errorf("%d tasks", n)
		}
		if got := f.reported(); len(got) != 1 || got[0] != "read the channel" {
			t.Errorf("reported %v", got)
		}
		f.on("Get", nil)
		f.mu.Lock()
		delete(f.channels, c.Key)
		f.mu.Unlock()
		f.finish(b)
	})
}

func TestABulkOfAChannelThatCannotBeReadWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Get", func(context.Context, int) error { return errDown })
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		pass(10 * time.Second)
		if f.waiting() != 0 {
			t.Errorf("%d tasks of a channel that was never read", f.waiting())
		}
		f.on("Get", nil)
		f.finish(b)
	})
}
