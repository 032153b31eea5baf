package records_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
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
			"status":         {message.Filter{Statuses: []message.Status{message.Sent}}, nil},
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

func compact(t *testing.T, document string) string {
	t.Helper()
	var b bytes.Buffer
	must(t, json.Compact(&b, []byte(document)))
	return b.String()
}

// The bounds of the times of a filter are excluded.
func TestTheTimesOfAFilterAreExcluded(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		at := store.Stamp(time.Now().Add(-time.Hour))
		m := storetest.InsertSingle(t, s, func(m *message.Message) { m.CreatedAt = at })
		before, after := at.Add(-time.Microsecond), at.Add(time.Microsecond)
		for want, f := range map[int][]message.Filter{
			0: {{CreatedAfter: &at}, {CreatedBefore: &at}}, 1: {{CreatedAfter: &before}, {CreatedBefore: &after}},
		} {
			for _, filter := range f {
				if list, err := s.Messages(t.Context(), filter, uuid.Nil, 10); err != nil || len(list) != want || want == 1 && list[0].ID != m.ID {
					t.Errorf("%+v: %d messages, %v, want %d", filter, len(list), err, want)
				}
			}
		}
	})
}

// Attempts are listed oldest first. The call that a message was sent with is the last, with the part that it sent.
func TestAttemptsAreListedInOrder(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := storetest.InsertSingle(t, s, nil)
		began := store.Stamp(time.Now().Add(-time.Hour))
		for n := 1; n <= 3; n++ {
			token, _ := storetest.Claim(t, s, m.ID, time.Minute)
			row := delivery.Row{ID: m.ID, Token: token, Single: true, Attempt: n}
			var o delivery.Outcome
			switch at := began.Add(time.Duration(n) * time.Minute); n {
			case 1:
				o = row.Retry(message.ProviderUnavailable, 0).WithCall(delivery.Response{Class: delivery.NotSent, HTTPStatus: 503}, at)
			case 2:
				o = row.Retry(message.ProviderUnavailable, 0).WithCall(delivery.Response{Class: delivery.NotSent, HTTPStatus: 502}, at)
			default:
				row.Part = 1
				o = row.Sent(0).WithCall(delivery.Response{Class: delivery.Accepted, HTTPStatus: 201}, at)
			}
			if !storetest.Settle(t, s, o) {
				t.Fatal("settle")
			}
		}
		_, attempts, err := s.Message(t.Context(), m.ID)
		must(t, err)
		var got [][3]int
		for _, a := range attempts {
			got = append(got, [3]int{a.N, a.HTTPStatus, a.Part})
		}
		if d := cmp.Diff([][3]int{{1, 503, 0}, {2, 502, 0}, {3, 201, 1}}, got); d != "" {
			t.Error(d)
		}
	})
}

// Only messages that wait become suspects, and a stronger suspicion stays.
func TestWaitingMessagesBecomeSuspects(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		want := map[uuid.UUID]message.Suspect{}
		var ids []uuid.UUID
		for _, c := range []struct {
			status        message.Status
			before, after message.Suspect
		}{
			{message.Pending, message.NotSuspect, message.Suspected}, {message.Queued, message.NotSuspect, message.Suspected},
			{message.Queued, message.SuspectRendering, message.SuspectRendering}, {message.Sending, message.NotSuspect, message.NotSuspect},
			{message.Sent, message.NotSuspect, message.NotSuspect},
		} {
			m := storetest.InsertSingle(t, s, nil)
			must(t, s.WithContext(t.Context()).Exec("UPDATE messages SET status = ?, suspect = ? WHERE id = ?", string(c.status), int(c.before), m.ID).Error)
			ids, want[m.ID] = append(ids, m.ID), c.after
		}
		want[storetest.InsertSingle(t, s, nil).ID] = message.NotSuspect
		must(t, s.SuspectMessages(t.Context(), ids))
		for id, suspect := range want {
			if l, err := s.Load(t.Context(), id); err != nil || l.Message.Suspect != suspect {
				t.Errorf("%s: %+v, %v, want %d", id, l.Message, err, suspect)
			}
		}
	})
}
