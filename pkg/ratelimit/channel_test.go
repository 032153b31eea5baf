package ratelimit

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/redisconn/redistest"
)

// world is one channel and two processes that send over it. Time passes only when a test says so: sleep moves the clock of the
// processes forward and the times in Redis back.
type world struct {
	t       *testing.T
	rdb     redis.UniversalClient
	a, b    *ChannelLimiter
	c       *channel.Channel
	clock   time.Time
	changes []channel.State // what process a was told
}

func newWorld(t *testing.T, rdb redis.UniversalClient, perSecond float64) *world {
	t.Helper()
	w := &world{t: t, rdb: rdb, clock: time.Unix(1_800_000_000, 0)}
	w.c = &channel.Channel{Key: channel.Key{ID: uuid.New(), Type: message.SMS}, RatePerSecond: perSecond, State: channel.Active}
	w.a = w.process(func(_ channel.Key, s channel.State) { w.changes = append(w.changes, s) })
	w.b = w.process(func(channel.Key, channel.State) {})
	return w
}

func (w *world) process(changed func(channel.Key, channel.State)) *ChannelLimiter {
	l := NewChannelLimiter(w.rdb, changed)
	l.now = func() time.Time { return w.clock }
	l.redis.now = l.now
	return l
}

// eachWorld runs a test on every kind of Redis, with a channel of a rate.
func eachWorld(t *testing.T, perSecond float64, test func(t *testing.T, w *world)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) { test(t, newWorld(t, rdb, perSecond)) })
}

func (w *world) key() string { return channelKey(w.c.Key) }

// sleep lets time pass. A time that Redis does not hold stays absent.
func (w *world) sleep(d time.Duration) {
	w.t.Helper()
	w.clock = w.clock.Add(d)
	for _, field := range []string{"tat", "slowed", "reduced", "until"} {
		if us, err := w.rdb.HGet(w.t.Context(), w.key(), field).Int64(); err == nil {
			redistest.Must(w.t, w.rdb.HSet(w.t.Context(), w.key(), field, us-d.Microseconds()).Err())
		}
	}
}

func (w *world) report(s delivery.Signal, alone time.Duration, times int) {
	w.t.Helper()
	for range times {
		redistest.Must(w.t, w.a.Report(w.t.Context(), w.c, s, alone))
	}
}

func (w *world) reserve(l *ChannelLimiter, n int, single bool) delivery.Reservation {
	w.t.Helper()
	return l.Reserve(w.t.Context(), w.c, n, single)
}

// expectWait checks that no call may go for a time, give or take what the test itself takes.
func (w *world) expectWait(what string, want time.Duration) {
	w.t.Helper()
	if r := w.reserve(w.b, 1, false); r.Granted || r.Wait > want || r.Wait < want-900*time.Millisecond {
		w.t.Errorf("%s: %+v, want a wait of %v", what, r, want)
	}
}

// expectRate checks the rate that process b sees. It grows by 4 % for each second that the test itself takes.
func (w *world) expectRate(what string, want float64) {
	w.t.Helper()
	w.clock = w.clock.Add(healthTTL) // what a process knew is too old
	if got := w.b.Rate(w.t.Context(), w.c); got < 0.999*want || got > 1.08*want {
		w.t.Errorf("%s: rate %v, want %v", what, got, want)
	}
}

func (w *world) expectState(l *ChannelLimiter, want channel.State) {
	w.t.Helper()
	if got := l.State(w.t.Context(), w.c.Key); got != want {
		w.t.Errorf("the channel is %s, want %s", got, want)
	}
}

// granted returns how many calls in a row may go, alternating between both processes, and checks that their times increase.
func (w *world) granted(n int, single bool) (count int) {
	w.t.Helper()
	last := time.Duration(-1)
	for ; count < 200; count++ {
		r := w.reserve([]*ChannelLimiter{w.a, w.b}[count%2], n, single)
		if !r.Granted {
			if r.Wait <= 0 {
				w.t.Errorf("refused with a wait of %v", r.Wait)
			}
			return count
		}
		if r.Wait < last || r.Wait > maxWait {
			w.t.Errorf("call %d waits %v, the one before it %v", count, r.Wait, last)
		}
		last = r.Wait
	}
	return count
}

// Reservations follow each other at the channel's rate, whichever process asks, up to maxWait ahead; n calls take n times.
func TestReservationsFollowTheRate(t *testing.T) {
	for _, c := range []struct {
		rate float64
		n    int
		want int // calls at times 0, n/rate, ... up to 1.5 s
	}{{rate: 10, n: 1, want: 16}, {rate: 10, n: 2, want: 8}, {rate: 2.5, n: 1, want: 4}, {rate: 0.5, n: 1, want: 1}} {
		eachWorld(t, c.rate, func(t *testing.T, w *world) {
			// A slow test machine lets a further call or two become due meanwhile.
			if got := w.granted(c.n, false); got < c.want || got > c.want+int(c.rate)/c.n {
				t.Errorf("%d reservations of %d at %v a second, want %d", got, c.n, c.rate, c.want)
			}
			if ttl := w.rdb.PTTL(t.Context(), w.key()).Val(); ttl <= 59*time.Minute || ttl > time.Hour {
				t.Errorf("the channel's hash expires in %v", ttl)
			}
			w.sleep(10 * time.Second)
			if r := w.reserve(w.a, 1, false); !r.Granted || r.Wait != 0 {
				t.Errorf("after a pause: %+v", r)
			}
		})
	}
}

// A refused caller is told when to come back: its time minus what it may wait, plus the distance of one call.
func TestARefusalSaysWhenToComeBack(t *testing.T) {
	eachWorld(t, 1, func(t *testing.T, w *world) {
		if r := w.reserve(w.a, 4, false); !r.Granted {
			t.Fatalf("the first: %+v", r)
		}
		w.expectWait("4 s are reserved", 4*time.Second-maxWait+time.Second)
	})
}

// A single goes at once, and moves later callers back; singles may borrow no more than singleBorrow.
func TestSinglesGoFirst(t *testing.T) {
	eachWorld(t, 10, func(t *testing.T, w *world) {
		full := w.granted(1, false)
		if full == 0 {
			t.Fatal("no call was granted")
		}
		if r := w.reserve(w.a, 1, true); !r.Granted || r.Wait != 0 {
			t.Errorf("a single beside a bulk: %+v", r)
		}
		if r := w.reserve(w.a, 1, false); r.Granted || r.Wait < 100*time.Millisecond {
			t.Errorf("the single was not taken from the rate: %+v", r)
		}
		if got, most := w.granted(1, true), int(singleBorrow.Seconds()*10); got < most-2 || got > most+10 {
			t.Errorf("%d further singles, want about %d", got, most)
		}
	})
}

// The first refusal sets the rate to the calls that this process had accepted in its best second of the last two.
func TestTheFirstRefusal(t *testing.T) {
	// The rate grows as if 8 s without a refusal had passed: 1 + 8*0.04.
	const grown = 1.32
	for name, c := range map[string]struct {
		calls func(w *world)
		want  float64
	}{
		"accepted in this second":       {func(w *world) { w.report(delivery.Answered, 0, 100) }, 100 * grown},
		"accepted in the second before": {func(w *world) { w.report(delivery.Answered, 0, 80); w.sleep(time.Second) }, 80 * grown},
		"the better of both": {func(w *world) {
			w.report(delivery.Answered, 0, 50)
			w.sleep(time.Second)
			w.report(delivery.Answered, 0, 60)
		}, 60 * grown},
		"too long ago":                         {func(w *world) { w.report(delivery.Answered, 0, 80); w.sleep(2 * time.Second) }, 1 * grown},
		"refused calls are not accepted calls": {func(w *world) { w.report(delivery.Throttled, 0, 100) }, 1 * grown},
		"nor are calls without an answer":      {func(w *world) { w.report(delivery.Failing, 0, maxFailures-1) }, 1 * grown},
	} {
		t.Run(name, func(t *testing.T) {
			eachWorld(t, 0, func(_ *testing.T, w *world) {
				c.calls(w)
				w.report(delivery.Throttled, 0, 1)
				w.expectRate(name, c.want)
				w.expectState(w.b, channel.Throttled)
			})
		})
	}
}

// setLimit sets a provider's limit that was last reduced some time ago.
func (w *world) setLimit(limit float64, ago time.Duration) {
	w.t.Helper()
	now := w.rdb.Time(w.t.Context()).Val().Add(-ago).UnixMicro()
	redistest.Must(w.t, w.rdb.HSet(w.t.Context(), w.key(), "rate", limit, "slowed", now, "reduced", now).Err())
}

// The provider's limit grows by 4 % a second, doubles every second after 10 s, and is forgotten after 40 s.
func TestTheLimitGrows(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  float64
	}{
		{0, 100}, {5 * time.Second, 120}, {8 * time.Second, 132}, {11 * time.Second, 280}, {13 * time.Second, 1120},
		{39 * time.Second, 140 * math.Pow(2, 29)}, {41 * time.Second, 0},
	} {
		eachWorld(t, 0, func(t *testing.T, w *world) {
			w.setLimit(100, c.after)
			most := 1.08 * c.want // for the time that the test itself takes
			if c.after > doublingAfter {
				most = 2 * c.want
			}
			if got := w.b.Rate(t.Context(), w.c); got < 0.999*c.want || got > most {
				t.Errorf("%v after the last refusal: rate %v, want %v", c.after, got, c.want)
			}
		})
	}
}

// A refusal reduces the limit by 15 %, once a second at most, and never below one call a second.
func TestARefusalReducesTheLimit(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit float64
		after time.Duration
		want  float64
	}{
		{"at once", 100, 0, 100},
		{"just before a second", 100, 200 * time.Millisecond, 100.8},
		{"after a second", 100, 1100 * time.Millisecond, 104.4 * 0.85},
		{"of a limit that grew for 8 s", 100, 8 * time.Second, 132 * 0.85},
		{"at the least rate", 1, 1100 * time.Millisecond, 1},
	} {
		eachWorld(t, 0, func(t *testing.T, w *world) {
			w.setLimit(c.limit, c.after)
			w.report(delivery.Throttled, 0, 3) // calls in flight meet the same refusal
			w.expectRate(c.name, c.want)
			if ttl := w.rdb.PTTL(t.Context(), w.key()).Val(); ttl <= 59*time.Minute || ttl > time.Hour {
				t.Errorf("the channel's hash expires in %v", ttl)
			}
		})
	}
}

// The lower of the channel's own rate and the provider's limit counts, for the feed and for reservations.
func TestTheLowerRateCounts(t *testing.T) {
	for _, c := range []struct{ own, limit, want float64 }{{0, 4, 4}, {10, 4, 4}, {4, 10, 4}, {4, 0, 4}, {0, 0, 0}} {
		eachWorld(t, c.own, func(t *testing.T, w *world) {
			if c.limit > 0 {
				w.setLimit(c.limit, 0)
			}
			w.expectRate("rate", c.want)
			if got, want := w.granted(1, false), 1+int(1.5*c.want); c.want > 0 && (got < want || got > want+2) {
				t.Errorf("own rate %v, limit %v: %d reservations, want %d", c.own, c.limit, got, want)
			} else if c.want == 0 && got < 200 {
				t.Errorf("without a rate call %d waits", got)
			}
		})
	}
}

// A provider that asks to be left alone is: until the later of all the times that it named.
func TestTheProviderIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		asked []time.Duration
		want  time.Duration
	}{
		"once":                         {[]time.Duration{3 * time.Second}, 3 * time.Second},
		"then without a time":          {[]time.Duration{3 * time.Second, 0}, 3 * time.Second},
		"then for a shorter time":      {[]time.Duration{time.Hour, time.Second}, time.Hour},
		"then for a longer time":       {[]time.Duration{time.Second, 30 * time.Second}, 30 * time.Second},
		"a single has to wait as well": {[]time.Duration{3 * time.Second}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			eachWorld(t, 0, func(t *testing.T, w *world) {
				for _, d := range c.asked {
					w.report(delivery.Throttled, d, 1)
				}
				w.expectWait(name, c.want)
				if r := w.reserve(w.b, 1, true); r.Granted {
					t.Errorf("a single: %+v", r)
				}
				w.expectState(w.b, channel.Throttled)
				w.sleep(c.want)
				if r := w.reserve(w.b, 1, false); !r.Granted {
					t.Errorf("afterwards: %+v", r)
				}
			})
		})
	}
}

// A provider that does not answer gets one call at a time, at intervals of 1, 2, 4, 8 and then 15 s, until one is answered.
func TestTheCircuitBreaker(t *testing.T) {
	eachWorld(t, 0, func(t *testing.T, w *world) {
		w.report(delivery.Failing, 0, maxFailures-1)
		if r := w.reserve(w.b, 1, false); !r.Granted {
			t.Errorf("four failed calls: %+v", r)
		}
		w.report(delivery.Failing, 0, 1)
		w.clock = w.clock.Add(healthTTL)
		w.expectState(w.a, channel.Down)
		if rate := w.a.Rate(t.Context(), w.c); rate != 1 {
			t.Errorf("the rate of a channel that is DOWN: %v", rate)
		}
		for i, seconds := range []int{1, 2, 4, 8, 15, 15} {
			interval := time.Duration(seconds) * time.Second
			w.expectWait("open", interval)
			w.report(delivery.Failing, 0, 2) // calls that were in flight: neither a probe nor news
			w.expectWait("open", interval)
			w.sleep(interval)
			if r := w.reserve(w.a, 1, false); !r.Granted || r.Wait != 0 {
				t.Fatalf("probe %d: %+v", i, r)
			}
			w.expectWait("half-open", maxProbeInterval)
			w.report(delivery.Failing, 0, 1)
		}
		w.sleep(maxProbeInterval)
		w.reserve(w.a, 1, false)
		w.report(delivery.Answered, 0, 1)
		w.clock = w.clock.Add(healthTTL)
		w.expectState(w.a, channel.Active)
		if r := w.reserve(w.a, 1, false); !r.Granted {
			t.Errorf("closed: %+v", r)
		}
		w.report(delivery.Failing, 0, 1)
		w.clock = w.clock.Add(healthTTL)
		w.expectState(w.a, channel.Active) // the count starts again
		if len(w.changes) != 2 || w.changes[0] != channel.Down || w.changes[1] != channel.Active {
			t.Errorf("told of %v", w.changes)
		}
	})
}

// A probe that the provider refuses is an answer: the breaker closes, and the refusal's own wait replaces the probe's.
func TestARefusedProbeClosesTheBreaker(t *testing.T) {
	eachWorld(t, 0, func(_ *testing.T, w *world) {
		w.report(delivery.Failing, 0, maxFailures)
		w.sleep(minProbeInterval)
		w.reserve(w.a, 1, false)
		w.report(delivery.Throttled, 2*time.Second, 1)
		w.expectWait("refused", 2*time.Second)
		w.expectState(w.b, channel.Throttled)
	})
}

// A failure that did not open the breaker counts until the next answer, and does not end a wait that the provider asked for.
func TestAnAnswerAfterAFailure(t *testing.T) {
	eachWorld(t, 0, func(_ *testing.T, w *world) {
		w.report(delivery.Failing, 0, maxFailures-1)
		w.report(delivery.Answered, 0, 1)
		w.report(delivery.Failing, 0, maxFailures-1)
		w.clock = w.clock.Add(healthTTL)
		w.expectState(w.b, channel.Active)
		w.report(delivery.Failing, 0, 1)
		w.clock = w.clock.Add(healthTTL)
		w.expectState(w.b, channel.Down)
	})
}

// counted counts the commands of a connection, and keeps the longest time that one may take.
type counted struct{ commands, longest atomic.Int64 }

func (c *counted) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *counted) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (c *counted) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.commands.Add(1)
		if deadline, ok := ctx.Deadline(); ok {
			c.longest.Store(max(c.longest.Load(), int64(time.Until(deadline))))
		} else {
			c.longest.Store(int64(time.Hour))
		}
		return next(ctx, cmd)
	}
}

func count(rdb redis.UniversalClient) *counted {
	c := &counted{}
	rdb.AddHook(c)
	return c
}

// A healthy channel without a rate costs one command every 500 ms, independent of the number of calls.
func TestAHealthyChannelCostsNothing(t *testing.T) {
	eachWorld(t, 0, func(t *testing.T, w *world) {
		w.expectState(w.a, channel.Active) // loads the script
		seen := count(w.rdb)
		for range 100 {
			w.reserve(w.a, 1, false)
			w.report(delivery.Answered, 0, 1)
		}
		w.clock = w.clock.Add(499 * time.Millisecond)
		w.reserve(w.a, 1, false)
		if n := seen.commands.Load(); n != 0 {
			t.Errorf("%d commands within 500 ms", n)
		}
		w.clock = w.clock.Add(time.Millisecond)
		w.reserve(w.a, 1, false)
		w.reserve(w.a, 1, false)
		if n := seen.commands.Load(); n != 1 {
			t.Errorf("%d commands after 500 ms", n)
		}
	})
}

// A process that reports a failure reads the channel's health again at once.
func TestAFailureIsSeenAtOnce(t *testing.T) {
	eachWorld(t, 0, func(_ *testing.T, w *world) {
		w.expectState(w.a, channel.Active)
		w.report(delivery.Failing, 0, 4)
		w.expectState(w.a, channel.Active)
		w.report(delivery.Failing, 0, 1) // the fifth opens the circuit breaker
		w.expectState(w.a, channel.Down)
	})
}

// Each command has a deadline of 300 ms, whose end opens the breaker before Redis. A request with an API key waits for 100 ms.
func TestCommandsHaveADeadline(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		seen := count(rdb)
		w := newWorld(t, rdb, 10)
		w.reserve(w.a, 1, false)
		w.report(delivery.Throttled, 0, 1)
		if got := time.Duration(seen.longest.Load()); got == 0 || got > 300*time.Millisecond {
			t.Errorf("a channel's command may take %v", got)
		}
		seen.longest.Store(0)
		NewKeyLimiter(rdb).Allow(t.Context(), "a", 5)
		if got := time.Duration(seen.longest.Load()); got == 0 || got > 100*time.Millisecond {
			t.Errorf("a key's command may take %v", got)
		}
	})
}

// Without Redis a message of a bulk waits even on an unused channel, and singles keep to the channel's rate.
func TestChannelsWithoutRedis(t *testing.T) {
	rdb := redistest.Connect(t, redistest.Nowhere(t))
	w := newWorld(t, rdb, 100)
	if r := w.reserve(w.a, 1, false); r.Granted || r.Wait != time.Second {
		t.Errorf("a message of a bulk: %+v", r)
	}
	for i := range 10 { // a tenth of a second's calls at once
		if r := w.reserve(w.a, 1, true); !r.Granted || r.Wait != 0 {
			t.Errorf("single %d: %+v", i, r)
		}
	}
	if r := w.reserve(w.a, 2, true); !r.Granted || r.Wait != 20*time.Millisecond {
		t.Errorf("a single of two calls: %+v", r)
	}
	w.c.RatePerSecond = 0.25
	for i, want := range []delivery.Reservation{{Granted: true}, {Wait: 4 * time.Second}, {Wait: 4 * time.Second}} {
		if r := w.reserve(w.a, 1, true); r != want {
			t.Errorf("single %d at a changed rate: %+v, want %+v", i, r, want)
		}
	}
	w.sleepLocally(2500 * time.Millisecond)
	if r := w.reserve(w.a, 1, true); !r.Granted || r.Wait != maxWait {
		t.Errorf("a single whose time is near: %+v", r)
	}
	w.c.RatePerSecond = 0
	for _, single := range []bool{false, true} {
		if r := w.reserve(w.a, 1, single); !r.Granted || r.Wait != 0 {
			t.Errorf("a channel without a rate, single %t: %+v", single, r)
		}
	}
	w.expectState(w.a, channel.Active)
	if err := w.a.Report(t.Context(), w.c, delivery.Failing, 0); !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("report: %v", err)
	}
}

func (w *world) sleepLocally(d time.Duration) { w.clock = w.clock.Add(d) }

// After a call without an answer Redis is not asked for a second. A call that its caller cancelled does not count.
func TestTheBreakerBeforeRedis(t *testing.T) {
	rdb := redistest.Connect(t, redistest.Nowhere(t))
	w, seen := newWorld(t, rdb, 10), count(rdb)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.a.Report(gone, w.c, delivery.Throttled, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled report: %v", err)
	}
	asks := func(want bool) {
		t.Helper()
		before := seen.commands.Load()
		_ = w.a.Report(t.Context(), w.c, delivery.Throttled, 0)
		if got := seen.commands.Load() > before; got != want {
			t.Errorf("asked Redis: %t, want %t", got, want)
		}
	}
	asks(true)
	asks(false)
	w.sleepLocally(999 * time.Millisecond)
	asks(false)
	w.sleepLocally(time.Millisecond)
	asks(true)
}

// The hash of a channel holds times as whole microseconds: a script that wrote 1.8e+15 would lose the last digits.
func TestTimesAreWhole(t *testing.T) {
	eachWorld(t, 3, func(t *testing.T, w *world) {
		w.granted(1, false)
		w.report(delivery.Throttled, time.Second, 1)
		for _, field := range []string{"tat", "slowed", "reduced", "until"} {
			v := w.rdb.HGet(t.Context(), w.key(), field).Val()
			if _, err := strconv.ParseInt(v, 10, 64); err != nil {
				t.Errorf("%s is %q", field, v)
			}
		}
	})
}
