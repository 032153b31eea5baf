// Package redisconn connects to Redis, and gives its errors and its log the form that the program uses. Packages that keep
// data in Redis build on it: queue, counters, ratelimit. It knows nothing of what they keep.
package redisconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/message"
)

// Connect makes a client with its own pool of connections. It does not connect yet: the first command does. A URL that go-redis
// or this program cannot use is an error that does not repeat the URL, which may contain a password.
func Connect(redisURL string, poolSize int) (redis.UniversalClient, error) {
	u, err := url.Parse(redisURL)
	if err != nil {
		return nil, errors.New("REDIS_URL is not a URL")
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		return nil, fmt.Errorf("REDIS_URL: %s:// is not supported; use redis://, rediss:// or unix://", u.Scheme)
	}
	o, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, errors.New("REDIS_URL is not a Redis URL")
	}
	o.PoolSize = poolSize
	o.ContextTimeoutEnabled = true       // off by default: a command would outlive its caller's context
	o.DialerRetries, o.MaxRetries = 1, 2 // callers retry: they know how long they may wait
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = 2*time.Second, 5*time.Second, 5*time.Second, 5*time.Second
	return redis.NewClient(o), nil
}

// SetLogger sends the Redis client's messages to a log, at DEBUG.
func SetLogger(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements go-redis' logger. Its messages contain server addresses and no keys.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis", "msg", fmt.Sprintf(format, v...))
}

// Unavailable wraps an error of Redis with what was being done, as message.CodeUnavailable. It returns nil for nil. A call that
// its caller cancelled keeps context.Canceled.
func Unavailable(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return message.Unavailable("the queue", fmt.Errorf("%s: %w", doing, err))
}
