package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// DueMessage is a message whose due time has passed.
type DueMessage struct {
	ID      uuid.UUID
	Sending bool // its claim has expired
}

// DueMessages finds rows with a due time. Due returns at most limit rows whose due time has passed and postpones them by again, so
// that no two sweeps get the same row. A message that waits keeps its generation, and with it the id of
// its task. An UNKNOWN message goes back to wait as a suspect under a new generation.
type DueMessages interface {
	Due(ctx context.Context, limit int, again time.Duration) ([]DueMessage, error)
}

// sweepPage is how many messages one sweep looks at.
const sweepPage = 500

// Sweep settles expired claims and enqueues the other messages whose due time has passed. It returns how many it found. An error
// with one message does not stop the sweep of the others; that message is found again after Timing.Watch.
func (d *Deliverer) Sweep(ctx context.Context, m DueMessages) (int, error) {
	due, err := m.Due(ctx, sweepPage, d.deps.Timing.Watch)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, m := range due {
		if err := d.sweep(ctx, m); err != nil {
			errs = append(errs, err)
		}
	}
	return len(due), errors.Join(errs...)
}

func (d *Deliverer) sweep(ctx context.Context, m DueMessage) error {
	if m.Sending {
		return d.Rescue(ctx, m.ID)
	}
	loaded, err := d.deps.Ledger.Load(ctx, m.ID)
	if err != nil {
		return err
	}
	return d.deps.Queue.Later(ctx, loaded.Message, 0)
}

// Rescue settles a message whose claim has expired as UNKNOWN: its worker died or froze, and may have called the provider.
// It leaves a claim that is in force, and a row that was settled meanwhile, as they are. It may be repeated.
func (d *Deliverer) Rescue(ctx context.Context, id uuid.UUID) error {
	loaded, err := d.deps.Ledger.Load(ctx, id)
	if message.IsCode(err, message.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m := loaded.Message
	if m.Status != message.Sending || !loaded.ClaimExpired {
		return nil
	}
	resendAfter := time.Duration(0) // without its channel it cannot be sent once more
	if loaded.ChannelVersion > 0 {
		ch, err := d.deps.Channels.AtLeast(ctx, channel.Key{ID: m.ChannelID, Type: m.ChannelType}, loaded.ChannelVersion)
		if err != nil {
			return err
		}
		resendAfter = d.resendAfter(m, ch)
	}
	row := Row{ID: id, Token: loaded.ClaimToken, Single: m.BulkID == uuid.Nil, Attempt: m.Attempt, Part: m.Part, Unknowns: m.Unknowns}
	o := row.Abandoned(resendAfter, m.ProviderMessageID, *m.ClaimedAt)
	settled, err := d.deps.Ledger.Settle(ctx, o)
	if err != nil || !settled.OK {
		return err
	}
	d.count(m, stats.MessageState{Seq: m.Seq, Status: o.status, Reason: o.reason, Waiting: resendAfter > 0 && !settled.Erased})
	return nil
}
