package delivery_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// sender sends singles inline over the world's ledger.
func (w *world) sender() *delivery.Sender { return w.senderWith(w.store) }

// senderWith is sender with another Inserter.
func (w *world) senderWith(i delivery.Inserter) *delivery.Sender {
	return delivery.NewSender(delivery.SenderDeps{Deliverer: w.d(), Inserter: i, Leads: w.store, Messages: w.store})
}

// keyedRow writes a single as a request leaves it that went no further than that.
func (w *world) keyedRow(age time.Duration) uuid.UUID {
	return w.row(func(m *message.Message) {
		m.BulkID, m.Content, m.Keyed, m.Status = uuid.Nil, &message.Content{Subject: "s", Text: "t"}, true, message.Queued
		m.CreatedAt = time.Now().Add(-age)
		m.UpdatedAt = m.CreatedAt
	})
}

func TestReplayReturnsTheFirstResult(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted, refused}
	s := w.sender()
	for range w.answers {
		key := &access.IdempotencyKey{Hash: [32]byte{byte(w.sends)}}
		req := delivery.SendRequest{Channel: w.ch, Recipient: "x@example.com", Content: message.Content{Subject: "s", Text: "t"}, MessageType: message.Marketing, Priority: message.High, Key: key}
		first, err := s.Send(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(t.Context(), req); !errors.Is(err, access.ErrKeyTaken) {
			t.Fatalf("sent again: %v", err)
		}
		again, err := s.Replay(t.Context(), first.Message.ID)
		if err != nil {
			t.Fatal(err)
		}
		if again.Status != first.Status || again.Reason != first.Reason || again.Cost != first.Cost || again.ProviderMessageID != first.ProviderMessageID ||
			(again.Failure == nil) != (first.Failure == nil) || (again.SentAt == nil) != (first.SentAt == nil) {
			t.Errorf("first %+v, then %+v", first.Result, again.Result)
		}
	}
	if w.sends != len(w.answers) {
		t.Errorf("%d sends", w.sends)
	}
}

// While a request is in progress its repetition gets in_progress. After its process died, the expiry of the claim settles it.
func TestReplayWaitsForTheFirstRequest(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	young, old := w.keyedRow(0), w.keyedRow(w.deps.Timing.Claim+time.Second)
	if _, err := s.Replay(t.Context(), young); !message.IsCode(err, message.CodeInProgress) {
		t.Errorf("on the way to its claim: %v", err)
	}
	if got, err := s.Replay(t.Context(), old); err != nil || got.Status != message.Queued {
		t.Errorf("left behind before its claim: %v, %v", got, err)
	}
	claim := func(ttl time.Duration) uuid.UUID {
		id := w.keyedRow(0)
		if ok, err := w.store.Claim(t.Context(), delivery.Claim{ID: id, Token: uuid.New(), TTL: ttl}); !ok || err != nil {
			t.Fatalf("claim: %v, %v", ok, err)
		}
		return id
	}
	if _, err := s.Replay(t.Context(), claim(time.Minute)); !message.IsCode(err, message.CodeInProgress) {
		t.Errorf("being sent: %v", err)
	}
	dead := claim(-time.Second)
	if got, err := s.Replay(t.Context(), dead); err != nil || got.Status != message.Unknown || got.Reason != message.UnknownOutcome {
		t.Errorf("its sender died: %v, %v", got, err)
	}
	if m := w.load(dead); m.NextAttemptAt == nil {
		t.Error("a keyed email with an unknown outcome does not wait to be sent once more")
	}
}
