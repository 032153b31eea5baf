package app

import (
	"time"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
)

// Timing holds the intervals that are not settings. Production uses DefaultTiming; the fault tests shorten them through
// HERALD_TIMING, which only the build tag faults knows.
type Timing struct {
	Delivery delivery.Timing
	Bulk     bulk.Timing
	Sweep    time.Duration // between two sweeps for overdue messages
	Clean    time.Duration // between two runs of the queue's janitor
	Forget   time.Duration // between two removals of expired idempotency keys
}

// DefaultTiming returns the intervals of production.
func DefaultTiming() Timing {
	return Timing{Delivery: delivery.DefaultTiming(), Bulk: bulk.DefaultTiming(), Sweep: 5 * time.Second, Clean: 15 * time.Second, Forget: time.Hour}
}
