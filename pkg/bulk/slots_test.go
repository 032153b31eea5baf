package bulk_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// order returns the bulks in the order in which they were acquired.
func (f *fake) order() (ids []uuid.UUID) {
	for _, c := range f.called("Acquire") {
		if id := c.args[0].(bulk.Lease).BulkID; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Bulks of a channel start in the order of their waits. HIGH adds a minute to the wait, LOW subtracts one, and a bulk that had no
// slot yet adds one.
func TestBulksTakeTurnsInOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(30) // a window of 20 tasks: two slots
		start := time.Now()
		priority := func(p message.Priority) func(r *bulk.Request) {
			return func(r *bulk.Request) { r.Priority = p }
		}
		names := map[uuid.UUID]string{}
		add := func(name string, ago time.Duration, p message.Priority, hadTurn bool) {
			b := f.accept(c, leads, priority(p))
			f.mu.Lock()
			defer f.mu.Unlock()
			row := f.bulks[b.ID]
			row.CreatedAt = start.Add(-ago)
			if row.Planned = true; hadTurn {
				row.CreatedAt, row.turnAt = start.Add(-time.Hour), start.Add(-ago)
			}
			for _, id := range leads {
				f.addRow(row, fakeMessage{PlannedRow: bulk.PlannedRow{ID: uuid.New(), LeadID: id, Status: message.Pending}})
			}
			row.Total = 30
			names[b.ID] = name
		}
		add("low, new", 10*time.Second, message.Low, false)                  // counts as 10 s ago
		add("normal, turn 59 s ago", 59*time.Second, message.Normal, true)   // 59 s
		add("high, turn 3 s ago", 3*time.Second, message.High, true)         // 63 s
		add("normal, turn 100 s ago", 100*time.Second, message.Normal, true) // 100 s
		add("normal, new", 50*time.Second, message.Normal, false)            // 110 s
		add("high, new", 0, message.High, false)                             // 120 s
		add("normal, turn 121 s ago", 121*time.Second, message.Normal, true) // 121 s
		add("low, turn 5 min ago", 5*time.Minute, message.Low, true)         // 240 s
		f.start()
		f.until(time.Hour, "all have been run", func() bool {
			f.deliver(100)
			return len(f.order()) == len(names)
		})
		var got []string
		for _, id := range f.order() {
			got = append(got, names[id])
		}
		want := []string{"low, turn 5 min ago", "normal, turn 121 s ago", "high, new", "normal, new", "normal, turn 100 s ago", "high, turn 3 s ago", "normal, turn 59 s ago", "low, new"}
		for i := 0; i < len(want)-1; i += 2 { // each pair gets the two slots at once
			slices.Sort(got[i : i+2])
			slices.Sort(want[i : i+2])
		}
		if !slices.Equal(got, want) {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	})
}

// A bulk gives its slot up after its time slice if other bulks wait. Otherwise it keeps the slot.
func TestATurnEndsForOthers(t *testing.T) {
	t.Parallel()
	for others, want := range map[int]bool{0: false, 3: true} {
		inBubble(t, func(t *testing.T, f *fake) {
			c, leads := f.newChannel(0.5), f.newLeads(1_000) // two slots
			var bulks []*bulk.Bulk
			for range 1 + others {
				bulks = append(bulks, f.accept(c, leads))
			}
			f.start()
			for range 100 {
				pass(100 * time.Millisecond)
				f.deliver(20)
			}
			fed := 0
			for _, b := range bulks {
				if f.now(b).FeedSeq > 0 {
					fed++
				}
			}
			if fed != len(bulks) {
				t.Errorf("%d of %d bulks had a turn in 10 s", fed, len(bulks))
			}
			if released := len(f.called("Release")) > 0; released != want {
				t.Errorf("%d others: a bulk gave its lease up: %v", others, released)
			}
		})
	}
}

// Within its time slice a bulk keeps its slot although others wait.
func TestATurnLastsItsTimeSlice(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(1_000)
		for range 4 {
			f.accept(c, leads)
		}
		f.start(func(d *bulk.RunnerDeps) { d.Timing.TimeSlice = time.Minute })
		drain := func(n int) {
			for range n {
				pass(100 * time.Millisecond)
				f.deliver(2)
			}
		}
		withTurn := func() (n int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, b := range f.bulks {
				if b.FeedSeq > 0 {
					n++
				}
			}
			return n
		}
		drain(500)
		if had := withTurn(); had != 2 {
			t.Errorf("%d bulks had a turn within 50 s, the channel has two slots", had)
		}
		drain(200)
		if had := withTurn(); had != 4 {
			t.Errorf("%d bulks had a turn within 70 s", had)
		}
	})
}

// A process plans four bulks without a slot at a time.
func TestFourBulksArePlannedWithoutASlot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		var bulks []*bulk.Bulk
		for range 10 {
			bulks = append(bulks, f.accept(c, leads))
		}
		blocked := f.blockResolve(0)
		f.start()
		pass(5 * time.Second)
		if blocked.most != 4 {
			t.Errorf("%d bulks are planned at a time", blocked.most)
		}
		close(blocked.release)
		f.until(time.Minute, "all are planned", func() bool {
			return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return !f.now(b).Planned })
		})
	})
}

// A process reconciles sixteen bulks without a slot at a time.
func TestSixteenBulksAreReconciledAtATime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		for range 40 {
			b := f.accept(c, leads)
			row := f.bulks[b.ID]
			f.addRow(row, fakeMessage{PlannedRow: bulk.PlannedRow{ID: uuid.New(), Status: message.Sending}, claimed: time.Now().Add(time.Hour)})
			row.Planned, row.Total, row.FeedSeq = true, 1, 1
		}
		under, most := 0, 0
		f.on("Walk", func(context.Context, int) error {
			f.mu.Lock()
			under++
			most = max(most, under)
			f.mu.Unlock()
			time.Sleep(time.Second)
			f.mu.Lock()
			under--
			f.mu.Unlock()
			return nil
		})
		f.start()
		pass(20 * time.Second)
		if most != 16 {
			t.Errorf("%d bulks are reconciled at a time", most)
		}
		if n := len(f.order()); n != 40 {
			t.Errorf("%d of 40 bulks were reconciled", n)
		}
	})
}

// A channel has at most 64 slots in a process. Bulks that one look omits are found by the next.
func TestManyBulksOfOneChannel(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		var bulks []*bulk.Bulk
		for range 200 {
			bulks = append(bulks, f.accept(c, leads))
		}
		blocked := f.blockResolve(0)
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll, d.Timing.TimeSlice = time.Hour, time.Hour })
		pass(time.Second)
		f.runner.Wake() // one look shows 64 bulks of a channel
		pass(time.Second)
		if blocked.most != 64+4 {
			t.Errorf("%d bulks are planned at a time, want one for each of 64 slots and four without", blocked.most)
		}
		close(blocked.release)
		f.until(time.Minute, "all are fed without a second poll", func() bool {
			f.deliver(1_000)
			return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return f.now(b).FeedSeq == 0 })
		})
	})
}

// A bulk that is planned without a slot counts as waiting for one, so others yield and it is fed before its plan is complete.
func TestABulkIsFedWhileItIsPlannedWithoutASlot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(400) // two slots
		large := f.acceptMany(2, c, leads)
		f.start()
		f.untilPlanned(large...)
		pass(5 * time.Second)
		first := len(f.called("Resolve"))
		f.on("Resolve", func(ctx context.Context, n int) error {
			if n > first+1 {
				select {
				case <-time.After(time.Hour):
				case <-ctx.Done():
				}
			}
			return ctx.Err()
		})
		third := f.accept(c, f.newLeads(600))
		for range 100 {
			pass(100 * time.Millisecond)
			f.deliver(2)
		}
		if got := f.now(third); got.Planned || got.FeedSeq == 0 {
			t.Errorf("planned %v, %d messages fed", got.Planned, got.FeedSeq)
		}
	})
}
