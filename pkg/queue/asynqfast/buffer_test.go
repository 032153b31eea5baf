package asynqfast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn/redistest"
)

// dequeuer imitates a server of one queue. Its clock moves only when a test says so.
type dequeuer struct {
	t       *testing.T
	rdb     redis.UniversalClient
	p       *prefetcher
	clock   time.Time
	batches []int // the tasks that each script took
}

const oneQueue = "email.normal"

func newDequeuer(t *testing.T, rdb redis.UniversalClient, prefetch int) *dequeuer {
	t.Helper()
	d := &dequeuer{t: t, rdb: rdb, clock: time.Now()}
	d.p = newPrefetcher(rdb, Options{Enabled: true, Prefetch: prefetch, Queues: 1, Observe: func(stage string, tasks int, took time.Duration) {
		if stage != "dequeue" || took < 0 {
			t.Errorf("observed %s of %v", stage, took)
		}
		d.batches = append(d.batches, tasks)
	}})
	d.p.now = func() time.Time { return d.clock }
	return d
}

// put enqueues tasks named from and up.
func (d *dequeuer) put(from, n int) {
	d.t.Helper()
	for i := range n {
		id := fmt.Sprint(from + i)
		redistest.Must(d.t, d.rdb.HSet(d.t.Context(), asynqredis.TaskKey(oneQueue, id), "msg", "message "+id, "state", "pending", "pending_since", 1).Err())
		redistest.Must(d.t, d.rdb.LPush(d.t.Context(), asynqredis.Prefix(oneQueue)+asynqredis.Pending, id).Err())
	}
}

func (d *dequeuer) args() []any {
	p := asynqredis.Prefix(oneQueue)
	return []any{"evalsha", "hash", 4, p + "pending", p + "paused", p + "active", p + "lease", d.clock.Add(30 * time.Second).Unix(), p + "t:"}
}

// expect dequeues the tasks named from and up, in this order.
func (d *dequeuer) expect(from, n int) {
	d.t.Helper()
	for i := range n {
		if got, err := d.p.dequeue(d.t.Context(), d.args()); err != nil || got != fmt.Sprint("message ", from+i) {
			d.t.Fatalf("got %q, %v; want message %d", got, err, from+i)
		}
	}
}

func (d *dequeuer) expectNone(why string) {
	d.t.Helper()
	if got, err := d.p.dequeue(d.t.Context(), d.args()); !errors.Is(err, redis.Nil) || got != "" {
		d.t.Errorf("%s: got %q, %v", why, got, err)
	}
}

// ids returns what stands in a list of the queue, the next to be taken first.
func (d *dequeuer) ids(list string) []string {
	d.t.Helper()
	ids, err := d.rdb.LRange(d.t.Context(), asynqredis.Prefix(oneQueue)+list, 0, -1).Result()
	redistest.Must(d.t, err)
	slices.Reverse(ids)
	return ids
}

func numbers(from, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint(from+i))
	}
	return ids
}

func eachDequeuer(t *testing.T, prefetch int, test func(t *testing.T, d *dequeuer)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) { test(t, newDequeuer(t, rdb, prefetch)) })
}

// Batches double up to Prefetch, halve after a slow drain, and start at one after a batch that was not full.
func TestBatchesFollowTheHandlers(t *testing.T) {
	eachDequeuer(t, 8, func(t *testing.T, d *dequeuer) {
		d.put(0, 42)
		d.expect(0, 1+2+4+8)
		d.clock = d.clock.Add(drainTarget) // just fast enough
		d.expect(15, 8)
		d.clock = d.clock.Add(drainTarget + time.Millisecond)
		d.expect(23, 4) // the last 8 took too long
		d.expect(27, 4+8)
		d.expect(39, 3) // three were left of 8
		d.put(42, 3)
		d.expect(42, 3)
		if want := []int{1, 2, 4, 8, 8, 4, 4, 8, 3, 1, 2}; !slices.Equal(d.batches, want) {
			t.Errorf("batches of %v, want %v", d.batches, want)
		}
	})
}

// A slow server takes single tasks in the end, and never none.
func TestBatchesShrinkToOne(t *testing.T) {
	eachDequeuer(t, 4, func(t *testing.T, d *dequeuer) {
		d.put(0, 20)
		d.expect(0, 1+2+4)
		for i, at := range []int{7, 9, 10, 11} {
			d.clock = d.clock.Add(2 * time.Second)
			d.expect(at, []int{2, 1, 1, 1}[i])
		}
		if want := []int{1, 2, 4, 2, 1, 1, 1}; !slices.Equal(d.batches, want) {
			t.Errorf("batches of %v, want %v", d.batches, want)
		}
	})
}

// Tasks that were not started within five seconds go back to the head of their queue, in order, before their lease expires.
func TestOldTasksAreReturned(t *testing.T) {
	eachDequeuer(t, 8, func(t *testing.T, d *dequeuer) {
		d.put(0, 20)
		d.expect(0, 1+2+4+1) // of a batch of 8
		if got := d.ids(asynqredis.Active); !slices.Equal(got, numbers(0, 15)) {
			t.Errorf("active: %v", got)
		}
		d.clock = d.clock.Add(5 * time.Second) // the lease lasts 30 s
		d.expect(8, 1)                         // still young enough
		d.clock = d.clock.Add(time.Millisecond)
		d.expect(9, 1)
		if got := d.ids(asynqredis.Active); !slices.Equal(got, numbers(0, 10)) {
			t.Errorf("active: %v", got)
		}
		if got := d.ids(asynqredis.Pending); !slices.Equal(got, numbers(10, 10)) {
			t.Errorf("pending: %v", got)
		}
		if n := d.rdb.ZCard(t.Context(), asynqredis.Prefix(oneQueue)+asynqredis.Lease).Val(); n != 10 {
			t.Errorf("%d leases for 10 active tasks", n)
		}
		hash := d.rdb.HGetAll(t.Context(), asynqredis.TaskKey(oneQueue, "12")).Val()
		if hash["state"] != "pending" || hash["pending_since"] == "" {
			t.Errorf("a returned task: %v", hash)
		}
	})
}

// At a stop all buffered tasks are returned, and no task is taken afterwards.
func TestReturnAll(t *testing.T) {
	eachDequeuer(t, 8, func(t *testing.T, d *dequeuer) {
		d.p.opts.InFlight = NewInFlightLimiter(1000)
		d.put(0, 20)
		d.expect(0, 1+2+4+1)
		d.p.opts.InFlight.close()
		d.expectNone("after the limiter was closed")
		redistest.Must(t, d.p.returnAll(t.Context()))
		if got := d.ids(asynqredis.Pending); !slices.Equal(got, numbers(8, 12)) {
			t.Errorf("pending: %v", got)
		}
	})
}

// An empty queue is not polled again for 10 ms; a paused one has no task; a task without a message is left to the janitor.
func TestQueuesWithoutTasks(t *testing.T) {
	eachDequeuer(t, 8, func(t *testing.T, d *dequeuer) {
		d.expectNone("an empty queue")
		d.put(0, 1)
		d.clock = d.clock.Add(9 * time.Millisecond)
		d.expectNone("a queue that was just empty")
		d.clock = d.clock.Add(time.Millisecond)
		d.expect(0, 1)

		paused := asynqredis.Prefix(oneQueue) + asynqredis.Paused
		redistest.Must(t, d.rdb.Set(t.Context(), paused, 1, 0).Err())
		d.put(1, 1)
		d.expectNone("a paused queue")
		redistest.Must(t, d.rdb.Del(t.Context(), paused, asynqredis.TaskKey(oneQueue, "1")).Err())
		d.clock = d.clock.Add(emptyFor)
		d.expectNone("a task without a message")
		if got := d.ids(asynqredis.Active); !slices.Equal(got, []string{"0", "1"}) {
			t.Errorf("active: %v", got)
		}
	})
}

// Peeks come at doubling intervals until a task is found.
func TestPeekIntervals(t *testing.T) {
	p := newPrefetcher(nil, Options{Enabled: true, Prefetch: 2, Queues: 1})
	ms := time.Millisecond
	for _, want := range []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 80 * ms} {
		if got := p.peekDelay(); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	p.emptyPolls, p.falseWakeup = 1, true
	p.pop(&buffer{tasks: []task{{"1", "m"}}})
	if got := p.peekDelay(); got != minPeek || p.falseWakeup || p.emptyPolls != 0 {
		t.Errorf("after a task: %v, false wake-up %t, %d empty polls", got, p.falseWakeup, p.emptyPolls)
	}
}

// The switch and the two numbers decide which hooks exist.
func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o                  Options
		prefetch, coalesce bool
	}{
		"zero":                 {Options{}, false, false},
		"off":                  {Options{Prefetch: 100, Queues: 4}, false, false},
		"a client":             {Options{Enabled: true, Prefetch: 100}, false, true},
		"a server":             {Options{Enabled: true, Prefetch: 2, Queues: 4}, true, true},
		"a server, one by one": {Options{Enabled: true, Prefetch: 1, Queues: 4}, false, true},
	} {
		h := Wrap(redistest.Connect(t, redistest.Nowhere(t)), c.o)
		if (h.prefetch != nil) != c.prefetch || (h.coalesce != nil) != c.coalesce {
			t.Errorf("%s: prefetch %t, coalesce %t", name, h.prefetch != nil, h.coalesce != nil)
		}
		if want := map[bool]time.Duration{true: time.Millisecond, false: 200 * time.Millisecond}[c.prefetch]; h.PollInterval() != want {
			t.Errorf("%s: polls every %v, want %v", name, h.PollInterval(), want)
		}
		if err := h.ReturnTasks(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		h.StopDequeue()
		h.Close()
		h.Close()
	}
}

// A handler holds a slot while it runs, and gives it up while its task waits for others.
func TestHandlersHoldSlots(t *testing.T) {
	l := NewInFlightLimiter(2)
	h := Wrap(nil, Options{InFlight: l}).Handler(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if l.inUse != 1 || l.reserved != 0 {
			t.Errorf("%d slots in use, %d reserved", l.inUse, l.reserved)
		}
		l.Release()
		if l.inUse != 0 {
			t.Errorf("%d slots in use while the task waits", l.inUse)
		}
		l.Acquire()
		return errNotFound
	}))
	l.reserve()
	if err := h.ProcessTask(t.Context(), nil); !errors.Is(err, errNotFound) || l.inUse != 0 {
		t.Errorf("%v, %d slots in use", err, l.inUse)
	}
}
