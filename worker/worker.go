// Package worker is the work of a worker process: it takes tasks from the queues and delivers their messages, runs the
// planning and feeding of bulks, and repeats periodic work (sweep, janitor, expiry of idempotency keys). It knows Asynq
// and the domain, and no database. Package app starts it.
package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"

	"herald/pkg/delivery"
	"herald/pkg/queue"
	"herald/pkg/telemetry"
)

// Deliverer delivers messages.
type Deliverer interface {
	// Run delivers one message. An error means that the message must be tried again.
	Run(ctx context.Context, id uuid.UUID) (delivery.Result, error)
	// Sweep settles or re-enqueues messages that are overdue, and returns how many it found.
	Sweep(ctx context.Context, due delivery.DueMessages) (int, error)
}

// Service is a part that runs beside the queues. Stop waits until it has ended.
type Service interface {
	Start()
	Stop()
}

// Runner plans and feeds bulks. Wake makes it look for bulks at once; it may be called at any time and never blocks.
type Runner interface {
	Service
	Wake()
}

// Servers take tasks from the queues and pass them to a handler. Stop waits for the tasks in progress.
type Servers interface {
	Start(h asynq.Handler) error
	Stop()
}

// Janitor repairs orphaned Asynq state in Redis. Clean returns the number of tasks repaired, by kind.
type Janitor interface {
	Clean(ctx context.Context) (map[string]int, error)
}

// IdempotencyKeys removes idempotency keys that have expired.
type IdempotencyKeys interface {
	ForgetEffects(ctx context.Context) error
}

// Outbox deletes events that have been kept long enough.
type Outbox interface {
	Prune(ctx context.Context) error
}

// Deps are the parts and the intervals of a Worker. All are required.
type Deps struct {
	Deliverer Deliverer
	Due       delivery.DueMessages // for Deliverer.Sweep
	Runner    Runner
	Servers   Servers
	Presence  Service // tells the other processes that this worker runs
	Janitor   Janitor
	Keys      IdempotencyKeys
	Outbox    Outbox
	Telemetry *telemetry.Telemetry

	SweepEvery, CleanEvery, ForgetEvery time.Duration
}

// Worker is the work of one process. Its methods must be called in the order New, Start, Stop.
type Worker struct {
	deps Deps
	stop context.CancelFunc
	wg   sync.WaitGroup // of the periodic work
	pool *pool
}

// New returns a Worker that does nothing until Start.
func New(d Deps) *Worker { return &Worker{deps: d, pool: newPool()} }

// Start starts all parts. When it returns an error, none of them runs.
func (w *Worker) Start() error {
	w.deps.Presence.Start()
	w.deps.Runner.Start()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.wg.Go(func() { every(ctx, w.deps.SweepEvery, w.sweep) })
	w.wg.Go(func() { every(ctx, w.deps.CleanEvery, w.clean) })
	w.wg.Go(func() { every(ctx, w.deps.ForgetEvery, w.forget) })
	if err := w.deps.Servers.Start(w); err != nil {
		cancel()
		w.wg.Wait()
		w.deps.Runner.Stop()
		w.deps.Presence.Stop()
		w.stop = nil
		return err
	}
	return nil
}

// Stop stops all parts and waits for the tasks in progress. Bulks are released first, so that another worker continues
// them. Without Start it does nothing.
func (w *Worker) Stop() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.deps.Presence.Stop()
	w.deps.Runner.Stop()
	w.deps.Servers.Stop()
	w.pool.close()
	w.wg.Wait()
}

// ProcessTask implements asynq.Handler. A task that no retry can repair returns nil and so leaves the queue: Asynq
// archives a task whose retries are used up, and an archived task blocks its id.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) error {
	id, err := queue.ParsePayload(task.Payload())
	if err != nil {
		w.deps.Telemetry.Failure(ctx, "read a task", err, "kind", task.Type())
		return nil
	}
	switch task.Type() {
	case queue.TaskDeliver:
		return w.pool.run(ctx, func(ctx context.Context) error { return w.deliver(ctx, id) })
	case queue.TaskWake:
		w.deps.Runner.Wake()
	default:
		w.deps.Telemetry.Failure(ctx, "read a task", errors.New("unknown kind of task"), "kind", task.Type())
	}
	return nil
}

func (w *Worker) deliver(ctx context.Context, id uuid.UUID) error {
	res, err := w.deps.Deliverer.Run(ctx, id)
	if err != nil {
		return err
	}
	if res.Again > 0 {
		return &queue.Again{After: res.Again}
	}
	return nil
}

// every calls do once per interval until the context ends. Calls that take longer than the interval delay the next one.
func every(ctx context.Context, interval time.Duration, do func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do(ctx)
		}
	}
}

func (w *Worker) sweep(ctx context.Context) {
	n, err := w.deps.Deliverer.Sweep(ctx, w.deps.Due)
	if w.failed(ctx, "sweep", err); err == nil && n > 0 {
		w.deps.Telemetry.Log().InfoContext(ctx, "swept", "messages", n)
	}
}

func (w *Worker) forget(ctx context.Context) {
	w.failed(ctx, "forget idempotency keys", w.deps.Keys.ForgetEffects(ctx))
	w.failed(ctx, "prune events", w.deps.Outbox.Prune(ctx))
}

// clean reports each kind of task that it had to repair: none should exist.
func (w *Worker) clean(ctx context.Context) {
	found, err := w.deps.Janitor.Clean(ctx)
	w.failed(ctx, "clean the queues", err)
	for kind, n := range found {
		w.deps.Telemetry.Cleaned(ctx, kind, n)
	}
}

// failed reports an error, unless the worker is being stopped.
func (w *Worker) failed(ctx context.Context, during string, err error) {
	if err != nil && ctx.Err() == nil {
		w.deps.Telemetry.Failure(ctx, during, err)
	}
}
