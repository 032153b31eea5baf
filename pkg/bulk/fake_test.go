package bulk_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// fake implements the ports of the package in memory, with the rules that pkg/store and pkg/queue keep. It is used inside a
// synctest bubble, so that intervals pass at once and each time is exact.
type fake struct {
	t  *testing.T
	mu sync.Mutex

	bulks      map[uuid.UUID]*fakeBulk
	byID       map[uuid.UUID]*fakeMessage
	leads      map[uuid.UUID]message.Lead
	channels   map[channel.Key]*channel.Channel
	state      channel.State
	workers    int
	counts     map[uuid.UUID]map[int64]stats.MessageState // absent: lost
	rebuilding map[uuid.UUID]bool
	queue      []bulk.Task
	known      map[bulk.Task]bool // the tasks that the queue still has
	blocked    map[message.Hash]message.Reason
	runner     *bulk.Runner

	// before is called at the start of each call, by its name, and may delay it or make it fail.
	before map[string]func(ctx context.Context, n int) error
	calls  map[string][]call
	total  int                      // calls of all ports
	late   map[string]time.Duration // how long an answer takes after it was made
}

// call is one call of a port.
type call struct {
	at   time.Time
	args []any
}

// inBubble runs a test with virtual time.
func inBubble(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFake(t)) })
}

func newFake(t *testing.T) *fake {
	return &fake{
		t: t, bulks: map[uuid.UUID]*fakeBulk{}, leads: map[uuid.UUID]message.Lead{}, channels: map[channel.Key]*channel.Channel{},
		workers: 1, counts: map[uuid.UUID]map[int64]stats.MessageState{}, rebuilding: map[uuid.UUID]bool{}, known: map[bulk.Task]bool{},
		blocked: map[message.Hash]message.Reason{}, before: map[string]func(context.Context, int) error{},
		byID: map[uuid.UUID]*fakeMessage{}, calls: map[string][]call{},
	}
}

// enter records a call, lets the test interfere with it, and locks.
func (f *fake) enter(ctx context.Context, name string, args ...any) error {
	f.mu.Lock()
	f.calls[name] = append(f.calls[name], call{time.Now(), args})
	f.total++
	n := len(f.calls[name])
	interfere := f.before[name]
	f.mu.Unlock()
	var err error
	if interfere != nil {
		err = interfere(ctx, n)
	}
	if err == nil {
		err = ctx.Err()
	}
	f.mu.Lock()
	return err
}

// on sets what happens before each call of a port. n counts the calls from 1.
func (f *fake) on(name string, interfere func(ctx context.Context, n int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before[name] = interfere
}

// fails makes the calls of a port fail from the first to the last-th.
func (f *fake) fails(name string, last int, err error) {
	f.on(name, func(_ context.Context, n int) error {
		if n <= last {
			return err
		}
		return nil
	})
}

// called returns the calls of a port so far.
func (f *fake) called(name string) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls[name])
}

// events returns how often an event was reported.
func (f *fake) events(event string) (n int) {
	for _, c := range f.called("BulkEvent") {
		if c.args[0] == event {
			n++
		}
	}
	return n
}

// reported returns what was reported as failed, each once, in order.
func (f *fake) reported() (list []string) {
	for _, c := range f.called("BulkError") {
		if text := fmt.Sprint(c.args[0]); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

func (f *fake) BulkEvent(_ context.Context, event string, id uuid.UUID, args ...any) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "BulkEvent", event, id, args)
}

func (f *fake) BulkError(_ context.Context, during string, id uuid.UUID, err error) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "BulkError", during, id, err)
}

func (f *fake) Step(stage string, n int, took time.Duration) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "Step", stage, n, took)
}

// pass lets virtual time pass, and what happens meanwhile happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until lets time pass until something holds.
func (f *fake) until(limit time.Duration, what string, holds func() bool) {
	f.t.Helper()
	for began := time.Now(); !holds(); pass(5 * time.Millisecond) {
		if time.Since(began) > limit {
			f.t.Fatalf("after %v not: %s; failures %v", limit, what, f.reported())
		}
	}
}

// near says whether a duration is within a tolerance of the one that is wanted.
func near(got, want, tolerance time.Duration) bool { return (got - want).Abs() <= tolerance }
