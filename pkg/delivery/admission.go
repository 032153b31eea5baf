package delivery

import (
	"context"
	"time"

	"herald/pkg/channel"
)

// Decision says whether messages may go over a channel now and, if so, how fast. It is the one place in Go for that rule:
// requests, the feed of bulks, previews and workers ask Decide. The conditions on rows that a claim depends on (the bulk
// runs, the channel is active, the recipient is not suppressed, the lead exists) are one SQL condition of the store, which
// the ledger reports in Loaded and LoadAndClaim obeys.
type Decision struct {
	Held      bool    // nothing goes until the channel is resumed
	Why       string  // of Held: text for people
	Immediate bool    // nothing delays a call: it needs no reservation, and its message may be claimed at once
	Rate      float64 // calls per second that the channel allows, 0: no limit
}

// Decide makes the Decision for a channel.
func Decide(ch *channel.Channel) Decision {
	d := Decision{Rate: ch.RatePerSecond}
	if ch.State == channel.Paused {
		d.Held, d.Why = true, ch.StateReason
	}
	d.Immediate = ch.State == channel.Active && d.Rate == 0
	return d
}

// admit returns a message's channel, at least as new as the ledger saw it, and whether the message is held.
func (d *Deliverer) admit(ctx context.Context, w *work) (ch *channel.Channel, held bool, err error) {
	if w.held {
		return nil, true, nil
	}
	ch, err = d.deps.Channels.AtLeast(ctx, channel.Key{ID: w.ChannelID, Type: w.ChannelType}, w.channel)
	if err != nil {
		return nil, false, err
	}
	w.event.Provider = ch.Provider
	return ch, Decide(ch).Held, nil
}

// heldAgain is when a held message is run again. A single is run by its own task; the runner of a bulk enqueues its messages
// after the pause.
func (d *Deliverer) heldAgain(w *work) time.Duration {
	if w.single() {
		return d.deps.Timing.PausedRetry
	}
	return 0
}

// minPostpone is the shortest time for which a message is postponed.
const minPostpone = 100 * time.Millisecond

// reserve asks the limiter for the calls that the message still needs, and waits for them when they are near. It returns
// how long to postpone the message, 0 when it may go now.
func (d *Deliverer) reserve(ctx context.Context, w *work, ch *channel.Channel) time.Duration {
	content := w.template.Content() // of the bulk, whose rows have no content
	calls := d.provider(ch).Parts(&content) - w.Part
	reservation := d.deps.Limiter.Reserve(ctx, ch, calls, w.single())
	switch {
	case !reservation.Granted:
		return max(reservation.Wait, minPostpone)
	case reservation.Wait > 0:
		d.leaveInFlight(w)
		defer d.enterInFlight(w)
		select {
		case <-time.After(reservation.Wait):
		case <-ctx.Done():
			return minPostpone
		}
	}
	return 0
}

// leaveInFlight and enterInFlight surround a wait for the provider or the rate. Inline it is the caller that waits, not a
// worker.
func (d *Deliverer) leaveInFlight(w *work) {
	if !w.inline {
		d.deps.InFlight.Release(w.ChannelType)
	}
}

func (d *Deliverer) enterInFlight(w *work) {
	if !w.inline {
		d.deps.InFlight.Acquire(w.ChannelType)
	}
}
