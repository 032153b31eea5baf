package delivery_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// world is a Deliverer on a real ledger (SQLite) whose other ports are fakes.
type world struct {
	*fakes
	store *storetest.Store
	url   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	sealer, err := seal.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{fakes: newFakes(t), url: testenv.Database(t, testenv.SQLite)}
	w.store = storetest.Open(t, w.url, storetest.Options{Sealer: sealer})
	if err := w.store.InsertChannel(t.Context(), w.ch); err != nil {
		t.Fatal(err)
	}
	w.on(w.store)
	return w
}

// The in-flight limiter does not count a worker's message while the provider has it. It is not called for an inline delivery.
func TestSlotsAreReleasedWhileAMessageWaits(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{{Class: delivery.Accepted}}
	var during []int32
	w.onSend = func() { during = append(during, w.out.Load()) }
	if _, err := w.d().Run(t.Context(), w.row(nil)); err != nil {
		t.Fatal(err)
	}
	sent, err := w.sender().Send(t.Context(), delivery.SendRequest{Channel: w.ch, Recipient: "x@example.com", Content: message.Content{Subject: "s", Text: "t"}, MessageType: message.Transactional, Priority: message.Normal})
	if err != nil || sent.Status != message.Sent {
		t.Fatalf("%+v, %v", sent, err)
	}
	if !slices.Equal(during, []int32{1, 0}) || w.out.Load() != 0 {
		t.Errorf("out of hand while they were sent: %v, at the end: %d", during, w.out.Load())
	}
}

// row writes a message of a bulk and returns its id.
func (w *world) row(change func(*message.Message)) uuid.UUID {
	w.t.Helper()
	now := time.Now()
	m := &message.Message{
		ID: uuid.Must(uuid.NewV7()), BulkID: uuid.New(), Seq: 7, LeadID: uuid.New(), ChannelID: w.ch.ID, ChannelType: message.Email, Provider: "sendgrid",
		Recipient: "x@example.com", MessageType: message.Marketing, Priority: message.Normal, Status: message.Pending, CreatedAt: now, UpdatedAt: now,
	}
	if err := w.store.InsertLeads(w.t.Context(), []message.Lead{{ID: m.LeadID, CreatedAt: now, UpdatedAt: now}}); err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(m)
	}
	if m.BulkID != uuid.Nil {
		w.bulks.Store(m.BulkID, true)
		w.exec(`INSERT INTO bulks (id, channel_id, channel_type, provider, message_type, priority, content, criteria, request, status, created_at)
			VALUES (?, ?, 'EMAIL', 'sendgrid', 'MARKETING', 'NORMAL', '{}', '{}', '{}', 'PROCESSING', ?)`, m.BulkID.String(), m.ChannelID.String(), now)
	}
	if _, err := w.store.Insert(w.t.Context(), delivery.Entry{Message: m}); err != nil {
		w.t.Fatal(err)
	}
	return m.ID
}

func (w *world) run(id uuid.UUID) delivery.Result {
	w.t.Helper()
	res, err := w.d().Run(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func (w *world) load(id uuid.UUID) *message.Message {
	w.t.Helper()
	l, err := w.store.Load(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return l.Message
}

var (
	accepted    = delivery.Response{Class: delivery.Accepted, HTTPStatus: 202, ProviderMessageID: "p1"}
	unreachable = delivery.Response{Class: delivery.NotSent, Reason: message.Unreachable, Failure: &message.Failure{Code: "unreachable", Text: "x"}}
	throttled   = delivery.Response{Class: delivery.NotSent, Scope: delivery.ScopeRate, Reason: message.ProviderUnavailable, RetryAfter: 9 * time.Second}
	dead        = delivery.Response{Class: delivery.NotSent, Scope: delivery.ScopeChannel, Reason: message.ChannelCredentials, Failure: &message.Failure{Code: "401", Text: "revoked"}}
	lost        = delivery.Response{Class: delivery.Unknown, Reason: message.UnknownOutcome}
	refused     = delivery.Response{Class: delivery.Refused, Scope: delivery.ScopeMessage, Reason: message.RecipientRefused}
)

func TestEachClassLeavesItsRow(t *testing.T) {
	for name, c := range map[string]struct {
		answer  delivery.Response
		status  message.Status
		attempt int
		again   bool
		waits   bool // next_attempt_at is set
		counted bool
	}{
		"accepted":    {accepted, message.Sent, 1, false, false, true},
		"refused":     {refused, message.Failed, 1, false, false, true},
		"unreachable": {unreachable, message.Pending, 1, true, true, false},
		"throttled":   {throttled, message.Pending, 0, true, true, false},
		"dead":        {dead, message.Pending, 0, false, false, false},
		"not known":   {lost, message.Unknown, 1, false, true, true},
		"empty":       {accepted, message.Failed, 0, false, false, true},
	} {
		// A usual message is claimed as it is loaded, a suspect just before it is sent.
		for _, suspect := range []bool{false, true} {
			w := newWorld(t)
			w.answers = []delivery.Response{c.answer}
			if w.content.Text = "t"; name == "empty" {
				w.content.Text = "{{ nothing }}"
			}
			id := w.row(nil)
			if suspect {
				if err := w.store.Suspect(t.Context(), id, message.Suspected); err != nil {
					t.Fatal(err)
				}
			}
			res := w.run(id)
			m := w.load(id)
			if m.Status != c.status || m.Attempt != c.attempt || (res.Again > 0) != c.again || (m.NextAttemptAt != nil) != c.waits || (len(w.marks) > 0) != c.counted {
				t.Errorf("%s, suspect: %t: row %+v, again %v, marks %+v", name, suspect, m, res.Again, w.marks)
			}
		}
	}
}

func TestRetryAfterIsObeyedAndDeadCredentialsPause(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{throttled, dead}
	id := w.row(nil)
	if res := w.run(id); res.Again != throttled.RetryAfter {
		t.Errorf("again after %v", res.Again)
	}
	w.run(id)
	if w.paused != "revoked" {
		t.Errorf("paused with %q", w.paused)
	}
	if m := w.load(id); m.Status != message.Pending || m.Attempt != 0 {
		t.Errorf("neither used an attempt, yet %+v", m)
	}
	if want := []delivery.Signal{delivery.Throttled, delivery.Answered}; !slices.Equal(w.signals, want) {
		t.Errorf("signals %v, want %v", w.signals, want)
	}
}

// While a channel is paused, a bulk's message is left to the runner of the bulk, and a single looks again later.
func TestPausedChannelsSendNothing(t *testing.T) {
	w := newWorld(t)
	pause := func(c *channel.Channel) error {
		c.State = channel.Paused
		return nil
	}
	if _, err := w.store.UpdateChannel(t.Context(), w.ch.Key, pause); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bulk  uuid.UUID
		again bool
	}{"of a bulk": {uuid.New(), false}, "a single": {uuid.Nil, true}} {
		id := w.row(func(m *message.Message) {
			if m.BulkID = c.bulk; c.bulk == uuid.Nil {
				m.Status, m.Content = message.Queued, &message.Content{Subject: "s", Text: "t"}
			}
		})
		if res := w.run(id); (res.Again > 0) != c.again || w.sends != 0 || w.load(id).Attempt != 0 {
			t.Errorf("%s: %+v, %d sends", name, res, w.sends)
		}
	}
}

func TestAttemptsComeToAnEnd(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{unreachable}
	id := w.row(nil)
	for i := range delivery.MaxAttempts {
		res := w.run(id)
		if last := i == delivery.MaxAttempts-1; (res.Again == 0) != last {
			t.Fatalf("attempt %d: %+v", i+1, res)
		}
	}
	if m := w.load(id); m.Status != message.Failed || m.Reason != message.Unreachable || m.Attempt != delivery.MaxAttempts {
		t.Errorf("%+v", m)
	}
	w.run(id)
	if w.sends != delivery.MaxAttempts {
		t.Errorf("%d sends", w.sends)
	}
}

// A message that is UNKNOWN is sent once more where the channel says so, and never a third time.
func TestUnknownIsResentOnce(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{lost}
	w.deps.Timing.UnknownHold = time.Nanosecond
	id := w.row(nil)
	w.run(id)
	if res := w.run(id); w.sends != 1 || res.Status != message.Unknown {
		t.Fatalf("sent again before its time: %d sends, %+v", w.sends, res)
	}
	if n, err := w.d().Sweep(t.Context(), w.store); n != 1 || err != nil || len(w.later) != 1 {
		t.Fatalf("swept %d, %v; %d queued", n, err, len(w.later))
	}
	if m := w.load(id); m.Status != message.Pending || m.Generation != 1 {
		t.Fatalf("%+v", m)
	}
	w.run(id)
	if m := w.load(id); w.sends != 2 || m.Status != message.Unknown || m.Unknowns != 2 || m.NextAttemptAt != nil {
		t.Errorf("%d sends, %+v", w.sends, m)
	}
	if last := w.marks[len(w.marks)-1]; last.Waiting || last.Status != message.Unknown {
		t.Errorf("counted as %+v", last)
	}
}

func TestUnknownIsHeld(t *testing.T) {
	for name, change := range map[string]func(*world, *message.Message){
		"by its channel": func(w *world, _ *message.Message) { w.ch.OnUnknown = channel.Hold },
		"because it is single": func(_ *world, m *message.Message) {
			m.BulkID, m.Content = uuid.Nil, &message.Content{Subject: "s", Text: "t"}
		},
	} {
		w := newWorld(t)
		w.answers = []delivery.Response{lost}
		id := w.row(func(m *message.Message) { change(w, m) })
		w.run(id)
		if m := w.load(id); m.Status != message.Unknown || m.NextAttemptAt != nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// A process that was frozen between the claim and the call must not send: another may have the message by now.
func TestStaleClaimIsGivenBack(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.deps.Timing.Stale = -1
	id := w.row(nil)
	res := w.run(id)
	if m := w.load(id); w.sends != 0 || m.Status != message.Pending || m.Attempt != 0 || res.Again == 0 {
		t.Errorf("%d sends, %+v", w.sends, m)
	}
}

// An outcome that comes after the claim was taken over changes nothing and counts nothing.
func TestLateOutcomeIsFenced(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.deps.Timing.Claim = -time.Second // expired at once
	id := w.row(nil)
	w.onSend = func() {
		w.onSend = nil
		if err := w.d().Rescue(context.Background(), id); err != nil {
			t.Error(err)
		}
	}
	w.run(id)
	m, attempts, err := w.store.Message(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if m.Status != message.Unknown || len(w.marks) != 1 || w.marks[0].Status != message.Unknown || !w.events[0].Fenced {
		t.Errorf("%+v, marks %+v", m, w.marks)
	}
	if len(attempts) != 2 {
		t.Errorf("attempts %+v", attempts)
	}
	if err := w.d().Rescue(t.Context(), id); err != nil || len(w.marks) != 1 {
		t.Errorf("rescued twice: %v, %+v", err, w.marks)
	}
}

func TestPartsGoOneAfterTheOther(t *testing.T) {
	w := newWorld(t)
	w.parts = 2
	w.answers = []delivery.Response{accepted, throttled, accepted}
	id := w.row(nil)
	w.run(id)
	if m := w.load(id); m.Part != 1 || m.Status != message.Pending {
		t.Fatalf("after the first part: %+v", m)
	}
	w.run(id)
	if m := w.load(id); m.Status != message.Sent || m.Part != 2 || w.sends != 3 {
		t.Errorf("%d sends, %+v", w.sends, m)
	}
}

func TestRateIsWaitedForOrStoodAsideFor(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.ch.RatePerSecond, w.limit = 1, time.Hour
	id := w.row(nil)
	if res := w.run(id); res.Again != time.Hour || w.sends != 0 {
		t.Errorf("%+v, %d sends", res, w.sends)
	}
	if m := w.load(id); m.Attempt != 0 || m.Status != message.Pending {
		t.Errorf("standing aside used an attempt: %+v", m)
	}
}

// A channel may turn out to be slow, or a template unreadable, once its message is claimed: the claim is given back.
func TestAClaimThatCannotBeUsedIsGivenBack(t *testing.T) {
	w := newWorld(t)
	w.answers, w.limit = []delivery.Response{accepted}, time.Hour
	id := w.row(nil)
	if res := w.run(id); res.Again != time.Hour || w.sends != 0 {
		t.Errorf("%+v, %d sends", res, w.sends)
	}
	if m := w.load(id); m.Attempt != 0 || m.Status != message.Pending {
		t.Errorf("%+v", m)
	}
	w.limit, w.missing = 0, errors.New("no template")
	if _, err := w.d().Run(t.Context(), id); !errors.Is(err, w.missing) {
		t.Errorf("%v", err)
	}
	if m := w.load(id); m.Attempt != 0 || m.Status != message.Pending || w.sends != 0 {
		t.Errorf("%+v, %d sends", m, w.sends)
	}
	w.missing = nil
	if res := w.run(id); res.Status != message.Sent || w.load(id).Attempt != 1 {
		t.Errorf("%+v", res)
	}
}

func TestAMessageThatIsGoneIsDone(t *testing.T) {
	w := newWorld(t)
	if res := w.run(uuid.New()); res != (delivery.Result{}) {
		t.Errorf("%+v", res)
	}
}

// forgetful is a ledger whose first settles fail.
type forgetful struct {
	delivery.Ledger
	fail int
	err  error
}

// mute is a ledger whose first claim and first outcome take effect and return an error, as after a lost answer.
type mute struct {
	delivery.Ledger
	claimed, settled bool
}

func (m *mute) LoadAndClaim(ctx context.Context, c delivery.Claim) (delivery.Loaded, error) {
	l, err := m.Ledger.LoadAndClaim(ctx, c)
	if !m.claimed {
		m.claimed = true
		return delivery.Loaded{}, message.Unavailable("the database", errors.New("unexpected EOF"))
	}
	return l, err
}

func (m *mute) Claim(ctx context.Context, c delivery.Claim) (bool, error) {
	ok, err := m.Ledger.Claim(ctx, c)
	if !m.claimed {
		m.claimed = true
		return false, message.Unavailable("the database", errors.New("unexpected EOF"))
	}
	return ok, err
}

func (m *mute) Settle(ctx context.Context, o delivery.Outcome) (delivery.Settled, error) {
	s, err := m.Ledger.Settle(ctx, o)
	if !m.settled {
		m.settled = true
		return delivery.Settled{}, message.Unavailable("the database", errors.New("unexpected EOF"))
	}
	return s, err
}

// The claim and the outcome took effect and their answers were lost: the message is sent once and counted once, and neither a
// second attempt nor a failure is recorded.
func TestLostAnswersOfTheLedger(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.deps.Ledger = &mute{Ledger: w.store}
	id := w.row(nil)
	res := w.run(id)
	m, attempts, err := w.store.Message(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != message.Sent || m.Status != message.Sent || m.Attempt != 1 || w.sends != 1 || len(w.marks) != 1 || w.events[0].Fenced {
		t.Errorf("%+v, %d sends, marks %+v", m, w.sends, w.marks)
	}
	if len(attempts) != 1 || attempts[0].Outcome != message.AttemptSent {
		t.Errorf("attempts %+v", attempts)
	}
}

func (f *forgetful) Settle(ctx context.Context, o delivery.Outcome) (delivery.Settled, error) {
	if f.fail--; f.fail >= 0 {
		return delivery.Settled{}, f.err
	}
	return f.Ledger.Settle(ctx, o)
}

// The database is away for a moment just when the provider has accepted: the outcome is written when it is back.
func TestAnOutcomeOutlivesTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.deps.Ledger = &forgetful{w.store, 3, message.Unavailable("the database", errors.New("gone"))}
	id := w.row(nil)
	if res := w.run(id); res.Status != message.Sent || w.load(id).Status != message.Sent || w.sends != 1 {
		t.Errorf("%+v, %d sends", res, w.sends)
	}
}

// A single whose outcome the database refuses is UNKNOWN once a call was made, and waits before that.
func TestASingleWithoutARecordIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		limit  time.Duration
		status message.Status
	}{"a call was made": {0, message.Unknown}, "no call was made": {time.Hour, message.Queued}} {
		w := newWorld(t)
		w.answers, w.limit, w.ch.RatePerSecond = []delivery.Response{accepted}, c.limit, 1
		w.deps.Ledger = &forgetful{w.store, 100, message.Errorf(message.CodeInvalid, "the database refuses a value")}
		sent, err := w.sender().Send(t.Context(), delivery.SendRequest{
			Channel: w.ch, Recipient: "x@example.com", Content: message.Content{Subject: "s", Text: "t"}, MessageType: message.Transactional, Priority: message.High,
		})
		if err != nil || sent.Status != c.status {
			t.Errorf("%s: %+v, %v", name, sent, err)
		}
	}
}
