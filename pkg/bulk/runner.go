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
	"herald/pkg/pause"
)

// Timing holds the intervals of a Runner. Tests shorten them.
type Timing struct {
	Poll      time.Duration // between two looks for bulks without a lease
	Lease     time.Duration // a lease ends after this time without renewal
	Reconcile time.Duration // how often a running bulk's open rows are compared with the queue and the counters
	Stall     time.Duration // the same, while nothing moves
	Retry     time.Duration // pause after a failure of the database or Redis
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
// row in the statement that looks for work. The bulks of a channel share its slots in turns (round robin by time slice).
type Runner struct {
	deps    RunnerDeps
	token   uuid.UUID
	wake    chan struct{} // look at once
	freed   chan struct{} // a place, or a bulk that waited has become free
	heavy   chan struct{} // held while a page of an expensive audience is resolved
	stop    context.CancelFunc
	done    chan struct{}
	running sync.WaitGroup

	mu          sync.Mutex
	runs        map[uuid.UUID]*bulkRun
	lanes       map[channel.Key]*lane
	line        []Running // free bulks of the last look, in the order of their turns
	leased      int       // bulks with a lease, of all processes, at the last look
	planners    int       // runs that only plan
	reconcilers int       // runs that look after what is under way
}

const (
	maxPlanners    = 4                      // bulks that are planned while they wait for a place
	maxReconcilers = 16                     // bulks without a place that are looked after
	minLookGap     = 20 * time.Millisecond  // between two looks at least,
	lookShare      = 4                      // and at most this part of the time is spent on looking,
	maxLookGap     = 100 * time.Millisecond // as long as a look does not take as long as this
)

// NewRunner makes a Runner; Start sets it going.
func NewRunner(d RunnerDeps) *Runner {
	return &Runner{
		deps: d, token: uuid.New(), wake: make(chan struct{}, 1), freed: make(chan struct{}, 1), heavy: make(chan struct{}, 1),
		runs: map[uuid.UUID]*bulkRun{}, lanes: map[channel.Key]*lane{},
	}
}

// Wake asks the runner to look for bulks at once. It never blocks.
func (r *Runner) Wake() { poke(r.wake) }

// NotifyCounted tells the runner that messages of a bulk were counted. It never blocks.
func (r *Runner) NotifyCounted(id uuid.UUID) {
	r.mu.Lock()
	run := r.runs[id]
	r.mu.Unlock()
	if run != nil {
		poke(run.counted)
	}
}

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

// Stop releases every lease, so that another process can continue at once. It returns when all goroutines have ended.
func (r *Runner) Stop() {
	if r.stop != nil {
		r.stop()
		<-r.done
	}
}

// releaseAll ends every lease of the process. A database that does not answer ends them by itself, in time.
func (r *Runner) releaseAll() {
	ctx, cancel := context.WithTimeout(context.Background(), r.deps.Timing.Lease)
	defer cancel()
	if err := r.deps.Leases.ReleaseAll(ctx, r.token); err != nil {
		r.deps.Observer.BulkError(ctx, "release", uuid.Nil, err)
	}
}

// loop looks for bulks every Poll, and earlier when it is woken or when more bulks may wait for what has become free.
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

// look reads which bulks are to be run. One of ours that is not among them any more was paused or cancelled, or another
// process has it.
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
	r.loseOthers(mine, asked)
	r.line, r.leased = line, leased
	for _, b := range line {
		r.laneOf(b.Channel)
	}
	for key, l := range r.lanes {
		l.sharing, l.full = sharing[key], free[key] >= listedFree
		if l.sharing == 0 && free[key] == 0 && l.idle() {
			delete(r.lanes, key)
		}
	}
	r.mu.Unlock()
	r.schedule(ctx)
}

// waiting is from how many free bulks of a channel on a look may have left some out.
const listedFree = 64

const (
	firstTurn = time.Minute // a bulk that has had no turn goes before those whose last one was less than this ago
	urgency   = time.Minute // HIGH goes before what has waited less than this longer, LOW after it
)

// place orders the bulks of a channel. One that has had no turn comes early, so that a small bulk does not wait behind
// large ones; one that has waited long enough comes before all that came later, so that none waits for ever.
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

// schedule begins with the bulks of the last look that can do something now, and says whether another look may find more.
func (r *Runner) schedule(ctx context.Context) (lookAgain bool) {
	r.refreshLanes(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		l.waiting, l.left = 0, 0
	}
	rest := r.line[:0]
	for _, b := range r.line {
		if r.runs[b.ID] != nil {
			continue
		}
		if run := r.admit(&b); run != nil {
			r.begin(ctx, run)
			continue
		}
		rest = append(rest, b)
		r.laneOf(b.Channel).left++
	}
	r.line = rest
	for _, l := range r.lanes {
		lookAgain = lookAgain || (l.full && l.left == 0)
	}
	return lookAgain
}

// admit decides whether a free bulk gets something to do now, and what. The caller holds the lock.
func (r *Runner) admit(b *Running) *bulkRun {
	l := r.laneOf(b.Channel)
	run := &bulkRun{runner: r, deps: &r.deps, id: b.ID, lane: l, more: make(chan struct{}, 1), counted: make(chan struct{}, 1)}
	waits := !b.Cancelled && (!b.Planned || b.Unfed)
	switch {
	case waits && (b.Planned || b.Due) && l.free():
		run.hasSlot, run.since = true, time.Now()
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

// begin starts a run in its goroutine. The caller holds the lock.
func (r *Runner) begin(ctx context.Context, run *bulkRun) {
	r.runs[run.id] = run
	run.lane.runs++
	r.running.Go(func() {
		err := r.run(ctx, run)
		r.end(run)
		switch {
		case err == nil, message.IsCode(err, message.CodeConflict):
		case errors.Is(err, ErrLeaseLost):
			r.deps.Observer.BulkEvent(ctx, "left", run.id) // paused, cancelled, or taken over by another process
		case ctx.Err() != nil:
		default:
			r.deps.Observer.BulkError(ctx, "run", run.id, err)
		}
	})
}

// end removes a run and frees what it occupied.
func (r *Runner) end(run *bulkRun) {
	run.releaseSlot(false)
	r.mu.Lock()
	run.lane.underWay -= run.underWay
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
}

// run acquires a bulk's lease and works on the bulk until it ends, is parked, or the lease is lost.
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
	run.expires, run.acquired, run.cancelled = asked.Add(r.deps.Timing.Lease), time.Now(), cancel
	run.lose = cancel
	r.mu.Unlock()
	after, err := run.work(wctx)
	if errors.Is(context.Cause(wctx), ErrLeaseLost) {
		return ErrLeaseLost
	}
	run.leaving()
	if run.ended || ctx.Err() != nil { // the end of a bulk ends its lease, and the end of the process all of them
		return err
	}
	rctx, done := context.WithTimeout(ctx, r.deps.Timing.Lease)
	defer done()
	if rerr := r.deps.Leases.Release(rctx, lease, after); rerr != nil && !errors.Is(rerr, ErrLeaseLost) {
		r.deps.Observer.BulkError(rctx, "release", run.id, rerr)
	}
	return err
}

// leaving says that the bulkRun gives its lease up by itself: that it is gone then is no loss.
func (run *bulkRun) leaving() {
	run.runner.mu.Lock()
	run.lose = nil
	run.runner.mu.Unlock()
}

// staying takes leaving back, unless the bulk is over.
func (run *bulkRun) staying() {
	run.runner.mu.Lock()
	if !run.ended {
		run.lose = run.cancelled
	}
	run.runner.mu.Unlock()
}

// leaveReconciling gives the bulkRun's part in the reconcilers to another, once it has looked after its bulk and stays with it.
func (run *bulkRun) leaveReconciling() {
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

// leavePlanning gives the bulkRun's part in the planning to another.
func (run *bulkRun) leavePlanning() {
	run.runner.mu.Lock()
	if run.planOnly {
		run.planOnly = false
		run.runner.planners--
	}
	run.runner.mu.Unlock()
	poke(run.runner.freed)
}

// keepLeases renews all leases of the process with one statement.
func (r *Runner) keepLeases(ctx context.Context) {
	for pause.For(ctx, r.deps.Timing.Lease/3) {
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
			if run := r.runs[id]; run != nil && run.lose != nil {
				run.expires = asked.Add(r.deps.Timing.Lease) // from the question on: the answer may be late
			}
		}
		r.loseOthers(mine, asked)
		r.mu.Unlock()
	}
}

// loseOthers ends the runs that had a lease before a question and are not among its answer. The caller holds the lock.
func (r *Runner) loseOthers(mine map[uuid.UUID]bool, asked time.Time) {
	for id, run := range r.runs {
		if run.lose != nil && run.acquired.Before(asked) && !mine[id] {
			run.lose(ErrLeaseLost)
		}
	}
}

// leaseChecks is how often within the time of a lease its end is looked for.
const leaseChecks = 30

// watchLeases ends what works under a lease that was not renewed in time, whatever the database does meanwhile.
func (r *Runner) watchLeases(ctx context.Context) {
	for pause.For(ctx, r.deps.Timing.Lease/leaseChecks) {
		r.mu.Lock()
		now := time.Now()
		for _, run := range r.runs {
			if run.lose != nil && now.After(run.expires) {
				run.lose(ErrLeaseLost)
			}
		}
		r.mu.Unlock()
	}
}
