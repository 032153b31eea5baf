package asynqfast

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/queue/asynqredis"
)

const (
	drainTarget = time.Second           // a buffer that took longer to drain is filled with half as many tasks
	maxHeld     = 5 * time.Second       // far below the lease (30 s): what was not started by then is returned
	emptyFor    = 10 * time.Millisecond // a queue that was empty is not asked again before, while others have tasks

	// When all queues are empty the server polls them again after pollInterval, give or take a half. A peek (one EXISTS over
	// all queues) ends that wait early: after minPeek at first, then at doubling intervals up to maxPeek, so that a bulk's
	// first task starts at once and an idle fleet costs Redis little.
	pollInterval     = 200 * time.Millisecond
	minPeek, maxPeek = 5 * time.Millisecond, 80 * time.Millisecond
)

// prefetcher is a hook that answers Asynq's dequeues from tasks that one script took. A buffered task is leased to this server
// like any active task: it comes back when the process dies, and is returned when the server stops. Batches grow with the rate
// of the handlers, up to Options.Prefetch and to what they complete in drainTarget.
//
// Asynq calls it from one goroutine, which polls the server's queues in a random order until one of them has a task.
type prefetcher struct {
	rdb     redis.UniversalClient
	opts    Options
	now     func() time.Time
	stopped <-chan struct{} // closed by stop: every wait ends
	stop    func()

	mu          sync.Mutex
	buffers     map[string]*buffer // by the queue's prefix
	nextPeek    time.Duration      // the wait before the next peek
	emptyPolls  int                // polls without a task since the last task or the last wait
	falseWakeup bool               // the last peek saw tasks and no poll has got one since: the queue is paused, or another server was faster
}

// buffer holds the tasks of one queue that were taken and not started.
type buffer struct {
	tasks      []task
	batch      int       // how many to take the next time
	filledAt   time.Time // when the tasks were taken
	emptyUntil time.Time // the queue counts as empty until then
}

type task struct{ id, message string }

func newPrefetcher(rdb redis.UniversalClient, o Options) *prefetcher {
	stopped := make(chan struct{})
	return &prefetcher{
		rdb: rdb, opts: o, now: time.Now, nextPeek: minPeek, buffers: map[string]*buffer{},
		stopped: stopped, stop: sync.OnceFunc(func() { close(stopped) }),
	}
}

// DialHook implements redis.Hook.
func (p *prefetcher) DialHook(next redis.DialHook) redis.DialHook { return passDial(next) }

// ProcessPipelineHook implements redis.Hook.
func (p *prefetcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook.
func (p *prefetcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		dequeue, ok := cmd.(*redis.Cmd)
		if !ok || !isDequeue(cmd) {
			return next(ctx, cmd)
		}
		message, err := p.dequeue(ctx, cmd.Args())
		if errors.Is(err, redis.Nil) {
			p.emptyPoll(ctx)
		}
		if err != nil {
			cmd.SetErr(err)
			return err
		}
		dequeue.SetVal(message)
		return nil
	}
}

// dequeueKeys and dequeueArgs are the shape of Asynq's dequeue script. Its arguments are the lease's expiry and the prefix of
// task hashes.
var dequeueKeys = []string{keyPending, keyPaused, keyActive, keyLease}

const dequeueArgs = 2

func isDequeue(cmd redis.Cmder) bool {
	return (cmd.Name() == "evalsha" || cmd.Name() == "eval") && hasShape(cmd.Args(), dequeueKeys, dequeueArgs)
}

// dequeue returns the message of the next task, redis.Nil when no task is available.
func (p *prefetcher) dequeue(ctx context.Context, args []any) (string, error) {
	if !p.opts.InFlight.waitForSlot() {
		return "", redis.Nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pending, _ := args[argFirstKey].(string)
	prefix := strings.TrimSuffix(pending, asynqredis.Pending)
	b := p.buffers[prefix]
	if b == nil {
		b = &buffer{batch: 1}
		p.buffers[prefix] = b
	}
	now := p.now()
	if len(b.tasks) > 0 && now.Sub(b.filledAt) > maxHeld {
		b.batch = 1
		if err := p.returnTasks(ctx, prefix, b); err != nil {
			return "", err
		}
	}
	if len(b.tasks) == 0 {
		if now.Before(b.emptyUntil) {
			if b = p.soleNonEmptyQueue(now); b == nil {
				return "", redis.Nil
			}
			return p.pop(b), nil
		}
		if err := p.fill(ctx, b, args, now); err != nil {
			return "", err
		}
	}
	return p.pop(b), nil
}

// pop takes the next task out of a buffer.
func (p *prefetcher) pop(b *buffer) (message string) {
	p.emptyPolls, p.falseWakeup, p.nextPeek = 0, false, minPeek
	p.opts.InFlight.reserve()
	message = b.tasks[0].message
	b.tasks = b.tasks[1:]
	return message
}

// emptyPoll is called after a poll that got no task. After the last queue's it waits in Asynq's place, which would sleep for a
// fixed time without peeking.
func (p *prefetcher) emptyPoll(ctx context.Context) {
	pending, peek := p.endRound()
	if pending == nil {
		return
	}
	end := time.After(pollInterval/2 + rand.N(pollInterval))
	for {
		select {
		case <-time.After(p.peekDelay()):
		case <-end:
			p.opts.InFlight.dropReserved()
			return
		case <-p.stopped:
			return
		}
		if peek && p.rdb.Exists(ctx, pending...).Val() > 0 { // when that fails it waits to the end
			p.mu.Lock()
			p.falseWakeup = true // until pop
			p.mu.Unlock()
			return
		}
	}
}

// peekDelay returns the wait before the next peek and doubles it.
func (p *prefetcher) peekDelay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	delay := p.nextPeek
	p.nextPeek = min(2*delay, maxPeek)
	return delay
}

// endRound counts an empty poll. When it was the last queue's it ends the round, and returns the keys to peek at and whether
// to peek: not directly after a false wake-up, which would make the server poll in a busy loop.
func (p *prefetcher) endRound() (pending []string, peek bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.emptyPolls++; p.emptyPolls < p.opts.Queues {
		return nil, false
	}
	peek = !p.falseWakeup
	p.emptyPolls, p.falseWakeup = 0, false
	for prefix := range p.buffers {
		pending = append(pending, prefix+asynqredis.Pending)
	}
	return pending, peek
}

// soleNonEmptyQueue returns the one buffer that has tasks while every other queue of the server counts as empty, else nil.
// After an empty queue Asynq would poll on until it came to that one; this answers at once with the same task.
func (p *prefetcher) soleNonEmptyQueue(now time.Time) (sole *buffer) {
	if len(p.buffers) < p.opts.Queues {
		return nil
	}
	for _, b := range p.buffers {
		switch {
		case len(b.tasks) == 0 && now.Before(b.emptyUntil):
		case sole != nil || len(b.tasks) == 0 || now.Sub(b.filledAt) > maxHeld:
			return nil
		default:
			sole = b
		}
	}
	return sole
}

// fill takes the next tasks of a queue and adapts the size of the next batch: half after a slow drain, 1 after a batch that
// was not full, else double.
func (p *prefetcher) fill(ctx context.Context, b *buffer, args []any, now time.Time) error {
	slow := !b.filledAt.IsZero() && now.Sub(b.filledAt) > drainTarget
	if slow {
		b.batch = max(b.batch/2, 1)
	}
	keys := make([]string, len(dequeueKeys))
	for i := range keys {
		keys[i], _ = args[argFirstKey+i].(string)
	}
	began := time.Now()
	leaseExpiry, hashPrefix := args[argFirstKey+len(dequeueKeys)], args[argFirstKey+len(dequeueKeys)+1]
	found, err := asynqredis.Dequeue.Run(ctx, p.rdb, keys, leaseExpiry, hashPrefix, b.batch).StringSlice()
	if err != nil {
		return err
	}
	b.tasks = b.tasks[:0]
	for i := 0; i+1 < len(found); i += 2 {
		b.tasks = append(b.tasks, task{found[i], found[i+1]})
	}
	b.filledAt = now
	switch {
	case len(b.tasks) < b.batch:
		b.batch = 1
	case !slow:
		b.batch = min(2*b.batch, p.opts.Prefetch)
	}
	if len(b.tasks) == 0 {
		b.emptyUntil = now.Add(emptyFor)
		return redis.Nil
	}
	p.opts.ObserveSince("dequeue", len(b.tasks), began)
	return nil
}

// returnTasks puts a buffer's tasks back to the head of their queue, in their order.
func (p *prefetcher) returnTasks(ctx context.Context, prefix string, b *buffer) error {
	for n := len(b.tasks); n > 0; n = len(b.tasks) {
		id := b.tasks[n-1].id
		keys := []string{prefix + "t:" + id}
		if err := asynqredis.Requeue.Run(ctx, p.rdb, keys, prefix, id, strconv.FormatInt(time.Now().UnixNano(), 10)).Err(); err != nil {
			return err
		}
		b.tasks = b.tasks[:n-1]
	}
	return nil
}

// returnAll returns the tasks of all buffers. The server has stopped dequeueing.
func (p *prefetcher) returnAll(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for prefix, b := range p.buffers {
		err = errors.Join(err, p.returnTasks(ctx, prefix, b))
	}
	return err
}
