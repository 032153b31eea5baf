package counters

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/message"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/stats"
)

func read(t *testing.T, c *Counters, id uuid.UUID) stats.Counts {
	t.Helper()
	counts, ok, err := c.Read(t.Context(), id)
	redistest.Must(t, err)
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

func countsOf(marks ...stats.MessageState) stats.Counts {
	c := stats.Counts{By: map[stats.StateCode]int64{}}
	for _, m := range marks {
		c.Add(m, 1)
	}
	return c
}

// Counting twice, late or in any order gives the counts of each message's highest state code.
func TestCountersOnlyMoveUp(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		ctx, id := t.Context(), uuid.New()
		redistest.Must(t, c.BeginRebuild(ctx, id))
		redistest.Must(t, c.EndRebuild(ctx, id))
		waiting := stats.MessageState{Seq: 0, Status: message.Unknown, Reason: message.UnknownOutcome, Waiting: true}
		sent := stats.MessageState{Seq: 0, Status: message.Sent, Cost: 1000}
		delivered := stats.MessageState{Seq: 0, Status: message.Delivered, Cost: 1000}
		refused := stats.MessageState{Seq: 70_000, Status: message.Failed, Reason: message.RecipientRefused}
		refusedAgain := stats.MessageState{Seq: 70_000, Status: message.Failed, Reason: message.ConsentRefused} // the first reason of a status stays
		skipped := stats.MessageState{Seq: 3, Status: message.Skipped, Reason: message.NoRecipient}
		for _, step := range []struct {
			state stats.MessageState
			want  stats.Counts
		}{
			{waiting, countsOf(waiting)},
			{sent, countsOf(sent)},
			{sent, countsOf(sent)},
			{waiting, countsOf(sent)},
			{delivered, countsOf(delivered)},
			{sent, countsOf(delivered)},
			{refused, countsOf(delivered, refused)},
			{refusedAgain, countsOf(delivered, refused)},
			{skipped, countsOf(delivered, refused, skipped)},
		} {
			redistest.Must(t, c.CountAll(ctx, id, []stats.MessageState{step.state}))
			if d := cmp.Diff(step.want, read(t, c, id)); d != "" {
				t.Fatalf("after %+v: %s", step.state, d)
			}
		}
		if n := rdb.StrLen(ctx, statesKey(id)).Val(); n != 70_001 {
			t.Errorf("%d bytes of state codes, want one for each message", n)
		}
	})
}

// Lost counters are not read until they are rebuilt: a count into empty counters would be taken for the total.
func TestLostCountersStayLostUntilRebuilt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		ctx, id := t.Context(), uuid.New()
		mark := stats.MessageState{Seq: 1, Status: message.Sent}
		redistest.Must(t, c.CountAll(ctx, id, []stats.MessageState{mark}))
		if _, ok, err := c.Read(ctx, id); ok || err != nil {
			t.Errorf("counts out of nowhere: %v %v", ok, err)
		}
		redistest.Must(t, c.BeginRebuild(ctx, id))
		redistest.Must(t, c.CountAll(ctx, id, []stats.MessageState{mark, {Seq: 2, Status: message.Sent}}))
		if _, ok, err := c.Read(ctx, id); ok || err != nil {
			t.Errorf("half-rebuilt counts are shown: %v %v", ok, err)
		}
		redistest.Must(t, c.EndRebuild(ctx, id))
		if n := read(t, c, id).Settled(); n != 2 {
			t.Errorf("%d settled, want 2", n)
		}
	})
}

// Every key has an expiry at any moment, whichever call creates it, and Keep restores the full time.
func TestFaultCountersNeverStayForGood(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		ctx := t.Context()
		marks := []stats.MessageState{{Seq: 1, Status: message.Sent}}
		expires := func(after string, keys ...string) {
			t.Helper()
			for _, key := range keys {
				if ttl := rdb.PTTL(ctx, key).Val(); ttl < 24*time.Hour-time.Minute || ttl > 24*time.Hour {
					t.Errorf("%s expires in %s after %s", key, ttl, after)
				}
			}
		}
		begun, folded, alone := uuid.New(), uuid.New(), uuid.New()
		redistest.Must(t, c.Begin(ctx, begun))
		expires("Begin", countsKey(begun))
		redistest.Must(t, c.CountAll(ctx, begun, marks))
		expires("the first count", countsKey(begun), statesKey(begun))
		redistest.Must(t, c.BeginRebuild(ctx, folded))
		expires("BeginRebuild", countsKey(folded))
		redistest.Must(t, c.CountAll(ctx, folded, marks))
		redistest.Must(t, c.EndRebuild(ctx, folded))
		expires("EndRebuild", countsKey(folded), statesKey(folded))
		redistest.Must(t, c.CountAll(ctx, alone, marks))
		redistest.Must(t, c.Keep(ctx, alone))
		redistest.Must(t, c.EndRebuild(ctx, alone))
		if n := rdb.Exists(ctx, countsKey(alone), statesKey(alone)).Val(); n != 0 {
			t.Errorf("%d keys are made for a bulk that has no counts", n)
		}

		// Keys of a process of an earlier version, or of one that died at the wrong moment.
		rdb.Persist(ctx, countsKey(begun))
		rdb.Persist(ctx, statesKey(begun))
		redistest.Must(t, c.CountAll(ctx, begun, []stats.MessageState{{Seq: 2, Status: message.Sent}}))
		expires("a count over keys that stayed", countsKey(begun), statesKey(begun))
		rdb.PExpire(ctx, countsKey(begun), time.Minute)
		rdb.PExpire(ctx, statesKey(begun), time.Minute)
		redistest.Must(t, c.CountAll(ctx, begun, []stats.MessageState{{Seq: 3, Status: message.Sent}}))
		if ttl := rdb.PTTL(ctx, countsKey(begun)).Val(); ttl > time.Minute {
			t.Errorf("a count extended the expiry to %s: only Keep may", ttl)
		}
		redistest.Must(t, c.Keep(ctx, begun))
		expires("Keep", countsKey(begun), statesKey(begun))
	})
}

// Following many bulks at once tells each its own counts.
func TestFollowersShareARoundTrip(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		ctx := t.Context()
		var wg sync.WaitGroup
		for n := range int64(50) {
			id := uuid.New()
			if n > 0 {
				redistest.Must(t, c.Begin(ctx, id))
				for seq := range n {
					redistest.Must(t, c.CountAll(ctx, id, []stats.MessageState{{Seq: seq, Status: message.Sent}}))
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

// Tell's function is told of the bulks whose messages were counted.
func TestCountsAreTold(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		told := make(chan uuid.UUID, 1)
		c.Tell(func(id uuid.UUID) { told <- id })
		id := uuid.New()
		redistest.Must(t, c.Begin(t.Context(), id))
		c.Count(id, stats.MessageState{Seq: 1, Status: message.Sent})
		if got := <-told; got != id || read(t, c, id).Settled() != 1 {
			t.Errorf("told of %s", got)
		}
	})
}

// A count that fails blocks no caller, and is reported.
func TestACountThatFailsIsTold(t *testing.T) {
	gone := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer gone.Close()
	told := make(chan error, 1)
	c := New(gone, func(err error) { told <- err })
	c.Count(uuid.New(), stats.MessageState{Seq: 1, Status: message.Sent})
	if err := <-told; !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("told %v", err)
	}
	c.Close()
}

func TestCountersFromManyGoroutines(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, func(err error) { t.Error(err) })
		ctx := t.Context()
		bulks := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
		var wg sync.WaitGroup
		for _, id := range bulks {
			redistest.Must(t, c.BeginRebuild(ctx, id))
			redistest.Must(t, c.EndRebuild(ctx, id))
			for seq := range int64(200) {
				for range 2 {
					wg.Go(func() { c.Count(id, stats.MessageState{Seq: seq, Status: message.Sent, Cost: 2}) })
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

// roundTrips counts the commands of a client.
type roundTrips struct{ n int }

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.n++
		return next(ctx, cmd)
	}
}

// Many states are counted 500 at a time, so that no script blocks Redis for long.
func TestCountAllInChunks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		ctx, id := t.Context(), uuid.New()
		redistest.Must(t, c.Begin(ctx, id))
		redistest.Must(t, c.CountAll(ctx, id, []stats.MessageState{{Seq: 0, Status: message.Sent}})) // loads the script
		calls := &roundTrips{}
		rdb.AddHook(calls)
		states := make([]stats.MessageState, 1_001)
		for i := range states {
			states[i] = stats.MessageState{Seq: int64(i), Status: message.Sent}
		}
		redistest.Must(t, c.CountAll(ctx, id, states))
		if calls.n != 3 {
			t.Errorf("%d calls for 1,001 states", calls.n)
		}
		if n := read(t, c, id).Settled(); n != 1_001 {
			t.Errorf("%d settled", n)
		}
	})
}

// A bulk without settled messages has counters after a rebuild: zero counts, not missing ones.
func TestARebuildWithoutSettledMessages(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ string) {
		c := New(rdb, nil)
		defer c.Close()
		id := uuid.New()
		redistest.Must(t, c.BeginRebuild(t.Context(), id))
		redistest.Must(t, c.EndRebuild(t.Context(), id))
		if n := read(t, c, id).Settled(); n != 0 {
			t.Errorf("%d settled", n)
		}
	})
}

// A failure to read is an error. Missing counters would make the runner rebuild them.
func TestReadsWithoutRedisFail(t *testing.T) {
	c := New(redistest.Connect(t, redistest.Nowhere(t)), nil)
	defer c.Close()
	if _, ok, err := c.Read(t.Context(), uuid.New()); ok || !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("read %v, %v", ok, err)
	}
	if _, ok, err := c.Follow(t.Context(), uuid.New()); ok || !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("followed %v, %v", ok, err)
	}
}
