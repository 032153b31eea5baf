package records_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

func TestMessagesAreFiltered(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		lead := newID()
		a := storetest.InsertSingle(t, s, func(m *message.Message) { m.LeadID = lead })
		b := storetest.InsertSingle(t, s, func(m *message.Message) { m.ChannelType, m.Recipient = message.Email, "x@example.com" })
		soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
		for name, c := range map[string]struct {
			filter message.Filter
			want   []uuid.UUID
		}{
			"all":            {message.Filter{}, []uuid.UUID{b.ID, a.ID}},
			"lead":           {message.Filter{LeadID: lead}, []uuid.UUID{a.ID}},
			"type":           {message.Filter{ChannelType: message.Email}, []uuid.UUID{b.ID}},
			"recipient":      {message.Filter{Recipient: "x@example.com"}, []uuid.UUID{b.ID}},
			"status":         {message.Filter{Status: message.Sent}, nil},
			"bulk":           {message.Filter{BulkID: newID()}, nil},
			"created after":  {message.Filter{CreatedAfter: &soon}, nil},
			"created before": {message.Filter{CreatedBefore: &past}, nil},
			"both times":     {message.Filter{CreatedAfter: &past, CreatedBefore: &soon}, []uuid.UUID{b.ID, a.ID}},
		} {
			list, err := s.Messages(ctx, c.filter, uuid.Nil, 10)
			must(t, err)
			var got []uuid.UUID
			for _, m := range list {
				got = append(got, m.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		next, err := s.Messages(ctx, message.Filter{}, b.ID, 10)
		must(t, err)
		if len(next) != 1 || next[0].ID != a.ID || string(next[0].Metadata) == "" {
			t.Errorf("next page %+v", next)
		}
	})
}
