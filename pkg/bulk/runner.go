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

// Timing is how long things take that tests shorten.
type Timing struct {
	Poll      time.Duration // how often a runner looks for bulks that no process runs
	Lease     time.Duration // how long a lease lasts without being renewed
	Reconcile time.Duration // how often a running bulk's open rows are compared with the queue and the counters
	Stall     time.Duration // the same, while nothing moves
	Retry     time.Duration // after the database or Redis did not answer
	TimeSlice time.Duration // how long a bulk is fed while others of its channel wait for a place
}

// DefaultTiming is the Timing of a real deployment.
func DefaultTiming() Timing {
	return Timing{
		Poll: time.Second, Lease: 15 * time.Second, Reconcile: 30 * time.Second, Stall: 5 * time.Second, Retry: time.Second, TimeSlice: time.Second,
	}
}

// RunnerDeps is what a Runner works with.
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
// A bulk that can do nothing now is parked: it has no lease, no goroutine and no memory in any process, and costs its part
// of the statement with which each process looks for work. Bulks of one channel take turns at the channel's places.
type Runner struct {
	RunnerDeps
	token   uuid.UUID
	wake    chan struct{} // look at once
	freed   chan struct{} // a place, or a bulk that waited has become free
	heavy   chan struct{} // held while a page of an expensive audience is resolved
	stop    context.CancelFunc
	done    chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	courses  map[uuid.UUID]*course
	lanes    map[channel.Key]*lane
	line     []Running // free bulks of the last look, in the order of their turns
	leased   int       // bulks with a lease, of all processes, at the last look
	planners int       // courses that only plan
	visits   int       // courses that look after what is under way
}

const (
	maxPlanners = 4                      // bulks that are planned while they wait for a place
	maxVisits   = 16                     // bulks without a place that are looked after
	lookGap     = 20 * time.Millisecond  // between two looks at least,
	lookShare   = 4                      // and at most this part of the time is spent on looking,
	lookSoon    = 100 * time.Millisecond // as long as a look does not take as long as this
)

// NewRunner makes a Runner; Start sets it going.
func NewRunner(d RunnerDeps) *Runner {
	return &Runner{
		RunnerDeps: d, token: uuid.New(), wake: make(chan struct{}, 1), freed: make(chan struct{}, 1), heavy: make(chan struct{}, 1),
		courses: map[uuid.UUID]*course{}, lanes: map[channel.Key]*lane{},
	}
}

// Wake asks the runner to look for bulks at once. It never blocks.
func (r *Runner) Wake() { poke(r.wake) }

// NotifyCounted tells the runner that messages of a bulk were counted. It never blocks.
func (r *Runner) NotifyCounted(id uuid.UUID) {
	r.mu.Lock()
	c := r.courses[id]
	r.mu.Unlock()
	if c != nil {
		poke(c.counted)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Start begins to look for bulks.
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

// Stop lets go of every bulk, so that another process can go on at once, and returns when all is quiet.
func (r *Runner) Stop() {
	if r.stop != nil {
		r.stop()
		<-r.done
	}
}

// releaseAll ends every lease of the process. A database that does not answer ends them by itself, in time.
func (r *Runner) releaseAll() {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timing.Lease)
	defer cancel()
	if err := r.Leases.ReleaseAll(ctx, r.token); err != nil {
		r.Observer.BulkError(ctx, "release", uuid.Nil, err)
	}
}

// loop looks for bulks every Poll, and earlier when it is woken or when more bulks may wait for what has become free.
func (r *Runner) loop(ctx context.Context) {
	tick := time.NewTicker(r.Timing.Poll)
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
		gap = min(max(lookGap, min((lookShare-1)*looked.Sub(began), lookSoon)), r.Timing.Poll)
	}
}

// look reads which bulks are to be run. One of ours that is not among them any more was paused or cancelled, or another
// process has it.
func (r *Runner) look(ctx context.Context) {
	asked := time.Now()
	running, err := r.Leases.Running(ctx, r.token)
	if err != nil {
		if ctx.Err() == nil {
			r.Observer.BulkError(ctx, "look for bulks", uuid.Nil, err)
		}
		return
	}
	slices.SortFunc(running, func(a, b Running) int {
		return cmp.Or(a.place().Compare(b.place()), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	held := make(map[uuid.UUID]bool)
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
			held[b.ID] = b.Mine
		}
	}
	r.mu.Lock()
	r.loseOthers(held, asked)
	r.line, r.leased = line, leased
	for _, b := range line {
		r.laneOf(b.Channel)
	}
	for key, l := range r.lanes {
		l.sharing, l.full = sharing[key], free[key] >= inLine
		if l.sharing == 0 && free[key] == 0 && l.idle() {
			delete(r.lanes, key)
		}
	}
	r.mu.Unlock()
	r.schedule(ctx)
}

// inLine is from how many free bulks of a channel on a look may have left some out.
const inLine = 64

const (
	firstTurn = time.Minute // a bulk that has had no turn goes before those whose last one was less than this ago
	urgency   = time.Minute // HIGH goes before what has waited less than this longer, LOW after it
)

// place orders the bulks of a channel. One that has had no turn comes early, so that a small bulk does not wait behind
// large ones; one that has waited long enough comes before all that came later, so that none waits for ever.
func (b *Running) place() time.Time {
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
func (r *Runner) schedule(ctx context.Context) (again bool) {
	r.refreshLanes(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		l.inLine, l.left = 0, 0
	}
	rest := r.line[:0]
	for _, b := range r.line {
		if r.courses[b.ID] != nil {
			continue
		}
		if c := r.admit(&b); c != nil {
			r.begin(ctx, c)
			continue
		}
		rest = append(rest, b)
		r.laneOf(b.Channel).left++
	}
	r.line = rest
	for _, l := range r.lanes {
		again = again || (l.full && l.left == 0)
	}
	return again
}

// admit decides whether a free bulk gets something to do now, and what. The caller holds the lock.
func (r *Runner) admit(b *Running) *course {
	l := r.laneOf(b.Channel)
	c := &course{Runner: r, id: b.ID, lane: l, more: make(chan struct{}, 1), counted: make(chan struct{}, 1)}
	waits := !b.Cancelled && (!b.Planned || b.Unfed)
	switch {
	case waits && (b.Planned || b.Due) && l.free():
		c.placed, c.since = true, time.Now()
		l.used++
	case waits && !b.Planned && b.Due && r.planners < maxPlanners:
		c.planner = true
		r.planners++
		l.inLine++
	case b.Due && r.visits < maxVisits && (!waits || (l.held && b.Open)):
		c.visit = true
		r.visits++
	default:
		if waits {
			l.inLine++
		}
		return nil
	}
	return c
}

// begin runs a course. The caller holds the lock.
func (r *Runner) begin(ctx context.Context, c *course) {
	r.courses[c.id] = c
	c.lane.courses++
	r.running.Go(func() {
		err := r.run(ctx, c)
		r.end(c)
		switch {
		case err == nil, message.IsCode(err, message.CodeConflict):
		case errors.Is(err, ErrLeaseLost):
			r.Observer.BulkEvent(ctx, "left", c.id) // it was paused or cancelled, or another process has it
		case ctx.Err() != nil:
		default:
			r.Observer.BulkError(ctx, "run", c.id, err)
		}
	})
}

// end takes a course out.
func (r *Runner) end(c *course) {
	c.leavePlace(false)
	r.mu.Lock()
	c.lane.underWay -= c.underWay
	c.lane.courses--
	if c.planner {
		r.planners--
	}
	if c.visit {
		r.visits--
	}
	delete(r.courses, c.id)
	r.mu.Unlock()
	poke(r.freed)
}

// run works on a bulk under a lease until it can do nothing more for now.
func (r *Runner) run(ctx context.Context, c *course) error {
	asked := time.Now()
	lease := Lease{BulkID: c.id, Token: r.token}
	b, err := r.Leases.Acquire(ctx, lease, r.Timing.Lease)
	if err != nil {
		return err
	}
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.Content, b.Request = message.Content{}, nil // a course needs neither
	c.bulk, c.lease, c.total, c.planned, c.fed = b, lease, b.Total, b.Planned, b.FeedSeq
	r.mu.Lock()
	c.expires, c.acquired, c.cancelled = asked.Add(r.Timing.Lease), time.Now(), cancel
	c.lose = cancel
	r.mu.Unlock()
	after, err := c.work(wctx)
	if errors.Is(context.Cause(wctx), ErrLeaseLost) {
		return ErrLeaseLost
	}
	c.leaving()
	if c.over || ctx.Err() != nil { // the end of a bulk ends its lease, and the end of the process all of them
		return err
	}
	rctx, done := context.WithTimeout(ctx, r.Timing.Lease)
	defer done()
	if rerr := r.Leases.Release(rctx, lease, after); rerr != nil && !errors.Is(rerr, ErrLeaseLost) {
		r.Observer.BulkError(rctx, "release", c.id, rerr)
	}
	return err
}

// leaving says that the course gives its lease up by itself: that it is gone then is no loss.
func (c *course) leaving() {
	c.Runner.mu.Lock()
	c.lose = nil
	c.Runner.mu.Unlock()
}

// staying takes leaving back, unless the bulk is over.
func (c *course) staying() {
	c.Runner.mu.Lock()
	if !c.over {
		c.lose = c.cancelled
	}
	c.Runner.mu.Unlock()
}

// leaveVisit gives the course's part in the visits to another, once it has looked after its bulk and stays with it.
func (c *course) leaveVisit() {
	c.Runner.mu.Lock()
	visit := c.visit
	if visit {
		c.visit = false
		c.visits--
	}
	c.Runner.mu.Unlock()
	if visit {
		poke(c.freed)
	}
}

// leavePlanning gives the course's part in the planning to another.
func (c *course) leavePlanning() {
	c.Runner.mu.Lock()
	if c.planner {
		c.planner = false
		c.planners--
	}
	c.Runner.mu.Unlock()
	poke(c.freed)
}

// keepLeases renews all leases of the process with one statement.
func (r *Runner) keepLeases(ctx context.Context) {
	for pause.For(ctx, r.Timing.Lease/3) {
		r.mu.Lock()
		idle := len(r.courses) == 0
		r.mu.Unlock()
		if idle {
			continue
		}
		asked := time.Now()
		rctx, cancel := context.WithTimeout(ctx, r.Timing.Lease)
		held, err := r.Leases.Renew(rctx, r.token, r.Timing.Lease)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.Observer.BulkError(ctx, "renew the leases", uuid.Nil, err)
			}
			continue
		}
		mine := make(map[uuid.UUID]bool, len(held))
		r.mu.Lock()
		for _, id := range held {
			mine[id] = true
			if c := r.courses[id]; c != nil && c.lose != nil {
				c.expires = asked.Add(r.Timing.Lease) // from the question on: the answer may be late
			}
		}
		r.loseOthers(mine, asked)
		r.mu.Unlock()
	}
}

// loseOthers ends the courses that had a lease before a question and are not among its answer. The caller holds the lock.
func (r *Runner) loseOthers(held map[uuid.UUID]bool, asked time.Time) {
	for id, c := range r.courses {
		if c.lose != nil && c.acquired.Before(asked) && !held[id] {
			c.lose(ErrLeaseLost)
		}
	}
}

// leaseLooks is how often within the time of a lease its end is looked for.
const leaseLooks = 30

// watchLeases ends what works under a lease that was not renewed in time, whatever the database does meanwhile.
func (r *Runner) watchLeases(ctx context.Context) {
	for pause.For(ctx, r.Timing.Lease/leaseLooks) {
		r.mu.Lock()
		now := time.Now()
		for _, c := range r.courses {
			if c.lose != nil && now.After(c.expires) {
				c.lose(ErrLeaseLost)
			}
		}
		r.mu.Unlock()
	}
}
