package ratelimit

import (
	"context"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"herald/pkg/access"
)

// KeyLimiter bounds the requests of each API key over all API processes together (GCRA in Redis, by redis_rate). While Redis
// does not answer, each process bounds them by itself: a missing limit is no reason to refuse a request. It implements
// access.Limiter and is safe for concurrent use.
type KeyLimiter struct {
	limiter *redis_rate.Limiter
	redis   redisBreaker

	mu    sync.Mutex // makes look-up and insert of a local limiter one step
	local *lru.Cache[string, *rate.Limiter]
}

const (
	keyTimeout = 100 * time.Millisecond // a request waits no longer for Redis
	// localKeys bounds the memory of the local limiters. An evicted key starts with a full burst; no expiry is needed, since
	// an idle limiter is full as well.
	localKeys = 10_000
)

// NewKeyLimiter makes a KeyLimiter.
func NewKeyLimiter(rdb redis.UniversalClient) *KeyLimiter {
	local, _ := lru.New[string, *rate.Limiter](localKeys) // fails for a size below 1 only
	return &KeyLimiter{limiter: redis_rate.NewLimiter(rdb), redis: redisBreaker{now: time.Now}, local: local}
}

// Allow implements access.Limiter. A key may save up the requests of one second.
func (l *KeyLimiter) Allow(ctx context.Context, keyID string, perSecond float64) access.Allowance {
	if l.redis.open() {
		return l.allowLocal(keyID, perSecond)
	}
	// redis_rate counts whole requests for each period, and a rate may be a fraction: hence a period of 1,000 s.
	limit := redis_rate.Limit{Rate: max(int(perSecond*1000), 1), Burst: burst(perSecond), Period: 1000 * time.Second}
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	res, err := l.limiter.Allow(ctx, "herald:key:"+keyID, limit)
	switch {
	case err != nil:
		l.redis.trip()
		return l.allowLocal(keyID, perSecond)
	case res.Allowed > 0:
		return access.Allowance{Remaining: res.Remaining, Reset: res.ResetAfter}
	}
	return access.Allowance{Wait: res.RetryAfter, Reset: res.ResetAfter}
}

// burst is how many requests a key may save up.
func burst(perSecond float64) int { return max(int(perSecond), 1) }

// allowLocal bounds a key within this process. A request that must wait uses nothing up.
func (l *KeyLimiter) allowLocal(keyID string, perSecond float64) access.Allowance {
	now := l.redis.now()
	lim := l.localLimiter(keyID, perSecond)
	r := lim.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	left := lim.TokensAt(now)
	missing := max(float64(burst(perSecond))-left, 0)
	return access.Allowance{Wait: wait, Remaining: max(int(left), 0), Reset: time.Duration(missing / perSecond * float64(time.Second))}
}

func (l *KeyLimiter) localLimiter(keyID string, perSecond float64) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim, ok := l.local.Get(keyID)
	if !ok || lim.Limit() != rate.Limit(perSecond) {
		lim = rate.NewLimiter(rate.Limit(perSecond), burst(perSecond))
		l.local.Add(keyID, lim)
	}
	return lim
}
