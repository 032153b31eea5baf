package bulk

import (
	"context"
	"math"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// The window: how many tasks of a bulk may be in the queue at a time. It bounds Redis, the work that a lost Redis
// means, and how long a pause takes to be felt. Over a channel with a rate it is what the workers may send before long,
// so that no task comes up only to be told to wait.
const (
	windowPerWorker = 2_000
	windowMost      = 20_000
	windowLeast     = 20
	windowTime      = 1.5 // seconds of the channel's rate, where it has one: as long as a delivery waits for its turn
	refill          = 4   // the part of the window that must be free before it is filled: fewer, larger pages
	feedPage        = 2_000
	walkPage        = 5_000

	pauseFull  = 5 * time.Millisecond   // between two looks while the window is full
	pauseIdle  = 100 * time.Millisecond // the longest pause while the last messages are under way
	lookAround = time.Second            // between two looks at the channel and the other bulks
)

// channelOf returns the bulk's channel. In place of one that is gone it returns an empty one in the state DELETED: the bulk
// goes on, and the delivery ends its messages.
func (c *course) channelOf(ctx context.Context) (*channel.Channel, error) {
	var ch *channel.Channel
	err := c.again(ctx, "read the channel", func() (err error) {
		ch, err = c.Channels.AtLeast(ctx, c.bulk.Channel, c.bulk.ChannelVersion)
		if message.IsCode(err, message.CodeNotFound) {
			ch, err = &channel.Channel{Key: c.bulk.Channel, State: channel.Deleted}, nil
		}
		return err
	})
	return ch, err
}

// window returns how many tasks this bulk may have in the queue now: its share of what its channel sends, or of what
// the workers hold.
func (c *course) window(ctx context.Context, ch *channel.Channel) int64 {
	if c.Window > 0 {
		return int64(c.Window)
	}
	all, same := c.company(ch.Key)
	if rate := c.Pacer.Rate(ctx, ch); rate > 0 {
		return max(int64(math.Ceil(rate*windowTime/float64(same))), windowLeast)
	}
	workers, err := c.Queue.Workers(ctx)
	if err != nil || workers < 1 {
		workers = 1
	}
	return max(int64(min(workers*windowPerWorker, windowMost)/all), windowLeast)
}

// feed keeps the window filled until every message is settled, then finishes the bulk.
func (c *course) feed(ctx context.Context) error {
	var (
		window   int64
		looked   time.Time
		checked  = time.Now()
		moved    = time.Now()
		released int64
		pause    = pauseFull
	)
	for {
		if time.Since(looked) > lookAround {
			ch, err := c.channelOf(ctx)
			if err != nil {
				return err
			}
			c.hold(ch.State == channel.Paused)
			window, looked = c.window(ctx, ch), time.Now()
		}
		counts, err := c.counts(ctx)
		if err != nil {
			return err
		}
		if n := counts.Released(); n != released {
			released, moved, pause = n, time.Now(), pauseFull
		}
		since, idle := time.Since(checked), time.Since(moved)
		if c.lost || since > c.Timing.Reconcile || (since > c.Timing.Stall && idle > c.Timing.Stall) {
			if err := c.reconcile(ctx); err != nil {
				return err
			}
			checked = time.Now()
		}
		total, planned := c.progress()
		room := window - (c.bulk.FeedSeq - released)
		switch {
		case !c.held && c.bulk.FeedSeq < total && room >= min(max(window/refill, 1), total-c.bulk.FeedSeq):
			if err := c.feedPage(ctx, min(room, total-c.bulk.FeedSeq, feedPage)); err != nil {
				return err
			}
			continue
		case planned && c.bulk.FeedSeq >= total && counts.Settled() >= total:
			if done, err := c.finish(ctx); done || err != nil {
				return err
			}
		}
		if !c.await(ctx, pause) {
			return ctx.Err()
		}
		if c.bulk.FeedSeq >= total {
			pause = min(pause*2, pauseIdle)
		}
	}
}

// hold notes whether the channel is paused. Workers drop the tasks that they meet meanwhile, so when it goes on every
// waiting message is enqueued again.
func (c *course) hold(held bool) {
	if c.held && !held {
		c.lost = true
	}
	c.held = held
}

// cancel takes back every message that waits, and looks after those under way until each has its end. Nothing is added
// to a bulk that is cancelled, so what it has so far is its audience.
func (c *course) cancel(ctx context.Context) error {
	c.bulk.FeedSeq = c.total
	for pause := pauseFull; ; pause = min(2*pause, c.Timing.Retry) {
		if err := c.reconcile(ctx); err != nil {
			return err
		}
		if c.takenBack { // they are counted the next time round
			continue
		}
		if done, err := c.finish(ctx); done || err != nil {
			return err
		}
		if !c.await(ctx, pause) {
			return ctx.Err()
		}
	}
}

func (c *course) progress() (total int64, planned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, c.planned
}

// await pauses until there may be something to do.
func (c *course) await(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c.more:
	case <-t.C:
	}
	return true
}

// counts reads the counters; when Redis lost them they are made anew from the rows.
func (c *course) counts(ctx context.Context) (stats.Counts, error) {
	var counts stats.Counts
	err := c.again(ctx, "count", func() error {
		for {
			var ok bool
			var err error
			if counts, ok, err = c.Counters.Read(ctx, c.bulk.ID); err != nil || ok {
				return err
			}
			c.lost = true
			if err := c.refold(ctx); err != nil {
				return err
			}
		}
	})
	return counts, err
}

// refold counts every row below the feed's cursor again.
func (c *course) refold(ctx context.Context) error {
	if err := c.Counters.BeginFold(ctx, c.bulk.ID); err != nil {
		return err
	}
	if err := c.walk(ctx, 0, func([]Row) error { return nil }); err != nil {
		return err
	}
	return c.Counters.EndFold(ctx, c.bulk.ID)
}

// walk counts the rows from a sequence number up to the feed's cursor, and hands them on page by page.
func (c *course) walk(ctx context.Context, from int64, each func(rows []Row) error) error {
	for from < c.bulk.FeedSeq {
		rows, err := c.Feed.Walk(ctx, c.bulk.ID, from, walkPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].Mark.Seq + 1
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
func (c *course) marks(rows []Row) []stats.Mark {
	marks := make([]stats.Mark, 0, len(rows))
	for _, r := range rows {
		if r.Mark.Seq < c.bulk.FeedSeq && r.Mark.Standing() != 0 {
			marks = append(marks, r.Mark)
		}
	}
	return marks
}

// feedPage hands the next messages to the queue, then moves the cursor. A death in between enqueues them again, which
// their task ids make harmless. Messages that the plan settled are counted here and only here, so that the cursor and
// the counts always speak of the same rows.
func (c *course) feedPage(ctx context.Context, limit int64) error {
	return c.again(ctx, "feed", func() error {
		rows, err := c.Feed.Walk(ctx, c.bulk.ID, c.bulk.FeedSeq, int(limit))
		if err != nil || len(rows) == 0 {
			return err
		}
		var tasks []Task
		for _, r := range rows {
			if r.Mark.Status == message.Pending {
				tasks = append(tasks, Task{r.ID, r.Generation})
			}
		}
		next := rows[len(rows)-1].Mark.Seq + 1
		fault.Point(fault.PageWalked)
		if err := c.Queue.Enqueue(ctx, c.bulk.Channel.Type, c.bulk.Priority, tasks); err != nil {
			return err
		}
		fault.Point(fault.PageEnqueued)
		if err := c.Feed.Advance(ctx, c.lease, next, c.bulk.SettledSeq); err != nil {
			return err
		}
		c.bulk.FeedSeq = next
		return c.Counters.CountAll(ctx, c.bulk.ID, c.marks(rows))
	})
}

// finish completes the bulk if the database agrees that nothing is open.
func (c *course) finish(ctx context.Context) (bool, error) {
	var done bool
	err := c.again(ctx, "finish", func() (err error) {
		done, err = c.Feed.Finish(ctx, c.bulk.ID)
		return err
	})
	if err != nil || !done {
		return false, err
	}
	c.Observer.BulkEvent(ctx, "completed", c.bulk.ID, "total", c.bulk.FeedSeq)
	if err := c.Expirer.Expire(ctx, c.bulk.ID, keepCounters); err != nil {
		c.Observer.BulkError(ctx, "expire the counters", c.bulk.ID, err)
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
				over := r.Mark.Seq < c.bulk.FeedSeq && r.Mark.Status.Rank() > 0 && !r.Mark.Waiting
				if over {
					ended++
				}
				if unbroken = unbroken && over; unbroken {
					settled = r.Mark.Seq + 1
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
	return c.refold(ctx)
}

func (c *course) repair(ctx context.Context, rows []Row, pending map[uuid.UUID]bool) error {
	var lost []Task
	var back []uuid.UUID
	for _, r := range rows {
		waits := r.Mark.Status == message.Pending || r.Mark.Waiting
		switch {
		case r.Mark.Seq >= c.bulk.FeedSeq:
		case r.Mark.Status == message.Sending && !r.Claimed:
			if err := c.Rescuer.Rescue(ctx, r.ID); err != nil {
				return err
			}
		case waits && c.bulk.Status == Cancelled:
			back = append(back, r.ID)
		case r.Mark.Status == message.Pending && !c.held:
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
