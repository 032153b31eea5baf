package bulk

import (
	"context"
	"time"

	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/stats"
)

const (
	refillDivisor = 4 // the share is refilled when a quarter of it is free: fewer, larger pages
	feedPageSize  = 2_000

	// The pause between two reads of the counters doubles from minPause. It is maxMovingPause at most for a second after a message
	// was released, then maxPause. A count in this process ends a pause.
	minPause       = 5 * time.Millisecond
	maxMovingPause = 100 * time.Millisecond
	maxPause       = time.Second

	keepInterval = time.Hour // between two extensions of the counters' expiry
)

// pulse is what the feeder knows of a bulk's progress.
type pulse struct {
	released int64         // messages that are not in flight any more: settled, or UNKNOWN and waiting for a resend
	settled  int64         // messages
	moved    time.Time     // when released changed last
	checked  time.Time     // when the bulk was reconciled last
	stall    time.Duration // until the next reconciliation while released does not change
	pause    time.Duration // until the counters are read again
}

// feed keeps the bulk's share of the window filled while the run has a slot, and reconciles what is in flight. It returns when
// the bulk is finished or parked. after is the delay until a parked bulk is due again.
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
		v := run.observeLane(ctx, inQueue)
		run.notePaused(v.paused)
		if reconciled, err := run.reconcileIfDue(ctx, p); err != nil {
			return 0, err
		} else if reconciled {
			continue
		}
		total, planned, later := run.progress()
		unfed := total - run.bulk.FeedSeq
		all := planned && unfed <= 0
		if yields := run.timeSliceOver(v); yields || all || later || v.paused {
			run.releaseSlot(yields)
		}
		room := min(v.share-inQueue, v.spare)
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
		run.endReconcileOnly()
		if !run.await(ctx, p, inQueue) {
			return 0, ctx.Err()
		}
	}
}

// timeSliceOver reports whether the run has used up its time slice while other bulks wait for a slot.
func (run *bulkRun) timeSliceOver(v view) bool {
	return run.hasSlot && v.waiting > 0 && time.Since(run.slotSince) > run.deps.Timing.TimeSlice
}

// notePaused records whether the channel is paused. Workers drop the tasks of a paused channel, so all PENDING messages are
// enqueued again after a resume.
func (run *bulkRun) notePaused(paused bool) {
	if run.paused && !paused {
		run.tasksLost = true
	}
	run.paused = paused
}

// measure reads the counters of what was fed, and extends their expiry.
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

// planRetryAfter is the delay of a bulk whose expensive audience waits because another one is being planned.
const planRetryAfter = 2 * time.Second

// park returns the delay until a bulk that can make no progress is due again: none if it waits for a slot or a resume, and
// Timing.Reconcile if its messages are in flight over a paused channel or wait for a resend.
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

// progress returns how far the planner is.
func (run *bulkRun) progress() (total int64, planned, later bool) {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.total, run.planned, run.planLater
}

// await waits until a page was planned, messages were counted or p.pause is over. It returns false when ctx ends.
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

// feedPage enqueues the next messages and then moves the cursor. After a crash in between they are enqueued again, which their
// task ids make harmless. Messages that the plan settled are counted here only, so that cursor and counters always cover the same
// rows.
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
		return run.deps.Counters.CountAll(ctx, run.bulk.ID, run.countable(rows))
	})
}

// next returns the rows from the feed's cursor: the page that the planner has just written, else rows of the database.
func (run *bulkRun) next(ctx context.Context, limit int) ([]Row, error) {
	run.mu.Lock()
	fresh := run.newPage
	run.newPage = nil
	run.mu.Unlock()
	if len(fresh) > 0 { // it starts at the cursor: add sets it only then, and only feedPage moves the cursor
		return fresh[:min(limit, len(fresh))], nil
	}
	return run.deps.Feed.Walk(ctx, run.bulk.ID, run.bulk.FeedSeq, limit)
}

// tellEnd reports the end of the bulk with its figures. If they cannot be read, the end is reported without them.
func (run *bulkRun) tellEnd(ctx context.Context) {
	b, err := run.deps.Bulks.Bulk(ctx, run.bulk.ID)
	if err != nil || b.Final == nil {
		if err != nil {
			run.deps.Observer.BulkError(ctx, "read the final figures", run.bulk.ID, err)
		}
		run.deps.Observer.BulkEvent(ctx, "completed", run.bulk.ID, "total", run.bulk.FeedSeq)
		return
	}
	began, ended := b.CreatedAt, time.Now()
	if b.StartedAt != nil {
		began = *b.StartedAt
	}
	if b.CompletedAt != nil {
		ended = *b.CompletedAt
	}
	f := stats.Compute(b.Total, *b.Final)
	run.deps.Observer.BulkEvent(ctx, "completed", b.ID, "status", b.Status, "total", f.Total, "sent", f.Sent, "failed", f.Failed,
		"seconds", float64(ended.Sub(began).Milliseconds())/1000)
}

// finish ends the bulk, and with it the lease, if the database finds no open message. It reports whether the bulk has ended.
func (run *bulkRun) finish(ctx context.Context) (bool, error) {
	run.expectLeaseEnd()
	var done bool
	err := run.retryForever(ctx, "finish", func() (err error) {
		done, err = run.deps.Feed.Finish(ctx, run.bulk.ID)
		return err
	})
	if err != nil || !done {
		run.keepLease()
		return false, err
	}
	run.ended = true
	run.tellEnd(ctx)
	if time.Since(run.countersKept) > time.Minute {
		if err := run.deps.Counters.Keep(ctx, run.id); err != nil {
			run.deps.Observer.BulkError(ctx, "keep the counts", run.bulk.ID, err)
		}
	}
	return true, nil
}
