package asynqfast

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

const tasksQueue = "email.normal"

// pipelines is a hook that records the commands of all pipelines.
type pipelines struct {
	mu   sync.Mutex
	cmds []redis.Cmder
}

func (p *pipelines) DialHook(next redis.DialHook) redis.DialHook          { return passDial(next) }
func (p *pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		p.mu.Lock()
		p.cmds = append(p.cmds, cmds...)
		p.mu.Unlock()
		return next(ctx, cmds)
	}
}

// This fails when a new version of Asynq calls its scripts in another form: everything would still work, but slower.
func TestAsynqsScriptsAreKnown(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := redistest.Connect(t, url)
		hooks := Wrap(rdb, Options{Enabled: true})
		var seen pipelines
		rdb.AddHook(&seen)
		client := asynq.NewClientFromRedisClient(rdb)
		server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Queues: map[string]int{tasksQueue: 1}, LogLevel: asynq.FatalLevel})
		redistest.Must(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })))
		const tasks = 20
		for range tasks {
			_, err := client.Enqueue(asynq.NewTask("x", nil), asynq.Queue(tasksQueue))
			redistest.Must(t, err)
		}
		inspector := asynq.NewInspectorFromRedisClient(redistest.Connect(t, url))
		testenv.Eventually(t, 20*time.Second, "all tasks run", func() bool {
			info, err := inspector.GetQueueInfo(tasksQueue)
			return err == nil && info.Processed == tasks
		})
		server.Shutdown()
		hooks.Close()
		merged := 0
		for _, cmd := range seen.cmds {
			if cmd.Name() == "eval" {
				merged++
				continue
			}
			for _, arg := range cmd.Args() {
				// Taking a task, which has the prefix of all hashes among its arguments, is the prefetcher's.
				if key, _ := arg.(string); strings.Contains(key, keyTask) && !strings.HasSuffix(key, keyTask) {
					t.Errorf("a script for one task is not known: %v", cmd)
				}
			}
		}
		if merged == 0 || merged > 2*tasks {
			t.Errorf("%d merged scripts for %d tasks", merged, tasks)
		}
	})
}

// ack is Asynq's command that acknowledges a task of a queue.
func ack(t *testing.T, queue, id string, most int64) *redis.Cmd {
	t.Helper()
	p := asynqredis.Prefix(queue)
	return redis.NewCmd(t.Context(), "evalsha", "hash", 5, p+"active", p+"lease", asynqredis.TaskKey(queue, id), p+"processed:2026-01-02", p+"processed",
		id, time.Now().Add(time.Hour).Unix(), most)
}

// add is Asynq's command that enqueues one.
func add(t *testing.T, queue, id string) *redis.Cmd {
	t.Helper()
	return redis.NewCmd(t.Context(), "evalsha", "hash", 2, asynqredis.TaskKey(queue, id), asynqredis.Prefix(queue)+"pending", "message of "+id, id, 1)
}

// Each merged command gets the answer that it would get alone.
func TestMergedScriptsAnswerEach(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := redistest.Connect(t, url)
		c := &coalescer{rdb: rdb}
		run := func(cmds ...*redis.Cmd) {
			t.Helper()
			all := make([]redis.Cmder, len(cmds))
			for i := range cmds {
				all[i] = cmds[i]
			}
			_, err := c.run(t.Context(), all)
			redistest.Must(t, err)
		}
		a, b, other := add(t, "one", "a"), add(t, "one", "b"), add(t, "two", "a")
		again := add(t, "one", "a")
		run(a, b, other, again)
		for cmd, want := range map[*redis.Cmd]int64{a: 1, b: 1, other: 1, again: 0} {
			if n, err := cmd.Int64(); err != nil || n != want {
				t.Errorf("%v: %d, %v", cmd.Args(), n, err)
			}
		}
		if got := rdb.LRange(t.Context(), asynqredis.Prefix("one")+"pending", 0, -1).Val(); len(got) != 2 || got[1] != "a" {
			t.Errorf("waiting: %v", got)
		}

		active := func(queue string, ids ...string) {
			for _, id := range ids {
				redistest.Must(t, rdb.LPush(t.Context(), asynqredis.Prefix(queue)+"active", id).Err())
				redistest.Must(t, rdb.ZAdd(t.Context(), asynqredis.Prefix(queue)+"lease", redis.Z{Member: id}).Err())
			}
		}
		active("one", "a", "b")
		active("two", "a")
		redistest.Must(t, rdb.Set(t.Context(), asynqredis.Prefix("two")+"processed", math.MaxInt64, 0).Err())
		a, b, other = ack(t, "one", "a", math.MaxInt64), ack(t, "one", "b", math.MaxInt64), ack(t, "two", "a", math.MaxInt64)
		twice, unknown := ack(t, "one", "a", math.MaxInt64), ack(t, "one", uuid.NewString(), math.MaxInt64)
		run(a, b, other, twice, unknown)
		for cmd, want := range map[*redis.Cmd]error{a: nil, b: nil, other: nil, twice: errNotFound, unknown: errNotFound} {
			if !errors.Is(cmd.Err(), want) {
				t.Errorf("%v: %v", cmd.Args(), cmd.Err())
			}
		}
		for key, want := range map[string]string{
			asynqredis.Prefix("one") + "processed": "2", asynqredis.Prefix("one") + "processed:2026-01-02": "2",
			asynqredis.Prefix("two") + "processed": "1", // it starts again after the greatest number, as Asynq's does
		} {
			if got := rdb.Get(t.Context(), key).Val(); got != want {
				t.Errorf("%s is %s, not %s", key, got, want)
			}
		}
		if left := rdb.Exists(t.Context(), asynqredis.Prefix("one")+"active", asynqredis.Prefix("one")+"lease", asynqredis.TaskKey("one", "a"), asynqredis.TaskKey("one", "b")).Val(); left != 0 {
			t.Errorf("%d keys are left", left)
		}

		// A failed script fails the commands that it merged, and no others.
		redistest.Must(t, rdb.Set(t.Context(), asynqredis.Prefix("two")+"pending", "no list", 0).Err())
		a, other = add(t, "one", "c"), add(t, "two", "c")
		run(a, other)
		if a.Err() != nil || other.Err() == nil {
			t.Errorf("%v, %v", a.Err(), other.Err())
		}
	})
}
