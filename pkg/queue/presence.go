package queue

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/redisconn"
)

// Presence of workers: a sorted set of process ids, by the Unix millisecond at which the process counts as gone.
const (
	workersKey        = "herald:workers"
	heartbeatInterval = 5 * time.Second
	presenceTTL       = 3 * heartbeatInterval
)

// Workers implements bulk.Queue: the worker processes whose heartbeat has not expired.
func (c *Client) Workers(ctx context.Context) (int, error) {
	n, err := c.rdb.ZCount(ctx, workersKey, strconv.FormatInt(time.Now().UnixMilli(), 10), "+inf").Result()
	return int(n), redisconn.Unavailable("count the workers", err)
}

// Presence is the heartbeat of one worker process.
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

// Start sends the first heartbeat and then one every 5 s.
func (p *Presence) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.beat(ctx)
	p.wg.Go(func() {
		t := time.NewTicker(heartbeatInterval)
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

// beat is best effort. A worker without a heartbeat works all the same; bulks then use a smaller window.
func (p *Presence) beat(ctx context.Context) {
	now := time.Now()
	pipe := p.rdb.Pipeline()
	pipe.ZAdd(ctx, workersKey, redis.Z{Score: float64(now.Add(presenceTTL).UnixMilli()), Member: p.id})
	pipe.ZRemRangeByScore(ctx, workersKey, "-inf", strconv.FormatInt(now.UnixMilli(), 10))
	pipe.PExpire(ctx, workersKey, presenceTTL) // the last worker may die without Stop
	_, _ = pipe.Exec(ctx)
}

// Stop ends the heartbeat and removes the process from the set.
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
