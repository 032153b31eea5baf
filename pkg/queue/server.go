package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
)

// Again asks for a task to run again after a time. It is no failure: it uses no retry.
type Again struct{ After time.Duration }

// Error implements error.
func (a *Again) Error() string { return fmt.Sprintf("run again in %s", a.After) }

const (
	shutdownTimeout = 30 * time.Second // longer than any send, so that a stop cuts none off
	giveBackTime    = 5 * time.Second
	retryLeast      = time.Second
	retryMost       = time.Minute

	// A server as it comes takes one task at a time out of Redis, which bounds its rate long before the processor does; so
	// a type with many sends in flight gets several servers, unless tasks are taken ahead.
	perServer  = 50
	maxServers = 4
)

// Servers takes tasks out of the queues: Asynq servers for each type, so that a slow provider takes no other type's
// workers, and one for the control queue.
type Servers struct{ servers []*server }

// server is an Asynq server and what stands between it and its connection.
type server struct {
	*asynq.Server
	hooks *asynqfast.Hooks
}

// NewServers makes the servers with the number of tasks that each type runs at once at most. The backlog is what keeps them
// from it; it works where tasks are taken ahead.
func NewServers(rdb func() redis.UniversalClient, concurrency map[message.ChannelType]int, inFlight InFlight, o asynqfast.Options, log *slog.Logger) *Servers {
	s := &Servers{}
	add := func(queues map[string]int, n int, l *asynqfast.InFlightLimiter) {
		conn, opts := rdb(), o
		opts.Queues, opts.InFlight = len(queues), l
		srv := &server{hooks: asynqfast.Wrap(conn, opts)}
		srv.Server = asynq.NewServerFromRedisClient(conn, asynq.Config{
			Concurrency:              n,
			Queues:                   queues,
			TaskCheckInterval:        srv.hooks.PollInterval(),
			DelayedTaskCheckInterval: time.Second,
			ShutdownTimeout:          shutdownTimeout,
			IsFailure:                func(err error) bool { var again *Again; return !errors.As(err, &again) },
			RetryDelayFunc:           retryDelay,
			Logger:                   asynqLog{log},
			LogLevel:                 asynq.WarnLevel,
		})
		s.servers = append(s.servers, srv)
	}
	for _, t := range message.ChannelTypes {
		n := concurrency[t]
		servers := 1
		if !o.Prefetches() {
			servers = min(max(n/perServer, 1), maxServers)
		}
		for i := range servers {
			add(QueuesOf(t), (n+i)/servers, inFlight[t])
		}
	}
	add(map[string]int{Control: 1}, 4, nil)
	return s
}

func retryDelay(n int, err error, _ *asynq.Task) time.Duration {
	var again *Again
	if errors.As(err, &again) {
		return again.After
	}
	d := min(retryLeast<<min(n, 10), retryMost)
	return d/2 + rand.N(d/2+1)
}

// Start begins to take tasks.
func (s *Servers) Start(h asynq.Handler) error {
	for i, srv := range s.servers {
		if err := srv.Start(srv.hooks.Handler(h)); err != nil {
			for _, started := range s.servers[:i] {
				started.Shutdown()
			}
			return fmt.Errorf("start the queue's server: %w", err)
		}
	}
	return nil
}

// Stop takes no more tasks, gives back those that are not begun, and waits for those under way. The servers stop beside
// each other. What cannot be given back, because Redis does
// not answer, comes back by itself when its lease ends.
func (s *Servers) Stop() {
	s.each(func(srv *server) {
		srv.hooks.StopDequeue()
		srv.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), giveBackTime)
		defer cancel()
		_ = srv.hooks.ReturnTasks(ctx)
	})
	s.each(func(srv *server) {
		srv.Shutdown()
		srv.hooks.Close()
	})
}

func (s *Servers) each(do func(*server)) {
	var wg sync.WaitGroup
	for _, srv := range s.servers {
		wg.Go(func() { do(srv) })
	}
	wg.Wait()
}

// asynqLog hands Asynq's own messages to slog. They name queues and task ids, which hold no personal data.
type asynqLog struct{ log *slog.Logger }

func (l asynqLog) at(level slog.Level, args []any) {
	l.log.Log(context.Background(), level, "asynq", "msg", fmt.Sprint(args...))
}
func (l asynqLog) Debug(args ...any) { l.at(slog.LevelDebug, args) }
func (l asynqLog) Info(args ...any)  { l.at(slog.LevelDebug, args) }
func (l asynqLog) Warn(args ...any)  { l.at(slog.LevelWarn, args) }
func (l asynqLog) Error(args ...any) { l.at(slog.LevelError, args) }

// Fatal is called by Asynq when it cannot go on; the process is left to its supervisor's health check instead.
func (l asynqLog) Fatal(args ...any) { l.at(slog.LevelError, args) }
