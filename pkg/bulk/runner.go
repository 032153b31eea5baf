package bulk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/audience"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/pause"
)

// Timing is how long things take that tests shorten.
type Timing struct {
	Poll      time.Duration // how often a runner looks for bulks that nobody runs
	Lease     time.Duration // how long a lease lasts without being renewed
	Reconcile time.Duration // how often a running bulk's open rows are compared with the queue and the counters
	Stall     time.Duration // the same, while nothing moves
	Retry     time.Duration // after the database or Redis did not answer
}

// DefaultTiming is the Timing of a real deployment.
func DefaultTiming() Timing {
	return Timing{Poll: time.Second, Lease: 15 * time.Second, Reconcile: 30 * time.Second, Stall: 5 * time.Second, Retry: time.Second}
}

// RunnerDeps is what a Runner works with.
type RunnerDeps struct {
	Leases   Leases
	Plan     Plan
	Feed     Feed
	Resolver audience.Resolver
	Queue    Queue
	Counters Counters
	Expirer  Expirer
	Rescuer  Rescuer
	Channels Channels
	Pacer    Pacer
	Observer Observer
	Timing   Timing
	Window   int // tasks of one bulk in the queue; 0: derived from the channel's rate and the workers
}

// Runner plans and feeds bulks, several at once, each under a lease. Every worker process has one.
type Runner struct {
	RunnerDeps
	wake    chan uuid.UUID
	stop    context.CancelFunc
	done    chan struct{}
	mu      sync.Mutex
	mine    map[uuid.UUID]bool
	running []Running // everywhere, at the last look
}

const (
	maxRunning   = 64 // bulks that one process runs at a time
	keepCounters = 24 * time.Hour
)

// NewRunner makes a Runner; Start sets it going.
func NewRunner(d RunnerDeps) *Runner {
	return &Runner{RunnerDeps: d, wake: make(chan uuid.UUID, 256), mine: map[uuid.UUID]bool{}}
}

// Wake asks the runner to look at a bulk at once. It never blocks; a runner that is busy looks soon anyway.
func (r *Runner) Wake(id uuid.UUID) {
	select {
	case r.wake <- id:
	default:
	}
}

// Start begins to look for bulks.
func (r *Runner) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		r.loop(ctx)
	}()
}

// Stop lets go of every bulk, so that another process can go on at once, and returns when all is quiet.
func (r *Runner) Stop() {
	if r.stop != nil {
		r.stop()
		<-r.done
	}
}

func (r *Runner) loop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(r.Timing.Poll)
	defer tick.Stop()
	r.look(ctx, &wg)
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-r.wake:
			r.take(ctx, &wg, id)
		case <-tick.C:
			r.look(ctx, &wg)
		}
	}
}

func (r *Runner) look(ctx context.Context, wg *sync.WaitGroup) {
	running, err := r.Leases.Running(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.Observer.BulkError(ctx, "look for bulks", uuid.Nil, err)
		}
		return
	}
	r.mu.Lock()
	r.running = running
	r.mu.Unlock()
	for _, b := range running {
		if b.Free {
			r.take(ctx, wg, b.ID)
		}
	}
}

// company returns among how many bulks, this one included, the workers are shared, and a channel.
func (r *Runner) company(k channel.Key) (all, same int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.running {
		if b.Channel == k {
			same++
		}
	}
	return max(len(r.running), 1), max(same, 1)
}

func (r *Runner) take(ctx context.Context, wg *sync.WaitGroup, id uuid.UUID) {
	r.mu.Lock()
	busy := r.mine[id] || len(r.mine) >= maxRunning
	if !busy {
		r.mine[id] = true
	}
	r.mu.Unlock()
	if busy {
		return
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer func() {
			r.mu.Lock()
			delete(r.mine, id)
			r.mu.Unlock()
		}()
		err := r.run(ctx, id)
		switch {
		case err == nil, ctx.Err() != nil, message.IsCode(err, message.CodeConflict):
		case errors.Is(err, ErrLeaseLost):
			r.Observer.BulkEvent(ctx, "left", id) // it was paused or cancelled, or another process has it
		default:
			r.Observer.BulkError(ctx, "run", id, err)
		}
	}()
}

// course is one bulk under this process's lease. The planner moves total and planned on, the feeder reads them.
type course struct {
	*Runner
	bulk    *Bulk
	lease   Lease
	mu      sync.Mutex
	total   int64
	planned bool
	more    chan struct{}      // the planner added rows
	seen    map[uuid.UUID]bool // PENDING at the last walk
	held    bool               // its channel is paused

	takenBack bool // the last walk cancelled messages
	lost      bool // Redis lost something, or the bulk is new here: enqueue every PENDING message
}

func (r *Runner) run(ctx context.Context, id uuid.UUID) error {
	lease := Lease{BulkID: id, Token: uuid.New()}
	b, err := r.Leases.Acquire(ctx, lease, r.Timing.Lease)
	if err != nil {
		return err
	}
	defer func() {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timing.Lease)
		defer cancel()
		if err := r.Leases.Release(rctx, lease); err != nil && !errors.Is(err, ErrLeaseLost) {
			r.Observer.BulkError(rctx, "release", id, err)
		}
	}()
	c := &course{Runner: r, bulk: b, lease: lease, total: b.Total, planned: b.Planned, more: make(chan struct{}, 1), seen: map[uuid.UUID]bool{}, lost: true}
	ctx, finished := context.WithCancel(ctx)
	defer finished()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.keepLease(gctx) })
	if b.Status != Cancelled {
		g.Go(func() error { return c.plan(gctx) })
	}
	g.Go(func() error {
		defer finished()
		if b.Status == Cancelled {
			return c.cancel(gctx)
		}
		return c.feed(gctx)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// keepLease renews the lease until the context ends. When it cannot be sure of the lease any more, everything that
// works under it stops. It asks often, since a bulk that is paused or cancelled loses its lease.
func (c *course) keepLease(ctx context.Context) error {
	expires := time.Now().Add(c.Timing.Lease)
	for pause.For(ctx, min(c.Timing.Lease/3, c.Timing.Poll)) {
		asked := time.Now()
		err := c.Leases.Renew(ctx, c.lease, c.Timing.Lease)
		switch {
		case err == nil:
			expires = asked.Add(c.Timing.Lease)
		case errors.Is(err, ErrLeaseLost) || time.Now().After(expires):
			return ErrLeaseLost
		}
	}
	return nil
}

// again runs a step until it works, since the database and Redis come back. Only a lost lease and the end of the
// context end it.
func (c *course) again(ctx context.Context, what string, step func() error) error {
	for {
		err := step()
		if err == nil || errors.Is(err, ErrLeaseLost) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Observer.BulkError(ctx, what, c.bulk.ID, err)
		if !pause.For(ctx, c.Timing.Retry) {
			return ctx.Err()
		}
	}
}
