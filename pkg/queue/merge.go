package queue

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// merger is a script of Asynq's, known by its keys and arguments, and the script that does the same for many tasks of one
// queue. What a merger does not know by its shape goes to Redis as it is, so another version of Asynq costs speed only.
type merger struct {
	shape  []string // of its keys; see hasShape
	args   int
	shared []int // the keys that are one and the same for all tasks of the queue
	script string
	answer func(cmd *redis.Cmd, n int64) // gives one task's command its answer
}

// Keys of Asynq's, behind the queue's prefix.
const (
	keyTask      = ":t:"
	keyPending   = ":pending"
	keyActive    = ":active"
	keyLease     = ":lease"
	keyPaused    = ":paused"
	keyOfTheDay  = ":processed:"
	keyProcessed = ":processed"
)

// errNotFound is what Asynq's script says of a task that is not there to be acknowledged. Its caller tries again.
var errNotFound = errors.New("NOT FOUND")

var mergers = []merger{
	{
		// KEYS: pending, then a hash for each task. ARGV: of each task its message, its id, and since when it waits.
		// Answers 1 for a task that now waits, 0 for an id that exists.
		shape: []string{keyTask, keyPending}, args: 3, shared: []int{1},
		script: `
local out, waiting = {}, {}
for i = 2, #KEYS do
  local a = (i - 2) * 3
  out[i - 1] = 0
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('HSET', KEYS[i], 'msg', ARGV[a + 1], 'state', 'pending', 'pending_since', ARGV[a + 3])
    waiting[#waiting + 1] = ARGV[a + 2]
    out[i - 1] = 1
  end
end
if #waiting > 0 then redis.call('LPUSH', KEYS[1], unpack(waiting)) end
return out`,
		answer: func(cmd *redis.Cmd, n int64) { cmd.SetVal(n) },
	},
	{
		// KEYS: active, lease, the day's count, the whole count, then a hash for each task. ARGV: of each task its id, the
		// end of the day's count, and the greatest count. Answers 1 for a task that was active and is gone, else 0. (Asynq's
		// refuses one, too, that was active without a lease or a hash, and then asks again in vain.)
		//
		// The list of active tasks is searched from its old end, where those are that get done, and only to the first
		// find. Asynq searches the whole list for each task: with a thousand in flight that is most of Redis' time.
		shape: []string{keyActive, keyLease, keyTask, keyOfTheDay, keyProcessed}, args: 3, shared: []int{0, 1, 3, 4},
		script: `
local out, ids, hashes = {}, {}, {}
for i = 5, #KEYS do
  local id = ARGV[(i - 5) * 3 + 1]
  out[i - 4] = redis.call('LREM', KEYS[1], -1, id)
  if out[i - 4] == 1 then
    ids[#ids + 1] = id
    hashes[#hashes + 1] = KEYS[i]
  end
end
local done = #ids
if done == 0 then return out end
redis.call('ZREM', KEYS[2], unpack(ids))
redis.call('DEL', unpack(hashes))
if redis.call('INCRBY', KEYS[3], done) == done then redis.call('EXPIREAT', KEYS[3], ARGV[2]) end
if tonumber(redis.call('GET', KEYS[4]) or '0') + done >= tonumber(ARGV[3]) then
  redis.call('SET', KEYS[4], done)
else
  redis.call('INCRBY', KEYS[4], done)
end
return out`,
		answer: func(cmd *redis.Cmd, n int64) {
			if n == 0 {
				cmd.SetErr(errNotFound)
				return
			}
			cmd.SetVal("OK")
		},
	},
}

// hasShape says whether a script was called with these keys, given by what each ends with or, with a colon behind, has in
// it, and so many arguments.
func hasShape(cmd []any, keys []string, args int) bool {
	if len(cmd) != argFirstKey+len(keys)+args {
		return false
	}
	for i, want := range keys {
		matches := strings.HasSuffix
		if strings.HasSuffix(want, ":") {
			matches = strings.Contains
		}
		if key, _ := cmd[argFirstKey+i].(string); !matches(key, want) {
			return false
		}
	}
	return true
}

// sameQueue says whether two commands of the merger's shape have their shared keys in common.
func (m *merger) sameQueue(a, b []any) bool {
	for _, i := range m.shared {
		if a[argFirstKey+i] != b[argFirstKey+i] {
			return false
		}
	}
	return true
}

// together is commands of one kind and queue, and the one that runs in their stead.
type together struct {
	merger *merger
	of     []*redis.Cmd
	cmd    *redis.Cmd
}

// merge sorts out of cmds what can run together. rest is what cannot.
func merge(cmds []redis.Cmder) (merged []*together, rest []redis.Cmder) {
	for _, cmd := range cmds {
		one, ok := cmd.(*redis.Cmd)
		kind := slices.IndexFunc(mergers, func(m merger) bool { return hasShape(cmd.Args(), m.shape, m.args) })
		if !ok || kind < 0 {
			rest = append(rest, cmd)
			continue
		}
		m := &mergers[kind]
		at := slices.IndexFunc(merged, func(t *together) bool { return t.merger == m && m.sameQueue(cmd.Args(), t.of[0].Args()) })
		if at < 0 {
			at = len(merged)
			merged = append(merged, &together{merger: m})
		}
		merged[at].of = append(merged[at].of, one)
	}
	return merged, rest
}

// queue puts the command that does all of them into a pipeline. It brings its script along: a Redis that lost its scripts
// takes one more round trip for a hash that it does not know, and a pipeline has none to give.
func (t *together) queue(ctx context.Context, pipe redis.Pipeliner) {
	m, first := t.merger, t.of[0].Args()
	args := make([]any, 0, argFirstKey+len(m.shared)+len(t.of)*(1+m.args))
	args = append(args, "eval", m.script, len(m.shared)+len(t.of))
	for _, i := range m.shared {
		args = append(args, first[argFirstKey+i])
	}
	for _, cmd := range t.of {
		for i, key := range m.shape {
			if key == keyTask {
				args = append(args, cmd.Args()[argFirstKey+i])
			}
		}
	}
	for _, cmd := range t.of {
		args = append(args, cmd.Args()[argFirstKey+len(m.shape):]...)
	}
	t.cmd = redis.NewCmd(ctx, args...)
	_ = pipe.Process(ctx, t.cmd)
}

// answer gives every command its own answer.
func (t *together) answer() {
	found, err := t.cmd.Int64Slice()
	if err == nil && len(found) != len(t.of) {
		err = errors.New("a script's answer has another length")
	}
	for i, cmd := range t.of {
		if err != nil {
			cmd.SetErr(err)
			continue
		}
		t.merger.answer(cmd, found[i])
	}
}
