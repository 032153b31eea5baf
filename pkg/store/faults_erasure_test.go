package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// eachRaw is each with the database beside the store.
func eachRaw(t *testing.T, test func(t *testing.T, s *storetest.Store, db *sql.DB)) {
	t.Helper()
	testenv.EachDatabase(t, func(t *testing.T, url string) { test(t, open(t, url), raw(t, url)) })
}

// readable returns the tables of the database that hold one of some texts.
func readable(t *testing.T, db *sql.DB, texts ...string) []string {
	t.Helper()
	var found []string
	for table, columns := range map[string]string{
		"leads": "first_name || email || phone || search_text || COALESCE(CAST(custom_fields AS text), '') || COALESCE(CAST(custom_text AS text), '')", "suppressions": "address", "attempts": "code",
		"messages": "recipient || COALESCE(CAST(content AS text), '') || COALESCE(CAST(metadata AS text), '') || COALESCE(CAST(failure AS text), '')",
		"bulks":    "CAST(criteria AS text) || CAST(request AS text)",
	} {
		for _, text := range texts {
			var n int
			must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table+" WHERE "+columns+" LIKE '%"+text+"%'").Scan(&n))
			if n > 0 {
				found = append(found, fmt.Sprintf("%s (%d rows: %s)", table, n, text))
			}
		}
	}
	return found
}

const annsEmail, annsPhone = "ann.erased@example.com", "+14155550123"

func saveAnn(t *testing.T, s *storetest.Store) uuid.UUID {
	t.Helper()
	l := message.Lead{ID: newID(), FirstName: "Annabel", Email: annsEmail, Phone: "(415) 555-0123", CreatedAt: time.Now(), UpdatedAt: time.Now()}
	must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
	return l.ID
}

// An erased lead's messages hold nothing of the lead in any state, and those that had not left yet end.
func TestFaultErasureInEveryState(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		lead := saveAnn(t, s)
		type ends struct {
			status   message.Status
			reason   message.Reason
			unknowns int
			part     int
			waits    bool
			want     message.Status
			why      message.Reason
		}
		rows := map[uuid.UUID]ends{}
		for _, e := range []ends{
			{message.Scheduled, "", 0, 0, true, message.Skipped, message.Erased},
			{message.Pending, "", 0, 0, false, message.Skipped, message.Erased},
			{message.Queued, "", 0, 0, true, message.Skipped, message.Erased},
			{message.Pending, "", 1, 0, false, message.Unknown, message.Erased}, // an earlier attempt may have delivered it
			{message.Queued, "", 0, 1, true, message.Unknown, message.Erased},   // its first part went out
			{message.Sending, "", 0, 0, true, message.Sending, ""},
			{message.Unknown, message.UnknownOutcome, 1, 0, true, message.Unknown, message.UnknownOutcome},
			{message.Unknown, message.UnknownOutcome, 1, 0, false, message.Unknown, message.UnknownOutcome},
			{message.Sent, "", 0, 1, false, message.Sent, ""},
			{message.Failed, message.RecipientRefused, 0, 0, false, message.Failed, message.RecipientRefused},
			{message.Skipped, message.Unsubscribed, 0, 0, false, message.Skipped, message.Unsubscribed},
			{message.Cancelled, message.WasCancelled, 0, 0, false, message.Cancelled, message.WasCancelled},
			{message.Bounced, "", 0, 1, false, message.Bounced, ""},
		} {
			m := insertSingle(t, s, func(m *message.Message) {
				m.LeadID, m.Recipient, m.Content = lead, annsPhone, &message.Content{Text: "Hi Annabel"}
				m.Metadata = []byte(`{"name":"Annabel"}`)
			})
			next := any(nil)
			if e.waits {
				next = time.Now().Add(time.Hour)
			}
			_, err := db.ExecContext(t.Context(), "UPDATE messages SET status = $1, reason = $2, unknowns = $3, part = $4, next_attempt_at = $5 WHERE id = $6",
				string(e.status), string(e.reason), e.unknowns, e.part, next, m.ID.String())
			must(t, err)
			rows[m.ID] = e
		}
		must(t, s.EraseLead(t.Context(), lead))
		for id, e := range rows {
			m, _, err := s.Message(t.Context(), id)
			must(t, err)
			waits := m.NextAttemptAt != nil
			if m.Status != e.want || m.Reason != e.why || waits != (e.status == message.Sending) {
				t.Errorf("%s (unknowns %d, part %d) became %s %q, waits: %t", e.status, e.unknowns, e.part, m.Status, m.Reason, waits)
			}
		}
		if found := readable(t, db, "Annabel", annsEmail, "4155550123"); found != nil {
			t.Errorf("still readable in %v", found)
		}
		if err := s.EraseLead(t.Context(), lead); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("erased twice: %v", err)
		}
	})
}

// A lead is erased while its message is under a claim: the outcome ends the message instead of letting it wait.
func TestFaultOutcomeAfterErasure(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		for name, c := range map[string]struct {
			outcome func(delivery.Row) delivery.Outcome
			status  message.Status
			reason  message.Reason
		}{
			"accepted":         {func(r delivery.Row) delivery.Outcome { return r.Sent(0) }, message.Sent, ""},
			"refused":          {func(r delivery.Row) delivery.Outcome { return r.Failed(message.RecipientRefused, nil) }, message.Failed, message.RecipientRefused},
			"to be retried":    {func(r delivery.Row) delivery.Outcome { return r.Retry("", time.Minute) }, message.Skipped, message.Erased},
			"given back":       {func(r delivery.Row) delivery.Outcome { return r.Release("", 0) }, message.Skipped, message.Erased},
			"first of parts":   {func(r delivery.Row) delivery.Outcome { return r.NextPart(time.Minute) }, message.Unknown, message.Erased},
			"to be sent again": {func(r delivery.Row) delivery.Outcome { return r.Unknown(time.Minute) }, message.Unknown, message.UnknownOutcome},
		} {
			lead := saveAnn(t, s)
			m := insertSingle(t, s, func(m *message.Message) { m.LeadID, m.Recipient = lead, annsPhone })
			token, ok := claim(t, s, m.ID, time.Minute)
			if !ok {
				t.Fatal("claim")
			}
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
		if found := readable(t, db, "Annabel", "4155550123"); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A lead is erased after the planner has read it and before its page is written, or at the same time.
func TestFaultErasureBesideThePlan(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
		rounds, base := 150, int64(0)
		for round := range rounds {
			rows := planned(t, s, 4)
			rows[1].Recipient = annsEmail
			rows[1].Hash = message.HashAddress(annsEmail)
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
		if found := readable(t, db, annsEmail); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A single that was made from a lead is written only while the lead exists, and the erasure sees what was written.
func TestFaultErasureBesideASingle(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		ch := storetest.Channel(t, s, message.SMS).Key
		write := func(lead uuid.UUID, key *access.IdempotencyKey) (uuid.UUID, error) {
			id, now := newID(), micro(time.Now())
			_, err := s.Insert(t.Context(), delivery.Entry{ForLead: true, Key: key, Message: &message.Message{
				ID: id, LeadID: lead, ChannelID: ch.ID, ChannelType: ch.Type, Provider: "twilio", Recipient: annsPhone, MessageType: message.Transactional,
				Priority: message.High, Content: &message.Content{Text: "Hi Annabel"}, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
			}})
			return id, err
		}
		written := 0
		for round := range 150 {
			lead := saveAnn(t, s)
			key := keyed("caller", fmt.Sprint(round), "x")
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
		if found := readable(t, db, "Annabel", annsPhone); found != nil {
			t.Errorf("still readable in %v", found)
		}
		if _, err := write(newID(), nil); !errors.Is(err, delivery.ErrLeadErased) {
			t.Errorf("written for a lead that does not exist: %v", err)
		}
	})
}

// Singles to an erased lead's address that name no lead, or one that does not exist, are emptied. Those of other leads are not.
func TestFaultErasureByAddress(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		us := channel.Channel{
			Key: channel.Key{ID: newID(), Type: message.SMS}, Provider: "twilio", Name: "us", Sender: "+15550000000", Currency: "USD", OnUnknown: channel.Hold,
			State: channel.Active, Region: "US",
		}
		must(t, s.InsertChannel(t.Context(), &us))
		lead, other := saveAnn(t, s), saveAnn(t, s)
		to := func(lead uuid.UUID) uuid.UUID {
			return insertSingle(t, s, func(m *message.Message) { m.LeadID, m.Recipient = lead, annsPhone }).ID
		}
		without, unknown, others := to(uuid.Nil), to(newID()), to(other)
		must(t, s.EraseLead(t.Context(), lead))
		for id, want := range map[uuid.UUID]string{without: "", unknown: "", others: annsPhone} {
			if m, _, err := s.Message(t.Context(), id); err != nil || m.Recipient != want {
				t.Errorf("%+v, %v", m, err)
			}
		}
		must(t, s.EraseLead(t.Context(), other))
		if found := readable(t, db, annsPhone); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A bulk's stored request and criteria lose the address of an erased lead, and nothing else.
func TestFaultErasureInRequests(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, db *sql.DB) {
		lead := saveAnn(t, s)
		ch := storetest.Channel(t, s, message.Email).Key
		b := &bulk.Bulk{
			ID: newID(), Channel: ch, Provider: "sendgrid", MessageType: message.Marketing, Priority: message.Normal, Status: bulk.Processing,
			Content:  message.Content{Subject: "s", Text: "Write to " + annsEmail},
			Criteria: audience.Criteria{Words: []string{"x", annsEmail}, Assignees: []string{"keep"}},
			Request: []byte(`{"message_data":{"recipient":"Ann.Erased@Example.com","content":"Write to ` + annsEmail + `","metadata":{"of":["` + annsEmail + `"]}},` +
				`"bulk_settings":{"search_keyword":"x ` + annsEmail + ` y","filters":{"conditions":[{"field":"phone","operator":"equals","value":"(415) 555-0123"}]},"lead_ids":12345678901234567}}`),
			CreatedAt: micro(time.Now()),
		}
		must(t, s.InsertBulk(t.Context(), b, nil))
		untouched := insertBulk(t, s, nil)
		must(t, s.EraseLead(t.Context(), lead))
		got, err := s.Bulk(t.Context(), b.ID)
		must(t, err)
		request := string(got.Request)
		for _, keep := range []string{"Write to " + annsEmail, "12345678901234567", "x [erased] y", "equals"} {
			if !strings.Contains(request, keep) {
				t.Errorf("%q is missing in %s", keep, request)
			}
		}
		for _, gone := range []string{"Ann.Erased", "555-0123", `["` + annsEmail} {
			if strings.Contains(request, gone) {
				t.Errorf("%q stands in %s", gone, request)
			}
		}
		if got.Criteria.Words[1] != "[erased]" || got.Criteria.Assignees[0] != "keep" || got.Content.Text != b.Content.Text {
			t.Errorf("%+v", got)
		}
		if same, err := s.Bulk(t.Context(), untouched.ID); err != nil || len(same.Request) == 0 {
			t.Errorf("%v", err)
		}
		var criteria string
		must(t, db.QueryRowContext(t.Context(), "SELECT CAST(criteria AS text) FROM bulks WHERE id = $1", b.ID.String()).Scan(&criteria))
		if strings.Contains(criteria, annsEmail) {
			t.Error(criteria)
		}
	})
}

// Of a single and the deletion of its channel at the same time one is refused, and a refused single takes no idempotency key.
func TestFaultSingleBesideTheDeletionOfItsChannel(t *testing.T) {
	eachRaw(t, func(t *testing.T, s *storetest.Store, _ *sql.DB) {
		refused := 0
		for round := range 60 {
			ch := storetest.Channel(t, s, message.SMS)
			id, now, key := newID(), micro(time.Now()), keyed("caller", fmt.Sprint(round), "x")
			var inserted delivery.Inserted
			errs := together(func() (err error) {
				watch := now.Add(time.Hour)
				inserted, err = s.Insert(t.Context(), delivery.Entry{Key: key, Message: &message.Message{
					ID: id, ChannelID: ch.ID, ChannelType: ch.Type, Provider: "twilio", Recipient: annsPhone, MessageType: message.Transactional, NextAttemptAt: &watch,
					Priority: message.High, Content: &message.Content{Text: "x"}, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
				}})
				return err
			}, func() error { return s.DeleteChannel(t.Context(), ch.Key) })
			_, effect := s.Effect(t.Context(), key)
			switch {
			case errs[0] == nil && message.IsCode(errs[1], message.CodeConflict):
				if written(t, s, id) != 1 || effect != nil || inserted.ChannelVersion != ch.Version {
					t.Fatalf("%+v, %v", inserted, effect)
				}
			case message.IsCode(errs[0], message.CodeNotFound) && errs[1] == nil:
				refused++
				if written(t, s, id) != 0 || !message.IsCode(effect, message.CodeNotFound) {
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
	url := testenv.Database(t, testenv.Postgres)
	s, db := open(t, url), raw(t, url)
	b := insertBulk(t, s, nil)
	lease, _ := acquire(t, s, b.ID, time.Minute)
	const lock = 0x4845524c
	for round, doubtful := range []bool{false, true} {
		rows := planned(t, s, 1)
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
		awaitLock(t, db)
		must(t, erasure.Commit())
		must(t, <-page)
		walk, err := s.Walk(t.Context(), b.ID, int64(round), 1)
		must(t, err)
		if walk[0].State.Reason != message.Erased || rows[0].Reason != message.Erased || rows[0].Recipient != "" {
			t.Errorf("addresses in doubt: %t: %+v, told %+v", doubtful, walk, rows)
		}
	}
	lead := saveAnn(t, s)
	page, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer page.Rollback()
	_, err = page.ExecContext(t.Context(), "SELECT pg_advisory_xact_lock_shared($1)", lock)
	must(t, err)
	erased := make(chan error)
	go func() { erased <- s.EraseLead(t.Context(), lead) }()
	awaitLock(t, db)
	must(t, page.Commit())
	must(t, <-erased)
}
