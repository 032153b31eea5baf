package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/counters"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/redisconn"
	"herald/pkg/stats"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// world is a Service and a Runner on a real database and real counters. The queue is a list from which the test delivers.
type world struct {
	t        *testing.T
	store    *storetest.Store
	rdb      redis.UniversalClient
	counters *counters.Counters
	service  *bulk.Service
	timing   bulk.Timing
	ch       *channel.Channel
	state    channel.State // how its provider behaves

	mu    sync.Mutex
	tasks map[uuid.UUID]int // how often each message was enqueued
	queue []uuid.UUID
	fail  error
	gone  error // instead of the channel
	errs  []string

	events  []string
	running *bulk.Runner // the last that was started; Wake wakes it
}

const timeout = 30 * time.Second

func newWorld(t *testing.T) *world {
	t.Helper()
	s := storetest.SQLite(t)
	rdb, err := redisconn.Connect(testenv.Redis(t, testenv.MiniRedis), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	w := &world{t: t, store: s, rdb: rdb, counters: counters.New(rdb, nil), tasks: map[uuid.UUID]int{}, timing: timing()}
	t.Cleanup(w.counters.Close)
	w.ch = storetest.Channel(t, s, message.Email)
	w.service = bulk.NewService(bulk.ServiceDeps{Store: s, Lifecycle: s, Queue: w, Counters: w.counters, Channels: w, Health: w, Observer: w})
	return w
}

func (w *world) Enqueue(_ context.Context, _ message.ChannelType, _ message.Priority, tasks []bulk.Task) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	for _, task := range tasks {
		if w.tasks[task.MessageID]++; w.tasks[task.MessageID] == 1 {
			w.queue = append(w.queue, task.MessageID)
		}
	}
	return nil
}
func (w *world) Wake(context.Context, uuid.UUID) error {
	w.mu.Lock()
	r := w.running
	w.mu.Unlock()
	if r != nil {
		r.Wake()
	}
	return nil
}
func (w *world) State(context.Context, channel.Key) channel.State   { return w.state }
func (w *world) Rate(_ context.Context, c *channel.Channel) float64 { return c.RatePerSecond }
func (w *world) Workers(context.Context) (int, error)               { return 1, nil }
func (w *world) Get(context.Context, channel.Key) (*channel.Channel, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := *w.ch
	return &c, w.gone
}
func (w *world) AtLeast(ctx context.Context, k channel.Key, _ int64) (*channel.Channel, error) {
	return w.Get(ctx, k)
}

func (w *world) Rescue(context.Context, uuid.UUID) error { return nil }
func (w *world) BulkEvent(_ context.Context, event string, _ uuid.UUID, _ ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event)
}
func (w *world) Step(string, int, time.Duration) {}
func (w *world) BulkError(_ context.Context, during string, _ uuid.UUID, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, during+": "+err.Error())
}

func timing() bulk.Timing {
	return bulk.Timing{
		Poll: 50 * time.Millisecond, Lease: 15 * time.Second, Reconcile: 100 * time.Millisecond, Stall: 100 * time.Millisecond,
		Retry: 10 * time.Millisecond, TimeSlice: 20 * time.Millisecond,
	}
}

func (w *world) runner(window int) *bulk.Runner {
	r := bulk.NewRunner(bulk.RunnerDeps{
		Leases: w.store, Plan: w.store, Feed: w.store, Bulks: w.store, Resolver: w.store, Queue: w, Counters: w.counters, Rescuer: w,
		Channels: w, Health: w, Observer: w, Timing: w.timing, Window: window,
	})
	w.mu.Lock()
	w.running = r
	w.mu.Unlock()
	r.Start()
	w.t.Cleanup(r.Stop)
	return r
}

func (w *world) accept(n int) *bulk.Bulk {
	w.t.Helper()
	b, err := w.service.Accept(w.t.Context(), w.order(n))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// order saves leads and orders a bulk to them.
func (w *world) order(n int) bulk.Request {
	w.t.Helper()
	now := time.Now()
	leads := make([]message.Lead, n)
	ids := make([]uuid.UUID, n)
	for i := range leads {
		ids[i] = uuid.Must(uuid.NewV7())
		leads[i] = message.Lead{ID: ids[i], Email: fmt.Sprintf("l%d@example.com", i), CreatedAt: now, UpdatedAt: now}
	}
	if err := w.store.InsertLeads(w.t.Context(), leads); err != nil {
		w.t.Fatal(err)
	}
	return bulk.Request{
		Channel: w.ch, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: ids}, MessageType: message.Marketing,
		Priority: message.Normal, Request: []byte(`{}`),
	}
}

func (w *world) enqueued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// take takes up to n tasks out of the queue.
func (w *world) take(n int) []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	take := w.queue[:min(n, len(w.queue))]
	w.queue = w.queue[len(take):]
	return take
}

// deliver settles up to n of the enqueued messages as sent, as a worker would, counting them or not.
func (w *world) deliver(n int, count bool) {
	w.t.Helper()
	var all sync.WaitGroup
	for _, id := range w.take(n) { // at once, so that they share statements and commits
		all.Go(func() { w.deliverOne(id, count) })
	}
	all.Wait()
}

func (w *world) deliverOne(id uuid.UUID, count bool) {
	w.t.Helper()
	token := uuid.New()
	if ok, err := w.store.Claim(w.t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute}); err != nil || !ok {
		w.t.Errorf("claim: %v %v", ok, err)
		return
	}
	if _, err := w.store.Settle(w.t.Context(), delivery.Row{ID: id, Token: token}.Sent(3)); err != nil {
		w.t.Error(err)
		return
	}
	l, err := w.store.Load(w.t.Context(), id)
	if err != nil {
		w.t.Error(err)
		return
	}
	if count {
		w.counters.Count(l.Message.BulkID, stats.MessageState{Seq: l.Message.Seq, Status: message.Sent, Cost: 3})
	}
}

func (w *world) finished(b *bulk.Bulk) *bulk.View {
	w.t.Helper()
	v, err := w.service.Wait(w.t.Context(), b.ID, timeout)
	if err != nil {
		w.t.Fatal(err)
	}
	if v.Status != bulk.Completed {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t.Fatalf("not complete: %+v %v", v.Figures, w.errs)
	}
	return v
}

func TestTheWindowBoundsTheQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, window = 100, 20
	w.timing.Reconcile, w.timing.Stall = time.Hour, time.Hour // this test's queue is slow, which must not look like a loss
	w.runner(window)
	b := w.accept(n)
	for done := 0; done < n; {
		testenv.Eventually(t, timeout, "tasks are enqueued", func() bool { return w.enqueued() > 0 })
		if e := w.enqueued(); e > window {
			t.Fatalf("%d tasks wait, the window is %d", e, window)
		}
		took := min(w.enqueued(), 15)
		w.deliver(took, true)
		done += took
	}
	if v := w.finished(b); v.Figures.Total != n || v.Sent != n || v.Cost != 3*n {
		t.Errorf("%+v", v.Figures)
	}
	for id, times := range w.tasks {
		if times != 1 {
			t.Fatalf("%s was enqueued %d times", id, times)
		}
	}
}

// Another process continues where one stopped: it writes no row twice and omits none.
func TestAnotherRunnerGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 80
	first := w.runner(20)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "the window is full", func() bool { return w.enqueued() == 20 })
	first.Stop()
	w.deliver(20, true)
	w.runner(1000)
	testenv.Eventually(t, timeout, "the rest is fed", func() bool { return w.enqueued() == n-20 })
	w.deliver(n, true)
	if v := w.finished(b); v.Figures.Total != n || v.Sent != n {
		t.Errorf("%+v", v.Figures)
	}
}

// All of Redis is lost in the middle of a bulk. The figures are complete at any time, and exact at the end.
func TestLostCountersAreRebuilt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 60
	w.runner(30)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "the window is full", func() bool { return w.enqueued() == 30 })
	w.deliver(15, true)
	if err := w.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if v, err := w.service.Get(t.Context(), b.ID); err != nil || v.Sent != 15 {
		t.Fatalf("figures after the loss: %+v, %v", v, err)
	}
	allSent := func() bool { // counts arrive a moment after their deliveries
		v, err := w.service.Get(t.Context(), b.ID)
		return err == nil && v.Sent == n
	}
	for done := false; !done; {
		testenv.Eventually(t, timeout, "more messages are fed", func() bool {
			done = allSent()
			return done || w.enqueued() > 0
		})
		w.deliver(1, true)
	}
	if v := w.finished(b); v.Sent != n || v.Cost != 3*n {
		t.Errorf("%+v", v.Figures)
	}
}

// Reconciliation repairs lost counts and lost tasks.
func TestReconcileRepairsCountsAndTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 40
	w.runner(1000)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "all are fed", func() bool { return w.enqueued() == n })
	w.deliver(n/2, false) // settled, not counted
	w.mu.Lock()
	vanished := w.queue
	w.queue = nil
	clear(w.tasks) // so that they can be enqueued again
	w.mu.Unlock()
	testenv.Eventually(t, timeout, "vanished tasks are enqueued again", func() bool { return w.enqueued() == len(vanished) })
	w.deliver(n, true)
	if v := w.finished(b); v.Sent != n {
		t.Errorf("%+v", v.Figures)
	}
}

// Redis is restored to an older state: counts of settled messages are missing.
func TestCountersOfAnOlderTimeAreRebuilt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 40
	w.runner(1000)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "all are fed", func() bool { return w.enqueued() == n })
	counts := "herald:{" + b.ID.String() + "}:state_counts"
	older, err := w.rdb.HGetAll(t.Context(), counts).Result()
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(n-1, true)
	testenv.Eventually(t, timeout, "the cursor has passed the settled messages", func() bool {
		got, err := w.store.Bulk(t.Context(), b.ID)
		return err == nil && got.SettledSeq == n-1
	})
	w.rdb.Del(t.Context(), counts, "herald:{"+b.ID.String()+"}:states")
	if err := w.rdb.HSet(t.Context(), counts, older).Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, timeout, "the counters are rebuilt", func() bool {
		v, err := w.service.Get(t.Context(), b.ID)
		return err == nil && v.Sent == n-1
	})
	w.deliver(n, true)
	w.finished(b)
}

// drop forgets every task, as workers do with those of a bulk or a channel that is paused.
func (w *world) drop() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.queue)
	w.queue = nil
	clear(w.tasks)
	return n
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, window = 100, 20
	w.runner(window)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "the window is full", func() bool { return w.enqueued() == window })
	w.deliver(5, true)
	if v, err := w.service.Pause(t.Context(), b.ID); err != nil || v.Status != bulk.Paused {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := w.service.Pause(t.Context(), b.ID); !message.IsCode(err, message.CodeConflict) {
		t.Errorf("paused twice: %v", err)
	}
	testenv.Eventually(t, timeout, "its run ends", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Contains(w.events, "left")
	})
	w.drop()
	if running, err := w.store.Running(t.Context(), uuid.Nil); err != nil || len(running) != 0 {
		t.Errorf("running while it is paused: %v, %v", running, err)
	}
	testenv.Eventually(t, timeout, "what was delivered is counted", func() bool { // counts are asynchronous
		v, err := w.service.Get(t.Context(), b.ID)
		return err == nil && v.Sent == 5
	})
	if v, err := w.service.Resume(t.Context(), b.ID); err != nil || v.Status != bulk.Processing || v.Sent != 5 {
		t.Fatalf("%+v, %v", v, err)
	}
	for done := 5; done < n; {
		testenv.Eventually(t, timeout, "it continues", func() bool { return w.enqueued() > 0 })
		took := min(w.enqueued(), 30)
		w.deliver(took, true)
		done += took
	}
	if v := w.finished(b); v.Sent != n {
		t.Errorf("%+v", v.Figures)
	}
	if _, err := w.service.Resume(t.Context(), b.ID); !message.IsCode(err, message.CodeConflict) {
		t.Errorf("resumed when it was over: %v", err)
	}
}

// Cancelling settles every message that is not being sent at once. The others run to their end, and the counts are exact.
func TestCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, window = 100, 20
	w.runner(window)
	b := w.accept(n)
	testenv.Eventually(t, timeout, "all are planned and the window is full", func() bool {
		got, err := w.store.Bulk(t.Context(), b.ID)
		return err == nil && got.Planned && w.enqueued() == window
	})
	w.deliver(5, true)
	claim := func(id uuid.UUID) uuid.UUID {
		token := uuid.New()
		if ok, err := w.store.Claim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute}); err != nil || !ok {
			t.Fatalf("claim: %v %v", ok, err)
		}
		return token
	}
	settle := func(o delivery.Outcome) {
		if s, err := w.store.Settle(t.Context(), o); err != nil || !s.OK {
			t.Fatalf("settle: %+v %v", s, err)
		}
	}
	sends, gives, waits := w.queue[0], w.queue[1], w.queue[2]
	sending, giving := claim(sends), claim(gives)
	settle(delivery.Row{ID: waits, Token: claim(waits)}.Unknown(time.Hour))
	if v, err := w.service.Cancel(t.Context(), b.ID); err != nil || v.Status != bulk.Cancelled || v.Final != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	settle(delivery.Row{ID: gives, Token: giving}.Release("", 0)) // throttled, say
	testenv.Eventually(t, timeout, "what waits is taken back", func() bool {
		v, err := w.service.Get(t.Context(), b.ID)
		return err == nil && v.Pending == 1
	})
	settle(delivery.Row{ID: sends, Token: sending}.Sent(3))
	v, err := w.service.Wait(t.Context(), b.ID, timeout)
	if err != nil {
		t.Fatal(err)
	}
	if v.Status != bulk.Cancelled || v.Sent != 6 || v.Failed != n-6 || v.Unknown != 1 || v.Reasons[message.WasCancelled] != n-7 || v.CompletedAt == nil {
		t.Errorf("%s %+v", v.Status, v.Figures)
	}
	if _, err := w.service.Cancel(t.Context(), b.ID); !message.IsCode(err, message.CodeConflict) {
		t.Errorf("cancelled twice: %v", err)
	}
}

// While a channel is paused its bulks feed nothing, and their views say why. They continue after the resume.
func TestABulkWaitsForItsChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	set := func(s channel.State, reason string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ch.State, w.ch.StateReason = s, reason
	}
	set(channel.Paused, "revoked")
	w.runner(100)
	b := w.accept(10)
	testenv.Eventually(t, timeout, "it is planned", func() bool {
		got, err := w.store.Bulk(t.Context(), b.ID)
		return err == nil && got.Planned
	})
	if v, err := w.service.Get(t.Context(), b.ID); err != nil || v.ChannelState != channel.Paused || v.ChannelReason != "revoked" || v.Pending != 10 {
		t.Errorf("%+v, %v", v, err)
	}
	if n := w.enqueued(); n != 0 {
		t.Errorf("%d tasks over a paused channel", n)
	}
	w.state = channel.Throttled
	set(channel.Active, "")
	testenv.Eventually(t, timeout, "it continues", func() bool { return w.enqueued() == 10 })
	if v, err := w.service.Get(t.Context(), b.ID); err != nil || v.ChannelState != channel.Throttled {
		t.Errorf("%+v, %v", v, err)
	}
	w.deliver(10, true)
	w.finished(b)
}

func TestTheQueueComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fail = errors.New("redis does not answer")
	w.runner(100)
	b := w.accept(20)
	testenv.Eventually(t, timeout, "the failure is reported", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.errs) > 0
	})
	w.mu.Lock()
	w.fail = nil
	w.mu.Unlock()
	testenv.Eventually(t, timeout, "all are fed", func() bool { return w.enqueued() == 20 })
	w.deliver(20, true)
	w.finished(b)
}

func TestAnEmptyAudience(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runner(10)
	b, err := w.service.Accept(t.Context(), bulk.Request{
		Channel: w.ch, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: []uuid.UUID{uuid.New()}}, Request: []byte(`{}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := w.finished(b); v.Figures.Total != 0 || v.NotFound != 1 || v.SuccessRate != 0 {
		t.Errorf("%+v", v)
	}
}

func TestDrainEndsWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // no runner: the bulk never ends
	b := w.accept(1)
	answered := make(chan error, 1)
	go func() {
		_, err := w.service.Wait(context.Background(), b.ID, time.Hour)
		answered <- err
	}()
	w.service.Drain()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
