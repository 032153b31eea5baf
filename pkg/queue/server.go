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

// Again is the error of a handler whose task must run again after a time. It is not a failure and uses no retry.
type Again struct{ After time.Duration }

// Error implements error.
func (a *Again) Error() string { return fmt.Sprintf("run again in %s", a.After) }

// isFailure reports whether an error of a handler uses a retry of its task.
func isFailure(err error) bool {
	var again *Again
	return !errors.As(err, &again)
}

const (
	shutdownTimeout = 30 * time.Second // longer than any send, so that a stop interrupts none
	returnTimeout   = 5 * time.Second
	minRetryDelay   = time.Second
	maxRetryDelay   = time.Minute

	// Without prefetching a server dequeues one task at a time, which limits its rate long before the processor does. So a
	// channel type with many sends in flight gets several servers.
	tasksPerServer = 50
	maxServers     = 4
)

// Servers are the Asynq servers of a worker process: some for each channel type, so that a slow provider occupies no other
// type's handlers, and one for the control queue.
type Servers struct{ servers []*server }

// server is an Asynq server and the hooks under its connection.
type server struct {
	*asynq.Server
	hooks *asynqfast.Hooks
}

// NewServers makes the servers. rdb opens one connection for each. concurrency bounds the tasks of each type that run at once;
// inFlight bounds them further while prefetching is on, and may be nil.
func NewServers(rdb func() redis.UniversalClient, concurrency map[message.ChannelType]int, inFlight InFlight, o asynqfast.Options, log *slog.Logger) *Servers {
	s, lines := &Servers{}, newAsynqLog(log)
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
			IsFailure:                isFailure,
			RetryDelayFunc:           retryDelay,
			Logger:                   lines,
			LogLevel:                 asynq.WarnLevel,
		})
		s.servers = append(s.servers, srv)
	}
	for _, t := range message.ChannelTypes {
		n := concurrency[t]
		servers := 1
		if !o.Prefetches() {
			servers = min(max(n/tasksPerServer, 1), maxServers)
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
	d := min(minRetryDelay<<min(n, 10), maxRetryDelay)
	return d/2 + rand.N(d/2+1)
}

// Start starts all servers, or none when one fails.
func (s *Servers) Start(h asynq.Handler) error {
	for i, srv := range s.servers {
		if err := srv.Start(srv.hooks.Handler(h)); err != nil {
			for _, started := range s.servers[:i] {
				started.Shutdown()
			}
			return fmt.Errorf("start queue server: %w", err)
		}
	}
	return nil
}

// Stop stops dequeueing, returns tasks that were not started, and waits for running ones up to shutdownTimeout. The servers stop
// concurrently. Tasks that cannot be returned, because Redis does not answer, come back when their lease expires.
func (s *Servers) Stop() {
	s.each(func(srv *server) {
		srv.hooks.StopDequeue()
		srv.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), returnTimeout)
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
