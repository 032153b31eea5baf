package asynqfast

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/redisconn/redistest"
	"herald/pkg/testenv"
)

// Concurrent callers get their own answers, and all fail when Redis does not answer.
func TestCallersOfOnePipelineKeepTheirAnswers(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := redistest.Connect(t, url)
		defer Wrap(rdb, Options{Enabled: true}).Close()
		double := redis.NewScript(`if ARGV[1] == '13' then return redis.error_reply('unlucky') end return ARGV[1] * 2`)
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				got, err := double.Run(t.Context(), rdb, nil, i).Int()
				if (i == 13) != (err != nil) || (err == nil && got != 2*i) {
					t.Errorf("%d: %d, %v", i, got, err)
				}
			})
		}
		wg.Wait()
	})
	away := redistest.Connect(t, redistest.Nowhere(t))
	defer Wrap(away, Options{Enabled: true}).Close()
	if err := away.EvalSha(t.Context(), "x", nil).Err(); err == nil || errors.Is(err, redis.Nil) {
		t.Errorf("without Redis: %v", err)
	}
}

// A poll of an empty queue is answered with the task that Asynq would get by polling on.
func TestSoleNonEmptyQueue(t *testing.T) {
	now := time.Now()
	empty := func() *buffer { return &buffer{emptyUntil: now.Add(time.Hour)} }
	full := func() *buffer { return &buffer{filledAt: now, tasks: []task{{"1", "first"}, {"2", "second"}}} }
	for name, c := range map[string]struct {
		others []*buffer
		want   string
	}{
		"the only one that has tasks":          {[]*buffer{empty(), full()}, "first"},
		"two have tasks: their weights decide": {[]*buffer{full(), full()}, ""},
		"one was not polled for some time":     {[]*buffer{{}, full()}, ""},
		"one was never polled":                 {[]*buffer{full()}, ""},
		"its tasks are too old":                {[]*buffer{empty(), {filledAt: now.Add(-time.Minute), tasks: full().tasks}}, ""},
		"none has tasks":                       {[]*buffer{empty(), empty()}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &prefetcher{now: time.Now, opts: Options{Queues: 3}, buffers: map[string]*buffer{"asked:": empty()}}
			for i, b := range c.others {
				p.buffers[strconv.Itoa(i)] = b
			}
			got, err := p.dequeue(t.Context(), []any{"evalsha", "", 4, "asked:pending"})
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// A server whose queues are all empty returns to them when a peek finds a task. After a peek that no poll confirmed, as with a
// paused queue, it waits once without peeks.
func TestAnIdleServerPeeks(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, url string) {
		rdb := redistest.Connect(t, url)
		p := newPrefetcher(rdb, Options{Enabled: true, Prefetch: 10, Queues: 2})
		p.buffers = map[string]*buffer{"a:": {}, "b:": {}}
		if pending, _ := p.endRound(); pending != nil {
			t.Error("a round is over after one of two queues")
		}
		if pending, look := p.endRound(); len(pending) != 2 || !look {
			t.Errorf("after a round: look at %v, %v", pending, look)
		}
		if err := rdb.LPush(t.Context(), "b:pending", "1").Err(); err != nil {
			t.Fatal(err)
		}
		miss := func() (falseWakeup bool) {
			p.emptyPoll(t.Context())
			p.emptyPoll(t.Context())
			return p.falseWakeup
		}
		if !miss() {
			t.Error("the task was not seen")
		}
		if miss() {
			t.Error("looked again, though there was nothing to get")
		}
		if !miss() {
			t.Error("does not look any more")
		}
		p.stop()
		if miss() {
			t.Error("looks after the end")
		}
	})
}
