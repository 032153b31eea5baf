package bulk

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/stats"
)

// walkPageSize is how many rows are read at a time to reconcile a bulk or to rebuild its counters.
const walkPageSize = 5_000

// reconcileIfDue reconciles the bulk every Timing.Reconcile, after Timing.Stall without progress, and when tasks were lost. It
// reports whether it did.
func (run *bulkRun) reconcileIfDue(ctx context.Context, p *pulse) (bool, error) {
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

// reconcile compares the rows between both cursors with the queue and the counters, and repairs: it counts settled rows, rescues
// expired claims and enqueues lost tasks. A PENDING message may have its task in the queue, so it is enqueued again only when the
// last reconciliation saw it PENDING too, or when tasks are known to be lost. Messages of a cancelled bulk that are not being sent
// are cancelled.
func (run *bulkRun) reconcile(ctx context.Context) error {
	return run.retryForever(ctx, "reconcile", func() error {
		run.takenBack = false
		pending := map[uuid.UUID]bool{}
		settled, ended, unbroken := run.bulk.SettledSeq, run.bulk.SettledSeq, true
		err := run.walk(ctx, run.bulk.SettledSeq, func(rows []Row) error {
			for _, r := range rows {
				final := r.State.Seq < run.bulk.FeedSeq && r.State.Status.Rank() > 0 && !r.State.Waiting
				if final {
					ended++
				}
				if unbroken = unbroken && final; unbroken {
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

// verify rebuilds the counters if they are missing, or if they have fewer settled messages than the ledger (ended): then Redis was
// restored to an older state.
func (run *bulkRun) verify(ctx context.Context, ended int64) error {
	counts, ok, err := run.deps.Counters.Read(ctx, run.bulk.ID)
	if err != nil || (ok && counts.Settled() >= ended) {
		return err
	}
	return run.rebuildCounters(ctx)
}

// repair repairs one page of rows. It adds the PENDING ones to pending.
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

// counts reads the counters. It rebuilds them from the rows when Redis lost them.
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

// walk counts the rows from a number up to the feed's cursor, and passes each page to each.
func (run *bulkRun) walk(ctx context.Context, from int64, each func(rows []Row) error) error {
	for from < run.bulk.FeedSeq {
		rows, err := run.deps.Feed.Walk(ctx, run.bulk.ID, from, walkPageSize)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].State.Seq + 1
		if err := run.deps.Counters.CountAll(ctx, run.bulk.ID, run.countable(rows)); err != nil {
			return err
		}
		if err := each(rows); err != nil {
			return err
		}
	}
	return nil
}

// countable returns the states of the rows below the feed's cursor that are counted.
func (run *bulkRun) countable(rows []Row) []stats.MessageState {
	states := make([]stats.MessageState, 0, len(rows))
	for _, r := range rows {
		if r.State.Seq < run.bulk.FeedSeq && r.State.Code() != 0 {
			states = append(states, r.State)
		}
	}
	return states
}

// maxCancelTime is how long a run waits for the messages of a cancelled bulk that are being sent. Then it parks the bulk.
const maxCancelTime = 2 * time.Second

// cancel settles every message that is not being sent, and finishes the bulk when the others are settled. A cancelled bulk is not
// planned further, so its rows are its audience.
func (run *bulkRun) cancel(ctx context.Context) (after time.Duration, err error) {
	run.bulk.FeedSeq, run.countersKept = run.total, time.Now()
	p := &pulse{pause: minPause}
	for began := time.Now(); ; {
		if err := run.reconcile(ctx); err != nil {
			return 0, err
		}
		if run.takenBack { // the next reconciliation counts them
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
