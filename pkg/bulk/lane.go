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
	windowMost      = 20_000
	windowLeast     = 20
	windowTime      = 1.5 // seconds of the channel's rate, where it has one: as long as a delivery waits for its turn
	maxPlaces       = 64  // of one channel in one process
	shareLeast      = 10  // tasks
	lookAround      = time.Second
)

// lane is what a process knows of a channel whose bulks run or wait. The Runner's lock is over it.
type lane struct {
	key      channel.Key
	looked   time.Time
	asking   bool  // it is being looked at
	held     bool  // the channel is paused
	window   int64 // tasks of the channel's bulks
	whole    bool  // the window is that of the workers, which all channels share
	places   int
	used     int   // of the places
	courses  int   // of this process
	sharing  int   // bulks of the channel with a lease, of all processes, at the last look
	inLine   int   // bulks that wait for a place
	left     int   // bulks of the last look that have not begun
	full     bool  // the last look may have left some out
	underWay int64 // tasks of this process's bulks
}

func (l *lane) free() bool { return !l.looked.IsZero() && !l.held && l.used < l.places }

func (l *lane) idle() bool { return l.courses == 0 && !l.asking && time.Since(l.looked) > lookAround }

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
		if !l.asking && l.old(now, r.Timing.Poll) {
			l.asking = true
			old = append(old, l)
		}
	}
	r.mu.Unlock()
	if len(old) == 0 {
		return
	}
	wctx, cancel := context.WithTimeout(ctx, redisPatience)
	workers, err := r.Queue.Workers(wctx)
	cancel()
	if err != nil || workers < 1 {
		workers = 1
	}
	for _, l := range old {
		r.refresh(ctx, l, workers)
	}
}

func (r *Runner) refresh(ctx context.Context, l *lane, workers int) {
	ch, err := r.Channels.Get(ctx, l.key)
	held, rate := false, 0.0 // the messages of a channel that is gone come to their end like others
	if err == nil {
		held, rate = delivery.Decide(ch).Held, r.Health.Rate(ctx, ch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.asking = false
	if err != nil && !message.IsCode(err, message.CodeNotFound) {
		if ctx.Err() == nil {
			r.Observer.BulkError(ctx, "read the channel", uuid.Nil, err)
		}
		return
	}
	l.looked, l.held, l.whole = time.Now(), held, rate <= 0
	l.window, l.places = int64(min(workers*windowPerWorker, windowMost)), maxPlaces
	if rate > 0 {
		l.window = max(int64(math.Ceil(rate*windowTime)), windowLeast)
		l.places = min(max(int(l.window/shareLeast), 1), maxPlaces)
	}
	if r.Window > 0 {
		l.window, l.places = int64(r.Window)*maxPlaces, maxPlaces
	}
}

// view is what a course sees of its lane.
type view struct {
	held   bool
	share  int64 // tasks that this bulk may have in the queue
	left   int64 // tasks that the channel's bulks may add
	inLine int
}

// around returns how the course's channel stands, at most lookAround old, and notes how many of its tasks are under way.
func (c *course) around(ctx context.Context, underWay int64) view {
	l := c.lane
	c.Runner.mu.Lock()
	old := !l.asking && l.old(time.Now(), c.Timing.Poll)
	c.Runner.mu.Unlock()
	if old {
		c.refreshLanes(ctx)
	}
	c.Runner.mu.Lock()
	defer c.Runner.mu.Unlock()
	l.underWay += underWay - c.underWay
	c.underWay = underWay
	v := view{held: l.held, left: l.window - l.underWay, inLine: l.inLine}
	switch {
	case c.Window > 0:
		v.share = int64(c.Window)
	case l.whole:
		v.share = max(l.window/int64(max(c.leased, l.used, 1)), windowLeast)
	default:
		v.share = max(l.window/int64(max(l.sharing, l.used, 1)), min(shareLeast, l.window))
	}
	return v
}

// reserve counts up to n tasks as under way before they are, and returns how many fit into the channel's window.
func (c *course) reserve(n int64) int64 {
	c.Runner.mu.Lock()
	defer c.Runner.mu.Unlock()
	n = max(min(n, c.lane.window-c.lane.underWay), 0)
	c.lane.underWay += n
	c.underWay += n
	return n
}

// takePlace gives the course a place if one is free. One that has had its turn lets those in line go first.
func (c *course) takePlace() bool {
	c.Runner.mu.Lock()
	defer c.Runner.mu.Unlock()
	if c.placed || !c.lane.free() || (c.yielded && c.lane.inLine > 0) {
		return c.placed
	}
	c.placed, c.yielded, c.since = true, false, time.Now()
	c.lane.used++
	return true
}

// leavePlace gives the course's place to another.
func (c *course) leavePlace(yields bool) {
	c.Runner.mu.Lock()
	placed := c.placed
	if placed {
		c.placed, c.yielded = false, yields
		c.lane.used--
	}
	c.Runner.mu.Unlock()
	if placed {
		poke(c.freed)
	}
}
