package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// each runs a test on every database: the suite is the contract that both keep.
func each(t *testing.T, test func(t *testing.T, s *storetest.Store)) {
	t.Helper()
	testenv.EachDatabase(t, func(t *testing.T, url string) { test(t, open(t, url)) })
}

func open(t *testing.T, url string) *storetest.Store {
	t.Helper()
	return storetest.Open(t, url, storetest.Options{Sealer: storetest.Sealer(t)})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func TestSchema(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s := storetest.Connect(t, url, storetest.Options{})
		if err := s.CheckSchema(t.Context()); err == nil {
			t.Error("an empty database passes as up to date")
		}
		applied, err := s.Migrate(t.Context())
		must(t, err)
		if len(applied) == 0 {
			t.Error("nothing was applied")
		}
		must(t, s.CheckSchema(t.Context()))
		if again, err := s.Migrate(t.Context()); err != nil || len(again) != 0 {
			t.Errorf("the second time applied %v, %v", again, err)
		}
		status, err := s.MigrationStatus(t.Context())
		must(t, err)
		if len(status) != len(applied) || status[0].AppliedAt == nil {
			t.Errorf("status %+v", status)
		}
	})
}

func insertSingle(t *testing.T, s *storetest.Store, change func(*message.Message)) *message.Message {
	t.Helper()
	now := micro(time.Now())
	watch := now.Add(time.Hour)
	m := &message.Message{
		ID: newID(), ChannelID: newID(), ChannelType: message.SMS, Provider: "twilio", Recipient: "+15550001111", MessageType: message.Transactional,
		Priority: message.High, Content: &message.Content{Text: "Hi", MediaURLs: []string{"https://x.test/a"}}, Metadata: []byte(`{"a": 1}`),
		Status: message.Queued, CreatedAt: now, UpdatedAt: now, NextAttemptAt: &watch,
	}
	if change != nil {
		change(m)
	}
	insert(t, s, delivery.Entry{Message: m})
	return m
}

// ensureChannel inserts a channel where none has the key.
func ensureChannel(t testing.TB, s *storetest.Store, k channel.Key) {
	t.Helper()
	ch := &channel.Channel{Key: k, Provider: "sendgrid", Name: "x", Sender: "x", Currency: "USD", OnUnknown: channel.Hold, State: channel.Active}
	if err := s.InsertChannel(t.Context(), ch); err != nil && !message.IsCode(err, message.CodeConflict) {
		t.Fatal(err)
	}
}

func insert(t *testing.T, s *storetest.Store, e delivery.Entry) delivery.Inserted {
	t.Helper()
	ensureChannel(t, s, channel.Key{ID: e.Message.ChannelID, Type: e.Message.ChannelType})
	inserted, err := s.Insert(t.Context(), e)
	must(t, err)
	return inserted
}

func claim(t *testing.T, s *storetest.Store, id uuid.UUID, ttl time.Duration) (uuid.UUID, bool) {
	t.Helper()
	token := uuid.New()
	ok, err := s.Claim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: ttl})
	must(t, err)
	return token, ok
}

func settle(t *testing.T, s *storetest.Store, o delivery.Outcome) bool {
	t.Helper()
	settled, err := s.Settle(t.Context(), o)
	must(t, err)
	return settled.OK
}

func TestClaimIsExclusiveAndFencesOutcomes(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := insertSingle(t, s, nil)
		token, ok := claim(t, s, m.ID, time.Minute)
		if !ok {
			t.Fatal("a waiting message cannot be claimed")
		}
		if _, ok := claim(t, s, m.ID, time.Minute); ok {
			t.Fatal("claimed twice")
		}
		sentUnder := func(token uuid.UUID) delivery.Outcome {
			r := delivery.Response{Class: delivery.Accepted, ProviderMessageID: "SM1", HTTPStatus: 201}
			return delivery.Row{ID: m.ID, Token: token, Attempt: 1}.Sent(79).WithCall(r, time.Now())
		}
		if settle(t, s, sentUnder(uuid.New())) {
			t.Fatal("an outcome with a foreign token took effect")
		}
		if !settle(t, s, sentUnder(token)) {
			t.Fatal("the owner's outcome did not take effect")
		}
		if settle(t, s, sentUnder(token)) {
			t.Fatal("settled twice")
		}
		got, attempts, err := s.Message(t.Context(), m.ID)
		must(t, err)
		if got.Status != message.Sent || got.ProviderMessageID != "SM1" || got.Cost != 79 || got.SentAt == nil || got.Attempt != 1 || got.NextAttemptAt != nil {
			t.Errorf("row %+v", got)
		}
		var outcomes []string
		for _, a := range attempts {
			outcomes = append(outcomes, a.Outcome)
		}
		slices.Sort(outcomes)
		if !slices.Equal(outcomes, []string{"late", "late", "sent"}) {
			t.Errorf("attempts %v: every outcome that came too late is evidence", outcomes)
		}
	})
}

// A single may be written as claimed, unless its recipient is suppressed. Repeated it is what it was.
func TestASingleIsWrittenWithItsClaim(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		entry := func(recipient string) delivery.Entry {
			now := micro(time.Now())
			m := &message.Message{
				ID: newID(), ChannelID: newID(), ChannelType: message.SMS, Recipient: recipient, MessageType: message.Transactional, Priority: message.High,
				Status: message.Queued, CreatedAt: now, UpdatedAt: now,
			}
			return delivery.Entry{Message: m, Claim: delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}}
		}
		e := entry("+15550001111")
		for range 2 {
			if got := insert(t, s, e); !got.Claimed || got.Suppressed != message.NoReason {
				t.Fatalf("%+v", got)
			}
		}
		l, err := s.Load(t.Context(), e.Message.ID)
		must(t, err)
		if l.Message.Status != message.Sending || l.Message.Attempt != 1 || l.ClaimToken != e.Claim.Token || l.ClaimExpired || l.Message.ClaimedAt == nil {
			t.Errorf("%+v", l)
		}
		if _, ok := claim(t, s, e.Message.ID, time.Minute); ok {
			t.Error("claimed twice")
		}
		if !settle(t, s, delivery.Row{ID: e.Message.ID, Token: e.Claim.Token}.Sent(0)) {
			t.Error("the claim is not in force")
		}
		if got := insert(t, s, entry(e.Message.Recipient)); !got.Claimed {
			t.Error("a second message is not claimed")
		}
		other := e
		other.Claim.Token = uuid.New()
		if got := insert(t, s, other); got.Claimed {
			t.Error("claimed by an insert that came late")
		}

		e = entry("+15550002222")
		hash := message.HashAddress(e.Message.Recipient)
		must(t, s.PutSuppression(t.Context(), &message.Suppression{ID: newID(), Type: message.SMS, Hash: hash, Reason: message.ManuallySuppressed, MessageTypes: message.MessageTypes, CreatedAt: time.Now()}))
		if got := insert(t, s, e); got.Claimed || got.Suppressed != message.ManuallySuppressed {
			t.Errorf("%+v", got)
		}
		if l, err := s.Load(t.Context(), e.Message.ID); err != nil || l.Message.Status != message.Queued || l.Message.Attempt != 0 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

// A claim or an outcome whose answer was lost may be repeated, and changes nothing the second time.
func TestClaimsAndOutcomesMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := insertSingle(t, s, nil)
		insert(t, s, delivery.Entry{Message: m}) // so may the insert
		c := delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}
		for range 2 {
			ok, err := s.Claim(t.Context(), c)
			must(t, err)
			if !ok {
				t.Error("the claim is not its owner's")
			}
		}
		if ok, err := s.Claim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}); ok || err != nil {
			t.Errorf("another took it: %v, %v", ok, err)
		}
		if !settle(t, s, delivery.Row{ID: m.ID, Token: c.Token}.Sent(0)) ||
			settle(t, s, delivery.Row{ID: m.ID, Token: c.Token}.Sent(0)) {
			t.Error("an outcome takes effect once")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Attempt != 1 || l.Message.Status != message.Sent || l.ClaimToken != c.Token {
			t.Errorf("%+v", l.Message)
		}
	})
}

func TestGiveBackRetryAndUnknown(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := insertSingle(t, s, nil)
		token, _ := claim(t, s, m.ID, time.Minute)
		if !settle(t, s, delivery.Row{ID: m.ID, Token: token, Single: true}.Release(message.ProviderUnavailable, time.Hour)) {
			t.Fatal("give back")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Attempt != 0 || l.Message.Status != message.Queued || l.Message.NextAttemptAt == nil || l.ClaimToken != token {
			t.Errorf("after give back: %+v", l.Message)
		}
		token, ok := claim(t, s, m.ID, time.Minute)
		if !ok || !settle(t, s, delivery.Row{ID: m.ID, Token: token}.Unknown(0)) {
			t.Fatal("unknown")
		}
		l, err = s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Unknowns != 1 || l.Message.Attempt != 1 || l.Message.NextAttemptAt != nil {
			t.Errorf("after unknown: %+v", l.Message)
		}
		if _, ok := claim(t, s, m.ID, time.Minute); ok {
			t.Error("a settled message was claimed")
		}
	})
}

func TestPartsKeepTheClaim(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := insertSingle(t, s, nil)
		token, _ := claim(t, s, m.ID, time.Minute)
		first := delivery.Row{ID: m.ID, Token: token, Attempt: 1}.NextPart(time.Minute).
			WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: "mid.1"}, time.Now())
		if !settle(t, s, first) {
			t.Fatal("first part")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Part != 1 || l.Message.Status != message.Sending || l.ClaimToken != token || l.ClaimExpired || l.Message.NextAttemptAt == nil {
			t.Errorf("between the parts: %+v", l)
		}
		if !settle(t, s, delivery.Row{ID: m.ID, Token: token, Attempt: 1, Part: 1}.Sent(0).WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: "mid.2"}, time.Now())) {
			t.Fatal("second part")
		}
		got, attempts, err := s.Message(t.Context(), m.ID)
		must(t, err)
		if got.ProviderMessageID != "mid.2" || len(attempts) != 2 {
			t.Errorf("%s, %d attempts", got.ProviderMessageID, len(attempts))
		}
	})
}

// Many goroutines share statements; each must get its own answer.
func TestGroupedCallsGetTheirOwnAnswers(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n = 60
		var ids []uuid.UUID
		for range n {
			ids = append(ids, insertSingle(t, s, nil).ID)
		}
		type result struct {
			claimed int
			err     error
		}
		results := make(chan result, 2*n)
		for _, id := range append(slices.Clone(ids), ids...) { // each is claimed twice at once
			go func() {
				token := uuid.New()
				ok, err := s.Claim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute})
				if !ok || err != nil {
					results <- result{0, err}
					return
				}
				settled, err := s.Settle(t.Context(), delivery.Row{ID: id, Token: token}.Sent(0).WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: id.String()}, time.Now()))
				if !settled.OK {
					results <- result{0, err}
					return
				}
				results <- result{1, err}
			}()
		}
		claimed := 0
		for range 2 * n {
			r := <-results
			must(t, r.err)
			claimed += r.claimed
		}
		if claimed != n {
			t.Errorf("%d claims of %d messages succeeded", claimed, n)
		}
		for _, id := range ids {
			l, err := s.Load(t.Context(), id)
			must(t, err)
			if l.Message.ProviderMessageID != id.String() {
				t.Fatalf("%s has the outcome of %s", id, l.Message.ProviderMessageID)
			}
		}
	})
}

func TestDueFindsForgottenMessages(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		past := micro(time.Now().Add(-time.Minute))
		queued := insertSingle(t, s, func(m *message.Message) { m.NextAttemptAt = &past })
		insertSingle(t, s, nil) // not due
		dead := insertSingle(t, s, func(m *message.Message) { m.NextAttemptAt = &past })
		if _, ok := claim(t, s, dead.ID, -time.Second); !ok {
			t.Fatal("claim")
		}
		due, err := s.Due(t.Context(), 10, time.Hour)
		must(t, err)
		got := map[uuid.UUID]bool{}
		for _, d := range due {
			got[d.ID] = d.Sending
		}
		if d := cmp.Diff(map[uuid.UUID]bool{queued.ID: false, dead.ID: true}, got); d != "" {
			t.Error(d)
		}
		l, err := s.Load(t.Context(), queued.ID)
		must(t, err)
		if l.Message.Generation != 0 {
			t.Errorf("generation %d: a message that waits keeps its task id", l.Message.Generation)
		}
		l, err = s.Load(t.Context(), dead.ID)
		must(t, err)
		if !l.ClaimExpired {
			t.Error("the expired claim does not show")
		}
		if again, err := s.Due(t.Context(), 10, time.Hour); err != nil || len(again) != 0 {
			t.Errorf("due twice: %v, %v", again, err)
		}
	})
}

func insertBulk(t *testing.T, s *storetest.Store, ids []uuid.UUID) *bulk.Bulk {
	t.Helper()
	b := &bulk.Bulk{
		ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, Provider: "sendgrid", MessageType: message.Marketing,
		Priority: message.Normal, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: ids},
		Request: []byte(`{"a": 1}`), Status: bulk.Processing, CreatedAt: micro(time.Now()),
	}
	must(t, s.InsertBulk(t.Context(), b, nil))
	return b
}

func acquire(t *testing.T, s *storetest.Store, id uuid.UUID, ttl time.Duration) (bulk.Lease, *bulk.Bulk) {
	t.Helper()
	l := bulk.Lease{BulkID: id, Token: uuid.New()}
	b, err := s.Acquire(t.Context(), l, ttl)
	must(t, err)
	return l, b
}

func TestLease(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ids := []uuid.UUID{newID(), newID()}
		b := insertBulk(t, s, ids)
		running, err := s.Running(ctx, uuid.Nil)
		must(t, err)
		if len(running) != 1 || running[0] != (bulk.Running{ID: b.ID, Channel: b.Channel, Priority: b.Priority, Free: true, Due: true, Accepted: b.CreatedAt}) {
			t.Errorf("running %v", running)
		}
		lease, got := acquire(t, s, b.ID, time.Minute)
		if !slices.Equal(got.Criteria.LeadIDs, ids) || got.StartedAt == nil || got.Content.Subject != "s" {
			t.Errorf("acquired %+v", got)
		}
		if running, err := s.Running(ctx, lease.Token); err != nil || len(running) != 1 || running[0].Free || !running[0].Mine {
			t.Errorf("a held bulk is free: %v, %v", running, err)
		}
		if running, err := s.Running(ctx, uuid.New()); err != nil || len(running) != 1 || running[0].Mine {
			t.Errorf("a bulk that another holds: %v, %v", running, err)
		}
		if _, err := s.Acquire(ctx, bulk.Lease{BulkID: b.ID, Token: uuid.New()}, time.Minute); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("acquired twice: %v", err)
		}
		held, err := s.Renew(ctx, lease.Token, -time.Second) // it has run out now
		must(t, err)
		if !slices.Equal(held, []uuid.UUID{b.ID}) {
			t.Errorf("renewed %v", held)
		}
		_, _ = acquire(t, s, b.ID, time.Minute)
		if held, err := s.Renew(ctx, lease.Token, time.Minute); err != nil || len(held) != 0 {
			t.Errorf("renewed a lease that another has: %v, %v", held, err)
		}
		for name, err := range map[string]error{
			"release": s.Release(ctx, lease, 0),
			"advance": s.Advance(ctx, lease, 1, 0),
			"add":     s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b}),
		} {
			if err != bulk.ErrLeaseLost { //nolint:errorlint // the contract names the value
				t.Errorf("%s under a lost lease: %v", name, err)
			}
		}
	})
}

// planned returns rows for new leads.
func planned(t testing.TB, s *storetest.Store, n int) []bulk.PlannedRow {
	t.Helper()
	rows := make([]bulk.PlannedRow, n)
	for i := range rows {
		address := newID().String() + "@example.com"
		rows[i] = bulk.PlannedRow{ID: newID(), LeadID: newID(), Recipient: address, Hash: message.HashAddress(address), Dedupe: true, Status: message.Pending}
	}
	saveLeadsOf(t, s, rows)
	return rows
}

// saveLeadsOf inserts the leads that rows of a plan are for.
func saveLeadsOf(t testing.TB, s *storetest.Store, rows []bulk.PlannedRow) {
	t.Helper()
	leads := make([]message.Lead, len(rows))
	for i := range rows {
		leads[i] = message.Lead{ID: rows[i].LeadID, Email: rows[i].Recipient, CreatedAt: time.Now(), UpdatedAt: time.Now()}
	}
	must(t, s.InsertLeads(t.Context(), leads))
}

func TestPlanFeedAndFinish(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
		rows := planned(t, s, 3)
		rows[1] = bulk.PlannedRow{ID: newID(), LeadID: rows[1].LeadID, Status: message.Skipped, Reason: message.NoRecipient}
		page := bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows, Cursor: "3", NotFound: 2}
		must(t, s.AddPage(ctx, page))
		if err := s.AddPage(ctx, page); err != bulk.ErrLeaseLost { //nolint:errorlint // the contract names the value
			t.Errorf("the same page again: %v", err)
		}
		duplicate := rows[0]
		duplicate.ID, duplicate.LeadID = newID(), newID()
		saveLeadsOf(t, s, []bulk.PlannedRow{duplicate})
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Rows: []bulk.PlannedRow{duplicate}, Cursor: "4", Done: true}))
		if last, err := s.Walk(ctx, b.ID, 3, 1); err != nil || last[0].State.Status != message.Skipped || last[0].State.Reason != message.DuplicateRecipient {
			t.Errorf("a second message to the same address: %+v, %v", last, err)
		}
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		if got.Total != 4 || !got.Planned || got.NotFound != 2 || got.PlanCursor != "4" {
			t.Errorf("bulk %+v", got)
		}

		walk, err := s.Walk(ctx, b.ID, 1, 10)
		must(t, err)
		if len(walk) != 3 || walk[0].State.Seq != 1 || walk[0].State.Reason != message.NoRecipient || walk[1].State.Status != message.Pending {
			t.Errorf("walk %+v", walk)
		}
		must(t, s.Advance(ctx, lease, 4, 2))
		must(t, s.Advance(ctx, lease, 3, 1)) // never back
		got, err = s.Bulk(ctx, b.ID)
		must(t, err)
		if got.FeedSeq != 4 || got.SettledSeq != 2 {
			t.Errorf("cursors %d %d", got.FeedSeq, got.SettledSeq)
		}

		if done, err := s.Finish(ctx, b.ID); done || err != nil {
			t.Errorf("finished with open messages: %v, %v", done, err)
		}
		for i, outcome := range []func(delivery.Row) delivery.Outcome{
			func(r delivery.Row) delivery.Outcome { return r.Sent(5) },
			func(r delivery.Row) delivery.Outcome { return r.Unknown(time.Hour) },
		} {
			token, _ := claim(t, s, rows[2*i].ID, time.Minute)
			if !settle(t, s, outcome(delivery.Row{ID: rows[2*i].ID, Token: token})) {
				t.Fatal("settle")
			}
		}
		if done, err := s.Finish(ctx, b.ID); done || err != nil {
			t.Errorf("finished with an UNKNOWN message that will be sent again: %v, %v", done, err)
		}
		due, err := s.Due(ctx, 10, time.Hour)
		must(t, err)
		if len(due) != 0 {
			t.Errorf("due before its time: %v", due)
		}
		l, err := s.Load(ctx, rows[2].ID)
		must(t, err)
		if l.Message.Status != message.Unknown || l.Message.BulkID != b.ID || l.Message.Seq != 2 {
			t.Errorf("waiting %+v", l.Message)
		}
	})
}

func TestFinishKeepsTheCounts(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
		rows := planned(t, s, 3)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows, Done: true}))
		refusal := &message.Failure{Code: "21211", Text: "no such number"}
		for i, outcome := range []func(delivery.Row) delivery.Outcome{
			func(r delivery.Row) delivery.Outcome { return r.Sent(1000) },
			func(r delivery.Row) delivery.Outcome { return r.Sent(500) },
			func(r delivery.Row) delivery.Outcome { return r.Failed(message.RecipientRefused, refusal) },
		} {
			token, _ := claim(t, s, rows[i].ID, time.Minute)
			settle(t, s, outcome(delivery.Row{ID: rows[i].ID, Token: token}))
		}
		done, err := s.Finish(ctx, b.ID)
		must(t, err)
		again, err := s.Finish(ctx, b.ID)
		must(t, err)
		if !done || !again {
			t.Error("not finished")
		}
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		tally, err := s.Tally(ctx, b.ID)
		must(t, err)
		if got.Status != bulk.Completed || got.CompletedAt == nil || got.Final == nil || got.Final.Settled() != 3 || got.Final.Cost != 1500 {
			t.Errorf("bulk %+v %+v", got, got.Final)
		}
		if d := cmp.Diff(*got.Final, tally); d != "" {
			t.Error(d)
		}
		if _, err := s.Acquire(ctx, bulk.Lease{BulkID: b.ID, Token: uuid.New()}, time.Minute); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("a finished bulk was acquired: %v", err)
		}
		list, err := s.Bulks(ctx, uuid.Nil, 10)
		must(t, err)
		if len(list) != 1 || list[0].Criteria.LeadIDs != nil {
			t.Errorf("list %+v", list)
		}
	})
}

func TestMessagesAreFiltered(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		lead := newID()
		a := insertSingle(t, s, func(m *message.Message) { m.LeadID = lead })
		b := insertSingle(t, s, func(m *message.Message) { m.ChannelType, m.Recipient = message.Email, "x@example.com" })
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

func TestResolveByIDs(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		now := micro(time.Now())
		var leads []message.Lead
		var ids []uuid.UUID
		for i := range 5 {
			l := message.Lead{ID: newID(), Email: string(rune('a'+i)) + "@example.com", Phone: "1", CreatedAt: now, UpdatedAt: now}
			leads, ids = append(leads, l), append(ids, l.ID)
		}
		must(t, s.InsertLeads(ctx, leads))
		c := &audience.Criteria{LeadIDs: append(ids, newID())} // the last one is nobody's
		var found []audience.Candidate
		var missing int64
		for cursor, done := "", false; !done; {
			page, err := s.Resolve(ctx, c, message.Email, cursor, 2)
			must(t, err)
			found = append(found, page.Candidates...)
			missing += page.NotFound
			cursor, done = page.Next, page.Done
		}
		if len(found) != 5 || missing != 1 || found[0].LeadID != ids[0] || found[0].Address != "a@example.com" {
			t.Errorf("found %v, missing %d", found, missing)
		}
	})
}

func TestOpenRefusesStrangeURLs(t *testing.T) {
	for _, u := range []string{"", "mysql://x", "/tmp/x.db"} {
		if _, err := store.Open(context.Background(), u, store.Options{}); err == nil {
			t.Errorf("%q opens", u)
		}
	}
}

// Take claims a message that it loads, unless something refuses or delays it, and claims it for one of several.
func TestTakeClaimsWhatNothingDelays(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ch := &channel.Channel{Key: channel.Key{ID: newID(), Type: message.SMS}, Provider: "twilio", Name: "x", Sender: "+15550000000", Currency: "USD", OnUnknown: channel.Hold, State: channel.Active}
		must(t, s.InsertChannel(t.Context(), ch))
		b := insertBulk(t, s, nil)
		seq := int64(0)
		put := func(change func(*message.Message)) *message.Message {
			seq++
			l := message.Lead{ID: newID(), FirstName: "Ann", Tags: []string{"vip"}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
			must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
			return insertSingle(t, s, func(m *message.Message) {
				m.ChannelID, m.BulkID, m.LeadID, m.Seq, m.Recipient = ch.ID, b.ID, l.ID, seq, fmt.Sprintf("+1555000%04d", seq)
				if change != nil {
					change(m)
				}
			})
		}
		take := func(id uuid.UUID, token uuid.UUID) delivery.Loaded {
			t.Helper()
			l, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute, Most: 2})
			must(t, err)
			return l
		}
		m, token := put(nil), uuid.New()
		for range 2 { // the answer may have been lost
			l := take(m.ID, token)
			if !l.Claimed || l.Message.Attempt != 1 || l.Message.Recipient != m.Recipient || l.Message.Status != message.Sending || l.Message.BulkID != b.ID {
				t.Fatalf("%+v", l)
			}
			if l.ClaimToken != token || l.Lead == nil || l.Lead.ID != m.LeadID || l.Lead.FirstName != "Ann" || len(l.Lead.Tags) != 1 {
				t.Fatalf("%+v", l)
			}
		}
		if l := take(m.ID, uuid.New()); l.Claimed || l.Message.Status != message.Sending {
			t.Errorf("claimed twice: %+v", l)
		}
		if !settle(t, s, delivery.Row{ID: m.ID, Token: token, Single: true}.Release("", 0)) {
			t.Error("the claim is not in force")
		}
		var wg sync.WaitGroup
		var won atomic.Int32
		for range 20 {
			wg.Go(func() {
				if l, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute, Most: 2}); err == nil && l.Claimed {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 20 hold the claim", won.Load())
		}

		tried := put(nil)
		for range 2 {
			token, _ := claim(t, s, tried.ID, time.Minute)
			settle(t, s, delivery.Row{ID: tried.ID, Token: token, Single: true}.Retry("", 0))
		}
		suppressed := put(func(m *message.Message) { m.Recipient = "+15550002222" })
		hash := message.HashAddress(suppressed.Recipient)
		must(t, s.PutSuppression(t.Context(), &message.Suppression{ID: newID(), Type: message.SMS, Hash: hash, Reason: message.ManuallySuppressed, MessageTypes: message.MessageTypes, CreatedAt: time.Now()}))
		waiting := put(nil)
		orphan := put(func(m *message.Message) { m.ChannelID, m.NextAttemptAt = newID(), nil })
		must(t, s.DeleteChannel(t.Context(), channel.Key{ID: orphan.ChannelID, Type: orphan.ChannelType}))
		suspect := put(nil)
		must(t, s.Suspect(t.Context(), suspect.ID, message.Suspected))
		for name, c := range map[string]struct {
			id    uuid.UUID
			state channel.State
			rate  float64
		}{
			"tried too often": {tried.ID, channel.Active, 0}, "suppressed": {suppressed.ID, channel.Active, 0},
			"its channel is paused": {waiting.ID, channel.Paused, 0}, "its channel has a rate": {waiting.ID, channel.Active, 5},
			"without a channel": {orphan.ID, channel.Active, 0}, "a suspect": {suspect.ID, channel.Active, 0},
			"without its lead": {put(func(m *message.Message) { m.LeadID = newID() }).ID, channel.Active, 0},
			"a single":         {put(func(m *message.Message) { m.BulkID, m.LeadID = uuid.Nil, uuid.Nil }).ID, channel.Active, 0},
		} {
			_, err := s.UpdateChannel(t.Context(), ch.Key, func(ch *channel.Channel) error {
				ch.State, ch.RatePerSecond = c.state, c.rate
				return nil
			})
			must(t, err)
			l := take(c.id, uuid.New())
			if l.Claimed || l.Message.Status != message.Queued || l.Held != (c.state == channel.Paused) || (l.Suppressed != message.NoReason) != (name == "suppressed") {
				t.Errorf("%s: %+v", name, l)
			}
		}
		if _, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: newID(), Token: uuid.New(), TTL: time.Minute, Most: 2}); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("nothing is taken: %v", err)
		}
	})
}
