package records_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// Bulks are listed newest first, in pages.
func TestBulksAreListed(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		var want []uuid.UUID
		for range 3 {
			want = append(want, storetest.InsertBulk(t, s, nil).ID)
		}
		slices.Reverse(want)
		var got []uuid.UUID
		for before := uuid.Nil; ; before = got[len(got)-1] {
			page, err := s.Bulks(t.Context(), bulk.Filter{}, before, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, b := range page {
				got = append(got, b.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// Every filter selects, alone and together with the others, and the currency is that of the channel.
func TestIntegrationBulksAreFiltered(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		base := store.Stamp(time.Now())
		insert := func(change func(*bulk.Bulk)) uuid.UUID {
			b := &bulk.Bulk{
				ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, MessageType: message.Marketing, Priority: message.Normal,
				Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: base,
			}
			change(b)
			must(t, s.InsertBulk(ctx, b, nil))
			if got, err := s.Bulk(ctx, b.ID); err != nil || got.Currency != "USD" || b.Currency != "USD" || got.Name != b.Name || got.Author != b.Author {
				t.Errorf("%+v, %v", got, err)
			}
			return b.ID
		}
		plain := insert(func(*bulk.Bulk) {})
		named := insert(func(b *bulk.Bulk) { b.Name, b.CreatedAt = "wave 1", base.Add(time.Minute) })
		texted := insert(func(b *bulk.Bulk) {
			b.Channel = storetest.Channel(t, s, message.SMS).Key
			b.Name, b.Author, b.CreatedAt = "wave 1", access.Author{ID: "k1", Name: "nightly"}, base.Add(2*time.Minute)
		})
		must(t, s.Move(ctx, texted, []bulk.Status{bulk.Processing}, bulk.Paused))
		after, before := base, base.Add(2*time.Minute)
		for name, c := range map[string]struct {
			filter bulk.Filter
			want   []uuid.UUID
		}{
			"none":           {bulk.Filter{}, []uuid.UUID{texted, named, plain}},
			"name":           {bulk.Filter{Name: "wave 1"}, []uuid.UUID{texted, named}},
			"part of a name": {bulk.Filter{Name: "wave"}, nil},
			"status":         {bulk.Filter{Status: bulk.Paused}, []uuid.UUID{texted}},
			"type":           {bulk.Filter{ChannelType: message.Email}, []uuid.UUID{named, plain}},
			"author":         {bulk.Filter{KeyID: "k1"}, []uuid.UUID{texted}},
			"after":          {bulk.Filter{CreatedAfter: &after}, []uuid.UUID{texted, named}},
			"before":         {bulk.Filter{CreatedBefore: &before}, []uuid.UUID{named, plain}},
			"all":            {bulk.Filter{Name: "wave 1", ChannelType: message.Email, Status: bulk.Processing, CreatedAfter: &after, CreatedBefore: &before}, []uuid.UUID{named}},
		} {
			list, err := s.Bulks(ctx, c.filter, uuid.Nil, 10)
			must(t, err)
			var got []uuid.UUID
			for _, b := range list {
				got = append(got, b.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	})
}

// A message that waits for its second send has not failed yet.
func TestIntegrationMessagesAreFilteredByTheirEnd(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		base := store.Stamp(time.Now())
		names := map[uuid.UUID]string{}
		for i, c := range []struct {
			status  message.Status
			reason  message.Reason
			waiting bool
		}{
			{message.Queued, "", true}, {message.Sent, "", false}, {message.Failed, message.ContentRefused, false}, {message.Unknown, message.UnknownOutcome, true},
			{message.Unknown, message.Poison, false}, {message.Skipped, message.Complained, false}, {message.Cancelled, message.WasCancelled, false}, {message.Bounced, "", false},
		} {
			m := storetest.InsertSingle(t, s, func(*message.Message) {})
			var next *time.Time
			if c.waiting {
				next = &base
			}
			must(t, s.WithContext(ctx).Exec("UPDATE messages SET status = ?, reason = ?, next_attempt_at = ?, updated_at = ? WHERE id = ?",
				string(c.status), string(c.reason), next, base.Add(time.Duration(i)*time.Minute), m.ID).Error)
			names[m.ID] = string(c.status) + ":" + string(c.reason)
		}
		after := base.Add(5 * time.Minute)
		for _, c := range []struct {
			filter message.Filter
			want   []string
		}{
			{message.Filter{Failed: true}, []string{"CANCELLED:cancelled", "SKIPPED:complained", "UNKNOWN:poison", "FAILED:content_refused"}},
			{message.Filter{Statuses: []message.Status{message.Sent, message.Unknown}}, []string{"UNKNOWN:poison", "UNKNOWN:outcome_unknown", "SENT:"}},
			{message.Filter{Reasons: []message.Reason{message.Poison, message.ContentRefused}}, []string{"UNKNOWN:poison", "FAILED:content_refused"}},
			{message.Filter{UpdatedAfter: &after}, []string{"BOUNCED:", "CANCELLED:cancelled"}},
			{message.Filter{UpdatedAfter: &after, Failed: true, Statuses: []message.Status{message.Failed, message.Cancelled}}, []string{"CANCELLED:cancelled"}},
		} {
			list, err := s.Messages(ctx, c.filter, uuid.Nil, 20)
			must(t, err)
			var got []string
			for _, m := range list {
				got = append(got, names[m.ID])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
			}
		}
	})
}

// A change of status ends the lease and forgets the turn: the next runner begins at once. A bulk in another status is a conflict.
func TestMoveEndsTheLease(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		must(t, s.Release(ctx, lease, time.Hour))
		lease, _ = storetest.Acquire(t, s, b.ID, time.Minute)
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Paused))
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Paused}, bulk.Processing))
		running, err := s.Running(ctx, lease.Token)
		must(t, err)
		if len(running) != 1 || !running[0].Free || running[0].Mine || !running[0].Due || !running[0].TurnAt.IsZero() {
			t.Errorf("%+v", running)
		}
		if err := s.Move(ctx, b.ID, []bulk.Status{bulk.Paused}, bulk.Cancelled); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("a bulk in another status: %v", err)
		}
		if err := s.Move(ctx, newID(), []bulk.Status{bulk.Processing}, bulk.Paused); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown bulk: %v", err)
		}
	})
}

// A preview reads the ids of a bulk, leads in the order of their ids, and the message of one lead.
func TestWhatAPreviewReads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ids := []uuid.UUID{storetest.Lead(t, s, nil), storetest.Lead(t, s, nil)}
		b, other := storetest.InsertBulk(t, s, ids), storetest.InsertBulk(t, s, ids)
		got, err := s.BulkWithIDs(ctx, b.ID)
		must(t, err)
		if !slices.Equal(got.Criteria.LeadIDs, ids) {
			t.Errorf("ids %v", got.Criteria.LeadIDs)
		}
		leads, err := s.LeadsByID(ctx, []uuid.UUID{ids[1], newID(), ids[0]})
		must(t, err)
		if len(leads) != 2 || leads[0].ID != ids[0] || leads[1].ID != ids[1] {
			t.Errorf("leads %+v", leads)
		}
		seq := int64(0)
		put := func(bulkID, lead uuid.UUID) uuid.UUID {
			seq++
			return storetest.InsertSingle(t, s, func(m *message.Message) { m.BulkID, m.LeadID, m.Seq, m.Recipient = bulkID, lead, seq, newID().String() }).ID
		}
		put(other.ID, ids[0])
		put(b.ID, ids[1])
		want := put(b.ID, ids[0])
		if m, err := s.MessageOf(ctx, b.ID, ids[0]); err != nil || m.ID != want {
			t.Errorf("%+v, %v, want %s", m, err, want)
		}
		if _, err := s.MessageOf(ctx, b.ID, newID()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("a lead without a message: %v", err)
		}
	})
}

// Each message of a bulk shows the metadata of the request of that bulk.
func TestMessagesShowTheMetadataOfTheirBulk(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		want := map[uuid.UUID]string{}
		for _, metadata := range []string{`{"n":1}`, `{"n":2}`} {
			b := &bulk.Bulk{
				ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, Request: []byte(`{"message_data":{"metadata":` + metadata + `}}`),
				Status: bulk.Processing, CreatedAt: store.Stamp(time.Now()),
			}
			must(t, s.InsertBulk(ctx, b, nil))
			want[storetest.InsertSingle(t, s, func(m *message.Message) { m.BulkID, m.Metadata = b.ID, nil }).ID] = metadata
		}
		list, err := s.Messages(ctx, message.Filter{}, uuid.Nil, 10)
		must(t, err)
		for _, m := range list {
			one, _, err := s.Message(ctx, m.ID)
			must(t, err)
			for _, got := range []string{string(m.Metadata), string(one.Metadata)} {
				if compact(t, got) != want[m.ID] {
					t.Errorf("%s, want %s", got, want[m.ID])
				}
			}
		}
	})
}
