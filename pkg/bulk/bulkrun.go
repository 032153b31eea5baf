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
	more    chan struct{} // the planner added rows, or has ended
	counted chan struct{} // messages were counted in this process

	// What the Runner's lock is over.
	hasSlot       bool
	since         time.Time // when it got its place
	yielded       bool      // it lets others have a place first
	planOnly      bool      // it was begun to plan, without a place
	reconcileOnly bool      // it was begun to look after what is under way
	underWay      int64     // its tasks, as the lane counts them
	expires       time.Time // its lease
	acquired      time.Time
	lose          context.CancelCauseFunc // nil while it has no lease to lose

	cancelled context.CancelCauseFunc // what lose is while it has one

	mu        sync.Mutex
	total     int64
	planned   bool
	planLater bool  // the planner has left off, to go on later
	fed       int64 // the feed's cursor
	newPage   []Row // a page that was just planned, beginning at the feed's cursor

	seenPending  map[uuid.UUID]bool // PENDING at the last walk
	paused       bool               // its channel is paused
	takenBack    bool               // the last walk cancelled messages
	tasksLost    bool               // Redis lost something, or the bulk is new here: enqueue every PENDING message
	ended        bool               // it is finished
	countersKept time.Time          // when the counts' expiry was put off
}

// work runs the planner and the feeder. It returns the delay until the bulk is due again.
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

// retryForever repeats a step after each failure, since the database and Redis come back. Each failure is reported as what.
// It returns ErrLeaseLost at once, and the context's cause when the context ends.
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

// channelOf returns the bulk's channel. For a deleted channel it returns an empty one in the state DELETED: the bulk
// continues, and the delivery ends its messages.
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
