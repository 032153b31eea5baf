package delivery_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/render"
	"herald/pkg/stats"
)

// fakes are all ports of a Deliverer but the ledger. Each fake checks the arguments that are the same in every delivery
// of the test (the channel, the bulk, a live context) and records the others.
type fakes struct {
	t       *testing.T
	ch      *channel.Channel
	content message.Content // of the bulks
	bulks   sync.Map        // ids of the bulks that exist

	answers []delivery.Response // one for each call, the last one for all further calls
	parts   int                 // of the provider: calls per message
	limit   time.Duration       // the limiter says no, and to ask again after this
	ahead   time.Duration       // the limiter says yes, after this
	panics  bool                // the limiter panics
	missing error               // of Contents
	noChan  error               // of Channels
	noPause error               // of Channels.Pause
	noQueue error               // of Queue
	noLimit error               // of Limiter.Report
	onRead  func()              // while the templates of the bulk are read
	onSend  func()              // while the provider is called

	mu       sync.Mutex
	sends    int
	sent     []delivery.Envelope
	last     delivery.Envelope
	timeouts []time.Duration // of the calls to the provider

	notes    sync.Mutex // guards what follows
	marks    []stats.MessageState
	later    []time.Duration
	queued   []uuid.UUID
	events   []delivery.Event
	paused   string
	signals  []delivery.Signal
	alone    []time.Duration
	asked    []rateRequest
	versions []int64
	measured []message.Content // contents whose parts were counted
	refused  map[string]bool   // the recipients of a streak
	code     string            // of the streak

	deps  delivery.Deps // tests change them before the first use of d
	build sync.Once
	built *delivery.Deliverer

	out atomic.Int32 // messages that a worker has begun and that wait for the provider or the rate
}

// rateRequest is what the limiter was asked for.
type rateRequest struct {
	calls  int
	single bool
}

func newFakes(t *testing.T) *fakes {
	return &fakes{
		t: t, parts: 1, answers: []delivery.Response{accepted}, content: message.Content{Subject: "s", Text: "t"},
		ch: &channel.Channel{
			Key: channel.Key{ID: uuid.New(), Type: message.Email}, Provider: "sendgrid", Sender: "a@acme.test", Price: 1000,
			OnUnknown: channel.ResendOnce, State: channel.Active,
		},
	}
}

// on makes the fakes the ports of a Deliverer on a ledger.
func (f *fakes) on(ledger interface {
	delivery.Ledger
	delivery.Suspicions
}) {
	f.deps = delivery.Deps{
		Ledger: ledger, Suspicions: ledger, Contents: f, Channels: f, Limiter: f, Counters: f, Queue: f, InFlight: f, Observer: f, Refusals: f,
		Timing: delivery.DefaultTiming(), Providers: map[string]delivery.Provider{"sendgrid": f},
	}
}

// d is the Deliverer under test.
func (f *fakes) d() *delivery.Deliverer {
	f.build.Do(func() { f.built = delivery.New(f.deps) })
	return f.built
}

// alive fails the test when a port is called with a context that has ended.
func (f *fakes) alive(ctx context.Context, port string) {
	if err := ctx.Err(); err != nil {
		f.t.Errorf("%s is called with a context that has ended: %v", port, err)
	}
}

func (f *fakes) note(record func()) {
	f.notes.Lock()
	defer f.notes.Unlock()
	record()
}

func (f *fakes) Template(ctx context.Context, bulkID uuid.UUID) (*render.Template, error) {
	if _, ok := f.bulks.Load(bulkID); !ok {
		f.t.Errorf("the templates of an unknown bulk are read: %s", bulkID)
	}
	tpl, _ := render.Compile(ctx, message.Email, f.content)
	if f.onRead != nil {
		f.onRead()
	}
	return tpl, f.missing
}

func (f *fakes) Release(t message.ChannelType) { f.moved(t, 1) }
func (f *fakes) Acquire(t message.ChannelType) { f.moved(t, -1) }

func (f *fakes) moved(t message.ChannelType, by int32) {
	if t != message.Email {
		f.t.Errorf("the backlog of %s is told of an email", t)
	}
	f.out.Add(by)
}

func (f *fakes) AtLeast(_ context.Context, k channel.Key, version int64) (*channel.Channel, error) {
	if k != f.ch.Key {
		f.t.Errorf("the channel %v is asked for, not %v", k, f.ch.Key)
	}
	f.note(func() { f.versions = append(f.versions, version) })
	return f.ch, f.noChan
}

func (f *fakes) Pause(ctx context.Context, c *channel.Channel, reason string) error {
	f.alive(ctx, "Pause")
	if c.Key != f.ch.Key {
		f.t.Errorf("the channel %v is paused", c.Key)
	}
	f.note(func() { f.paused = reason })
	return f.noPause
}

func (f *fakes) Reserve(_ context.Context, c *channel.Channel, n int, single bool) delivery.Reservation {
	if c.Key != f.ch.Key {
		f.t.Errorf("the rate of the channel %v is asked for", c.Key)
	}
	f.note(func() { f.asked = append(f.asked, rateRequest{n, single}) })
	if f.panics {
		panic("limiter")
	}
	if f.limit != 0 {
		return delivery.Reservation{Wait: f.limit}
	}
	return delivery.Reservation{Granted: true, Wait: f.ahead}
}

func (f *fakes) Report(ctx context.Context, c *channel.Channel, s delivery.Signal, alone time.Duration) error {
	f.alive(ctx, "Report")
	if c.Key != f.ch.Key {
		f.t.Errorf("a call over the channel %v is reported", c.Key)
	}
	f.note(func() { f.signals, f.alone = append(f.signals, s), append(f.alone, alone) })
	return f.noLimit
}

func (f *fakes) Refused(ctx context.Context, c *channel.Channel, code, recipient string, limit int) (reached bool, err error) {
	f.alive(ctx, "Refused")
	if c.Key != f.ch.Key {
		f.t.Errorf("a refusal over the channel %v is counted", c.Key)
	}
	f.note(func() {
		if code != f.code || f.refused == nil {
			f.code, f.refused = code, map[string]bool{}
		}
		f.refused[recipient] = true
		reached = len(f.refused) >= limit
	})
	return reached, nil
}

func (f *fakes) Accepted(ctx context.Context, k channel.Key) error {
	f.alive(ctx, "Accepted")
	if k != f.ch.Key {
		f.t.Errorf("an acceptance over the channel %v is counted", k)
	}
	f.note(func() { f.refused = nil })
	return nil
}

func (f *fakes) Count(bulkID uuid.UUID, m stats.MessageState) {
	if _, ok := f.bulks.Load(bulkID); !ok {
		f.t.Errorf("a message of an unknown bulk is counted: %s", bulkID)
	}
	f.note(func() { f.marks = append(f.marks, m) })
}

func (f *fakes) Later(ctx context.Context, m *message.Message, d time.Duration) error {
	f.alive(ctx, "Later")
	f.note(func() { f.later, f.queued = append(f.later, d), append(f.queued, m.ID) })
	return f.noQueue
}

func (f *fakes) Delivered(_ context.Context, e delivery.Event) {
	f.note(func() { f.events = append(f.events, e) })
}

func (f *fakes) Parts(c *message.Content) int {
	f.note(func() { f.measured = append(f.measured, *c) })
	return f.parts
}

func (f *fakes) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive(ctx, "Send")
	if deadline, ok := ctx.Deadline(); ok {
		f.timeouts = append(f.timeouts, time.Until(deadline))
	}
	if e.Channel.Key != f.ch.Key {
		f.t.Errorf("sent over the channel %v", e.Channel.Key)
	}
	f.last, f.sent = e, append(f.sent, e)
	if f.onSend != nil {
		f.onSend()
	}
	r := f.answers[min(f.sends, len(f.answers)-1)]
	f.sends++
	return r
}

// oneRow is a ledger of one message in memory, for tests of exact outcomes and times (testing/synctest). Claims and
// outcomes are compare-and-set, as delivery.Ledger asks.
type oneRow struct {
	t *testing.T

	mu       sync.Mutex
	loaded   delivery.Loaded
	gone     bool // the ledger has no such row
	plain    bool // the first claim is made by the statement that loads the row
	claims   []delivery.Claim
	outcomes []written
	suspects []message.Suspect // what Suspect has set, in order
	entries  []delivery.Entry

	before func(call string) error // before each call; its error is the call's and nothing is done
	after  func(call string) error // after each call took effect; its error is the call's
}

// call runs one call of a port with the hooks around it.
func (r *oneRow) call(name string, do func()) error {
	if r.before != nil {
		if err := r.before(name); err != nil {
			return err
		}
	}
	r.mu.Lock()
	do()
	r.mu.Unlock()
	if r.after != nil {
		return r.after(name)
	}
	return nil
}

// copied is the row as a caller gets it: a later change of the row does not show in it.
func (r *oneRow) copied() delivery.Loaded {
	l := r.loaded
	m := *l.Message
	l.Message = &m
	return l
}

func (r *oneRow) absent() error {
	if r.gone {
		return message.Errorf(message.CodeNotFound, "message not found")
	}
	return nil
}

func (r *oneRow) Load(_ context.Context, id uuid.UUID) (l delivery.Loaded, err error) {
	if cerr := r.call("Load", func() { l, err = r.copied(), r.absent() }); cerr != nil {
		return delivery.Loaded{}, cerr
	}
	r.is(id)
	return l, err
}

func (r *oneRow) is(id uuid.UUID) {
	if id != r.loaded.Message.ID {
		r.t.Errorf("the message %s is asked for, not %s", id, r.loaded.Message.ID)
	}
}

func (r *oneRow) LoadAndClaim(_ context.Context, c delivery.Claim) (l delivery.Loaded, err error) {
	cerr := r.call("Take", func() {
		r.is(c.ID)
		if err = r.absent(); err != nil {
			return
		}
		m := r.loaded.Message
		claimed := r.plain && (m.Attempt < c.Most && r.claim(c) || m.Status == message.Sending && r.loaded.ClaimToken == c.Token)
		l = r.copied()
		l.Claimed = claimed
	})
	if cerr != nil {
		return delivery.Loaded{}, cerr
	}
	return l, err
}

func (r *oneRow) Claim(_ context.Context, c delivery.Claim) (ok bool, err error) {
	if cerr := r.call("Claim", func() { r.is(c.ID); ok = r.claim(c) }); cerr != nil {
		return false, cerr
	}
	return ok, nil
}

// claim takes a row that waits, or one that the same claim has taken already.
func (r *oneRow) claim(c delivery.Claim) bool {
	m := r.loaded.Message
	mine := m.Status == message.Sending && r.loaded.ClaimToken == c.Token
	if !mine && m.Status != message.Pending && m.Status != message.Queued {
		return false
	}
	if r.claims = append(r.claims, c); !mine {
		m.Status, r.loaded.ClaimToken = message.Sending, c.Token
		m.Attempt++
	}
	return true
}

func (r *oneRow) Settle(ctx context.Context, o delivery.Outcome) (s delivery.Settled, err error) {
	if ctx.Err() != nil {
		r.t.Errorf("an outcome is written with a context that has ended: %v", ctx.Err())
	}
	if cerr := r.call("Settle", func() { s = r.settle(o) }); cerr != nil {
		return delivery.Settled{}, cerr
	}
	return s, nil
}

func (r *oneRow) settle(outcome delivery.Outcome) delivery.Settled {
	m, o := r.loaded.Message, writtenOf(outcome)
	r.is(o.ID)
	under := m.Status == message.Sending && r.loaded.ClaimToken == o.Token
	if o.Token == uuid.Nil {
		under = m.Status == message.Pending || m.Status == message.Queued
	}
	if !under {
		return delivery.Settled{}
	}
	r.outcomes = append(r.outcomes, o)
	m.Status, m.Reason, m.Part = o.Status, o.Reason, o.Part
	if o.GiveBack {
		m.Attempt--
	}
	m.UpdatedAt = time.Now()
	return delivery.Settled{OK: true, At: m.UpdatedAt}
}

// written is an outcome as the ledger reads it.
type written struct {
	ID, Token         uuid.UUID
	Status            message.Status
	Reason            message.Reason
	Failure           *message.Failure
	ProviderMessageID string
	HTTPStatus        int
	Cost              message.Micros
	Part              int
	Keep              time.Duration // the claim goes on
	GiveBack          bool          // the attempt does not count
	Again             time.Duration // the row is due after this
	Attempt           *message.Attempt
}

func writtenOf(o delivery.Outcome) written {
	return written{
		ID: o.ID(), Token: o.Token(), Status: o.Status(), Reason: o.Reason(), Failure: o.Failure(), ProviderMessageID: o.ProviderMessageID(),
		HTTPStatus: o.HTTPStatus(), Cost: o.Cost(), Part: o.Part(), Keep: o.ExtendsClaim(), GiveBack: o.RefundsAttempt(), Again: o.DueAfter(),
		Attempt: o.Attempt(),
	}
}

func (r *oneRow) Suspect(ctx context.Context, id uuid.UUID, s message.Suspect) error {
	if ctx.Err() != nil {
		r.t.Errorf("a suspicion is written with a context that has ended: %v", ctx.Err())
	}
	return r.call("Suspect", func() {
		r.is(id)
		r.suspects, r.loaded.Message.Suspect = append(r.suspects, s), s
	})
}

func (r *oneRow) EraseMessage(_ context.Context, id uuid.UUID) error {
	return r.call("EraseMessage", func() {
		r.is(id)
		m := r.loaded.Message
		m.Status, m.Reason, m.Recipient = message.Skipped, message.Erased, ""
	})
}

func (r *oneRow) Insert(_ context.Context, e delivery.Entry) (ins delivery.Inserted, err error) {
	err = r.call("Insert", func() {
		m := *e.Message
		r.entries = append(r.entries, e)
		r.loaded.Message = &m
		ins.ChannelVersion, ins.Suppressed = r.loaded.ChannelVersion, r.loaded.Suppressed
		if e.Claim.Token != uuid.Nil && ins.Suppressed == message.NoReason {
			ins.Claimed = r.claim(e.Claim)
		}
	})
	return ins, err
}

// Message implements delivery.MessageStore.
func (r *oneRow) Message(_ context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error) {
	r.is(id)
	return r.copied().Message, nil, r.absent()
}

// rig is a Deliverer on a ledger of one row in memory.
type rig struct {
	*fakes
	row *oneRow
}

// newRig makes a rig whose row is a message of a bulk that nothing refuses or delays. change may be nil.
func newRig(t *testing.T, change func(r *rig, m *message.Message)) *rig {
	t.Helper()
	f := newFakes(t)
	m := &message.Message{
		ID: uuid.Must(uuid.NewV7()), BulkID: uuid.New(), Seq: 7, LeadID: uuid.New(), ChannelID: f.ch.ID, ChannelType: message.Email,
		Provider: "sendgrid", Recipient: "x@example.com", MessageType: message.Marketing, Priority: message.Normal, Status: message.Pending,
	}
	r := &rig{fakes: f, row: &oneRow{t: t, plain: true}}
	r.row.loaded = delivery.Loaded{Message: m, Lead: &message.Lead{ID: m.LeadID}, ChannelVersion: 41}
	if change != nil {
		change(r, m)
	}
	f.bulks.Store(m.BulkID, true)
	f.on(r.row)
	return r
}

// single makes the row of a rig a single that waits in the queue.
func single(r *rig, m *message.Message) {
	m.BulkID, m.Status, m.Content, r.row.plain = uuid.Nil, message.Queued, &message.Content{Subject: "s", Text: "t"}, false
}

// suspect makes the row of a rig a suspect, which is claimed just before it is sent.
func suspect(r *rig, m *message.Message) { m.Suspect, r.row.plain = message.Suspected, false }

func (r *rig) run() delivery.Result {
	r.t.Helper()
	res, err := r.d().Run(r.t.Context(), r.row.loaded.Message.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// sender sends singles inline over the rig's ledger.
func (r *rig) sender() *delivery.Sender { return r.senderFor(noLeads{}) }

// senderFor is sender with a CRM.
func (r *rig) senderFor(leads delivery.Leads) *delivery.Sender {
	return delivery.NewSender(delivery.SenderDeps{Deliverer: r.d(), Inserter: r.row, Leads: leads, Messages: r.row})
}

// request is a single that the rig's channel takes.
func (r *rig) request() delivery.SendRequest {
	return delivery.SendRequest{
		Channel: r.ch, Recipient: "x@example.com", Content: message.Content{Subject: "s", Text: "t"}, MessageType: message.Transactional,
		Priority: message.High,
	}
}

func (r *rig) send() *delivery.SendResult {
	r.t.Helper()
	sent, err := r.sender().Send(r.t.Context(), r.request())
	if err != nil {
		r.t.Fatal(err)
	}
	return sent
}

// outcome is the only outcome that was written, without what differs between two runs.
func (r *rig) outcome() written {
	r.t.Helper()
	if len(r.row.outcomes) != 1 {
		r.t.Fatalf("%d outcomes, want 1: %+v", len(r.row.outcomes), r.row.outcomes)
	}
	o := r.row.outcomes[0]
	o.ID, o.Token, o.Attempt = uuid.Nil, uuid.Nil, nil
	return o
}

// failing makes the given calls to the ledger fail with an error as long as left is positive.
func (r *rig) failing(err error, left int, calls ...string) {
	r.row.before = func(call string) error {
		if left > 0 && slices.Contains(calls, call) {
			left--
			return err
		}
		return nil
	}
}

// noLeads is a CRM without leads.
type noLeads struct{}

func (noLeads) Lead(_ context.Context, id uuid.UUID) (*message.Lead, error) {
	return nil, message.Errorf(message.CodeNotFound, "lead %s not found", id)
}
