package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// pool runs deliveries on goroutines that stay. Asynq starts one for every task, and a delivery is deep: growing a new
// stack each time takes a tenth of a worker's time. There are as many as tasks ran at once.
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

// run does something on one of the goroutines, or on a new one when all are busy, and waits for its end.
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

// guarded does a job and turns a panic into its error: Asynq recovers only what happens on its own goroutines.
func guarded(j job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return j.do(j.ctx)
}

// close ends the goroutines once nobody calls run any more.
func (p *pool) close() {
	close(p.stop)
	p.wg.Wait()
}
