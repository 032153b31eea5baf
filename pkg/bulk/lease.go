package bulk

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// expectLeaseEnd makes the end of the lease no loss, because the run ends it by itself.
func (run *bulkRun) expectLeaseEnd() {
	run.runner.mu.Lock()
	run.onLeaseLost = nil
	run.runner.mu.Unlock()
}

// keepLease undoes expectLeaseEnd: the run did not end its lease.
func (run *bulkRun) keepLease() {
	run.runner.mu.Lock()
	run.onLeaseLost = run.cancelRun
	run.runner.mu.Unlock()
}

// keepLeases renews all leases of the process with one statement, a third of Timing.Lease after the last answer.
func (r *Runner) keepLeases(ctx context.Context) {
	for sleep(ctx, r.deps.Timing.Lease/renewalsPerLease) {
		r.mu.Lock()
		idle := len(r.runs) == 0
		r.mu.Unlock()
		if idle {
			continue
		}
		asked := time.Now()
		rctx, cancel := context.WithTimeout(ctx, r.deps.Timing.Lease)
		renewed, err := r.deps.Leases.Renew(rctx, r.token, r.deps.Timing.Lease)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.deps.Observer.BulkError(ctx, "renew the leases", uuid.Nil, err)
			}
			continue
		}
		mine := make(map[uuid.UUID]bool, len(renewed))
		r.mu.Lock()
		for _, id := range renewed {
			mine[id] = true
			if run := r.runs[id]; run != nil && run.onLeaseLost != nil {
				run.expires = asked.Add(r.deps.Timing.Lease) // from the question: the answer may be late
			}
		}
		r.endLostRuns(mine, asked)
		r.mu.Unlock()
	}
}

// endLostRuns cancels the runs that acquired their lease before the question and are not in its answer. The caller holds the
// mutex.
func (r *Runner) endLostRuns(mine map[uuid.UUID]bool, asked time.Time) {
	for id, run := range r.runs {
		if run.onLeaseLost != nil && run.acquired.Before(asked) && !mine[id] {
			run.onLeaseLost(ErrLeaseLost)
		}
	}
}

const (
	renewalsPerLease = 3  // two renewals may fail before a lease expires
	checksPerLease   = 30 // a run continues for at most a thirtieth of Timing.Lease after its lease expired
)

// watchLeases cancels the runs whose leases expired without renewal. It needs no answer from the database, which may hang.
func (r *Runner) watchLeases(ctx context.Context) {
	for sleep(ctx, r.deps.Timing.Lease/checksPerLease) {
		r.mu.Lock()
		now := time.Now()
		for _, run := range r.runs {
			if run.onLeaseLost != nil && now.After(run.expires) {
				run.onLeaseLost(ErrLeaseLost)
			}
		}
		r.mu.Unlock()
	}
}

// sleep waits for d and returns true, or until ctx ends and returns false.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
