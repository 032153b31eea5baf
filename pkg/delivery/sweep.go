package delivery

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// Due is a message that nobody looked at in time.
type Due struct {
	ID      uuid.UUID
	Sending bool // its claim has expired
}

// Watched is the rows that name a time to be looked at. Due returns those whose time is over, puts the waiting ones
// back to wait under a new generation, and gives each a later time, so that no two sweeps get the same row.
type Watched interface {
	Due(ctx context.Context, limit int, again time.Duration) ([]Due, error)
}

const sweepPage = 500

// Sweep looks after messages whose time is over: expired claims are settled, the others go back to the queue. It
// returns how many it found.
func (d *Deliverer) Sweep(ctx context.Context, w Watched) (int, error) {
	due, err := w.Due(ctx, sweepPage, d.Timing.Watch)
	if err != nil {
		return 0, err
	}
	for _, m := range due {
		if m.Sending {
			err = d.Rescue(ctx, m.ID)
		} else {
			var loaded Loaded
			if loaded, err = d.Ledger.Load(ctx, m.ID); err == nil {
				err = d.Queue.Later(ctx, loaded.Message, 0)
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return len(due), nil
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
	ch, err := d.Channels.Get(ctx, channel.Key{ID: m.ChannelID, Type: m.Type})
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	o := Outcome{ID: id, Token: loaded.ClaimToken, Part: m.Part, ProviderMessageID: m.ProviderMessageID}
	o.Status, o.Reason, o.Again = d.Unsettled(m, ch)
	o.Attempt = &message.Attempt{MessageID: id, N: m.Attempt, Part: m.Part, StartedAt: *m.ClaimedAt, EndedAt: now, Outcome: message.AttemptNotKnown, Code: "worker_died"}
	settled, err := d.Ledger.Settle(ctx, o)
	if err != nil || !settled.OK || m.BulkID == uuid.Nil {
		return err
	}
	d.Counters.Count(m.BulkID, stats.Mark{Seq: m.Seq, Status: o.Status, Reason: o.Reason, Waiting: o.Again > 0})
	return nil
}
