package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/event"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// Without its cause an event is not written: both are in one transaction.
func TestAnEventNeedsItsCause(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := storetest.Open(t, url, storetest.Options{Sealer: storetest.Sealer(t)}), storetest.Raw(t, url)
		b := storetest.InsertBulk(t, s, nil)
		_, err := db.ExecContext(t.Context(), "ALTER TABLE outbox RENAME TO outbox_away")
		must(t, err)
		if err := s.Move(t.Context(), b.ID, []bulk.Status{bulk.Processing}, bulk.Paused); err == nil {
			t.Error("a bulk was paused without its event")
		}
		_, err = db.ExecContext(t.Context(), "ALTER TABLE outbox_away RENAME TO outbox")
		must(t, err)
		if got, err := s.Bulk(t.Context(), b.ID); err != nil || got.Status != bulk.Processing {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Events of seven days and more go, younger ones stay; a page of events begins after an id.
func TestOldEventsArePruned(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		var ids []uuid.UUID
		for _, age := range []time.Duration{event.Keep + time.Hour, event.Keep - time.Hour, event.Keep + time.Minute, 0} {
			b := storetest.InsertBulk(t, s, nil)
			_, err := db.ExecContext(t.Context(), "UPDATE outbox SET created_at = $1 WHERE subject_id = $2", store.Stamp(time.Now().Add(-age)), b.ID.String())
			must(t, err)
			ids = append(ids, b.ID)
		}
		must(t, s.Prune(t.Context()))
		stored, err := s.Events(t.Context(), 0, 10)
		must(t, err)
		if len(stored) != 2 || stored[0].Event.Subject() != ids[1] || stored[1].Event.Subject() != ids[3] {
			t.Fatalf("%+v", stored)
		}
		if first, err := s.Events(t.Context(), 0, 1); err != nil || len(first) != 1 || first[0].ID != stored[0].ID {
			t.Errorf("a page of one: %+v, %v", first, err)
		}
		if next, err := s.Events(t.Context(), stored[0].ID, 10); err != nil || len(next) != 1 || next[0].ID != stored[1].ID {
			t.Errorf("the next page: %+v, %v", next, err)
		}
	})
}
