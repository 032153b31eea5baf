package delivery_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/stats"
)

var (
	errGone    = message.Unavailable("the database", errors.New("gone"))
	errOther   = errors.New("not implemented")
	errRefused = message.Errorf(message.CodeInvalid, "the database refuses a value")
)

// expectEnd checks the result, the outcome, the mark and the calls of a delivery that ended its message without a call.
func (r *rig) expectEnd(res delivery.Result, want written) {
	r.t.Helper()
	if got := r.outcome(); !reflect.DeepEqual(got, want) {
		r.t.Errorf("outcome %+v (failure %+v), want %+v (failure %+v)", got, got.Failure, want, want.Failure)
	}
	if res.Status != want.Status || res.Reason != want.Reason || res.Failure != r.row.outcomes[0].Failure || res.Again != 0 {
		r.t.Errorf("result %+v", res)
	}
	if mark := (stats.MessageState{Seq: 7, Status: want.Status, Reason: want.Reason}); !slices.Equal(r.marks, []stats.MessageState{mark}) {
		r.t.Errorf("counted %+v, want %+v", r.marks, mark)
	}
	if r.sends != 0 || len(r.asked) != 0 || r.row.outcomes[0].Attempt != nil {
		r.t.Errorf("%d calls, the rate was asked %d times, attempt %+v", r.sends, len(r.asked), r.row.outcomes[0].Attempt)
	}
}

// A message that nothing can send any more ends, claimed or not, and a claim under which nothing was called uses no attempt.
func TestMessagesThatCannotBeSentEnd(t *testing.T) {
	refusal := &message.Failure{Code: "550", Text: "no such user"}
	text := func(code, text string) *message.Failure { return &message.Failure{Code: code, Text: text} }
	for name, c := range map[string]struct {
		change func(r *rig, m *message.Message)
		want   written
	}{
		"the row cannot be decoded, and so has no lead": {
			func(r *rig, _ *message.Message) { r.row.loaded.Undecodable, r.row.loaded.Lead = errOther, nil },
			written{Status: message.Failed, Reason: message.RenderInvalid, Failure: text("render_invalid", "not implemented")},
		},
		"the channel was deleted": {
			func(r *rig, _ *message.Message) { r.row.loaded.ChannelVersion = 0 },
			written{Status: message.Failed, Reason: message.ChannelDeleted, Failure: text("channel_deleted", "the channel was deleted")},
		},
		"its rendering ended a process twice": {
			func(_ *rig, m *message.Message) { m.Suspect = message.SuspectRendering },
			written{
				Status: message.Failed, Reason: message.RenderCrashed,
				Failure: text("render_crashed", "the process ended while it rendered the message, twice"),
			},
		},
		"suppressed": {
			func(r *rig, _ *message.Message) { r.row.loaded.Suppressed = message.Unsubscribed },
			written{
				Status: message.Skipped, Reason: message.Unsubscribed, Failure: text("unsubscribed", "the recipient is on the suppression list"),
			},
		},
		"suppressed and held": {
			func(r *rig, _ *message.Message) {
				r.row.loaded.Suppressed, r.row.loaded.Held = message.Complained, true
			},
			written{
				Status: message.Skipped, Reason: message.Complained, Failure: text("complained", "the recipient is on the suppression list"),
			},
		},
		"suppressed after its first part went out": {
			func(r *rig, m *message.Message) { r.row.loaded.Suppressed, m.Part = message.Unsubscribed, 1 },
			written{
				Status: message.Unknown, Reason: message.Unsubscribed, Part: 1,
				Failure: text("unsubscribed", "the recipient is on the suppression list"),
			},
		},
		"out of attempts, with the provider's last refusal": {
			func(_ *rig, m *message.Message) {
				m.Attempt, m.Reason, m.Failure = delivery.MaxAttempts, message.Unreachable, refusal
			},
			written{Status: message.Failed, Reason: message.Unreachable, Failure: refusal},
		},
		"out of attempts, without an outcome": {
			func(_ *rig, m *message.Message) { m.Attempt = delivery.MaxAttempts + 1 },
			written{Status: message.Failed, Reason: message.Poison},
		},
		"out of attempts after an unknown outcome": {
			func(_ *rig, m *message.Message) {
				m.Attempt, m.Reason, m.Unknowns = delivery.MaxAttempts, message.UnknownOutcome, 1
			},
			written{Status: message.Unknown, Reason: message.Poison},
		},
		"out of attempts after its first part went out": {
			func(_ *rig, m *message.Message) {
				m.Attempt, m.Reason, m.Part = delivery.MaxAttempts, message.ProviderUnavailable, 1
			},
			written{Status: message.Unknown, Reason: message.ProviderUnavailable, Part: 1},
		},
	} {
		for _, claimed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, func(r *rig, m *message.Message) {
					r.row.plain = claimed
					c.change(r, m)
				})
				want := c.want
				want.GiveBack = claimed && r.row.loaded.Message.Attempt < delivery.MaxAttempts
				r.expectEnd(r.run(), want)
			})
		}
	}
}

// On the last attempt that a message has, it is sent.
func TestTheLastAttemptIsMade(t *testing.T) {
	for _, plain := range []bool{true, false} {
		r := newRig(t, func(r *rig, m *message.Message) { r.row.plain, m.Attempt = plain, delivery.MaxAttempts-1 })
		if res := r.run(); res.Status != message.Sent || r.row.claims[0].Most != delivery.MaxAttempts || r.events[0].Attempt != delivery.MaxAttempts {
			t.Errorf("claimed as it is loaded: %t: %+v, claims %+v, event %+v", plain, res, r.row.claims, r.events[0])
		}
	}
}

// A message whose lead no longer exists is emptied. A single needs no lead, and a row that cannot be decoded has one.
func TestOnlyMessagesOfBulksNeedTheirLead(t *testing.T) {
	without := func(r *rig, _ *message.Message) { r.row.loaded.Lead, r.row.plain = nil, false }
	r := newRig(t, without)
	if res := r.run(); res.Status != message.Skipped || res.Reason != message.Erased || r.sends != 0 {
		t.Errorf("%+v, %d sends", res, r.sends)
	}
	if want := []stats.MessageState{{Seq: 7, Status: message.Skipped, Reason: message.Erased}}; !slices.Equal(r.marks, want) {
		t.Errorf("counted %+v", r.marks)
	}
	r = newRig(t, without)
	r.failing(errGone, 1, "EraseMessage")
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errGone) || len(r.marks) != 0 {
		t.Errorf("%v, counted %+v", err, r.marks)
	}
	r = newRig(t, without)
	r.row.after = func(call string) error {
		if call == "EraseMessage" { // an earlier attempt may have delivered it, and cost something
			m, later := r.row.loaded.Message, time.Now()
			m.Status, m.Cost, m.NextAttemptAt = message.Unknown, 5, &later
		}
		return nil
	}
	r.run()
	if want := []stats.MessageState{{Seq: 7, Status: message.Unknown, Reason: message.Erased, Waiting: true, Cost: 5}}; !slices.Equal(r.marks, want) {
		t.Errorf("counted %+v, want %+v", r.marks, want)
	}
	r = newRig(t, func(r *rig, m *message.Message) {
		without(r, m)
		single(r, m)
	})
	if res := r.run(); res.Status != message.Sent {
		t.Errorf("a single: %+v", res)
	}
}

// A message that is settled, or that another process has claimed, is not sent or changed.
func TestSettledAndClaimedMessagesAreLeftAlone(t *testing.T) {
	r := newRig(t, func(_ *rig, m *message.Message) { m.Status, m.Reason = message.Failed, message.ContentRefused })
	if res := r.run(); res != (delivery.Result{Status: message.Failed, Reason: message.ContentRefused}) {
		t.Errorf("settled: %+v", res)
	}
	if r.sends != 0 || len(r.row.outcomes) != 0 || len(r.asked) != 0 {
		t.Errorf("settled: %d calls, outcomes %+v", r.sends, r.row.outcomes)
	}
	r = newRig(t, func(r *rig, m *message.Message) { m.Status, r.row.loaded.ClaimToken = message.Sending, uuid.New() })
	if res := r.run(); res.Status != message.Sending || res.Again != 0 || r.sends != 0 || len(r.row.outcomes) != 0 {
		t.Errorf("claimed: %+v, %d calls", res, r.sends)
	}
}

// While its bulk or its channel is paused, a bulk's message waits for the bulk's runner, and a single runs again later. A claim
// is released.
func TestPausedMessagesWait(t *testing.T) {
	paused := map[string]func(r *rig){
		"by the ledger":         func(r *rig) { r.row.loaded.Held = true },
		"by the cached channel": func(r *rig) { r.ch.State = channel.Paused },
	}
	for name, pause := range paused {
		for kind, change := range map[string]func(r *rig, m *message.Message){"bulk": nil, "suspect": suspect, "single": single} {
			t.Run(name+", "+kind, func(t *testing.T) {
				r := newRig(t, change)
				pause(r)
				res, want := r.run(), delivery.Result{Status: message.Pending}
				if kind == "single" {
					want = delivery.Result{Status: message.Queued, Again: r.deps.Timing.PausedRetry}
				}
				if res != want || r.sends != 0 || len(r.asked) != 0 || len(r.marks) != 0 {
					t.Errorf("%+v, want %+v; %d calls, marks %+v", res, want, r.sends, r.marks)
				}
				if kind != "bulk" && len(r.row.outcomes) != 0 {
					t.Errorf("an unclaimed message is written: %+v", r.row.outcomes)
				}
				if kind == "bulk" && !reflect.DeepEqual(r.outcome(), written{Status: message.Pending, GiveBack: true}) {
					t.Errorf("outcome %+v", r.outcome())
				}
			})
		}
	}
}

// The channel is read in the version that the ledger saw. Without it nothing is sent, and a claim is given back.
func TestTheChannelIsAsNewAsTheLedger(t *testing.T) {
	r := newRig(t, nil)
	r.noChan = errOther
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errOther) || r.sends != 0 {
		t.Errorf("%v, %d sends", err, r.sends)
	}
	if o := r.outcome(); o.Status != message.Pending || !o.GiveBack || o.Again != time.Second+r.deps.Timing.Watch {
		t.Errorf("%+v", o)
	}
	if r.noChan = nil; r.run().Status != message.Sent || !slices.Equal(r.versions, []int64{41, 41}) {
		t.Errorf("versions %v", r.versions)
	}
}

// The limiter gets the number of calls that are left, and whether the message is a single.
func TestTheRateIsAskedForTheCallsThatAreLeft(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig, m *message.Message)
		want   rateRequest
	}{
		"three parts":             {nil, rateRequest{3, false}},
		"the first part is out":   {func(_ *rig, m *message.Message) { m.Part = 1 }, rateRequest{2, false}},
		"a single from the queue": {single, rateRequest{3, true}},
	} {
		r := newRig(t, c.change)
		r.parts = 3
		if res := r.run(); res.Status != message.Sent || !slices.Equal(r.asked, []rateRequest{c.want}) || r.sends != c.want.calls {
			t.Errorf("%s: %+v, asked %+v, want %+v, %d calls", name, res, r.asked, c.want, r.sends)
		}
		for _, m := range r.measured {
			if m.Subject != "s" || m.Text != "t" {
				t.Errorf("%s: the parts of %+v are counted", name, m)
			}
		}
	}
}

// A message without a reservation soon enough is postponed, for at least minPostpone. Its claim is released without an attempt.
func TestSteppingAsideForTheRate(t *testing.T) {
	r := newRig(t, func(_ *rig, m *message.Message) { m.Reason, m.Part = message.Unreachable, 1 })
	r.limit, r.parts = time.Minute, 2
	if res := r.run(); res != (delivery.Result{Status: message.Pending, Reason: message.Unreachable, Again: time.Minute}) {
		t.Errorf("%+v", res)
	}
	want := written{Status: message.Pending, Reason: message.Unreachable, Part: 1, GiveBack: true, Again: time.Minute + r.deps.Timing.Watch}
	if got := r.outcome(); !reflect.DeepEqual(got, want) || r.sends != 0 {
		t.Errorf("outcome %+v, %d calls", got, r.sends)
	}
	r = newRig(t, suspect)
	r.limit = time.Nanosecond
	if res := r.run(); res != (delivery.Result{Status: message.Pending, Again: 100 * time.Millisecond}) || len(r.row.outcomes) != 0 || r.sends != 0 {
		t.Errorf("unclaimed: %+v, outcomes %+v", res, r.row.outcomes)
	}
}

// A delivery waits for a reservation that is near, and holds no in-flight slot meanwhile. A worker that stops postpones it.
func TestWaitingForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, suspect)
		r.ahead = 1500 * time.Millisecond
		began := time.Now()
		var waited time.Duration
		r.onSend = func() { waited = time.Since(began) }
		var during atomic.Int32
		time.AfterFunc(time.Second, func() { during.Store(r.out.Load()) })
		if res := r.run(); res.Status != message.Sent || waited != r.ahead || during.Load() != 1 || r.out.Load() != 0 {
			t.Errorf("%+v after %v; %d out of hand meanwhile, %d at the end", res, waited, during.Load(), r.out.Load())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, suspect)
		r.ahead = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		res, err := r.d().Run(ctx, r.row.loaded.Message.ID)
		if err != nil || res.Again != 100*time.Millisecond || r.sends != 0 || r.out.Load() != 0 {
			t.Errorf("stopped: %+v, %v, %d calls, %d out of hand", res, err, r.sends, r.out.Load())
		}
	})
}

// A worker that stops makes no further call and releases its claim. The outcome of a call that was made is written.
func TestAStoppingWorker(t *testing.T) {
	t.Run("before the call", func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		r.row.after = func(string) error { cancel(); return nil }
		res, err := r.d().Run(ctx, r.row.loaded.Message.ID)
		if o := r.outcome(); err != nil || res.Again != time.Second || r.sends != 0 || o.Status != message.Pending || !o.GiveBack || r.row.loaded.Message.Attempt != 0 {
			t.Errorf("%+v, %v, %d calls, %+v", res, err, r.sends, o)
		}
	})
	t.Run("between two parts", func(t *testing.T) {
		r := newRig(t, nil)
		r.parts = 2
		ctx, cancel := context.WithCancel(t.Context())
		r.onSend = cancel
		res, err := r.d().Run(ctx, r.row.loaded.Message.ID)
		m, last := r.row.loaded.Message, r.row.outcomes[len(r.row.outcomes)-1]
		if err != nil || res.Again != time.Second || r.sends != 1 || m.Part != 1 || m.Status != message.Pending || !last.GiveBack {
			t.Errorf("%+v, %v, %d calls, row %+v", res, err, r.sends, m)
		}
	})
	t.Run("while the provider has the message", func(t *testing.T) {
		w := newWorld(t)
		id := w.row(nil)
		ctx, cancel := context.WithCancel(t.Context())
		w.onSend = cancel
		if res, err := w.d().Run(ctx, id); err != nil || res.Status != message.Sent || w.load(id).Status != message.Sent {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// A claim is as old as the question to the ledger, not as its answer: a process that was frozen between the two does not send.
func TestAClaimThatIsTooOldIsNotUsed(t *testing.T) {
	stale := delivery.DefaultTiming().Stale
	for name, c := range map[string]struct {
		change func(r *rig, m *message.Message)
		slow   string // this call takes long
	}{"claimed as it is loaded": {nil, "Take"}, "claimed just before it is sent": {suspect, "Claim"}} {
		for took, sends := range map[time.Duration]int{stale: 1, stale + 1: 0} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.change)
				r.row.after = func(call string) error {
					if call == c.slow {
						time.Sleep(took)
					}
					return nil
				}
				res, m := r.run(), r.row.loaded.Message
				if r.sends != sends || (sends == 0) != (m.Status == message.Pending && m.Attempt == 0 && res.Again == time.Second) {
					t.Errorf("%s, after %v: %+v, %d calls, row %+v", name, took, res, r.sends, m)
				}
			})
		}
	}
}

// The next part of a message extends the claim, and its age counts from there.
func TestEachPartExtendsTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.parts = 3
		r.onSend = func() { time.Sleep(r.deps.Timing.Stale - time.Second) }
		r.answers = []delivery.Response{accepted, accepted, {Class: delivery.Accepted, ProviderMessageID: "last"}}
		if res := r.run(); res.Status != message.Sent || res.ProviderMessageID != "last" || r.sends != 3 {
			t.Errorf("%+v, %d calls", res, r.sends)
		}
		for i, o := range r.row.outcomes {
			want := written{Status: message.Sending, Part: i + 1, Keep: r.deps.Timing.Claim, ProviderMessageID: "p1", HTTPStatus: 202}
			if i == 2 {
				want = written{Status: message.Sent, Part: 3, Cost: r.ch.Price, ProviderMessageID: "last"}
			}
			if a := o.Attempt; a == nil || a.Part != i || a.N != 1 || a.Outcome != message.AttemptSent || r.sent[i].Part != i {
				t.Errorf("part %d: attempt %+v, sent %+v", i, a, r.sent[i])
			}
			if o.ID, o.Token, o.Attempt = uuid.Nil, uuid.Nil, nil; !reflect.DeepEqual(o, want) {
				t.Errorf("part %d: %+v, want %+v", i, o, want)
			}
		}
		if len(r.marks) != 1 {
			t.Errorf("counted %+v", r.marks)
		}
	})
}

// A part whose claim was taken over meanwhile is the last that is sent.
func TestNoPartIsSentWithoutTheClaim(t *testing.T) {
	r := newRig(t, nil)
	r.parts = 2
	r.onSend = func() { r.row.loaded.ClaimToken = uuid.New() }
	if res := r.run(); r.sends != 1 || res.Status != message.Sending || res.Again != 0 || !r.events[0].Fenced || len(r.marks) != 0 {
		t.Errorf("%+v, %d calls, event %+v", res, r.sends, r.events[0])
	}
	r = newRig(t, nil)
	r.parts = 2
	r.row.before = func(call string) error {
		if call == "Settle" {
			return errRefused
		}
		return nil
	}
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !message.IsCode(err, message.CodeInvalid) || r.sends != 1 {
		t.Errorf("the first part is not on record: %v, %d calls", err, r.sends)
	}
}

// A provider gets the rendered content, its recipient and a deadline. The in-flight slot is released during the call.
func TestTheCallToTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(r *rig, _ *message.Message) { r.row.loaded.Lead.FirstName = "Ann" })
		r.content = message.Content{Subject: "s", Text: "Hi {{ first_name }}"}
		var out int32
		r.onSend = func() {
			out = r.out.Load()
			time.Sleep(time.Second)
		}
		r.run()
		e, m := r.last, r.row.loaded.Message
		if e.MessageID != m.ID || e.Recipient != "x@example.com" || e.Content.Text != "Hi Ann" || e.Part != 0 {
			t.Errorf("%+v", e)
		}
		if out != 1 || !slices.Equal(r.timeouts, []time.Duration{delivery.SendTimeout}) {
			t.Errorf("%d out of hand, timeouts %v", out, r.timeouts)
		}
		ev, claim := r.events[0], r.row.claims[0]
		if ev.Message.ID != m.ID || ev.Status != message.Sent || ev.Class != delivery.Accepted || ev.Attempt != 1 || ev.Send != time.Second || ev.Duration != time.Second || ev.Err != nil || ev.Fenced {
			t.Errorf("event %+v", ev)
		}
		if claim.ID != m.ID || claim.TTL != r.deps.Timing.Claim || claim.Token == uuid.Nil || claim.Token != r.row.outcomes[0].Token {
			t.Errorf("claim %+v", claim)
		}
	})
}

// The event has the time of each step.
func TestTheEventTellsWhereTheTimeWent(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(r *rig, m *message.Message)
		load, claim time.Duration
	}{"claimed as it is loaded": {nil, 0, time.Second}, "claimed just before it is sent": {suspect, time.Second, 2 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, c.change)
			takes := map[string]time.Duration{"Take": time.Second, "Claim": 2 * time.Second, "Settle": 4 * time.Second}
			r.row.before = func(call string) error {
				time.Sleep(takes[call])
				return nil
			}
			r.onSend = func() { time.Sleep(8 * time.Second) }
			r.run()
			if ev := r.events[0]; ev.Load != c.load || ev.Claim != c.claim || ev.Send != 8*time.Second || ev.Outcome != 4*time.Second {
				t.Errorf("%s: %+v", name, ev)
			}
		})
	}
}
