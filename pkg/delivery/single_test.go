package delivery_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// leads is a CRM with one lead.
type leads struct {
	lead message.Lead
	err  error
}

func (l *leads) Lead(_ context.Context, id uuid.UUID) (*message.Lead, error) {
	switch {
	case l.err != nil:
		return nil, l.err
	case id != l.lead.ID:
		return nil, message.Errorf(message.CodeNotFound, "lead %s not found", id)
	}
	lead := l.lead
	return &lead, nil
}

// A single is written with all fields and a due time after the end of its claim.
func TestASinglesRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		crm := &leads{lead: message.Lead{ID: uuid.New(), FirstName: "Ann", Email: " Ann@Example.com "}}
		s, req := r.senderFor(crm), r.request()
		req.Recipient, req.LeadID, req.Metadata, req.Content.Text = "", crm.lead.ID, []byte(`{"a":1}`), "Hi {{ first_name }}"
		req.Key = &access.IdempotencyKey{Caller: "c", Hash: [32]byte{1}}
		now := time.Now().UTC()
		sent, err := s.Send(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		e := r.row.entries[0]
		watch := now.Add(r.deps.Timing.Claim + r.deps.Timing.Watch)
		want := &message.Message{
			ID: e.Message.ID, LeadID: crm.lead.ID, ChannelID: r.ch.ID, ChannelType: message.Email, Provider: "sendgrid", Recipient: "Ann@example.com",
			MessageType: message.Transactional, Priority: message.High, Content: &req.Content, Metadata: req.Metadata, Keyed: true,
			Status: message.Queued, CreatedAt: now, UpdatedAt: now, NextAttemptAt: &watch, Attempt: 1, // of the claim, which is counted at once
		}
		if !reflect.DeepEqual(e.Message, want) || e.Key != req.Key || !e.ForLead || e.Message.ID.Version() != 7 {
			t.Errorf("written %+v\nwant %+v; key %v, for its lead: %t", e.Message, want, e.Key, e.ForLead)
		}
		if r.last.Content.Text != "Hi Ann" || r.last.Recipient != "Ann@example.com" || sent.Message.ID != want.ID || sent.Status != message.Sent {
			t.Errorf("sent %+v, answered %+v", r.last, sent)
		}
	})
}

// A single is written with its claim where nothing delays it: its channel is active and has no rate.
func TestWhichSinglesAreWrittenAsClaimed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		claim  bool
	}{
		"nothing delays it":       {func(*rig) {}, true},
		"its channel has a rate":  {func(r *rig) { r.ch.RatePerSecond = 1 }, false},
		"its channel is not well": {func(r *rig) { r.ch.State = channel.Down }, false},
	} {
		r := newRig(t, nil)
		c.change(r)
		r.send()
		e := r.row.entries[0]
		if got := e.Claim.Token != uuid.Nil; got != c.claim || e.Message.Status != message.Queued {
			t.Errorf("%s: claimed at once: %t, %s", name, got, e.Message.Status)
		}
		if c.claim && (e.Claim.ID != e.Message.ID || e.Claim.TTL != r.deps.Timing.Claim) {
			t.Errorf("%s: claim %+v", name, e.Claim)
		}
		if r.sends != 1 || r.row.loaded.Message.Attempt != 1 || r.row.loaded.Message.Status != message.Sent || len(r.row.claims) != 1 {
			t.Errorf("%s: %d calls, %d claims, row %+v", name, r.sends, len(r.row.claims), r.row.loaded.Message)
		}
	}
}

// A single that waits for its channel's rate waits in the queue, unclaimed.
func TestASingleWithoutATurnIsQueued(t *testing.T) {
	r := newRig(t, nil)
	r.ch.RatePerSecond, r.limit = 1, time.Minute
	sent := r.send()
	if sent.Status != message.Queued || sent.Again != time.Minute || sent.Provider != 0 {
		t.Errorf("%+v", sent.Result)
	}
	want := written{Status: message.Queued, Again: time.Minute + r.deps.Timing.Watch}
	if got := r.outcome(); !reflect.DeepEqual(got, want) || r.row.outcomes[0].Token != uuid.Nil {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(r.later, []time.Duration{time.Minute}) || r.queued[0] != sent.Message.ID || r.row.loaded.Message.Attempt != 0 || len(r.row.claims) != 0 {
		t.Errorf("queued after %v, row %+v, claims %+v", r.later, r.row.loaded.Message, r.row.claims)
	}
	if !slices.Equal(r.asked, []rateRequest{{1, true}}) {
		t.Errorf("the rate was asked for %+v", r.asked)
	}
}

// A single whose channel was paused since the request read it waits in the queue; a claim is given up.
func TestASingleOverAChannelThatWasPausedMeanwhile(t *testing.T) {
	for _, rate := range []float64{0, 1} {
		r := newRig(t, nil)
		r.ch.RatePerSecond = rate
		seen := *r.ch
		req := r.request()
		req.Channel = &seen
		r.ch.State = channel.Paused
		sent, err := r.sender().Send(t.Context(), req)
		want := written{Status: message.Queued, GiveBack: rate == 0, Again: r.deps.Timing.PausedRetry + r.deps.Timing.Watch}
		if got := r.outcome(); err != nil || sent.Status != message.Queued || !reflect.DeepEqual(got, want) || !slices.Equal(r.later, []time.Duration{r.deps.Timing.PausedRetry}) {
			t.Errorf("%+v, %v, outcome %+v, queued after %v", sent, err, got, r.later)
		}
	}
}

// A queue that does not answer delays the request by at most a second. The error is in the event, and the sweep finds the row.
func TestAQueueThatDoesNotAnswer(t *testing.T) {
	r := newRig(t, nil)
	r.limit, r.noQueue = time.Minute, errOther
	if sent := r.send(); sent.Status != message.Queued || !errors.Is(r.events[0].Err, errOther) {
		t.Errorf("%+v, event %+v", sent.Result, r.events[0])
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.limit = time.Minute
		q := &slowQueue{}
		r.deps.Queue = q
		if sent := r.send(); sent.Status != message.Queued || q.waited != time.Second || !errors.Is(r.events[0].Err, context.DeadlineExceeded) {
			t.Errorf("%+v after %v, event %+v", sent.Result, q.waited, r.events[0])
		}
	})
}

// slowQueue answers when its context ends.
type slowQueue struct{ waited time.Duration }

// Later implements delivery.Queue.
func (q *slowQueue) Later(ctx context.Context, _ *message.Message, _ time.Duration) error {
	began := time.Now()
	<-ctx.Done()
	q.waited = time.Since(began)
	return ctx.Err()
}

// A request over a paused channel is refused before anything is written.
func TestASingleOverAPausedChannelIsRefused(t *testing.T) {
	r := newRig(t, nil)
	r.ch.State, r.ch.StateReason = channel.Paused, "revoked"
	_, err := r.sender().Send(t.Context(), r.request())
	if !message.IsCode(err, message.CodePaused) || !strings.Contains(err.Error(), "revoked") || len(r.row.entries) != 0 {
		t.Errorf("%v, written %+v", err, r.row.entries)
	}
}

// A suppressed single is written and ends without a call.
func TestASuppressedSingleIsSkipped(t *testing.T) {
	r := newRig(t, nil)
	r.row.loaded.Suppressed = message.Complained
	sent := r.send()
	if o := r.outcome(); sent.Status != message.Skipped || sent.Reason != message.Complained || r.sends != 0 || o.GiveBack || len(r.later) != 0 {
		t.Errorf("%+v, outcome %+v, %d calls", sent.Result, o, r.sends)
	}
}

// A single is delivered in the version of its channel that its transaction locked.
func TestASinglesChannelIsAsNewAsItsRow(t *testing.T) {
	r := newRig(t, nil)
	if r.send(); !slices.Equal(r.versions, []int64{41}) {
		t.Errorf("versions %v", r.versions)
	}
}

// Once the row is written the caller is answered, with what is known: before a call it is QUEUED, after it UNKNOWN.
func TestASinglesAnswerWhenAPartFails(t *testing.T) {
	r := newRig(t, nil)
	r.noChan = errOther
	if sent := r.send(); sent.Status != message.Queued || sent.Reason != message.NoReason || r.sends != 0 {
		t.Errorf("before the call: %+v", sent.Result)
	}
	r = newRig(t, nil)
	r.onSend = func() { panic("adapter") }
	sent := r.send()
	if sent.Status != message.Unknown || sent.Reason != message.UnknownOutcome || len(r.row.outcomes) != 0 || r.row.loaded.Message.Status != message.Sending {
		t.Errorf("the call panicked: %+v, outcomes %+v", sent.Result, r.row.outcomes)
	}
	if r.out.Load() != 0 || r.row.suspects != nil {
		t.Errorf("%d out of hand, suspects %v", r.out.Load(), r.row.suspects)
	}
}

// A worker whose adapter panics keeps the claim: the message may have been sent, so its expiry makes it UNKNOWN.
func TestAPanicInTheCallIsNoRetry(t *testing.T) {
	r := newRig(t, nil)
	r.onSend = func() { panic("adapter") }
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); err == nil || len(r.row.outcomes) != 0 || r.out.Load() != 0 {
		t.Errorf("%v, outcomes %+v, %d out of hand", err, r.row.outcomes, r.out.Load())
	}
}

// The end of a caller's context does not end the delivery of a written row. Inline the in-flight limiter is not called.
func TestACallerThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var out atomic.Int32
		out.Store(9)
		r.row.after = func(call string) error {
			if call == "Insert" {
				cancel()
			}
			return nil
		}
		r.ahead = time.Second
		time.AfterFunc(time.Second/2, func() { out.Store(r.out.Load()) })
		r.onSend = func() { time.Sleep(3 * time.Second); out.Add(r.out.Load()) }
		sent, err := r.sender().Send(ctx, r.request())
		if err != nil || sent.Status != message.Sent || sent.Provider != 3*time.Second || out.Load() != 0 {
			t.Errorf("%+v, %v, %d out of hand", sent, err, out.Load())
		}
	})
}

// The claim that a single is written with is as old as the question.
func TestASinglesClaimThatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.row.after = func(call string) error {
			if call == "Insert" {
				time.Sleep(r.deps.Timing.Stale + 1)
			}
			return nil
		}
		if sent := r.send(); sent.Status != message.Queued || r.sends != 0 || !r.outcome().GiveBack {
			t.Errorf("%+v, %d calls", sent.Result, r.sends)
		}
		if e := r.events[0]; e.Claim != r.deps.Timing.Stale+1 {
			t.Errorf("event %+v", e)
		}
	})
}

// A row that another process has settled meanwhile is answered as it is, and counted by that process.
func TestASingleThatIsSettledElsewhere(t *testing.T) {
	r := newRig(t, nil)
	at := time.Now()
	r.onSend = func() {
		m := r.row.loaded.Message
		m.Status, m.Reason, m.ProviderMessageID, m.Cost, m.SentAt = message.Sent, message.NoReason, "other", 5, &at
	}
	sent := r.send()
	if sent.Status != message.Sent || sent.ProviderMessageID != "other" || sent.Cost != 5 || sent.SentAt != &at || !r.events[0].Fenced {
		t.Errorf("%+v", sent.Result)
	}
	r = newRig(t, nil)
	r.onSend = func() { r.row.loaded.Message.Status = message.Failed }
	r.failing(errRefused, 1, "Load")
	if sent := r.send(); sent.Status != message.Unknown {
		t.Errorf("the row cannot be read: %+v", sent.Result)
	}
}

// All mistakes of a request are reported together, each with its path.
func TestWhatASingleIsRefusedFor(t *testing.T) {
	crm := &leads{lead: message.Lead{ID: uuid.New(), FirstName: "0", Email: "not an address"}}
	for name, c := range map[string]struct {
		change func(req *delivery.SendRequest)
		want   []string
	}{
		"no recipient":                {func(req *delivery.SendRequest) { req.Recipient = "" }, []string{"recipient missing"}},
		"a lead that does not exist":  {func(req *delivery.SendRequest) { req.Recipient, req.LeadID = "", uuid.New() }, []string{"recipient missing"}},
		"a lead's address is not one": {func(req *delivery.SendRequest) { req.Recipient, req.LeadID = "", crm.lead.ID }, []string{"recipient value_error"}},
		"not an address":              {func(req *delivery.SendRequest) { req.Recipient = "x" }, []string{"recipient value_error"}},
		"a sender not allowed":        {func(req *delivery.SendRequest) { req.Content.Sender = "b@acme.test" }, []string{"sender value_error"}},
		"a template that does not compile, no subject, and no recipient": {
			func(req *delivery.SendRequest) {
				req.Content = message.Content{Text: "{% if %}"}
				req.Recipient = ""
			}, []string{"subject missing", "recipient missing", "content value_error"},
		},
		"a text that its lead cannot render": {
			func(req *delivery.SendRequest) {
				req.Content.Text, req.LeadID = "{% if first_name == '0' %}{{ 4 | divided_by: 0 }}{% endif %}t", crm.lead.ID
			},
			[]string{"content value_error"},
		},
	} {
		r := newRig(t, nil)
		s, req := r.senderFor(crm), r.request()
		c.change(&req)
		_, err := s.Send(t.Context(), req)
		var e *message.Error
		if !errors.As(err, &e) || e.Code != message.CodeInvalid || len(r.row.entries) != 0 {
			t.Errorf("%s: %v, written %+v", name, err, r.row.entries)
			continue
		}
		var got []string
		for _, f := range e.Fields {
			got = append(got, f.Loc[len(f.Loc)-1].(string)+" "+f.Type)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A recipient that is named goes before the lead's address, and a lead that cannot be read is an error.
func TestTheRecipientOfASingle(t *testing.T) {
	crm := &leads{lead: message.Lead{ID: uuid.New(), Email: "lead@example.com"}}
	r := newRig(t, nil)
	s, req := r.senderFor(crm), r.request()
	req.LeadID = crm.lead.ID
	if _, err := s.Send(t.Context(), req); err != nil || r.last.Recipient != "x@example.com" || !r.row.entries[0].ForLead {
		t.Errorf("%v, sent to %q", err, r.last.Recipient)
	}
	req.LeadID = uuid.New()
	if _, err := s.Send(t.Context(), req); err != nil || r.row.entries[1].ForLead {
		t.Errorf("a contact that does not exist: %v", err)
	}
	crm.err = errGone
	if _, err := s.Send(t.Context(), req); !errors.Is(err, errGone) || len(r.row.entries) != 2 {
		t.Errorf("the lead cannot be read: %v", err)
	}
	req.LeadID = uuid.Nil
	if _, err := s.Send(t.Context(), req); err != nil {
		t.Errorf("without a contact no lead is read: %v", err)
	}
}

// A single whose lead is erased before it is written is made again, once.
func TestASingleIsMadeAgainOnlyOnce(t *testing.T) {
	for erased, want := range map[int]error{0: nil, 1: nil, 2: delivery.ErrLeadErased} {
		r := newRig(t, nil)
		r.failing(delivery.ErrLeadErased, erased, "Insert")
		if _, err := r.sender().Send(t.Context(), r.request()); !errors.Is(err, want) {
			t.Errorf("erased %d times: %v", erased, err)
		}
	}
	r := newRig(t, nil)
	tries := 0
	r.row.before = func(string) error { tries++; return access.ErrKeyTaken }
	if _, err := r.sender().Send(t.Context(), r.request()); !errors.Is(err, access.ErrKeyTaken) || tries != 1 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// A sender of the message's own must be one that its channel allows.
func TestCheckSender(t *testing.T) {
	ch := &channel.Channel{Name: "main", Sender: "a@acme.test", AllowedSenders: []string{"*@news.acme.test"}}
	for sender, ok := range map[string]bool{"": true, "a@acme.test": true, "x@news.acme.test": true, "x@acme.test": false} {
		errs := delivery.CheckSender(ch, &message.Content{Sender: sender})
		if (len(errs) == 0) != ok {
			t.Errorf("%q: %+v", sender, errs)
		}
		if !ok && (errs[0].Type != message.SlugValue || !reflect.DeepEqual(errs[0].Loc, []any{"sender"}) || !strings.Contains(errs[0].Msg, "main")) {
			t.Errorf("%q: %+v", sender, errs)
		}
	}
}

// The repetition of a request gets in_progress while the first one is in progress: for the length of a claim while the row is
// unclaimed, and until the claim has expired after that.
func TestAReplayIsToldToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			status   message.Status
			age      time.Duration
			touched  time.Duration // this much later than it was made
			expired  bool
			progress bool
			want     message.Status
		}{
			"written a moment ago":         {message.Queued, time.Minute - 1, 0, false, true, ""},
			"left behind":                  {message.Queued, time.Minute, 0, false, false, message.Queued},
			"waits in the queue":           {message.Queued, time.Second, time.Millisecond, false, false, message.Queued},
			"settled at once":              {message.Failed, 0, 0, false, false, message.Failed},
			"claimed":                      {message.Sending, time.Second, 0, false, true, ""},
			"its process died":             {message.Sending, 2 * time.Minute, 0, true, false, message.Unknown},
			"settled, an old claim's time": {message.Sent, time.Hour, 0, true, false, message.Sent},
		} {
			r := newRig(t, func(r *rig, m *message.Message) {
				single(r, m)
				now := time.Now()
				m.Status, m.CreatedAt, m.ClaimedAt = c.status, now.Add(-c.age), &now
				m.UpdatedAt = m.CreatedAt.Add(c.touched)
				r.row.loaded.ClaimToken, r.row.loaded.ClaimExpired = uuid.New(), c.expired
			})
			sent, err := r.sender().Replay(t.Context(), r.row.loaded.Message.ID)
			var e *message.Error
			if c.progress && (!errors.As(err, &e) || e.Code != message.CodeInProgress || e.RetryAfter != time.Second) {
				t.Errorf("%s: %+v, %v", name, sent, err)
			}
			if !c.progress && (err != nil || sent.Status != c.want || sent.Message.Status != c.want) {
				t.Errorf("%s: %+v, %v", name, sent, err)
			}
		}
	})
}

// A replay that cannot read or rescue its row is an error.
func TestAReplayThatFails(t *testing.T) {
	expired := func(r *rig, m *message.Message) {
		single(r, m)
		now := time.Now()
		m.Status, m.ClaimedAt, r.row.loaded.ClaimExpired = message.Sending, &now, true
	}
	r := newRig(t, expired)
	r.failing(errGone, 1, "Load")
	if _, err := r.sender().Replay(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errGone) {
		t.Errorf("not read: %v", err)
	}
	r = newRig(t, expired)
	r.failing(errGone, 1, "Settle")
	if _, err := r.sender().Replay(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errGone) {
		t.Errorf("not rescued: %v", err)
	}
	r = newRig(t, single)
	r.row.loaded.Message.Status, r.row.gone = message.Sent, true
	if _, err := r.sender().Replay(t.Context(), r.row.loaded.Message.ID); !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("gone: %v", err)
	}
}
