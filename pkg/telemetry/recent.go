package telemetry

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Recent caches the result of a readiness check for a second, so that any number of probes costs one check a second. It is safe for
// concurrent use.
type Recent struct {
	look  func(context.Context) Health
	now   func() time.Time
	group singleflight.Group
	mu    sync.Mutex
	last  Health
	until time.Time
}

const (
	recentFor = time.Second
	lookFor   = 3 * time.Second // more than a check takes by itself
)

// NewRecent makes a Recent of a check.
func NewRecent(look func(context.Context) Health) *Recent {
	return &Recent{look: look, now: time.Now}
}

// Health returns a result that is at most recentFor old. Concurrent probes share one check (singleflight), which does not end with
// the probe that started it. A probe whose context ends gets the zero Health: not ready.
func (r *Recent) Health(ctx context.Context) Health {
	if h, ok := r.cached(); ok {
		return h
	}
	done := r.group.DoChan("", func() (any, error) {
		if h, ok := r.cached(); ok { // another check ended since the look above
			return h, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookFor)
		defer cancel()
		began := r.now()
		h := r.look(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.last, r.until = h, began.Add(recentFor)
		return h, nil
	})
	select {
	case res := <-done:
		return res.Val.(Health) //nolint:forcetypeassert // made above
	case <-ctx.Done():
		return Health{}
	}
}

func (r *Recent) cached() (Health, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.now().Before(r.until)
}
