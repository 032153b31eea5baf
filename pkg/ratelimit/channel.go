// Package ratelimit limits calls over all processes together, by state in Redis: ChannelLimiter the calls over each channel,
// KeyLimiter the requests of each API key. Redis may lose that state at any moment: limits then start afresh. While Redis does
// not answer, a circuit breaker keeps callers from waiting for it, and each process limits by itself where that is safe.
//
// The package must not know what a call sends, or the owner of a key.
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

// ChannelLimiter decides when a call over a channel may go. It combines three mechanisms in one hash in Redis for each channel:
//
//   - GCRA (generic cell rate algorithm) spaces calls at the lower of the channel's own rate and the provider's limit. A call
//     reserves a time up to maxWait ahead. A single goes at once and moves the times of later callers back, so the rate is exact
//     on average without a share set aside for singles.
//   - AIMD finds the provider's limit: a refusal reduces the rate by reduceFactor, time without a refusal increases it, linearly
//     at first and exponentially later. The first refusal starts from the rate that was accepted.
//   - A circuit breaker protects a provider that does not answer: maxFailures in a row open it (the channel is DOWN), then
//     single probes go at growing intervals (half-open) until one is answered (closed).
//
// All times are Redis' clock. While Redis does not answer, messages of bulks wait, and singles keep to the channel's own rate in
// each process. It implements delivery.Limiter and bulk.ChannelHealth, and is safe for concurrent use.
type ChannelLimiter struct {
	rdb     redis.UniversalClient
	changed func(channel.Key, channel.State)
	now     func() time.Time
	redis   redisBreaker

	mu       sync.Mutex
	channels map[channel.Key]*channelHealth
}

// channelHealth is what this process knows of a channel.
type channelHealth struct {
	state   channel.State
	limit   float64 // calls a second that the provider lets through, 0: no limit is known
	failing bool    // a call failed since the last answer, so the next answer must be reported
	readAt  time.Time
	local   *rate.Limiter // for singles while Redis does not answer

	second       int64 // Unix time of the count accepted
	accepted     int   // calls accepted in that second
	prevAccepted int   // and in the second before
}

const (
	// maxWait is how far ahead a call may reserve its time: a delivery waits that long and no longer.
	maxWait = 1500 * time.Millisecond
	// singleBorrow is how much further singles may move other calls back, since they go at once.
	singleBorrow = time.Second

	healthTTL          = 500 * time.Millisecond // how old a process's knowledge of a channel may be
	idleTTL            = time.Hour              // an unused channel's hash expires
	reduceInterval     = time.Second            // between two reductions: calls in flight all meet the same refusal
	reduceFactor       = 0.85                   // of the rate at which the provider refused
	growthPerSecond    = 0.04                   // of the reduced rate; slow, since the limit is near
	doublingAfter      = 10 * time.Second       // without a refusal, then the rate doubles every second
	firstDoublingAfter = 2 * time.Second        // after the first refusal, whose rate counts one process's calls only
	forgetAfter        = 40 * time.Second       // without a refusal, then no limit is assumed
	redisTimeout       = 300 * time.Millisecond // a call waits no longer for Redis
	maxFailures        = 5                      // calls without an answer in a row that open the circuit breaker
	minProbeInterval   = time.Second            // between two probes, doubled after each
	maxProbeInterval   = 15 * time.Second
)

// NewChannelLimiter makes a ChannelLimiter. changed is told when this process learns that a channel's health changed; it is
// called without a lock and must not block.
func NewChannelLimiter(rdb redis.UniversalClient, changed func(channel.Key, channel.State)) *ChannelLimiter {
	return &ChannelLimiter{
		rdb: rdb, changed: changed, now: time.Now, redis: redisBreaker{now: time.Now}, channels: map[channel.Key]*channelHealth{},
	}
}

func channelKey(k channel.Key) string { return keyOf(k, "pace") }

// keyOf returns a key in Redis of a channel.
func keyOf(k channel.Key, suffix string) string {
	return "herald:{" + k.ID.String() + "/" + string(k.Type) + "}:" + suffix
}

// scriptPrologue reads a channel's hash. Times in it are microseconds of Redis' clock:
//
//	tat       the theoretical arrival time of GCRA: when the next call may go
//	rate      the provider's limit at its last refusal, reduced
//	slowed    when rate started to grow
//	reduced   when rate was set
//	until     no call goes before
//	fails     calls in a row without an answer
//	probing   1 while a probe is under way
//	probes    probes since the circuit breaker opened
//
// hold is the field until, and rate is already grown to the present.
var scriptPrologue = fmt.Sprintf(`
local MAX_WAIT, SINGLE_BORROW, TTL = %d, %d, %d
local REDUCE_INTERVAL, REDUCE_FACTOR, GROWTH, DOUBLING, FIRST_DOUBLING, FORGET = %d, %g, %g, %g, %g, %d
local MAX_FAILURES, MIN_PROBE, MAX_PROBE = %d, %d, %d
`, maxWait.Microseconds(), singleBorrow.Microseconds(), idleTTL.Milliseconds(),
	reduceInterval.Microseconds(), reduceFactor, growthPerSecond, doublingAfter.Seconds(), firstDoublingAfter.Seconds(), forgetAfter.Microseconds(),
	maxFailures, minProbeInterval.Microseconds(), maxProbeInterval.Microseconds()) + `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[1], 'tat', 'rate', 'slowed', 'until', 'fails', 'probing', 'reduced')
local function field(i) return tonumber(h[i] or 0) or 0 end
local tat, rate, slowed, hold, fails, probing, reduced = field(1), field(2), field(3), field(4), field(5), field(6), field(7)
local function set(name, v) redis.call('HSET', KEYS[1], name, string.format('%.0f', v)) end
if rate > 0 then
  local s = (now - slowed) / 1000000
  if now - slowed > FORGET then rate = 0
  else rate = rate * (1 + GROWTH * math.min(s, DOUBLING)) * 2 ^ math.max(s - DOUBLING, 0) end
end
`

// reserveScript answers {1, microseconds until the call may go}, or {0, microseconds until to ask again}.
// ARGV: microseconds between two calls at the channel's own rate (0: it has none), the number of calls, 1 for a single.
var reserveScript = redis.NewScript(scriptPrologue + `
redis.call('PEXPIRE', KEYS[1], TTL)
if hold > now then return {0, hold - now} end
if fails >= MAX_FAILURES then
  set('probing', 1)
  set('until', now + MAX_PROBE)
  return {1, 0}
end
local between, ahead, single = tonumber(ARGV[1]), MAX_WAIT, ARGV[3] == '1'
if rate > 0 then between = math.max(between, 1000000 / rate) end
if between == 0 then return {1, 0} end
if single then ahead = ahead + SINGLE_BORROW end
tat = math.max(tat, now)
local wait = tat - now
if wait > ahead then return {0, wait - ahead + between} end
set('tat', tat + ARGV[2] * between)
if single then wait = 0 end
return {1, wait}`)

// reportScript records what a call met. ARGV: the delivery.Signal; for a refused call the microseconds for which the provider
// asked to be left alone, and the calls a second that it last accepted from this process.
var reportScript = redis.NewScript(scriptPrologue + `
if ARGV[1] == 'throttled' then
  if fails >= MAX_FAILURES then hold = 0 end
  redis.call('HDEL', KEYS[1], 'fails', 'probing', 'probes')
  if now - reduced > REDUCE_INTERVAL then
    local since = now
    if rate > 0 then rate = rate * REDUCE_FACTOR else rate, since = tonumber(ARGV[3]), now - (DOUBLING - FIRST_DOUBLING) * 1000000 end
    redis.call('HSET', KEYS[1], 'rate', tostring(math.max(rate, 1)))
    set('slowed', since)
    set('reduced', now)
  end
  set('until', math.max(hold, now + ARGV[2]))
elseif ARGV[1] == 'failing' then
  fails = redis.call('HINCRBY', KEYS[1], 'fails', 1)
  if fails == MAX_FAILURES then
    set('until', now + MIN_PROBE)
  elseif probing == 1 then
    local probes = redis.call('HINCRBY', KEYS[1], 'probes', 1)
    redis.call('HDEL', KEYS[1], 'probing')
    set('until', now + math.min(MIN_PROBE * 2 ^ math.min(probes, 10), MAX_PROBE))
  end
elseif fails > 0 then
  redis.call('HDEL', KEYS[1], 'fails', 'probing', 'probes', 'until')
end
redis.call('PEXPIRE', KEYS[1], TTL)
return {1}`)

// healthScript answers {thousandths of the provider's limit, calls in a row without an answer, 1 while no call may go}.
var healthScript = redis.NewScript(scriptPrologue + `return {math.floor(rate * 1000), fails, hold > now and 1 or 0}`)

// of returns what is known of a channel. The caller holds the lock.
func (l *ChannelLimiter) of(k channel.Key) *channelHealth {
	h := l.channels[k]
	if h == nil {
		h = &channelHealth{state: channel.Active}
		l.channels[k] = h
	}
	return h
}

// health returns a channel's state and the provider's limit (0: none is known). It asks Redis when its knowledge is older than
// healthTTL, and keeps that knowledge when Redis does not answer.
func (l *ChannelLimiter) health(ctx context.Context, k channel.Key) (channel.State, float64) {
	l.mu.Lock()
	h := l.of(k)
	state, limit := h.state, h.limit
	fresh := l.now().Sub(h.readAt) < healthTTL
	if !fresh {
		h.readAt = l.now() // concurrent callers use the old answer meanwhile
	}
	l.mu.Unlock()
	if fresh {
		return state, limit
	}
	v, err := l.run(ctx, healthScript, k)
	if err != nil {
		return state, limit
	}
	found := channel.Active
	switch {
	case v[1] >= maxFailures:
		found = channel.Down
	case v[0] > 0 || v[2] > 0:
		found = channel.Throttled
	}
	limit = float64(v[0]) / 1000
	l.mu.Lock()
	h.state, h.limit, h.failing = found, limit, v[1] > 0
	l.mu.Unlock()
	if found != state {
		l.changed(k, found)
	}
	return found, limit
}

// State implements bulk.ChannelHealth: ACTIVE, THROTTLED or DOWN.
func (l *ChannelLimiter) State(ctx context.Context, k channel.Key) channel.State {
	state, _ := l.health(ctx, k)
	return state
}

// Rate implements bulk.ChannelHealth: calls a second that go over the channel, 0 without a limit. A channel that is DOWN has a
// rate of 1, so that the feed keeps a task for the next probe.
func (l *ChannelLimiter) Rate(ctx context.Context, c *channel.Channel) float64 {
	state, limit := l.health(ctx, c.Key)
	switch {
	case state == channel.Down:
		return 1
	case limit > 0 && (c.RatePerSecond == 0 || limit < c.RatePerSecond):
		return limit
	}
	return c.RatePerSecond
}

// Reserve implements delivery.Limiter. A healthy channel without a rate costs no round trip.
func (l *ChannelLimiter) Reserve(ctx context.Context, c *channel.Channel, n int, single bool) delivery.Reservation {
	if state, _ := l.health(ctx, c.Key); state == channel.Active && c.RatePerSecond == 0 {
		return delivery.Reservation{Granted: true}
	}
	between, singleArg := int64(0), 0
	if c.RatePerSecond > 0 {
		between = int64(1e6 / c.RatePerSecond)
	}
	if single {
		singleArg = 1
	}
	v, err := l.run(ctx, reserveScript, c.Key, between, n, singleArg)
	switch {
	case err == nil:
		return delivery.Reservation{Granted: v[0] == 1, Wait: time.Duration(v[1]) * time.Microsecond}
	case single:
		return l.reserveLocally(c, n) // a single does not wait for Redis
	default:
		// Several processes that each used the full rate would exceed it, so messages of bulks wait for Redis.
		return delivery.Reservation{Wait: redisBackoff}
	}
}

// reserveLocally keeps singles to the channel's own rate within this process.
func (l *ChannelLimiter) reserveLocally(c *channel.Channel, n int) delivery.Reservation {
	if c.RatePerSecond == 0 {
		return delivery.Reservation{Granted: true}
	}
	now := l.now()
	l.mu.Lock()
	h := l.of(c.Key)
	if h.local == nil || h.local.Limit() != rate.Limit(c.RatePerSecond) {
		h.local = rate.NewLimiter(rate.Limit(c.RatePerSecond), max(int(c.RatePerSecond/10), n, 1))
	}
	r := h.local.ReserveN(now, n)
	l.mu.Unlock()
	wait := r.DelayFrom(now)
	if wait > maxWait {
		r.CancelAt(now)
		return delivery.Reservation{Wait: wait}
	}
	return delivery.Reservation{Granted: true, Wait: wait}
}

// Report implements delivery.Limiter. An answer from a healthy channel costs no round trip.
func (l *ChannelLimiter) Report(ctx context.Context, c *channel.Channel, s delivery.Signal, alone time.Duration) error {
	accepted, healthy := l.note(c.Key, s)
	if healthy {
		return nil
	}
	_, err := l.run(ctx, reportScript, c.Key, string(s), alone.Microseconds(), accepted)
	return redisconn.Unavailable("report on a channel", err)
}

// note records a signal in this process. It returns the calls a second that the provider last accepted from this process, and
// whether the signal is an answer from a channel that is healthy as far as this process knows.
func (l *ChannelLimiter) note(k channel.Key, s delivery.Signal) (accepted int, healthy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.of(k)
	if second := l.now().Unix(); second != h.second {
		if h.prevAccepted = h.accepted; second > h.second+1 {
			h.prevAccepted = 0
		}
		h.second, h.accepted = second, 0
	}
	healthy = s == delivery.Answered && !h.failing
	if s == delivery.Answered {
		h.accepted++
	}
	if !healthy {
		h.failing = h.failing || s == delivery.Failing
		h.readAt = time.Time{} // the health has most likely changed: read it again
	}
	return max(h.prevAccepted, h.accepted), healthy
}

var errBreakerOpen = errors.New("redis did not answer within the last second")

// run runs a script on a channel's hash, within redisTimeout and behind the circuit breaker. A call that its own context ended
// says nothing about Redis.
func (l *ChannelLimiter) run(ctx context.Context, script *redis.Script, k channel.Key, args ...any) ([]int64, error) {
	if l.redis.open() {
		return nil, errBreakerOpen
	}
	bounded, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	v, err := script.Run(bounded, l.rdb, []string{channelKey(k)}, args...).Int64Slice()
	if err != nil && ctx.Err() == nil {
		l.redis.trip()
	}
	return v, err
}
