package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/stats"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func move(t *testing.T, s *storetest.Store, b *bulk.Bulk, to bulk.Status) {
	t.Helper()
	must(t, s.Move(t.Context(), b.ID, []bulk.Status{bulk.Processing, bulk.Paused}, to))
}

func skipped(n int) []bulk.PlannedRow {
	rows := make([]bulk.PlannedRow, n)
	for i := range rows {
		rows[i] = bulk.PlannedRow{ID: newID(), LeadID: newID(), Status: message.Skipped, Reason: message.NoRecipient}
	}
	return rows
}

func TestLease(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ids := []uuid.UUID{newID(), newID()}
		b := storetest.InsertBulk(t, s, ids)
		running, err := s.Running(ctx, uuid.Nil)
		must(t, err)
		if len(running) != 1 || running[0] != (bulk.Running{ID: b.ID, Channel: b.Channel, Priority: b.Priority, Free: true, Due: true, Accepted: b.CreatedAt}) {
			t.Errorf("running %v", running)
		}
		lease, got := storetest.Acquire(t, s, b.ID, time.Minute)
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
		_, _ = storetest.Acquire(t, s, b.ID, time.Minute)
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

func TestPlanFeedAndFinish(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		rows := storetest.PlannedRows(t, s, 3)
		rows[1] = bulk.PlannedRow{ID: newID(), LeadID: rows[1].LeadID, Status: message.Skipped, Reason: message.NoRecipient}
		page := bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows, Cursor: "3", NotFound: 2}
		must(t, s.AddPage(ctx, page))
		if got, err := s.Bulk(ctx, b.ID); err != nil || got.PlannedAt != nil {
			t.Errorf("planned at %v before the last page, %v", got.PlannedAt, err)
		}
		if err := s.AddPage(ctx, page); err != bulk.ErrLeaseLost { //nolint:errorlint // the contract names the value
			t.Errorf("the same page again: %v", err)
		}
		duplicate := rows[0]
		duplicate.ID, duplicate.LeadID = newID(), newID()
		storetest.InsertLeadsOf(t, s, []bulk.PlannedRow{duplicate})
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Rows: []bulk.PlannedRow{duplicate}, Cursor: "4", Done: true}))
		if last, err := s.Walk(ctx, b.ID, 3, 1); err != nil || last[0].State.Status != message.Skipped || last[0].State.Reason != message.DuplicateRecipient {
			t.Errorf("a second message to the same address: %+v, %v", last, err)
		}
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		if got.Total != 4 || !got.Planned || got.NotFound != 2 || got.PlanCursor != "4" || got.PlannedAt == nil || got.PlannedAt.Before(b.CreatedAt) {
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
			token, _ := storetest.Claim(t, s, rows[2*i].ID, time.Minute)
			if !storetest.Settle(t, s, outcome(delivery.Row{ID: rows[2*i].ID, Token: token})) {
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
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		rows := storetest.PlannedRows(t, s, 3)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows, Done: true}))
		refusal := &message.Failure{Code: "21211", Text: "no such number"}
		for i, outcome := range []func(delivery.Row) delivery.Outcome{
			func(r delivery.Row) delivery.Outcome { return r.Sent(1000) },
			func(r delivery.Row) delivery.Outcome { return r.Sent(500) },
			func(r delivery.Row) delivery.Outcome { return r.Failed(message.RecipientRefused, refusal) },
		} {
			token, _ := storetest.Claim(t, s, rows[i].ID, time.Minute)
			storetest.Settle(t, s, outcome(delivery.Row{ID: rows[i].ID, Token: token}))
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
		list, err := s.Bulks(ctx, bulk.Filter{}, uuid.Nil, 10)
		must(t, err)
		if len(list) != 1 || list[0].Criteria.LeadIDs != nil {
			t.Errorf("list %+v", list)
		}
	})
}

// A paused bulk is neither acquired, finished, abandoned nor renewed. After its resume it runs.
func TestFaultAPausedBulkStandsStill(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: skipped(2), Done: true}))
		move(t, s, b, bulk.Paused)
		other := bulk.Lease{BulkID: b.ID, Token: uuid.New()}
		if _, err := s.Acquire(ctx, other, time.Minute); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("a paused bulk was acquired: %v", err)
		}
		if done, err := s.Finish(ctx, b.ID); done || err != nil {
			t.Errorf("a paused bulk was finished: %v", err)
		}
		if err := s.Abandon(ctx, lease, "x"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("a paused bulk was abandoned: %v", err)
		}
		if held, err := s.Renew(ctx, lease.Token, time.Minute); err != nil || len(held) != 0 {
			t.Errorf("renewed %v %v", held, err)
		}
		if running, err := s.Running(ctx, lease.Token); err != nil || len(running) != 0 {
			t.Errorf("running %v %v", running, err)
		}
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		if got.Status != bulk.Paused || got.Final != nil {
			t.Errorf("%+v", got)
		}
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Paused}, bulk.Processing))
		if done, err := s.Finish(ctx, b.ID); !done || err != nil {
			t.Errorf("not finished: %v", err)
		}
	})
}

// A bulk that is not planned does not end, unless it is cancelled: then its rows are its audience.
func TestFinishNeedsThePlan(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: skipped(2)}))
		if done, err := s.Finish(ctx, b.ID); done || err != nil {
			t.Errorf("finished without its plan: %v", err)
		}
		move(t, s, b, bulk.Cancelled)
		if err := s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 2, Rows: skipped(1)}); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("a cancelled bulk was added to: %v", err)
		}
		if done, err := s.Finish(ctx, b.ID); !done || err != nil {
			t.Errorf("not finished: %v", err)
		}
		if got, err := s.Bulk(ctx, b.ID); err != nil || got.Status != bulk.Cancelled || got.Final.Settled() != 2 {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// One statement renews all leases of a token, and tells which are left.
func TestFaultOneStatementRenewsAllLeases(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		token := uuid.New()
		var bulks []*bulk.Bulk
		for range 5 {
			b := storetest.InsertBulk(t, s, nil)
			_, err := s.Acquire(ctx, bulk.Lease{BulkID: b.ID, Token: token}, time.Minute)
			must(t, err)
			bulks = append(bulks, b)
		}
		foreign := storetest.InsertBulk(t, s, nil)
		_, _ = storetest.Acquire(t, s, foreign.ID, time.Minute)
		move(t, s, bulks[0], bulk.Paused)
		move(t, s, bulks[1], bulk.Cancelled)
		must(t, s.Release(ctx, bulk.Lease{BulkID: bulks[2].ID, Token: token}, time.Hour))
		held, err := s.Renew(ctx, token, -time.Second) // they have run out now
		must(t, err)
		slices.SortFunc(held, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		if !slices.Equal(held, []uuid.UUID{bulks[3].ID, bulks[4].ID}) {
			t.Errorf("held %v", held)
		}
		_, _ = storetest.Acquire(t, s, bulks[3].ID, time.Minute) // another's
		if held, err = s.Renew(ctx, token, time.Minute); err != nil || !slices.Equal(held, []uuid.UUID{bulks[4].ID}) {
			t.Errorf("held %v, %v", held, err)
		}
		must(t, s.ReleaseAll(ctx, token))
		running, err := s.Running(ctx, token)
		must(t, err)
		for _, b := range running {
			if want := b.ID != foreign.ID && b.ID != bulks[3].ID; b.Free != want || b.Mine {
				t.Errorf("%+v", b)
			}
			if want := b.ID != bulks[2].ID; b.Due != want {
				t.Errorf("due: %+v", b)
			}
		}
		if len(running) != 5 {
			t.Errorf("%d are running", len(running))
		}
	})
}

// What a runner reads of bulks that wait is bounded for each channel, in the order of their turns, and says what is to be done.
func TestFaultALookIsBounded(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		token := uuid.New()
		const n = 70
		first := storetest.InsertBulk(t, s, nil)
		ids := []uuid.UUID{first.ID}
		for range n - 1 { // over the same channel
			b := *first
			b.ID = newID()
			must(t, s.InsertBulk(ctx, &b, nil))
			ids = append(ids, b.ID)
		}
		for i, id := range ids[:3] { // they have had a turn, the first of them last
			_, err := s.Acquire(ctx, bulk.Lease{BulkID: id, Token: token}, time.Minute)
			must(t, err)
			must(t, s.Release(ctx, bulk.Lease{BulkID: id, Token: token}, -time.Duration(i+1)*time.Minute))
		}
		mine := bulk.Lease{BulkID: ids[n-1], Token: token}
		b, err := s.Acquire(ctx, mine, time.Minute)
		must(t, err)
		rows := storetest.PlannedRows(t, s, 2)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: mine, Bulk: b, Rows: rows, Done: true}))
		must(t, s.Advance(ctx, mine, 1, 0))
		running, err := s.Running(ctx, token)
		must(t, err)
		byID := map[uuid.UUID]bulk.Running{}
		for _, r := range running {
			byID[r.ID] = r
		}
		for _, id := range ids[:64] {
			if r, ok := byID[id]; !ok || !r.Free || !r.Due || r.Planned || r.Unfed || r.Open || r.Mine {
				t.Errorf("%+v %v", r, ok)
			}
		}
		if r := byID[ids[n-1]]; r.Free || !r.Mine || !r.Planned || !r.Unfed || !r.Open {
			t.Errorf("with a lease: %+v", r)
		}
		if len(running) != 1+64+3 {
			t.Errorf("%d bulks are read", len(running))
		}
		if a, b := byID[ids[0]].TurnAt, byID[ids[2]].TurnAt; !b.Before(a) || b.IsZero() || !byID[ids[5]].TurnAt.IsZero() {
			t.Errorf("turns %v %v", a, b)
		}
	})
}

// Only the process that has the lease abandons a bulk, and only before its plan is made.
func TestFaultAbandonCancelsWithAReason(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		if err := s.Abandon(ctx, bulk.Lease{BulkID: b.ID, Token: uuid.New()}, "x"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("abandoned by another: %v", err)
		}
		must(t, s.Abandon(ctx, lease, "too slow"))
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		if got.Status != bulk.Cancelled || got.StatusReason != "too slow" || got.Final != nil {
			t.Errorf("%+v", got)
		}
		whole := storetest.InsertBulk(t, s, nil)
		lease, _ = storetest.Acquire(t, s, whole.ID, time.Minute)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: whole, Rows: skipped(1), Done: true}))
		if err := s.Abandon(ctx, lease, "x"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("abandoned with its plan made: %v", err)
		}
	})
}

// A page that needs a look-up for duplicates, one that needs none, and one without rows are each written whole or not at all.
func TestAPageIsWrittenWhole(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		first := storetest.PlannedRows(t, s, 3)
		for i := range first {
			first[i].FirstSeen = true
		}
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: first, Cursor: "1", NotFound: 1}))
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Cursor: "2"}))
		again := storetest.PlannedRows(t, s, 2)
		again[0].Hash, again[0].Recipient = first[1].Hash, first[1].Recipient
		for _, stale := range []bulk.PlanPage{
			{Lease: lease, Bulk: b, Base: 2, Rows: storetest.PlannedRows(t, s, 1)},
			{Lease: bulk.Lease{BulkID: b.ID, Token: uuid.New()}, Bulk: b, Base: 3, Rows: again},
		} {
			if err := s.AddPage(ctx, stale); !errors.Is(err, bulk.ErrLeaseLost) {
				t.Errorf("a stale page: %v", err)
			}
		}
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Rows: again, Cursor: "3", NotFound: 2, Done: true}))
		if err := s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 5, Rows: storetest.PlannedRows(t, s, 1)}); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("a page after the last: %v", err)
		}
		rows, err := s.Walk(ctx, b.ID, 0, 10)
		must(t, err)
		var marks []stats.MessageState
		for _, r := range rows {
			marks = append(marks, r.State)
		}
		if len(rows) != 5 || marks[3].Reason != message.DuplicateRecipient || marks[4].Status != message.Pending {
			t.Errorf("%+v", marks)
		}
		if got, err := s.Bulk(ctx, b.ID); err != nil || got.Total != 5 || got.NotFound != 3 || got.PlanCursor != "3" || !got.Planned {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// A suppression stops exactly the message types and the channel type that it names, for every reason.
func TestSuppressedByTypeAndReason(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		type stop struct {
			channel message.ChannelType
			typ     message.MessageType
			reason  message.Reason
		}
		var stops []stop
		hashOf := func(c stop) message.Hash {
			return message.HashAddress(string(c.channel) + string(c.typ) + string(c.reason))
		}
		for _, channel := range []message.ChannelType{message.Email, message.SMS} {
			for _, typ := range message.MessageTypes {
				for _, reason := range message.SuppressionReasons {
					stops = append(stops, stop{channel, typ, reason})
				}
			}
		}
		hashes := []message.Hash{message.HashAddress("not suppressed")}
		for _, c := range stops {
			hashes = append(hashes, hashOf(c))
			must(t, s.PutSuppression(t.Context(), &message.Suppression{
				ID: newID(), Type: c.channel, Hash: hashOf(c), Reason: c.reason, MessageTypes: []message.MessageType{c.typ}, CreatedAt: time.Now(),
			}))
		}
		for _, channel := range []message.ChannelType{message.Email, message.SMS, message.InstagramDM} {
			for _, typ := range message.MessageTypes {
				want := map[message.Hash]message.Reason{}
				for _, c := range stops {
					if c.channel == channel && c.typ == typ {
						want[hashOf(c)] = c.reason
					}
				}
				got, err := s.Suppressed(t.Context(), channel, typ, hashes)
				must(t, err)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s %s: %s", channel, typ, d)
				}
			}
		}
	})
}

// Of several reasons for one address the plan shows the last in the order of their names, on both databases.
func TestOneOfSeveralReasons(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		hash := message.HashAddress("ann@example.com")
		for _, reason := range []message.Reason{message.Unsubscribed, message.SuppressedBounce, message.Complained} {
			must(t, s.PutSuppression(t.Context(), &message.Suppression{ID: newID(), Type: message.Email, Hash: hash, Reason: reason, MessageTypes: message.MessageTypes, CreatedAt: time.Now()}))
		}
		got, err := s.Suppressed(t.Context(), message.Email, message.Marketing, []message.Hash{hash})
		must(t, err)
		if got[hash] != message.Unsubscribed {
			t.Errorf("shows %s", got[hash])
		}
	})
}

// A row that does not claim its address, such as one of a suppressed recipient, does not make a later row a duplicate.
func TestOnlyTheFirstOfAnAddressCounts(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		b, other := storetest.InsertBulk(t, s, nil), storetest.InsertBulk(t, s, nil)
		rows := storetest.PlannedRows(t, s, 4)
		for i := range rows {
			rows[i].Recipient, rows[i].Hash = rows[0].Recipient, rows[0].Hash
		}
		rows[0].Dedupe, rows[0].Status, rows[0].Reason = false, message.Skipped, message.Unsubscribed
		foreign, _ := storetest.Acquire(t, s, other.ID, time.Minute)
		must(t, s.AddPage(t.Context(), bulk.PlanPage{Lease: foreign, Bulk: other, Rows: rows[3:]}))
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		for i, want := range []message.Status{message.Skipped, message.Pending, message.Skipped} {
			must(t, s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: b, Base: int64(i), Rows: rows[i : i+1]}))
			walk, err := s.Walk(t.Context(), b.ID, int64(i), 1)
			must(t, err)
			if len(walk) != 1 || walk[0].State.Status != want {
				t.Errorf("row %d: %+v, want %s", i, walk, want)
			}
		}
	})
}

// Rows of erased leads have no address, so any number of them fits into one page.
func TestAPageOfErasedLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		b := storetest.InsertBulk(t, s, nil)
		lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
		rows := storetest.PlannedRows(t, s, 3)
		for _, r := range rows[:2] {
			must(t, s.EraseLead(t.Context(), r.LeadID))
		}
		must(t, s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: b, Rows: rows}))
		walk, err := s.Walk(t.Context(), b.ID, 0, 10)
		must(t, err)
		if len(walk) != 3 || walk[0].State.Reason != message.Erased || walk[1].State.Reason != message.Erased || walk[2].State.Status != message.Pending {
			t.Errorf("%+v", walk)
		}
		for i, want := range []int64{1, 2, 0} {
			if row := rowOf(t, s, rows[i].ID); row.Copy != want || (row.AddressHash == nil) != (i < 2) {
				t.Errorf("row %d: copy %d, address %x", i, row.Copy, row.AddressHash)
			}
		}
	})
}

// Cancel ends the messages that wait. One that may have been delivered ends UNKNOWN; others keep their state.
func TestCancelEndsWhatWaits(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := store.Stamp(time.Now())
		type state struct {
			status         message.Status
			reason         message.Reason
			unknowns, part int
			waits          bool
		}
		var ids []uuid.UUID
		want := map[uuid.UUID]state{}
		for _, c := range []struct{ before, after state }{
			{state{message.Scheduled, "", 0, 0, true}, state{message.Cancelled, message.WasCancelled, 0, 0, false}},
			{state{message.Pending, "", 0, 0, false}, state{message.Cancelled, message.WasCancelled, 0, 0, false}},
			{state{message.Queued, "", 0, 0, true}, state{message.Cancelled, message.WasCancelled, 0, 0, false}},
			{state{message.Pending, "", 1, 0, false}, state{message.Unknown, message.WasCancelled, 1, 0, false}},
			{state{message.Pending, "", 0, 1, true}, state{message.Unknown, message.WasCancelled, 0, 1, false}},
			{state{message.Unknown, message.UnknownOutcome, 1, 0, true}, state{message.Unknown, message.UnknownOutcome, 1, 0, false}},
			{state{message.Sending, "", 0, 0, true}, state{message.Sending, "", 0, 0, true}},
			{state{message.Sent, "", 0, 1, false}, state{message.Sent, "", 0, 1, false}},
		} {
			m := storetest.InsertSingle(t, s, nil)
			columns := map[string]any{"status": string(c.before.status), "reason": string(c.before.reason), "unknowns": c.before.unknowns, "part": c.before.part, "next_attempt_at": nil}
			if c.before.waits {
				columns["next_attempt_at"] = now.Add(time.Hour)
			}
			setRow(t, s, m.ID, columns)
			ids, want[m.ID] = append(ids, m.ID), c.after
		}
		other := storetest.InsertSingle(t, s, nil)
		must(t, s.Cancel(t.Context(), ids))
		for id, w := range want {
			row := rowOf(t, s, id)
			if got := (state{message.Status(row.Status), message.Reason(row.Reason), row.Unknowns, row.Part, row.NextAttemptAt != nil}); got != w {
				t.Errorf("%+v, want %+v", got, w)
			}
		}
		if row := rowOf(t, s, other.ID); row.Status != string(message.Queued) {
			t.Errorf("another message became %s", row.Status)
		}
	})
}

// What Running, Acquire and Renew say and change of one bulk, as it is planned, fed and finished.
func TestABulkUnderItsLease(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ids := []uuid.UUID{newID()}
		b := storetest.InsertBulk(t, s, ids)
		token := uuid.New()
		expect := func(change func(*bulk.Running)) {
			t.Helper()
			want := bulk.Running{ID: b.ID, Channel: b.Channel, Priority: b.Priority, Due: true, Mine: true, Accepted: b.CreatedAt}
			change(&want)
			running, err := s.Running(ctx, token)
			must(t, err)
			if d := cmp.Diff([]bulk.Running{want}, running, near); d != "" {
				t.Error(d)
			}
		}
		lease := bulk.Lease{BulkID: b.ID, Token: token}
		first, err := s.Acquire(ctx, lease, time.Minute)
		must(t, err)
		started := time.Now().Add(-time.Hour)
		must(t, s.WithContext(ctx).Exec("UPDATE bulks SET started_at = ? WHERE id = ?", store.Stamp(started), b.ID).Error)
		expect(func(*bulk.Running) {})
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: storetest.PlannedRows(t, s, 3), Done: true}))
		expect(func(r *bulk.Running) { r.Planned, r.Unfed = true, true })
		must(t, s.Advance(ctx, lease, 3, 2))
		expect(func(r *bulk.Running) { r.Planned, r.Open = true, true })
		must(t, s.Advance(ctx, lease, 3, 3))
		must(t, s.Advance(ctx, lease, 2, 2)) // cursors never go back
		expect(func(r *bulk.Running) { r.Planned = true })
		must(t, s.Release(ctx, lease, time.Hour))
		turn := time.Now().Add(time.Hour)
		expect(func(r *bulk.Running) { r.Planned, r.Free, r.Mine, r.Due, r.TurnAt = true, true, false, false, turn })
		second, err := s.Acquire(ctx, lease, time.Minute)
		must(t, err)
		if len(first.Criteria.LeadIDs) != 1 || second.Criteria.LeadIDs != nil || second.SettledSeq != 3 || second.StartedAt == nil || time.Since(*second.StartedAt) < time.Minute {
			t.Errorf("first %+v, second %+v", first, second)
		}
		if _, err := s.Renew(ctx, token, -time.Second); err != nil {
			t.Error(err)
		}
		expect(func(r *bulk.Running) { r.Planned, r.Free, r.Mine, r.Due, r.TurnAt = true, true, false, false, turn })
		must(t, s.WithContext(ctx).Exec("UPDATE bulks SET final = '{}' WHERE id = ?", b.ID).Error)
		if held, err := s.Renew(ctx, token, time.Minute); err != nil || len(held) != 0 {
			t.Errorf("the lease of a finished bulk was renewed: %v, %v", held, err)
		}
	})
}

// A bulk that is paused while its last messages are counted is not finished.
func TestFinishBesideAPause(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	b := storetest.InsertBulk(t, s, nil)
	lease, _ := storetest.Acquire(t, s, b.ID, time.Minute)
	must(t, s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: b, Rows: skipped(2), Done: true}))
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), "UPDATE bulks SET status = 'PAUSED' WHERE id = $1", b.ID.String())
	must(t, err)
	finished := make(chan error)
	go func() {
		done, err := s.Finish(t.Context(), b.ID)
		if done {
			err = errors.New("finished")
		}
		finished <- err
	}()
	storetest.AwaitLock(t, db)
	must(t, tx.Commit())
	must(t, <-finished)
	if got, err := s.Bulk(t.Context(), b.ID); err != nil || got.Status != bulk.Paused || got.Final != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
