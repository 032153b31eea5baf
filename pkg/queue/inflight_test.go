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

// While a worker's hands are full it begins nothing; what its provider has in hand makes room; and a full worker stops.
func TestNoMoreAreBegunThanThereIsRoomFor(t *testing.T) {
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
		testenv.Eventually(t, 20*time.Second, "the hands are full", func() bool { return begun.Load() == room })
		b.put(tasks - room)
		const released = tasks / 2
		for n := int32(1); n <= released; n++ {
			sent <- struct{}{}
			testenv.Eventually(t, 20*time.Second, "another one is begun", func() bool { return begun.Load() >= room+n })
			if got := begun.Load(); got > room+n {
				t.Fatalf("%d are begun where there is room for %d", got, room+n)
			}
		}

		stopped := make(chan struct{})
		go func() {
			s.Stop()
			close(stopped)
		}()
		testenv.Eventually(t, 20*time.Second, "what is not begun is given back", func() bool { return len(b.pending()) == tasks-int(begun.Load()) })
		close(sent)
		close(answered)
		<-stopped
		if n := begun.Load(); n > room+released {
			t.Errorf("%d were begun", n)
		}
		rest := b.serve(10, func(context.Context, *asynq.Task) error { return nil })
		b.empties()
		rest.Stop()
	})
}
