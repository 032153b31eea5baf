package bulk_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// runnerWith starts a Runner with parts of the test's own.
func (w *world) runnerWith(change func(d *bulk.RunnerDeps)) *bulk.Runner {
	d := bulk.RunnerDeps{
		Leases: w.store, Plan: w.store, Feed: w.store, Resolver: w.store, Queue: w, Counters: w.counters, Rescuer: w,
		Channels: w, Health: w, Observer: w, Timing: w.timing,
	}
	change(&d)
	r := bulk.NewRunner(d)
	r.Start()
	w.t.Cleanup(r.Stop)
	return r
}

// another makes a channel beside the test's.
func (w *world) another(state channel.State, rate float64) *channel.Channel {
	w.t.Helper()
	ch := storetest.Channel(w.t, w.store, message.Email)
	ch.State, ch.RatePerSecond = state, rate // as the runner sees it
	w.mu.Lock()
	defer w.mu.Unlock()
	w.others = map[channel.Key]*channel.Channel{ch.Key: ch}
	return ch
}

// acceptOver is accept over a channel, for criteria that the test changes.
func (w *world) acceptOver(ch *channel.Channel, n int, criteria func(*audience.Criteria)) *bulk.Bulk {
	w.t.Helper()
	o := w.order(n)
	o.Channel = ch
	if criteria != nil {
		criteria(&o.Criteria)
	}
	b, err := w.service.Accept(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// waiting is the tasks that are in the queue.
func (w *world) waiting() []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.queue)
}

func (w *world) said(event string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e == event {
			n++
		}
	}
	return n
}

func (w *world) waitPlanned(bulks ...*bulk.Bulk) {
	w.t.Helper()
	for _, b := range bulks {
		testenv.Eventually(w.t, timeout, "it is planned", func() bool {
			got, err := w.store.Bulk(w.t.Context(), b.ID)
			return err == nil && got.Planned
		})
	}
}

func (w *world) leasedBulks() int {
	w.t.Helper()
	running, err := w.store.Running(w.t.Context(), uuid.Nil)
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, b := range running {
		if !b.Free {
			n++
		}
	}
	return n
}

// countedLeases counts what a runner asks of the database, and lets a test answer.
type countedLeases struct {
	bulk.Leases
	looks, acquires, renewals atomic.Int64
	renew                     func(ctx context.Context) error // before the renewal
}

func (l *countedLeases) Running(ctx context.Context, token uuid.UUID) ([]bulk.Running, error) {
	l.looks.Add(1)
	return l.Leases.Running(ctx, token)
}

func (l *countedLeases) Acquire(ctx context.Context, lease bulk.Lease, ttl time.Duration) (*bulk.Bulk, error) {
	l.acquires.Add(1)
	return l.Leases.Acquire(ctx, lease, ttl)
}

func (l *countedLeases) Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error) {
	l.renewals.Add(1)
	if l.renew != nil {
		if err := l.renew(ctx); err != nil {
			return nil, err
		}
	}
	return l.Leases.Renew(ctx, token, ttl)
}

// Bulks of a channel that is paused are planned, and then nothing is done for them but the look that finds work; nothing is
// enqueued. When the channel goes on they do.
func TestFaultBulksOfAPausedChannelAreParked(t *testing.T) {
	const n = 30
	w := newWorld(t)
	w.set(channel.Paused)
	leases := &countedLeases{Leases: w.store}
	var bulks []*bulk.Bulk
	for range n {
		bulks = append(bulks, w.accept(2))
	}
	w.runnerWith(func(d *bulk.RunnerDeps) { d.Leases = leases })
	w.waitPlanned(bulks...)
	testenv.Eventually(t, timeout, "no bulk has a lease", func() bool { return w.leasedBulks() == 0 })
	acquired, looked := leases.acquires.Load(), leases.looks.Load()
	testenv.Eventually(t, timeout, "the runner looks on", func() bool { return leases.looks.Load() > looked+20 })
	if more := leases.acquires.Load() - acquired; more != 0 {
		t.Errorf("bulks that wait were acquired %d times", more)
	}
	if w.enqueued() != 0 {
		t.Errorf("%d tasks over a paused channel", w.enqueued())
	}
	w.set(channel.Active)
	testenv.Eventually(t, timeout, "all are fed", func() bool { return w.enqueued() == 2*n })
	w.deliver(2*n, true)
	for _, b := range bulks {
		w.finished(b)
	}
}

// Over a channel with a rate few bulks at a time are in the queue, however many wait; a bulk over another channel is not held
// up by them, and each comes in its turn.
func TestFaultPlacesAreOfAChannel(t *testing.T) {
	const n = 25
	w := newWorld(t)
	slow := w.another(channel.Active, 1)
	var waiting []*bulk.Bulk
	for range n {
		waiting = append(waiting, w.acceptOver(slow, 3, nil))
	}
	w.runnerWith(func(*bulk.RunnerDeps) {})
	w.waitPlanned(waiting...)
	testenv.Eventually(t, timeout, "the slow channel's window is in use", func() bool { return w.enqueued() >= 6 })
	if e := w.enqueued(); e > 20 {
		t.Fatalf("%d tasks of a channel with a rate of 1 are in the queue", e)
	}
	other := w.accept(5)
	w.deliverOf(other, 5)
	w.finished(other)
	if w.leasedBulks() > 10 {
		t.Errorf("%d bulks of the slow channel have a lease", w.leasedBulks())
	}
	for done := 0; done < 3*n; { // in their turns, a window at a time
		testenv.Eventually(t, timeout, "the next are fed", func() bool { return w.enqueued() > 0 })
		if e := w.enqueued(); e > 20 {
			t.Fatalf("%d tasks of a channel with a rate of 1 are in the queue", e)
		}
		took := w.enqueued()
		w.deliver(took, true)
		done += took
	}
	for _, b := range waiting {
		w.finished(b)
	}
}

// A small bulk does not wait until the large ones before it are over, though these could fill every place of its channel.
func TestFaultASmallBulkDoesNotWaitBehindLargeOnes(t *testing.T) {
	w := newWorld(t)
	w.ch.RatePerSecond = 1 // two places of ten tasks
	w.timing.Reconcile, w.timing.Stall = time.Hour, time.Hour
	large := []*bulk.Bulk{w.accept(120), w.accept(120), w.accept(120)}
	w.runnerWith(func(*bulk.RunnerDeps) {})
	w.waitPlanned(large...)
	small := w.accept(4)
	delivered := 0
	testenv.Eventually(t, timeout, "the small one is over", func() bool {
		took := min(w.enqueued(), 10)
		w.deliver(took, true)
		delivered += took
		b, err := w.store.Bulk(t.Context(), small.ID)
		return err == nil && b.Final != nil
	})
	if delivered > 180 {
		t.Errorf("%d messages of the large bulks went before the small one's", delivered)
	}
	testenv.Eventually(t, timeout, "the large ones are over", func() bool {
		w.deliver(10, true)
		for _, b := range large {
			if got, err := w.store.Bulk(t.Context(), b.ID); err != nil || got.Final == nil {
				return false
			}
		}
		return true
	})
	for id, times := range w.tasks {
		if times > 1 {
			t.Fatalf("%s was enqueued %d times", id, times)
		}
	}
}

// Bulks with messages that are resent in a while keep no place and no lease meanwhile.
func TestFaultBulksThatWaitForAResendAreParked(t *testing.T) {
	const n = 66 // more than a channel has places
	w := newWorld(t)
	w.timing.Reconcile = time.Hour
	var bulks []*bulk.Bulk
	for range n {
		bulks = append(bulks, w.accept(1))
	}
	w.runnerWith(func(*bulk.RunnerDeps) {})
	unsettled := 0
	testenv.Eventually(t, timeout, "each has a message that is UNKNOWN", func() bool {
		unsettled += w.settleUnknown(w.enqueued())
		return unsettled == n
	})
	testenv.Eventually(t, timeout, "no bulk has a lease", func() bool { return w.leasedBulks() == 0 })
	other := w.accept(5)
	w.deliverOf(other, 5)
	w.finished(other)
	for _, b := range bulks {
		if v, err := w.service.Get(t.Context(), b.ID); err != nil || v.Status != bulk.Processing || v.Pending != 1 {
			t.Fatalf("%+v %v", v, err)
		}
	}
}

// While the leases cannot be renewed, what works under them stops when they end, also when the database hangs.
func TestFaultWithoutRenewalTheLeaseEnds(t *testing.T) {
	for name, renew := range map[string]func(ctx context.Context) error{
		"an error": func(context.Context) error { return errors.New("no answer") },
		"no answer": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.timing.Lease, w.timing.Poll = 300*time.Millisecond, time.Hour // no look tells that another has it
			leases := &countedLeases{Leases: w.store, renew: renew}
			w.accept(3)
			w.runnerWith(func(d *bulk.RunnerDeps) { d.Leases, d.Window = leases, 1 })
			testenv.Eventually(t, timeout, "the runner leaves its bulk", func() bool { return w.said("left") > 0 })
			if leases.renewals.Load() == 0 {
				t.Error("it never tried to renew")
			}
		})
	}
}

// A renewal whose answer is late counts from its question: the lease may end before the next answer. Here each answer comes
// after 0.4 of a lease, and the questions are a third of a lease behind the answers.
func TestFaultALeaseCountsFromTheQuestion(t *testing.T) {
	w := newWorld(t)
	w.timing.Lease, w.timing.Poll = 3*time.Second, time.Hour
	w.accept(3)
	w.runnerWith(func(d *bulk.RunnerDeps) {
		d.Leases, d.Window = &lateLeases{Leases: w.store, after: w.timing.Lease * 4 / 10}, 1
	})
	testenv.Eventually(t, timeout, "the runner leaves its bulk", func() bool { return w.said("left") > 0 })
}

// lateLeases renews and answers long after that.
type lateLeases struct {
	bulk.Leases
	after time.Duration
}

func (l *lateLeases) Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error) {
	ids, err := l.Leases.Renew(ctx, token, ttl)
	<-time.After(l.after)
	return ids, err
}

// The bulks of a channel share its window.
func TestFaultTheWindowIsShared(t *testing.T) {
	w := newWorld(t)
	w.timing.Reconcile, w.timing.Stall = time.Hour, time.Hour
	w.ch.RatePerSecond = 40 // 60 tasks
	w.timing.TimeSlice = time.Hour
	for range 3 {
		w.accept(200)
	}
	w.runnerWith(func(*bulk.RunnerDeps) {})
	testenv.Eventually(t, timeout, "the window is filled", func() bool { return w.enqueued() >= 55 })
	of := map[uuid.UUID]int{}
	for _, id := range w.waiting() {
		l, err := w.store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		of[l.Message.BulkID]++
	}
	for id, n := range of {
		if n > 25 || len(of) != 3 {
			t.Errorf("bulk %s has %d tasks of 60, the bulks in the queue are %d", id, n, len(of))
		}
	}
	for range 20 {
		w.deliver(5, true)
		testenv.Eventually(t, timeout, "it is filled again", func() bool { return w.enqueued() >= 45 })
		if e := w.enqueued(); e > 60 {
			t.Fatalf("%d tasks are in the queue, the channel's window is 60", e)
		}
	}
}

// scripted answers for the audiences of bulks that are marked by a word.
type scripted struct {
	audience.Resolver
	mu     sync.Mutex
	asked  map[string]int
	answer func(ctx context.Context, word, after string, n int) error
}

func (s *scripted) Resolve(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	if len(c.Words) == 0 {
		return s.Resolver.Resolve(ctx, c, t, after, limit)
	}
	word := c.Words[0]
	s.mu.Lock()
	s.asked[word]++
	n := s.asked[word]
	s.mu.Unlock()
	if err := s.answer(ctx, word, after, n); err != nil {
		return audience.Page{}, err
	}
	plain := *c
	plain.Words = nil
	return s.Resolver.Resolve(ctx, &plain, t, after, limit)
}

func (s *scripted) times(word string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[word]
}

func marked(words ...string) func(c *audience.Criteria) {
	return func(c *audience.Criteria) { c.Words = words }
}

// A bulk whose audience the database cannot resolve is cancelled with a reason after a few tries and takes back what it has
// planned; one that is slow at times only goes on.
func TestFaultAnAudienceThatIsTooSlowEndsItsBulk(t *testing.T) {
	w := newWorld(t)
	resolver := &scripted{Resolver: w.store, asked: map[string]int{}, answer: func(_ context.Context, word, after string, n int) error {
		switch {
		case word == "hopeless", word == "later" && after != "", word == "sometimes" && n < 3:
			return audience.ErrTooSlow
		}
		return nil
	}}
	w.runnerWith(func(d *bulk.RunnerDeps) {
		d.Resolver = resolver
		d.Timing.Lease = time.Minute // a run that loses its lease on a slow machine would begin to count again
	})
	hopeless, sometimes := w.acceptOver(w.ch, 3, marked("hopeless")), w.acceptOver(w.ch, 3, marked("sometimes"))
	later := w.acceptOver(w.ch, 700, marked("later")) // the first page of 500 is planned
	for _, c := range []struct {
		b     *bulk.Bulk
		word  string
		asked int
		total int64
	}{{hopeless, "hopeless", 3, 0}, {later, "later", 4, 500}} {
		v, err := w.service.Wait(t.Context(), c.b.ID, timeout)
		if err != nil {
			t.Fatal(err)
		}
		if v.Status != bulk.Cancelled || v.StatusReason == "" || v.Planned || v.Figures.Total != c.total || v.Failed != c.total || v.Sent != 0 {
			t.Errorf("%s: %s %q %+v", c.word, v.Status, v.StatusReason, v.Figures)
		}
		if n := resolver.times(c.word); n != c.asked {
			t.Errorf("%s: resolved %d times, want %d", c.word, n, c.asked)
		}
	}
	w.deliverOf(sometimes, 3)
	if v := w.finished(sometimes); v.StatusReason != "" || v.Sent != 3 {
		t.Errorf("%q %+v", v.StatusReason, v.Figures)
	}
}

// Bulks with expensive audiences are planned one at a time, and hold up no other bulk of their channel, nor one that waits
// to be planned beside a paused channel.
func TestFaultExpensiveAudiencesHoldUpNoOther(t *testing.T) {
	w := newWorld(t)
	paused := w.another(channel.Paused, 0)
	release := make(chan struct{})
	var under, most atomic.Int64
	resolver := &scripted{Resolver: w.store, asked: map[string]int{}, answer: func(ctx context.Context, _, _ string, _ int) error {
		if n := under.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer under.Add(-1)
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	words := make([]string, 200)
	for i := range words {
		words[i] = "w" + uuid.NewString()
	}
	for range 66 { // more than there are places
		w.acceptOver(w.ch, 1, marked(words...))
	}
	w.runnerWith(func(d *bulk.RunnerDeps) { d.Resolver = resolver })
	testenv.Eventually(t, timeout, "one is being planned", func() bool { return under.Load() > 0 })
	for range 3 {
		cheap := w.accept(4)
		w.deliverOf(cheap, 4)
		w.finished(cheap)
	}
	waiting := w.acceptOver(paused, 2, nil)
	w.waitPlanned(waiting)
	if most.Load() != 1 {
		t.Errorf("%d expensive pages at a time", most.Load())
	}
	before := w.said("planned")
	close(release)
	testenv.Eventually(t, timeout, "the expensive ones are planned", func() bool { return w.said("planned") >= before+3 })
}
