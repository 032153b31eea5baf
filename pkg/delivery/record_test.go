package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// The outcome is written again until the claim has expired, at first soon and then every second, and at least ten seconds.
func TestHowLongAnOutcomeIsTried(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		spent  time.Duration // by the provider
		want   time.Duration
	}{
		"claimed a moment ago":       {nil, 0, time.Minute},
		"most of the claim is spent": {nil, 40 * time.Second, 20 * time.Second},
		"all of the claim is spent":  {nil, 2 * time.Minute, 10 * time.Second},
		"not claimed":                {func(r *rig) { r.row.plain, r.row.loaded.Suppressed = false, message.Complained }, 0, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			if c.change != nil {
				c.change(r)
			}
			r.onSend = func() { time.Sleep(c.spent) }
			var tries []time.Duration
			began := time.Now()
			r.row.before = func(call string) error {
				if call != "Load" && call != "Settle" {
					return nil
				}
				tries = append(tries, time.Since(began)-c.spent)
				return errGone
			}
			_, err := r.d().Run(t.Context(), r.row.loaded.Message.ID)
			if got := time.Since(began) - c.spent; !errors.Is(err, errGone) || got != c.want {
				t.Errorf("%s: %v after %v, want %v", name, err, got, c.want)
			}
			ms := time.Millisecond
			if first := []time.Duration{0, 50 * ms, 150 * ms, 350 * ms, 750 * ms, 1550 * ms, 2550 * ms, 3550 * ms}; !slices.Equal(tries[:len(first)], first) {
				t.Errorf("%s: tried after %v", name, tries[:len(first)])
			}
		})
	}
}

// An outcome whose data the database refuses is written without the provider's words, and then given up.
func TestAnOutcomeThatTheDatabaseRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		words := delivery.Response{Class: delivery.Refused, Reason: message.ContentRefused, Failure: failed, ProviderMessageID: "p1"}
		r := newRig(t, nil)
		r.answers = []delivery.Response{words}
		r.failing(errRefused, 1, "Settle")
		res := r.run()
		want := written{Status: message.Failed, Reason: message.ContentRefused}
		if got := r.outcome(); !reflect.DeepEqual(got, want) || r.row.outcomes[0].Attempt.Code != "" || r.row.outcomes[0].Attempt.N != 1 {
			t.Errorf("%+v", got)
		}
		if res.Status != message.Failed {
			t.Errorf("%+v", res)
		}
		r = newRig(t, nil)
		r.answers = []delivery.Response{words}
		calls := 0
		r.row.before = func(call string) error {
			if call == "Settle" {
				calls++
				return errRefused
			}
			return nil
		}
		if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !message.IsCode(err, message.CodeInvalid) || calls != 2 {
			t.Errorf("given up with %v after %d writes", err, calls)
		}
	})
}

// When the answer to a write was lost, the row tells whether it took effect, and nothing is written twice.
func TestALostAnswerIsFoundInTheRow(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(m *message.Message, l *delivery.Loaded)
		writes    int
		status    message.Status
		fenced    bool
	}{
		"it took effect": {func(*message.Message, *delivery.Loaded) {}, 1, message.Sent, false},
		"its lead was erased afterwards": {
			func(m *message.Message, _ *delivery.Loaded) { m.Status, m.Recipient = message.Skipped, "" }, 1, message.Skipped, false,
		},
		"it took no effect and the row is claimed still": {
			func(m *message.Message, _ *delivery.Loaded) { m.Status, m.Part = message.Sending, 0 }, 2, message.Sent, false,
		},
		"its lead was erased before": {
			func(m *message.Message, _ *delivery.Loaded) { m.Status, m.Recipient, m.Part = message.Sending, "", 1 }, 2, message.Sent, false,
		},
		"another claim has the row": {
			func(m *message.Message, l *delivery.Loaded) { m.Status, l.ClaimToken = message.Sending, uuid.New() }, 2, message.Sending, true,
		},
		"another claim has settled the row": {
			func(_ *message.Message, l *delivery.Loaded) { l.ClaimToken = uuid.New() }, 2, message.Sending, true,
		},
		"another part of it was settled": {
			func(m *message.Message, _ *delivery.Loaded) { m.Part = 2 }, 2, message.Sending, true,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			writes := 0
			r.row.after = func(call string) error {
				if call != "Settle" {
					return nil
				}
				if writes++; writes > 1 {
					return nil
				}
				c.meanwhile(r.row.loaded.Message, &r.row.loaded)
				return errGone
			}
			res := r.run()
			if res.Status != c.status || writes != c.writes || r.events[0].Fenced != c.fenced || r.sends != 1 {
				t.Errorf("%s: %+v after %d writes, fenced: %t", name, res, writes, r.events[0].Fenced)
			}
			if got := len(r.marks); got != map[bool]int{false: 1, true: 0}[c.fenced] {
				t.Errorf("%s: counted %+v", name, r.marks)
			}
		})
	}
}

// A claim whose answer was lost is asked for again under its token for thirty seconds, then released; its age counts from
// the last question.
func TestHowLongAClaimIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig, m *message.Message)
		call   string
	}{"claimed as it is loaded": {nil, "Take"}, "claimed just before it is sent": {suspect, "Claim"}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, c.change)
			began, asked := time.Now(), 0
			r.row.after = func(call string) error {
				if call == c.call {
					asked++
					return errGone
				}
				return nil
			}
			_, err := r.d().Run(t.Context(), r.row.loaded.Message.ID)
			if took := time.Since(began); !errors.Is(err, errGone) || took != 30*time.Second || asked < 30 || asked > 40 {
				t.Errorf("%s: %v after %v, asked %d times", name, err, took, asked)
			}
			token := r.row.claims[0].Token
			if slices.ContainsFunc(r.row.claims, func(c delivery.Claim) bool { return c.Token != token }) {
				t.Errorf("%s: claims %+v", name, r.row.claims)
			}
			release := r.row.outcomes[0]
			if release.Token != token || release.Status != message.Pending || !release.GiveBack || release.Again != time.Second || r.row.loaded.Message.Attempt != 0 {
				t.Errorf("%s: released as %+v", name, release)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, c.change)
			left := 1
			r.row.after = func(call string) error {
				if call == c.call && left > 0 {
					left--
					time.Sleep(r.deps.Timing.Stale)
					return errGone
				}
				return nil
			}
			if res := r.run(); res.Status != message.Sent {
				t.Errorf("%s: the age of the claim counts from the first question: %+v", name, res)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, c.change)
			began := time.Now()
			r.row.after = func(call string) error {
				if call == c.call {
					return errOther
				}
				return nil
			}
			_, err := r.d().Run(t.Context(), r.row.loaded.Message.ID)
			if took := time.Since(began); !errors.Is(err, errOther) || took != 0 || len(r.row.outcomes) != 1 {
				t.Errorf("%s: an error of another kind: %v after %v, outcomes %+v", name, err, took, r.row.outcomes)
			}
		})
	}
}

// An answer of another kind ends the questions for a claim, and is the error as it came.
func TestAClaimIsNotAskedForAfterAnErrorOfAnotherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		asked := 0
		r.row.before = func(call string) error {
			if call != "Take" {
				return nil
			}
			if asked++; asked == 1 {
				return errGone
			}
			return errOther
		}
		if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); err != errOther || asked != 2 { //nolint:errorlint // it must not be wrapped
			t.Errorf("%v after %d questions", err, asked)
		}
	})
}

// The release of a claim is tried for a second, also while the worker stops.
func TestTheReleaseOfAClaimIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var budget time.Duration
		r.deps.Ledger = &watched{Ledger: r.row, settle: func(ctx context.Context) {
			deadline, _ := ctx.Deadline()
			budget = time.Until(deadline)
		}}
		r.row.after = func(call string) error {
			if cancel(); call == "Take" {
				return errOther
			}
			return nil
		}
		_, err := r.d().Run(ctx, r.row.loaded.Message.ID)
		if !errors.Is(err, errOther) || budget != time.Second || r.row.loaded.Message.Status != message.Pending {
			t.Errorf("%v, %v, row %+v", err, budget, r.row.loaded.Message)
		}
	})
}

// watched is a ledger that records the contexts of its calls.
type watched struct {
	delivery.Ledger
	settle func(ctx context.Context)
}

// Settle implements delivery.Ledger.
func (w *watched) Settle(ctx context.Context, o delivery.Outcome) (delivery.Settled, error) {
	w.settle(ctx)
	return w.Ledger.Settle(ctx, o)
}

// What a provider writes is cut to a length and freed of control characters before it is stored.
func TestWordsOfTheProviderAreBounded(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct{ id, code, text, wantID, wantCode, wantText string }{
		"short":           {"id", "code", "text", "id", "code", "text"},
		"at their bounds": {long(256), long(64), long(2000), long(256), long(64), long(2000)},
		"over them":       {long(257), long(65), long(2001), long(256), long(64), long(2000)},
		"edges of ASCII":  {"\x1f ~", "a\x7fb", "é", " ~", "ab", "é"},
		"not UTF-8":       {"a\xffb", "\xe9", "ok", "ab", "", "ok"},
		"cut in a rune":   {long(255) + "é", long(63) + "é", long(1999) + "é", long(255), long(63), long(1999)},
	} {
		r := newRig(t, nil)
		r.answers = []delivery.Response{{
			Class: delivery.Refused, Reason: message.ContentRefused, ProviderMessageID: c.id, Failure: &message.Failure{Code: c.code, Text: c.text},
		}}
		res := r.run()
		if want := (message.Failure{Code: c.wantCode, Text: c.wantText}); res.ProviderMessageID != c.wantID || *res.Failure != want {
			t.Errorf("%s: %s", name, fmt.Sprintf("%q, %q, %q", res.ProviderMessageID, res.Failure.Code, res.Failure.Text))
		}
	}
}
