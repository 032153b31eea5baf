package records_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

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
			page, err := s.Bulks(t.Context(), before, 2)
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
