package bulk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/pause"
)

// course is one bulk under this process's lease. The planner moves total and planned on, the feeder reads them.
type course struct {
	*Runner
	id      uuid.UUID
	lane    *lane
	bulk    *Bulk
	lease   Lease
	more    chan struct{} // the planner added rows, or has ended
	counted chan struct{} // messages were counted in this process

	// What the Runner's lock is over.
	placed   bool
	since    time.Time // when it got its place
	yielded  bool      // it lets others have a place first
	planner  bool      // it was begun to plan, without a place
	visit    bool      // it was begun to look after what is under way
	underWay int64     // its tasks, as the lane counts them
	expires  time.Time // its lease
	acquired time.Time
	lose     context.CancelCauseFunc // nil while it has no lease to lose

	cancelled context.CancelCauseFunc // what lose is while it has one

	mu      sync.Mutex
	total   int64
	planned bool
	later   bool  // the planner has left off, to go on later
	fed     int64 // the feed's cursor
	fresh   []Row // a page that was just planned, beginning at the feed's cursor

	seen      map[uuid.UUID]bool // PENDING at the last walk
	held      bool               // its channel is paused
	takenBack bool               // the last walk cancelled messages
	lost      bool               // Redis lost something, or the bulk is new here: enqueue every PENDING message
	over      bool               // it is finished
	kept      time.Time          // when the counts' expiry was put off
}

// work runs the planner and the feeder, and returns after how long the bulk is looked at again.
func (c *course) work(ctx context.Context) (after time.Duration, err error) {
	if c.bulk.Status == Cancelled {
		return c.cancel(ctx)
	}
	g, gctx := errgroup.WithContext(ctx)
	if !c.planned {
		g.Go(func() error { return c.plan(gctx) })
	}
	g.Go(func() (err error) {
		after, err = c.feed(gctx)
		return err
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return after, err
	}
	return after, nil
}

// again runs a step until it works, since the database and Redis come back. Only a lost lease and the end of the
// context end it.
func (c *course) again(ctx context.Context, what string, step func() error) error {
	for {
		err := step()
		if err == nil || errors.Is(err, ErrLeaseLost) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Observer.BulkError(ctx, what, c.id, err)
		if !pause.For(ctx, c.Timing.Retry) {
			return ctx.Err()
		}
	}
}

// channelOf returns the bulk's channel. In place of one that is gone it returns an empty one in the state DELETED: the bulk
// goes on, and the delivery ends its messages.
func (c *course) channelOf(ctx context.Context) (*channel.Channel, error) {
	var ch *channel.Channel
	err := c.again(ctx, "read the channel", func() (err error) {
		ch, err = c.Channels.AtLeast(ctx, c.bulk.Channel, c.bulk.ChannelVersion)
		if message.IsCode(err, message.CodeNotFound) {
			ch, err = &channel.Channel{Key: c.bulk.Channel, State: channel.Deleted}, nil
		}
		return err
	})
	return ch, err
}
