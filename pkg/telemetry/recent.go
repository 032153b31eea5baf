package telemetry

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Recent answers probes from a look that is at most a moment old, so that probes, however many come, cost no more than one
// look a second. It is safe for concurrent use.
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
	lookFor   = 3 * time.Second // above what a look takes by itself
)

// NewRecent makes a Recent of what looks.
func NewRecent(look func(context.Context) Health) *Recent {
	return &Recent{look: look, now: time.Now}
}

// Health returns how the process was, at most recentFor before the answer. Probes that come meanwhile share one look
// (singleflight). A look does not end with the probe that began it, since others wait for it; a probe that hangs up learns
// nothing, which is not ready.
func (r *Recent) Health(ctx context.Context) Health {
	if h, ok := r.cached(); ok {
		return h
	}
	done := r.group.DoChan("", func() (any, error) {
		if h, ok := r.cached(); ok { // another look ended between this probe's first question and its second
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
