package redisconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/message"
)

func TestConnectRefusesWhatItCannotUse(t *testing.T) {
	for _, u := range []string{"http://x", "redis-cluster://x:1", "redis-sentinel://x:1", "::", "redis://h:port", "redis://:secret@h:port"} {
		if _, err := Connect(u, 1); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "REDIS_URL") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// A command ends with its caller's context, and its retries are bounded: callers know how long they may wait.
func TestConnectBoundsCommands(t *testing.T) {
	rdb, err := Connect("rediss://user:secret@h:1/2", 7)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	client, ok := rdb.(*redis.Client)
	if !ok {
		t.Fatalf("%T", rdb)
	}
	o := client.Options()
	if o.PoolSize != 7 || o.DB != 2 || o.TLSConfig == nil || !o.ContextTimeoutEnabled || o.MaxRetries != 2 || o.DialerRetries != 1 {
		t.Errorf("options: %+v", o)
	}
	for name, d := range map[string]time.Duration{"dial": o.DialTimeout, "read": o.ReadTimeout, "write": o.WriteTimeout, "pool": o.PoolTimeout} {
		if d <= 0 || d > 5*time.Second {
			t.Errorf("%s timeout %v", name, d)
		}
	}
}

func TestUnavailable(t *testing.T) {
	if err := Unavailable("count", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	err := Unavailable("count", redis.ErrClosed)
	if !message.IsCode(err, message.CodeUnavailable) || !errors.Is(err, redis.ErrClosed) {
		t.Errorf("%v", err)
	}
	err = Unavailable("count", fmt.Errorf("x: %w", context.Canceled))
	if message.IsCode(err, message.CodeUnavailable) || !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "count: ") {
		t.Errorf("a cancelled call: %v", err)
	}
}
