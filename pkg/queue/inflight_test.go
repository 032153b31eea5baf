package queue

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// A worker starts no task while all slots are in use; a message that waits for its provider frees its slot; a full worker stops.
func TestTasksInFlightAreLimited(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		speed := asynqfast.Options{Enabled: true, Prefetch: 20}
		b := &bench{t: t, rdb: redistest.Connect(t, url), client: NewClient(redistest.Connect(t, url), speed), speed: speed, url: url}
		t.Cleanup(b.client.Close)
		const room, tasks = 3, 60
		inFlight := newInFlight(room)
		var begun atomic.Int32
		sent, answered := make(chan struct{}), make(chan struct{})
		s := b.serveWith(tasks, inFlight, func(context.Context, *asynq.Task) error {
			begun.Add(1)
			<-sent
			inFlight.Release(message.Email)
			<-answered
			inFlight.Acquire(message.Email)
			return nil
		})
		b.put(room)
		testenv.Eventually(t, 20*time.Second, "all slots are in use", func() bool { return begun.Load() == room })
		b.put(tasks - room)
		const released = tasks / 2
		for n := int32(1); n <= released; n++ {
			sent <- struct{}{}
			testenv.Eventually(t, 20*time.Second, "another task starts", func() bool { return begun.Load() >= room+n })
			if got := begun.Load(); got > room+n {
				t.Fatalf("%d tasks were started with %d slots", got, room+n)
			}
		}

		stopped := make(chan struct{})
		go func() {
			s.Stop()
			close(stopped)
		}()
		testenv.Eventually(t, 20*time.Second, "tasks that were not started are returned", func() bool { return len(b.pending()) == tasks-int(begun.Load()) })
		close(sent)
		close(answered)
		<-stopped
		if n := begun.Load(); n > room+released {
			t.Errorf("%d tasks were started", n)
		}
		rest := b.serve(10, func(context.Context, *asynq.Task) error { return nil })
		b.empties()
		rest.Stop()
	})
}
