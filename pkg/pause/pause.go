// Package pause waits, and gives up waiting with its context.
package pause

import (
	"context"
	"time"
)

// For waits, and says whether the time was over before the context was.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
