package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/render"
)

// Deps are the ports that a Deliverer works with.
type Deps struct {
	Ledger     Ledger
	Suspicions Suspicions
	Contents   Contents
	Files      *FileCache
	Channels   Channels
	Limiter    Limiter
	Refusals   Refusals
	Counters   Counters
	Queue      Queue
	InFlight   InFlightLimiter
	Providers  map[string]Provider // by the name of a channel's provider
	Observer   Observer
	Timing     Timing
}

// Deliverer delivers messages. It is safe for concurrent use.
type Deliverer struct {
	deps     Deps
	suspects sync.Mutex // one suspect is rendered at a time, so that the death of the process points at one message
}

// New makes a Deliverer.
func New(d Deps) *Deliverer { return &Deliverer{deps: d} }

// Result is how a delivery left its message.
type Result struct {
	Status            message.Status
	Reason            message.Reason
	Failure           *message.Failure
	ProviderMessageID string
	Cost              message.Micros
	SentAt            *time.Time
	Again             time.Duration // not settled: run the delivery again after this
}

// resultOf is the Result that a row tells.
func resultOf(m *message.Message) Result {
	return Result{
		Status: m.Status, Reason: m.Reason, Failure: m.Failure, ProviderMessageID: m.ProviderMessageID, Cost: m.Cost, SentAt: m.SentAt,
	}
}

// work is one delivery under way.
type work struct {
	*message.Message
	lead       *message.Lead
	template   *render.Template
	files      []message.FileData // of a single whose request is under way
	suppressed message.Reason
	held       bool      // by the ledger: its bulk or its channel is paused
	channel    int64     // the version of the channel that the ledger saw, 0 when the channel no longer exists
	undecoded  error     // why the row's content or lead cannot be read
	token      uuid.UUID // of the claim, uuid.Nil before
	claimed    time.Time // the earliest time from which the claim may count: before the ledger was asked
	inline     bool      // within a request: what waits is handed to the workers
	called     bool      // the provider was called, so the message may have been sent
	event      Event
}

// row is the ledger row as the delivery knows it now.
func (w *work) row() Row {
	return Row{ID: w.ID, Token: w.token, Single: w.single(), Attempt: w.Attempt, Part: w.Part, Unknowns: w.Unknowns}
}

// single says whether the message is not of a bulk.
func (w *work) single() bool { return w.BulkID == uuid.Nil }

// retryPause is the wait before a delivery that failed before its call is run again.
const retryPause = time.Second

// Run delivers a message by its id, as a worker does. A nil error with no Again means that this task has nothing left to
// do. An error means that the ledger or another port did not answer, and that the task must run again.
func (d *Deliverer) Run(ctx context.Context, id uuid.UUID) (Result, error) {
	start := time.Now()
	claim := d.newClaim(id)
	fault.Point(fault.MessageLoaded)
	var loaded Loaded
	asked, err := d.retryClaim(ctx, func(ctx context.Context) (err error) {
		loaded, err = d.deps.Ledger.LoadAndClaim(ctx, claim)
		return err
	})
	if message.IsCode(err, message.CodeNotFound) {
		return Result{}, nil // its bulk was removed
	}
	if err != nil {
		d.release(ctx, Row{ID: id, Token: claim.Token})
		return Result{}, err
	}
	w := &work{
		Message: loaded.Message, lead: loaded.Lead, suppressed: loaded.Suppressed, held: loaded.Held, channel: loaded.ChannelVersion,
		undecoded: loaded.Undecodable,
	}
	if loaded.Claimed {
		w.token, w.claimed = claim.Token, asked
		w.event.Claim = time.Since(start)
	} else {
		w.event.Load = time.Since(start)
	}
	return d.deliver(ctx, w, start)
}

// deliver runs a delivery to its outcome and reports it. A claim under which nothing was called is given up when the
// delivery fails, because only this process knows that nothing was called.
func (d *Deliverer) deliver(ctx context.Context, w *work, start time.Time) (Result, error) {
	res, panicked, err := d.recovered(ctx, w)
	if err != nil && w.token != uuid.Nil && !w.called {
		o := w.row().Release(w.Reason, retryPause)
		if panicked { // uses an attempt, so that a message which always causes a panic comes to an end
			o = w.row().Retry(w.Reason, retryPause)
		}
		if _, serr := d.settle(ctx, w, o); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if panicked && w.token == uuid.Nil && !w.inline {
		res, err = d.suspect(ctx, w, err)
	}
	e := &w.event
	e.Message, e.Status, e.Reason, e.Again, e.Err = w.Message, res.Status, res.Reason, res.Again, errors.Join(e.Err, err)
	e.Duration = time.Since(start)
	d.deps.Observer.Delivered(ctx, *e)
	return res, err
}

// suspect makes a suspect of a message that caused a panic before it was claimed, and fails one that was suspected already.
func (d *Deliverer) suspect(ctx context.Context, w *work, err error) (Result, error) {
	if w.Suspect == message.NotSuspect {
		return Result{}, errors.Join(err, d.deps.Suspicions.Suspect(ctx, w.ID, message.Suspected))
	}
	res, serr := d.settle(ctx, w, w.row().Rejected(message.RenderCrashed, "the delivery of the message failed twice with a panic"))
	w.event.Err = errors.Join(w.event.Err, err)
	return res, serr
}

// recovered processes a message and turns a panic into an error, so that one message cannot stop the process and every
// call that is under way.
func (d *Deliverer) recovered(ctx context.Context, w *work) (res Result, panicked bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			res, panicked, err = Result{}, true, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	res, err = d.process(ctx, w)
	return res, false, err
}

// process takes a message through everything that can refuse or delay it, and then sends it.
func (d *Deliverer) process(ctx context.Context, w *work) (Result, error) {
	if w.Status.Rank() > 0 { // settled; an UNKNOWN message that is due again was put back to wait by the sweep
		return Result{Status: w.Status, Reason: w.Reason}, nil
	}
	if o, ok := unsendable(w); ok {
		return d.settle(ctx, w, o)
	}
	if w.lead == nil && !w.single() {
		return d.erase(ctx, w)
	}
	ch, held, err := d.admit(ctx, w)
	switch {
	case err != nil: // not_found: the channel was deleted a moment ago, which the next run sees in the ledger
		return Result{}, err
	case held:
		return d.postpone(ctx, w, d.heldAgain(w))
	}
	content, err := d.render(ctx, w)
	var invalid *renderError
	switch {
	case errors.As(err, &invalid):
		return d.settle(ctx, w, w.row().Rejected(message.RenderInvalid, invalid.Error()))
	case err != nil:
		return Result{}, err
	}
	if wait := d.reserve(ctx, w, ch); wait > 0 {
		return d.postpone(ctx, w, wait)
	}
	e := Envelope{MessageID: w.ID, Channel: ch, Recipient: w.Recipient, Content: content, Files: w.files}
	if len(e.Files) < len(content.Attachments) {
		return d.sendStored(ctx, w, e)
	}
	return d.send(ctx, w, e)
}

// unsendable returns the end of a message that can never be sent.
func unsendable(w *work) (Outcome, bool) {
	row := w.row()
	switch {
	case w.undecoded != nil:
		return row.Rejected(message.RenderInvalid, w.undecoded.Error()), true
	case w.channel == 0:
		return row.Rejected(message.ChannelDeleted, "the channel was deleted"), true
	case w.Suspect == message.SuspectRendering:
		return row.Rejected(message.RenderCrashed, "the process ended while it rendered the message, twice"), true
	case w.suppressed != message.NoReason:
		return row.Skipped(w.suppressed, "the recipient is on the suppression list"), true
	case w.Attempt >= MaxAttempts && w.token == uuid.Nil: // a claimed message is in its last attempt
		reason := w.Reason
		if reason == message.NoReason || reason == message.UnknownOutcome {
			reason = message.Poison
		}
		return row.Failed(reason, w.Failure), true
	}
	return Outcome{}, false
}

// erase ends a message of a bulk whose lead no longer exists.
func (d *Deliverer) erase(ctx context.Context, w *work) (Result, error) {
	if err := d.deps.Suspicions.EraseMessage(ctx, w.ID); err != nil {
		return Result{}, err
	}
	return d.reload(ctx, w)
}

// postpone leaves a message to a later run, before anything was called. A claim is given up. An inline delivery hands its
// message to the workers.
func (d *Deliverer) postpone(ctx context.Context, w *work, again time.Duration) (Result, error) {
	if w.token == uuid.Nil && !w.inline {
		return Result{Status: w.Status, Again: again}, nil
	}
	return d.settle(ctx, w, w.row().Release(w.Reason, again))
}
