package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"herald/pkg/bulk"
	"herald/pkg/message"
)

// The kinds of task.
const (
	TaskDeliver = "deliver" // look at one message
	TaskWake    = "wake"    // a bulk waits to be run
)

// Control is the queue of tasks that steer and send nothing.
const Control = "control"

// lane is one of the queues of a type. Singles have their own, so that none waits behind a bulk.
type lane string

const (
	laneSingle lane = "single"
	laneHigh   lane = "high"
	laneNormal lane = "normal"
	laneLow    lane = "low"
)

// weights says how often a lane is looked at first, among the lanes of a type.
// Asynq shuffles as many names as the weights are together for every task, so they are small.
var weights = map[lane]int{laneSingle: 6, laneHigh: 3, laneNormal: 2, laneLow: 1}

func laneOf(p message.Priority) lane {
	switch p {
	case message.High:
		return laneHigh
	case message.Low:
		return laneLow
	default:
		return laneNormal
	}
}

func queueName(t message.ChannelType, l lane) string {
	return strings.ToLower(string(t)) + "." + string(l)
}

// QueuesOf returns the queues of a type with their weights.
func QueuesOf(t message.ChannelType) map[string]int {
	q := make(map[string]int, len(weights))
	for l, w := range weights {
		q[queueName(t, l)] = w
	}
	return q
}

// Names returns every queue.
func Names() []string {
	names := append(make([]string, 0, 1+len(weights)*len(message.ChannelTypes)), Control)
	for _, t := range message.ChannelTypes {
		for _, l := range []lane{laneSingle, laneHigh, laneNormal, laneLow} {
			names = append(names, queueName(t, l))
		}
	}
	return names
}

const (
	// maxRetry is beyond what any task reaches: attempts are counted in the message's row, and a task that ran out of
	// retries would be archived, which blocks its id.
	maxRetry    = 1_000
	taskTimeout = 60 * time.Second
	enqueuers   = 256 // tasks that are enqueued at once: they share pipelines, or at least connections
)

// ParsePayload returns the id that is all that a task carries, as text.
func ParsePayload(b []byte) (uuid.UUID, error) {
	id, err := uuid.ParseBytes(b)
	switch {
	case err != nil:
		return uuid.Nil, fmt.Errorf("task payload: %w", err)
	case id == uuid.Nil:
		return uuid.Nil, errors.New("task payload: no id")
	}
	return id, nil
}

// Client puts tasks into the queues. It implements bulk.Queue and delivery.Queue.
type Client struct {
	rdb    redis.UniversalClient
	client *asynq.Client
	speed  Speed
	end    func()
}

// NewClient makes a Client over a Redis connection of its own.
func NewClient(rdb redis.UniversalClient, speed Speed) *Client {
	return &Client{rdb: rdb, client: asynq.NewClientFromRedisClient(rdb), speed: speed, end: coalesce(rdb, speed)}
}

// Close ends the client, when nobody enqueues any more.
func (c *Client) Close() { c.end() }

func (c *Client) put(ctx context.Context, kind, queue, taskID string, id uuid.UUID, opts ...asynq.Option) error {
	opts = append(opts, asynq.Queue(queue), asynq.TaskID(taskID), asynq.MaxRetry(maxRetry), asynq.Timeout(taskTimeout))
	_, err := c.client.EnqueueContext(ctx, asynq.NewTask(kind, []byte(id.String())), opts...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil // it is there already
	}
	return err
}

func taskID(id uuid.UUID, generation int) string { return id.String() + ":" + strconv.Itoa(generation) }

// Enqueue implements bulk.Queue.
func (c *Client) Enqueue(ctx context.Context, t message.ChannelType, p message.Priority, tasks []bulk.Task) error {
	if len(tasks) > 0 {
		defer c.speed.observe("enqueue", len(tasks), time.Now())
	}
	queue := queueName(t, laneOf(p))
	g, gctx := errgroup.WithContext(ctx)
	share := (len(tasks) + enqueuers - 1) / enqueuers
	for from := 0; from < len(tasks); from += share {
		part := tasks[from:min(from+share, len(tasks))]
		g.Go(func() error {
			for _, task := range part {
				if err := c.put(gctx, TaskDeliver, queue, taskID(task.MessageID, task.Generation), task.MessageID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return fail("enqueue", g.Wait())
}

// Later implements delivery.Queue.
func (c *Client) Later(ctx context.Context, m *message.Message, delay time.Duration) error {
	l := laneSingle
	if m.BulkID != uuid.Nil {
		l = laneOf(m.Priority)
	}
	var opts []asynq.Option
	if delay > 0 {
		opts = append(opts, asynq.ProcessIn(delay))
	}
	return fail("enqueue", c.put(ctx, TaskDeliver, queueName(m.ChannelType, l), taskID(m.ID, m.Generation), m.ID, opts...))
}

// Wake implements bulk.Queue.
func (c *Client) Wake(ctx context.Context, bulkID uuid.UUID) error {
	return fail("wake a worker", c.put(ctx, TaskWake, Control, "wake:"+bulkID.String(), bulkID))
}

// Ping says whether Redis answers.
func (c *Client) Ping(ctx context.Context) error { return fail("ping", c.rdb.Ping(ctx).Err()) }

// Depth returns how many tasks a queue holds, in whatever state. It counts the lists themselves, because Asynq's own
// inspector knows nothing of a queue whose name Redis lost.
func (c *Client) Depth(ctx context.Context, queue string) (map[string]int64, error) {
	pipe := c.rdb.Pipeline()
	prefix := "asynq:{" + queue + "}:"
	cmds := map[string]*redis.IntCmd{"pending": pipe.LLen(ctx, prefix+"pending"), "active": pipe.LLen(ctx, prefix+"active")}
	for _, state := range []string{"scheduled", "retry", "archived"} {
		cmds[state] = pipe.ZCard(ctx, prefix+state)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fail("measure a queue", err)
	}
	depth := make(map[string]int64, len(cmds))
	for state, cmd := range cmds {
		depth[state] = cmd.Val()
	}
	return depth, nil
}

// The presence of workers: a sorted set of process ids by the time at which each counts as gone.
const (
	workersKey   = "herald:workers"
	presenceBeat = 5 * time.Second
	presenceTTL  = 3 * presenceBeat
)

// Workers implements bulk.Queue.
func (c *Client) Workers(ctx context.Context) (int, error) {
	n, err := c.rdb.ZCount(ctx, workersKey, strconv.FormatInt(time.Now().UnixMilli(), 10), "+inf").Result()
	return int(n), fail("count the workers", err)
}

// Presence tells the others that this process works.
type Presence struct {
	rdb  redis.UniversalClient
	id   string
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// NewPresence makes a Presence for one process.
func NewPresence(rdb redis.UniversalClient) *Presence {
	return &Presence{rdb: rdb, id: uuid.NewString()}
}

// Start begins to beat.
func (p *Presence) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.beat(ctx)
	p.wg.Go(func() {
		t := time.NewTicker(presenceBeat)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				p.beat(ctx)
			}
		}
	})
}

// beat is best effort: a worker that Redis does not know of works all the same, with a smaller window.
func (p *Presence) beat(ctx context.Context) {
	now := time.Now()
	pipe := p.rdb.Pipeline()
	pipe.ZAdd(ctx, workersKey, redis.Z{Score: float64(now.Add(presenceTTL).UnixMilli()), Member: p.id})
	pipe.ZRemRangeByScore(ctx, workersKey, "-inf", strconv.FormatInt(now.UnixMilli(), 10))
	pipe.PExpire(ctx, workersKey, presenceTTL) // the last worker may die without a goodbye
	_, _ = pipe.Exec(ctx)
}

// Stop says goodbye.
func (p *Presence) Stop() {
	if p.stop == nil {
		return
	}
	p.stop()
	p.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.rdb.ZRem(ctx, workersKey, p.id).Err()
}
