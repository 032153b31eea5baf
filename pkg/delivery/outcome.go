package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/pause"
	"herald/pkg/stats"
)

// judge turns a classified response into what the row says next.
func (d *Deliverer) judge(ctx context.Context, w *work, e Envelope, r Response) Outcome {
	o := Outcome{Part: e.Part, Reason: r.Reason, Failure: r.Failure, HTTPStatus: r.HTTPStatus, ProviderMessageID: r.ProviderMessageID}
	switch r.Class {
	case Accepted:
		o.Status, o.Reason, o.Part = message.Sent, message.NoReason, e.Part+1
		o.Cost = e.Channel.Cost(e.Content.Segments, len(e.Content.MediaURLs) > 0)
	case Refused:
		o.Status = message.Failed
	case Unknown:
		o.Status, o.Reason, o.Again = d.Unsettled(w.Message, e.Channel)
	case NotSent:
		d.judgeNotSent(ctx, w, e, r, &o)
	}
	return o
}

func (d *Deliverer) judgeNotSent(ctx context.Context, w *work, e Envelope, r Response, o *Outcome) {
	o.Status = d.waiting(w)
	switch r.Scope {
	case ScopeMessage:
		o.Status = message.Failed
		return
	case ScopeChannel:
		why := string(r.Reason)
		if r.Failure != nil {
			why = r.Failure.Text
		}
		if err := d.Channels.Pause(context.WithoutCancel(ctx), e.Channel, why); err != nil {
			w.event.Err = err
		}
		if w.inline {
			o.Status, o.Reason = message.Failed, message.ChannelCredentials
			return
		}
		o.GiveBack = true
		if w.single() {
			o.Again = d.Timing.PausedRetry
		}
	case ScopeRate:
		o.GiveBack, o.Again = true, max(r.RetryAfter, time.Second)
	default:
		if w.Attempt >= MaxAttempts {
			o.Status = message.Failed
			return
		}
		o.Again = max(r.RetryAfter, d.backoff(w.Attempt))
	}
}

// backoff doubles with each attempt up to five minutes, and is spread over half of itself so that messages which
// failed together do not come back together.
func (d *Deliverer) backoff(attempt int) time.Duration {
	b := min(d.Timing.Backoff<<max(attempt-1, 0), 5*time.Minute)
	return b/2 + rand.N(b/2+1)
}

// waiting is the status of a message that goes back to wait.
func (d *Deliverer) waiting(w *work) message.Status {
	if w.single() {
		return message.Queued
	}
	return message.Pending
}

// Unsettled says what becomes of a message whose outcome is not known, by its channel's policy: it stays UNKNOWN, or
// it waits for the provider's events and is then sent once more. A single without an idempotency key is never sent again
// by itself, because its caller may do that, and a message is sent again only once.
func (d *Deliverer) Unsettled(m *message.Message, ch *channel.Channel) (message.Status, message.Reason, time.Duration) {
	if ch.OnUnknown == channel.ResendOnce && (m.BulkID != uuid.Nil || m.Keyed) && m.Unknowns == 0 {
		return message.Unknown, message.OutcomeUnknown, d.Timing.UnknownHold
	}
	return message.Unknown, message.OutcomeUnknown, 0
}

func attemptOf(w *work, part int, started time.Time, r Response) *message.Attempt {
	a := &message.Attempt{
		MessageID: w.ID, N: w.Attempt, Part: part, StartedAt: started.UTC(), EndedAt: time.Now().UTC(),
		HTTPStatus: r.HTTPStatus,
	}
	switch r.Class {
	case Accepted:
		a.Outcome = message.AttemptSent
	case NotSent:
		a.Outcome = message.AttemptNotSent
	case Refused:
		a.Outcome = message.AttemptRefused
	default:
		a.Outcome = message.AttemptNotKnown
	}
	if r.Failure != nil {
		a.Code = r.Failure.Code
	}
	return a
}

// conclude applies the rule that a message which may have been delivered never ends as if it had not been: after an attempt
// whose outcome is not known, or with a part that went out, every end other than SENT is UNKNOWN, with the reason of that end.
func (w *work) conclude(o *Outcome) {
	switch o.Status {
	case message.Failed, message.Skipped, message.Cancelled:
		if w.Unknowns > 0 || o.Part > 0 {
			o.Status, o.Again = message.Unknown, 0
		}
	}
}

// settle writes an outcome, counts it, and hands a single that waits to the workers. What happened is recorded even when
// the caller has gone.
func (d *Deliverer) settle(ctx context.Context, w *work, o Outcome) (Result, error) {
	ctx = context.WithoutCancel(ctx)
	w.conclude(&o)
	o.ID, o.Token = w.ID, w.token
	res := Result{Status: o.Status, Reason: o.Reason, Failure: o.Failure, ProviderMessageID: o.ProviderMessageID, Cost: o.Cost, Again: o.Again}
	if o.Status == message.Unknown {
		res.Again = 0 // the sweep brings it back, not the queue
	}
	began := time.Now()
	stored := o
	if o.Again > 0 && o.Status != message.Unknown {
		stored.Again += d.Timing.Watch // the queue looks first
	}
	settled, err := d.record(ctx, stored, d.recordBudget(w))
	w.event.Outcome += time.Since(began)
	switch {
	case err != nil:
		return Result{}, err
	case !settled.OK && w.inline, settled.Erased:
		w.event.Fenced = !settled.OK
		return d.standing(ctx, w)
	case !settled.OK:
		w.event.Fenced = true
		return Result{Status: w.Status}, nil
	}
	if o.Status == message.Sent {
		res.SentAt = &settled.At
	}
	if o.Keep > 0 {
		w.Part = o.Part
		return res, nil
	}
	fault.Point(fault.MessageSettled)
	if !w.single() {
		began = time.Now()
		d.count(w.Message, stats.MessageState{Seq: w.Seq, Status: o.Status, Reason: o.Reason, Waiting: o.Status == message.Unknown && o.Again > 0, Cost: o.Cost})
		w.event.Count = time.Since(began)
		fault.Point(fault.MessageCounted)
	}
	if w.inline && o.Status == message.Queued {
		lctx, cancel := context.WithTimeout(ctx, queuePatience)
		defer cancel()
		if err := d.Queue.Later(lctx, w.Message, o.Again); err != nil {
			w.event.Err = errors.Join(w.event.Err, err) // the sweep finds the row
		}
	}
	return res, nil
}

// count counts a message of a bulk that stands as a mark says.
func (d *Deliverer) count(m *message.Message, mark stats.MessageState) {
	if m.BulkID != uuid.Nil && mark.Code() != 0 {
		d.Counters.Count(m.BulkID, mark)
	}
}

// standing returns how a message stands in the ledger, and counts it so: its lead was erased during the delivery, or another
// process has settled it.
func (d *Deliverer) standing(ctx context.Context, w *work) (Result, error) {
	loaded, err := d.Ledger.Load(ctx, w.ID)
	if err != nil {
		return Result{}, err
	}
	m := loaded.Message
	d.count(m, stats.MessageState{Seq: m.Seq, Status: m.Status, Reason: m.Reason, Waiting: m.Status == message.Unknown && m.NextAttemptAt != nil, Cost: m.Cost})
	return resultOf(m), nil
}

func resultOf(m *message.Message) Result {
	return Result{
		Status: m.Status, Reason: m.Reason, Failure: m.Failure, ProviderMessageID: m.ProviderMessageID, Cost: m.Cost, SentAt: m.SentAt,
	}
}

// recordBudget is how long an outcome is tried: as long as the claim excludes other processes.
func (d *Deliverer) recordBudget(w *work) time.Duration {
	budget := d.Timing.Claim
	if w.token != uuid.Nil {
		budget -= time.Since(w.claimed)
	}
	return max(budget, leastBudget)
}

// record writes an outcome, again and again within a budget while the ledger does not take it: what happened is known only
// here. Only a refused value is not tried again as it is: the outcome is written without the provider's words, and given up
// if that is refused too. When the answer to the write was lost, the row tells whether it took effect.
func (d *Deliverer) record(ctx context.Context, o Outcome, budget time.Duration) (Settled, error) {
	settled, err := d.Ledger.Settle(ctx, o)
	if err == nil {
		return settled, nil
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	bare := false
	for wait := recordPause; err != nil && pause.For(ctx, wait); wait = min(2*wait, time.Second) {
		if message.IsCode(err, message.CodeInvalid) {
			if bare {
				break
			}
			o, bare = o.bare(), true
		}
		if settled, err = d.recorded(ctx, o); err == nil && !settled.OK {
			settled, err = d.Ledger.Settle(ctx, o)
		}
	}
	return settled, err
}

// bare returns the outcome without what a provider has written.
func (o Outcome) bare() Outcome {
	o.ProviderMessageID, o.Failure = "", nil
	if o.Attempt != nil {
		attempt := *o.Attempt
		attempt.Code = ""
		o.Attempt = &attempt
	}
	return o
}

// recorded says whether the row shows an outcome: it stands as the outcome says, under the outcome's claim, or as the rule of
// erasure has left it.
func (d *Deliverer) recorded(ctx context.Context, o Outcome) (Settled, error) {
	loaded, err := d.Ledger.Load(ctx, o.ID)
	if err != nil {
		return Settled{}, err
	}
	m := loaded.Message
	s := Settled{At: m.UpdatedAt, Erased: m.Recipient == ""}
	s.OK = loaded.ClaimToken == o.Token && m.Part == o.Part && (m.Status == o.Status || s.Erased && m.Status != message.Sending)
	return s, nil
}

// Lengths of what a provider writes, in bytes.
const (
	maxProviderID   = 256
	maxProviderCode = 64
	maxProviderText = 2_000
)

// cleaned returns a response whose id and code can be stored: valid UTF-8 without control characters, of bounded length. The
// text is made so by redact.
func (r Response) cleaned() Response {
	r.ProviderMessageID = plain(r.ProviderMessageID, maxProviderID)
	if r.Failure != nil {
		r.Failure = &message.Failure{Code: plain(r.Failure.Code, maxProviderCode), Text: plain(r.Failure.Text, maxProviderText)}
	}
	return r
}

func plain(s string, limit int) string {
	clean := true
	for i := range len(s) {
		clean = clean && s[i] >= 0x20 && s[i] < 0x7f
	}
	if clean && len(s) <= limit {
		return s // nearly every one
	}
	s = strings.Map(func(r rune) rune {
		if message.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
