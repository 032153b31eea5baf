package request

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"herald/pkg/message"
)

// places is a semaphore for one class of requests, with a bound per caller.
type places struct {
	all       *semaphore.Weighted
	timeout   time.Duration // of waiting for a place; 0: no waiting
	full      *message.Error
	perCaller int
	share     *message.Error // the error of a caller that holds perCaller places
	keyless   bool           // the bound per caller holds in the keyless mode too

	mu    sync.Mutex
	taken map[string]int // by caller
	total int
}

func newPlaces(size, perCaller int, full, share *message.Error) *places {
	return &places{
		all: semaphore.NewWeighted(int64(max(size, 1))), full: full, perCaller: max(perCaller, 1), share: share, taken: map[string]int{},
	}
}

// take takes a place for a caller; leave releases it. It returns share or full as the error. The caller "" is that of the
// keyless mode.
func (p *places) take(ctx context.Context, caller string) (leave func(), err error) {
	if !p.count(caller) {
		return nil, shareError(caller, p.share)
	}
	if !p.acquire(ctx) {
		p.uncount(caller)
		return nil, p.full
	}
	return func() {
		p.all.Release(1)
		p.uncount(caller)
	}, nil
}

// acquire takes a place within the timeout.
func (p *places) acquire(ctx context.Context) bool {
	if p.all.TryAcquire(1) {
		return true
	}
	if p.timeout == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return p.all.Acquire(ctx, 1) == nil
}

// count counts a place for the caller. It reports false when the caller has its share.
func (p *places) count(caller string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (caller != "" || p.keyless) && p.taken[caller] >= p.perCaller {
		return false
	}
	p.taken[caller]++
	p.total++
	return true
}

func (p *places) uncount(caller string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	if p.taken[caller]--; p.taken[caller] == 0 {
		delete(p.taken, caller)
	}
}

// used returns the number of requests that hold a place or wait for one.
func (p *places) used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}
