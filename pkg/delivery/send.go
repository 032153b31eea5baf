package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
)

// send claims the message unless it is claimed, calls the provider once for each part that is left, and records each
// outcome before the next call.
func (d *Deliverer) send(ctx context.Context, w *work, e Envelope) (Result, error) {
	if w.token == uuid.Nil {
		if ok, err := d.claim(ctx, w); err != nil || !ok {
			return Result{Status: w.Status}, err
		}
	}
	w.event.Attempt = w.Attempt
	fault.Point(fault.MessageClaimed)
	parts := d.provider(e.Channel).Parts(&e.Content.Content)
	for {
		e.Part = w.Part
		// Another process may take a message whose claim is old. A call of a worker that stops would fail and use an attempt.
		if time.Since(w.claimed) > d.deps.Timing.Stale || ctx.Err() != nil {
			return d.postpone(ctx, w, retryPause)
		}
		started := time.Now()
		resp := d.call(ctx, w, e)
		w.event.Send += time.Since(started)
		w.event.Class, w.event.Detail = resp.Class, resp.Detail
		fault.Point(fault.ProviderAnswered)
		d.report(ctx, w, e.Channel, resp)
		if resp.Class != Accepted || e.Part+1 >= parts {
			return d.settle(ctx, w, d.judge(ctx, w, e, resp).WithCall(resp, started))
		}
		next := w.row().NextPart(d.deps.Timing.Claim).WithCall(resp, started)
		if res, err := d.settle(ctx, w, next); err != nil || w.event.Fenced || res.Status != message.Sending {
			return res, err // the claim was lost, or the lead was erased meanwhile: no further part
		}
		w.claimed = time.Now()
	}
}

// call makes one call to the provider. The in-flight limiter is told of it, also when the call panics.
func (d *Deliverer) call(ctx context.Context, w *work, e Envelope) Response {
	timeout := SendTimeout
	if len(e.Files) > 0 {
		timeout += time.Duration(e.Content.AttachmentBytes()) * time.Second / fileRate
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d.leaveInFlight(w)
	defer d.enterInFlight(w)
	w.called = true
	return d.provider(e.Channel).Send(ctx, e).cleaned()
}

// report tells the limiter how a call ended, and counts refusals.
func (d *Deliverer) report(ctx context.Context, w *work, ch *channel.Channel, r Response) {
	ctx = context.WithoutCancel(ctx)
	err := d.deps.Limiter.Report(ctx, ch, r.signal(), r.RetryAfter)
	switch {
	case r.Class == Accepted:
		err = errors.Join(err, d.deps.Refusals.Accepted(ctx, ch.Key))
	case r.refused():
		err = errors.Join(err, d.countRefusal(ctx, w, ch, r))
	}
	if err != nil {
		w.event.Err = errors.Join(w.event.Err, err)
	}
}

// maxRefusals is how many different recipients in a row may be refused with the same code before the channel is paused. So many
// have the channel or the content in common, and not a mistake in their addresses.
const maxRefusals = 20

// countRefusal pauses the channel when too many recipients in a row were refused with the code of a response. A recipient that
// does not exist or has opted out is never counted: a list may begin with many of them.
func (d *Deliverer) countRefusal(ctx context.Context, w *work, ch *channel.Channel, r Response) error {
	if r.Reason == message.RecipientRefused || r.Reason == message.ConsentRefused {
		return nil
	}
	limit := r.PauseAfter
	if limit == 0 {
		limit = maxRefusals
	}
	reached, err := d.deps.Refusals.Refused(ctx, ch, r.Failure.Code, w.Recipient, limit)
	if err != nil || !reached {
		return err
	}
	why := fmt.Sprintf("the provider refused %d recipients in a row with the code %s: %s", limit, r.Failure.Code, r.Failure.Text)
	return d.deps.Channels.Pause(ctx, ch, why)
}

// judge turns the response to the last call into the message's outcome.
func (d *Deliverer) judge(ctx context.Context, w *work, e Envelope, r Response) Outcome {
	switch r.Class {
	case Accepted:
		return w.row().Sent(e.Channel.Cost(e.Content.Segments, len(e.Content.MediaURLs) > 0))
	case Refused:
		return w.row().Failed(r.Reason, r.Failure)
	case NotSent:
		return d.judgeNotSent(ctx, w, e.Channel, r)
	case Unknown:
	}
	// A class outside the list would be a mistake of an adapter. It too leaves open whether the message was sent.
	return w.row().Unknown(d.resendAfter(w.Message, e.Channel))
}

func (d *Deliverer) judgeNotSent(ctx context.Context, w *work, ch *channel.Channel, r Response) Outcome {
	switch r.Scope {
	case ScopeMessage:
		return w.row().Failed(r.Reason, r.Failure)
	case ScopeChannel:
		d.pauseChannel(ctx, w, ch, r)
		if w.inline { // the caller can choose another channel
			return w.row().Failed(message.ChannelCredentials, r.Failure)
		}
		return w.row().Release(r.Reason, d.heldAgain(w))
	case ScopeRate:
		return w.row().Release(r.Reason, max(r.RetryAfter, retryPause))
	case ScopeNone:
	}
	if w.Attempt >= MaxAttempts {
		return w.row().Failed(r.Reason, r.Failure)
	}
	return w.row().Retry(r.Reason, max(r.RetryAfter, d.backoff(w.Attempt)))
}

// pauseChannel pauses a channel whose account, credentials or sender the provider refuses.
func (d *Deliverer) pauseChannel(ctx context.Context, w *work, ch *channel.Channel, r Response) {
	why := string(r.Reason)
	if r.Failure != nil {
		why = r.Failure.Text
	}
	if err := d.deps.Channels.Pause(context.WithoutCancel(ctx), ch, why); err != nil {
		w.event.Err = errors.Join(w.event.Err, err)
	}
}

// maxBackoff bounds the wait between two attempts to reach a provider.
const maxBackoff = 5 * time.Minute

// backoff is the wait after an attempt that did not reach the provider. It doubles with each attempt and is spread over its
// second half (jitter), so that messages which failed together do not return together. The state of the back-off is the
// attempt number in the row, which another process may read; a library's in-memory back-off cannot resume from it.
func (d *Deliverer) backoff(attempt int) time.Duration {
	b := min(d.deps.Timing.Backoff<<max(attempt-1, 0), maxBackoff)
	return b/2 + rand.N(b/2+1)
}

// resendAfter is how long a message with an unknown outcome waits for the provider's events before it is sent once more;
// 0: it is never sent again. The channel's policy decides. A single without an idempotency key is never sent again, because
// its caller may repeat the request, and no message is sent again twice.
func (d *Deliverer) resendAfter(m *message.Message, ch *channel.Channel) time.Duration {
	if ch.OnUnknown == channel.ResendOnce && (m.BulkID != uuid.Nil || m.Keyed) && m.Unknowns == 0 {
		return d.deps.Timing.UnknownHold
	}
	return 0
}
