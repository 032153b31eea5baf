package queue

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"herald/pkg/message"
)

// backlogPerProcessor is how many messages of a type a worker has in its own hands for each processor. More would only wait
// for each other, and keep whoever else is on the machine waiting: the groups in which they go to the database are large
// enough with these.
const backlogPerProcessor = 90

// arrival is far longer than a task takes from the queue to its handler.
const arrival = time.Second

// Backlog counts, by type, the messages that a worker has begun and has something to do for: to claim, to render, to
// record. One that its provider has in hand does not count. While as many are there as may be, no further one is begun. So
// how many sends are in flight follows from the time that providers take, up to the type's concurrency.
type Backlog map[message.ChannelType]*hands

// NewBacklog makes an empty one, with room for this machine's processors.
func NewBacklog() Backlog { return newBacklog(backlogPerProcessor * runtime.GOMAXPROCS(0)) }

func newBacklog(most int) Backlog {
	b := Backlog{}
	for _, t := range message.ChannelTypes {
		b[t] = &hands{most: most, less: sync.NewCond(new(sync.Mutex))}
	}
	return b
}

// Away implements delivery.Backlog: the message waits for its provider, or for its channel's rate.
func (b Backlog) Away(t message.ChannelType) { b[t].add(-1) }

// Back implements delivery.Backlog.
func (b Backlog) Back(t message.ChannelType) { b[t].add(1) }

// hands is the messages of one type.
type hands struct {
	most   int
	less   *sync.Cond // with its lock over what follows
	held   int
	coming int  // on their way to their handlers
	over   bool // no more are begun: nobody waits any longer
}

func (h *hands) add(n int) {
	h.less.L.Lock()
	h.held += n
	h.less.L.Unlock()
	if n < 0 {
		h.less.Signal()
	}
}

// wait waits until there is room, and says whether there is: at the end there is none.
func (h *hands) wait() bool {
	if h == nil {
		return true
	}
	h.less.L.Lock()
	defer h.less.L.Unlock()
	for h.held+h.coming >= h.most && !h.over {
		if h.held > 0 {
			h.less.Wait()
			continue
		}
		lost := time.AfterFunc(arrival, h.empty) // nobody would end this wait if none of them came
		h.less.Wait()
		lost.Stop()
	}
	return !h.over
}

// given is told of a task that was given out: it has a place from then on.
func (h *hands) given() {
	if h == nil {
		return
	}
	h.less.L.Lock()
	h.coming++
	h.less.L.Unlock()
}

// begin moves a task that has come to its handler's hands. One that was not taken ahead was not announced.
func (h *hands) begin() {
	h.less.L.Lock()
	h.coming = max(h.coming-1, 0)
	h.held++
	h.less.L.Unlock()
}

// empty is told when nothing can be on its way any more. With nothing in hand either, what is still announced does not
// come: Asynq drops a task that it cannot decode.
func (h *hands) empty() {
	if h == nil {
		return
	}
	h.less.L.Lock()
	if h.held == 0 {
		h.coming = 0
	}
	h.less.L.Unlock()
	h.less.Signal()
}

// end lets go whoever waits.
func (h *hands) end() {
	if h == nil {
		return
	}
	h.less.L.Lock()
	h.over = true
	h.less.L.Unlock()
	h.less.Broadcast()
}

// counted counts what a handler has in hand.
func (h *hands) counted(handler asynq.Handler) asynq.Handler {
	if h == nil {
		return handler
	}
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		h.begin()
		defer h.add(-1)
		return handler.ProcessTask(ctx, task)
	})
}
