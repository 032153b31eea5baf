package queue

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// speeds are Asynq without hooks, without prefetching, and with everything. All pass the same tests.
var speeds = map[string]asynqfast.Options{
	"off": {Prefetch: 20}, "one at a time": {Enabled: true, Prefetch: 1}, "fast": {Enabled: true, Prefetch: 20},
}

const tasksQueue = "email.normal"

// bench is a queue with a client and servers.
type bench struct {
	t      *testing.T
	rdb    redis.UniversalClient // for checks, not under test
	client *Client
	speed  asynqfast.Options
	url    string
}

// eachSpeed runs a test on every Redis at every speed.
func eachSpeed(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	for name, speed := range speeds {
		t.Run(name, func(t *testing.T) {
			testenv.EachRedis(t, func(t *testing.T, url string) {
				c := NewClient(redistest.Connect(t, url), speed)
				t.Cleanup(c.Close)
				test(t, &bench{t: t, rdb: redistest.Connect(t, url), client: c, speed: speed, url: url})
			})
		})
	}
}

// put enqueues tasks one after the other and returns their ids.
func (b *bench) put(n int) []uuid.UUID {
	b.t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
		redistest.Must(b.t, b.client.Enqueue(b.t.Context(), message.Email, message.Normal, []bulk.Task{{MessageID: ids[i]}}))
	}
	return ids
}

// serve starts servers with a concurrency for e-mails.
func (b *bench) serve(n int, h asynq.HandlerFunc) *Servers {
	b.t.Helper()
	return b.serveWith(n, nil, h)
}

// serveWith is serve with limits of messages in flight.
func (b *bench) serveWith(n int, inFlight InFlight, h asynq.HandlerFunc) *Servers {
	b.t.Helper()
	s := NewServers(func() redis.UniversalClient { return redistest.Connect(b.t, b.url) },
		map[message.ChannelType]int{message.Email: n, message.SMS: 1, message.InstagramDM: 1}, inFlight, b.speed, slog.New(slog.DiscardHandler))
	redistest.Must(b.t, s.Start(h))
	return s
}

// pending returns the ids of pending tasks, the next to be dequeued first.
func (b *bench) pending() []string {
	b.t.Helper()
	ids, err := b.rdb.LRange(context.Background(), asynqredis.Prefix(tasksQueue)+"pending", 0, -1).Result()
	redistest.Must(b.t, err)
	slices.Reverse(ids)
	return ids
}

// left counts the tasks in Redis, in every list, set and hash.
func (b *bench) left() int64 {
	b.t.Helper()
	ctx := context.Background()
	keys, err := b.rdb.Keys(ctx, asynqredis.TaskKey(tasksQueue, "*")).Result()
	redistest.Must(b.t, err)
	n := int64(len(keys)) + b.rdb.ZCard(ctx, asynqredis.Prefix(tasksQueue)+"lease").Val()
	depth, err := b.client.Depth(ctx, tasksQueue)
	redistest.Must(b.t, err)
	for _, d := range depth {
		n += d
	}
	return n
}

func (b *bench) empties() {
	b.t.Helper()
	testenv.Eventually(b.t, 30*time.Second, "nothing is left in Redis", func() bool { return b.left() == 0 })
}

// record is a handler that records its tasks in order.
type record struct {
	mu   sync.Mutex
	seen []uuid.UUID
}

func (r *record) note(task *asynq.Task) uuid.UUID {
	id, _ := ParsePayload(task.Payload())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, id)
	return id
}

func (r *record) all() []uuid.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

func TestTasksRunInTheirOrderAndLeaveNothing(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		ids := b.put(150)
		var r record
		s := b.serve(1, func(_ context.Context, task *asynq.Task) error { r.note(task); return nil })
		testenv.Eventually(t, 30*time.Second, "all tasks run", func() bool { return len(r.all()) == len(ids) })
		b.empties()
		s.Stop()
		if !slices.Equal(r.all(), ids) {
			t.Error("they ran in another order")
		}
	})
}

func TestTasksThatFailComeBack(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		ids := b.put(30)
		var mu sync.Mutex
		tries := map[uuid.UUID]int{}
		s := b.serve(10, func(_ context.Context, task *asynq.Task) error {
			id, _ := ParsePayload(task.Payload())
			mu.Lock()
			defer mu.Unlock()
			if tries[id]++; tries[id] == 1 {
				return &Again{After: time.Millisecond}
			}
			return nil
		})
		b.empties()
		s.Stop()
		for _, id := range ids {
			if tries[id] != 2 {
				t.Errorf("a task ran %d times", tries[id])
			}
		}
	})
}

// A server that stops waits for running tasks and returns the tasks that it has taken and not started, in order.
func TestAStopGivesBackWhatIsNotBegun(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		ids := b.put(200)
		var r record
		hold, begun := make(chan struct{}), make(chan struct{}, len(ids))
		s := b.serve(1, func(_ context.Context, task *asynq.Task) error {
			if r.note(task); len(r.all()) > 60 {
				begun <- struct{}{}
				<-hold
			}
			return nil
		})
		<-begun
		stopped := make(chan struct{})
		go func() {
			s.Stop()
			close(stopped)
		}()
		testenv.Eventually(t, 20*time.Second, "all but the running one wait again", func() bool { return len(b.pending()) >= len(ids)-len(r.all()) })
		close(hold)
		<-stopped
		ran := r.all()
		want := make([]string, 0, len(ids))
		for _, id := range ids[len(ran):] {
			want = append(want, taskID(id, 0))
		}
		if !slices.Equal(ran, ids[:len(ran)]) || !slices.Equal(b.pending(), want) {
			t.Errorf("%d ran, %d wait; or their order is another", len(ran), len(b.pending()))
		}
		if depth, err := b.client.Depth(context.Background(), tasksQueue); err != nil || depth["active"] != 0 || b.rdb.ZCard(context.Background(), asynqredis.Prefix(tasksQueue)+"lease").Val() != 0 {
			t.Errorf("%v, %v: something is still leased", depth, err)
		}
		again := b.serve(10, func(_ context.Context, task *asynq.Task) error { r.note(task); return nil })
		b.empties()
		again.Stop()
		if len(r.all()) != len(ids) {
			t.Errorf("%d of %d ran in the end", len(r.all()), len(ids))
		}
	})
}

// Every task that a server has taken is leased, started or not, so that it comes back when the server dies.
func TestWhatIsTakenIsLeased(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		const n = 100
		b.put(n)
		var running atomic.Int64
		hold := make(chan struct{})
		s := b.serve(5, func(context.Context, *asynq.Task) error {
			running.Add(1)
			<-hold
			return nil
		})
		testenv.Eventually(t, 20*time.Second, "the server is busy", func() bool { return running.Load() == 5 })
		prefix := asynqredis.Prefix(tasksQueue)
		active, err := b.rdb.LRange(t.Context(), prefix+"active", 0, -1).Result()
		redistest.Must(t, err)
		for _, id := range active {
			end, err := b.rdb.ZScore(t.Context(), prefix+"lease", id).Result()
			if err != nil || time.Until(time.Unix(int64(end), 0)) < 20*time.Second {
				t.Errorf("an active task's lease: %v, %v", end, err)
			}
			if state := b.rdb.HGet(t.Context(), asynqredis.TaskKey(tasksQueue, id), "state").Val(); state != "active" {
				t.Errorf("its state is %q", state)
			}
		}
		if most := 5 + max(b.speed.Prefetch, 0); len(active) < 5 || len(active) > most {
			t.Errorf("%d tasks are taken, at most %d may be", len(active), most)
		}
		close(hold)
		b.empties()
		s.Stop()
	})
}

// A queue that is paused in Redis gives out no more tasks than a server had taken.
func TestAPausedQueueGivesOutNothing(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		inspector := asynq.NewInspectorFromRedisClient(b.rdb)
		b.put(50)
		redistest.Must(t, inspector.PauseQueue(tasksQueue))
		var r record
		s := b.serve(5, func(_ context.Context, task *asynq.Task) error { r.note(task); return nil })
		// The server polls its other queues less often, and their tasks run.
		low := make([]bulk.Task, 10)
		for i := range low {
			low[i].MessageID = uuid.New()
		}
		redistest.Must(t, b.client.Enqueue(t.Context(), message.Email, message.Low, low))
		testenv.Eventually(t, 30*time.Second, "the other queue's tasks run", func() bool { return len(r.all()) >= len(low) })
		if n := len(r.all()); n != len(low) {
			t.Errorf("%d tasks of a paused queue ran", n-len(low))
		}
		redistest.Must(t, inspector.UnpauseQueue(tasksQueue))
		b.empties()
		s.Stop()
		if n := len(r.all()); n != 50+len(low) {
			t.Errorf("%d tasks ran", n)
		}
	})
}

// After Redis lost everything, scripts included, new tasks run.
func TestTasksRunAfterALoss(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		var r record
		s := b.serve(5, func(_ context.Context, task *asynq.Task) error { r.note(task); return nil })
		b.put(20)
		b.empties()
		redistest.Must(t, b.rdb.FlushAll(t.Context()).Err())
		_ = b.rdb.ScriptFlush(t.Context()).Err() // the in-memory Redis loses them with the rest
		b.put(20)
		testenv.Eventually(t, 30*time.Second, "they run", func() bool { return len(r.all()) == 40 })
		b.empties()
		s.Stop()
	})
}

// Asynq's counts, which its inspector shows, are the same at every speed.
func TestTasksAreCounted(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		b.put(40)
		s := b.serve(8, func(context.Context, *asynq.Task) error { return nil })
		b.empties()
		s.Stop()
		info, err := asynq.NewInspectorFromRedisClient(b.rdb).GetQueueInfo(tasksQueue)
		redistest.Must(t, err)
		if info.Processed != 40 || info.ProcessedTotal != 40 || info.Failed != 0 {
			t.Errorf("%d processed today, %d in all, %d failed", info.Processed, info.ProcessedTotal, info.Failed)
		}
		day := asynqredis.Prefix(tasksQueue) + "processed:" + time.Now().UTC().Format(time.DateOnly)
		if b.rdb.TTL(t.Context(), day).Val() <= 0 {
			t.Error("the day's count stays for ever")
		}
	})
}
