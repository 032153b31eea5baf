package asynqfast

import (
	"context"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

// maxTransit is far longer than a task takes from the prefetcher to its handler.
const maxTransit = time.Second

// InFlightLimiter is a counting semaphore over the tasks that a worker has started and has work to do for. A prefetcher takes a
// task only while a slot is free. Release gives a slot up while the task waits for something outside the worker, and Acquire
// takes it again. So the number of tasks under way follows from the time that others take, up to the server's concurrency.
//
// It is safe for concurrent use. A nil InFlightLimiter has no limit.
type InFlightLimiter struct {
	slots int
	freed *sync.Cond // guards the fields below with its lock

	inUse    int  // by handlers
	reserved int  // for tasks that were taken and have not reached their handlers
	closed   bool // no task is taken any more: waits end
}

// NewInFlightLimiter makes a limiter with a number of slots.
func NewInFlightLimiter(slots int) *InFlightLimiter {
	return &InFlightLimiter{slots: slots, freed: sync.NewCond(new(sync.Mutex))}
}

// Acquire takes a slot for a task that is under way. It never waits, so more slots than exist may be in use; further tasks
// wait until those are released.
func (l *InFlightLimiter) Acquire() { l.add(1) }

// Release gives up the slot of a task that is under way.
func (l *InFlightLimiter) Release() { l.add(-1) }

func (l *InFlightLimiter) add(n int) {
	l.freed.L.Lock()
	l.inUse += n
	l.freed.L.Unlock()
	if n < 0 {
		l.freed.Signal()
	}
}

// waitForSlot waits until a slot is free and reports true, or until close and reports false.
func (l *InFlightLimiter) waitForSlot() bool {
	if l == nil {
		return true
	}
	l.freed.L.Lock()
	defer l.freed.L.Unlock()
	for l.inUse+l.reserved >= l.slots && !l.closed {
		if l.inUse > 0 {
			l.freed.Wait()
			continue
		}
		// Only reservations fill the slots. When their tasks never reach a handler no Release would end this wait.
		expired := time.AfterFunc(maxTransit, l.dropReserved)
		l.freed.Wait()
		expired.Stop()
	}
	return !l.closed
}

// reserve takes a slot for a task on its way to its handler.
func (l *InFlightLimiter) reserve() {
	if l == nil {
		return
	}
	l.freed.L.Lock()
	l.reserved++
	l.freed.L.Unlock()
}

// start turns a task's reservation into a slot in use. A task that no prefetcher took has no reservation.
func (l *InFlightLimiter) start() {
	l.freed.L.Lock()
	l.reserved = max(l.reserved-1, 0)
	l.inUse++
	l.freed.L.Unlock()
}

// dropReserved is called when no task can be on its way any more. While no handler runs either, the reserved tasks are lost:
// Asynq drops a task that it cannot decode.
func (l *InFlightLimiter) dropReserved() {
	if l == nil {
		return
	}
	l.freed.L.Lock()
	if l.inUse == 0 {
		l.reserved = 0
	}
	l.freed.L.Unlock()
	l.freed.Signal()
}

// close ends all waits.
func (l *InFlightLimiter) close() {
	if l == nil {
		return
	}
	l.freed.L.Lock()
	l.closed = true
	l.freed.L.Unlock()
	l.freed.Broadcast()
}

// handler counts the tasks of a handler.
func (l *InFlightLimiter) handler(next asynq.Handler) asynq.Handler {
	if l == nil {
		return next
	}
	return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		l.start()
		defer l.Release()
		return next.ProcessTask(ctx, t)
	})
}
