package queue

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/batch"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// Counters keep one byte per message of a running bulk, its standing, and the counts of each standing beside it. They
// implement delivery.Counters, bulk.Counters and bulk.Expirer.
type Counters struct {
	rdb   redis.UniversalClient
	group *batch.Group[countItem, struct{}]
}

type countItem struct {
	bulkID uuid.UUID
	mark   stats.Mark
}

// NewCounters makes Counters over a Redis connection of their own. failed is told when messages could not be counted.
func NewCounters(rdb redis.UniversalClient, failed func(error)) *Counters {
	c := &Counters{rdb: rdb}
	c.group = batch.New("count", nil, c.countGroup)
	c.group.Lost(failed)
	return c
}

// Close waits for counts under way.
func (c *Counters) Close() { c.group.Close() }

// Both keys share a hash tag, so that one script may touch both in a cluster.
func ranksKey(id uuid.UUID) string  { return "herald:{" + id.String() + "}:ranks" }
func countsKey(id uuid.UUID) string { return "herald:{" + id.String() + "}:counts" }

const (
	costField = "cost"
	openField = "open" // the hash exists even while nothing is counted
	foldField = "fold" // the counts are being made anew: do not read them
	markParts = 3      // arguments of the script per mark
	chunk     = 500    // marks per script call, so that no call holds Redis up
)

// countScript moves standings upward and keeps the counts in step. Without the hash it does nothing: Redis lost the
// counts, and whoever runs the bulk makes both anew from the rows. A cost is added when a message first reaches SENT.
// KEYS: ranks, counts. ARGV: seq, standing, cost of each mark. The rank of a standing s is ceil(s / width).
var countScript = redis.NewScript(`
local width, sent = ` + strconv.Itoa(stats.Width) + `, ` + strconv.Itoa(sentRank) + `
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local function rank(s) return math.floor((s + width - 1) / width) end
local by, cost = {}, 0
for i = 1, #ARGV, 3 do
  local seq, new, old = ARGV[i], tonumber(ARGV[i + 1]), 0
  local byte = redis.call('GETRANGE', KEYS[1], seq, seq)
  if byte ~= '' then old = string.byte(byte) end
  if rank(new) > rank(old) then
    redis.call('SETRANGE', KEYS[1], seq, string.char(new))
    by[new] = (by[new] or 0) + 1
    if old > 0 then by[old] = (by[old] or 0) - 1 end
    if rank(new) >= sent and rank(old) < sent then cost = cost + tonumber(ARGV[i + 2]) end
  end
end
for standing, n in pairs(by) do redis.call('HINCRBY', KEYS[2], standing, n) end
if cost > 0 then redis.call('HINCRBY', KEYS[2], '` + costField + `', string.format('%.0f', cost)) end
return 1`)

// sentRank is the rank of SENT among standings, where waiting comes first.
var sentRank = message.Sent.Rank() + 1

// Count implements delivery.Counters. It leaves the mark to be counted in a moment, with others.
func (c *Counters) Count(bulkID uuid.UUID, m stats.Mark) { c.group.Leave(countItem{bulkID, m}) }

func (c *Counters) countGroup(ctx context.Context, items []countItem) ([]struct{}, error) {
	marks := map[uuid.UUID][]stats.Mark{}
	for _, it := range items {
		marks[it.bulkID] = append(marks[it.bulkID], it.mark)
	}
	for id, list := range marks {
		if err := c.CountAll(ctx, id, list); err != nil {
			return nil, err
		}
	}
	return make([]struct{}, len(items)), nil
}

// CountAll implements bulk.Counters.
func (c *Counters) CountAll(ctx context.Context, bulkID uuid.UUID, marks []stats.Mark) error {
	keys := []string{ranksKey(bulkID), countsKey(bulkID)}
	for from := 0; from < len(marks); from += chunk {
		part := marks[from:min(from+chunk, len(marks))]
		args := make([]any, 0, markParts*len(part))
		for _, m := range part {
			args = append(args, m.Seq, int(m.Standing()), int64(m.Cost))
		}
		if err := countScript.Run(ctx, c.rdb, keys, args...).Err(); err != nil {
			return fail("count", err)
		}
	}
	return nil
}

// Read implements bulk.Counters.
func (c *Counters) Read(ctx context.Context, bulkID uuid.UUID) (stats.Counts, bool, error) {
	fields, err := c.rdb.HGetAll(ctx, countsKey(bulkID)).Result()
	if err != nil {
		return stats.Counts{}, false, fail("read the counts", err)
	}
	_, folding := fields[foldField]
	counts := stats.Counts{By: map[stats.Standing]int64{}}
	for name, v := range fields {
		n, _ := strconv.ParseInt(v, 10, 64)
		if name == costField {
			counts.Cost = message.Micros(n)
		} else if s, err := strconv.ParseUint(name, 10, 8); err == nil {
			counts.By[stats.Standing(s)] = n
		}
	}
	return counts, len(fields) > 0 && !folding, nil
}

// BeginFold implements bulk.Counters.
func (c *Counters) BeginFold(ctx context.Context, bulkID uuid.UUID) error {
	return fail("begin to fold", c.rdb.HSet(ctx, countsKey(bulkID), openField, 1, foldField, 1).Err())
}

// EndFold implements bulk.Counters.
func (c *Counters) EndFold(ctx context.Context, bulkID uuid.UUID) error {
	return fail("end the fold", c.rdb.HDel(ctx, countsKey(bulkID), foldField).Err())
}

// Expire implements bulk.Expirer.
func (c *Counters) Expire(ctx context.Context, bulkID uuid.UUID, after time.Duration) error {
	pipe := c.rdb.Pipeline()
	pipe.Expire(ctx, ranksKey(bulkID), after)
	pipe.Expire(ctx, countsKey(bulkID), after)
	_, err := pipe.Exec(ctx)
	return fail("expire the counts", err)
}
