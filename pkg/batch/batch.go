// Package batch is group commit for any operation: concurrent calls share one run. It knows nothing of what they carry.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	maxItems = 500              // calls that share one run
	timeout  = 15 * time.Second // of one run
)

// errBroken is the error of callers whose run did not return: it panicked in its leader's goroutine.
var errBroken = errors.New("the shared run panicked")

// Group lets concurrent calls share a run: calls that gather while one run is under way go with the next. Runs start
// immediately, so a lone call waits for nothing, and batches grow with the load. MinInterval is the one exception.
//
// A group has no goroutine. The first caller becomes the leader: it runs its item in its own goroutine, since a change of
// goroutines may have to wait for a processor (a single beside a bulk took a seventh longer with one goroutine for each run).
// After its run it hands the lead to the first call that waits. A Group is safe for concurrent use.
type Group[T, R any] struct {
	name string
	run  func(ctx context.Context, items []T) ([]R, error)
	// retryIndividually reports for the error of a run whether one item may have caused it. Then the items run one by one, so
	// that only the bad one fails. nil: never.
	retryIndividually func(error) bool
	onError           func(error)   // told of failed items of DoAsync
	minInterval       time.Duration // between the starts of two runs
	idle              sync.Pool     // of calls
	lastRun           time.Time     // start of the last run; owned by the leader

	mu        sync.Mutex
	waiting   []*call[T, R] // for the next run
	hasLeader bool
	runEnded  sync.Cond
}

type call[T, R any] struct {
	item   T
	result R
	err    error
	wake   chan bool // true: lead the next run; false: the run is over. nil: no caller waits (DoAsync)
}

// New makes a group. run gets at most 500 items and returns one result for each, in order; it must not keep the slice. Runs
// never overlap. retryIndividually may be nil.
func New[T, R any](name string, retryIndividually func(error) bool, run func(context.Context, []T) ([]R, error)) *Group[T, R] {
	g := &Group[T, R]{name: name, run: run, retryIndividually: retryIndividually}
	g.runEnded.L = &g.mu
	return g
}

// Do runs one item together with those of concurrent callers, and returns its result. A context that has ended keeps the item
// from joining; later it has no effect, because the caller must learn what the run did.
func (g *Group[T, R]) Do(ctx context.Context, item T) (R, error) {
	if err := ctx.Err(); err != nil {
		var none R
		return none, fmt.Errorf("%s: %w", g.name, err)
	}
	c, ok := g.idle.Get().(*call[T, R])
	if !ok {
		c = &call[T, R]{wake: make(chan bool, 1)}
	}
	c.item = item
	if g.join(c) || <-c.wake {
		g.runAsLeader()
	}
	result, err := c.result, c.err
	*c = call[T, R]{wake: c.wake}
	g.idle.Put(c)
	return result, err
}

// DoAsync runs an item like Do and does not wait for its run. OnError's function is told when the run fails. It blocks only
// while more than two runs' items wait (back-pressure).
func (g *Group[T, R]) DoAsync(item T) {
	if g.join(&call[T, R]{item: item}) {
		go g.runAsLeader()
	}
}

// OnError sets the function that is told of failed runs with items of DoAsync, once for each run. It must be called before the
// first DoAsync.
func (g *Group[T, R]) OnError(tell func(error)) { g.onError = tell }

// MinInterval keeps the starts of runs at least d apart, for runs whose cost hardly depends on the number of items. A call
// after a longer pause does not wait. It must be called before the first Do.
func (g *Group[T, R]) MinInterval(d time.Duration) { g.minInterval = d }

// Close waits for runs under way. No call may follow.
func (g *Group[T, R]) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.hasLeader {
		g.runEnded.Wait()
	}
}

// join adds a call to the next run. It reports whether the group had no leader, so that the caller must lead.
func (g *Group[T, R]) join(c *call[T, R]) (lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c.wake == nil && len(g.waiting) >= 2*maxItems {
		g.runEnded.Wait()
	}
	g.waiting = append(g.waiting, c)
	lead, g.hasLeader = !g.hasLeader, true
	return lead
}

// runAsLeader runs the calls that wait. The leader's own call is the first of them.
func (g *Group[T, R]) runAsLeader() {
	if g.minInterval > 0 {
		time.Sleep(time.Until(g.lastRun.Add(g.minInterval)))
		g.lastRun = time.Now()
	}
	g.mu.Lock()
	n := min(len(g.waiting), maxItems)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()
	defer g.handOff(batch) // also after a panic
	g.execute(batch)
}

// handOff wakes the callers of a finished run, and makes the first call that waits the next leader.
func (g *Group[T, R]) handOff(batch []*call[T, R]) {
	var asyncErr error
	for i, c := range batch {
		switch {
		case c.wake == nil && c.err != nil:
			asyncErr = c.err
		case c.wake != nil && i > 0:
			c.wake <- false
		}
	}
	if asyncErr != nil && g.onError != nil {
		g.onError(asyncErr)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runEnded.Broadcast()
	switch {
	case len(g.waiting) == 0:
		g.hasLeader = false
	case g.waiting[0].wake != nil:
		g.waiting[0].wake <- true
	default:
		go g.runAsLeader()
	}
}

// execute runs a batch and gives each call its result or error.
func (g *Group[T, R]) execute(batch []*call[T, R]) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	items := make([]T, len(batch))
	for i, c := range batch {
		items[i], c.err = c.item, errBroken // until the run returns
	}
	results, err := g.run(ctx, items)
	if err != nil && g.retryIndividually != nil && g.retryIndividually(err) && len(batch) > 1 {
		for i := range batch {
			g.execute(batch[i : i+1])
		}
		return
	}
	for i, c := range batch {
		if c.err = err; err == nil {
			c.result = results[i]
		}
	}
}
