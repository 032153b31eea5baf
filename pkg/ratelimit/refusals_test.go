package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/redisconn/redistest"
)

// Two processes count the refusals of one channel together; an acceptance in either ends the row.
func TestCaseRefusalsOfTwoProcesses(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		clock := time.Unix(1_800_000_000, 0)
		process := func() *Refusals {
			r := NewRefusals(rdb)
			r.now = func() time.Time { return clock }
			r.redis.now = r.now
			return r
		}
		a, b := process(), process()
		k, other := channel.Key{ID: uuid.New(), Type: message.SMS}, channel.Key{ID: uuid.New(), Type: message.SMS}
		version := int64(7)
		refuse := func(r *Refusals, k channel.Key, code string, to int, want bool) {
			t.Helper()
			reached, err := r.Refused(t.Context(), &channel.Channel{Key: k, Version: version}, code, fmt.Sprintf("+1555000%04d", to), 4)
			if err != nil || reached != want {
				t.Fatalf("recipient %d: %t, %v", to, reached, err)
			}
		}
		accept := func(r *Refusals) {
			t.Helper()
			redistest.Must(t, r.Accepted(t.Context(), k))
		}
		accept(a)
		for i := range 3 {
			refuse([]*Refusals{a, b}[i%2], k, "7", i, false)
		}
		refuse(b, k, "7", 2, false) // the same recipient
		refuse(b, other, "7", 3, false)
		refuse(b, k, "7", 4, true)
		refuse(a, k, "7", 5, true) // the pause may have failed
		version += 2               // paused and resumed
		refuse(a, k, "7", 5, false)
		refuse(a, k, "7", 6, false)
		refuse(a, k, "7", 7, false)
		version -= 2
		refuse(b, k, "7", 8, false) // its call was in flight when the channel was paused
		version += 2
		refuse(a, k, "7", 9, true)
		refuse(a, k, "8", 7, false) // another code
		refuse(a, k, "8", 8, false)
		refuse(a, k, "8", 9, false)
		accept(b)
		refuse(a, k, "8", 10, false)
		for i := range 3 {
			refuse(a, k, "9", i, false)
		}
		accept(a) // at once, because this process added to the row
		refuse(a, k, "9", 11, false)
		refuse(a, k, "9", 12, false)
		refuse(a, k, "9", 13, false)
		// A process that saw no refusal looks once a second.
		c := process()
		accept(c)
		refuse(a, k, "9", 14, false)
		refuse(a, k, "9", 15, false)
		refuse(a, k, "9", 16, false)
		accept(c)
		if n := rdb.Exists(t.Context(), refusalsKey(k)).Val(); n != 1 {
			t.Error("an acceptance called Redis within a second of the one before")
		}
		clock = clock.Add(clearInterval)
		accept(c)
		if n := rdb.Exists(t.Context(), refusalsKey(k)).Val(); n != 0 {
			t.Error("the row was not ended")
		}
		refuse(a, k, "9", 17, false)
		if ttl := rdb.PTTL(t.Context(), refusalsKey(k)).Val(); ttl <= refusalsTTL-time.Minute || ttl > refusalsTTL {
			t.Errorf("the row expires after %s", ttl)
		}
	})
}
