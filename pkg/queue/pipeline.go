package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/batch"
)

// Asynq talks to Redis one script at a time: a task is one call to enqueue, one to take, one to acknowledge. The hooks of
// this file stand between Asynq and its connection and change how often the network is crossed, never what comes of it:
// calls that are made at the same time share a pipeline, and in it a script; and a server's taking, which it does one task
// after the other, is answered from a few that were taken together. Asynq itself is as it comes.

// Speed says which of the fast paths are used. The zero value is Asynq as it comes.
type Speed struct {
	Coalesce bool // calls that are made at the same time share a pipeline
	Prefetch int  // tasks that a server may have taken and not begun; below 2: none
	// Observe is told how long the steps of tasks took: enqueue and ack each, dequeue for all that were taken together.
	Observe func(step string, tasks int, took time.Duration)
}

func (s Speed) observe(step string, tasks int, since time.Time) {
	if s.Observe != nil {
		s.Observe(step, tasks, time.Since(since))
	}
}

// coalescer is a hook that sends the scripts of concurrent callers in one pipeline, merged where one script does it for all:
// whatever gathers while one is under way goes with the next.
type coalescer struct {
	rdb   redis.UniversalClient
	speed Speed
	group *batch.Group[redis.Cmder, struct{}]
}

// coalesce puts a coalescer into a client and returns how to end it, once nobody uses the client any more.
func coalesce(rdb redis.UniversalClient, s Speed) (stop func()) {
	if !s.Coalesce {
		return func() {}
	}
	c := &coalescer{rdb: rdb, speed: s}
	c.group = batch.New("pipeline", nil, c.run)
	rdb.AddHook(c)
	return sync.OnceFunc(c.group.Close)
}

func (c *coalescer) run(ctx context.Context, cmds []redis.Cmder) ([]struct{}, error) {
	pipe := c.rdb.Pipeline()
	merged, rest := merge(cmds)
	for _, t := range merged {
		t.queue(ctx, pipe)
	}
	for _, cmd := range rest {
		_ = pipe.Process(ctx, cmd) // queues it
	}
	queued, err := pipe.Exec(ctx)
	var answered redis.Error
	if err != nil && !errors.As(err, &answered) {
		for _, cmd := range queued {
			if cmd.Err() == nil {
				cmd.SetErr(err) // the connection broke: nobody knows what was done
			}
		}
	}
	for _, t := range merged {
		t.answer()
	}
	return make([]struct{}, len(cmds)), nil // each command carries its own error
}

// DialHook implements redis.Hook.
func (c *coalescer) DialHook(next redis.DialHook) redis.DialHook { return passDial(next) }

// ProcessPipelineHook implements redis.Hook.
func (c *coalescer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook. A script that Redis does not know fails here as it does alone, and its caller sends
// it whole, which goes by itself.
func (c *coalescer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		if firstKey(cmd, keyActive) {
			defer c.speed.observe("ack", 1, time.Now())
		}
		if _, err := c.group.Do(ctx, cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return cmd.Err()
	}
}

func passDial(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// Where the parts of an EVALSHA stand: its name, the script's hash, the number of keys, the keys, the arguments.
const (
	argKeys     = 2
	argFirstKey = 3
)

// firstKey says whether a script's first key ends so.
func firstKey(cmd redis.Cmder, suffix string) bool {
	args := cmd.Args()
	if len(args) <= argFirstKey {
		return false
	}
	key, _ := args[argFirstKey].(string)
	return strings.HasSuffix(key, suffix)
}

const (
	prefetchMost = time.Second           // tasks are taken ahead for as long as the handlers need for them
	prefetchOld  = 5 * time.Second       // well within their lease: what was not begun by then goes back
	emptyFor     = 10 * time.Millisecond // a queue that was empty is not asked again before, while others have tasks

	// When all queues are empty they are all asked again after the first of these, give or take a half. Whether one of them
	// has tasks is seen before, by one look at all of them: soon at first, then ever less often.
	idleFor             = 200 * time.Millisecond
	peekFirst, peekLast = 5 * time.Millisecond, 80 * time.Millisecond
)

// prefetcher is a hook that answers Asynq's taking of single tasks from a few that were taken together. What it holds is
// leased to this server like any active task: when the process dies they come back as those do, and when it stops it
// gives them back. The more the handlers get done, the more it takes, but never more than they did in a second.
type prefetcher struct {
	rdb     redis.UniversalClient
	speed   Speed
	hands   *hands          // gives out no task while they are full
	queues  int             // that the server asks, one after the other
	over    <-chan struct{} // closed by end: nobody waits any longer
	end     func()
	mu      sync.Mutex
	buffers map[string]*buffer // by the queue's prefix
	pause   time.Duration      // to the next look whether there are any
	misses  int                // asks without a task since the last one that got one, or since the last wait
	fooled  bool               // the last look saw tasks, and none has been got since: their queue is paused, or others were quicker
}

// buffer is the tasks of one queue that were taken and not begun.
type buffer struct {
	tasks []task
	next  int       // how many to take the next time
	taken time.Time // when these were
	empty time.Time // until when the queue counts as empty
}

type task struct{ id, message string }

// prefetch puts a prefetcher into the client of one server, nil when none is wanted.
func prefetch(rdb redis.UniversalClient, s Speed, h *hands, queues int) *prefetcher {
	if s.Prefetch < 2 {
		return nil
	}
	over := make(chan struct{})
	p := &prefetcher{
		rdb: rdb, speed: s, hands: h, queues: queues, pause: peekFirst, over: over, end: sync.OnceFunc(func() { close(over) }), buffers: map[string]*buffer{},
	}
	rdb.AddHook(p)
	return p
}

// takeTasksScript does what Asynq's script for taking a task does, several times. It returns ids and messages in turn. An
// id whose task is gone is left as Asynq leaves it, for the janitor. KEYS: pending, paused, active, lease. ARGV: the end of
// the leases, the prefix of the tasks' hashes, how many.
var takeTasksScript = redis.NewScript(`
local out, active, leased = {}, {}, {}
if redis.call('EXISTS', KEYS[2]) == 1 then return out end
local ids = redis.call('LRANGE', KEYS[1], -ARGV[3], -1)
if #ids == 0 then return out end
redis.call('LTRIM', KEYS[1], 0, -ARGV[3] - 1)
for i = #ids, 1, -1 do
  local id = ids[i]
  local key = ARGV[2] .. id
  active[#active + 1] = id
  leased[#leased + 1] = ARGV[1]
  leased[#leased + 1] = id
  redis.call('HSET', key, 'state', 'active')
  redis.call('HDEL', key, 'pending_since')
  local msg = redis.call('HGET', key, 'msg')
  if msg then
    out[#out + 1] = id
    out[#out + 1] = msg
  end
end
redis.call('LPUSH', KEYS[3], unpack(active))
redis.call('ZADD', KEYS[4], unpack(leased))
return out`)

// DialHook implements redis.Hook.
func (p *prefetcher) DialHook(next redis.DialHook) redis.DialHook { return passDial(next) }

// ProcessPipelineHook implements redis.Hook.
func (p *prefetcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook.
func (p *prefetcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		take, ok := cmd.(*redis.Cmd)
		if !ok || !takesTask(cmd) {
			return next(ctx, cmd)
		}
		message, err := p.take(ctx, cmd.Args())
		if errors.Is(err, redis.Nil) {
			p.missed(ctx)
		}
		if err != nil {
			cmd.SetErr(err)
			return err
		}
		take.SetVal(message)
		return nil
	}
}

// takesTask says whether a command is Asynq's script for taking a task: its keys are pending, paused, active and lease,
// its arguments the lease's end and the prefix of the tasks' hashes.
func takesTask(cmd redis.Cmder) bool {
	return (cmd.Name() == "evalsha" || cmd.Name() == "eval") && hasShape(cmd.Args(), keysOfTaking, 2)
}

var keysOfTaking = []string{keyPending, keyPaused, keyActive, keyLease}

// take returns the next task's message, redis.Nil when there is none.
func (p *prefetcher) take(ctx context.Context, args []any) (string, error) {
	if !p.hands.wait() {
		return "", redis.Nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pending, _ := args[argFirstKey].(string)
	prefix := strings.TrimSuffix(pending, "pending")
	b := p.buffers[prefix]
	if b == nil {
		b = &buffer{next: 1}
		p.buffers[prefix] = b
	}
	now := time.Now()
	if len(b.tasks) > 0 && now.Sub(b.taken) > prefetchOld {
		b.next = 1
		if err := p.giveBack(ctx, prefix, b); err != nil {
			return "", err
		}
	}
	if len(b.tasks) == 0 {
		if now.Before(b.empty) {
			if b = p.only(now); b == nil {
				return "", redis.Nil
			}
			return p.give(b), nil
		}
		if err := p.fill(ctx, b, args, now); err != nil {
			return "", err
		}
	}
	return p.give(b), nil
}

// give takes the next of a buffer's tasks out.
func (p *prefetcher) give(b *buffer) (message string) {
	p.misses, p.fooled, p.pause = 0, false, peekFirst
	p.hands.given()
	message = b.tasks[0].message
	b.tasks = b.tasks[1:]
	return message
}

// missed is told of an ask that got no task. When all queues were asked in vain it waits, which Asynq would do without
// looking meanwhile: so a bulk's first task is begun at once, and a fleet that has nothing to do costs Redis little.
func (p *prefetcher) missed(ctx context.Context) {
	pending, look := p.round()
	if pending == nil {
		return
	}
	end := time.After(idleFor/2 + rand.N(idleFor))
	for {
		select {
		case <-time.After(p.nextPause()):
		case <-end:
			p.hands.empty()
			return
		case <-p.over:
			return
		}
		if look && p.rdb.Exists(ctx, pending...).Val() > 0 { // where that fails it waits to the end
			p.mu.Lock()
			p.fooled = true // until a task is given
			p.mu.Unlock()
			return
		}
	}
}

// nextPause is the time to the next look: the longer there was nothing, the longer.
func (p *prefetcher) nextPause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	pause := p.pause
	p.pause = min(2*pause, peekLast)
	return pause
}

// round counts a miss, and ends a round when it was the last queue's: then it returns what to look at, and whether to.
func (p *prefetcher) round() (pending []string, look bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.misses++; p.misses < p.queues {
		return nil, false
	}
	look = !p.fooled
	p.misses, p.fooled = 0, false
	for prefix := range p.buffers {
		pending = append(pending, prefix+"pending")
	}
	return pending, look
}

// only returns the one buffer that has tasks while every other queue of the server counts as empty, nil otherwise. Asked
// for one of the empty ones, Asynq would go on until it came to that one.
func (p *prefetcher) only(now time.Time) (has *buffer) {
	if len(p.buffers) < p.queues {
		return nil
	}
	for _, b := range p.buffers {
		switch {
		case len(b.tasks) == 0 && now.Before(b.empty):
		case has != nil || len(b.tasks) == 0 || now.Sub(b.taken) > prefetchOld:
			return nil
		default:
			has = b
		}
	}
	return has
}

// fill takes the next tasks of a queue.
func (p *prefetcher) fill(ctx context.Context, b *buffer, args []any, now time.Time) error {
	slow := !b.taken.IsZero() && now.Sub(b.taken) > prefetchMost
	if slow {
		b.next = max(b.next/2, 1)
	}
	keys := make([]string, len(keysOfTaking))
	for i := range keys {
		keys[i], _ = args[argFirstKey+i].(string)
	}
	found, err := takeTasksScript.Run(ctx, p.rdb, keys, args[argFirstKey+4], args[argFirstKey+5], b.next).StringSlice()
	if err != nil {
		return err
	}
	b.tasks = b.tasks[:0]
	for i := 0; i+1 < len(found); i += 2 {
		b.tasks = append(b.tasks, task{found[i], found[i+1]})
	}
	b.taken = now
	switch {
	case len(b.tasks) < b.next:
		b.next = 1
	case !slow:
		b.next = min(2*b.next, p.speed.Prefetch)
	}
	if len(b.tasks) == 0 {
		b.empty = now.Add(emptyFor)
		return redis.Nil
	}
	p.speed.observe("dequeue", len(b.tasks), now)
	return nil
}

// giveBack puts what a buffer holds back to be taken next, in its order.
func (p *prefetcher) giveBack(ctx context.Context, prefix string, b *buffer) error {
	for n := len(b.tasks); n > 0; n = len(b.tasks) {
		id := b.tasks[n-1].id
		if err := requeueScript.Run(ctx, p.rdb, []string{prefix + "t:" + id}, prefix, id, strconv.FormatInt(time.Now().UnixNano(), 10)).Err(); err != nil {
			return err
		}
		b.tasks = b.tasks[:n-1]
	}
	return nil
}

// stop gives everything back. The server takes no more tasks by now.
func (p *prefetcher) stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for prefix, b := range p.buffers {
		err = errors.Join(err, p.giveBack(ctx, prefix, b))
	}
	return err
}
