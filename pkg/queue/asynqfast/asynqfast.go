// Package asynqfast makes Asynq faster without changing it. Wrap puts hooks between Asynq and its Redis connection: scripts of
// concurrent callers share a pipeline, enqueues and acknowledgements of one queue share a script, and a server's dequeues are
// answered from a buffer of tasks that one script took. README.md describes the protocol and the measurements.
//
// A hook changes how often the network is crossed, never the result. It recognises a script of Asynq by its keys and
// arguments; a command that it does not recognise goes to Redis unchanged, so another version of Asynq costs speed only.
//
// The package knows Asynq and Redis, and nothing of messages, channels or bulks.
package asynqfast

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Options configure Wrap. The zero value is Asynq without hooks.
type Options struct {
	// Enabled is the switch. While it is false no hook is installed, and Asynq talks to Redis by itself.
	Enabled bool
	// Prefetch is how many tasks a server may have taken and not started; below 2 a server takes one task at a time.
	Prefetch int
	// Observe is told how long a stage took for a number of tasks: "enqueue" and "ack" for each call, "dequeue" for all tasks
	// that one script took. nil: not told. It works without Enabled as far as the caller reports stages itself.
	Observe func(stage string, tasks int, took time.Duration)

	// Queues is the number of queues that the server of this connection polls; 0 on a client's connection.
	Queues int
	// InFlight limits how many tasks of the server are in the worker's hands; nil: no limit.
	InFlight *InFlightLimiter
}

// Prefetches reports whether a server with these options takes several tasks at a time.
func (o Options) Prefetches() bool { return o.Enabled && o.Prefetch >= 2 }

// ObserveSince reports a stage that began at a time.
func (o Options) ObserveSince(stage string, tasks int, began time.Time) {
	if o.Observe != nil {
		o.Observe(stage, tasks, time.Since(began))
	}
}

// Hooks are what Wrap installed under one connection. The owner of an Asynq server calls, in this order: Handler and
// PollInterval to configure it, StopDequeue, the server's Stop, ReturnTasks, the server's Shutdown, Close.
type Hooks struct {
	opts     Options
	coalesce *coalescer  // nil: commands go to Redis one by one
	prefetch *prefetcher // nil: the server dequeues by itself
}

// Wrap installs the hooks in a connection that one Asynq client or one Asynq server uses. It must be called before the first
// command. Nothing else should use the connection.
func Wrap(rdb redis.UniversalClient, o Options) *Hooks {
	h := &Hooks{opts: o}
	if !o.Enabled {
		return h
	}
	// go-redis runs hooks in the order in which they were added: a dequeue never reaches the coalescer, which would answer
	// it only after the run before it.
	if o.Queues > 0 && o.Prefetches() {
		h.prefetch = newPrefetcher(rdb, o)
		rdb.AddHook(h.prefetch)
	}
	h.coalesce = newCoalescer(rdb, o)
	rdb.AddHook(h.coalesce)
	return h
}

// Handler returns a handler that counts its tasks with the InFlightLimiter.
func (h *Hooks) Handler(next asynq.Handler) asynq.Handler { return h.opts.InFlight.handler(next) }

// PollInterval is the pause between two polls of empty queues for asynq.Config.TaskCheckInterval. A prefetcher waits by itself
// and ends the wait when a task arrives, so Asynq must not wait on top of that.
func (h *Hooks) PollInterval() time.Duration {
	if h.prefetch != nil {
		return time.Millisecond
	}
	return pollInterval
}

// StopDequeue makes every further dequeue of the server answer "no task", and ends its waits.
func (h *Hooks) StopDequeue() {
	h.opts.InFlight.close()
	if h.prefetch != nil {
		h.prefetch.stop()
	}
}

// ReturnTasks puts tasks that were taken and not started back to the head of their queues. The server must have stopped
// dequeueing. What it cannot return, because Redis does not answer, comes back when its lease expires.
func (h *Hooks) ReturnTasks(ctx context.Context) error {
	if h.prefetch == nil {
		return nil
	}
	return h.prefetch.returnAll(ctx)
}

// Close waits for commands under way. No command may follow. It may be called twice.
func (h *Hooks) Close() {
	if h.coalesce != nil {
		h.coalesce.group.Close()
	}
}

// passDial is the DialHook of hooks that change nothing about connections.
func passDial(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// Positions in the arguments of an EVALSHA: its name, the script's hash, the number of keys, the keys, the arguments.
const (
	argFirstKey = 3
)

// Keys of Asynq's scripts as hasShape describes them.
const (
	keyTask      = ":t:"
	keyPending   = ":pending"
	keyActive    = ":active"
	keyLease     = ":lease"
	keyPaused    = ":paused"
	keyOfTheDay  = ":processed:"
	keyProcessed = ":processed"
)

// firstKeyEndsWith reports whether a script's first key has a suffix.
func firstKeyEndsWith(cmd redis.Cmder, suffix string) bool {
	args := cmd.Args()
	if len(args) <= argFirstKey {
		return false
	}
	key, _ := args[argFirstKey].(string)
	return strings.HasSuffix(key, suffix)
}

// hasShape reports whether a script was called with these keys and this number of arguments. A key is described by its
// suffix, or, with a colon at its end, by a part of it.
func hasShape(cmd []any, keys []string, args int) bool {
	if len(cmd) != argFirstKey+len(keys)+args {
		return false
	}
	for i, want := range keys {
		matches := strings.HasSuffix
		if strings.HasSuffix(want, ":") {
			matches = strings.Contains
		}
		if key, _ := cmd[argFirstKey+i].(string); !matches(key, want) {
			return false
		}
	}
	return true
}
