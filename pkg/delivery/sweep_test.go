package delivery_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// dueRows are rows that are due, once.
type dueRows struct {
	rows  []delivery.DueMessage
	err   error
	limit int
	again time.Duration
}

// Due implements delivery.DueMessages.
func (d *dueRows) Due(_ context.Context, limit int, again time.Duration) ([]delivery.DueMessage, error) {
	d.limit, d.again = limit, again
	return d.rows, d.err
}

// died makes the row of a rig one whose worker died after it claimed it at a time.
func died(at time.Time) func(r *rig, m *message.Message) {
	return func(r *rig, m *message.Message) {
		m.Status, m.Attempt, m.Part, m.ProviderMessageID, m.ClaimedAt = message.Sending, 3, 1, "p0", &at
		r.row.loaded.ClaimToken, r.row.loaded.ClaimExpired = uuid.New(), true
	}
}

// A message whose claim has expired is UNKNOWN, with an attempt that says why, and counted.
func TestARescueSettlesAnExpiredClaim(t *testing.T) {
	hold := delivery.DefaultTiming().UnknownHold
	for name, c := range map[string]struct {
		change func(r *rig)
		again  time.Duration
		wait   bool
	}{
		"to be sent once more":   {func(*rig) {}, hold, true},
		"held by its channel":    {func(r *rig) { r.ch.OnUnknown = channel.Hold }, 0, false},
		"its channel is deleted": {func(r *rig) { r.row.loaded.ChannelVersion = 0 }, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			at := time.Now().UTC().Add(-time.Minute)
			r := newRig(t, died(at))
			c.change(r)
			if err := r.d().Rescue(t.Context(), r.row.loaded.Message.ID); err != nil {
				t.Fatal(err)
			}
			attempt := *r.row.outcomes[0].Attempt
			want := written{Status: message.Unknown, Reason: message.UnknownOutcome, Part: 1, ProviderMessageID: "p0", Again: c.again}
			if got := r.outcome(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
			wantAttempt := message.Attempt{
				MessageID: r.row.loaded.Message.ID, N: 3, Part: 1, Outcome: message.AttemptUnknown, Code: "worker_died", StartedAt: at, EndedAt: time.Now().UTC(),
			}
			if attempt != wantAttempt {
				t.Errorf("%s: attempt %+v, want %+v", name, attempt, wantAttempt)
			}
			if want := (stats.MessageState{Seq: 7, Status: message.Unknown, Reason: message.UnknownOutcome, Waiting: c.wait}); !slices.Equal(r.marks, []stats.MessageState{want}) {
				t.Errorf("%s: counted %+v", name, r.marks)
			}
			if want := map[bool][]int64{true: {41}}[r.row.loaded.ChannelVersion != 0]; !slices.Equal(r.versions, want) {
				t.Errorf("%s: channel versions %v", name, r.versions)
			}
		})
	}
}

// Only a claim that has expired is rescued; a row that is gone or that moves on meanwhile is left.
func TestWhatIsNotRescued(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		err    error
	}{
		"a claim that is alive":      {func(r *rig) { r.row.loaded.ClaimExpired = false }, nil},
		"a row that is settled":      {func(r *rig) { r.row.loaded.Message.Status = message.Sent }, nil},
		"a row that waits":           {func(r *rig) { r.row.loaded.Message.Status = message.Pending }, nil},
		"a row that is gone":         {func(r *rig) { r.row.gone = true }, nil},
		"a row that cannot be read":  {func(r *rig) { r.failing(errGone, 1, "Load") }, errGone},
		"a channel that is not read": {func(r *rig) { r.noChan = errOther }, errOther},
		"a ledger that is away":      {func(r *rig) { r.failing(errGone, 1, "Settle") }, errGone},
		"a row that moved on meanwhile": {func(r *rig) {
			r.row.before = func(call string) error {
				if call == "Settle" {
					r.row.loaded.ClaimToken = uuid.New()
				}
				return nil
			}
		}, nil},
	} {
		r := newRig(t, died(time.Now()))
		c.change(r)
		err := r.d().Rescue(t.Context(), r.row.loaded.Message.ID)
		if !errors.Is(err, c.err) || len(r.row.outcomes) != 0 || len(r.marks) != 0 {
			t.Errorf("%s: %v, outcomes %+v, counted %+v", name, err, r.row.outcomes, r.marks)
		}
	}
}

// A message whose lead was erased under the claim does not wait to be sent again.
func TestARescuedMessageOfAnErasedLeadDoesNotWait(t *testing.T) {
	w := newWorld(t)
	id := w.row(nil)
	if ok, err := w.store.Claim(t.Context(), delivery.Claim{ID: id, Token: uuid.New(), TTL: -time.Second}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	w.check(w.store.EraseLead(t.Context(), w.leadOf(id)))
	w.check(w.d().Rescue(t.Context(), id))
	if len(w.marks) != 1 || w.marks[0].Waiting || w.marks[0].Status != message.Unknown {
		t.Errorf("counted %+v", w.marks)
	}
}

// The sweep rescues expired claims and enqueues the other rows at once. An error leaves the rows after it alone.
func TestTheSweep(t *testing.T) {
	r := newRig(t, single)
	id := r.row.loaded.Message.ID
	due := &dueRows{rows: []delivery.DueMessage{{ID: id}}}
	if n, err := r.d().Sweep(t.Context(), due); n != 1 || err != nil || !slices.Equal(r.later, []time.Duration{0}) || !slices.Equal(r.queued, []uuid.UUID{id}) {
		t.Errorf("swept %d, %v, queued %v after %v", n, err, r.queued, r.later)
	}
	if due.limit != 500 || due.again != r.deps.Timing.Watch {
		t.Errorf("asked for %d rows, again after %v", due.limit, due.again)
	}
	r = newRig(t, died(time.Now()))
	due.rows = []delivery.DueMessage{{ID: r.row.loaded.Message.ID, Sending: true}}
	if n, err := r.d().Sweep(t.Context(), due); n != 1 || err != nil || len(r.later) != 0 || r.row.loaded.Message.Status != message.Unknown {
		t.Errorf("swept %d, %v, queued after %v, %s", n, err, r.later, r.row.loaded.Message.Status)
	}
	r = newRig(t, single)
	id = r.row.loaded.Message.ID
	due.rows = []delivery.DueMessage{{ID: id}, {ID: id}}
	r.failing(errGone, 1, "Load")
	if n, err := r.d().Sweep(t.Context(), due); n != 2 || !errors.Is(err, errGone) || len(r.later) != 1 {
		t.Errorf("swept %d, %v, queued after %v", n, err, r.later)
	}
	due.err = errGone
	if n, err := r.d().Sweep(t.Context(), due); n != 0 || !errors.Is(err, errGone) || len(r.later) != 1 {
		t.Errorf("swept %d, %v", n, err)
	}
}

// The intervals that the promises name.
func TestTheTimingOfARealDeployment(t *testing.T) {
	want := delivery.Timing{
		Claim: time.Minute, Stale: 20 * time.Second, UnknownHold: 5 * time.Minute, Watch: 30 * time.Second, Backoff: 2 * time.Second,
		PausedRetry: 15 * time.Second,
	}
	if got := delivery.DefaultTiming(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := delivery.DefaultTiming(); got.Stale+delivery.SendTimeout >= got.Claim {
		t.Errorf("a claim of %v is over before a call that begins after %v has timed out", got.Claim, got.Stale)
	}
	if delivery.MaxAttempts != 8 || delivery.SendTimeout != 15*time.Second {
		t.Errorf("%d attempts of %v", delivery.MaxAttempts, delivery.SendTimeout)
	}
}
