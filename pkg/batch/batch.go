// Package batch lets concurrent calls share one round trip. It knows nothing of what they carry.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	most    = 500              // calls that share one run
	timeout = 15 * time.Second // of one run
)

// errBroken is what the callers of a run get that did not come to its end: whoever led it has the panic.
var errBroken = errors.New("the run broke off")

// Group lets concurrent calls share a run: whatever gathers while one is under way goes with the next. Unless the group
// has a pace nobody waits for others to come, so a lone call is as fast as it can be, and under load the batches grow by
// themselves.
//
// A group has no goroutine of its own. The first caller leads: it runs its item at once, with no change of goroutines, each
// of which may have to wait for a processor. When its run is over it passes the lead to the first of those who came meanwhile.
type Group[T, R any] struct {
	name string
	run  func(ctx context.Context, items []T) ([]R, error)
	// alone says for a failed run whether one item may be to blame: then the items run one by one, so that the bad one
	// fails alone. nil: never.
	alone func(error) bool
	lost  func(error) // told what became of items that nobody waits for
	pace  time.Duration
	spare sync.Pool // of calls
	began time.Time // the last run; the leader's

	mu      sync.Mutex
	waiting []*call[T, R] // for the next run
	led     bool
	ended   sync.Cond // a run
}

type call[T, R any] struct {
	item   T
	result R
	err    error
	wake   chan bool // true: lead the next run; false: yours is over. nil: nobody waits
}

// New makes a group whose runs, one at a time, return one result per item in order. A run must not keep its items.
func New[T, R any](name string, alone func(error) bool, run func(context.Context, []T) ([]R, error)) *Group[T, R] {
	g := &Group[T, R]{name: name, run: run, alone: alone}
	g.ended.L = &g.mu
	return g
}

// Do runs one item with whatever others wait. It always waits for the run's end: what it did must be known.
func (g *Group[T, R]) Do(ctx context.Context, item T) (R, error) {
	if err := ctx.Err(); err != nil {
		var none R
		return none, fmt.Errorf("%s: %w", g.name, err)
	}
	c, ok := g.spare.Get().(*call[T, R])
	if !ok {
		c = &call[T, R]{wake: make(chan bool, 1)}
	}
	c.item = item
	if g.join(c) || <-c.wake {
		g.lead()
	}
	result, err := c.result, c.err
	*c = call[T, R]{wake: c.wake}
	g.spare.Put(c)
	return result, err
}

// Leave runs an item with whatever others wait, and does not wait for its end. When the run fails the group's Lost is
// told. It blocks only while more items wait than a few runs take.
func (g *Group[T, R]) Leave(item T) {
	if g.join(&call[T, R]{item: item}) {
		go g.lead()
	}
}

// Lost says who is told of failed runs whose items nobody waits for. It must be called before the first Leave.
func (g *Group[T, R]) Lost(tell func(error)) { g.lost = tell }

// Pace keeps the starts of runs apart by at least d: for runs that cost much themselves and little for each item. Who comes
// after a longer pause waits for nothing. It must be called before the first Do.
func (g *Group[T, R]) Pace(d time.Duration) { g.pace = d }

// Close waits for what is under way. Nothing may be submitted any more.
func (g *Group[T, R]) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.led {
		g.ended.Wait()
	}
}

// join adds a call to the next run, and says whether its caller leads that.
func (g *Group[T, R]) join(c *call[T, R]) (leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c.wake == nil && len(g.waiting) >= 2*most {
		g.ended.Wait()
	}
	g.waiting = append(g.waiting, c)
	leads, g.led = !g.led, true
	return leads
}

// lead runs what waits. The leader's own call is the first.
func (g *Group[T, R]) lead() {
	if g.pace > 0 {
		time.Sleep(time.Until(g.began.Add(g.pace)))
		g.began = time.Now()
	}
	g.mu.Lock()
	n := min(len(g.waiting), most)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()
	defer g.pass(batch)
	g.execute(batch)
}

// pass wakes those whose run is over, and gives the lead to the first who waits.
func (g *Group[T, R]) pass(batch []*call[T, R]) {
	var lost error
	for i, c := range batch {
		switch {
		case c.wake == nil && c.err != nil:
			lost = c.err
		case c.wake != nil && i > 0:
			c.wake <- false
		}
	}
	if lost != nil && g.lost != nil {
		g.lost(lost)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended.Broadcast()
	switch {
	case len(g.waiting) == 0:
		g.led = false
	case g.waiting[0].wake != nil:
		g.waiting[0].wake <- true
	default:
		go g.lead()
	}
}

func (g *Group[T, R]) execute(batch []*call[T, R]) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	items := make([]T, len(batch))
	for i, c := range batch {
		items[i], c.err = c.item, errBroken
	}
	results, err := g.run(ctx, items)
	if err != nil && g.alone != nil && g.alone(err) && len(batch) > 1 {
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
