package bulk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/channel"
	"herald/pkg/message"
)

// bulkRun is one leased execution of a bulk. A planner and a feeder goroutine work on it: the planner advances total and
// planned, the feeder reads them.
type bulkRun struct {
	runner  *Runner
	deps    *RunnerDeps
	id      uuid.UUID
	lane    *lane
	bulk    *Bulk
	lease   Lease
	more    chan struct{} // signals that the planner added rows or returned
	counted chan struct{} // signals that this process counted messages of the bulk

	// The Runner's mutex guards these fields.
	hasSlot       bool
	slotSince     time.Time
	yielded       bool                    // it gave its slot up at the end of its time slice
	planOnly      bool                    // started without a slot, to plan
	reconcileOnly bool                    // started without a slot, to reconcile its open messages
	inFlight      int64                   // its tasks in lane.inFlight
	expires       time.Time               // of the lease
	acquired      time.Time               // when the lease was granted
	onLeaseLost   context.CancelCauseFunc // cancels the run; nil while it has no lease or ends it by itself
	cancelRun     context.CancelCauseFunc // the value of onLeaseLost while it is set

	mu        sync.Mutex
	total     int64
	planned   bool
	planLater bool  // the planner returned before the end: another expensive audience is being planned
	fed       int64 // the feed's cursor
	newPage   []Row // a page that was just planned and starts at the feed's cursor

	seenPending  map[uuid.UUID]bool // messages that were PENDING at the last reconciliation
	paused       bool               // the channel is paused
	takenBack    bool               // the last reconciliation cancelled messages
	tasksLost    bool               // tasks may be missing in the queue: enqueue every PENDING message again
	ended        bool               // the lease ended with the bulk or its plan
	abandoned    bool               // its plan ended it, and the planned messages are left to be cancelled
	countersKept time.Time          // when the expiry of the counters was extended
}

// work runs the planner and the feeder until both return. It returns the delay until the bulk is due again.
func (run *bulkRun) work(ctx context.Context) (after time.Duration, err error) {
	if run.bulk.Status == Cancelled {
		return run.cancel(ctx)
	}
	g, gctx := errgroup.WithContext(ctx)
	if !run.planned {
		g.Go(func() error { return run.plan(gctx) })
	}
	g.Go(func() (err error) {
		after, err = run.feed(gctx)
		return err
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return after, err
	}
	return after, nil
}

// retryForever repeats a step every Timing.Retry until it succeeds, because an outage of the database or Redis ends. It reports
// each failure as what. It returns ErrLeaseLost at once, and the cause of the context when the context ends.
func (run *bulkRun) retryForever(ctx context.Context, what string, step func() error) error {
	attempt := func() (struct{}, error) {
		err := step()
		if errors.Is(err, ErrLeaseLost) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}
	report := func(err error, _ time.Duration) { run.deps.Observer.BulkError(ctx, what, run.id, err) }
	_, err := backoff.Retry(ctx, attempt, backoff.WithBackOff(backoff.NewConstantBackOff(run.deps.Timing.Retry)),
		backoff.WithMaxElapsedTime(0), backoff.WithNotify(report))
	return err
}

// channelOf returns the bulk's channel. For a deleted channel it returns an empty one in the state DELETED: the bulk continues,
// and each delivery fails its message with channel_deleted.
func (run *bulkRun) channelOf(ctx context.Context) (*channel.Channel, error) {
	var ch *channel.Channel
	err := run.retryForever(ctx, "read the channel", func() (err error) {
		ch, err = run.deps.Channels.AtLeast(ctx, run.bulk.Channel, run.bulk.ChannelVersion)
		if message.IsCode(err, message.CodeNotFound) {
			ch, err = &channel.Channel{Key: run.bulk.Channel, State: channel.Deleted}, nil
		}
		return err
	})
	return ch, err
}
