package records_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// A suppression of the same type, address and reason is overwritten and keeps its id. Lists select by type and address, newest
// first, in pages.
func TestSuppressions(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx, now := t.Context(), store.Stamp(time.Now())
		put := func(typ message.ChannelType, address string, reason message.Reason, note string, types ...message.MessageType) message.Suppression {
			t.Helper()
			sup := message.Suppression{
				ID: newID(), Type: typ, Address: address, Hash: message.HashAddress(address), Reason: reason, MessageTypes: types, Note: note, CreatedAt: now,
			}
			must(t, s.PutSuppression(ctx, &sup))
			return sup
		}
		first := put(message.Email, "a@example.com", message.Unsubscribed, "", message.Transactional)
		for _, types := range [][]message.MessageType{{message.Transactional}, {message.Marketing}, {message.Notification}, message.MessageTypes} {
			again := put(message.Email, "a@example.com", message.Unsubscribed, "again", types...)
			want := first
			want.MessageTypes, want.Note = types, "again"
			if d := cmp.Diff(want, again); d != "" {
				t.Errorf("%v: %s", types, d)
			}
			first = again
		}
		other := put(message.Email, "a@example.com", message.ManuallySuppressed, "", message.Marketing)
		sms := put(message.SMS, "+15550001111", message.Unsubscribed, "", message.Marketing)
		expect := func(typ message.ChannelType, address string, before uuid.UUID, limit int, want ...message.Suppression) {
			t.Helper()
			got, err := s.ListSuppressions(ctx, message.SuppressionFilter{Type: typ, Address: address}, before, limit)
			must(t, err)
			if d := cmp.Diff(append([]message.Suppression{}, want...), got); d != "" {
				t.Errorf("%s %s before %s: %s", typ, address, before, d)
			}
		}
		expect("", "", uuid.Nil, 10, sms, other, first)
		expect("", "", uuid.Nil, 2, sms, other)
		expect("", "", other.ID, 2, first)
		expect(message.Email, "", uuid.Nil, 10, other, first)
		expect("", "+15550001111", uuid.Nil, 10, sms)
		expect(message.Email, "+15550001111", uuid.Nil, 10)
		earlier := first.CreatedAt.Add(-time.Microsecond)
		for name, c := range map[string]struct {
			filter message.SuppressionFilter
			want   []message.Suppression
		}{
			"reason":          {message.SuppressionFilter{Reason: message.Unsubscribed}, []message.Suppression{sms, first}},
			"reason and type": {message.SuppressionFilter{Reason: message.Unsubscribed, Type: message.Email}, []message.Suppression{first}},
			"earlier":         {message.SuppressionFilter{CreatedAfter: &earlier}, []message.Suppression{sms, other, first}},
			"the same time":   {message.SuppressionFilter{CreatedAfter: &sms.CreatedAt}, []message.Suppression{}},
		} {
			got, err := s.ListSuppressions(ctx, c.filter, uuid.Nil, 10)
			must(t, err)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
		must(t, s.DropSuppression(ctx, other.ID))
		expect("", "", uuid.Nil, 10, sms, first)
		if err := s.DropSuppression(ctx, other.ID); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("dropped twice: %v", err)
		}
	})
}
