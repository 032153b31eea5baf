package access

import (
	"context"
	"math"
	"time"
)

// Limiter bounds the requests of a key. A key may save up the requests of one second, and at least one.
type Limiter interface {
	// Allow counts a request, or rejects it with a Wait above 0. perSecond is above 0.
	Allow(ctx context.Context, keyID string, perSecond float64) Allowance
}

// Allowance is a limiter's answer to one request.
type Allowance struct {
	Wait      time.Duration // until the next request may be allowed; 0: this one is
	Remaining int           // requests that would be allowed at once after this one
	Reset     time.Duration // until Remaining is at its maximum again
}

// Quota is what a key with a rate may do, as its caller is told. Limit requests are allowed within each Window.
type Quota struct {
	Limit     int
	Window    time.Duration // in whole seconds, rounded up: the limiter never allows less than the quota says
	Remaining int
	Reset     time.Duration
}

// quotaOf describes an allowance under a rate. Limit is the number of requests that a limiter lets a key save up.
func quotaOf(perSecond float64, a Allowance) *Quota {
	limit := max(int(perSecond), 1)
	window := time.Duration(math.Ceil(float64(limit)/perSecond)) * time.Second
	return &Quota{Limit: limit, Window: window, Remaining: max(min(a.Remaining, limit), 0), Reset: max(a.Reset, a.Wait)}
}
