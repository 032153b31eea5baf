package queue

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

	"herald/pkg/testenv"
)

// pipelines is a hook that notes the commands of all pipelines.
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

// If another version of Asynq asks in another way, this is where it shows: everything would still work, but slower.
func TestAsynqsScriptsAreKnown(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := connect(t, url)
		stop := coalesce(rdb, Speed{Coalesce: true})
		var seen pipelines
		rdb.AddHook(&seen)
		client := asynq.NewClientFromRedisClient(rdb)
		server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Queues: map[string]int{tasksQueue: 1}, LogLevel: asynq.FatalLevel})
		must(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })))
		const tasks = 20
		for range tasks {
			_, err := client.Enqueue(asynq.NewTask("x", nil), asynq.Queue(tasksQueue))
			must(t, err)
		}
		inspector := asynq.NewInspectorFromRedisClient(connect(t, url))
		testenv.Eventually(t, 20*time.Second, "all tasks run", func() bool {
			info, err := inspector.GetQueueInfo(tasksQueue)
			return err == nil && info.Processed == tasks
		})
		server.Shutdown()
		stop()
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

// Asynq's counts, which its inspector shows, come out the same at every speed.
func TestTasksAreCounted(t *testing.T) {
	eachSpeed(t, func(t *testing.T, b *bench) {
		b.put(40)
		s := b.serve(8, func(context.Context, *asynq.Task) error { return nil })
		b.empties()
		s.Stop()
		info, err := asynq.NewInspectorFromRedisClient(b.rdb).GetQueueInfo(tasksQueue)
		must(t, err)
		if info.Processed != 40 || info.ProcessedTotal != 40 || info.Failed != 0 {
			t.Errorf("%d processed today, %d in all, %d failed", info.Processed, info.ProcessedTotal, info.Failed)
		}
		day := queuePrefix(tasksQueue) + "processed:" + time.Now().UTC().Format(time.DateOnly)
		if b.rdb.TTL(t.Context(), day).Val() <= 0 {
			t.Error("the day's count stays for ever")
		}
	})
}

// ack is Asynq's command that acknowledges a task of a queue.
func ack(t *testing.T, queue, id string, most int64) *redis.Cmd {
	t.Helper()
	p := queuePrefix(queue)
	return redis.NewCmd(t.Context(), "evalsha", "hash", 5, p+"active", p+"lease", taskKey(queue, id), p+"processed:2026-01-02", p+"processed",
		id, time.Now().Add(time.Hour).Unix(), most)
}

// add is Asynq's command that enqueues one.
func add(t *testing.T, queue, id string) *redis.Cmd {
	t.Helper()
	return redis.NewCmd(t.Context(), "evalsha", "hash", 2, taskKey(queue, id), queuePrefix(queue)+"pending", "message of "+id, id, 1)
}

// Of those that run together each has its own answer, as it has alone.
func TestMergedScriptsAnswerEach(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := connect(t, url)
		c := &coalescer{rdb: rdb}
		run := func(cmds ...*redis.Cmd) {
			t.Helper()
			all := make([]redis.Cmder, len(cmds))
			for i := range cmds {
				all[i] = cmds[i]
			}
			_, err := c.run(t.Context(), all)
			must(t, err)
		}
		a, b, other := add(t, "one", "a"), add(t, "one", "b"), add(t, "two", "a")
		again := add(t, "one", "a")
		run(a, b, other, again)
		for cmd, want := range map[*redis.Cmd]int64{a: 1, b: 1, other: 1, again: 0} {
			if n, err := cmd.Int64(); err != nil || n != want {
				t.Errorf("%v: %d, %v", cmd.Args(), n, err)
			}
		}
		if got := rdb.LRange(t.Context(), queuePrefix("one")+"pending", 0, -1).Val(); len(got) != 2 || got[1] != "a" {
			t.Errorf("waiting: %v", got)
		}

		active := func(queue string, ids ...string) {
			for _, id := range ids {
				must(t, rdb.LPush(t.Context(), queuePrefix(queue)+"active", id).Err())
				must(t, rdb.ZAdd(t.Context(), queuePrefix(queue)+"lease", redis.Z{Member: id}).Err())
			}
		}
		active("one", "a", "b")
		active("two", "a")
		must(t, rdb.Set(t.Context(), queuePrefix("two")+"processed", math.MaxInt64, 0).Err())
		a, b, other = ack(t, "one", "a", math.MaxInt64), ack(t, "one", "b", math.MaxInt64), ack(t, "two", "a", math.MaxInt64)
		twice, unknown := ack(t, "one", "a", math.MaxInt64), ack(t, "one", uuid.NewString(), math.MaxInt64)
		run(a, b, other, twice, unknown)
		for cmd, want := range map[*redis.Cmd]error{a: nil, b: nil, other: nil, twice: errNotFound, unknown: errNotFound} {
			if !errors.Is(cmd.Err(), want) {
				t.Errorf("%v: %v", cmd.Args(), cmd.Err())
			}
		}
		for key, want := range map[string]string{
			queuePrefix("one") + "processed": "2", queuePrefix("one") + "processed:2026-01-02": "2",
			queuePrefix("two") + "processed": "1", // it begins anew at the end of the numbers, as Asynq's does
		} {
			if got := rdb.Get(t.Context(), key).Val(); got != want {
				t.Errorf("%s is %s, not %s", key, got, want)
			}
		}
		if left := rdb.Exists(t.Context(), queuePrefix("one")+"active", queuePrefix("one")+"lease", taskKey("one", "a"), taskKey("one", "b")).Val(); left != 0 {
			t.Errorf("%d keys are left", left)
		}

		// One that fails fails those that it ran with, and nobody else.
		must(t, rdb.Set(t.Context(), queuePrefix("two")+"pending", "no list", 0).Err())
		a, other = add(t, "one", "c"), add(t, "two", "c")
		run(a, other)
		if a.Err() != nil || other.Err() == nil {
			t.Errorf("%v, %v", a.Err(), other.Err())
		}
	})
}
