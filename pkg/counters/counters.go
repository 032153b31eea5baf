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

// Counters keep one byte per message of a running bulk, its standing, and the counts of each standing beside it. They
// implement delivery.Counters and bulk.Counters. Every script that writes one of the two keys also gives it an expiry,
// so that no death of a process leaves a key for good; the runner of the bulk puts the expiry off.
type Counters struct {
	rdb   redis.UniversalClient
	group *batch.Group[countItem, struct{}]
	reads *batch.Group[uuid.UUID, reading]
	told  atomic.Pointer[func(uuid.UUID)]
}

// reading is what the hash of a bulk says.
type reading struct {
	counts stats.Counts
	ok     bool
}

type countItem struct {
	bulkID uuid.UUID
	mark   stats.MessageState
}

// New makes Counters over a Redis connection of their own. failed is told when messages could not be counted.
func New(rdb redis.UniversalClient, failed func(error)) *Counters {
	c := &Counters{rdb: rdb}
	c.group = batch.New("count", nil, c.countGroup)
	c.group.Lost(failed)
	c.reads = batch.New("read the counts", nil, c.readGroup)
	return c
}

// Close waits for counts under way.
func (c *Counters) Close() {
	c.group.Close()
	c.reads.Close()
}

// Tell has a function told of each bulk of which this process has counted messages. It must not block.
func (c *Counters) Tell(told func(bulkID uuid.UUID)) { c.told.Store(&told) }

// Both keys share a hash tag, so that one script may touch both in a cluster.
// Earlier versions numbered the codes differently, under keys that ended in ranks and counts.
func statesKey(id uuid.UUID) string { return "herald:{" + id.String() + "}:states" }
func countsKey(id uuid.UUID) string { return "herald:{" + id.String() + "}:state_counts" }

const (
	costField = "cost"
	openField = "open" // the hash exists even while nothing is counted
	foldField = "fold" // the counts are being made anew: do not read them
	markParts = 4      // arguments of the script per message
	chunk     = 500    // marks per script call, so that no call holds Redis up

	// countsTTL is how long counts outlive the last call that kept them. When they are gone readers ask the database, and
	// the runner of the bulk rebuilds them.
	countsTTL = 24 * time.Hour
)

// expireLua gives the keys an expiry, those that have one too if always is 1. A key that is made while the other exists
// gets its own.
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

// markScript makes the hash, or a field of it, and puts off the expiry of both keys. KEYS: states, counts. ARGV: fields.
var markScript = redis.NewScript(expireLua + `
for _, field in ipairs(ARGV) do redis.call('HSET', KEYS[2], field, 1) end
expire(true)
return 1`)

func (c *Counters) mark(ctx context.Context, bulkID uuid.UUID, fields ...any) error {
	return markScript.Run(ctx, c.rdb, []string{statesKey(bulkID), countsKey(bulkID)}, fields...).Err()
}

// Count implements delivery.Counters. It leaves the mark to be counted in a moment, with others.
func (c *Counters) Count(bulkID uuid.UUID, m stats.MessageState) { c.group.Leave(countItem{bulkID, m}) }

func (c *Counters) countGroup(ctx context.Context, items []countItem) ([]struct{}, error) {
	marks := map[uuid.UUID][]stats.MessageState{}
	for _, it := range items {
		marks[it.bulkID] = append(marks[it.bulkID], it.mark)
	}
	for id, list := range marks {
		if err := c.CountAll(ctx, id, list); err != nil {
			return nil, err
		}
		if told := c.told.Load(); told != nil {
			(*told)(id)
		}
	}
	return make([]struct{}, len(items)), nil
}

// CountAll implements bulk.Counters.
func (c *Counters) CountAll(ctx context.Context, bulkID uuid.UUID, marks []stats.MessageState) error {
	keys := []string{statesKey(bulkID), countsKey(bulkID)}
	for from := 0; from < len(marks); from += chunk {
		part := marks[from:min(from+chunk, len(marks))]
		args := make([]any, 0, markParts*len(part))
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
		return stats.Counts{}, false, redisconn.Unavailable("read the counts", err)
	}
	r := parseCounts(fields)
	return r.counts, r.ok, nil
}

// Follow implements bulk.Counters.
func (c *Counters) Follow(ctx context.Context, bulkID uuid.UUID) (stats.Counts, bool, error) {
	r, err := c.reads.Do(ctx, bulkID)
	return r.counts, r.ok, redisconn.Unavailable("read the counts", err)
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
	_, folding := fields[foldField]
	counts := stats.Counts{By: map[stats.StateCode]int64{}}
	for name, v := range fields {
		n, _ := strconv.ParseInt(v, 10, 64)
		if name == costField {
			counts.Cost = message.Micros(n)
		} else if s, err := strconv.ParseUint(name, 10, 8); err == nil {
			counts.By[stats.StateCode(s)] = n
		}
	}
	return reading{counts, len(fields) > 0 && !folding}
}

// Begin implements bulk.Counters.
func (c *Counters) Begin(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("begin to count", c.mark(ctx, bulkID, openField))
}

// BeginRebuild implements bulk.Counters.
func (c *Counters) BeginRebuild(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("begin to fold", c.mark(ctx, bulkID, openField, foldField))
}

// EndRebuild implements bulk.Counters.
func (c *Counters) EndRebuild(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("end the fold", c.rdb.HDel(ctx, countsKey(bulkID), foldField).Err())
}

// Keep implements bulk.Counters.
func (c *Counters) Keep(ctx context.Context, bulkID uuid.UUID) error {
	return redisconn.Unavailable("keep the counts", c.mark(ctx, bulkID))
}
