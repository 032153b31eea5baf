// Package batch lets concurrent calls share one round trip. It knows nothing of what they carry.
package batch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	most    = 500              // calls that share one run
	timeout = 15 * time.Second // of one run
)

// Group lets concurrent calls share a run: whatever gathers while one is under way goes with the next. Unless the group
// has a pace nobody waits for others to come, so a lone call is as fast as it can be, and under load the batches grow by
// themselves.
type Group[T, R any] struct {
	name string
	run  func(ctx context.Context, items []T) ([]R, error)
	// alone says for a failed run whether one item may be to blame: then the items run one by one, so that the bad one
	// fails alone. nil: never.
	alone func(error) bool
	lost  func(error) // told what became of items that nobody waits for
	pace  time.Duration
	in    chan *call[T, R]
	wg    sync.WaitGroup
}

type call[T, R any] struct {
	item   T
	result R
	err    error
	done   chan struct{} // nil: nobody waits
}

// New starts a group whose runs, at most flushers at once, return one result per item in order.
func New[T, R any](name string, flushers int, alone func(error) bool, run func(context.Context, []T) ([]R, error)) *Group[T, R] {
	g := &Group[T, R]{name: name, run: run, alone: alone, in: make(chan *call[T, R], 2*most)}
	for range flushers {
		g.wg.Add(1)
		go g.flush()
	}
	return g
}

// Do runs one item with whatever others wait. It always waits for the run's end: what it did must be known.
func (g *Group[T, R]) Do(ctx context.Context, item T) (R, error) {
	c := &call[T, R]{item: item, done: make(chan struct{})}
	select {
	case g.in <- c:
	case <-ctx.Done():
		return c.result, fmt.Errorf("%s: %w", g.name, ctx.Err())
	}
	<-c.done
	return c.result, c.err
}

// Leave runs an item with whatever others wait, and does not wait for its end. When the run fails the group's Lost is
// told. It blocks only while more items wait than a few runs take.
func (g *Group[T, R]) Leave(ctx context.Context, item T) error {
	select {
	case g.in <- &call[T, R]{item: item}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", g.name, ctx.Err())
	}
}

// Lost says who is told of failed runs whose items nobody waits for. It must be called before the first Leave.
func (g *Group[T, R]) Lost(tell func(error)) { g.lost = tell }

// Pace keeps the starts of a flusher's runs apart by at least d: for runs that cost much themselves and little for each
// item. Who comes after a longer pause waits for nothing. It must be called before the first Do.
func (g *Group[T, R]) Pace(d time.Duration) { g.pace = d }

// Close waits for what is under way. Nothing may be submitted any more.
func (g *Group[T, R]) Close() {
	close(g.in)
	g.wg.Wait()
}

func (g *Group[T, R]) flush() {
	defer g.wg.Done()
	batch := make([]*call[T, R], 0, most)
	var began time.Time
	for c := range g.in {
		batch = append(batch[:0], c)
		if g.pace > 0 {
			time.Sleep(time.Until(began.Add(g.pace)))
			began = time.Now()
		}
	gather:
		for len(batch) < most {
			select {
			case c, ok := <-g.in:
				if !ok {
					break gather
				}
				batch = append(batch, c)
			default:
				break gather
			}
		}
		g.execute(batch)
		var lost error
		for _, c := range batch {
			switch {
			case c.done != nil:
				close(c.done)
			case c.err != nil:
				lost = c.err
			}
		}
		if lost != nil && g.lost != nil {
			g.lost(lost)
		}
	}
}

func (g *Group[T, R]) execute(batch []*call[T, R]) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	items := make([]T, len(batch))
	for i, c := range batch {
		items[i] = c.item
	}
	results, err := g.run(ctx, items)
	if err != nil && g.alone != nil && g.alone(err) && len(batch) > 1 {
		for _, c := range batch {
			g.execute([]*call[T, R]{c})
		}
		return
	}
	for i, c := range batch {
		if err != nil {
			c.err = err
			continue
		}
		c.result = results[i]
	}
}
