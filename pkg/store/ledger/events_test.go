package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

// Each change of a bulk writes its event; a change that has no effect writes none.
func TestEventsOfABulk(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		var seen int64
		expect := func(what string, want ...event.Event) {
			t.Helper()
			if d := cmp.Diff(want, storetest.Published(t, s, &seen)); d != "" {
				t.Errorf("%s: %s", what, d)
			}
		}
		b := storetest.InsertBulk(t, s, nil)
		must(t, s.InsertBulk(ctx, b, nil)) // the answer may have been lost
		expect("accepted", event.BulkAccepted{BulkID: b.ID, ChannelID: b.Channel.ID, ChannelType: b.Channel.Type, MessageType: b.MessageType})
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Paused))
		if err := s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Paused); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("paused twice: %v", err)
		}
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Paused}, bulk.Processing))
		expect("paused and resumed", event.BulkPaused{BulkID: b.ID}, event.BulkResumed{BulkID: b.ID})

		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		rows := storetest.PlannedRows(t, s, 2)
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
			token, _ := storetest.Claim(t, s, row.ID, time.Minute)
			storetest.Settle(t, s, delivery.Row{ID: row.ID, Token: token}.Sent(0))
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
		asked, abandoned := storetest.InsertBulk(t, s, nil), storetest.InsertBulk(t, s, nil)
		var seen int64
		storetest.Published(t, s, &seen)
		must(t, s.Move(ctx, asked.ID, []bulk.Status{bulk.Processing, bulk.Paused}, bulk.Cancelled))
		lease, _ := storetest.Acquire(t, s, abandoned.ID, time.Minute)
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
		if d := cmp.Diff(want, storetest.Published(t, s, &seen)); d != "" {
			t.Error(d)
		}
	})
}
