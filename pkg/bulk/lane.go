package bulk

import (
	"context"
	"math"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// The window is how many tasks of a channel's bulks may be in the queue at a time. It bounds the memory of Redis, the work after
// a loss of Redis, and the time that a pause takes to have effect. A channel with a rate has a window of windowTime, so that
// hardly any task reaches a worker before the limiter lets it go. A slot is the right of a bulk to fill its share of the window.
// A small window has few slots, because sharing it among many bulks would only delay all of them.
const (
	windowPerWorker = 2_000
	maxWindow       = 20_000
	minWindow       = 20
	windowTime      = 1.5 // seconds of the channel's rate: as long as a delivery waits for its reservation
	maxSlots        = 64  // of one channel in one process
	minShare        = 10  // tasks
	laneTTL         = time.Second
)

// lane is what a process knows of one channel whose bulks run or wait. The Runner's mutex guards it.
type lane struct {
	key        channel.Key
	refreshed  time.Time // when the channel was read last; zero: never
	refreshing bool      // the channel is being read
	paused     bool      // the channel is paused
	window     int64     // tasks
	shared     bool      // the channel has no rate: its window is that of the workers, which all channels share
	slots      int
	used       int   // of the slots
	runs       int   // of this process
	leased     int   // bulks of the channel with a lease, of all processes, at the last look
	waiting    int   // bulks that wait for a slot
	notStarted int   // bulks of the last look that have not started
	truncated  bool  // the last look may have omitted bulks
	inFlight   int64 // tasks of this process's bulks in the queue or being delivered
}

// free reports whether the channel has a free slot.
func (l *lane) free() bool { return !l.refreshed.IsZero() && !l.paused && l.used < l.slots }

// old reports whether the channel must be read again.
func (l *lane) old(now time.Time, poll time.Duration) bool {
	return now.Sub(l.refreshed) > min(laneTTL, poll)
}

// laneOf returns a channel's lane. The caller holds the mutex.
func (r *Runner) laneOf(k channel.Key) *lane {
	l := r.lanes[k]
	if l == nil {
		l = &lane{key: k}
		r.lanes[k] = l
	}
	return l
}

// refreshLanes reads every channel whose lane is older than laneTTL. The lane of a channel that cannot be read stays as it was.
func (r *Runner) refreshLanes(ctx context.Context) {
	now := time.Now()
	var old []*lane
	r.mu.Lock()
	for _, l := range r.lanes {
		if !l.refreshing && l.old(now, r.deps.Timing.Poll) {
			l.refreshing = true
			old = append(old, l)
		}
	}
	r.mu.Unlock()
	if len(old) == 0 {
		return
	}
	wctx, cancel := context.WithTimeout(ctx, redisTimeout)
	workers, err := r.deps.Queue.Workers(wctx)
	cancel()
	if err != nil || workers < 1 {
		workers = 1
	}
	for _, l := range old {
		r.refresh(ctx, l, workers)
	}
}

func (r *Runner) refresh(ctx context.Context, l *lane, workers int) {
	ch, err := r.deps.Channels.Get(ctx, l.key)
	paused, rate := false, 0.0 // a deleted channel has no limit: its messages are fed, and deliveries fail them
	if err == nil {
		paused, rate = delivery.Decide(ch).Held, r.deps.Health.Rate(ctx, ch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.refreshing = false
	if err != nil && !message.IsCode(err, message.CodeNotFound) {
		if ctx.Err() == nil {
			r.deps.Observer.BulkError(ctx, "read the channel", uuid.Nil, err)
		}
		return
	}
	l.refreshed, l.paused, l.shared = time.Now(), paused, rate <= 0
	l.window, l.slots = int64(min(workers*windowPerWorker, maxWindow)), maxSlots
	if rate > 0 {
		l.window = max(int64(math.Ceil(rate*windowTime)), minWindow)
		l.slots = min(max(int(l.window/minShare), 1), maxSlots)
	}
	if r.deps.Window > 0 {
		l.window, l.slots = int64(r.deps.Window)*maxSlots, maxSlots
	}
}

// view is a run's snapshot of its lane.
type view struct {
	paused  bool
	share   int64 // tasks that this bulk may have in flight
	spare   int64 // tasks that the channel's bulks may add
	waiting int   // bulks that wait for a slot
}

// observeLane records how many tasks of the run are in flight, and returns its lane, at most laneTTL old.
func (run *bulkRun) observeLane(ctx context.Context, inFlight int64) view {
	l := run.lane
	run.runner.mu.Lock()
	old := !l.refreshing && l.old(time.Now(), run.deps.Timing.Poll)
	run.runner.mu.Unlock()
	if old {
		run.runner.refreshLanes(ctx)
	}
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	l.inFlight += inFlight - run.inFlight
	run.inFlight = inFlight
	v := view{paused: l.paused, spare: l.window - l.inFlight, waiting: l.waiting}
	switch {
	case run.deps.Window > 0:
		v.share = int64(run.deps.Window)
	case l.shared:
		v.share = max(l.window/int64(max(run.runner.leased, l.used, 1)), minWindow)
	default:
		v.share = max(l.window/int64(max(l.leased, l.used, 1)), min(minShare, l.window))
	}
	return v
}

// reserve counts up to n tasks as in flight before they are enqueued. It returns how many fit into the window. Runs of the same
// channel may have seen the same spare tasks.
func (run *bulkRun) reserve(n int64) int64 {
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	n = max(min(n, run.lane.window-run.lane.inFlight), 0)
	run.lane.inFlight += n
	run.inFlight += n
	return n
}

// takeSlot gives the run a slot if one is free, and reports whether the run has one. A run that yielded lets waiting bulks go first.
func (run *bulkRun) takeSlot() bool {
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	if run.hasSlot || !run.lane.free() || (run.yielded && run.lane.waiting > 0) {
		return run.hasSlot
	}
	run.hasSlot, run.yielded, run.slotSince = true, false, time.Now()
	run.lane.used++
	return true
}

// releaseSlot gives the run's slot up. yields: at the end of its time slice.
func (run *bulkRun) releaseSlot(yields bool) {
	run.runner.mu.Lock()
	hasSlot := run.hasSlot
	if hasSlot {
		run.hasSlot, run.yielded = false, yields
		run.lane.used--
	}
	run.runner.mu.Unlock()
	if hasSlot {
		poke(run.runner.freed)
	}
}
