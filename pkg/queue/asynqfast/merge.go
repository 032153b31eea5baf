package asynqfast

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"

	"herald/pkg/queue/asynqredis"
)

// merger recognises one of Asynq's scripts by its keys and arguments, and names the script that does the same for many tasks
// of one queue.
type merger struct {
	shape  []string // of the script's keys; see hasShape
	args   int      // the script's arguments
	shared []int    // the keys that are the same for all tasks of a queue; the others are the task's own
	script string   // takes the shared keys, then the key of each task's hash, then the arguments of each task
	answer func(cmd *redis.Cmd, n int64)
}

// errNotFound is the error of Asynq's script for a task that is not active. Asynq's server retries the acknowledgement.
var errNotFound = errors.New("NOT FOUND")

var mergers = []merger{
	{
		shape: []string{keyTask, keyPending}, args: asynqredis.EnqueueArgs, shared: []int{1}, script: asynqredis.Enqueue,
		answer: func(cmd *redis.Cmd, n int64) { cmd.SetVal(n) },
	},
	{
		shape: []string{keyActive, keyLease, keyTask, keyOfTheDay, keyProcessed}, args: asynqredis.AckArgs, shared: []int{0, 1, 3, 4}, script: asynqredis.Ack,
		answer: func(cmd *redis.Cmd, n int64) {
			if n == 0 {
				cmd.SetErr(errNotFound)
				return
			}
			cmd.SetVal("OK")
		},
	},
}

// sameQueue reports whether two commands of the merger's shape have the same shared keys.
func (m *merger) sameQueue(a, b []any) bool {
	for _, i := range m.shared {
		if a[argFirstKey+i] != b[argFirstKey+i] {
			return false
		}
	}
	return true
}

// mergedCmd is the commands of one merger and one queue, and the command that runs in their place.
type mergedCmd struct {
	merger *merger
	parts  []*redis.Cmd
	cmd    *redis.Cmd
}

// merge sorts commands into those that can run together and the rest. The order within a queue is kept.
func merge(cmds []redis.Cmder) (merged []*mergedCmd, rest []redis.Cmder) {
	for _, cmd := range cmds {
		part, ok := cmd.(*redis.Cmd)
		kind := slices.IndexFunc(mergers, func(m merger) bool { return hasShape(cmd.Args(), m.shape, m.args) })
		if !ok || kind < 0 {
			rest = append(rest, cmd)
			continue
		}
		m := &mergers[kind]
		at := slices.IndexFunc(merged, func(c *mergedCmd) bool { return c.merger == m && m.sameQueue(cmd.Args(), c.parts[0].Args()) })
		if at < 0 {
			at = len(merged)
			merged = append(merged, &mergedCmd{merger: m})
		}
		merged[at].parts = append(merged[at].parts, part)
	}
	return merged, rest
}

// queue puts the merged command into a pipeline. It is an EVAL with the script's text, since a pipeline cannot repeat an
// EVALSHA whose script Redis has lost.
func (c *mergedCmd) queue(ctx context.Context, pipe redis.Pipeliner) {
	m, first := c.merger, c.parts[0].Args()
	args := make([]any, 0, argFirstKey+len(m.shared)+len(c.parts)*(1+m.args))
	args = append(args, "eval", m.script, len(m.shared)+len(c.parts))
	for _, i := range m.shared {
		args = append(args, first[argFirstKey+i])
	}
	for _, part := range c.parts {
		for i, key := range m.shape {
			if key == keyTask {
				args = append(args, part.Args()[argFirstKey+i])
			}
		}
	}
	for _, part := range c.parts {
		args = append(args, part.Args()[argFirstKey+len(m.shape):]...)
	}
	c.cmd = redis.NewCmd(ctx, args...)
	_ = pipe.Process(ctx, c.cmd)
}

// answer gives every part its own answer, or all of them the error of the merged command.
func (c *mergedCmd) answer() {
	answers, err := c.cmd.Int64Slice()
	if err == nil && len(answers) != len(c.parts) {
		err = errors.New("merged script: number of answers differs from number of tasks")
	}
	for i, part := range c.parts {
		if err != nil {
			part.SetErr(err)
			continue
		}
		c.merger.answer(part, answers[i])
	}
}
