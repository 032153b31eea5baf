package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/redisconn/redistest"
)

// allowed counts how many of n requests at once a key may make.
func allowed(t *testing.T, l *KeyLimiter, key string, perSecond float64, n int) (count int) {
	t.Helper()
	for range n {
		if l.Allow(t.Context(), key, perSecond).Wait == 0 {
			count++
		}
	}
	return count
}

func TestKeysShareTheirRateAcrossProcesses(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, url string) {
		a, b := NewKeyLimiter(rdb), NewKeyLimiter(redistest.Connect(t, url))
		if got := allowed(t, a, "a", 5, 10) + allowed(t, b, "a", 5, 10); got < 5 || got > 7 {
			t.Errorf("two processes let a key make %d requests at once, it has 5 a second", got)
		}
		if got := allowed(t, b, "b", 5, 1); got != 1 {
			t.Error("one key waits for another")
		}
		if a.local.Len()+b.local.Len() != 0 {
			t.Error("a process limited by itself although Redis answers")
		}
	})
}

// A rate may be a fraction: one request every two seconds.
func TestAFractionOfARequestASecond(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		l := NewKeyLimiter(rdb)
		if wait := l.Allow(t.Context(), "a", 0.5).Wait; wait != 0 {
			t.Errorf("the first request waits %v", wait)
		}
		if wait := l.Allow(t.Context(), "a", 0.5).Wait; wait > 2*time.Second || wait < time.Second {
			t.Errorf("the second request waits %v", wait)
		}
	})
}

// Without Redis each process bounds a key by itself, and asks Redis again after a second.
func TestKeysWithoutRedis(t *testing.T) {
	rdb := redistest.Connect(t, redistest.Nowhere(t))
	l, seen, clock := NewKeyLimiter(rdb), count(rdb), time.Unix(1_800_000_000, 0)
	l.redis.now = func() time.Time { return clock }
	if got := allowed(t, l, "a", 5, 20); got != 5 {
		t.Errorf("%d requests at once, want 5", got)
	}
	asked := seen.commands.Load()
	if asked == 0 {
		t.Error("Redis was not asked")
	}
	if wait := l.Allow(t.Context(), "a", 5).Wait; wait != 200*time.Millisecond {
		t.Errorf("a request waits %v, want 200ms: a refused one uses nothing up", wait)
	}
	if got := allowed(t, l, "b", 0.5, 3); got != 1 {
		t.Errorf("another key, of half a request a second: %d requests", got)
	}
	if got := allowed(t, l, "a", 8, 20); got != 8 {
		t.Errorf("%d requests after the key's rate was changed to 8", got)
	}
	clock = clock.Add(999 * time.Millisecond)
	l.Allow(t.Context(), "a", 5)
	if seen.commands.Load() != asked {
		t.Error("Redis was asked within the back-off")
	}
	clock = clock.Add(time.Millisecond)
	l.Allow(t.Context(), "a", 5)
	if seen.commands.Load() == asked {
		t.Error("Redis was not asked after the back-off")
	}
}

// Keys beyond the bound evict the ones used longest ago, one by one.
func TestLocalLimitersAreBounded(t *testing.T) {
	l := NewKeyLimiter(redistest.Connect(t, redistest.Nowhere(t)))
	l.redis.trip()
	l.redis.now = func() time.Time { return time.Unix(1_800_000_000, 0) } // before the end of the back-off
	l.redis.until = l.redis.now().Add(time.Hour)
	if allowed(t, l, "used", 1, 1) != 1 {
		t.Fatal("the first request waits")
	}
	for i := range localKeys {
		l.Allow(t.Context(), fmt.Sprint(i), 1)
		if allowed(t, l, "used", 1, 1) != 0 {
			t.Fatalf("a key in use was evicted by %d others", i+1)
		}
	}
	if n := l.local.Len(); n != localKeys {
		t.Errorf("%d local limiters, want %d", n, localKeys)
	}
}
