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

// noted records suspects.
type noted struct{ ids []uuid.UUID }

// SuspectMessages implements Suspicions.
func (n *noted) SuspectMessages(_ context.Context, ids []uuid.UUID) error {
	n.ids = append(n.ids, ids...)
	return nil
}

// Every kind of orphaned state is repaired. Intact tasks stay as they are.
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
			t.Errorf("first round: %s", diff)
		}
		if found, err := rival.Clean(ctx); err != nil || len(found) != 0 {
			t.Errorf("a second janitor: %v, %v", found, err)
		}
		second, err := j.Clean(ctx)
		redistest.Must(t, err)
		if diff := cmp.Diff(map[string]int{FoundGhost: 1, FoundUndecodable: 1, FoundAbandoned: 1, FoundOrphan: 1}, second); diff != "" {
			t.Errorf("second round: %s", diff)
		}
		if third, err := j.Clean(ctx); err != nil || len(third) != 0 {
			t.Errorf("third round: %v, %v", third, err)
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
				t.Errorf("an intact task was removed: %v", err)
			}
		}
		if names, err := rdb.SCard(ctx, asynqredis.Queues).Result(); err != nil || int(names) != len(Names()) {
			t.Errorf("%d queues are named, %v", names, err)
		}
	})
}

// active makes a task that a worker took, with a lease that ended some time ago.
func active(t *testing.T, rdb redis.UniversalClient, queue string, ago time.Duration) (messageID uuid.UUID, id string) {
	t.Helper()
	messageID = uuid.New()
	id = taskID(messageID, 3)
	c := NewClient(rdb, asynqfast.Options{})
	redistest.Must(t, c.put(t.Context(), TaskDeliver, queue, id, messageID))
	p := asynqredis.Prefix(queue)
	redistest.Must(t, rdb.LMove(t.Context(), p+"pending", p+"active", "RIGHT", "LEFT").Err())
	redistest.Must(t, rdb.ZAdd(t.Context(), p+"lease", redis.Z{Score: float64(time.Now().Add(-ago).Unix()), Member: id}).Err())
	return messageID, id
}

// A task counts as abandoned when its lease ended more than leaseGrace ago. Its message becomes a suspect, except in the
// control queue, whose tasks have none.
func TestAbandonedTasks(t *testing.T) {
	for name, c := range map[string]struct {
		queue   string
		ago     time.Duration
		found   int
		accused int
	}{
		"leased":               {"sms.high", -time.Minute, 0, 0},
		"within the grace":     {"sms.high", leaseGrace - 3*time.Second, 0, 0},
		"after the grace":      {"sms.high", leaseGrace + 3*time.Second, 1, 1},
		"of the control queue": {Control, time.Minute, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
				accused := &noted{}
				m, id := active(t, rdb, c.queue, c.ago)
				found, err := NewJanitor(rdb, accused, time.Minute).Clean(t.Context())
				if err != nil || found[FoundAbandoned] != c.found || len(found) != c.found {
					t.Errorf("found %v, %v", found, err)
				}
				if len(accused.ids) != c.accused || (c.accused > 0 && accused.ids[0] != m) {
					t.Errorf("suspects: %v", accused.ids)
				}
				list := map[int]string{0: "active", 1: "pending"}[c.found]
				if got := rdb.LRange(t.Context(), asynqredis.Prefix(c.queue)+list, 0, -1).Val(); !slices.Equal(got, []string{id}) {
					t.Errorf("%s: %v", list, got)
				}
			})
		})
	}
}

// refusing is a database that does not answer.
type refusing struct{}

// SuspectMessages implements Suspicions.
func (refusing) SuspectMessages(context.Context, []uuid.UUID) error {
	return message.Unavailable("the database", nil)
}

// A task whose message cannot be marked as a suspect stays active: otherwise it could kill one worker after another.
func TestNoTaskReturnsWithoutSuspicion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		_, id := active(t, rdb, "sms.high", time.Minute)
		if _, err := NewJanitor(rdb, refusing{}, time.Minute).Clean(t.Context()); err == nil {
			t.Error("no error")
		}
		if got := rdb.LRange(t.Context(), asynqredis.Prefix("sms.high")+"active", 0, -1).Val(); !slices.Equal(got, []string{id}) {
			t.Errorf("active: %v", got)
		}
	})
}

// One process is the janitor until its lease expires; it renews the lease with each round.
func TestOneJanitor(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		const interval = time.Minute
		a, b := NewJanitor(rdb, &noted{}, interval), NewJanitor(rdb, &noted{}, interval)
		works := func(j *Janitor, want bool) {
			t.Helper()
			if found, err := j.Clean(t.Context()); err != nil || (found != nil) != want {
				t.Errorf("found %v, %v; is the janitor: want %t", found, err, want)
			}
			if ttl := rdb.PTTL(t.Context(), janitorKey).Val(); want && (ttl > 3*interval || ttl < 2*interval) {
				t.Errorf("the lease ends in %v", ttl)
			}
		}
		works(a, true)
		works(b, false)
		redistest.Must(t, rdb.PExpire(t.Context(), janitorKey, interval).Err())
		works(a, true)
		works(b, false)
		redistest.Must(t, rdb.Del(t.Context(), janitorKey).Err()) // the lease expired
		works(b, true)
		works(a, false)
	})
}

// A task that is intact in a later round is no suspect any more.
func TestSuspicionLastsOneRound(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c, j, m := NewClient(rdb, asynqfast.Options{}), NewJanitor(rdb, &noted{}, time.Minute), uuid.New()
		redistest.Must(t, c.Enqueue(t.Context(), message.SMS, message.High, []bulk.Task{{MessageID: m}}))
		key := asynqredis.TaskKey("sms.high", taskID(m, 0))
		msg := rdb.HGet(t.Context(), key, "msg").Val()
		for i, there := range []bool{false, true, false, true} {
			if there {
				redistest.Must(t, rdb.HSet(t.Context(), key, "msg", msg).Err())
			} else {
				redistest.Must(t, rdb.HDel(t.Context(), key, "msg").Err())
			}
			if found, err := j.Clean(t.Context()); err != nil || len(found) != 0 {
				t.Errorf("round %d: %v, %v", i, found, err)
			}
		}
	})
}
