package queue

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/redisconn"
	"herald/pkg/testenv"
)

var benchSpeeds = []struct {
	name  string
	speed asynqfast.Options
}{{"plain", asynqfast.Options{}}, {"fast", asynqfast.Options{Enabled: true, Prefetch: 100}}}

func benchRedis(b *testing.B) func() redis.UniversalClient {
	b.Helper()
	url := testenv.Redis(b, testenv.RedisServer)
	return func() redis.UniversalClient {
		rdb, err := redisconn.Connect(url, 64)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
}

func newTasks(n int) []bulk.Task {
	tasks := make([]bulk.Task, n)
	for i := range tasks {
		tasks[i].MessageID = uuid.Must(uuid.NewV7())
	}
	return tasks
}

func BenchmarkEnqueue(b *testing.B) {
	for _, s := range benchSpeeds {
		b.Run(s.name, func(b *testing.B) {
			c := NewClient(benchRedis(b)(), s.speed)
			defer c.Close()
			tasks := newTasks(b.N)
			b.ResetTimer()
			if err := c.Enqueue(context.Background(), message.Email, message.Normal, tasks); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// BenchmarkProcess measures dequeue, run and acknowledgement of a task whose handler does nothing.
func BenchmarkProcess(b *testing.B) {
	for _, s := range benchSpeeds {
		b.Run(s.name, func(b *testing.B) {
			connect := benchRedis(b)
			c := NewClient(connect(), asynqfast.Options{Enabled: true})
			defer c.Close()
			if err := c.Enqueue(context.Background(), message.Email, message.Normal, newTasks(b.N)); err != nil {
				b.Fatal(err)
			}
			var done atomic.Int64
			all := make(chan struct{})
			servers := NewServers(connect, map[message.ChannelType]int{message.Email: 500, message.SMS: 1, message.InstagramDM: 1}, nil, s.speed, slog.New(slog.DiscardHandler))
			b.ResetTimer()
			err := servers.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
				if done.Add(1) == int64(b.N) {
					close(all)
				}
				return nil
			}))
			if err != nil {
				b.Fatal(err)
			}
			<-all
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			b.StopTimer()
			servers.Stop()
		})
	}
}
