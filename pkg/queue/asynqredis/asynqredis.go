// Package asynqredis describes what Asynq 0.26 stores in Redis: the names of its keys and the scripts that Herald runs on
// them. Asynq keeps both in internal packages, so they are repeated here, in one file, for the janitor and for asynqfast. An
// upgrade of Asynq is checked against this file: TestKeysMatchAsynq and the tests of asynqfast fail on a difference.
//
// Layout of a queue (https://github.com/hibiken/asynq/blob/v0.26.0/internal/rdb/rdb.go):
//
//	pending                                 list of ids, pushed on the left, taken from the right
//	active                                  list of ids that a server has taken
//	lease                                   sorted set of active ids by the Unix second at which the lease expires
//	scheduled, retry, archived, completed   sorted sets of ids
//	paused                                  exists while the queue is paused
//	processed, processed:<day>              counts of acknowledged tasks
//	t:<id>                                  hash of a task: msg, state, pending_since
package asynqredis

import (
	"strings"

	"github.com/redis/go-redis/v9"
)

// Queues is the key of the set of all queue names. Asynq's inspector finds no queue that is missing from it.
const Queues = "asynq:queues"

// Parts of a queue's keys, behind Prefix.
const (
	Pending   = "pending"
	Active    = "active"
	Lease     = "lease"
	Scheduled = "scheduled"
	Retry     = "retry"
	Archived  = "archived"
	Completed = "completed"
	Paused    = "paused"
	Processed = "processed"
	task      = "t:"
)

// Lists and Sets are the collections in which a task's id can stand. An id stands in one of them; an active id also stands
// in Lease.
var (
	Lists = []string{Pending, Active}
	Sets  = []string{Scheduled, Retry, Archived, Completed}
)

// TaskPattern matches the keys of all tasks of all queues, for SCAN.
const TaskPattern = "asynq:{*}:" + task + "*"

// Prefix returns what all keys of a queue begin with. The braces are a hash tag: a cluster keeps a queue on one node.
func Prefix(queue string) string { return "asynq:{" + queue + "}:" }

// TaskKey returns the key of a task's hash.
func TaskKey(queue, id string) string { return Prefix(queue) + task + id }

// SplitTaskKey returns the queue and the id of a key that TaskKey made.
func SplitTaskKey(key string) (queue, id string, ok bool) {
	rest, ok := strings.CutPrefix(key, "asynq:{")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "}:"+task)
}

// Remove deletes a task and takes its id out of every collection. KEYS: the task's hash. ARGV: the queue's prefix, the id.
var Remove = redis.NewScript(`
for _, l in ipairs({'pending', 'active'}) do redis.call('LREM', ARGV[1] .. l, 0, ARGV[2]) end
for _, z in ipairs({'scheduled', 'retry', 'archived', 'completed', 'lease'}) do redis.call('ZREM', ARGV[1] .. z, ARGV[2]) end
return redis.call('DEL', KEYS[1])`)

// Requeue moves an active task back to the head of its queue, so that it is taken next, and answers 1. It answers 0 and
// changes nothing when the task is not active. KEYS: the task's hash. ARGV: the queue's prefix, the id, now in Unix nanoseconds.
var Requeue = redis.NewScript(`
if redis.call('LREM', ARGV[1] .. 'active', 0, ARGV[2]) == 0 then return 0 end
redis.call('ZREM', ARGV[1] .. 'lease', ARGV[2])
redis.call('HSET', KEYS[1], 'state', 'pending', 'pending_since', ARGV[3])
redis.call('RPUSH', ARGV[1] .. 'pending', ARGV[2])
return 1`)

// Dequeue does what Asynq's dequeue script does, for up to ARGV[3] tasks. It answers ids and messages in turn. An id whose
// hash is gone stays active, as it does with Asynq; the janitor removes it.
// KEYS: pending, paused, active, lease. ARGV: the leases' expiry in Unix seconds, the prefix of task hashes, how many.
var Dequeue = redis.NewScript(`
local out, active, leased = {}, {}, {}
if redis.call('EXISTS', KEYS[2]) == 1 then return out end
local ids = redis.call('LRANGE', KEYS[1], -ARGV[3], -1)
if #ids == 0 then return out end
redis.call('LTRIM', KEYS[1], 0, -ARGV[3] - 1)
for i = #ids, 1, -1 do
  local id = ids[i]
  local key = ARGV[2] .. id
  active[#active + 1] = id
  leased[#leased + 1] = ARGV[1]
  leased[#leased + 1] = id
  redis.call('HSET', key, 'state', 'active')
  redis.call('HDEL', key, 'pending_since')
  local msg = redis.call('HGET', key, 'msg')
  if msg then
    out[#out + 1] = id
    out[#out + 1] = msg
  end
end
redis.call('LPUSH', KEYS[3], unpack(active))
redis.call('ZADD', KEYS[4], unpack(leased))
return out`)

// EnqueueArgs and AckArgs are how many arguments the scripts Enqueue and Ack take for each task.
const (
	EnqueueArgs = 3
	AckArgs     = 3
)

// Enqueue does what Asynq's enqueue script does, for many tasks of one queue. It answers 1 for each task that is now pending
// and 0 for each id that existed. It is sent with EVAL, so it is a string.
// KEYS: pending, then the hash of each task. ARGV of each task: its message, its id, now in Unix nanoseconds.
const Enqueue = `
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
return out`

// Ack does what Asynq's done script does, for many tasks of one queue. It answers 1 for each task that was active and is now
// deleted, else 0. Asynq's script also refuses an active task without a lease or a hash, and its caller then retries in vain.
//
// LREM searches the list of active tasks from its old end, where finished tasks stand, and stops at the first match. Asynq's
// script searches the whole list for each task: with 600 active tasks that was a third of Redis' time.
//
// KEYS: active, lease, the day's count, the total count, then the hash of each task. ARGV of each task: its id, the expiry of
// the day's count in Unix seconds, the greatest count.
const Ack = `
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
return out`
