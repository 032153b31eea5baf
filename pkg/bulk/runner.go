package bulk

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// Timing holds the intervals of a Runner. Tests shorten them.
type Timing struct {
	Poll      time.Duration // between two looks for free bulks
	Lease     time.Duration // a lease expires after this time without renewal
	Reconcile time.Duration // between two reconciliations of a running bulk
	Stall     time.Duration // the same while no message is settled; doubles up to Reconcile
	Retry     time.Duration // between two tries of a step that failed
	TimeSlice time.Duration // a bulk keeps its slot for this time while other bulks of its channel wait
}

// DefaultTiming is the Timing of a real deployment.
func DefaultTiming() Timing {
	return Timing{
		Poll: time.Second, Lease: 15 * time.Second, Reconcile: 30 * time.Second, Stall: 5 * time.Second, Retry: time.Second, TimeSlice: time.Second,
	}
}

// RunnerDeps are the ports and settings of a Runner. All ports are required.
type RunnerDeps struct {
	Leases   Leases
	Plan     Plan
	Feed     Feed
	Bulks    Reader // of the figures of a bulk that has ended, for the log
	Resolver audience.Resolver
	Queue    Queue
	Counters Counters
	Rescuer  Rescuer
	Channels Channels
	Health   ChannelHealth
	Observer Observer
	Timing   Timing
	Window   int // tasks of one bulk in the queue; 0: derived from the channel's rate and the workers
}

// Runner plans and feeds bulks, several at once, each under a lease. Every worker process has one.
//
// A bulk that can make no progress is parked: it has no lease, no goroutine and no memory in any process. Its only cost is its
// row in the statement that looks for work. The bulks of a channel share its slots round robin, each for a time slice.
type Runner struct {
	deps    RunnerDeps
	token   uuid.UUID
	wake    chan struct{} // signals to look for bulks at once
	freed   chan struct{} // signals that a slot was released or a run ended
	heavy   chan struct{} // mutex: one page of an expensive audience is resolved at a time
	stop    context.CancelFunc
	done    chan struct{}
	running sync.WaitGroup

	mu          sync.Mutex
	runs        map[uuid.UUID]*bulkRun
	lanes       map[channel.Key]*lane
	waiting     []Running // free bulks of the last look that have not started, by turnKey
	leased      int       // bulks with a lease, of all processes, at the last look
	planners    int       // runs with planOnly
	reconcilers int       // runs with reconcileOnly
}

const (
	maxPlanners    = 4  // bulks planned at a time without a slot
	maxReconcilers = 16 // bulks reconciled at a time without a slot

	// The gap between two looks is three times the duration of the last one, so that looks take at most a quarter (1/lookShare)
	// of the time, within these bounds.
	lookShare  = 4
	minLookGap = 20 * time.Millisecond
	maxLookGap = 100 * time.Millisecond
)

// NewRunner makes a Runner. Start starts it.
func NewRunner(d RunnerDeps) *Runner {
	return &Runner{
		deps: d, token: uuid.New(), wake: make(chan struct{}, 1), freed: make(chan struct{}, 1), heavy: make(chan struct{}, 1),
		runs: map[uuid.UUID]*bulkRun{}, lanes: map[channel.Key]*lane{},
	}
}

// Wake makes the runner look for bulks at once. It never blocks.
func (r *Runner) Wake() { poke(r.wake) }

// NotifyCounted tells the runner that this process counted messages of a bulk, so that the bulk's feeder reads the counters
// soon. It never blocks.
func (r *Runner) NotifyCounted(id uuid.UUID) {
	r.mu.Lock()
	run := r.runs[id]
	r.mu.Unlock()
	if run != nil {
		poke(run.counted)
	}
}

// poke sends a signal unless one is pending.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Start starts the goroutines that look for bulks and keep leases. Call it once.
func (r *Runner) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		var wg sync.WaitGroup
		wg.Go(func() { r.keepLeases(ctx) })
		wg.Go(func() { r.watchLeases(ctx) })
		r.loop(ctx)
		r.running.Wait()
		wg.Wait()
		r.releaseAll()
	}()
}

// Stop ends all runs and releases their leases, so that another process can continue at once. It returns when all goroutines
// have ended. It may be called before Start.
func (r *Runner) Stop() {
	if r.stop != nil {
		r.stop()
		<-r.done
	}
}

// releaseAll ends every lease of the process. If the database does not answer, the leases expire.
func (r *Runner) releaseAll() {
	ctx, cancel := context.WithTimeout(context.Background(), r.deps.Timing.Lease)
	defer cancel()
	if err := r.deps.Leases.ReleaseAll(ctx, r.token); err != nil {
		r.deps.Observer.BulkError(ctx, "release", uuid.Nil, err)
	}
}

// loop looks for bulks every Poll. It looks earlier after Wake, and when a slot was released that bulks beyond the last look may
// use.
func (r *Runner) loop(ctx context.Context) {
	tick := time.NewTicker(r.deps.Timing.Poll)
	defer tick.Stop()
	soon := time.NewTimer(0)
	defer soon.Stop()
	var looked time.Time
	var gap time.Duration
	for {
		want := true
		select {
		case <-ctx.Done():
			return
		case <-r.freed:
			want = r.schedule(ctx)
		case <-r.wake:
		case <-tick.C:
		case <-soon.C:
		}
		if !want {
			continue
		}
		if left := gap - time.Since(looked); left > 0 {
			soon.Reset(left)
			continue
		}
		began := time.Now()
		r.look(ctx)
		looked = time.Now()
		gap = min(max(minLookGap, min((lookShare-1)*looked.Sub(began), maxLookGap)), r.deps.Timing.Poll)
	}
}

// look reads the bulks that have work. A bulk of this process that is missing was paused or cancelled, or another process holds
// its lease.
func (r *Runner) look(ctx context.Context) {
	asked := time.Now()
	running, err := r.deps.Leases.Running(ctx, r.token)
	if err != nil {
		if ctx.Err() == nil {
			r.deps.Observer.BulkError(ctx, "look for bulks", uuid.Nil, err)
		}
		return
	}
	slices.SortFunc(running, func(a, b Running) int {
		return cmp.Or(a.turnKey().Compare(b.turnKey()), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	mine := make(map[uuid.UUID]bool)
	sharing, free := map[channel.Key]int{}, map[channel.Key]int{}
	leased := 0
	line := running[:0:0]
	for _, b := range running {
		switch {
		case b.Free:
			line = append(line, b)
			free[b.Channel]++
		default:
			leased++
			sharing[b.Channel]++
			mine[b.ID] = b.Mine
		}
	}
	r.mu.Lock()
	r.endLostRuns(mine, asked)
	r.waiting, r.leased = line, leased
	for _, b := range line {
		r.laneOf(b.Channel)
	}
	for key, l := range r.lanes {
		l.leased, l.truncated = sharing[key], free[key] >= listedFree
		if l.leased == 0 && free[key] == 0 && l.runs == 0 {
			delete(r.lanes, key)
		}
	}
	r.mu.Unlock()
	r.schedule(ctx)
}

// listedFree is how many free bulks of a channel Leases.Running lists at most. A look with so many may have omitted some.
const listedFree = 64

const (
	firstTurn = time.Minute // how much longer a bulk without a run counts as having waited
	urgency   = time.Minute // how much longer a HIGH bulk counts as having waited; a LOW one that much shorter
)

// turnKey orders the bulks of a channel: the earliest time starts first. It is the start of the bulk's wait, adjusted by firstTurn
// and urgency, so a small new bulk does not wait behind large ones, and no bulk waits for ever.
func (b *Running) turnKey() time.Time {
	t := b.TurnAt
	if t.IsZero() {
		t = b.Accepted.Add(-firstTurn)
	}
	switch b.Priority {
	case message.High:
		return t.Add(-urgency)
	case message.Low:
		return t.Add(urgency)
	case message.Normal:
	}
	return t
}

// schedule starts the bulks of the last look that can make progress now. It reports whether another look may find more.
func (r *Runner) schedule(ctx context.Context) (lookAgain bool) {
	r.refreshLanes(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		l.waiting, l.notStarted = 0, 0
	}
	rest := r.waiting[:0]
	for _, b := range r.waiting {
		if r.runs[b.ID] != nil {
			continue
		}
		if run := r.admit(&b); run != nil {
			r.begin(ctx, run)
			continue
		}
		rest = append(rest, b)
		r.laneOf(b.Channel).notStarted++
	}
	r.waiting = rest
	for _, l := range r.lanes {
		lookAgain = lookAgain || (l.truncated && l.notStarted == 0)
	}
	return lookAgain
}

// admit returns the run for a free bulk: with a slot, for planning only or for reconciling only. It returns nil when the bulk
// must wait. The caller holds the mutex.
func (r *Runner) admit(b *Running) *bulkRun {
	l := r.laneOf(b.Channel)
	run := &bulkRun{runner: r, deps: &r.deps, id: b.ID, lane: l, more: make(chan struct{}, 1), counted: make(chan struct{}, 1)}
	waits := !b.Cancelled && (!b.Planned || b.Unfed)
	switch {
	case waits && (b.Planned || b.Due) && l.free():
		run.hasSlot, run.slotSince = true, time.Now()
		l.used++
	case waits && !b.Planned && b.Due && r.planners < maxPlanners:
		run.planOnly = true
		r.planners++
		l.waiting++
	case b.Due && r.reconcilers < maxReconcilers && (!waits || (l.paused && b.Open)):
		run.reconcileOnly = true
		r.reconcilers++
	default:
		if waits {
			l.waiting++
		}
		return nil
	}
	return run
}

// begin starts a run in its goroutine. The caller holds the mutex.
func (r *Runner) begin(ctx context.Context, run *bulkRun) {
	r.runs[run.id] = run
	run.lane.runs++
	r.running.Go(func() {
		err := r.run(ctx, run)
		r.end(run)
		switch {
		case err == nil, message.IsCode(err, message.CodeConflict):
		case errors.Is(err, ErrLeaseLost):
			r.deps.Observer.BulkEvent(ctx, "left", run.id) // paused, cancelled, or acquired by another process
		case ctx.Err() != nil:
		default:
			r.deps.Observer.BulkError(ctx, "run", run.id, err)
		}
	})
}

// end removes a run and releases its slot and its share of the lane.
func (r *Runner) end(run *bulkRun) {
	run.releaseSlot(false)
	r.mu.Lock()
	run.lane.inFlight -= run.inFlight
	run.lane.runs--
	if run.planOnly {
		r.planners--
	}
	if run.reconcileOnly {
		r.reconcilers--
	}
	delete(r.runs, run.id)
	r.mu.Unlock()
	poke(r.freed)
	if run.abandoned { // not before: the runner passes over bulks that it still runs
		r.Wake()
	}
}

// run acquires a bulk's lease and works on the bulk until the bulk ends, is parked, or its lease is lost.
func (r *Runner) run(ctx context.Context, run *bulkRun) error {
	asked := time.Now()
	lease := Lease{BulkID: run.id, Token: r.token}
	b, err := r.deps.Leases.Acquire(ctx, lease, r.deps.Timing.Lease)
	if err != nil {
		return err
	}
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.Content, b.Request = message.Content{}, nil // a bulkRun needs neither
	run.bulk, run.lease, run.total, run.planned, run.fed = b, lease, b.Total, b.Planned, b.FeedSeq
	r.mu.Lock()
	run.expires, run.acquired, run.cancelRun = asked.Add(r.deps.Timing.Lease), time.Now(), cancel
	run.onLeaseLost = cancel
	r.mu.Unlock()
	after, err := run.work(wctx)
	if errors.Is(context.Cause(wctx), ErrLeaseLost) {
		return ErrLeaseLost
	}
	run.expectLeaseEnd()
	if run.ended || ctx.Err() != nil { // the end of the bulk ended its lease; releaseAll ends the leases of a process that stops
		return err
	}
	rctx, done := context.WithTimeout(ctx, r.deps.Timing.Lease)
	defer done()
	if rerr := r.deps.Leases.Release(rctx, lease, after); rerr != nil && !errors.Is(rerr, ErrLeaseLost) {
		r.deps.Observer.BulkError(rctx, "release", run.id, rerr)
	}
	return err
}

// endReconcileOnly lets another run reconcile: this one has reconciled its bulk and continues to run.
func (run *bulkRun) endReconcileOnly() {
	run.runner.mu.Lock()
	reconcileOnly := run.reconcileOnly
	if reconcileOnly {
		run.reconcileOnly = false
		run.runner.reconcilers--
	}
	run.runner.mu.Unlock()
	if reconcileOnly {
		poke(run.runner.freed)
	}
}

// endPlanOnly lets another run plan without a slot.
func (run *bulkRun) endPlanOnly() {
	run.runner.mu.Lock()
	if run.planOnly {
		run.planOnly = false
		run.runner.planners--
	}
	run.runner.mu.Unlock()
	poke(run.runner.freed)
}
