package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"

	"herald/pkg/delivery"
	"herald/pkg/queue"
	"herald/pkg/telemetry"
)

// parts records what a Worker does with its parts, in order, and is each of them.
type parts struct {
	mu    sync.Mutex
	calls []string
	log   bytes.Buffer

	result   delivery.Result
	err      error // of Run, Sweep, Clean, ForgetEffects and Prune
	startErr error
	found    int
	cleaned  map[string]int
	block    chan struct{} // Run waits until it is closed, if set
}

func (p *parts) note(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

// count returns how often a call was made.
func (p *parts) count(call string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c == call {
			n++
		}
	}
	return n
}

// Due implements delivery.DueMessages.
func (p *parts) Due(context.Context, int, time.Duration) ([]delivery.DueMessage, error) {
	return nil, nil
}

// Run implements Deliverer.
func (p *parts) Run(_ context.Context, id uuid.UUID) (delivery.Result, error) {
	p.note("run " + id.String())
	if p.block != nil {
		<-p.block
	}
	return p.result, p.err
}

// Sweep implements Deliverer.
func (p *parts) Sweep(_ context.Context, due delivery.DueMessages) (int, error) {
	if due != p {
		p.note("sweep of other messages")
	}
	p.note("sweep")
	return p.found, p.err
}

// Clean implements Janitor.
func (p *parts) Clean(context.Context) (map[string]int, error) {
	p.note("clean")
	return p.cleaned, p.err
}

// ForgetEffects implements IdempotencyKeys.
func (p *parts) ForgetEffects(context.Context) error {
	p.note("forget")
	return p.err
}

// Prune implements Outbox.
func (p *parts) Prune(context.Context) error {
	p.note("prune")
	return p.err
}

// service notes under a name that it starts and stops.
type service struct {
	*parts
	name string
}

func (s service) Start() { s.note(s.name + " starts") }
func (s service) Stop()  { s.note(s.name + " stops") }
func (s service) Wake()  { s.note("wake") }

type servers struct{ *parts }

func (s servers) Start(h asynq.Handler) error {
	if _, ok := h.(*Worker); !ok {
		s.note("another handler")
	}
	s.note("servers start")
	return s.startErr
}

func (s servers) Stop() { s.note("servers stop") }

func (p *parts) worker() *Worker {
	return New(Deps{
		Deliverer: p, Due: p, Runner: service{p, "runner"}, Servers: servers{p}, Presence: service{p, "presence"}, Janitor: p, Keys: p, Outbox: p,
		Telemetry:  telemetry.New(slog.New(slog.NewTextHandler(&p.log, nil))),
		SweepEvery: 3 * time.Second, CleanEvery: 5 * time.Second, ForgetEvery: 7 * time.Second,
	})
}

const messageID = "0190a000-0000-7000-8000-000000000001"

func deliverTask() *asynq.Task { return asynq.NewTask(queue.TaskDeliver, []byte(messageID)) }

// A task that cannot be read leaves the queue: one that fails until its retries are used up would be archived, and block
// its id.
func TestPoisonedTasksLeaveTheQueue(t *testing.T) {
	for name, task := range map[string]*asynq.Task{
		"unknown kind": asynq.NewTask("surprise", []byte(messageID)),
		"no payload":   asynq.NewTask(queue.TaskDeliver, nil),
		"nonsense":     asynq.NewTask(queue.TaskDeliver, []byte("\xff\x00")),
		"no id":        asynq.NewTask(queue.TaskWake, []byte("00000000-0000-0000-0000-000000000000")),
	} {
		p := &parts{}
		if err := p.worker().ProcessTask(t.Context(), task); err != nil {
			t.Errorf("%s: comes back: %v", name, err)
		}
		if !strings.Contains(p.log.String(), "read a task") || !strings.Contains(p.log.String(), "kind="+task.Type()) {
			t.Errorf("%s: is not reported: %q", name, p.log.String())
		}
		if len(p.calls) > 0 {
			t.Errorf("%s: %v", name, p.calls)
		}
	}
}

func TestTasks(t *testing.T) {
	failure := errors.New("the ledger does not answer")
	for name, c := range map[string]struct {
		parts *parts
		task  *asynq.Task
		call  string
		check func(err error) bool
	}{
		"delivered":     {&parts{}, deliverTask(), "run " + messageID, func(err error) bool { return err == nil }},
		"not delivered": {&parts{err: failure}, deliverTask(), "run " + messageID, func(err error) bool { return errors.Is(err, failure) }},
		"again later": {&parts{result: delivery.Result{Again: time.Minute}}, deliverTask(), "run " + messageID, func(err error) bool {
			again, ok := errors.AsType[*queue.Again](err)
			return ok && again.After == time.Minute
		}},
		"wake": {&parts{}, asynq.NewTask(queue.TaskWake, []byte(messageID)), "wake", func(err error) bool { return err == nil }},
	} {
		p := c.parts
		err := p.worker().ProcessTask(t.Context(), c.task)
		if !c.check(err) || !slices.Equal(p.calls, []string{c.call}) || p.log.Len() > 0 {
			t.Errorf("%s: %v, calls %v, log %q", name, err, p.calls, p.log.String())
		}
	}
}

// The periodic work runs at its intervals until Stop; parts start and stop in the order of their dependencies.
func TestStartAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &parts{}
		w := p.worker()
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(21*time.Second + time.Millisecond) // of the test's own clock
		synctest.Wait()
		for call, want := range map[string]int{"sweep": 7, "clean": 4, "forget": 3, "prune": 3} {
			if n := p.count(call); n != want {
				t.Errorf("%s: %d times in 21 s, want %d", call, n, want)
			}
		}
		w.Stop()
		lifecycle := slices.DeleteFunc(slices.Clone(p.calls), func(call string) bool { return slices.Contains([]string{"sweep", "clean", "forget", "prune"}, call) })
		want := []string{"presence starts", "runner starts", "servers start", "presence stops", "runner stops", "servers stop"}
		if !slices.Equal(lifecycle, want) {
			t.Errorf("got %v", lifecycle)
		}
	}) // fails if a goroutine is left
}

func TestStartThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &parts{startErr: errors.New("no Redis")}
		w := p.worker()
		if err := w.Start(); !errors.Is(err, p.startErr) {
			t.Errorf("got %v", err)
		}
		w.Stop() // does nothing: everything has stopped
		want := []string{"presence starts", "runner starts", "servers start", "runner stops", "presence stops"}
		if !slices.Equal(p.calls, want) {
			t.Errorf("got %v", p.calls)
		}
	})
}

func TestStopWithoutStart(t *testing.T) {
	p := &parts{}
	if p.worker().Stop(); len(p.calls) > 0 {
		t.Errorf("got %v", p.calls)
	}
}

// Periodic work reports failures and what it found, and keeps quiet about both when nothing happened or the worker stops.
func TestPeriodicWorkIsReported(t *testing.T) {
	failure := errors.New("away")
	stopped, stop := context.WithCancel(context.Background())
	stop()
	for name, c := range map[string]struct {
		parts *parts
		ctx   context.Context
		want  []string // in the log; none: nothing is logged
	}{
		"nothing to do":            {&parts{}, t.Context(), nil},
		"failures":                 {&parts{err: failure, found: 3}, t.Context(), []string{"during=sweep", "during=\"clean the queues\"", "during=\"forget idempotency keys\"", "error=away"}},
		"stopping":                 {&parts{err: failure}, stopped, nil},
		"found":                    {&parts{found: 3, cleaned: map[string]int{"ghost": 2}}, t.Context(), []string{"msg=swept messages=3", "kind=ghost tasks=2"}},
		"found before the failure": {&parts{err: failure, found: 1, cleaned: map[string]int{"orphan": 1}}, t.Context(), []string{"kind=orphan", "during=\"clean the queues\""}},
	} {
		p := c.parts
		w := p.worker()
		w.sweep(c.ctx)
		w.clean(c.ctx)
		w.forget(c.ctx)
		log := p.log.String()
		for _, want := range c.want {
			if !strings.Contains(log, want) {
				t.Errorf("%s: %q is not logged: %s", name, want, log)
			}
		}
		if len(c.want) == 0 && log != "" {
			t.Errorf("%s: logged %s", name, log)
		}
		if p.err != nil && strings.Contains(log, "swept") {
			t.Errorf("%s: a failed sweep is reported as done: %s", name, log)
		}
	}
}

// A panic in a delivery is the error of its task, and the goroutine runs the next one.
func TestFaultPanicEndsItsTaskOnly(t *testing.T) {
	w := New(Deps{Telemetry: telemetry.New(slog.New(slog.DiscardHandler))}) // without a Deliverer every delivery panics
	for range 3 {
		err := w.ProcessTask(t.Context(), deliverTask())
		if err == nil || !strings.Contains(err.Error(), "panic") {
			t.Fatalf("%v", err)
		}
	}
}

// The pool keeps as many goroutines as tasks ran at the same time, and ends them on close.
func TestPoolReusesItsGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool()
		release := make(chan struct{})
		var mu sync.Mutex
		running, peak := 0, 0
		work := func(context.Context) error {
			mu.Lock()
			running++
			peak = max(peak, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _ = p.run(t.Context(), work) })
		}
		synctest.Wait()
		if running != 10 {
			t.Errorf("%d of 10 run", running)
		}
		close(release)
		wg.Wait()
		synctest.Wait() // all goroutines are idle
		before := runtime.NumGoroutine()
		for range 5 {
			wg.Go(func() { _ = p.run(t.Context(), work) })
		}
		wg.Wait()
		synctest.Wait()
		if after := runtime.NumGoroutine(); after != before {
			t.Errorf("%d goroutines after 5 more tasks, %d before", after, before)
		}
		p.close()
	}) // fails if a goroutine is left
}

// A delivery in the pool gets the context of its task, and its error is returned.
func TestPoolPassesTheContext(t *testing.T) {
	p := newPool()
	defer p.close()
	type key struct{}
	ctx, failure := context.WithValue(t.Context(), key{}, 7), errors.New("no")
	err := p.run(ctx, func(ctx context.Context) error {
		if ctx.Value(key{}) != 7 {
			t.Error("another context")
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}
