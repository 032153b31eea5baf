package queue

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"herald/pkg/channel"
)

// Limiter shares each channel's rate between all processes (GCRA in Redis, by its clock). While Redis does not answer
// each process limits itself. It implements delivery.Limiter.
type Limiter struct {
	limiter *redis_rate.Limiter
	mu      sync.Mutex
	local   map[channel.Key]*rate.Limiter
}

// NewLimiter makes a Limiter.
func NewLimiter(rdb redis.UniversalClient) *Limiter {
	return &Limiter{limiter: redis_rate.NewLimiter(rdb), local: map[channel.Key]*rate.Limiter{}}
}

// precision is what rates are scaled by, since GCRA counts in whole tokens: 0.25 a second is 25 in 100 seconds.
const precision = 100

// Take implements delivery.Limiter.
func (l *Limiter) Take(ctx context.Context, c *channel.Channel, n int) (time.Duration, error) {
	limit := redis_rate.Limit{
		Rate: max(int(math.Round(c.RatePerSecond*precision)), 1), Burst: max(int(c.RatePerSecond/10), n, 1), Period: precision * time.Second,
	}
	res, err := l.limiter.AllowN(ctx, "herald:{"+c.ID.String()+"/"+string(c.Type)+"}:rate", limit, n)
	if err != nil {
		return l.takeLocal(c, n), nil //nolint:nilerr // without Redis each process limits itself
	}
	if res.Allowed < n {
		return max(res.RetryAfter, time.Millisecond), nil
	}
	return 0, nil
}

func (l *Limiter) takeLocal(c *channel.Channel, n int) time.Duration {
	l.mu.Lock()
	lim := l.local[c.Key]
	if lim == nil || lim.Limit() != rate.Limit(c.RatePerSecond) {
		lim = rate.NewLimiter(rate.Limit(c.RatePerSecond), max(int(c.RatePerSecond/10), n, 1))
		l.local[c.Key] = lim
	}
	l.mu.Unlock()
	r := lim.ReserveN(time.Now(), n)
	if d := r.Delay(); d > 0 {
		r.Cancel()
		return d
	}
	return 0
}
