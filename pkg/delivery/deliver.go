package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/pause"
	"herald/pkg/render"
)

// Deps is what a Deliverer works with.
type Deps struct {
	Ledger    Ledger
	Contents  Contents
	Channels  Channels
	Limiter   Limiter
	Counters  Counters
	Queue     Queue
	InFlight  InFlightLimiter
	Providers map[message.ChannelType]Provider
	Observer  Observer
	Timing    Timing

	Suspicions Suspicions
}

// Deliverer delivers messages. It is safe for concurrent use.
type Deliverer struct {
	Deps
	suspects sync.Mutex // one suspect is rendered at a time, so that a death accuses one message only
}

// New makes a Deliverer.
func New(d Deps) *Deliverer { return &Deliverer{Deps: d} }

// Result is how a delivery left its message.
type Result struct {
	Status            message.Status
	Reason            message.Reason
	Failure           *message.Failure
	ProviderMessageID string
	Cost              message.Micros
	SentAt            *time.Time
	Again             time.Duration // not settled: try again after this
}

// work is one delivery under way.
type work struct {
	*message.Message
	lead       *message.Lead
	template   *render.Template
	suppressed message.Reason
	held       bool
	channel    int64     // the version of the channel that the ledger has seen, 0 when the channel no longer exists
	undecoded  error     // why the row's content or lead cannot be read
	token      uuid.UUID // of the claim, uuid.Nil before
	claimed    time.Time // since when at the latest: the time before the ledger was asked
	inline     bool      // within a request: a NotSent turns into QUEUED
	called     bool      // the provider was called, so the message may have been sent
	event      Event
}

// single says whether the message is not of a bulk.
func (w *work) single() bool { return w.BulkID == uuid.Nil }

const (
	claimBudget   = 30 * time.Second // a claim whose answer was lost is asked for again
	releaseBudget = time.Second      // for the release of a claim whose answer is unknown
	leastBudget   = 10 * time.Second // an outcome is tried at least for so long
	queuePatience = time.Second      // a caller waits for its answer
	recordPause   = 50 * time.Millisecond
	leastAside    = 100 * time.Millisecond // the shortest time that a delivery steps aside
)

// Run delivers a message by its id, as a worker does. A nil error with no Again means that nothing is left to do for
// this task; an error means that the ledger or another part did not answer, and that the task must run again.
func (d *Deliverer) Run(ctx context.Context, id uuid.UUID) (Result, error) {
	start := time.Now()
	claim := d.newClaim(id)
	fault.Point(fault.MessageLoaded)
	var loaded Loaded
	asked, err := d.persist(ctx, func(ctx context.Context) (err error) {
		loaded, err = d.Ledger.LoadAndClaim(ctx, claim)
		return err
	})
	if message.IsCode(err, message.CodeNotFound) {
		return Result{}, nil // its bulk was removed
	}
	if err != nil {
		d.release(ctx, claim, message.Pending)
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

func (d *Deliverer) newClaim(id uuid.UUID) Claim {
	return Claim{ID: id, Token: uuid.New(), TTL: d.Timing.Claim, Most: MaxAttempts}
}

// release gives up a claim that failed with an error. It may be in force all the same, and nothing was sent under it, which
// only this process knows. If the release fails too, the claim expires and the message becomes UNKNOWN.
func (d *Deliverer) release(ctx context.Context, c Claim, waiting message.Status) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBudget)
	defer cancel()
	_, _ = d.Ledger.Settle(ctx, Outcome{ID: c.ID, Token: c.Token, Status: waiting, GiveBack: true, Again: time.Second})
}

func (d *Deliverer) deliver(ctx context.Context, w *work, start time.Time) (Result, error) {
	res, panicked, err := d.guarded(ctx, w)
	if err != nil && w.token != uuid.Nil && !w.called {
		// Nothing was called, and only this process knows that. A panic uses an attempt, so that a message which always causes
		// one comes to an end.
		o := Outcome{Status: d.waiting(w), Part: w.Part, GiveBack: !panicked, Again: time.Second, Reason: w.Reason}
		if _, gerr := d.settle(ctx, w, o); gerr != nil {
			err = errors.Join(err, gerr)
		}
	}
	if panicked && w.token == uuid.Nil && !w.inline {
		res, err = d.accuse(ctx, w, err)
	}
	e := &w.event
	e.Message, e.Status, e.Reason, e.Again, e.Err = w.Message, res.Status, res.Reason, res.Again, errors.Join(e.Err, err)
	e.Duration = time.Since(start)
	d.Observer.Delivered(ctx, *e)
	return res, err
}

// accuse makes a suspect of a message that caused a panic before it was claimed, and fails one that was suspected already.
func (d *Deliverer) accuse(ctx context.Context, w *work, err error) (Result, error) {
	if w.Suspect == message.NotSuspect {
		return Result{}, errors.Join(err, d.Suspicions.Suspect(ctx, w.ID, message.Suspected))
	}
	res, serr := d.settle(ctx, w, d.failed(w, message.RenderCrashed, "the delivery of the message failed twice with a panic"))
	w.event.Err = errors.Join(w.event.Err, err)
	return res, serr
}

// guarded delivers, and turns a panic into an error: one message must not end the process with every send under way.
func (d *Deliverer) guarded(ctx context.Context, w *work) (res Result, panicked bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			res, panicked, err = Result{}, true, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	res, err = d.steps(ctx, w)
	return res, false, err
}

func (d *Deliverer) steps(ctx context.Context, w *work) (Result, error) {
	if w.Status.Rank() > 0 { // an UNKNOWN message that is due again is put back to wait first
		return Result{Status: w.Status, Reason: w.Reason}, nil
	}
	if o, over := d.hopeless(w); over {
		return d.settle(ctx, w, o)
	}
	if w.lead == nil && !w.single() && w.undecoded == nil {
		return d.erase(ctx, w)
	}
	if w.held {
		return d.hold(ctx, w)
	}
	ch, err := d.Channels.AtLeast(ctx, channel.Key{ID: w.ChannelID, Type: w.ChannelType}, w.channel)
	if err != nil { // not_found: it was deleted a moment ago, which the next run sees in the ledger
		return Result{}, err
	}
	if ch.State == channel.Paused {
		return d.hold(ctx, w)
	}
	content, err := d.render(ctx, w)
	var invalid *renderError
	switch {
	case errors.As(err, &invalid):
		return d.settle(ctx, w, d.failed(w, message.RenderInvalid, invalid.Error()))
	case err != nil:
		return Result{}, err
	}
	if wait := d.awaitTurn(ctx, w, ch); wait > 0 {
		return d.stepAside(ctx, w, wait)
	}
	return d.send(ctx, w, Envelope{MessageID: w.ID, Channel: ch, Recipient: w.Recipient, Content: content})
}

// hopeless returns how a message ends that nothing can send any more.
func (d *Deliverer) hopeless(w *work) (Outcome, bool) {
	switch {
	case w.undecoded != nil:
		return d.failed(w, message.RenderInvalid, w.undecoded.Error()), true
	case w.channel == 0:
		return d.failed(w, message.ChannelDeleted, "the channel was deleted"), true
	case w.Suspect == message.SuspectRendering:
		return d.failed(w, message.RenderCrashed, "the process ended while it rendered the message, twice"), true
	case w.suppressed != message.NoReason:
		o := d.failed(w, w.suppressed, "the recipient is on the suppression list")
		o.Status = message.Skipped
		return o, true
	case w.Attempt >= MaxAttempts && w.token == uuid.Nil:
		o := Outcome{Status: message.Failed, Reason: w.Reason, Failure: w.Failure, Part: w.Part}
		if o.Reason == message.NoReason || o.Reason == message.OutcomeUnknown {
			o.Reason = message.Poison
		}
		return o, true
	}
	return Outcome{}, false
}

// failed is the outcome of a message that no provider was asked about.
func (d *Deliverer) failed(w *work, reason message.Reason, text string) Outcome {
	return Outcome{
		Status: message.Failed, Reason: reason, Failure: &message.Failure{Code: string(reason), Text: text}, Part: w.Part,
		GiveBack: w.token != uuid.Nil,
	}
}

// renderError says that a message cannot be sent as it renders. Its text carries no personal data.
type renderError struct{ error }

// render fills the message's templates. A suspect is rendered alone, and on record: if the process ends meanwhile, the next
// one finds the message in SuspectRendering and fails it.
func (d *Deliverer) render(ctx context.Context, w *work) (content render.Rendered, err error) {
	if w.Suspect != message.NotSuspect {
		d.suspects.Lock()
		defer d.suspects.Unlock()
		if err := d.Suspicions.Suspect(ctx, w.ID, message.SuspectRendering); err != nil {
			return content, err
		}
		defer func() {
			err = errors.Join(err, d.Suspicions.Suspect(context.WithoutCancel(ctx), w.ID, message.Suspected))
		}()
	}
	fault.Point(fault.MessageRendering)
	if w.template == nil {
		if w.template, err = d.template(ctx, w); err != nil {
			return content, err
		}
	}
	content, err = w.template.Render(ctx, w.lead)
	switch cause := ctx.Err(); {
	case err == nil:
		return content, nil
	case cause != nil:
		return content, cause // the template is not at fault
	}
	return content, &renderError{err}
}

// erase ends a message of a bulk whose lead no longer exists.
func (d *Deliverer) erase(ctx context.Context, w *work) (Result, error) {
	if err := d.Suspicions.EraseMessage(ctx, w.ID); err != nil {
		return Result{}, err
	}
	return d.standing(ctx, w)
}

// hold leaves a message that must wait for its bulk or its channel. The runner of the bulk enqueues it again after the pause;
// a single is looked at again by its own task.
func (d *Deliverer) hold(ctx context.Context, w *work) (Result, error) {
	again := time.Duration(0)
	if w.single() {
		again = d.Timing.PausedRetry
	}
	if w.inline || w.token != uuid.Nil {
		return d.stepAside(ctx, w, again)
	}
	return Result{Status: w.Status, Again: again}, nil
}

func (d *Deliverer) template(ctx context.Context, w *work) (*render.Template, error) {
	if w.Content == nil {
		return d.Contents.Template(ctx, w.BulkID)
	}
	t, errs := render.Compile(ctx, w.ChannelType, *w.Content)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t, message.Invalid(errs)
}

// awaitTurn waits for the channel's next turn. It returns how long to step aside when none is near, 0 when the message
// may go.
func (d *Deliverer) awaitTurn(ctx context.Context, w *work, ch *channel.Channel) time.Duration {
	turn := d.Limiter.Reserve(ctx, ch, d.Providers[w.ChannelType].Parts(w.contentOf())-w.Part, w.single())
	switch {
	case !turn.Granted:
		return max(turn.Wait, leastAside)
	case turn.Wait > 0:
		d.away(w)
		defer d.back(w)
		if !pause.For(ctx, turn.Wait) {
			return leastAside
		}
	}
	return 0
}

// away says that a worker waits for others with a message. Inline, it is the caller who waits.
func (d *Deliverer) away(w *work) {
	if !w.inline {
		d.InFlight.Release(w.ChannelType)
	}
}

func (d *Deliverer) back(w *work) {
	if !w.inline {
		d.InFlight.Acquire(w.ChannelType)
	}
}

// report tells the limiter what a call met.
func (d *Deliverer) report(ctx context.Context, w *work, ch *channel.Channel, r Response) {
	signal := Answered
	switch {
	case r.Class == NotSent && r.Scope == ScopeRate:
		signal = Throttled
	case r.Class == Unknown, r.Class == NotSent && r.Scope == ScopeNone:
		signal = Failing
	}
	if err := d.Limiter.Report(context.WithoutCancel(ctx), ch, signal, r.RetryAfter); err != nil {
		w.event.Err = errors.Join(w.event.Err, err)
	}
}

// contentOf is the content as far as it decides the number of calls; the templates of a bulk are not at hand here.
func (w *work) contentOf() *message.Content {
	c := w.template.Content()
	return &c
}

// giveBack ends a claim under which nothing was called; it uses no attempt.
func (d *Deliverer) giveBack(ctx context.Context, w *work, again time.Duration) (Result, error) {
	return d.settle(ctx, w, Outcome{Status: d.waiting(w), Part: w.Part, GiveBack: true, Again: again, Reason: w.Reason})
}

// stepAside steps aside before anything was called. Inline it hands the message to the workers.
func (d *Deliverer) stepAside(ctx context.Context, w *work, wait time.Duration) (Result, error) {
	if w.token != uuid.Nil {
		return d.giveBack(ctx, w, wait)
	}
	if !w.inline {
		return Result{Status: w.Status, Again: wait}, nil
	}
	return d.settle(ctx, w, Outcome{Status: message.Queued, Again: wait})
}

// send claims, unless that is done, calls the provider once per part that is still to be sent, and records each outcome
// before the next call.
func (d *Deliverer) send(ctx context.Context, w *work, e Envelope) (Result, error) {
	if w.token == uuid.Nil {
		if ok, err := d.claim(ctx, w); err != nil || !ok {
			return Result{Status: w.Status}, err // settled, or another has it
		}
	}
	w.event.Attempt = w.Attempt
	fault.Point(fault.MessageClaimed)
	parts := d.Providers[w.ChannelType].Parts(&e.Content.Content)
	for e.Part = w.Part; ; e.Part++ {
		if time.Since(w.claimed) > d.Timing.Stale || ctx.Err() != nil {
			w.Part = e.Part
			return d.giveBack(ctx, w, time.Second)
		}
		started := time.Now()
		resp := d.call(ctx, w, e)
		w.event.Send += time.Since(started)
		w.event.Class, w.event.Detail = resp.Class, resp.Detail
		fault.Point(fault.ProviderAnswered)
		d.report(ctx, w, e.Channel, resp)
		o := d.judge(ctx, w, e, resp)
		o.Attempt = attemptOf(w, e.Part, started, resp)
		if resp.Class != Accepted || e.Part+1 >= parts {
			return d.settle(ctx, w, o)
		}
		// The part is on record before the next one leaves, so a death in between resumes at the next.
		o.Status, o.Keep, o.Cost = message.Sending, d.Timing.Claim, 0
		if res, err := d.settle(ctx, w, o); err != nil || w.event.Fenced || res.Status != message.Sending {
			return res, err // a message whose lead was erased meanwhile has no further part
		}
		w.claimed = time.Now()
	}
}

// call makes one call to the provider, which the worker's backlog is told of, also when the call panics.
func (d *Deliverer) call(ctx context.Context, w *work, e Envelope) Response {
	ctx, cancel := context.WithTimeout(ctx, SendTimeout)
	defer cancel()
	d.away(w)
	defer d.back(w)
	w.called = true
	return d.Providers[w.ChannelType].Send(ctx, e).cleaned()
}

// claim takes the message, and says whether it is there to be taken.
func (d *Deliverer) claim(ctx context.Context, w *work) (ok bool, err error) {
	claim := d.newClaim(w.ID)
	fault.Point(fault.MessageLoaded)
	began := time.Now()
	asked, err := d.persist(ctx, func(ctx context.Context) error {
		ok, err = d.Ledger.Claim(ctx, claim)
		return err
	})
	w.event.Claim = time.Since(began)
	if err != nil {
		d.release(ctx, claim, d.waiting(w))
	}
	if ok {
		w.token, w.claimed = claim.Token, asked
		w.Attempt++
	}
	return ok, err
}

// persist asks the ledger for a claim until it answers, and returns when it did so: the time before the last asking, so
// that a process that was frozen on the way knows how old its claim is. A claim whose answer was lost is asked for again,
// since only its owner knows that nothing was sent under it.
func (d *Deliverer) persist(ctx context.Context, ask func(ctx context.Context) error) (time.Time, error) {
	asked := time.Now()
	err := ask(ctx)
	if !message.IsCode(err, message.CodeUnavailable) {
		return asked, err
	}
	ctx, cancel := context.WithTimeout(ctx, claimBudget)
	defer cancel()
	for wait := recordPause; message.IsCode(err, message.CodeUnavailable) && pause.For(ctx, wait); wait = min(2*wait, time.Second) {
		asked = time.Now()
		err = ask(ctx)
	}
	return asked, err
}
