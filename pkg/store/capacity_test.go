package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func move(t *testing.T, s *storetest.Store, b *bulk.Bulk, to bulk.Status) {
	t.Helper()
	must(t, s.Move(t.Context(), b.ID, []bulk.Status{bulk.Processing, bulk.Paused}, to))
}

// A bulk that is paused is not run and does not end, whatever asks; its resume makes it one to be run.
func TestFaultAPausedBulkStandsStill(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
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

// A bulk without its plan does not end, unless it is cancelled: then what it has is its audience.
func TestFinishNeedsThePlan(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
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

func skipped(n int) []bulk.PlannedRow {
	rows := make([]bulk.PlannedRow, n)
	for i := range rows {
		rows[i] = bulk.PlannedRow{ID: newID(), LeadID: newID(), Status: message.Skipped, Reason: message.NoRecipient}
	}
	return rows
}

// One statement renews all leases of a token, and tells which are left.
func TestFaultOneStatementRenewsAllLeases(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		token := uuid.New()
		var bulks []*bulk.Bulk
		for range 5 {
			b := insertBulk(t, s, nil)
			_, err := s.Acquire(ctx, bulk.Lease{BulkID: b.ID, Token: token}, time.Minute)
			must(t, err)
			bulks = append(bulks, b)
		}
		foreign := insertBulk(t, s, nil)
		_, _ = acquire(t, s, foreign.ID, time.Minute)
		move(t, s, bulks[0], bulk.Paused)
		move(t, s, bulks[1], bulk.Cancelled)
		must(t, s.Release(ctx, bulk.Lease{BulkID: bulks[2].ID, Token: token}, time.Hour))
		held, err := s.Renew(ctx, token, -time.Second) // they have run out now
		must(t, err)
		slices.SortFunc(held, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		if !slices.Equal(held, []uuid.UUID{bulks[3].ID, bulks[4].ID}) {
			t.Errorf("held %v", held)
		}
		_, _ = acquire(t, s, bulks[3].ID, time.Minute) // another's
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
		first := insertBulk(t, s, nil)
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
		rows := planned(t, s, 2)
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
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
		if err := s.Abandon(ctx, bulk.Lease{BulkID: b.ID, Token: uuid.New()}, "x"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("abandoned by another: %v", err)
		}
		must(t, s.Abandon(ctx, lease, "too slow"))
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		if got.Status != bulk.Cancelled || got.StatusReason != "too slow" || got.Final != nil {
			t.Errorf("%+v", got)
		}
		whole := insertBulk(t, s, nil)
		lease, _ = acquire(t, s, whole.ID, time.Minute)
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: whole, Rows: skipped(1), Done: true}))
		if err := s.Abandon(ctx, lease, "x"); !errors.Is(err, bulk.ErrLeaseLost) {
			t.Errorf("abandoned with its plan made: %v", err)
		}
	})
}

// A page without its rows' addresses in doubt, one with them, and one without rows are each written whole or not at all.
func TestAPageIsWrittenWhole(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		b := insertBulk(t, s, nil)
		lease, _ := acquire(t, s, b.ID, time.Minute)
		first := planned(t, s, 3)
		for i := range first {
			first[i].FirstSeen = true
		}
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Rows: first, Cursor: "1", NotFound: 1}))
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Cursor: "2"}))
		again := planned(t, s, 2)
		again[0].Hash, again[0].Recipient = first[1].Hash, first[1].Recipient
		for _, stale := range []bulk.PlanPage{
			{Lease: lease, Bulk: b, Base: 2, Rows: planned(t, s, 1)},
			{Lease: bulk.Lease{BulkID: b.ID, Token: uuid.New()}, Bulk: b, Base: 3, Rows: again},
		} {
			if err := s.AddPage(ctx, stale); !errors.Is(err, bulk.ErrLeaseLost) {
				t.Errorf("a stale page: %v", err)
			}
		}
		must(t, s.AddPage(ctx, bulk.PlanPage{Lease: lease, Bulk: b, Base: 3, Rows: again, Cursor: "3", NotFound: 2, Done: true}))
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

func saveSome(t *testing.T, s *storetest.Store, n int) []uuid.UUID {
	t.Helper()
	ids, leads := make([]uuid.UUID, n), make([]message.Lead, n)
	for i := range leads {
		ids[i] = newID()
		leads[i] = message.Lead{ID: ids[i], Email: fmt.Sprintf("l%d@example.com", i), City: fmt.Sprintf("city %d", i%10), CreatedAt: time.Now(), UpdatedAt: time.Now()}
	}
	must(t, s.InsertLeads(t.Context(), leads))
	return ids
}

func everyTenth(ids []uuid.UUID, from int) (some []uuid.UUID) {
	for i := from; i < len(ids); i += 10 {
		some = append(some, ids[i])
	}
	return some
}

func walkAll(t *testing.T, s *storetest.Store, c *audience.Criteria, each func(cursor string)) []uuid.UUID {
	t.Helper()
	var got []uuid.UUID
	for cursor, done := "", false; !done; {
		page, err := s.Resolve(t.Context(), c, message.Email, cursor, 1_000)
		must(t, err)
		for _, l := range page.Candidates {
			got = append(got, l.LeadID)
		}
		cursor, done = page.Next, page.Done
		each(cursor)
	}
	return got
}

// slowFrom makes a view of the leads that stands still for a statement which reads more than some of them.
func slowFrom(t *testing.T, databaseURL string, rows int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), fmt.Sprintf(`
ANALYZE leads;
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    this text := statement_timestamp()::text;
    n int := 1;
BEGIN
    IF current_setting('test.statement', true) = this THEN n := current_setting('test.rows')::int + 1; END IF;
    PERFORM set_config('test.statement', this, false), set_config('test.rows', n::text, false);
    IF n > %d THEN PERFORM pg_sleep(60); END IF;
    RETURN true;
END $$;
ALTER TABLE leads RENAME TO leads_read;
CREATE VIEW leads AS SELECT * FROM leads_read WHERE slow()`, rows))
	must(t, err)
}

// hurried opens a database whose statements may take a second.
func hurried(t *testing.T, databaseURL string) *storetest.Store {
	t.Helper()
	u, err := url.Parse(databaseURL)
	must(t, err)
	q := u.Query()
	q.Set("statement_timeout", "1s")
	u.RawQuery = q.Encode()
	return storetest.Connect(t, u.String(), storetest.Options{})
}

// A page that the database gives up is made of fewer leads, and the pages after it are no larger; every lead is found once.
func TestFaultSlowPagesBecomeSmaller(t *testing.T) {
	given := testenv.Database(t, testenv.Postgres)
	s := storetest.Open(t, given, storetest.Options{})
	ids := saveSome(t, s, 3_000)
	slowFrom(t, given, 400)
	quick := hurried(t, given)
	for name, c := range map[string]struct {
		*audience.Criteria
		most string
	}{
		"a filter":    {&audience.Criteria{Filter: &audience.Node{Cond: &audience.Condition{Field: "city", Kind: audience.Text, Op: audience.NotContains, Values: []string{"nowhere"}}}}, "312"},
		"few match":   {&audience.Criteria{Filter: &audience.Node{Cond: &audience.Condition{Field: "city", Kind: audience.Text, Op: audience.Contains, Values: []string{"city 1"}}}}, "312"},
		"any of both": {&audience.Criteria{LeadIDs: ids[:10], Any: true, Filter: &audience.Node{Cond: &audience.Condition{Field: "email", Kind: audience.Text, Op: audience.IsNotEmpty}}}, "312"},
		"ids":         {&audience.Criteria{LeadIDs: ids}, "125"},
	} {
		t.Run(name, func(t *testing.T) {
			var cursors []string
			got := walkAll(t, quick, c.Criteria, func(cursor string) { cursors = append(cursors, cursor) })
			want := ids
			if name == "few match" {
				want = everyTenth(ids, 1)
			}
			if !slices.Equal(got, want) {
				t.Errorf("found %d of %d leads", len(got), len(want))
			}
			for _, cursor := range cursors[:len(cursors)-1] {
				if parts := strings.Split(cursor, "/"); parts[len(parts)-1] != c.most {
					t.Errorf("the cursor %q does not say how large the next page may be", cursor)
				}
			}
		})
	}
}

// When even the smallest page takes too long, that is what is said, of a filter and of ids.
func TestFaultHopelessPagesAreTold(t *testing.T) {
	check := func(t *testing.T, s *storetest.Store, ids []uuid.UUID) {
		t.Helper()
		for name, c := range map[string]*audience.Criteria{
			"a filter": {Filter: &audience.Node{Cond: &audience.Condition{Field: "city", Kind: audience.Text, Op: audience.Contains, Values: []string{"city"}}}},
			"ids":      {LeadIDs: ids},
		} {
			if _, err := s.Resolve(t.Context(), c, message.Email, "", 1_000); !errors.Is(err, audience.ErrTooSlow) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := storetest.Open(t, testenv.Database(t, testenv.SQLite), storetest.Options{PageTime: time.Nanosecond})
		check(t, s, saveSome(t, s, 10))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		given := testenv.Database(t, testenv.Postgres)
		s := storetest.Open(t, given, storetest.Options{})
		ids := saveSome(t, s, 10)
		slowFrom(t, given, 0)
		check(t, hurried(t, given), ids)
	})
}

// A caller that goes away is no sign that the criteria are too expensive.
func TestACallerThatLeavesIsNoSlowPage(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Resolve(ctx, &audience.Criteria{AllLeads: true}, message.Email, "", 10); err == nil || errors.Is(err, audience.ErrTooSlow) {
			t.Errorf("%v", err)
		}
	})
}
