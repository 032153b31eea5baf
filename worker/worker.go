// Package worker is what a worker process does: it takes tasks from the queues and has their messages delivered, plans
// and feeds bulks, and looks after messages that nobody came back to. It knows Asynq and the domain, and no database.
package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/queue"
	"herald/pkg/telemetry"
)

// Deps is what a Worker works with.
type Deps struct {
	Deliverer  *delivery.Deliverer
	Watched    delivery.DueMessages
	Runner     *bulk.Runner
	Servers    *queue.Servers
	Presence   *queue.Presence
	Telemetry  *telemetry.Telemetry
	SweepEvery time.Duration
	Janitor    *queue.Janitor
	CleanEvery time.Duration

	Effects     access.Effects
	ForgetEvery time.Duration
}

// Worker is one worker process's work.
type Worker struct {
	Deps
	stop context.CancelFunc
	wg   sync.WaitGroup
	pool *pool
}

// New makes a Worker; Start sets it going.
func New(d Deps) *Worker { return &Worker{Deps: d, pool: newPool()} }

// Start begins to work.
func (w *Worker) Start() error {
	w.Presence.Start()
	w.Runner.Start()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.wg.Go(func() { w.every(ctx, w.SweepEvery, w.sweep) })
	w.wg.Go(func() { w.every(ctx, w.CleanEvery, w.clean) })
	w.wg.Go(func() { w.every(ctx, w.ForgetEvery, w.forget) })
	if err := w.Servers.Start(w); err != nil {
		cancel()
		w.wg.Wait()
		w.Runner.Stop()
		w.Presence.Stop()
		return err
	}
	return nil
}

// Stop lets go of bulks, takes no more tasks, and waits for those under way.
func (w *Worker) Stop() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.Presence.Stop()
	w.Runner.Stop()
	w.Servers.Stop()
	w.pool.close()
	w.wg.Wait()
}

// ProcessTask implements asynq.Handler. It returns nil for whatever a retry cannot mend, since a task that runs out of
// retries would stay in Redis and block its id.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) error {
	id, err := queue.ParsePayload(task.Payload())
	if err != nil {
		w.Telemetry.Failure(ctx, "read a task", err, "kind", task.Type())
		return nil
	}
	switch task.Type() {
	case queue.TaskDeliver:
		return w.pool.run(ctx, func(ctx context.Context) error { return w.deliver(ctx, id) })
	case queue.TaskWake:
		w.Runner.Wake()
	default:
		w.Telemetry.Failure(ctx, "read a task", errors.New("unknown kind of task"), "kind", task.Type())
	}
	return nil
}

func (w *Worker) deliver(ctx context.Context, id uuid.UUID) error {
	res, err := w.Deliverer.Run(ctx, id)
	if err != nil {
		return err
	}
	if res.Again > 0 {
		return &queue.Again{After: res.Again}
	}
	return nil
}

// every does something again and again until the context ends.
func (w *Worker) every(ctx context.Context, d time.Duration, do func(context.Context)) {
	t := time.NewTicker(d)
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

// sweep looks after forgotten messages.
func (w *Worker) sweep(ctx context.Context) {
	if n, err := w.Deliverer.Sweep(ctx, w.Watched); err != nil && ctx.Err() == nil {
		w.Telemetry.Failure(ctx, "sweep", err)
	} else if n > 0 {
		w.Telemetry.Log().InfoContext(ctx, "swept", "messages", n)
	}
}

// forget removes idempotency keys that are too old to mean anything.
func (w *Worker) forget(ctx context.Context) {
	if err := w.Effects.ForgetEffects(ctx); err != nil && ctx.Err() == nil {
		w.Telemetry.Failure(ctx, "forget idempotency keys", err)
	}
}

// clean removes what Asynq leaves in Redis. None of it should be there, so whatever is found is worth a look.
func (w *Worker) clean(ctx context.Context) {
	found, err := w.Janitor.Clean(ctx)
	if err != nil && ctx.Err() == nil {
		w.Telemetry.Failure(ctx, "clean the queues", err)
	}
	for kind, n := range found {
		w.Telemetry.Cleaned(ctx, kind, n)
	}
}
