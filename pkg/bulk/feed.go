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
	refillDivisor = 4 // the part of the share that must be free before it is filled: fewer, larger pages
	feedPageSize  = 2_000
	walkPageSize  = 5_000

	minPause       = 5 * time.Millisecond   // between two looks at the counts
	maxMovingPause = 100 * time.Millisecond // the longest pause while messages are under way, until some were counted here
	maxPause       = time.Second            // the longest pause while nothing moves

	keepInterval = time.Hour // between two times that the counts' expiry is put off
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
func (run *bulkRun) feed(ctx context.Context) (after time.Duration, err error) {
	p := &pulse{moved: time.Now(), checked: time.Now(), stall: run.deps.Timing.Stall, pause: minPause}
	if run.tasksLost = run.bulk.FeedSeq > 0; !run.tasksLost {
		if err := run.retryForever(ctx, "begin to count", func() error { return run.deps.Counters.Begin(ctx, run.id) }); err != nil {
			return 0, err
		}
	}
	for run.countersKept = time.Now(); ; {
		if err := run.measure(ctx, p); err != nil {
			return 0, err
		}
		inQueue := run.bulk.FeedSeq - p.released
		v := run.around(ctx, inQueue)
		run.notePaused(v.paused)
		if looked, err := run.lookAfter(ctx, p); err != nil {
			return 0, err
		} else if looked {
			continue
		}
		total, planned, later := run.progress()
		unfed := total - run.bulk.FeedSeq
		all := planned && unfed <= 0
		if over := run.turnOver(v); over || all || later || v.paused {
			run.releaseSlot(over)
		}
		room := min(v.share-inQueue, v.left)
		switch {
		case all && p.settled >= total:
			if done, err := run.finish(ctx); done || err != nil {
				return 0, err
			}
		case unfed > 0 && !v.paused && run.takeSlot() && room >= min(max(v.share/refillDivisor, 1), unfed):
			if n := run.reserve(min(room, unfed, feedPageSize)); n > 0 {
				if err := run.feedPage(ctx, n); err != nil {
					return 0, err
				}
				p.pause = minPause
				continue
			}
		}
		if (planned || later) && !run.hasSlot && (v.paused || inQueue <= 0) {
			return run.park(ctx, v.paused, unfed, later)
		}
		run.leaveReconciling()
		if !run.await(ctx, p, inQueue) {
			return 0, ctx.Err()
		}
	}
}

// turnOver says whether the bulkRun has had its turn while others wait for a place.
func (run *bulkRun) turnOver(v view) bool {
	return run.hasSlot && v.waiting > 0 && time.Since(run.since) > run.deps.Timing.TimeSlice
}

// hold notes whether the channel is paused. Workers drop the tasks that they meet meanwhile, so when it goes on every
// waiting message is enqueued again.
func (run *bulkRun) notePaused(paused bool) {
	if run.paused && !paused {
		run.tasksLost = true
	}
	run.paused = paused
}

// measure reads the counts of what was fed, and keeps them from expiring.
func (run *bulkRun) measure(ctx context.Context, p *pulse) error {
	if time.Since(run.countersKept) > keepInterval {
		if err := run.retryForever(ctx, "keep the counts", func() error { return run.deps.Counters.Keep(ctx, run.id) }); err != nil {
			return err
		}
		run.countersKept = time.Now()
	}
	if run.bulk.FeedSeq == 0 {
		return nil
	}
	counts, err := run.counts(ctx)
	if err != nil {
		return err
	}
	if n := counts.Released(); n != p.released {
		p.released, p.moved, p.stall, p.pause = n, time.Now(), run.deps.Timing.Stall, minPause
	}
	p.settled = counts.Settled()
	return nil
}

// lookAfter reconciles the bulk when it is time, and says whether it did.
func (run *bulkRun) lookAfter(ctx context.Context, p *pulse) (bool, error) {
	since, still := time.Since(p.checked), time.Since(p.moved)
	stalled := since > p.stall && still > p.stall
	if run.bulk.FeedSeq == 0 || (!run.tasksLost && since <= run.deps.Timing.Reconcile && !stalled) {
		return false, nil
	}
	if err := run.reconcile(ctx); err != nil {
		return false, err
	}
	if p.checked = time.Now(); stalled {
		p.stall = min(2*p.stall, run.deps.Timing.Reconcile)
	}
	return true, nil
}

// planRetryAfter is when a bulk is looked at again whose audience is expensive, while another such is planned.
const planRetryAfter = 2 * time.Second

// park says after how long a bulk that can do nothing now is looked at again: at once if it waits for a place, which it
// gets in its turn; later if messages are under way over a channel that is paused, or are to be resent after a time.
func (run *bulkRun) park(ctx context.Context, paused bool, unfed int64, later bool) (time.Duration, error) {
	if run.bulk.FeedSeq > run.bulk.SettledSeq {
		if err := run.reconcile(ctx); err != nil {
			return 0, err
		}
	}
	switch {
	case later:
		return planRetryAfter, nil
	case unfed > 0 && (!paused || run.bulk.FeedSeq == run.bulk.SettledSeq):
		return 0, nil
	}
	return run.deps.Timing.Reconcile, nil
}

// maxCancelTime is how long a cancelled bulk is waited for, before it is looked at again later.
const maxCancelTime = 2 * time.Second

// cancel takes back every message that waits, and looks after those under way until each has its end. Nothing is added
// to a bulk that is cancelled, so what it has so far is its audience.
func (run *bulkRun) cancel(ctx context.Context) (after time.Duration, err error) {
	run.bulk.FeedSeq, run.countersKept = run.total, time.Now()
	p := &pulse{pause: minPause}
	for began := time.Now(); ; {
		if err := run.reconcile(ctx); err != nil {
			return 0, err
		}
		if run.takenBack { // they are counted the next time round
			continue
		}
		if done, err := run.finish(ctx); done || err != nil {
			return 0, err
		}
		if time.Since(began) > maxCancelTime {
			return run.deps.Timing.Stall, nil
		}
		if !run.await(ctx, p, 0) {
			return 0, ctx.Err()
		}
	}
}

func (run *bulkRun) progress() (total int64, planned, later bool) {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.total, run.planned, run.planLater
}

// await pauses until there may be something to do.
func (run *bulkRun) await(ctx context.Context, p *pulse, inQueue int64) bool {
	began := time.Now()
	t := time.NewTimer(p.pause)
	defer t.Stop()
	most := maxPause
	if inQueue > 0 && time.Since(p.moved) < maxPause {
		most = maxMovingPause
	}
	p.pause = min(2*p.pause, most)
	for counted := run.counted; ; {
		select {
		case <-ctx.Done():
			return false
		case <-run.more:
			return true
		case <-counted:
			t.Reset(minPause - time.Since(began))
			counted = nil
		case <-t.C:
			return true
		}
	}
}

// counts reads the counters; when Redis lost them they are made anew from the rows.
func (run *bulkRun) counts(ctx context.Context) (stats.Counts, error) {
	var counts stats.Counts
	err := run.retryForever(ctx, "count", func() error {
		for {
			var ok bool
			var err error
			if counts, ok, err = run.deps.Counters.Follow(ctx, run.id); err != nil || ok {
				return err
			}
			run.tasksLost = true
			if err := run.rebuildCounters(ctx); err != nil {
				return err
			}
		}
	})
	return counts, err
}

// rebuildCounters counts every row below the feed's cursor again.
func (run *bulkRun) rebuildCounters(ctx context.Context) error {
	if err := run.deps.Counters.BeginRebuild(ctx, run.bulk.ID); err != nil {
		return err
	}
	if err := run.walk(ctx, 0, func([]Row) error { return nil }); err != nil {
		return err
	}
	return run.deps.Counters.EndRebuild(ctx, run.bulk.ID)
}

// walk counts the rows from a sequence number up to the feed's cursor, and hands them on page by page.
func (run *bulkRun) walk(ctx context.Context, from int64, each func(rows []Row) error) error {
	for from < run.bulk.FeedSeq {
		rows, err := run.deps.Feed.Walk(ctx, run.bulk.ID, from, walkPageSize)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].State.Seq + 1
		if err := run.deps.Counters.CountAll(ctx, run.bulk.ID, run.marks(rows)); err != nil {
			return err
		}
		if err := each(rows); err != nil {
			return err
		}
	}
	return nil
}

// marks returns the marks of the rows below the feed's cursor that have one.
func (run *bulkRun) marks(rows []Row) []stats.MessageState {
	marks := make([]stats.MessageState, 0, len(rows))
	for _, r := range rows {
		if r.State.Seq < run.bulk.FeedSeq && r.State.Code() != 0 {
			marks = append(marks, r.State)
		}
	}
	return marks
}

// feedPage hands the next messages to the queue, then moves the cursor. A death in between enqueues them again, which
// their task ids make harmless. Messages that the plan settled are counted here and only here, so that the cursor and
// the counts always speak of the same rows.
func (run *bulkRun) feedPage(ctx context.Context, limit int64) error {
	return run.retryForever(ctx, "feed", func() error {
		rows, err := run.next(ctx, int(limit))
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
		if err := run.deps.Queue.Enqueue(ctx, run.bulk.Channel.Type, run.bulk.Priority, tasks); err != nil {
			return err
		}
		fault.Point(fault.PageEnqueued)
		if err := run.deps.Feed.Advance(ctx, run.lease, next, run.bulk.SettledSeq); err != nil {
			return err
		}
		run.bulk.FeedSeq = next
		run.mu.Lock()
		run.fed = next
		run.mu.Unlock()
		return run.deps.Counters.CountAll(ctx, run.bulk.ID, run.marks(rows))
	})
}

// next returns the rows from the feed's cursor on: those that the planner has just written, else the database's.
func (run *bulkRun) next(ctx context.Context, limit int) ([]Row, error) {
	run.mu.Lock()
	fresh := run.newPage
	run.newPage = nil
	run.mu.Unlock()
	if len(fresh) > 0 && fresh[0].State.Seq == run.bulk.FeedSeq {
		return fresh[:min(limit, len(fresh))], nil
	}
	return run.deps.Feed.Walk(ctx, run.bulk.ID, run.bulk.FeedSeq, limit)
}

// finish completes the bulk if the database agrees that nothing is open. Its end is the end of the lease, which is no loss.
func (run *bulkRun) finish(ctx context.Context) (bool, error) {
	run.leaving()
	defer run.staying()
	var done bool
	err := run.retryForever(ctx, "finish", func() (err error) {
		done, err = run.deps.Feed.Finish(ctx, run.bulk.ID)
		return err
	})
	if err != nil || !done {
		return false, err
	}
	run.ended = true
	run.deps.Observer.BulkEvent(ctx, "completed", run.bulk.ID, "total", run.bulk.FeedSeq)
	if time.Since(run.countersKept) > time.Minute {
		if err := run.deps.Counters.Keep(ctx, run.id); err != nil {
			run.deps.Observer.BulkError(ctx, "keep the counts", run.bulk.ID, err)
		}
	}
	return true, nil
}

// reconcile walks the rows that were fed and not known to be settled, and repairs what was lost on the way: settled
// rows that were not counted, claims that expired, tasks that vanished. A PENDING row may simply be waiting its turn,
// so unless it is known that tasks were lost it is enqueued again only when the walk before saw it PENDING too. Of a
// bulk that is cancelled it takes back what waits.
func (run *bulkRun) reconcile(ctx context.Context) error {
	return run.retryForever(ctx, "reconcile", func() error {
		run.takenBack = false
		pending := map[uuid.UUID]bool{}
		settled, ended, unbroken := run.bulk.SettledSeq, run.bulk.SettledSeq, true
		err := run.walk(ctx, run.bulk.SettledSeq, func(rows []Row) error {
			for _, r := range rows {
				over := r.State.Seq < run.bulk.FeedSeq && r.State.Status.Rank() > 0 && !r.State.Waiting
				if over {
					ended++
				}
				if unbroken = unbroken && over; unbroken {
					settled = r.State.Seq + 1
				}
			}
			return run.repair(ctx, rows, pending)
		})
		if err != nil {
			return err
		}
		if err := run.verify(ctx, ended); err != nil {
			return err
		}
		run.seenPending, run.tasksLost = pending, false
		if settled == run.bulk.SettledSeq {
			return nil
		}
		if err := run.deps.Feed.Advance(ctx, run.lease, run.bulk.FeedSeq, settled); err != nil {
			return err
		}
		run.bulk.SettledSeq = settled
		return nil
	})
}

// verify makes the counters anew if they are gone, or know of fewer ended messages than there are: then Redis came back
// with an older state.
func (run *bulkRun) verify(ctx context.Context, ended int64) error {
	counts, ok, err := run.deps.Counters.Read(ctx, run.bulk.ID)
	if err != nil || (ok && counts.Settled() >= ended) {
		return err
	}
	return run.rebuildCounters(ctx)
}

func (run *bulkRun) repair(ctx context.Context, rows []Row, pending map[uuid.UUID]bool) error {
	var lost []Task
	var back []uuid.UUID
	for _, r := range rows {
		waits := r.State.Status == message.Pending || r.State.Waiting
		switch {
		case r.State.Seq >= run.bulk.FeedSeq:
		case r.State.Status == message.Sending && !r.Claimed:
			if err := run.deps.Rescuer.Rescue(ctx, r.ID); err != nil {
				return err
			}
		case waits && run.bulk.Status == Cancelled:
			back = append(back, r.ID)
		case r.State.Status == message.Pending && !run.paused:
			pending[r.ID] = true
			if run.tasksLost || run.seenPending[r.ID] {
				lost = append(lost, Task{r.ID, r.Generation})
			}
		}
	}
	if len(back) > 0 {
		run.takenBack = true
		return run.deps.Feed.Cancel(ctx, back)
	}
	return run.deps.Queue.Enqueue(ctx, run.bulk.Channel.Type, run.bulk.Priority, lost)
}
