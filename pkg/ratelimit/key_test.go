package ratelimit

import (
	"testing"

	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// takeKeys counts how many of n requests at once a key may make.
func takeKeys(t *testing.T, l *KeyLimiter, key string, rate float64, n int) (taken int) {
	t.Helper()
	for range n {
		if l.Take(t.Context(), key, rate) == 0 {
			taken++
		}
	}
	return taken
}

func TestKeysShareTheirRateAcrossProcesses(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		var processes [2]*KeyLimiter
		for i := range processes {
			processes[i] = NewKeyLimiter(redistest.Connect(t, url))
		}
		got := takeKeys(t, processes[0], "a", 5, 10) + takeKeys(t, processes[1], "a", 5, 10)
		if got < 5 || got > 7 {
			t.Errorf("two processes let a key make %d requests at once, it has 5 a second", got)
		}
		if got := takeKeys(t, processes[1], "b", 5, 1); got != 1 {
			t.Error("one key waits for another")
		}
	})
}

// Without Redis each process bounds a key by itself.
func TestKeysKeepTheirRateWithoutRedis(t *testing.T) {
	l := NewKeyLimiter(redistest.Connect(t, redistest.Nowhere(t)))
	if got := takeKeys(t, l, "a", 5, 20); got < 5 || got > 7 {
		t.Errorf("%d requests at once", got)
	}
}
