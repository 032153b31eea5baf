package app

import (
	"time"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
)

// Timing is every interval of Herald's own that is no setting. The fault tests shorten them.
type Timing struct {
	Delivery delivery.Timing
	Bulk     bulk.Timing
	Sweep    time.Duration // between two looks for messages that nobody came back to
	Clean    time.Duration // between two looks for what Asynq leaves in Redis
	Forget   time.Duration // between two looks for idempotency keys that are too old
}

// DefaultTiming is the Timing of a real deployment.
func DefaultTiming() Timing {
	return Timing{Delivery: delivery.DefaultTiming(), Bulk: bulk.DefaultTiming(), Sweep: 5 * time.Second, Clean: 15 * time.Second, Forget: time.Hour}
}
