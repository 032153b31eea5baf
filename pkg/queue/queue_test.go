package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// The record of a running worker expires when its process dies.
func TestFaultPresenceNeverStaysForGood(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		p := NewPresence(rdb)
		p.Start()
		defer p.Stop()
		if ttl := rdb.PTTL(t.Context(), workersKey).Val(); ttl <= 0 || ttl > presenceTTL {
			t.Errorf("expires in %s", ttl)
		}
	})
}

func TestEnqueueingTwiceChangesNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewClient(rdb, asynqfast.Options{})
		ctx := t.Context()
		var tasks []bulk.Task
		for range 150 {
			tasks = append(tasks, bulk.Task{MessageID: uuid.New()})
		}
		for range 2 {
			redistest.Must(t, c.Enqueue(ctx, message.Email, message.Low, tasks))
		}
		m := &message.Message{ID: uuid.New(), ChannelType: message.SMS, Priority: message.High}
		for range 2 {
			redistest.Must(t, c.Later(ctx, m, time.Hour))
		}
		for queue, want := range map[string]map[string]int64{
			"email.low":  {"pending": 150, "active": 0, "scheduled": 0, "retry": 0, "archived": 0},
			"sms.single": {"pending": 0, "active": 0, "scheduled": 1, "retry": 0, "archived": 0},
		} {
			got, err := c.Depth(ctx, queue)
			redistest.Must(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", queue, d)
			}
		}
	})
}

// Each generation of a message has a task, so a task of an earlier one does not keep a later one out.
func TestGenerationsHaveTheirTasks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewClient(rdb, asynqfast.Options{})
		id := uuid.New()
		for generation := range 4 {
			redistest.Must(t, c.Later(t.Context(), &message.Message{ID: id, Generation: generation, ChannelType: message.SMS, Priority: message.High}, time.Hour))
		}
		depth, err := c.Depth(t.Context(), "sms.single")
		redistest.Must(t, err)
		if depth["scheduled"] != 4 {
			t.Errorf("%v", depth)
		}
	})
}

func TestPresence(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewClient(rdb, asynqfast.Options{})
		a, b := NewPresence(rdb), NewPresence(rdb)
		a.Start()
		b.Start()
		if n, err := c.Workers(t.Context()); n != 2 || err != nil {
			t.Errorf("%d workers, %v", n, err)
		}
		b.Stop()
		if n, err := c.Workers(t.Context()); n != 1 || err != nil {
			t.Errorf("%d workers after one left, %v", n, err)
		}
		a.Stop()
	})
}

// handler records its tasks and returns the errors that the test sets.
type handler struct {
	mu     sync.Mutex
	seen   map[uuid.UUID]int
	answer func(n int) error
}

func (h *handler) ProcessTask(_ context.Context, task *asynq.Task) error {
	id, err := ParsePayload(task.Payload())
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.seen[id]++
	n := h.seen[id]
	h.mu.Unlock()
	return h.answer(n)
}

func (h *handler) count(id uuid.UUID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[id]
}

func TestServersRunTasksAndTasksThatComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, url string) {
		client := NewClient(rdb, asynqfast.Options{})
		again := uuid.New()
		h := &handler{seen: map[uuid.UUID]int{}}
		h.answer = func(n int) error {
			if n == 1 {
				return &Again{After: time.Millisecond}
			}
			return nil
		}
		s := NewServers(func() redis.UniversalClient { return redistest.Connect(t, url) },
			map[message.ChannelType]int{message.Email: 100, message.SMS: 2, message.InstagramDM: 2}, nil, asynqfast.Options{}, slog.New(slog.DiscardHandler))
		redistest.Must(t, s.Start(h))
		redistest.Must(t, client.Enqueue(t.Context(), message.Email, message.Normal, []bulk.Task{{MessageID: again}}))
		redistest.Must(t, client.Wake(t.Context(), again))
		testenv.Eventually(t, 20*time.Second, "a task that asked for it runs again", func() bool { return h.count(again) >= 2 })
		s.Stop()
		depth, err := client.Depth(context.Background(), "email.normal")
		redistest.Must(t, err)
		if depth["archived"] != 0 {
			t.Errorf("archived tasks: %v", depth)
		}
	})
}

func TestPayloadsAreChecked(t *testing.T) {
	for _, p := range []string{"", "{}", "nonsense", "0190a000-0000-7000-8000-00000000000g", "00000000-0000-0000-0000-000000000000"} {
		if _, err := ParsePayload([]byte(p)); err == nil {
			t.Errorf("%q passes", p)
		}
	}
}

func TestUnavailableIsSaid(t *testing.T) {
	c := NewClient(redistest.Connect(t, redistest.Nowhere(t)), asynqfast.Options{})
	err := c.Ping(t.Context())
	if !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("ping without Redis: %v", err)
	}
	var again *Again
	if errors.As(err, &again) {
		t.Error("a failure is no request to run again")
	}
}
