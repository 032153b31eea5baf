package queue

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/queue/asynqredis"
	"herald/pkg/redisconn"
)

// Client enqueues tasks. It implements bulk.Queue and delivery.Queue, and is safe for concurrent use.
type Client struct {
	rdb    redis.UniversalClient
	client *asynq.Client
	opts   asynqfast.Options
	hooks  *asynqfast.Hooks
}

// NewClient makes a Client. No other part may use its connection.
func NewClient(rdb redis.UniversalClient, o asynqfast.Options) *Client {
	return &Client{rdb: rdb, client: asynq.NewClientFromRedisClient(rdb), opts: o, hooks: asynqfast.Wrap(rdb, o)}
}

// Close waits for calls under way. No call may follow.
func (c *Client) Close() { c.hooks.Close() }

func (c *Client) put(ctx context.Context, kind, queue, taskID string, id uuid.UUID, opts ...asynq.Option) error {
	opts = append(opts, asynq.Queue(queue), asynq.TaskID(taskID), asynq.MaxRetry(maxRetry), asynq.Timeout(taskTimeout))
	_, err := c.client.EnqueueContext(ctx, asynq.NewTask(kind, []byte(id.String())), opts...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil // already enqueued
	}
	return err
}

func taskID(id uuid.UUID, generation int) string { return id.String() + ":" + strconv.Itoa(generation) }

// Enqueue implements bulk.Queue. It is idempotent: a task is named by message and generation.
func (c *Client) Enqueue(ctx context.Context, t message.ChannelType, p message.Priority, tasks []bulk.Task) error {
	if len(tasks) > 0 {
		defer c.opts.ObserveSince("enqueue", len(tasks), time.Now())
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
	return redisconn.Unavailable("enqueue", g.Wait())
}

// Later implements delivery.Queue: it enqueues one message's task, to run after a delay.
func (c *Client) Later(ctx context.Context, m *message.Message, delay time.Duration) error {
	l := laneSingle
	if m.BulkID != uuid.Nil {
		l = laneOf(m.Priority)
	}
	var opts []asynq.Option
	if delay > 0 {
		opts = append(opts, asynq.ProcessIn(delay))
	}
	return redisconn.Unavailable("enqueue", c.put(ctx, TaskDeliver, queueName(m.ChannelType, l), taskID(m.ID, m.Generation), m.ID, opts...))
}

// Wake implements bulk.Queue. A bulk has at most one such task.
func (c *Client) Wake(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("wake a worker", c.put(ctx, TaskWake, Control, "wake:"+bulkID.String(), bulkID))
}

// Ping returns an error when Redis does not answer.
func (c *Client) Ping(ctx context.Context) error {
	return redisconn.Unavailable("ping", c.rdb.Ping(ctx).Err())
}

// Depths returns, by queue and state, how many tasks Redis holds, with one round trip. It counts the lists themselves: Asynq's
// inspector measures the memory of each queue with a script, and does not know a queue whose name Redis lost.
func (c *Client) Depths(ctx context.Context) (map[string]map[string]int64, error) {
	pipe := c.rdb.Pipeline()
	cmds := map[string]map[string]*redis.IntCmd{}
	for _, queue := range Names() {
		cmds[queue] = map[string]*redis.IntCmd{}
		for _, list := range asynqredis.Lists {
			cmds[queue][list] = pipe.LLen(ctx, asynqredis.Prefix(queue)+list)
		}
		for _, set := range []string{asynqredis.Scheduled, asynqredis.Retry, asynqredis.Archived} {
			cmds[queue][set] = pipe.ZCard(ctx, asynqredis.Prefix(queue)+set)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, redisconn.Unavailable("measure the queues", err)
	}
	depths := make(map[string]map[string]int64, len(cmds))
	for queue, states := range cmds {
		depths[queue] = make(map[string]int64, len(states))
		for state, cmd := range states {
			depths[queue][state] = cmd.Val()
		}
	}
	return depths, nil
}

// Depth returns how many tasks of a queue Redis holds, by state.
func (c *Client) Depth(ctx context.Context, queue string) (map[string]int64, error) {
	depths, err := c.Depths(ctx)
	return depths[queue], err
}
