package ratelimit

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/access"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// An answer tells how many requests are left and when all are available again, from Redis and without it.
func TestIntegrationAnAllowanceTellsWhatIsLeft(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		var l *KeyLimiter
		var got []access.Allowance
		testenv.Eventually(t, 30*time.Second, "a busy Redis answers five requests in time", func() bool {
			l, got = NewKeyLimiter(rdb), nil
			key := uuid.NewString()
			for range 5 {
				got = append(got, l.Allow(t.Context(), key, 5))
			}
			return l.local.Len() == 0
		})
		for i, a := range got {
			if left := 4 - i; a.Wait != 0 || a.Remaining < left || a.Remaining > left+1 || a.Reset <= 0 || a.Reset > time.Second { // the clock goes on
				t.Errorf("%d left: %+v", left, a)
			}
		}
	})
	l, clock := NewKeyLimiter(redistest.Connect(t, redistest.Nowhere(t))), time.Unix(1_800_000_000, 0)
	l.redis.now = func() time.Time { return clock }
	l.redis.trip()
	for _, want := range []access.Allowance{
		{Remaining: 1, Reset: 500 * time.Millisecond}, {Remaining: 0, Reset: time.Second}, {Wait: 500 * time.Millisecond, Remaining: 0, Reset: time.Second},
	} {
		if got := l.Allow(t.Context(), "b", 2); got != want {
			t.Errorf("without Redis: %+v, want %+v", got, want)
		}
	}
}
