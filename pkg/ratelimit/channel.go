package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/redisconn"
)

// ChannelLimiter paces the calls over each channel for all processes together, by Redis's clock: within the channel's rate,
// within what the provider lets through, and with a single call at a time to a provider that does not answer. Without
// Redis bulks wait, and singles keep to the channel's rate in each process by itself. It implements delivery.Limiter and
// bulk.ChannelHealth.
type ChannelLimiter struct {
	rdb     redis.UniversalClient
	changed func(channel.Key, channel.State)
	mu      sync.Mutex
	paces   map[channel.Key]*pace
	away    time.Time // until then Redis is not asked: it did not answer
}

// pace is what this process knows of a channel.
type pace struct {
	state   channel.State
	rate    float64 // what the provider lets through, 0: all
	failing bool    // calls failed, and an answer is news
	looked  time.Time
	local   *rate.Limiter // while Redis does not answer

	second   int64 // of the clock
	accepted int   // calls in this second
	before   int   // calls in the second before it
}

const (
	// turnAhead is how far ahead a call's turn may be given: that long a delivery waits for it.
	turnAhead = 1500 * time.Millisecond
	// singleAhead is how much further singles may push the others back, since they do not wait for a turn at all.
	singleAhead = time.Second

	paceLook   = 500 * time.Millisecond // how old what is known of a healthy channel may be
	paceTTL    = time.Hour              // an idle channel's pace is forgotten
	slowLeast  = time.Second            // between two reductions: calls in flight all meet the same refusal
	slowTo     = 0.85                   // of the rate at which the provider refused
	growth     = 0.04                   // of that, gained back every second: about where it refuses, it is tried with care
	trustAfter = 10 * time.Second       // after so long without a refusal the rate doubles every second;
	trustFirst = 2 * time.Second        // at first sooner, since what one process had accepted is less than what all may
	forgetSlow = 40 * time.Second       // and after so long the provider is believed to take all
	patience   = 300 * time.Millisecond // a call does not wait longer for Redis to say when its turn is
	awayFor    = time.Second            // and after that nobody asks for a while
	failsMost  = 5                      // calls without an answer in a row that make a channel DOWN
	probeLeast = time.Second            // between two calls over a channel that is DOWN, doubled each time
	probeMost  = 15 * time.Second
)

// NewChannelLimiter makes a ChannelLimiter. changed is told when this process learns that a channel's health changed.
func NewChannelLimiter(rdb redis.UniversalClient, changed func(channel.Key, channel.State)) *ChannelLimiter {
	return &ChannelLimiter{rdb: rdb, changed: changed, paces: map[channel.Key]*pace{}}
}

func paceKey(k channel.Key) string {
	return "herald:{" + k.ID.String() + "/" + string(k.Type) + "}:pace"
}

// The pace of a channel is a hash, with times in microseconds: tat, when the next turn is to be had; rate, what the
// provider let through at its last refusal, slowed, from when on that grows, and reduced, when it was set; until, before
// when nothing is called; fails, how many calls in a row got no answer; probes, how many of them were made to see whether
// that is over, and probing while one is under way.
var paceLua = fmt.Sprintf(`
local AHEAD, SINGLE_AHEAD, TTL = %d, %d, %d
local SLOW_LEAST, SLOW_TO, GROWTH, TRUST, TRUST_FIRST, FORGET = %d, %g, %g, %g, %g, %d
local FAILS, PROBE_LEAST, PROBE_MOST = %d, %d, %d
`, turnAhead.Microseconds(), singleAhead.Microseconds(), paceTTL.Milliseconds(),
	slowLeast.Microseconds(), slowTo, growth, trustAfter.Seconds(), trustFirst.Seconds(), forgetSlow.Microseconds(),
	failsMost, probeLeast.Microseconds(), probeMost.Microseconds()) + `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[1], 'tat', 'rate', 'slowed', 'until', 'fails', 'probing', 'reduced')
local function field(i) return tonumber(h[i] or 0) or 0 end
local tat, rate, slowed, hold, fails, probing, reduced = field(1), field(2), field(3), field(4), field(5), field(6), field(7)
local function set(name, v) redis.call('HSET', KEYS[1], name, string.format('%.0f', v)) end
if rate > 0 then
  local s = (now - slowed) / 1000000
  if now - slowed > FORGET then rate = 0
  else rate = rate * (1 + GROWTH * math.min(s, TRUST)) * 2 ^ math.max(s - TRUST, 0) end
end
`

// takeScript gives a turn, {1, microseconds until it comes}, or, none being near enough, {0, when to ask again}. ARGV:
// the microseconds between two calls at the channel's own rate (0: it has none), how many calls, 1 for a single. A
// single's turn comes at once, and whoever asks later waits longer for it.
var takeScript = redis.NewScript(paceLua + `
redis.call('PEXPIRE', KEYS[1], TTL)
if hold > now then return {0, hold - now} end
if fails >= FAILS then
  set('probing', 1)
  set('until', now + PROBE_MOST)
  return {1, 0}
end
local between, ahead, single = tonumber(ARGV[1]), AHEAD, ARGV[3] == '1'
if rate > 0 then between = math.max(between, 1000000 / rate) end
if between == 0 then return {1, 0} end
if single then ahead = ahead + SINGLE_AHEAD end
tat = math.max(tat, now)
local wait = tat - now
if wait > ahead then return {0, wait - ahead + between} end
set('tat', tat + ARGV[2] * between)
if single then wait = 0 end
return {1, wait}`)

// reportScript takes note of what a call met. ARGV: what; for a throttled call how long the provider asked to be left
// alone, and how many calls a second of this process it last accepted.
var reportScript = redis.NewScript(paceLua + `
if ARGV[1] == 'throttled' then
  if fails >= FAILS then hold = 0 end
  redis.call('HDEL', KEYS[1], 'fails', 'probing', 'probes')
  if now - reduced > SLOW_LEAST then
    local since = now
    if rate > 0 then rate = rate * SLOW_TO else rate, since = tonumber(ARGV[3]), now - (TRUST - TRUST_FIRST) * 1000000 end
    redis.call('HSET', KEYS[1], 'rate', tostring(math.max(rate, 1)))
    set('slowed', since)
    set('reduced', now)
  end
  set('until', math.max(hold, now + ARGV[2]))
elseif ARGV[1] == 'failing' then
  fails = redis.call('HINCRBY', KEYS[1], 'fails', 1)
  if fails == FAILS then
    set('until', now + PROBE_LEAST)
  elseif probing == 1 then
    local probes = redis.call('HINCRBY', KEYS[1], 'probes', 1)
    redis.call('HDEL', KEYS[1], 'probing')
    set('until', now + math.min(PROBE_LEAST * 2 ^ math.min(probes, 10), PROBE_MOST))
  end
elseif fails > 0 then
  redis.call('HDEL', KEYS[1], 'fails', 'probing', 'probes', 'until')
end
redis.call('PEXPIRE', KEYS[1], TTL)
return {1}`)

// lookScript tells a channel's health: {thousandths of its rate, calls that failed}.
var lookScript = redis.NewScript(paceLua + `return {math.floor(rate * 1000), fails, hold > now and 1 or 0}`)

// of returns what is known of a channel. The caller holds the lock.
func (l *ChannelLimiter) of(k channel.Key) *pace {
	p := l.paces[k]
	if p == nil {
		p = &pace{state: channel.Active}
		l.paces[k] = p
	}
	return p
}

// look refreshes what is known of a channel if it is too old, and returns its health and what the provider lets
// through, 0 for all.
func (l *ChannelLimiter) look(ctx context.Context, k channel.Key) (channel.State, float64) {
	l.mu.Lock()
	p := l.of(k)
	state, limit := p.state, p.rate
	fresh := time.Since(p.looked) < paceLook
	if !fresh {
		p.looked = time.Now() // the others need not ask meanwhile
	}
	l.mu.Unlock()
	if fresh {
		return state, limit
	}
	v, err := l.ask(ctx, lookScript, k)
	if err != nil {
		return state, limit
	}
	found := channel.Active
	switch {
	case v[1] >= failsMost:
		found = channel.Down
	case v[0] > 0 || v[2] > 0:
		found = channel.Throttled
	}
	limit = float64(v[0]) / 1000
	l.mu.Lock()
	p.state, p.rate, p.failing = found, limit, v[1] > 0
	l.mu.Unlock()
	if found != state {
		l.changed(k, found)
	}
	return found, limit
}

// State tells how a channel's provider behaves: ACTIVE, THROTTLED or DOWN.
func (l *ChannelLimiter) State(ctx context.Context, k channel.Key) channel.State {
	state, _ := l.look(ctx, k)
	return state
}

// Rate implements bulk.ChannelHealth.
func (l *ChannelLimiter) Rate(ctx context.Context, c *channel.Channel) float64 {
	state, limit := l.look(ctx, c.Key)
	switch {
	case state == channel.Down:
		return 1
	case limit > 0 && (c.RatePerSecond == 0 || limit < c.RatePerSecond):
		return limit
	}
	return c.RatePerSecond
}

// Reserve implements delivery.Limiter. A healthy channel without a rate costs no question.
func (l *ChannelLimiter) Reserve(ctx context.Context, c *channel.Channel, n int, single bool) delivery.Reservation {
	if state, _ := l.look(ctx, c.Key); state == channel.Active && c.RatePerSecond == 0 {
		return delivery.Reservation{Granted: true}
	}
	between, first := int64(0), 0
	if c.RatePerSecond > 0 {
		between = int64(1e6 / c.RatePerSecond)
	}
	if single {
		first = 1
	}
	v, err := l.ask(ctx, takeScript, c.Key, between, n, first)
	if err != nil {
		if single {
			return l.reserveLocally(c, n) // a single does not wait for Redis
		}
		return delivery.Reservation{Wait: awayFor} // a bulk's message does, so that the rate is kept
	}
	return delivery.Reservation{Granted: v[0] == 1, Wait: time.Duration(v[1]) * time.Microsecond}
}

func (l *ChannelLimiter) reserveLocally(c *channel.Channel, n int) delivery.Reservation {
	if c.RatePerSecond == 0 {
		return delivery.Reservation{Granted: true}
	}
	l.mu.Lock()
	p := l.of(c.Key)
	if p.local == nil || p.local.Limit() != rate.Limit(c.RatePerSecond) {
		p.local = rate.NewLimiter(rate.Limit(c.RatePerSecond), max(int(c.RatePerSecond/10), n, 1))
	}
	r := p.local.ReserveN(time.Now(), n)
	l.mu.Unlock()
	if d := r.Delay(); d > turnAhead {
		r.Cancel()
		return delivery.Reservation{Wait: d}
	}
	return delivery.Reservation{Granted: true, Wait: r.Delay()}
}

// Report implements delivery.Limiter. An answer from a healthy channel costs nothing.
func (l *ChannelLimiter) Report(ctx context.Context, c *channel.Channel, s delivery.Signal, alone time.Duration) error {
	l.mu.Lock()
	p := l.of(c.Key)
	known := s == delivery.Answered && !p.failing
	if now := time.Now().Unix(); now != p.second {
		if p.before = p.accepted; now > p.second+1 {
			p.before = 0
		}
		p.second, p.accepted = now, 0
	}
	if s == delivery.Answered {
		p.accepted++
	}
	if !known {
		p.failing = p.failing || s == delivery.Failing
		p.looked = time.Time{} // its health has changed, most likely
	}
	seen := max(p.before, p.accepted)
	l.mu.Unlock()
	if known {
		return nil
	}
	_, err := l.ask(ctx, reportScript, c.Key, string(s), alone.Microseconds(), seen)
	return redisconn.Unavailable("report on a channel", err)
}

var errAway = errors.New("no answer from Redis a moment ago")

// ask runs a script on a channel's pace. It waits a little only, and after a failure nobody asks for a while.
func (l *ChannelLimiter) ask(ctx context.Context, script *redis.Script, k channel.Key, args ...any) ([]int64, error) {
	l.mu.Lock()
	away := time.Now().Before(l.away)
	l.mu.Unlock()
	if away {
		return nil, errAway
	}
	actx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := script.Run(actx, l.rdb, []string{paceKey(k)}, args...).Int64Slice()
	if err != nil && ctx.Err() == nil {
		l.mu.Lock()
		l.away = time.Now().Add(awayFor)
		l.mu.Unlock()
	}
	return v, err
}
