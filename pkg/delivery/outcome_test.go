package delivery_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// kinds are the three ways a message comes to its delivery.
var kinds = []string{"bulk", "single", "inline"}

// runKind makes a rig for a kind of delivery and runs it.
func runKind(t *testing.T, kind string, answer delivery.Response, change func(r *rig)) (*rig, delivery.Result) {
	t.Helper()
	r := newRig(t, map[string]func(r *rig, m *message.Message){"single": single}[kind])
	r.answers = []delivery.Response{answer}
	if change != nil {
		change(r)
	}
	if kind == "inline" {
		return r, r.send().Result
	}
	return r, r.run()
}

// failed is a provider's refusal.
var failed = &message.Failure{Code: "42", Text: "no"}

// TestEachResponse is the table from what a provider answered to what is written, per kind of delivery.
func TestEachResponse(t *testing.T) {
	answer := func(c delivery.Class, f delivery.FailureScope, reason message.Reason) delivery.Response {
		return delivery.Response{Class: c, Scope: f, Reason: reason, Failure: failed, HTTPStatus: 418, ProviderMessageID: "p1", Detail: "d"}
	}
	timing := delivery.DefaultTiming()
	type end struct {
		status message.Status
		reason message.Reason
		back   bool          // uses no attempt
		again  time.Duration // -1: the back-off
	}
	waits := func(reason message.Reason, back bool, again time.Duration) map[string]end {
		return map[string]end{
			"bulk":   {message.Pending, reason, back, again},
			"single": {message.Queued, reason, back, again},
			"inline": {message.Queued, reason, back, again},
		}
	}
	same := func(e end) map[string]end { return map[string]end{"bulk": e, "single": e, "inline": e} }
	for name, c := range map[string]struct {
		answer  delivery.Response
		ends    map[string]end
		signal  delivery.Signal
		attempt string
	}{
		"accepted": {
			answer(delivery.Accepted, delivery.ScopeNone, message.ProviderRefused), same(end{message.Sent, message.NoReason, false, 0}),
			delivery.Answered, message.AttemptSent,
		},
		"refused": {
			answer(delivery.Refused, delivery.ScopeMessage, message.ContentRefused), same(end{message.Failed, message.ContentRefused, false, 0}),
			delivery.Answered, message.AttemptRefused,
		},
		"the outcome is not known": {
			answer(delivery.Unknown, delivery.ScopeNone, message.UnknownOutcome),
			map[string]end{
				"bulk":   {message.Unknown, message.UnknownOutcome, false, timing.UnknownHold},
				"single": {message.Unknown, message.UnknownOutcome, false, 0},
				"inline": {message.Unknown, message.UnknownOutcome, false, 0},
			},
			delivery.Failing, message.AttemptUnknown,
		},
		"not reached": {
			answer(delivery.NotSent, delivery.ScopeNone, message.Unreachable), waits(message.Unreachable, false, -1), delivery.Failing, message.AttemptNotSent,
		},
		"too much at once": {
			answer(delivery.NotSent, delivery.ScopeRate, message.ProviderUnavailable), waits(message.ProviderUnavailable, true, time.Second),
			delivery.Throttled, message.AttemptNotSent,
		},
		"the channel": {
			answer(delivery.NotSent, delivery.ScopeChannel, message.ChannelRefused),
			map[string]end{
				"bulk":   {message.Pending, message.ChannelRefused, true, 0},
				"single": {message.Queued, message.ChannelRefused, true, timing.PausedRetry},
				"inline": {message.Failed, message.ChannelCredentials, false, 0},
			},
			delivery.Answered, message.AttemptNotSent,
		},
		"the message": {
			answer(delivery.NotSent, delivery.ScopeMessage, message.SenderRefused), same(end{message.Failed, message.SenderRefused, false, 0}),
			delivery.Answered, message.AttemptNotSent,
		},
	} {
		for _, kind := range kinds {
			t.Run(name+", "+kind, func(t *testing.T) {
				r, res := runKind(t, kind, c.answer, nil)
				want, got := c.ends[kind], r.outcome()
				if want.again < 0 { // between half of the back-off and all of it
					if want.again = res.Again; res.Again < timing.Backoff/2 || res.Again > timing.Backoff {
						t.Errorf("again after %v", res.Again)
					}
				}
				o := written{
					Status: want.status, Reason: want.reason, Failure: failed, HTTPStatus: 418, ProviderMessageID: "p1",
					GiveBack: want.back, Again: want.again,
				}
				switch {
				case want.status == message.Sent:
					o.Part, o.Cost = 1, r.ch.Price
				case want.status != message.Unknown && want.again > 0:
					o.Again += timing.Watch // the queue looks first
				}
				if !reflect.DeepEqual(got, o) {
					t.Errorf("outcome %+v, want %+v", got, o)
				}
				r.expectResult(res, o)
				r.expectNotes(kind, o, c.signal, want.again)
				r.expectAttempt(c.attempt)
			})
		}
	}
}

// expectResult checks the result of a delivery.
func (r *rig) expectResult(res delivery.Result, o written) {
	r.t.Helper()
	again := o.Again
	if o.Status == message.Unknown {
		again = 0 // the sweep brings it back
	} else if again > 0 {
		again -= r.deps.Timing.Watch
	}
	if res.Status != o.Status || res.Reason != o.Reason || !reflect.DeepEqual(res.Failure, o.Failure) || res.ProviderMessageID != "p1" || res.Cost != o.Cost || res.Again != again {
		r.t.Errorf("result %+v", res)
	}
	if (res.SentAt != nil) != (o.Status == message.Sent) || res.SentAt != nil && !res.SentAt.Equal(r.row.loaded.Message.UpdatedAt) {
		r.t.Errorf("sent at %v", res.SentAt)
	}
}

// expectNotes checks what the limiter, the counters, the queue and the observer are told.
func (r *rig) expectNotes(kind string, o written, signal delivery.Signal, again time.Duration) {
	r.t.Helper()
	if !slices.Equal(r.signals, []delivery.Signal{signal}) {
		r.t.Errorf("signals %v, want %v", r.signals, signal)
	}
	var marks []stats.MessageState
	if kind == "bulk" && o.Status != message.Pending {
		marks = []stats.MessageState{{Seq: 7, Status: o.Status, Reason: o.Reason, Waiting: o.Status == message.Unknown && o.Again > 0, Cost: o.Cost}}
	}
	if !slices.Equal(r.marks, marks) {
		r.t.Errorf("counted %+v, want %+v", r.marks, marks)
	}
	var later []time.Duration
	if kind == "inline" && o.Status == message.Queued {
		later = []time.Duration{again}
	}
	if !slices.Equal(r.later, later) {
		r.t.Errorf("queued after %v, want %v", r.later, later)
	}
	if e := r.events[0]; e.Status != o.Status || e.Reason != o.Reason || e.Detail != "d" || e.Provider != "sendgrid" || e.Class == 0 || e.Err != nil {
		r.t.Errorf("event %+v", e)
	}
}

// expectAttempt checks the attempt that is kept with the outcome.
func (r *rig) expectAttempt(outcome string) {
	r.t.Helper()
	a := r.row.outcomes[0].Attempt
	if a == nil {
		r.t.Fatal("no attempt")
	}
	want := message.Attempt{MessageID: r.row.loaded.Message.ID, N: 1, Outcome: outcome, HTTPStatus: 418, Code: "42", StartedAt: a.StartedAt, EndedAt: a.EndedAt}
	if *a != want || a.StartedAt.IsZero() || a.EndedAt.Before(a.StartedAt) || a.StartedAt.Location() != time.UTC || a.EndedAt.Location() != time.UTC {
		r.t.Errorf("attempt %+v, want %+v", *a, want)
	}
}

// The provider's Retry-After is obeyed where it is longer than our own wait, and passed on to the limiter.
func TestRetryAfter(t *testing.T) {
	for name, c := range map[string]struct {
		fault        delivery.FailureScope
		after, again time.Duration
	}{
		"too much at once, soon":  {delivery.ScopeRate, time.Millisecond, time.Second},
		"too much at once, later": {delivery.ScopeRate, time.Minute, time.Minute},
		"not reached, later":      {delivery.ScopeNone, time.Minute, time.Minute},
	} {
		r, res := runKind(t, "bulk", delivery.Response{Class: delivery.NotSent, Scope: c.fault, RetryAfter: c.after}, nil)
		if res.Again != c.again || !slices.Equal(r.alone, []time.Duration{c.after}) {
			t.Errorf("%s: again after %v, want %v; the limiter is told %v", name, res.Again, c.again, r.alone)
		}
	}
}

// The back-off doubles with each attempt up to five minutes, and is spread over its second half.
func TestTheBackoff(t *testing.T) {
	for attempt, whole := range map[int]time.Duration{1: 2 * time.Second, 2: 4 * time.Second, 3: 8 * time.Second, 7: 128 * time.Second} {
		shortest, longest := time.Hour, time.Duration(0)
		for range 64 {
			_, res := runKind(t, "bulk", unreachable, func(r *rig) { r.row.loaded.Message.Attempt = attempt - 1 })
			shortest, longest = min(shortest, res.Again), max(longest, res.Again)
		}
		if shortest < whole/2 || longest > whole || longest-shortest < whole/8 {
			t.Errorf("attempt %d: from %v to %v, want %v", attempt, shortest, longest, whole)
		}
	}
	_, res := runKind(t, "bulk", unreachable, func(r *rig) { r.deps.Timing.Backoff = time.Hour })
	if res.Again < 150*time.Second || res.Again > 5*time.Minute {
		t.Errorf("without a bound: %v", res.Again)
	}
}

// A message that cannot be reached fails with its last attempt, and not before.
func TestTheLastUnreachableAttemptFails(t *testing.T) {
	for attempt, want := range map[int]message.Status{delivery.MaxAttempts - 2: message.Pending, delivery.MaxAttempts - 1: message.Failed} {
		r, res := runKind(t, "bulk", unreachable, func(r *rig) { r.row.loaded.Message.Attempt = attempt })
		if res.Status != want || (res.Again > 0) != (want == message.Pending) || res.Reason != message.Unreachable {
			t.Errorf("attempt %d: %+v, row %+v", attempt+1, res, r.row.loaded.Message)
		}
	}
}

// A refusal of the channel pauses it with the provider's text, else with the reason, also while the worker stops.
func TestARefusedChannelIsPaused(t *testing.T) {
	refusal := delivery.Response{Class: delivery.NotSent, Scope: delivery.ScopeChannel, Reason: message.ChannelRefused}
	r := newRig(t, nil)
	r.answers, r.noPause = []delivery.Response{refusal}, errOther
	ctx, cancel := context.WithCancel(t.Context())
	r.onSend = cancel
	if _, err := r.d().Run(ctx, r.row.loaded.Message.ID); err != nil || r.paused != string(message.ChannelRefused) || !errors.Is(r.events[0].Err, errOther) {
		t.Errorf("%v, paused with %q, event %+v", err, r.paused, r.events[0])
	}
	refusal.Failure = failed
	if r, _ = runKind(t, "bulk", refusal, nil); r.paused != failed.Text {
		t.Errorf("paused with %q", r.paused)
	}
	if r, _ = runKind(t, "bulk", unreachable, nil); r.paused != "" {
		t.Errorf("an unreachable provider pauses the channel: %q", r.paused)
	}
}

// An error of the limiter's Report is in the event, joined with any other error.
func TestAnUnreportedSignalIsInTheEvent(t *testing.T) {
	r, res := runKind(t, "bulk", accepted, func(r *rig) { r.noLimit = errOther })
	if res.Status != message.Sent || !errors.Is(r.events[0].Err, errOther) {
		t.Errorf("%+v, event %+v", res, r.events[0])
	}
}

// A message whose outcome is not known is sent once more where the channel's policy says so, unless its caller may do that
// or it was sent twice already.
func TestWhichUnknownMessagesAreResent(t *testing.T) {
	hold := delivery.DefaultTiming().UnknownHold
	bulk := uuid.New()
	for name, c := range map[string]struct {
		policy channel.Policy
		m      message.Message
		again  time.Duration
	}{
		"of a bulk":             {channel.ResendOnce, message.Message{BulkID: bulk}, hold},
		"a keyed single":        {channel.ResendOnce, message.Message{Keyed: true}, hold},
		"a single":              {channel.ResendOnce, message.Message{}, 0},
		"for the second time":   {channel.ResendOnce, message.Message{BulkID: bulk, Unknowns: 1}, 0},
		"the policy holds it":   {channel.Hold, message.Message{BulkID: bulk, Keyed: true}, 0},
		"keyed, second time":    {channel.ResendOnce, message.Message{Keyed: true, Unknowns: 1}, 0},
		"keyed, held by policy": {channel.Hold, message.Message{Keyed: true}, 0},
	} {
		r, _ := runKind(t, "bulk", lost, func(r *rig) {
			m := r.row.loaded.Message
			r.ch.OnUnknown, m.BulkID, m.Keyed, m.Unknowns = c.policy, c.m.BulkID, c.m.Keyed, c.m.Unknowns
			m.Content = &message.Content{Subject: "s", Text: "t"}
			r.bulks.Store(m.BulkID, true)
		})
		if o := r.outcome(); o.Status != message.Unknown || o.Reason != message.UnknownOutcome || o.Again != c.again {
			t.Errorf("%s: %s %s, again after %v", name, o.Status, o.Reason, o.Again)
		}
	}
}

// A first part that the provider does not accept is the last that is sent.
func TestAFirstPartThatIsNotAcceptedEndsTheSending(t *testing.T) {
	for answer, want := range map[*delivery.Response]message.Status{&refused: message.Failed, &lost: message.Unknown, &throttled: message.Pending} {
		r, res := runKind(t, "bulk", *answer, func(r *rig) { r.parts = 2 })
		if res.Status != want || r.sends != 1 || r.row.loaded.Message.Part != 0 {
			t.Errorf("%+v, %d calls, row %+v", res, r.sends, r.row.loaded.Message)
		}
	}
}

// An SMS costs its price per segment, and with media the price of media.
func TestTheCostOfAnSMS(t *testing.T) {
	for name, c := range map[string]struct {
		content message.Content
		want    message.Micros
	}{
		"two segments": {message.Content{Text: strings.Repeat("t", 200)}, 20},
		"with media":   {message.Content{Text: "t", MediaURLs: []string{"https://acme.test/a.png"}}, 700},
	} {
		r := newRig(t, func(r *rig, m *message.Message) {
			single(r, m)
			r.ch.Type, r.ch.Price, r.ch.PriceMedia, m.ChannelType, m.Content = message.SMS, 10, new(message.Micros(700)), message.SMS, &c.content
		})
		r.deps.InFlight = noSlots{}
		if res := r.run(); res.Cost != c.want {
			t.Errorf("%s: costs %d, want %d", name, res.Cost, c.want)
		}
	}
}

// noSlots is an in-flight limiter without a limit.
type noSlots struct{}

func (noSlots) Release(message.ChannelType) {}
func (noSlots) Acquire(message.ChannelType) {}
