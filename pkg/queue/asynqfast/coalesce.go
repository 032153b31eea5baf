package asynqfast

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/batch"
)

// coalescer is a hook that sends scripts of concurrent callers in one pipeline: scripts that gather while one pipeline is
// under way go with the next. Enqueues and acknowledgements of one queue become one script (merge.go). A lone caller waits
// for nothing. go-redis' own AutoPipeline reached one sixth of this rate.
type coalescer struct {
	rdb   redis.UniversalClient
	opts  Options
	group *batch.Group[redis.Cmder, struct{}]
}

func newCoalescer(rdb redis.UniversalClient, o Options) *coalescer {
	c := &coalescer{rdb: rdb, opts: o}
	c.group = batch.New("pipeline", nil, c.run)
	return c
}

// run sends a group of commands. It never fails as a whole: each command carries its own error.
func (c *coalescer) run(ctx context.Context, cmds []redis.Cmder) ([]struct{}, error) {
	pipe := c.rdb.Pipeline()
	merged, rest := merge(cmds)
	for _, m := range merged {
		m.queue(ctx, pipe)
	}
	for _, cmd := range rest {
		_ = pipe.Process(ctx, cmd) // queues it
	}
	_, _ = pipe.Exec(ctx) // go-redis sets the error of a broken connection on every command
	for _, m := range merged {
		m.answer()
	}
	return make([]struct{}, len(cmds)), nil
}

// DialHook implements redis.Hook.
func (c *coalescer) DialHook(next redis.DialHook) redis.DialHook { return passDial(next) }

// ProcessPipelineHook implements redis.Hook.
func (c *coalescer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook. A script that Redis has not loaded fails here with NOSCRIPT as it does alone; its caller
// then sends EVAL, which goes by itself.
func (c *coalescer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		if firstKeyEndsWith(cmd, keyActive) {
			defer c.opts.ObserveSince("ack", 1, time.Now())
		}
		if _, err := c.group.Do(ctx, cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return cmd.Err()
	}
}
