package ratelimit

import (
	"sync"
	"time"
)

// redisBackoff is how long Redis is not asked after a call that it did not answer.
const redisBackoff = time.Second

// redisBreaker is a circuit breaker before Redis: after a failed call no call is made for redisBackoff, so that requests and
// sends do not each wait for a timeout. It is safe for concurrent use.
type redisBreaker struct {
	now   func() time.Time
	mu    sync.Mutex
	until time.Time
}

// open reports whether Redis must not be asked now.
func (b *redisBreaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now().Before(b.until)
}

// trip records that Redis did not answer.
func (b *redisBreaker) trip() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = b.now().Add(redisBackoff)
}
