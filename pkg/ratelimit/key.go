package ratelimit

import (
	"context"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// KeyLimiter bounds the requests of each API key, over all API processes together. Without Redis each process bounds
// them by itself. It implements access.Limiter.
type KeyLimiter struct {
	limiter *redis_rate.Limiter
	mu      sync.Mutex
	local   map[string]*rate.Limiter
	away    time.Time // until then Redis is not asked: it did not answer
}

const (
	keyPatience = 100 * time.Millisecond // a request does not wait longer for Redis
	localKeys   = 10_000
)

// NewKeyLimiter makes a KeyLimiter.
func NewKeyLimiter(rdb redis.UniversalClient) *KeyLimiter {
	return &KeyLimiter{limiter: redis_rate.NewLimiter(rdb), local: map[string]*rate.Limiter{}}
}

// Take implements access.Limiter. A key may save up its requests of one second.
func (l *KeyLimiter) Take(ctx context.Context, keyID string, perSecond float64) time.Duration {
	if l.isAway() {
		return l.takeLocal(keyID, perSecond)
	}
	// The library counts in whole requests, and a rate need not be whole: so many in a thousand seconds.
	limit := redis_rate.Limit{Rate: max(int(perSecond*1000), 1), Burst: max(int(perSecond), 1), Period: 1000 * time.Second}
	ctx, cancel := context.WithTimeout(ctx, keyPatience)
	defer cancel()
	res, err := l.limiter.Allow(ctx, "herald:key:"+keyID, limit)
	switch {
	case err != nil:
		l.mu.Lock()
		l.away = time.Now().Add(awayFor)
		l.mu.Unlock()
		return l.takeLocal(keyID, perSecond)
	case res.Allowed > 0:
		return 0
	}
	return res.RetryAfter
}

func (l *KeyLimiter) isAway() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.away)
}

func (l *KeyLimiter) takeLocal(keyID string, perSecond float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.local[keyID]
	if lim == nil || lim.Limit() != rate.Limit(perSecond) {
		if len(l.local) >= localKeys {
			clear(l.local)
		}
		lim = rate.NewLimiter(rate.Limit(perSecond), max(int(perSecond), 1))
		l.local[keyID] = lim
	}
	r := lim.Reserve()
	wait := r.Delay()
	if wait > 0 {
		r.Cancel()
	}
	return wait
}
