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

// Connect makes a client with its own pool of connections. It does not connect yet: the first command does. Errors are those of
// CheckURL.
func Connect(redisURL string, poolSize int) (redis.UniversalClient, error) {
	o, err := parse(redisURL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	o.PoolSize = poolSize
	o.ContextTimeoutEnabled = true       // off by default: a command would outlive its caller's context
	o.DialerRetries, o.MaxRetries = 1, 2 // callers retry: they know how long they may wait
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = 2*time.Second, 5*time.Second, 5*time.Second, 5*time.Second
	return redis.NewClient(o), nil
}

// CheckURL returns why Connect cannot use a URL. It connects to nothing. The error does not repeat the URL, which may contain a
// password.
func CheckURL(redisURL string) error {
	_, err := parse(redisURL)
	return err
}

func parse(redisURL string) (*redis.Options, error) {
	u, err := url.Parse(redisURL)
	if err != nil {
		return nil, errors.New("is not a URL; characters like / and # in a password are written as %2F and %23")
	}
	if (u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix") || u.Opaque != "" { // go-redis takes redis:6380 for localhost:6379
		return nil, errors.New("must begin with redis://, rediss:// or unix://")
	}
	o, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, errors.New("is not a Redis URL: use redis://user:password@host:port/database or unix:///path/redis.sock")
	}
	return o, nil
}

// Address returns where the server of a URL is, host:port or the path of a socket, for the log. It contains no password.
func Address(redisURL string) string {
	o, err := parse(redisURL)
	if err != nil {
		return ""
	}
	return o.Addr
}

// SetLogger sends the Redis client's messages to a log, at DEBUG.
func SetLogger(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements go-redis' logger. Its messages contain server addresses and no keys.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, v...), "component", "redis")
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
