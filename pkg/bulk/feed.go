package bulk

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/stats"
)

const (
	refill   = 4 // the part of the share that must be free before it is filled: fewer, larger pages
	feedPage = 2_000
	walkPage = 5_000

	pauseLeast = 5 * time.Millisecond   // between two looks at the counts
	pauseMoves = 100 * time.Millisecond // the longest pause while messages are under way, until some were counted here
	pauseMost  = time.Second            // the longest pause while nothing moves

	countsKept = time.Hour // between two times that the counts' expiry is put off
)

// pulse is what the feeder knows of the movement of a bulk.
type pulse struct {
	released int64         // messages that no longer occupy the queue
	settled  int64         // messages at their end
	moved    time.Time     // when more was released than before
	checked  time.Time     // when it was reconciled
	stall    time.Duration // until it is reconciled again while nothing moves
	pause    time.Duration // until the counts are read again
}

// feed keeps the bulk's share of the window filled while it has a place, and looks after what is under way. It returns when
// the bulk is finished or parked, and then after how long to look at it again.
func (c *course) feed(ctx context.Context) (after time.Duration, err error) {
	p := &pulse{moved: time.Now(), checked: time.Now(), stall: c.Timing.Stall, pause: pauseLeast}
	if c.lost = c.bulk.FeedSeq > 0; !c.lost {
		if err := c.again(ctx, "begin to count", func() error { return c.Counters.Begin(ctx, c.id) }); err != nil {
			return 0, err
		}
	}
	for c.kept = time.Now(); ; {
		if err := c.measure(ctx, p); err != nil {
			return 0, err
		}
		inQueue := c.bulk.FeedSeq - p.released
		v := c.around(ctx, inQueue)
		c.hold(v.held)
		if looked, err := c.lookAfter(ctx, p); err != nil {
			return 0, err
		} else if looked {
			continue
		}
		total, planned, later := c.progress()
		unfed := total - c.bulk.FeedSeq
		all := planned && unfed <= 0
		if over := c.turnOver(v); over || all || later || v.held {
			c.leavePlace(over)
		}
		room := min(v.share-inQueue, v.left)
		switch {
		case all && p.settled >= total:
			if done, err := c.finish(ctx); done || err != nil {
				return 0, err
			}
		case unfed > 0 && !v.held && c.takePlace() && room >= min(max(v.share/refill, 1), unfed):
			if n := c.reserve(min(room, unfed, feedPage)); n > 0 {
				if err := c.feedPage(ctx, n); err != nil {
					return 0, err
				}
				p.pause = pauseLeast
				continue
			}
		}
		if (planned || later) && !c.placed && (v.held || inQueue <= 0) {
			return c.park(ctx, v.held, unfed, later)
		}
		c.leaveVisit()
		if !c.await(ctx, p, inQueue) {
			return 0, ctx.Err()
		}
	}
}

// turnOver says whether the course has had its turn while others wait for a place.
func (c *course) turnOver(v view) bool {
	return c.placed && v.inLine > 0 && time.Since(c.since) > c.Timing.TimeSlice
}

// hold notes whether the channel is paused. Workers drop the tasks that they meet meanwhile, so when it goes on every
// waiting message is enqueued again.
func (c *course) hold(held bool) {
	if c.held && !held {
		c.lost = true
	}
	c.held = held
}

// measure reads the counts of what was fed, and keeps them from expiring.
func (c *course) measure(ctx context.Context, p *pulse) error {
	if time.Since(c.kept) > countsKept {
		if err := c.again(ctx, "keep the counts", func() error { return c.Counters.Keep(ctx, c.id) }); err != nil {
			return err
		}
		c.kept = time.Now()
	}
	if c.bulk.FeedSeq == 0 {
		return nil
	}
	counts, err := c.counts(ctx)
	if err != nil {
		return err
	}
	if n := counts.Released(); n != p.released {
		p.released, p.moved, p.stall, p.pause = n, time.Now(), c.Timing.Stall, pauseLeast
	}
	p.settled = counts.Settled()
	return nil
}

// lookAfter reconciles the bulk when it is time, and says whether it did.
func (c *course) lookAfter(ctx context.Context, p *pulse) (bool, error) {
	since, still := time.Since(p.checked), time.Since(p.moved)
	stalled := since > p.stall && still > p.stall
	if c.bulk.FeedSeq == 0 || (!c.lost && since <= c.Timing.Reconcile && !stalled) {
		return false, nil
	}
	if err := c.reconcile(ctx); err != nil {
		return false, err
	}
	if p.checked = time.Now(); stalled {
		p.stall = min(2*p.stall, c.Timing.Reconcile)
	}
	return true, nil
}

// plannedLater is when a bulk is looked at again whose audience is expensive, while another such is planned.
const plannedLater = 2 * time.Second

// park says after how long a bulk that can do nothing now is looked at again: at once if it waits for a place, which it
// gets in its turn; later if messages are under way over a channel that is paused, or are to be resent after a time.
func (c *course) park(ctx context.Context, held bool, unfed int64, later bool) (time.Duration, error) {
	if c.bulk.FeedSeq > c.bulk.SettledSeq {
		if err := c.reconcile(ctx); err != nil {
			return 0, err
		}
	}
	switch {
	case later:
		return plannedLater, nil
	case unfed > 0 && (!held || c.bulk.FeedSeq == c.bulk.SettledSeq):
		return 0, nil
	}
	return c.Timing.Reconcile, nil
}

// cancelTime is how long a cancelled bulk is waited for, before it is looked at again later.
const cancelTime = 2 * time.Second

// cancel takes back every message that waits, and looks after those under way until each has its end. Nothing is added
// to a bulk that is cancelled, so what it has so far is its audience.
func (c *course) cancel(ctx context.Context) (after time.Duration, err error) {
	c.bulk.FeedSeq, c.kept = c.total, time.Now()
	p := &pulse{pause: pauseLeast}
	for began := time.Now(); ; {
		if err := c.reconcile(ctx); err != nil {
			return 0, err
		}
		if c.takenBack { // they are counted the next time round
			continue
		}
		if done, err := c.finish(ctx); done || err != nil {
			return 0, err
		}
		if time.Since(began) > cancelTime {
			return c.Timing.Stall, nil
		}
		if !c.await(ctx, p, 0) {
			return 0, ctx.Err()
		}
	}
}

func (c *course) progress() (total int64, planned, later bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, c.planned, c.later
}

// await pauses until there may be something to do.
func (c *course) await(ctx context.Context, p *pulse, inQueue int64) bool {
	began := time.Now()
	t := time.NewTimer(p.pause)
	defer t.Stop()
	most := pauseMost
	if inQueue > 0 && time.Since(p.moved) < pauseMost {
		most = pauseMoves
	}
	p.pause = min(2*p.pause, most)
	for counted := c.counted; ; {
		select {
		case <-ctx.Done():
			return false
		case <-c.more:
			return true
		case <-counted:
			t.Reset(pauseLeast - time.Since(began))
			counted = nil
		case <-t.C:
			return true
		}
	}
}

// counts reads the counters; when Redis lost them they are made anew from the rows.
func (c *course) counts(ctx context.Context) (stats.Counts, error) {
	var counts stats.Counts
	err := c.again(ctx, "count", func() error {
		for {
			var ok bool
			var err error
			if counts, ok, err = c.Counters.Follow(ctx, c.id); err != nil || ok {
				return err
			}
			c.lost = true
			if err := c.rebuildCounters(ctx); err != nil {
				return err
			}
		}
	})
	return counts, err
}

// rebuildCounters counts every row below the feed's cursor again.
func (c *course) rebuildCounters(ctx context.Context) error {
	if err := c.Counters.BeginRebuild(ctx, c.bulk.ID); err != nil {
		return err
	}
	if err := c.walk(ctx, 0, func([]Row) error { return nil }); err != nil {
		return err
	}
	return c.Counters.EndRebuild(ctx, c.bulk.ID)
}

// walk counts the rows from a sequence number up to the feed's cursor, and hands them on page by page.
func (c *course) walk(ctx context.Context, from int64, each func(rows []Row) error) error {
	for from < c.bulk.FeedSeq {
		rows, err := c.Feed.Walk(ctx, c.bulk.ID, from, walkPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].State.Seq + 1
		if err := c.Counters.CountAll(ctx, c.bulk.ID, c.marks(rows)); err != nil {
			return err
		}
		if err := each(rows); err != nil {
			return err
		}
	}
	return nil
}

// marks returns the marks of the rows below the feed's cursor that have one.
func (c *course) marks(rows []Row) []stats.MessageState {
	marks := make([]stats.MessageState, 0, len(rows))
	for _, r := range rows {
		if r.State.Seq < c.bulk.FeedSeq && r.State.Code() != 0 {
			marks = append(marks, r.State)
		}
	}
	return marks
}

// feedPage hands the next messages to the queue, then moves the cursor. A death in between enqueues them again, which
// their task ids make harmless. Messages that the plan settled are counted here and only here, so that the cursor and
// the counts always speak of the same rows.
func (c *course) feedPage(ctx context.Context, limit int64) error {
	return c.again(ctx, "feed", func() error {
		rows, err := c.next(ctx, int(limit))
		if err != nil || len(rows) == 0 {
			return err
		}
		var tasks []Task
		for _, r := range rows {
			if r.State.Status == message.Pending {
				tasks = append(tasks, Task{r.ID, r.Generation})
			}
		}
		next := rows[len(rows)-1].State.Seq + 1
		fault.Point(fault.PageWalked)
		if err := c.Queue.Enqueue(ctx, c.bulk.Channel.Type, c.bulk.Priority, tasks); err != nil {
			return err
		}
		fault.Point(fault.PageEnqueued)
		if err := c.Feed.Advance(ctx, c.lease, next, c.bulk.SettledSeq); err != nil {
			return err
		}
		c.bulk.FeedSeq = next
		c.mu.Lock()
		c.fed = next
		c.mu.Unlock()
		return c.Counters.CountAll(ctx, c.bulk.ID, c.marks(rows))
	})
}

// next returns the rows from the feed's cursor on: those that the planner has just written, else the database's.
func (c *course) next(ctx context.Context, limit int) ([]Row, error) {
	c.mu.Lock()
	fresh := c.fresh
	c.fresh = nil
	c.mu.Unlock()
	if len(fresh) > 0 && fresh[0].State.Seq == c.bulk.FeedSeq {
		return fresh[:min(limit, len(fresh))], nil
	}
	return c.Feed.Walk(ctx, c.bulk.ID, c.bulk.FeedSeq, limit)
}

// finish completes the bulk if the database agrees that nothing is open. Its end is the end of the lease, which is no loss.
func (c *course) finish(ctx context.Context) (bool, error) {
	c.leaving()
	defer c.staying()
	var done bool
	err := c.again(ctx, "finish", func() (err error) {
		done, err = c.Feed.Finish(ctx, c.bulk.ID)
		return err
	})
	if err != nil || !done {
		return false, err
	}
	c.over = true
	c.Observer.BulkEvent(ctx, "completed", c.bulk.ID, "total", c.bulk.FeedSeq)
	if time.Since(c.kept) > time.Minute {
		if err := c.Counters.Keep(ctx, c.id); err != nil {
			c.Observer.BulkError(ctx, "keep the counts", c.bulk.ID, err)
		}
	}
	return true, nil
}

// reconcile walks the rows that were fed and not known to be settled, and repairs what was lost on the way: settled
// rows that were not counted, claims that expired, tasks that vanished. A PENDING row may simply be waiting its turn,
// so unless it is known that tasks were lost it is enqueued again only when the walk before saw it PENDING too. Of a
// bulk that is cancelled it takes back what waits.
func (c *course) reconcile(ctx context.Context) error {
	return c.again(ctx, "reconcile", func() error {
		c.takenBack = false
		pending := map[uuid.UUID]bool{}
		settled, ended, unbroken := c.bulk.SettledSeq, c.bulk.SettledSeq, true
		err := c.walk(ctx, c.bulk.SettledSeq, func(rows []Row) error {
			for _, r := range rows {
				over := r.State.Seq < c.bulk.FeedSeq && r.State.Status.Rank() > 0 && !r.State.Waiting
				if over {
					ended++
				}
				if unbroken = unbroken && over; unbroken {
					settled = r.State.Seq + 1
				}
			}
			return c.repair(ctx, rows, pending)
		})
		if err != nil {
			return err
		}
		if err := c.verify(ctx, ended); err != nil {
			return err
		}
		c.seen, c.lost = pending, false
		if settled == c.bulk.SettledSeq {
			return nil
		}
		if err := c.Feed.Advance(ctx, c.lease, c.bulk.FeedSeq, settled); err != nil {
			return err
		}
		c.bulk.SettledSeq = settled
		return nil
	})
}

// verify makes the counters anew if they are gone, or know of fewer ended messages than there are: then Redis came back
// with an older state.
func (c *course) verify(ctx context.Context, ended int64) error {
	counts, ok, err := c.Counters.Read(ctx, c.bulk.ID)
	if err != nil || (ok && counts.Settled() >= ended) {
		return err
	}
	return c.rebuildCounters(ctx)
}

func (c *course) repair(ctx context.Context, rows []Row, pending map[uuid.UUID]bool) error {
	var lost []Task
	var back []uuid.UUID
	for _, r := range rows {
		waits := r.State.Status == message.Pending || r.State.Waiting
		switch {
		case r.State.Seq >= c.bulk.FeedSeq:
		case r.State.Status == message.Sending && !r.Claimed:
			if err := c.Rescuer.Rescue(ctx, r.ID); err != nil {
				return err
			}
		case waits && c.bulk.Status == Cancelled:
			back = append(back, r.ID)
		case r.State.Status == message.Pending && !c.held:
			pending[r.ID] = true
			if c.lost || c.seen[r.ID] {
				lost = append(lost, Task{r.ID, r.Generation})
			}
		}
	}
	if len(back) > 0 {
		c.takenBack = true
		return c.Feed.Cancel(ctx, back)
	}
	return c.Queue.Enqueue(ctx, c.bulk.Channel.Type, c.bulk.Priority, lost)
}
