package ratelimit

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

func paced(perSecond float64) *channel.Channel {
	return &channel.Channel{Key: channel.Key{ID: uuid.New(), Type: message.SMS}, RatePerSecond: perSecond, State: channel.Active}
}

func limiter(rdb redis.UniversalClient) *ChannelLimiter {
	return NewChannelLimiter(rdb, func(channel.Key, channel.State) {})
}

func take(t *testing.T, l *ChannelLimiter, c *channel.Channel, single bool) delivery.Reservation {
	t.Helper()
	return l.Reserve(t.Context(), c, 1, single)
}

// Turns follow each other at the channel's rate, whichever process asks, and only so far ahead.
func TestTurnsFollowTheRate(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		a, b, c := limiter(rdb), limiter(rdb), paced(10)
		var last time.Duration
		given := 0
		for i := range 40 {
			turn := take(t, []*ChannelLimiter{a, b}[i%2], c, false)
			if !turn.Granted {
				if turn.Wait <= 0 {
					t.Errorf("no turn, and asked to come back after %v", turn.Wait)
				}
				break
			}
			if given++; turn.Wait < last {
				t.Errorf("turn %d comes before the one that was given earlier", i)
			}
			last = turn.Wait
		}
		if most := int(turnAhead.Seconds()*10) + 2; given < most-2 || given > most+2 {
			t.Errorf("%d turns were given ahead, want about %d", given, most)
		}
	})
}

// A single does not wait for the bulk's turns, and the rate as a whole stays what it is.
func TestSinglesGoFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		l, c := limiter(rdb), paced(10)
		for take(t, l, c, false).Granted {
		}
		if turn := take(t, l, c, true); !turn.Granted || turn.Wait != 0 {
			t.Errorf("a single waits: %+v", turn)
		}
		if turn := take(t, l, c, false); turn.Granted || turn.Wait < 50*time.Millisecond {
			t.Errorf("the single's turn was not taken from the rate: %+v", turn)
		}
		for range int(singleAhead.Seconds()*10) + 2 {
			take(t, l, c, true)
		}
		if turn := take(t, l, c, true); turn.Granted {
			t.Errorf("more singles than the channel takes: %+v", turn)
		}
	})
}

// What the provider refuses slows everybody down to what it took, and its wish to be left alone is obeyed.
func TestThrottledChannelsSlowDown(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		l, other, c := limiter(rdb), limiter(rdb), paced(0)
		for range 100 {
			redistest.Must(t, l.Report(t.Context(), c, delivery.Answered, 0))
		}
		if s := other.State(t.Context(), c.Key); s != channel.Active {
			t.Errorf("a healthy channel is %s", s)
		}
		redistest.Must(t, l.Report(t.Context(), c, delivery.Throttled, 0))
		if s := l.State(t.Context(), c.Key); s != channel.Throttled {
			t.Errorf("after a refusal the channel is %s", s)
		}
		if r := l.Rate(t.Context(), c); r < 50 || r > 140 {
			t.Errorf("100 calls in a second were accepted, and the rate is %v", r)
		}
		for range 10 {
			redistest.Must(t, l.Report(t.Context(), c, delivery.Throttled, 0))
		}
		if r := l.Rate(t.Context(), c); r < 50 {
			t.Errorf("calls that were under way together reduced the rate several times, to %v", r)
		}
		redistest.Must(t, l.Report(t.Context(), c, delivery.Throttled, 3*time.Second))
		testenv.Eventually(t, 5*time.Second, "the other process knows", func() bool { return other.State(t.Context(), c.Key) == channel.Throttled })
		if turn := take(t, other, c, false); turn.Granted || turn.Wait < 2*time.Second || turn.Wait > 3*time.Second {
			t.Errorf("a provider that wants to be left alone for 3 s is called: %+v", turn)
		}
	})
}

// A provider that does not answer is left alone but for a call at a time, until one is answered.
func TestChannelsThatAreDownAreProbed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		l, c := limiter(rdb), paced(0)
		fails := func(n int) {
			for range n {
				redistest.Must(t, l.Report(t.Context(), c, delivery.Failing, 0))
			}
		}
		fails(failsMost - 1)
		if turn := take(t, l, c, false); !turn.Granted {
			t.Errorf("some failed calls stop the channel: %+v", turn)
		}
		fails(1)
		if s := l.State(t.Context(), c.Key); s != channel.Down {
			t.Errorf("the channel is %s", s)
		}
		probe := func(atLeast time.Duration) {
			t.Helper()
			if turn := take(t, l, c, false); turn.Granted || turn.Wait < atLeast/2 || turn.Wait > atLeast {
				t.Errorf("%+v, want to wait %v", turn, atLeast)
			}
			testenv.Eventually(t, 10*time.Second, "a call may find out", func() bool { return take(t, l, c, false).Granted })
			if turn := take(t, l, c, false); turn.Granted || turn.Wait < probeMost/2 {
				t.Errorf("a second call beside the first: %+v", turn)
			}
		}
		probe(probeLeast)
		fails(1)
		probe(2 * probeLeast)
		redistest.Must(t, l.Report(t.Context(), c, delivery.Answered, 0))
		if turn := take(t, l, c, false); !turn.Granted || l.State(t.Context(), c.Key) != channel.Active {
			t.Errorf("the provider answered, and %+v", turn)
		}
	})
}

func TestLimiterWithoutRedis(t *testing.T) {
	l := limiter(redistest.Connect(t, redistest.Nowhere(t)))
	if turn := take(t, l, paced(0), false); !turn.Granted {
		t.Errorf("a channel without a rate: %+v", turn)
	}
	c := paced(0.25)
	for i, want := range []bool{true, false} {
		if turn := take(t, l, c, true); turn.Granted != want || turn.Granted == (turn.Wait > 0) {
			t.Errorf("single %d: %+v", i, turn)
		}
	}
	if turn := take(t, l, c, false); turn.Granted || turn.Wait <= 0 {
		t.Errorf("a bulk's message: %+v", turn)
	}
	if s := l.State(t.Context(), c.Key); s != channel.Active {
		t.Errorf("without Redis the channel is %s", s)
	}
}
