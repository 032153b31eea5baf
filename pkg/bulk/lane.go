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

// The window: how many tasks of a channel's bulks may be in the queue at a time. It bounds Redis, the work that a lost
// Redis means, and how long a pause takes to be felt. Over a channel with a rate it is what the workers may send before
// long, so that no task comes up only to be told to wait. A place is the right of a bulk to fill its share of the window.
// A channel has few places if its window is small: sharing it among many would only make all of them late.
const (
	windowPerWorker = 2_000
	maxWindow       = 20_000
	minWindow       = 20
	windowTime      = 1.5 // seconds of the channel's rate, where it has one: as long as a delivery waits for its turn
	maxSlots        = 64  // of one channel in one process
	minShare        = 10  // tasks
	lookAround      = time.Second
)

// lane is a process's knowledge of one channel with bulks that run or wait. The Runner's mutex guards it.
type lane struct {
	key      channel.Key
	looked   time.Time
	asking   bool  // it is being looked at
	paused   bool  // the channel is paused
	window   int64 // tasks of the channel's bulks
	shared   bool  // the window is that of the workers, which all channels share
	slots    int
	used     int   // of the slots
	runs     int   // of this process
	sharing  int   // bulks of the channel with a lease, of all processes, at the last look
	waiting  int   // bulks that wait for a place
	left     int   // bulks of the last look that have not begun
	full     bool  // the last look may have left some out
	underWay int64 // tasks of this process's bulks
}

func (l *lane) free() bool { return !l.looked.IsZero() && !l.paused && l.used < l.slots }

func (l *lane) idle() bool { return l.runs == 0 && !l.asking && time.Since(l.looked) > lookAround }

func (l *lane) old(now time.Time, poll time.Duration) bool {
	return now.Sub(l.looked) > min(lookAround, poll)
}

// laneOf returns a channel's lane. The caller holds the lock.
func (r *Runner) laneOf(k channel.Key) *lane {
	l := r.lanes[k]
	if l == nil {
		l = &lane{key: k}
		r.lanes[k] = l
	}
	return l
}

// refreshLanes looks at every channel that was not looked at for a while. A channel that cannot be read stays as it was.
func (r *Runner) refreshLanes(ctx context.Context) {
	now := time.Now()
	var old []*lane
	r.mu.Lock()
	for _, l := range r.lanes {
		if !l.asking && l.old(now, r.deps.Timing.Poll) {
			l.asking = true
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
	paused, rate := false, 0.0 // the messages of a channel that is gone come to their end like others
	if err == nil {
		paused, rate = delivery.Decide(ch).Held, r.deps.Health.Rate(ctx, ch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.asking = false
	if err != nil && !message.IsCode(err, message.CodeNotFound) {
		if ctx.Err() == nil {
			r.deps.Observer.BulkError(ctx, "read the channel", uuid.Nil, err)
		}
		return
	}
	l.looked, l.paused, l.shared = time.Now(), paused, rate <= 0
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
	share   int64 // tasks that this bulk may have in the queue
	left    int64 // tasks that the channel's bulks may add
	waiting int
}

// around returns how the bulkRun's channel stands, at most lookAround old, and notes how many of its tasks are under way.
func (run *bulkRun) around(ctx context.Context, underWay int64) view {
	l := run.lane
	run.runner.mu.Lock()
	old := !l.asking && l.old(time.Now(), run.deps.Timing.Poll)
	run.runner.mu.Unlock()
	if old {
		run.runner.refreshLanes(ctx)
	}
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	l.underWay += underWay - run.underWay
	run.underWay = underWay
	v := view{paused: l.paused, left: l.window - l.underWay, waiting: l.waiting}
	switch {
	case run.deps.Window > 0:
		v.share = int64(run.deps.Window)
	case l.shared:
		v.share = max(l.window/int64(max(run.runner.leased, l.used, 1)), minWindow)
	default:
		v.share = max(l.window/int64(max(l.sharing, l.used, 1)), min(minShare, l.window))
	}
	return v
}

// reserve counts up to n tasks as under way before they are, and returns how many fit into the channel's window.
func (run *bulkRun) reserve(n int64) int64 {
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	n = max(min(n, run.lane.window-run.lane.underWay), 0)
	run.lane.underWay += n
	run.underWay += n
	return n
}

// takeSlot gives the bulkRun a place if one is free. One that has had its turn lets those in line go first.
func (run *bulkRun) takeSlot() bool {
	run.runner.mu.Lock()
	defer run.runner.mu.Unlock()
	if run.hasSlot || !run.lane.free() || (run.yielded && run.lane.waiting > 0) {
		return run.hasSlot
	}
	run.hasSlot, run.yielded, run.since = true, false, time.Now()
	run.lane.used++
	return true
}

// releaseSlot gives the bulkRun's place to another.
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
