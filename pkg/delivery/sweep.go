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

// DueMessage is a message that nobody looked at in time.
type DueMessage struct {
	ID      uuid.UUID
	Sending bool // its claim has expired
}

// DueMessages is the rows that name a time to be looked at. Due returns those whose time is over and gives each a later time, so
// that no two sweeps get the same row. A message that waits keeps its generation, and with it the id of its task. An UNKNOWN one
// goes back to wait as a suspect under a new generation.
type DueMessages interface {
	Due(ctx context.Context, limit int, again time.Duration) ([]DueMessage, error)
}

const sweepPage = 500

// Sweep looks after messages whose time is over: expired claims are settled, the others go back to the queue. It
// returns how many it found. A message that fails leaves the others alone, and is found again after Timing.Watch.
func (d *Deliverer) Sweep(ctx context.Context, w DueMessages) (int, error) {
	due, err := w.Due(ctx, sweepPage, d.Timing.Watch)
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
	loaded, err := d.Ledger.Load(ctx, m.ID)
	if err != nil {
		return err
	}
	return d.Queue.Later(ctx, loaded.Message, 0)
}

// Rescue settles a message whose claim has expired: the process that had it died or froze, and whether the bytes left
// is not known. A claim that is alive, or a row that moved on, stays as it is.
func (d *Deliverer) Rescue(ctx context.Context, id uuid.UUID) error {
	loaded, err := d.Ledger.Load(ctx, id)
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
	o := Outcome{
		ID: id, Token: loaded.ClaimToken, Part: m.Part, ProviderMessageID: m.ProviderMessageID, Status: message.Unknown, Reason: message.OutcomeUnknown,
	}
	if loaded.ChannelVersion > 0 { // without its channel it cannot be sent once more
		ch, err := d.Channels.AtLeast(ctx, channel.Key{ID: m.ChannelID, Type: m.ChannelType}, loaded.ChannelVersion)
		if err != nil {
			return err
		}
		o.Status, o.Reason, o.Again = d.Unsettled(m, ch)
	}
	o.Attempt = &message.Attempt{
		MessageID: id, N: m.Attempt, Part: m.Part, StartedAt: *m.ClaimedAt, EndedAt: time.Now().UTC(), Outcome: message.AttemptNotKnown, Code: "worker_died",
	}
	settled, err := d.Ledger.Settle(ctx, o)
	if err != nil || !settled.OK {
		return err
	}
	d.count(m, stats.MessageState{Seq: m.Seq, Status: o.Status, Reason: o.Reason, Waiting: o.Again > 0 && !settled.Erased})
	return nil
}
