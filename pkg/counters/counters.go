// Package counters keeps the counters of running bulks in Redis: for each bulk a string with one byte per message, its state
// code, and a hash with the number of messages of each state code. Redis may lose both at any moment; the bulk's runner then
// rebuilds them from the ledger. The package must not know the queue or the database.
package counters

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/batch"
	"herald/pkg/message"
	"herald/pkg/redisconn"
	"herald/pkg/stats"
)

// Counters implements delivery.Counters and bulk.Counters. It is safe for concurrent use. A script that writes one of a bulk's two
// keys also gives it an expiry, so that no key stays after the death of a process; Keep, called by the bulk's runner, extends it.
type Counters struct {
	rdb     redis.UniversalClient
	group   *batch.Group[countItem, struct{}]
	reads   *batch.Group[uuid.UUID, reading]
	onCount atomic.Pointer[func(uuid.UUID)]
}

// reading is the content of a bulk's hash. ok is false when it is missing or being rebuilt.
type reading struct {
	counts stats.Counts
	ok     bool
}

type countItem struct {
	bulkID uuid.UUID
	state  stats.MessageState
}

// New makes Counters. failed is told when messages of Count could not be counted; it may be nil.
func New(rdb redis.UniversalClient, failed func(error)) *Counters {
	c := &Counters{rdb: rdb}
	c.group = batch.New("count", nil, c.countGroup)
	c.group.OnError(failed)
	c.reads = batch.New("read counters", nil, c.readGroup)
	return c
}

// Close waits for counts under way. No call may follow.
func (c *Counters) Close() {
	c.group.Close()
	c.reads.Close()
}

// Tell sets a function that is told of each bulk of which this process has counted messages. It must not block.
func (c *Counters) Tell(told func(bulkID uuid.UUID)) { c.onCount.Store(&told) }

// Both keys share a hash tag, so that one script may use both in a cluster.
// Earlier versions numbered the codes differently, under keys that ended in ranks and counts.
func statesKey(id uuid.UUID) string { return "herald:{" + id.String() + "}:states" }
func countsKey(id uuid.UUID) string { return "herald:{" + id.String() + "}:state_counts" }

const (
	costField    = "cost"
	openField    = "open"    // keeps the hash in existence while nothing is counted
	rebuildField = "rebuild" // the counts are being rebuilt and must not be read
	argsPerState = 4         // of countScript
	chunk        = 500       // states for each script call, so that no call blocks Redis for long

	// countsTTL is how long counts outlive the last Keep. After that readers ask the database, and the bulk's runner rebuilds
	// the counters.
	countsTTL = 24 * time.Hour
)

// expireLua defines expire(always), which gives both keys an expiry. Keys that have one get a new one only if always is set.
var expireLua = `
local function expire(always)
  for _, k in ipairs(KEYS) do
    if always or redis.call('PTTL', k) == -1 then redis.call('PEXPIRE', k, ` + strconv.FormatInt(countsTTL.Milliseconds(), 10) + `) end
  end
end
`

// countScript moves the codes of messages upwards and keeps the counts in step. Without the hash it does nothing: Redis lost the
// counts, and the bulk's runner rebuilds them from the rows. A code is replaced only if it is below the floor of the new one,
// which is the first code of the new status. A cost is added when a message first reaches SENT or a later status.
// KEYS: states, counts. ARGV: seq, code, floor, cost of each message.
var countScript = redis.NewScript(expireLua + `
local sent = ` + strconv.Itoa(int(stats.MessageState{Status: message.Sent}.Floor())) + `
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local by, cost = {}, 0
for i = 1, #ARGV, 4 do
  local seq, new, floor, old = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), 0
  local byte = redis.call('GETRANGE', KEYS[1], seq, seq)
  if byte ~= '' then old = string.byte(byte) end
  if old < floor then
    redis.call('SETRANGE', KEYS[1], seq, string.char(new))
    by[new] = (by[new] or 0) + 1
    if old > 0 then by[old] = (by[old] or 0) - 1 end
    if floor >= sent and old < sent then cost = cost + tonumber(ARGV[i + 3]) end
  end
end
for code, n in pairs(by) do redis.call('HINCRBY', KEYS[2], code, n) end
if cost > 0 then redis.call('HINCRBY', KEYS[2], '` + costField + `', string.format('%.0f', cost)) end
expire(false)
return 1`)

// setFieldsScript sets fields of the hash and extends the expiry of both keys. KEYS: states, counts. ARGV: fields.
var setFieldsScript = redis.NewScript(expireLua + `
for _, field in ipairs(ARGV) do redis.call('HSET', KEYS[2], field, 1) end
expire(true)
return 1`)

func (c *Counters) setFields(ctx context.Context, bulkID uuid.UUID, fields ...any) error {
	return setFieldsScript.Run(ctx, c.rdb, []string{statesKey(bulkID), countsKey(bulkID)}, fields...).Err()
}

// Count implements delivery.Counters. It returns at once; the message is counted together with others (group commit).
func (c *Counters) Count(bulkID uuid.UUID, m stats.MessageState) {
	c.group.DoAsync(countItem{bulkID, m})
}

func (c *Counters) countGroup(ctx context.Context, items []countItem) ([]struct{}, error) {
	states := map[uuid.UUID][]stats.MessageState{}
	for _, it := range items {
		states[it.bulkID] = append(states[it.bulkID], it.state)
	}
	for id, list := range states {
		if err := c.CountAll(ctx, id, list); err != nil {
			return nil, err
		}
		if tell := c.onCount.Load(); tell != nil {
			(*tell)(id)
		}
	}
	return make([]struct{}, len(items)), nil
}

// CountAll implements bulk.Counters. It returns when all messages are counted.
func (c *Counters) CountAll(ctx context.Context, bulkID uuid.UUID, states []stats.MessageState) error {
	keys := []string{statesKey(bulkID), countsKey(bulkID)}
	for from := 0; from < len(states); from += chunk {
		part := states[from:min(from+chunk, len(states))]
		args := make([]any, 0, argsPerState*len(part))
		for _, m := range part {
			args = append(args, m.Seq, int(m.Code()), int(m.Floor()), int64(m.Cost))
		}
		if err := countScript.Run(ctx, c.rdb, keys, args...).Err(); err != nil {
			return redisconn.Unavailable("count", err)
		}
	}
	return nil
}

// Read implements bulk.Counters.
func (c *Counters) Read(ctx context.Context, bulkID uuid.UUID) (stats.Counts, bool, error) {
	fields, err := c.rdb.HGetAll(ctx, countsKey(bulkID)).Result()
	if err != nil {
		return stats.Counts{}, false, redisconn.Unavailable("read counters", err)
	}
	r := parseCounts(fields)
	return r.counts, r.ok, nil
}

// Follow implements bulk.Counters. Concurrent calls share a round trip.
func (c *Counters) Follow(ctx context.Context, bulkID uuid.UUID) (stats.Counts, bool, error) {
	r, err := c.reads.Do(ctx, bulkID)
	return r.counts, r.ok, redisconn.Unavailable("read counters", err)
}

func (c *Counters) readGroup(ctx context.Context, ids []uuid.UUID) ([]reading, error) {
	pipe := c.rdb.Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		cmds[i] = pipe.HGetAll(ctx, countsKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	out := make([]reading, len(ids))
	for i, cmd := range cmds {
		out[i] = parseCounts(cmd.Val())
	}
	return out, nil
}

func parseCounts(fields map[string]string) reading {
	_, rebuilding := fields[rebuildField]
	counts := stats.Counts{By: map[stats.StateCode]int64{}}
	for name, v := range fields {
		n, _ := strconv.ParseInt(v, 10, 64)
		if name == costField {
			counts.Cost = message.Micros(n)
		} else if s, err := strconv.ParseUint(name, 10, 8); err == nil {
			counts.By[stats.StateCode(s)] = n
		}
	}
	return reading{counts, len(fields) > 0 && !rebuilding}
}

// Begin implements bulk.Counters.
func (c *Counters) Begin(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("begin counters", c.setFields(ctx, bulkID, openField))
}

// BeginRebuild implements bulk.Counters.
func (c *Counters) BeginRebuild(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("begin to rebuild counters", c.setFields(ctx, bulkID, openField, rebuildField))
}

// EndRebuild implements bulk.Counters.
func (c *Counters) EndRebuild(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("end rebuilding counters", c.rdb.HDel(ctx, countsKey(bulkID), rebuildField).Err())
}

// Keep implements bulk.Counters.
func (c *Counters) Keep(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("keep counters", c.setFields(ctx, bulkID))
}
