// Package queue is Asynq and Redis: the tasks that ask a worker to look at a message, the counters of running bulks,
// the channels' rates, and who is there to work. Nothing here is the only place of anything: all of Redis may be lost
// at any moment, and the database makes it anew. Tasks carry ids only, so no personal data gets here.
package queue

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

// Connect makes a client with its own pool of connections. Whether the server answers shows at the first command.
func Connect(redisURL string, poolSize int) (redis.UniversalClient, error) {
	u, err := url.Parse(redisURL)
	if err != nil {
		return nil, errors.New("REDIS_URL is not a URL")
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" {
		return nil, fmt.Errorf("REDIS_URL: %s:// is not supported yet; use redis:// or rediss://", u.Scheme)
	}
	o, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, errors.New("REDIS_URL is not a Redis URL")
	}
	o.PoolSize = poolSize
	o.ContextTimeoutEnabled = true       // off by default: a command would outlive the context of its caller
	o.DialerRetries, o.MaxRetries = 1, 2 // commands are tried again by those who know how long they may wait
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = 2*time.Second, 5*time.Second, 5*time.Second, 5*time.Second
	return redis.NewClient(o), nil
}

// SetLogger makes what the Redis client has to say part of a program's log.
func SetLogger(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger. Its words name addresses of servers and no keys.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis", "msg", fmt.Sprintf(format, v...))
}

// fail names what was being done; a Redis that does not answer is unavailable to the caller.
func fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return message.Unavailable("the queue", fmt.Errorf("%s: %w", doing, err))
}
