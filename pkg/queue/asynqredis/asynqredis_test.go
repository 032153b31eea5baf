package asynqredis

import (
	"slices"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/redisconn/redistest"
)

func TestTaskKeysSplit(t *testing.T) {
	for key, want := range map[string][2]string{
		TaskKey("sms.high", "a:0"):     {"sms.high", "a:0"},
		"asynq:{control}:t:wake:}:t:x": {"control", "wake:}:t:x"},
		"asynq:{sms.high}:pending":     {},
		"herald:{sms.high}:t:a":        {},
		"asynq:sms.high:t:a":           {},
	} {
		queue, id, ok := SplitTaskKey(key)
		if ok != (want[0] != "") || (ok && (queue != want[0] || id != want[1])) {
			t.Errorf("%s: %q %q %t", key, queue, id, ok)
		}
	}
}

// TestKeysMatchAsynq holds the names of this package to what Asynq writes.
func TestKeysMatchAsynq(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		client := asynq.NewClientFromRedisClient(rdb)
		for _, id := range []string{"a", "b"} {
			_, err := client.Enqueue(asynq.NewTask("x", nil), asynq.Queue("q"), asynq.TaskID(id))
			redistest.Must(t, err)
		}
		redistest.Must(t, asynq.NewInspectorFromRedisClient(rdb).PauseQueue("q"))
		redistest.Must(t, asynq.NewInspectorFromRedisClient(rdb).ArchiveTask("q", "b"))
		keys := rdb.Keys(t.Context(), "*").Val()
		slices.Sort(keys)
		want := []string{Queues, Prefix("q") + Archived, Prefix("q") + Paused, Prefix("q") + Pending, TaskKey("q", "a"), TaskKey("q", "b")}
		slices.Sort(want)
		if !slices.Equal(keys, want) {
			t.Errorf("Asynq wrote %v, want %v", keys, want)
		}
		found, _, err := rdb.Scan(t.Context(), 0, TaskPattern, 100).Result()
		if slices.Sort(found); err != nil || !slices.Equal(found, []string{TaskKey("q", "a"), TaskKey("q", "b")}) {
			t.Errorf("tasks: %v, %v", found, err)
		}
	})
}

// A task that is given back is taken next.
func TestRequeuedTasksAreTakenFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		client := asynq.NewClientFromRedisClient(rdb)
		for _, id := range []string{"a", "b"} {
			_, err := client.Enqueue(asynq.NewTask("x", nil), asynq.Queue("q"), asynq.TaskID(id))
			redistest.Must(t, err)
		}
		keys := []string{Prefix("q") + Pending, Prefix("q") + Paused, Prefix("q") + "active", Prefix("q") + "lease"}
		take := func() string {
			t.Helper()
			out, err := Dequeue.Run(t.Context(), rdb, keys, 1, TaskKey("q", ""), 1).StringSlice()
			redistest.Must(t, err)
			return out[0]
		}
		if got := take(); got != "a" {
			t.Fatalf("took %s", got)
		}
		if n, err := Requeue.Run(t.Context(), rdb, []string{TaskKey("q", "a")}, Prefix("q"), "a", 1).Int(); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if got := take(); got != "a" {
			t.Errorf("took %s after a was given back", got)
		}
	})
}

// A task that is done leaves nothing behind, so that its id can be used again.
func TestAckedTasksLeaveNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		client := asynq.NewClientFromRedisClient(rdb)
		_, err := client.Enqueue(asynq.NewTask("x", nil), asynq.Queue("q"), asynq.TaskID("a"))
		redistest.Must(t, err)
		active, lease := Prefix("q")+"active", Prefix("q")+"lease"
		_, err = Dequeue.Run(t.Context(), rdb, []string{Prefix("q") + Pending, Prefix("q") + Paused, active, lease}, 1, TaskKey("q", ""), 1).Result()
		redistest.Must(t, err)
		done, err := rdb.Eval(t.Context(), Ack, []string{active, lease, Prefix("q") + "day", Prefix("q") + "all", TaskKey("q", "a")}, "a", 1<<40, 1<<40).Int64Slice()
		redistest.Must(t, err)
		if !slices.Equal(done, []int64{1}) || rdb.Exists(t.Context(), TaskKey("q", "a"), active, lease).Val() != 0 {
			t.Errorf("%v, keys %v", done, rdb.Keys(t.Context(), "*").Val())
		}
	})
}

// Requeue changes active tasks only.
func TestRequeueOfATaskThatIsNotActive(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		n, err := Requeue.Run(t.Context(), rdb, []string{TaskKey("q", "a")}, Prefix("q"), "a", 1).Int()
		if n != 0 || err != nil || rdb.Exists(t.Context(), TaskKey("q", "a"), Prefix("q")+Pending).Val() != 0 {
			t.Errorf("%d, %v: a task was made", n, err)
		}
	})
}
