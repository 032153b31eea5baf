package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/pause"
	"herald/pkg/render"
	"herald/pkg/stats"
)

// Deps is what a Deliverer works with.
type Deps struct {
	Ledger    Ledger
	Contents  Contents
	Channels  Channels
	Limiter   Limiter
	Counters  Counters
	Queue     Queue
	Backlog   Backlog
	Providers map[message.Type]Provider
	Observer  Observer
	Timing    Timing
}

// Deliverer delivers messages. It is safe for concurrent use.
type Deliverer struct{ Deps }

// New makes a Deliverer.
func New(d Deps) *Deliverer { return &Deliverer{d} }

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
	token      uuid.UUID // of the claim, uuid.Nil before
	claimed    time.Time // since when at the latest: the time before the ledger was asked
	inline     bool      // within a request: a NotSent turns into QUEUED
	event      Event
}

// single says whether the message is not of a bulk.
func (w *work) single() bool { return w.BulkID == uuid.Nil }

const (
	inlineBudget  = 10 * time.Second // an outcome is written even when the caller has gone; one that waits is told in time
	claimBudget   = 30 * time.Second // a claim whose answer was lost is asked for again
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
		loaded, err = d.Ledger.Take(ctx, claim)
		return err
	})
	if message.IsCode(err, message.CodeNotFound) {
		return Result{}, nil // its bulk was removed
	}
	if err != nil {
		return Result{}, err
	}
	w := &work{Message: loaded.Message, lead: loaded.Lead, suppressed: loaded.Suppressed, held: loaded.Held}
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

func (d *Deliverer) deliver(ctx context.Context, w *work, start time.Time) (Result, error) {
	res, err := d.steps(ctx, w)
	if err != nil && w.token != uuid.Nil && w.event.Send == 0 {
		// Nothing was called, and only this process knows that.
		if _, gerr := d.giveBack(ctx, w, time.Second); gerr != nil {
			err = errors.Join(err, gerr)
		}
	}
	e := &w.event
	e.Message, e.Status, e.Reason, e.Again, e.Err = w.Message, res.Status, res.Reason, res.Again, errors.Join(e.Err, err)
	e.Duration = time.Since(start)
	d.Observer.Delivered(ctx, *e)
	return res, err
}

func (d *Deliverer) steps(ctx context.Context, w *work) (Result, error) {
	if w.Status.Rank() > 0 { // an UNKNOWN message that is due again is put back to wait first
		return Result{Status: w.Status, Reason: w.Reason}, nil
	}
	if w.held {
		return d.hold(w), nil
	}
	if w.suppressed != message.NoReason {
		return d.settle(ctx, w, Outcome{
			Status: message.Skipped, Reason: w.suppressed, Failure: &message.Failure{Code: string(w.suppressed), Text: "the recipient is on the suppression list"},
		})
	}
	ch, err := d.Channels.Get(ctx, channel.Key{ID: w.ChannelID, Type: w.Type})
	if err != nil {
		return Result{}, err
	}
	if w.Attempt >= MaxAttempts && w.token == uuid.Nil {
		reason := w.Reason
		if reason == message.NoReason {
			reason = message.Poison
		}
		return d.settle(ctx, w, Outcome{Status: message.Failed, Reason: reason, Failure: w.Failure})
	}
	if w.template == nil {
		if w.template, err = d.template(ctx, w); err != nil {
			return Result{}, err
		}
	}
	content, err := w.template.Render(ctx, w.lead)
	if cause := ctx.Err(); err != nil && cause != nil {
		return Result{}, cause // the template is not at fault
	}
	if err != nil {
		return d.settle(ctx, w, Outcome{
			Status: message.Failed, Reason: message.RenderInvalid, Failure: &message.Failure{Code: string(message.RenderInvalid), Text: err.Error()},
			GiveBack: w.token != uuid.Nil,
		})
	}
	if wait := d.awaitTurn(ctx, w, ch); wait > 0 {
		return d.stepAside(ctx, w, wait)
	}
	return d.send(ctx, w, Envelope{MessageID: w.ID, Channel: ch, Recipient: w.Recipient, Content: content})
}

// hold leaves a message as it is. Whoever runs its bulk enqueues it again when it goes on; a single looks for itself.
func (d *Deliverer) hold(w *work) Result {
	if w.single() {
		return Result{Status: w.Status, Again: d.Timing.PausedRetry}
	}
	return Result{Status: w.Status}
}

func (d *Deliverer) template(ctx context.Context, w *work) (*render.Template, error) {
	if w.Content == nil {
		return d.Contents.Template(ctx, w.BulkID)
	}
	t, errs := render.Compile(ctx, w.Type, *w.Content)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t, message.Invalid(errs)
}

// awaitTurn waits for the channel's next turn. It returns how long to step aside when none is near, 0 when the message
// may go.
func (d *Deliverer) awaitTurn(ctx context.Context, w *work, ch *channel.Channel) time.Duration {
	turn := d.Limiter.Take(ctx, ch, d.Providers[w.Type].Parts(w.contentOf())-w.Part, w.single())
	switch {
	case !turn.Given:
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
		d.Backlog.Away(w.Type)
	}
}

func (d *Deliverer) back(w *work) {
	if !w.inline {
		d.Backlog.Back(w.Type)
	}
}

// report tells the limiter what a call met.
func (d *Deliverer) report(ctx context.Context, w *work, ch *channel.Channel, r Response) {
	signal := Answered
	switch {
	case r.Class == NotSent && r.Fault == OfRate:
		signal = Throttled
	case r.Class == NotKnown, r.Class == NotSent && r.Fault == OfNobody:
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
	provider := d.Providers[w.Type]
	if w.token == uuid.Nil {
		if ok, err := d.claim(ctx, w); err != nil || !ok {
			return Result{Status: w.Status}, err // settled, or another has it
		}
	}
	w.event.Attempt = w.Attempt
	fault.Point(fault.MessageClaimed)
	parts := provider.Parts(&e.Content.Content)
	for e.Part = w.Part; ; e.Part++ {
		if time.Since(w.claimed) > d.Timing.Stale || ctx.Err() != nil {
			w.Part = e.Part
			return d.giveBack(ctx, w, time.Second)
		}
		sctx, cancel := context.WithTimeout(ctx, SendTimeout)
		started := time.Now()
		d.away(w)
		resp := provider.Send(sctx, e)
		d.back(w)
		cancel()
		w.event.Send += time.Since(started)
		w.event.Class = resp.Class
		fault.Point(fault.ProviderAnswered)
		d.report(ctx, w, e.Channel, resp)
		o := d.judge(ctx, w, e, resp)
		o.Attempt = attemptOf(w, e.Part, started, resp)
		if resp.Class != Accepted || e.Part+1 >= parts {
			return d.settle(ctx, w, o)
		}
		// The part is on record before the next one leaves, so a death in between resumes at the next.
		o.Status, o.Keep, o.Cost = message.Sending, d.Timing.Claim, 0
		if res, err := d.settle(ctx, w, o); err != nil || w.event.Fenced {
			return res, err
		}
		w.claimed = time.Now()
	}
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

// judge turns a classified response into what the row says next.
func (d *Deliverer) judge(ctx context.Context, w *work, e Envelope, r Response) Outcome {
	o := Outcome{Part: e.Part, Reason: r.Reason, Failure: r.Failure, HTTPStatus: r.HTTPStatus, ProviderMessageID: r.ProviderMessageID}
	switch r.Class {
	case Accepted:
		o.Status, o.Reason, o.Part = message.Sent, message.NoReason, e.Part+1
		o.Cost = e.Channel.Cost(e.Content.Segments, len(e.Content.MediaURLs) > 0)
	case Refused:
		o.Status = message.Failed
	case NotKnown:
		o.Status, o.Reason, o.Again = d.Unsettled(w.Message, e.Channel)
	case NotSent:
		d.judgeNotSent(ctx, w, e, r, &o)
	}
	return o
}

func (d *Deliverer) judgeNotSent(ctx context.Context, w *work, e Envelope, r Response, o *Outcome) {
	o.Status = d.waiting(w)
	switch r.Fault {
	case OfMessage:
		o.Status = message.Failed
		return
	case OfChannel:
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
	case OfRate:
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

// settle writes an outcome, counts it, and hands a single that waits to the workers. What happened is recorded even when
// the caller has gone.
func (d *Deliverer) settle(ctx context.Context, w *work, o Outcome) (Result, error) {
	ctx = context.WithoutCancel(ctx)
	budget := max(d.Timing.Claim, inlineBudget) // as long as nobody else may have the message
	if w.inline {
		var cancel context.CancelFunc
		budget = inlineBudget
		ctx, cancel = context.WithTimeout(ctx, budget)
		defer cancel()
	}
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
	settled, err := d.record(ctx, stored, budget)
	w.event.Outcome += time.Since(began)
	if err != nil {
		return Result{}, err
	}
	if !settled.OK {
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
		mark := stats.Mark{Seq: w.Seq, Status: o.Status, Reason: o.Reason, Waiting: o.Status == message.Unknown && o.Again > 0, Cost: o.Cost}
		if mark.Standing() != 0 {
			d.Counters.Count(w.BulkID, mark)
		}
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

// record writes an outcome, again and again within a budget while the ledger does not answer: what happened is known only
// here. When the answer to the write was lost, the row tells whether it took effect.
func (d *Deliverer) record(ctx context.Context, o Outcome, budget time.Duration) (Settled, error) {
	settled, err := d.Ledger.Settle(ctx, o)
	if !message.IsCode(err, message.CodeUnavailable) {
		return settled, err
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	for wait := recordPause; message.IsCode(err, message.CodeUnavailable) && pause.For(ctx, wait); wait = min(2*wait, time.Second) {
		if settled, err = d.recorded(ctx, o); err == nil && !settled.OK {
			settled, err = d.Ledger.Settle(ctx, o)
		}
	}
	return settled, err
}

// recorded says whether the row shows an outcome: it stands as the outcome says, under the outcome's claim.
func (d *Deliverer) recorded(ctx context.Context, o Outcome) (Settled, error) {
	loaded, err := d.Ledger.Load(ctx, o.ID)
	if err != nil {
		return Settled{}, err
	}
	m := loaded.Message
	return Settled{OK: loaded.ClaimToken == o.Token && m.Status == o.Status && m.Part == o.Part, At: m.UpdatedAt}, nil
}
