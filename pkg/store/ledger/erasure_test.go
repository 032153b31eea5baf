package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// A lead is erased while its message is under a claim: the outcome ends the message instead of letting it wait.
func TestFaultOutcomeAfterErasure(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		retry := func(r delivery.Row) delivery.Outcome { return r.Retry("", time.Minute) }
		for name, c := range map[string]struct {
			outcome  func(delivery.Row) delivery.Outcome
			status   message.Status
			reason   message.Reason
			unknowns int // earlier attempts with an unknown outcome
		}{
			"accepted":                               {func(r delivery.Row) delivery.Outcome { return r.Sent(0) }, message.Sent, "", 0},
			"refused":                                {func(r delivery.Row) delivery.Outcome { return r.Failed(message.RecipientRefused, nil) }, message.Failed, message.RecipientRefused, 0},
			"to be retried":                          {func(r delivery.Row) delivery.Outcome { return r.Retry("", time.Minute) }, message.Skipped, message.Erased, 0},
			"given back":                             {func(r delivery.Row) delivery.Outcome { return r.Release("", 0) }, message.Skipped, message.Erased, 0},
			"first of parts":                         {func(r delivery.Row) delivery.Outcome { return r.NextPart(time.Minute) }, message.Unknown, message.Erased, 0},
			"to be sent again":                       {func(r delivery.Row) delivery.Outcome { return r.Unknown(time.Minute) }, message.Unknown, message.UnknownOutcome, 0},
			"to be retried after an unknown attempt": {retry, message.Unknown, message.Erased, 1},
		} {
			lead := storetest.Annabel(t, s)
			m := storetest.InsertSingle(t, s, func(m *message.Message) { m.LeadID, m.Recipient = lead, storetest.AnnabelsPhone })
			token, ok := storetest.Claim(t, s, m.ID, time.Minute)
			if !ok {
				t.Fatal("claim")
			}
			setRow(t, s, m.ID, map[string]any{"unknowns": c.unknowns})
			must(t, s.EraseLead(t.Context(), lead))
			settled, err := s.Settle(t.Context(), c.outcome(delivery.Row{ID: m.ID, Token: token, Single: true}))
			must(t, err)
			got, _, err := s.Message(t.Context(), m.ID)
			must(t, err)
			if !settled.OK || !settled.Erased || got.Status != c.status || got.Reason != c.reason || got.NextAttemptAt != nil {
				t.Errorf("%s: %+v, row %s %q, next attempt %v", name, settled, got.Status, got.Reason, got.NextAttemptAt)
			}
			if due, err := s.Due(t.Context(), 10, time.Hour); err != nil || len(due) != 0 {
				t.Errorf("%s: due %v, %v", name, due, err)
			}
		}
		if found := storetest.Readable(t, db, "Annabel", "4155550123"); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A lead is erased after the planner has read it and before its page is written, or at the same time.
func TestFaultErasureBesideThePlan(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		rounds, base := 150, int64(0)
		for round := range rounds {
			rows := storetest.PlannedRows(t, s, 4)
			rows[1].Recipient = storetest.AnnabelsEmail
			rows[1].Hash = message.HashAddress(storetest.AnnabelsEmail)
			must(t, s.EraseLead(t.Context(), rows[2].LeadID)) // read before, and gone
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := s.EraseLead(t.Context(), rows[1].LeadID); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: b, Base: base, Rows: rows, Cursor: "x"}); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			walk, err := s.Walk(t.Context(), b.ID, base, 10)
			must(t, err)
			if len(walk) != 4 || walk[0].State.Status != message.Pending || walk[1].State.Reason != message.Erased || walk[2].State.Reason != message.Erased ||
				walk[2].State.Status != message.Skipped {
				t.Fatalf("round %d: %+v", round, walk)
			}
			base += 4
		}
		if found := storetest.Readable(t, db, storetest.AnnabelsEmail); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A single that was made from a lead is written only while the lead exists, and the erasure sees what was written.
func TestFaultErasureBesideASingle(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		ch := storetest.Channel(t, s, message.SMS).Key
		write := func(lead uuid.UUID, key *access.IdempotencyKey) (uuid.UUID, error) {
			id, now := newID(), store.Stamp(time.Now())
			_, err := s.Insert(t.Context(), delivery.Entry{ForLead: true, Key: key, Message: &message.Message{
				ID: id, LeadID: lead, ChannelID: ch.ID, ChannelType: ch.Type, Provider: "twilio", Recipient: storetest.AnnabelsPhone, MessageType: message.Transactional,
				Priority: message.High, Content: &message.Content{Text: "Hi Annabel"}, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
			}})
			return id, err
		}
		written := 0
		for round := range 150 {
			lead := storetest.Annabel(t, s)
			key := storetest.IdempotencyKey("caller", fmt.Sprint(round), "x")
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := s.EraseLead(t.Context(), lead); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				switch _, err := write(lead, key); {
				case err == nil:
					written++
				case !errors.Is(err, delivery.ErrLeadErased):
					t.Error(err)
				}
			})
			wg.Wait()
			if _, err := s.Effect(t.Context(), key); message.IsCode(err, message.CodeNotFound) {
				continue
			}
			written--
		}
		if written != 0 {
			t.Errorf("%d keys more than messages", -written)
		}
		if found := storetest.Readable(t, db, "Annabel", storetest.AnnabelsPhone); found != nil {
			t.Errorf("still readable in %v", found)
		}
		if _, err := write(newID(), nil); !errors.Is(err, delivery.ErrLeadErased) {
			t.Errorf("written for a lead that does not exist: %v", err)
		}
	})
}

// Of a single and the deletion of its channel at the same time one is refused, and a refused single takes no idempotency key.
func TestFaultSingleBesideTheDeletionOfItsChannel(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		refused := 0
		for round := range 60 {
			ch := storetest.Channel(t, s, message.SMS)
			id, now, key := newID(), store.Stamp(time.Now()), storetest.IdempotencyKey("caller", fmt.Sprint(round), "x")
			var inserted delivery.Inserted
			errs := storetest.Together(func() (err error) {
				watch := now.Add(time.Hour)
				inserted, err = s.Insert(t.Context(), delivery.Entry{Key: key, Message: &message.Message{
					ID: id, ChannelID: ch.ID, ChannelType: ch.Type, Provider: "twilio", Recipient: storetest.AnnabelsPhone, MessageType: message.Transactional, NextAttemptAt: &watch,
					Priority: message.High, Content: &message.Content{Text: "x"}, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
				}})
				return err
			}, func() error { return s.DeleteChannel(t.Context(), ch.Key) })
			_, effect := s.Effect(t.Context(), key)
			switch {
			case errs[0] == nil && message.IsCode(errs[1], message.CodeConflict):
				if !storetest.Exists(t, s, id) || effect != nil || inserted.ChannelVersion != ch.Version {
					t.Fatalf("%+v, %v", inserted, effect)
				}
			case message.IsCode(errs[0], message.CodeNotFound) && errs[1] == nil:
				refused++
				if storetest.Exists(t, s, id) || !message.IsCode(effect, message.CodeNotFound) {
					t.Fatalf("a refused single left a row or a key: %v", effect)
				}
			default:
				t.Fatalf("%v", errs)
			}
		}
		t.Logf("%d of 60 singles were refused", refused)
	})
}

// An erasure that is under way keeps pages of plans out until it is committed, and waits for pages that are under way.
func TestFaultErasureAndPagesExcludeEachOther(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	b := storetest.InsertBulk(t, s, nil)
	lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
	const lock = 0x4845524c
	for round, doubtful := range []bool{false, true} {
		rows := storetest.PlannedRows(t, s, 1)
		rows[0].FirstSeen = !doubtful
		erasure, err := db.BeginTx(t.Context(), nil)
		must(t, err)
		defer erasure.Rollback()
		_, err = erasure.ExecContext(t.Context(), "SELECT pg_advisory_xact_lock($1)", lock)
		must(t, err)
		_, err = erasure.ExecContext(t.Context(), "DELETE FROM leads WHERE id = $1", rows[0].LeadID.String())
		must(t, err)
		page := make(chan error)
		go func() {
			page <- s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: b, Base: int64(round), Rows: rows, Cursor: "x"})
		}()
		storetest.AwaitLock(t, db)
		must(t, erasure.Commit())
		must(t, <-page)
		walk, err := s.Walk(t.Context(), b.ID, int64(round), 1)
		must(t, err)
		if walk[0].State.Reason != message.Erased || rows[0].Reason != message.Erased || rows[0].Recipient != "" {
			t.Errorf("addresses in doubt: %t: %+v, told %+v", doubtful, walk, rows)
		}
	}
	lead := storetest.Annabel(t, s)
	page, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer page.Rollback()
	_, err = page.ExecContext(t.Context(), "SELECT pg_advisory_xact_lock_shared($1)", lock)
	must(t, err)
	erased := make(chan error)
	go func() { erased <- s.EraseLead(t.Context(), lead) }()
	storetest.AwaitLock(t, db)
	must(t, page.Commit())
	must(t, <-erased)
}
