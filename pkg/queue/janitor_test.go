package queue

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn/redistest"
)

// noted notes the messages that a janitor accuses.
type noted struct{ ids []uuid.UUID }

// SuspectMessages implements Suspicions.
func (n *noted) SuspectMessages(_ context.Context, ids []uuid.UUID) error {
	n.ids = append(n.ids, ids...)
	return nil
}

// Whatever lies in Redis for good is found, and what is well is left alone.
func TestJanitor(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		ctx := t.Context()
		c := NewClient(rdb, asynqfast.Options{})
		accused := &noted{}
		j, rival := NewJanitor(rdb, accused, time.Minute), NewJanitor(rdb, accused, time.Minute)
		const q = "sms.normal"
		prefix := asynqredis.Prefix(q)
		put := func() string {
			id := uuid.New()
			redistest.Must(t, c.Enqueue(ctx, message.SMS, message.Normal, []bulk.Task{{MessageID: id}}))
			return taskID(id, 0)
		}
		move := func(id, to string) {
			redistest.Must(t, rdb.LRem(ctx, prefix+"pending", 0, id).Err())
			switch to {
			case "active":
				redistest.Must(t, rdb.LPush(ctx, prefix+to, id).Err())
				redistest.Must(t, rdb.HSet(ctx, asynqredis.TaskKey(q, id), "state", to).Err())
			case "archived":
				redistest.Must(t, rdb.ZAdd(ctx, prefix+to, redis.Z{Score: 1, Member: id}).Err())
				redistest.Must(t, rdb.HSet(ctx, asynqredis.TaskKey(q, id), "state", to).Err())
			}
		}
		lease := func(id string, d time.Duration) {
			redistest.Must(t, rdb.ZAdd(ctx, prefix+"lease", redis.Z{Score: float64(time.Now().Add(d).Unix()), Member: id}).Err())
		}
		well, running, ghost, undecodable, dead, unleased, orphan, archived := put(), put(), put(), put(), put(), put(), put(), put()
		move(running, "active")
		lease(running, time.Minute)
		redistest.Must(t, rdb.Del(ctx, asynqredis.TaskKey(q, ghost)).Err())
		move(undecodable, "active")
		lease(undecodable, -time.Minute)
		redistest.Must(t, rdb.HSet(ctx, asynqredis.TaskKey(q, undecodable), "msg", "\xff\xff nonsense").Err())
		move(dead, "active")
		lease(dead, -time.Minute)
		move(unleased, "active")
		move(orphan, "nowhere")
		move(archived, "archived")
		redistest.Must(t, rdb.Del(ctx, asynqredis.Queues).Err())

		first, err := j.Clean(ctx)
		redistest.Must(t, err)
		if diff := cmp.Diff(map[string]int{FoundAbandoned: 1, FoundArchived: 1}, first); diff != "" {
			t.Errorf("at first sight: %s", diff)
		}
		if found, err := rival.Clean(ctx); err != nil || len(found) != 0 {
			t.Errorf("two janitors at once: %v, %v", found, err)
		}
		second, err := j.Clean(ctx)
		redistest.Must(t, err)
		if diff := cmp.Diff(map[string]int{FoundGhost: 1, FoundUndecodable: 1, FoundAbandoned: 1, FoundOrphan: 1}, second); diff != "" {
			t.Errorf("at second sight: %s", diff)
		}
		if third, err := j.Clean(ctx); err != nil || len(third) != 0 {
			t.Errorf("at third sight: %v, %v", third, err)
		}
		for _, id := range []string{well, running, dead, unleased} {
			m := uuid.MustParse(id[:36])
			if want := id == dead || id == unleased; slices.Contains(accused.ids, m) != want {
				t.Errorf("accused %t, want %t: only a message whose worker died is suspect", !want, want)
			}
		}
		depth, err := c.Depth(ctx, q)
		redistest.Must(t, err)
		if diff := cmp.Diff(map[string]int64{"pending": 3, "active": 1, "scheduled": 0, "retry": 0, "archived": 0}, depth); diff != "" {
			t.Errorf("left in the queue: %s", diff)
		}
		for _, id := range []string{well, running, dead, unleased} {
			if n, err := rdb.Exists(ctx, asynqredis.TaskKey(q, id)).Result(); err != nil || n != 1 {
				t.Errorf("a task that is well is gone: %v", err)
			}
		}
		if names, err := rdb.SCard(ctx, asynqredis.Queues).Result(); err != nil || int(names) != len(Names()) {
			t.Errorf("%d queues are named, %v", names, err)
		}
	})
}
