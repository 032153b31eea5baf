package queue

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"

	"herald/pkg/message"
	"herald/pkg/testenv"
)

// While a worker's hands are full it begins nothing; what its provider has in hand makes room; and a full worker stops.
func TestNoMoreAreBegunThanThereIsRoomFor(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		speed := Speed{Coalesce: true, Prefetch: 20}
		b := &bench{t: t, rdb: connect(t, url), client: NewClient(connect(t, url), speed), speed: speed, url: url}
		t.Cleanup(b.client.Close)
		const room, tasks = 3, 60
		backlog := newBacklog(room)
		var begun atomic.Int32
		sent, answered := make(chan struct{}), make(chan struct{})
		s := b.serveWith(tasks, backlog, func(context.Context, *asynq.Task) error {
			begun.Add(1)
			<-sent
			backlog.Away(message.Email)
			<-answered
			backlog.Back(message.Email)
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

// What was given out and never comes to a handler takes no place for good.
func TestATaskThatDoesNotComeLosesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 2
		h := newBacklog(room)[message.Email]
		for range room {
			if !h.wait() {
				t.Fatal("there is no room")
			}
			h.given()
		}
		began := time.Now()
		if !h.wait() || time.Since(began) != arrival {
			t.Errorf("waited %s for tasks that do not come, want %s", time.Since(began), arrival)
		}
		h.given()
		h.begin()
		h.given() // this one does not come either, while the other is in hand
		h.empty()
		if h.held != 1 || h.coming != 1 {
			t.Errorf("%d in hand, %d coming: nobody knows yet that it does not", h.held, h.coming)
		}
		h.add(-1)
		h.empty()
		if h.held != 0 || h.coming != 0 {
			t.Errorf("%d in hand, %d coming, after all are done", h.held, h.coming)
		}
	})
}
