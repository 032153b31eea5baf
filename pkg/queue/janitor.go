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

// Janitor repairs state that Asynq never repairs itself, so that no queue is slowed or blocked: ids without a task (ghosts),
// undecodable tasks, tasks whose worker died, tasks in no list (orphans), which block their id, and archived tasks. Removing a
// task loses nothing: the message's row says what is still to be done, and the bulk's runner or the sweep enqueues it again.
//
// One process at a time is the janitor: it holds a lease in Redis for three intervals. A Janitor is used by one goroutine.
type Janitor struct {
	rdb        redis.UniversalClient
	suspicions Suspicions
	inspector  *asynq.Inspector
	id         string
	interval   time.Duration
	suspects   map[string]bool // keys of tasks that looked wrong in the last round: a task that is being moved looks so once
}

// Suspicions marks messages as suspects: messages that a process held when it died, one of which may have caused that. Claimed
// and settled messages stay unchanged. It is idempotent.
type Suspicions interface {
	SuspectMessages(ctx context.Context, ids []uuid.UUID) error
}

// Kinds of findings of a Janitor.
const (
	FoundGhost       = "ghost"
	FoundUndecodable = "undecodable"
	FoundAbandoned   = "abandoned" // its worker died: it is returned to its queue
	FoundOrphan      = "orphan"
	FoundArchived    = "archived"
)

const (
	janitorKey = "herald:janitor"
	leaseGrace = 5 * time.Second // after a task's lease, for clocks that differ
	pageSize   = 1_000           // ids for each round trip
)

// NewJanitor makes a Janitor whose Clean is called at an interval.
func NewJanitor(rdb redis.UniversalClient, suspicions Suspicions, interval time.Duration) *Janitor {
	return &Janitor{rdb: rdb, suspicions: suspicions, inspector: asynq.NewInspectorFromRedisClient(rdb), id: uuid.NewString(), interval: interval, suspects: map[string]bool{}}
}

// tasks are the ids of one queue's tasks by the collection in which they stand.
type tasks struct {
	queue  string
	listed map[string][]string
	leases map[string]float64 // Unix seconds by active id
}

// Clean repairs all queues and returns how many tasks of each kind it found. It does nothing, and returns nil, while another
// process is the janitor.
func (j *Janitor) Clean(ctx context.Context) (map[string]int, error) {
	if ok, err := j.elected(ctx); err != nil || !ok {
		return nil, redisconn.Unavailable("elect janitor", err)
	}
	// A Redis that was emptied has lost the names of the queues, without which Asynq's tools do not find them.
	names := make([]any, 0, len(Names()))
	for _, n := range Names() {
		names = append(names, n)
	}
	if err := j.rdb.SAdd(ctx, asynqredis.Queues, names...).Err(); err != nil {
		return nil, redisconn.Unavailable("register queue names", err)
	}
	all, err := j.snapshot(ctx)
	if err != nil {
		return nil, redisconn.Unavailable("read queues", err)
	}
	found, suspects := map[string]int{}, map[string]bool{}
	known := map[string]bool{}
	for _, q := range all {
		if err := j.cleanQueue(ctx, q, found, suspects, known); err != nil {
			return found, redisconn.Unavailable("clean queue "+q.queue, err)
		}
	}
	err = j.cleanOrphans(ctx, known, found, suspects)
	j.suspects = suspects
	return found, redisconn.Unavailable("clean orphans", err)
}

// elected reports whether this process is the janitor, and renews its lease.
func (j *Janitor) elected(ctx context.Context) (bool, error) {
	ok, err := j.rdb.SetNX(ctx, janitorKey, j.id, 3*j.interval).Result()
	if err != nil || ok {
		return ok, err
	}
	holder, err := j.rdb.Get(ctx, janitorKey).Result()
	if err != nil || holder != j.id {
		return false, ignoreNil(err)
	}
	return true, j.rdb.PExpire(ctx, janitorKey, 3*j.interval).Err()
}

func ignoreNil(err error) error {
	if err == redis.Nil { //nolint:errorlint // go-redis returns the sentinel itself
		return nil
	}
	return err
}

// snapshot reads the collections of all queues in one transaction, so that a task that moves is seen in one of them.
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

// cleanQueue repairs one queue. It adds to found, to the suspects of this round, and to the keys of known tasks.
func (j *Janitor) cleanQueue(ctx context.Context, q tasks, found map[string]int, suspects, known map[string]bool) error {
	var abandoned []string
	for _, list := range slices.Concat(asynqredis.Lists, asynqredis.Sets) {
		ids := q.listed[list]
		for from := 0; from < len(ids); from += pageSize {
			page := ids[from:min(from+pageSize, len(ids))]
			exists, err := j.taskExists(ctx, q.queue, page)
			if err != nil {
				return err
			}
			for i, id := range page {
				known[asynqredis.TaskKey(q.queue, id)] = true
				kind := ""
				switch {
				case !exists[i]:
					kind = j.confirmedSuspect(asynqredis.TaskKey(q.queue, id), FoundGhost, suspects)
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
				if err := j.repair(ctx, kind, q.queue, id); err != nil {
					return err
				}
			}
		}
	}
	return j.requeue(ctx, q.queue, abandoned)
}

// requeue returns tasks whose worker died. Their messages become suspects first, so that a message which ends its process is not
// given to one worker after the other.
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
		if err := j.suspicions.SuspectMessages(ctx, messages); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := j.repair(ctx, FoundAbandoned, queue, id); err != nil {
			return err
		}
	}
	return nil
}

// confirmedSuspect returns kind for a task that looked wrong in the last round too. Otherwise it notes the task and returns "".
func (j *Janitor) confirmedSuspect(key, kind string, suspects map[string]bool) string {
	if j.suspects[key] {
		return kind
	}
	suspects[key] = true
	return ""
}

// judgeActive returns what is wrong with an active task, "" if nothing is.
func (j *Janitor) judgeActive(q tasks, id string, suspects map[string]bool) string {
	until, leased := q.leases[id]
	if leased && until > float64(time.Now().Add(-leaseGrace).Unix()) {
		return ""
	}
	if _, err := j.inspector.GetTaskInfo(q.queue, id); err != nil {
		return j.confirmedSuspect(asynqredis.TaskKey(q.queue, id), FoundUndecodable, suspects)
	}
	if !leased { // Asynq never looks at such a task again
		return j.confirmedSuspect(asynqredis.TaskKey(q.queue, id), FoundAbandoned, suspects)
	}
	return FoundAbandoned
}

// repair returns an abandoned task to its queue and removes any other.
func (j *Janitor) repair(ctx context.Context, kind, queue, id string) error {
	keys := []string{asynqredis.TaskKey(queue, id)}
	if kind == FoundAbandoned {
		return asynqredis.Requeue.Run(ctx, j.rdb, keys, asynqredis.Prefix(queue), id, time.Now().UnixNano()).Err()
	}
	return asynqredis.Remove.Run(ctx, j.rdb, keys, asynqredis.Prefix(queue), id).Err()
}

// taskExists reports for each id whether its task has a message.
func (j *Janitor) taskExists(ctx context.Context, queue string, ids []string) ([]bool, error) {
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
	exists := make([]bool, len(ids))
	for i, cmd := range cmds {
		exists[i] = cmd.Val()
	}
	return exists, nil
}

// cleanOrphans removes tasks whose ids stand in no collection.
func (j *Janitor) cleanOrphans(ctx context.Context, known map[string]bool, found map[string]int, suspects map[string]bool) error {
	for cursor := uint64(0); ; {
		keys, next, err := j.rdb.Scan(ctx, cursor, asynqredis.TaskPattern, pageSize).Result()
		if err != nil {
			return err
		}
		for _, key := range keys {
			if known[key] || j.confirmedSuspect(key, FoundOrphan, suspects) == "" {
				continue
			}
			if queue, id, ok := asynqredis.SplitTaskKey(key); ok {
				found[FoundOrphan]++
				if err := j.repair(ctx, FoundOrphan, queue, id); err != nil {
					return err
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
