package queue

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn"
)

// Janitor removes from Redis what Asynq leaves lying there for good, so that no queue is slowed or stuck: ids whose
// task is gone (ghosts), tasks that nothing can decode, tasks whose worker died, tasks that are in no list (orphans) and
// so block their id, and tasks that ran out of retries. Nothing is lost with them: the messages' rows tell what is
// still to be done, and whoever runs the bulk, or the sweep, enqueues anew.
type Janitor struct {
	rdb       redis.UniversalClient
	accuse    Suspicions
	inspector *asynq.Inspector
	id        string
	every     time.Duration
	suspects  map[string]bool // keys of tasks that looked odd the last time: what is just being moved looks so once
}

// Suspicions is told of the messages that a process held as it died: one of them may have ended it. Messages under a claim, and
// those that are settled, stay as they are. It may be repeated.
type Suspicions interface {
	SuspectMessages(ctx context.Context, ids []uuid.UUID) error
}

// What a Janitor finds.
const (
	FoundGhost       = "ghost"
	FoundUndecodable = "undecodable"
	FoundAbandoned   = "abandoned" // its worker died: it goes back into the queue
	FoundOrphan      = "orphan"
	FoundArchived    = "archived"
)

const (
	janitorKey = "herald:janitor"
	leaseGrace = 5 * time.Second // beyond a task's lease, for clocks that differ
	lookPage   = 1_000           // ids per round trip
)

// NewJanitor makes a Janitor that is asked to Clean every so often.
func NewJanitor(rdb redis.UniversalClient, accuse Suspicions, every time.Duration) *Janitor {
	return &Janitor{rdb: rdb, accuse: accuse, inspector: asynq.NewInspectorFromRedisClient(rdb), id: uuid.NewString(), every: every, suspects: map[string]bool{}}
}

// tasks are the ids of one queue's tasks, by where they are listed.
type tasks struct {
	queue  string
	listed map[string][]string
	leases map[string]float64 // Unix seconds by active id
}

// Clean looks through all queues, unless another process does, and returns how many tasks of each kind it found.
func (j *Janitor) Clean(ctx context.Context) (map[string]int, error) {
	if ok, err := j.elected(ctx); err != nil || !ok {
		return nil, redisconn.Unavailable("elect a janitor", err)
	}
	// A Redis that was emptied has lost the names of the queues, without which no tool of Asynq's finds them.
	names := make([]any, 0, len(Names()))
	for _, n := range Names() {
		names = append(names, n)
	}
	if err := j.rdb.SAdd(ctx, asynqredis.Queues, names...).Err(); err != nil {
		return nil, redisconn.Unavailable("name the queues", err)
	}
	all, err := j.snapshot(ctx)
	if err != nil {
		return nil, redisconn.Unavailable("look through the queues", err)
	}
	found, suspects := map[string]int{}, map[string]bool{}
	known := map[string]bool{}
	for _, q := range all {
		if err := j.cleanQueue(ctx, q, found, suspects, known); err != nil {
			return found, redisconn.Unavailable("clean the queue "+q.queue, err)
		}
	}
	err = j.cleanOrphans(ctx, known, found, suspects)
	j.suspects = suspects
	return found, redisconn.Unavailable("look for orphans", err)
}

// elected says whether this process is the one that cleans; it stays so for as long as it comes back in time.
func (j *Janitor) elected(ctx context.Context) (bool, error) {
	ok, err := j.rdb.SetNX(ctx, janitorKey, j.id, 3*j.every).Result()
	if err != nil || ok {
		return ok, err
	}
	holder, err := j.rdb.Get(ctx, janitorKey).Result()
	if err != nil || holder != j.id {
		return false, ignoreNil(err)
	}
	return true, j.rdb.PExpire(ctx, janitorKey, 3*j.every).Err()
}

func ignoreNil(err error) error {
	if err == redis.Nil { //nolint:errorlint // go-redis returns the sentinel itself
		return nil
	}
	return err
}

// snapshot reads what is listed in every queue, in one transaction, so that a task that moves is seen.
func (j *Janitor) snapshot(ctx context.Context) ([]tasks, error) {
	type reads struct {
		listed map[string]*redis.StringSliceCmd
		leases *redis.ZSliceCmd
	}
	names := Names()
	cmds := make([]reads, len(names))
	_, err := j.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			prefix := asynqredis.Prefix(name)
			cmds[i] = reads{listed: map[string]*redis.StringSliceCmd{}, leases: p.ZRangeWithScores(ctx, prefix+"lease", 0, -1)}
			for _, l := range asynqredis.Lists {
				cmds[i].listed[l] = p.LRange(ctx, prefix+l, 0, -1)
			}
			for _, z := range asynqredis.Sets {
				cmds[i].listed[z] = p.ZRange(ctx, prefix+z, 0, -1)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]tasks, len(names))
	for i, name := range names {
		all[i] = tasks{name, map[string][]string{}, map[string]float64{}}
		for l, cmd := range cmds[i].listed {
			all[i].listed[l] = cmd.Val()
		}
		for _, z := range cmds[i].leases.Val() {
			if id, ok := z.Member.(string); ok {
				all[i].leases[id] = z.Score
			}
		}
	}
	return all, nil
}

func (j *Janitor) cleanQueue(ctx context.Context, q tasks, found map[string]int, suspects, known map[string]bool) error {
	var abandoned []string
	for _, list := range slices.Concat(asynqredis.Lists, asynqredis.Sets) {
		ids := q.listed[list]
		for from := 0; from < len(ids); from += lookPage {
			page := ids[from:min(from+lookPage, len(ids))]
			whole, err := j.whole(ctx, q.queue, page)
			if err != nil {
				return err
			}
			for i, id := range page {
				known[asynqredis.TaskKey(q.queue, id)] = true
				kind := ""
				switch {
				case !whole[i]:
					kind = j.twice(asynqredis.TaskKey(q.queue, id), FoundGhost, suspects)
				case list == "archived":
					kind = FoundArchived
				case list == "active":
					kind = j.judgeActive(q, id, suspects)
				}
				if kind == "" {
					continue
				}
				found[kind]++
				if kind == FoundAbandoned {
					abandoned = append(abandoned, id)
					continue
				}
				if err := j.mend(ctx, kind, q.queue, id); err != nil {
					return err
				}
			}
		}
	}
	return j.requeue(ctx, q.queue, abandoned)
}

// requeue puts tasks back whose worker died. Their messages are suspected first, so that one which ends its process is not
// given to worker after worker.
func (j *Janitor) requeue(ctx context.Context, queue string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	var messages []uuid.UUID
	for _, id := range ids {
		text, _, _ := strings.Cut(id, ":")
		if m, err := uuid.Parse(text); err == nil {
			messages = append(messages, m)
		}
	}
	if len(messages) > 0 && queue != Control {
		if err := j.accuse.SuspectMessages(ctx, messages); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := j.mend(ctx, FoundAbandoned, queue, id); err != nil {
			return err
		}
	}
	return nil
}

// twice returns kind when a task looked odd the last time too.
func (j *Janitor) twice(key, kind string, suspects map[string]bool) string {
	if j.suspects[key] {
		return kind
	}
	suspects[key] = true
	return ""
}

// judgeActive says what is wrong with a task that some worker should have, if anything is.
func (j *Janitor) judgeActive(q tasks, id string, suspects map[string]bool) string {
	until, leased := q.leases[id]
	if leased && until > float64(time.Now().Add(-leaseGrace).Unix()) {
		return ""
	}
	if _, err := j.inspector.GetTaskInfo(q.queue, id); err != nil {
		return j.twice(asynqredis.TaskKey(q.queue, id), FoundUndecodable, suspects)
	}
	if !leased { // Asynq itself never looks at such a task again
		return j.twice(asynqredis.TaskKey(q.queue, id), FoundAbandoned, suspects)
	}
	return FoundAbandoned
}

func (j *Janitor) mend(ctx context.Context, kind, queue, id string) error {
	keys := []string{asynqredis.TaskKey(queue, id)}
	if kind == FoundAbandoned {
		return asynqredis.Requeue.Run(ctx, j.rdb, keys, asynqredis.Prefix(queue), id, time.Now().UnixNano()).Err()
	}
	return asynqredis.Remove.Run(ctx, j.rdb, keys, asynqredis.Prefix(queue), id).Err()
}

// whole says for each id whether its task is there.
func (j *Janitor) whole(ctx context.Context, queue string, ids []string) ([]bool, error) {
	cmds := make([]*redis.BoolCmd, len(ids))
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = p.HExists(ctx, asynqredis.TaskKey(queue, id), "msg")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	there := make([]bool, len(ids))
	for i, cmd := range cmds {
		there[i] = cmd.Val()
	}
	return there, nil
}

// cleanOrphans removes tasks that no list knows.
func (j *Janitor) cleanOrphans(ctx context.Context, known map[string]bool, found map[string]int, suspects map[string]bool) error {
	for cursor := uint64(0); ; {
		keys, next, err := j.rdb.Scan(ctx, cursor, asynqredis.TaskPattern, lookPage).Result()
		if err != nil {
			return err
		}
		for _, key := range keys {
			if known[key] || j.twice(key, FoundOrphan, suspects) == "" {
				continue
			}
			if queue, id, ok := asynqredis.SplitTaskKey(key); ok {
				found[FoundOrphan]++
				if err := j.mend(ctx, FoundOrphan, queue, id); err != nil {
					return err
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
