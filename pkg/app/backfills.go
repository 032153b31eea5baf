package app

import (
	"context"
	"sync"

	"herald/pkg/store/records"
	"herald/pkg/telemetry"
)

// backfills executes the data migrations in the background of a worker, which serves meanwhile. All workers take part; the
// store lets one of them at a time process a batch.
type backfills struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startBackfills(s *Stores, t *telemetry.Telemetry) *backfills {
	ctx, cancel := context.WithCancel(context.Background())
	b := &backfills{cancel: cancel}
	b.wg.Go(func() {
		pending, err := s.DB.PendingBackfills(ctx, records.Backfills())
		if err == nil && len(pending) == 0 {
			return
		}
		if err == nil {
			t.Log().InfoContext(ctx, "data migrations started", "pending", pending)
			err = s.DB.RunBackfills(ctx, records.Backfills())
		}
		switch {
		case ctx.Err() != nil: // another worker, or the next start, continues
		case err != nil:
			t.Failure(ctx, "migrate data", err)
		default:
			t.Log().InfoContext(ctx, "data migrations done")
		}
	})
	return b
}

// stop waits for the batch in progress, which is rolled back. It may be called on nil.
func (b *backfills) stop() {
	if b == nil {
		return
	}
	b.cancel()
	b.wg.Wait()
}
