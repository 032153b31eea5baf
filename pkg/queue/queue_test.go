package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
	"herald/pkg/testenv"
)

func each(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, url string)) {
	t.Helper()
	testenv.EachRedis(t, func(t *testing.T, url string) { test(t, connect(t, url), url) })
}

func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	rdb, err := Connect(url, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *Counters, id uuid.UUID) stats.Counts {
	t.Helper()
	counts, ok, err := c.Read(t.Context(), id)
	must(t, err)
	if !ok {
		t.Fatal("no counts")
	}
	for k, v := range counts.By {
		if v == 0 {
			delete(counts.By, k)
		}
	}
	return counts
}

func countsOf(marks ...stats.Mark) stats.Counts {
	c := stats.Counts{By: map[stats.Standing]int64{}}
	for _, m := range marks {
		c.Add(m, 1)
	}
	return c
}

// Whatever is counted twice, late, or in any order, the counts are those of each message's highest standing.
func TestCountersOnlyMoveUp(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, nil)
		defer c.Close()
		ctx, id := t.Context(), uuid.New()
		must(t, c.BeginFold(ctx, id))
		must(t, c.EndFold(ctx, id))
		waiting := stats.Mark{Seq: 0, Status: message.Unknown, Reason: message.OutcomeUnknown, Waiting: true}
		sent := stats.Mark{Seq: 0, Status: message.Sent, Cost: 1000}
		delivered := stats.Mark{Seq: 0, Status: message.Delivered, Cost: 1000}
		refused := stats.Mark{Seq: 70_000, Status: message.Failed, Reason: message.RecipientRefused}
		skipped := stats.Mark{Seq: 3, Status: message.Skipped, Reason: message.NoRecipient}
		for _, step := range []struct {
			mark stats.Mark
			want stats.Counts
		}{
			{waiting, countsOf(waiting)},
			{sent, countsOf(sent)},
			{sent, countsOf(sent)},
			{waiting, countsOf(sent)},
			{delivered, countsOf(delivered)},
			{sent, countsOf(delivered)},
			{refused, countsOf(delivered, refused)},
			{skipped, countsOf(delivered, refused, skipped)},
		} {
			must(t, c.CountAll(ctx, id, []stats.Mark{step.mark}))
			if d := cmp.Diff(step.want, read(t, c, id)); d != "" {
				t.Fatalf("after %+v: %s", step.mark, d)
			}
		}
		if n := rdb.StrLen(ctx, ranksKey(id)).Val(); n != 70_001 {
			t.Errorf("%d bytes for the ranks: one per message", n)
		}
	})
}

// Counts that are gone are not begun anew by whoever comes first: that would show a fraction as the whole.
func TestLostCountersStayLostUntilFolded(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, nil)
		defer c.Close()
		ctx, id := t.Context(), uuid.New()
		mark := stats.Mark{Seq: 1, Status: message.Sent}
		must(t, c.CountAll(ctx, id, []stats.Mark{mark}))
		if _, ok, err := c.Read(ctx, id); ok || err != nil {
			t.Errorf("counts out of nowhere: %v %v", ok, err)
		}
		must(t, c.BeginFold(ctx, id))
		must(t, c.CountAll(ctx, id, []stats.Mark{mark, {Seq: 2, Status: message.Sent}}))
		if _, ok, err := c.Read(ctx, id); ok || err != nil {
			t.Errorf("half-folded counts are shown: %v %v", ok, err)
		}
		must(t, c.EndFold(ctx, id))
		if n := read(t, c, id).Settled(); n != 2 {
			t.Errorf("%d settled, want 2", n)
		}
	})
}

// No key is without an expiry at any moment, whichever call makes it, and each that is kept gets its full time again.
func TestFaultCountersNeverStayForGood(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, nil)
		defer c.Close()
		ctx := t.Context()
		marks := []stats.Mark{{Seq: 1, Status: message.Sent}}
		expires := func(after string, keys ...string) {
			t.Helper()
			for _, key := range keys {
				if ttl := rdb.PTTL(ctx, key).Val(); ttl < countsTTL-time.Minute || ttl > countsTTL {
					t.Errorf("%s expires in %s after %s", key, ttl, after)
				}
			}
		}
		begun, folded, alone := uuid.New(), uuid.New(), uuid.New()
		must(t, c.Begin(ctx, begun))
		expires("Begin", countsKey(begun))
		must(t, c.CountAll(ctx, begun, marks))
		expires("the first count", countsKey(begun), ranksKey(begun))
		must(t, c.BeginFold(ctx, folded))
		expires("BeginFold", countsKey(folded))
		must(t, c.CountAll(ctx, folded, marks))
		must(t, c.EndFold(ctx, folded))
		expires("EndFold", countsKey(folded), ranksKey(folded))
		must(t, c.CountAll(ctx, alone, marks))
		must(t, c.Keep(ctx, alone))
		must(t, c.EndFold(ctx, alone))
		if n := rdb.Exists(ctx, countsKey(alone), ranksKey(alone)).Val(); n != 0 {
			t.Errorf("%d keys are made for a bulk that has no counts", n)
		}

		// Keys of a process of an earlier version, or of one that died at the wrong moment.
		rdb.Persist(ctx, countsKey(begun))
		rdb.Persist(ctx, ranksKey(begun))
		must(t, c.CountAll(ctx, begun, []stats.Mark{{Seq: 2, Status: message.Sent}}))
		expires("a count over keys that stayed", countsKey(begun), ranksKey(begun))
		rdb.PExpire(ctx, countsKey(begun), time.Minute)
		rdb.PExpire(ctx, ranksKey(begun), time.Minute)
		must(t, c.CountAll(ctx, begun, []stats.Mark{{Seq: 3, Status: message.Sent}}))
		if ttl := rdb.PTTL(ctx, countsKey(begun)).Val(); ttl > time.Minute {
			t.Errorf("a count puts the expiry off, to %s: that is for who runs the bulk", ttl)
		}
		must(t, c.Keep(ctx, begun))
		expires("Keep", countsKey(begun), ranksKey(begun))
	})
}

// What says which workers run goes when the last of them died without a goodbye.
func TestFaultPresenceNeverStaysForGood(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		p := NewPresence(rdb)
		p.Start()
		defer p.Stop()
		if ttl := rdb.PTTL(t.Context(), workersKey).Val(); ttl <= 0 || ttl > presenceTTL {
			t.Errorf("expires in %s", ttl)
		}
	})
}

// Following many bulks at once tells each its own counts.
func TestFollowersShareARoundTrip(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, nil)
		defer c.Close()
		ctx := t.Context()
		var wg sync.WaitGroup
		for n := range int64(50) {
			id := uuid.New()
			if n > 0 {
				must(t, c.Begin(ctx, id))
				for seq := range n {
					must(t, c.CountAll(ctx, id, []stats.Mark{{Seq: seq, Status: message.Sent}}))
				}
			}
			wg.Go(func() {
				if got, ok, err := c.Follow(ctx, id); err != nil || ok != (n > 0) || got.Settled() != n {
					t.Errorf("%d: %v %v %v", n, got, ok, err)
				}
			})
		}
		wg.Wait()
	})
}

// Whoever runs a bulk is told that messages were counted here.
func TestCountsAreTold(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, nil)
		defer c.Close()
		told := make(chan uuid.UUID, 1)
		c.Tell(func(id uuid.UUID) { told <- id })
		id := uuid.New()
		must(t, c.Begin(t.Context(), id))
		c.Count(id, stats.Mark{Seq: 1, Status: message.Sent})
		if got := <-told; got != id || read(t, c, id).Settled() != 1 {
			t.Errorf("told of %s", got)
		}
	})
}

// A count that cannot be made keeps nobody waiting, and somebody is told.
func TestACountThatFailsIsTold(t *testing.T) {
	gone := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer gone.Close()
	told := make(chan error, 1)
	c := NewCounters(gone, func(err error) { told <- err })
	c.Count(uuid.New(), stats.Mark{Seq: 1, Status: message.Sent})
	if err := <-told; !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("told %v", err)
	}
	c.Close()
}

func TestCountersFromManyGoroutines(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewCounters(rdb, func(err error) { t.Error(err) })
		ctx := t.Context()
		bulks := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
		var wg sync.WaitGroup
		for _, id := range bulks {
			must(t, c.BeginFold(ctx, id))
			must(t, c.EndFold(ctx, id))
			for seq := range int64(200) {
				for range 2 {
					wg.Go(func() { c.Count(id, stats.Mark{Seq: seq, Status: message.Sent, Cost: 2}) })
				}
			}
		}
		wg.Wait()
		c.Close() // what was left to be counted is counted
		for _, id := range bulks {
			if got := read(t, c, id); got.Settled() != 200 || got.Cost != 400 {
				t.Errorf("%d settled for %d, want 200 for 400", got.Settled(), got.Cost)
			}
		}
	})
}

func TestEnqueueingTwiceChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewClient(rdb, Speed{})
		ctx := t.Context()
		var tasks []bulk.Task
		for range 150 {
			tasks = append(tasks, bulk.Task{MessageID: uuid.New()})
		}
		for range 2 {
			must(t, c.Enqueue(ctx, message.Email, message.Low, tasks))
		}
		m := &message.Message{ID: uuid.New(), ChannelType: message.SMS, Priority: message.High}
		for range 2 {
			must(t, c.Later(ctx, m, time.Hour))
		}
		for queue, want := range map[string]map[string]int64{
			"email.low":  {"pending": 150, "active": 0, "scheduled": 0, "retry": 0, "archived": 0},
			"sms.single": {"pending": 0, "active": 0, "scheduled": 1, "retry": 0, "archived": 0},
		} {
			got, err := c.Depth(ctx, queue)
			must(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", queue, d)
			}
		}
	})
}

func TestPresence(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := NewClient(rdb, Speed{})
		a, b := NewPresence(rdb), NewPresence(rdb)
		a.Start()
		b.Start()
		if n, err := c.Workers(t.Context()); n != 2 || err != nil {
			t.Errorf("%d workers, %v", n, err)
		}
		b.Stop()
		if n, err := c.Workers(t.Context()); n != 1 || err != nil {
			t.Errorf("%d workers after one left, %v", n, err)
		}
		a.Stop()
	})
}

// handler records what it gets, and answers as told.
type handler struct {
	mu     sync.Mutex
	seen   map[uuid.UUID]int
	answer func(n int) error
}

func (h *handler) ProcessTask(_ context.Context, task *asynq.Task) error {
	id, err := ParsePayload(task.Payload())
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.seen[id]++
	n := h.seen[id]
	h.mu.Unlock()
	return h.answer(n)
}

func (h *handler) count(id uuid.UUID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[id]
}

func TestServersRunTasksAndTasksThatComeBack(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient, url string) {
		client := NewClient(rdb, Speed{})
		again := uuid.New()
		h := &handler{seen: map[uuid.UUID]int{}}
		h.answer = func(n int) error {
			if n == 1 {
				return &Again{After: time.Millisecond}
			}
			return nil
		}
		s := NewServers(func() redis.UniversalClient { return connect(t, url) },
			map[message.ChannelType]int{message.Email: 100, message.SMS: 2, message.InstagramDM: 2}, nil, Speed{}, slog.New(slog.DiscardHandler))
		must(t, s.Start(h))
		must(t, client.Enqueue(t.Context(), message.Email, message.Normal, []bulk.Task{{MessageID: again}}))
		must(t, client.Wake(t.Context(), again))
		testenv.Eventually(t, 20*time.Second, "a task that asked for it runs again", func() bool { return h.count(again) >= 2 })
		s.Stop()
		depth, err := client.Depth(context.Background(), "email.normal")
		must(t, err)
		if depth["archived"] != 0 {
			t.Errorf("archived tasks: %v", depth)
		}
	})
}

func TestPayloadsAreChecked(t *testing.T) {
	for _, p := range []string{"", "{}", "nonsense", "0190a000-0000-7000-8000-00000000000g", "00000000-0000-0000-0000-000000000000"} {
		if _, err := ParsePayload([]byte(p)); err == nil {
			t.Errorf("%q passes", p)
		}
	}
}

func TestConnectSaysWhatItCannot(t *testing.T) {
	for _, u := range []string{"http://x", "redis-cluster://x:1", "redis-sentinel://x:1", "::", "redis://h:port"} {
		if _, err := Connect(u, 1); err == nil {
			t.Errorf("%q connects", u)
		}
	}
}

func TestUnavailableIsSaid(t *testing.T) {
	c := NewClient(connect(t, "redis://127.0.0.1:1"), Speed{})
	err := c.Ping(t.Context())
	if !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("ping without Redis: %v", err)
	}
	var again *Again
	if errors.As(err, &again) {
		t.Error("a failure is no request to run again")
	}
}
