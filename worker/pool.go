package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// pool runs functions on goroutines that it reuses. Asynq starts a goroutine per task, and a delivery needs a deep stack:
// growing a new stack for each took a tenth of a worker's processor time. The pool has as many goroutines as functions
// ever ran at the same time.
type pool struct {
	jobs chan job
	stop chan struct{}
	wg   sync.WaitGroup
}

type job struct {
	do   func(ctx context.Context) error
	ctx  context.Context //nolint:containedctx // a job is a call on its way to its goroutine
	done chan error
}

func newPool() *pool {
	return &pool{jobs: make(chan job), stop: make(chan struct{})}
}

// run runs do on an idle goroutine, or on a new one, and returns its error. A panic in do becomes an error.
func (p *pool) run(ctx context.Context, do func(ctx context.Context) error) error {
	j := job{do, ctx, make(chan error, 1)}
	select {
	case p.jobs <- j:
	default:
		p.wg.Go(func() { p.serve(j) })
	}
	return <-j.done
}

func (p *pool) serve(j job) {
	for {
		j.done <- guarded(j)
		select {
		case j = <-p.jobs:
		case <-p.stop:
			return
		}
	}
}

// guarded runs a job and turns a panic into its error. Asynq recovers panics on its own goroutines only.
func guarded(j job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return j.do(j.ctx)
}

// close ends the goroutines. run must not be called afterwards.
func (p *pool) close() {
	close(p.stop)
	p.wg.Wait()
}
