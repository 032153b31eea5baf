package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/channel"
	"herald/pkg/redisconn"
)

// Refusals counts the different recipients in a row that a provider refused with the same code, over each channel and for all
// processes together. It implements delivery.Refusals and is safe for concurrent use.
//
// The recipients of a streak are in one hash in Redis, as four bytes of a digest: enough to tell twenty recipients apart, and
// too little to find one.
type Refusals struct {
	rdb   redis.UniversalClient
	now   func() time.Time
	redis redisBreaker

	mu      sync.Mutex
	cleared map[channel.Key]time.Time // when this process last removed the streak of a channel
}

// refusalsTTL is how long a streak is kept after its last refusal.
const refusalsTTL = time.Hour

// clearInterval is the time in which a process removes the streak of a channel at most once, unless it has added to the streak
// itself. It keeps acceptances, of which there are thousands a second, from calling Redis.
const clearInterval = time.Second

// NewRefusals makes a Refusals.
func NewRefusals(rdb redis.UniversalClient) *Refusals {
	return &Refusals{rdb: rdb, now: time.Now, redis: redisBreaker{now: time.Now}, cleared: map[channel.Key]time.Time{}}
}

func refusalsKey(k channel.Key) string { return keyOf(k, "refusals") }

// refusedScript adds a recipient (ARGV[2]) to the streak of a code (ARGV[1]) over a version of the channel (ARGV[3]), and returns
// its length. A streak of another code or of an earlier version ends. A refusal over an earlier version does not count: its call
// was in flight when the channel was paused or resumed. ARGV[4] is refusalsTTL in milliseconds.
var refusedScript = redis.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'code', 'version')
local version = tonumber(h[2] or 0) or 0
if version > tonumber(ARGV[3]) then return 0 end
if h[1] ~= ARGV[1] or version < tonumber(ARGV[3]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'code', ARGV[1], 'version', ARGV[3])
end
redis.call('HSET', KEYS[1], 'to:' .. ARGV[2], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return redis.call('HLEN', KEYS[1]) - 2
`)

// Refused implements delivery.Refusals. A streak at its limit stays there until the channel changes, so that a pause that failed
// is tried again with the next refusal.
func (r *Refusals) Refused(ctx context.Context, c *channel.Channel, code, recipient string, limit int) (bool, error) {
	k := c.Key
	r.mu.Lock()
	delete(r.cleared, k)
	r.mu.Unlock()
	if r.redis.open() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	digest := sha256.Sum256([]byte(k.ID.String() + recipient))
	n, err := refusedScript.Run(ctx, r.rdb, []string{refusalsKey(k)}, code, hex.EncodeToString(digest[:4]), c.Version, refusalsTTL.Milliseconds()).Int()
	if err != nil {
		r.redis.trip()
		return false, redisconn.Unavailable("count a refusal", err)
	}
	return n >= limit, nil
}

// Accepted implements delivery.Refusals.
func (r *Refusals) Accepted(ctx context.Context, k channel.Key) error {
	now := r.now()
	r.mu.Lock()
	last, ok := r.cleared[k]
	recent := ok && now.Sub(last) < clearInterval
	if !recent {
		r.cleared[k] = now
	}
	r.mu.Unlock()
	if recent || r.redis.open() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := r.rdb.Del(ctx, refusalsKey(k)).Err(); err != nil {
		r.redis.trip()
		return redisconn.Unavailable("end the refusals in a row", err)
	}
	return nil
}
