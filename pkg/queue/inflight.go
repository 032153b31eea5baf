package queue

import (
	"runtime"

	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
)

// slotsPerProcessor is how many messages of a type a worker has in its own hands for each processor. More would fill no larger
// groups on their way to the database, and would keep singles waiting for the processors.
const slotsPerProcessor = 90

// InFlight limits, by channel type, how many messages a worker has started and is claiming, rendering or recording. A message
// that waits for its provider or for its channel's rate does not count. It implements delivery.InFlightLimiter.
type InFlight map[message.ChannelType]*asynqfast.InFlightLimiter

// NewInFlight makes limiters with slots for this machine's processors.
func NewInFlight() InFlight { return newInFlight(slotsPerProcessor * runtime.GOMAXPROCS(0)) }

func newInFlight(slots int) InFlight {
	f := InFlight{}
	for _, t := range message.ChannelTypes {
		f[t] = asynqfast.NewInFlightLimiter(slots)
	}
	return f
}

// Release implements delivery.InFlightLimiter.
func (f InFlight) Release(t message.ChannelType) { f[t].Release() }

// Acquire implements delivery.InFlightLimiter.
func (f InFlight) Acquire(t message.ChannelType) { f[t].Acquire() }
