package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// published returns the events since the last one that was seen, and moves seen on.
func published(t *testing.T, s *storetest.Store, seen *int64) []event.Event {
	t.Helper()
	stored, err := s.Events(t.Context(), *seen, 100)
	must(t, err)
	var events []event.Event
	for _, e := range stored {
		if e.ID <= *seen || time.Since(e.CreatedAt) > time.Minute || time.Until(e.CreatedAt) > time.Minute {
			t.Errorf("event %d of %s after %d", e.ID, e.CreatedAt, *seen)
		}
		events, *seen = append(events, e.Event), e.ID
	}
	return events
}

// Each change of a bulk writes its event; a change that has no effect writes none.
func TestEventsOfABulk(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		var seen int64
		expect := func(what string, want ...event.Event) {
			t.Helper()
			if d := cmp.Diff(want, published(t, s, &seen)); d != "" {
				t.Errorf("%s: %s", what, d)
			}
		}
		b := insertBulk(t, s, nil)
		must(t, s.InsertBulk(ctx, b, nil)) // the answer may have been lost
		expect("accepted", event.BulkAccepted{BulkID: b.ID, ChannelID: b.Channel.ID, ChannelType: b.Channel.Type, MessageType: b.MessageType})
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Paused))
		if err := s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Paused); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("paused twice: %v", err)
		}
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Paused}, bulk.Processing))
		expect("paused and resumed", event.BulkPaused{BulkID: b.ID}, event.BulkResumed{BulkID: b.ID})

		lease, _ := acquire(t, s, b.ID, time.Minute)
		rows := planned(t, s, 2)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows[:1], NotFound: 1}))
		expect("a page that is not the last")
		last := bulk.PlanPage{Lease: lease, Bulk: b, Base: 1, Rows: rows[1:], NotFound: 2, Done: true}
		must(t, s.AddPage(ctx, last))
		if err := s.AddPage(ctx, last); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("the last page again: %v", err)
		}
		expect("planned", event.BulkPlanned{BulkID: b.ID, Total: 2, NotFound: 3})

		for i, row := range rows {
			if done, err := s.Finish(ctx, b.ID); done || err != nil {
				t.Errorf("finished with %d of 2 messages: %v, %v", i, done, err)
			}
			token, _ := claim(t, s, row.ID, time.Minute)
			settle(t, s, delivery.Row{ID: row.ID, Token: token}.Sent(0))
		}
		for range 2 {
			if done, err := s.Finish(ctx, b.ID); !done || err != nil {
				t.Errorf("not finished: %v, %v", done, err)
			}
		}
		expect("completed", event.BulkCompleted{BulkID: b.ID, Status: "COMPLETED", Total: 2})
	})
}

// A request and Herald itself may cancel a bulk; a cancelled bulk completes too.
func TestEventsOfACancelledBulk(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		asked, abandoned := insertBulk(t, s, nil), insertBulk(t, s, nil)
		var seen int64
		published(t, s, &seen)
		must(t, s.Move(ctx, asked.ID, []bulk.Status{bulk.Processing, bulk.Paused}, bulk.Cancelled))
		lease, _ := acquire(t, s, abandoned.ID, time.Minute)
		must(t, s.Abandon(ctx, lease, "too slow"))
		if err := s.Abandon(ctx, lease, "too slow"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("abandoned twice: %v", err)
		}
		if done, err := s.Finish(ctx, asked.ID); !done || err != nil {
			t.Errorf("not finished: %v, %v", done, err)
		}
		want := []event.Event{
			event.BulkCancelled{BulkID: asked.ID}, event.BulkCancelled{BulkID: abandoned.ID, Reason: "too slow"},
			event.BulkCompleted{BulkID: asked.ID, Status: "CANCELLED"},
		}
		if d := cmp.Diff(want, published(t, s, &seen)); d != "" {
			t.Error(d)
		}
	})
}

func TestEventsOfChannelsAndLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ch := storetest.Channel(t, s, message.Email)
		set := func(change func(*channel.Channel)) *channel.Channel {
			t.Helper()
			c, err := s.UpdateChannel(ctx, ch.Key, func(c *channel.Channel) error {
				change(c)
				return nil
			})
			must(t, err)
			return c
		}
		set(func(c *channel.Channel) { c.Name = "no event" })
		set(func(c *channel.Channel) { c.State = channel.Paused })
		active := set(func(c *channel.Channel) { c.State = channel.Active })
		must(t, s.PauseChannel(ctx, ch.Key, active.Version-1, "an old version"))
		must(t, s.PauseChannel(ctx, ch.Key, active.Version, "rejected credentials"))
		must(t, s.PauseChannel(ctx, ch.Key, active.Version, "rejected credentials"))
		id := newLead(t, s, nil)
		must(t, s.EraseLead(ctx, id))
		if err := s.EraseLead(ctx, id); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("erased twice: %v", err)
		}
		var seen int64
		want := []event.Event{
			event.ChannelPaused{ChannelID: ch.ID, ChannelType: ch.Type},
			event.ChannelResumed{ChannelID: ch.ID, ChannelType: ch.Type},
			event.ChannelPaused{ChannelID: ch.ID, ChannelType: ch.Type, Reason: "rejected credentials"},
			event.LeadErased{LeadID: id},
		}
		if d := cmp.Diff(want, published(t, s, &seen)); d != "" {
			t.Error(d)
		}
	})
}

// Without its cause an event is not written: both are in one transaction.
func TestAnEventNeedsItsCause(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
		b := insertBulk(t, s, nil)
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
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
		var ids []uuid.UUID
		for _, age := range []time.Duration{event.Keep + time.Hour, event.Keep - time.Hour, event.Keep + time.Minute, 0} {
			b := insertBulk(t, s, nil)
			_, err := db.ExecContext(t.Context(), "UPDATE outbox SET created_at = $1 WHERE subject_id = $2", micro(time.Now().Add(-age)), b.ID.String())
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
