package search_test

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
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

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

// slowFrom replaces the leads by a view in which a statement that reads more than a number of rows does not end.
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

// hurried opens a database whose statements end after a time.
func hurried(t *testing.T, databaseURL, statementTimeout string) *storetest.Store {
	t.Helper()
	u, err := url.Parse(databaseURL)
	must(t, err)
	q := u.Query()
	q.Set("statement_timeout", statementTimeout)
	u.RawQuery = q.Encode()
	return storetest.Connect(t, u.String(), storetest.Options{})
}

// A page that exceeds the time limit is tried again with fewer leads, and later pages are no larger. Each lead is found once.
func TestFaultSlowPagesBecomeSmaller(t *testing.T) {
	t.Parallel()
	given := testenv.Database(t, testenv.Postgres)
	s := storetest.Open(t, given, storetest.Options{})
	ids := saveSome(t, s, 3_000)
	slowFrom(t, given, 400)
	quick := hurried(t, given, "1s")
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
			t.Parallel()
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

// A page of the minimum size that exceeds the time limit is ErrTooSlow, for a filter and for ids.
func TestFaultHopelessPagesAreTold(t *testing.T) {
	t.Parallel()
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
		check(t, hurried(t, given, "100ms"), ids)
	})
}

// A cancelled caller does not make the criteria too expensive.
func TestACallerThatLeavesIsNoSlowPage(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Resolve(ctx, &audience.Criteria{AllLeads: true}, message.Email, "", 10); err == nil || errors.Is(err, audience.ErrTooSlow) {
			t.Errorf("%v", err)
		}
	})
}
