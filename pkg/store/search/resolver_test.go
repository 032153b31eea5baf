package search_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// insertNumbered inserts n leads whose ids count up from 1. The i-th is named "n" and i mod 1000.
func insertNumbered(t *testing.T, s *storetest.Store, n int) {
	t.Helper()
	id := "printf('%08x-0000-7000-8000-000000000000', i)"
	if s.IsPostgres() {
		id = "(lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid"
	}
	_, err := storetest.Raw(t, s.URL).ExecContext(t.Context(), `
INSERT INTO leads (id, first_name, first_name_fold, email, email_fold, search_text, created_at, updated_at)
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < $1)
SELECT `+id+`, 'n' || (i % 1000), 'n' || (i % 1000), i || '@example.com', i || '@example.com', 'n' || (i % 1000) || ' ' || i || '@example.com', $2, $2 FROM numbers`,
		n, moment)
	must(t, err)
}

// named is a filter for the first n names of insertNumbered.
func named(n int) map[string]any {
	names := make([]any, n)
	for i := range names {
		names[i] = "N" + strconv.Itoa(i)
	}
	return map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "first_name", "operator": "in", "value": names}}}}
}

// An audience is resolved in ranges of ids. Each lead is found once, in the order of ids. A range that yields less than an eighth
// of a page is followed by one of eight times its size.
func TestRangesFindEachLeadOnce(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n, limit = 45_000, 4_000
		insertNumbered(t, s, n)
		walk := func(settings map[string]any, limit int) (got []uuid.UUID, sizes []string) {
			t.Helper()
			criteria := storetest.ParseSettings(t, settings, moment)
			for cursor, done := "", false; !done; {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, limit)
				must(t, err)
				for _, found := range page.Candidates {
					got = append(got, found.LeadID)
				}
				if cursor, done = page.Next, page.Done; !done {
					sizes = append(sizes, strings.SplitN(cursor, "/", 2)[1])
				}
			}
			return got, sizes
		}
		full := "20000"
		for name, c := range map[string]struct {
			settings map[string]any
			want     int
			sizes    []string // of the ranges after the first
		}{
			"all":                 {map[string]any{"all_leads": true}, n, []string{full, full, full, full, full, full, full, full, full, full, full}},
			"a quarter of a page": {named(50), 50 * n / 1000, []string{full, full}},
			"an eighth of a page": {named(25), 25 * n / 1000, []string{full, full}},
			"less than that":      {named(24), 24 * n / 1000, []string{"160000"}},
			"one in 1000":         {map[string]any{"search_keyword": "n777 "}, n / 1000, []string{"160000"}},
			"none":                {map[string]any{"search_keyword": "no such name"}, 0, []string{"160000"}},
			"all but one":         {map[string]any{"all_leads": true, "exclude_lead_ids": []any{"00000001-0000-7000-8000-000000000000"}}, n - 1, []string{full, full, full, full, full, full, full, full, full, full, full}},
		} {
			got, sizes := walk(c.settings, limit)
			if len(got) != c.want || !slices.IsSortedFunc(got, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) || len(slices.Compact(got)) != c.want {
				t.Errorf("%s: %d leads, want %d, in order and each once", name, len(got), c.want)
			}
			if !slices.Equal(sizes, c.sizes) {
				t.Errorf("%s: ranges of %v leads after the first, want %v", name, sizes, c.sizes)
			}
		}
		// Of the first 20,000 leads 111 match, fewer than an eighth of a page: the range grows. It then fills its page with 1,000 leads, and
		// shrinks.
		got, sizes := walk(map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "email", "operator": "starts_with", "value": "21"}}}}, 1_000)
		if want := []string{"160000", full, "160000"}; len(got) != 1_111 || !slices.Equal(sizes, want) {
			t.Errorf("%d leads, ranges of %v leads after the first, want %v", len(got), sizes, want)
		}
	})
}

func TestResolveByIDs(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		now := store.Stamp(time.Now())
		var leads []message.Lead
		var ids []uuid.UUID
		for i := range 5 {
			l := message.Lead{ID: newID(), Email: string(rune('a'+i)) + "@example.com", Phone: "1", CreatedAt: now, UpdatedAt: now}
			leads, ids = append(leads, l), append(ids, l.ID)
		}
		must(t, s.InsertLeads(ctx, leads))
		c := &audience.Criteria{LeadIDs: append(ids, newID())} // the last has no lead
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

// A cursor carries the bound that an earlier page found: later pages are no larger, whether they are full or empty.
func TestACursorBoundsItsPages(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n = 1_000
		insertNumbered(t, s, n)
		var ids []any
		for i := 1; i <= 5; i++ {
			ids = append(ids, fmt.Sprintf("%08x-0000-7000-8000-000000000000", i))
		}
		begin := uuid.Nil.String() + "/300/300"
		for name, c := range map[string]struct {
			settings map[string]any
			cursor   string
			limit    int
			want     int
			sizes    []string // of the cursors of all pages but the last
		}{
			"full pages":  {map[string]any{"all_leads": true}, begin, 250, n, []string{"300/300", "300/300", "300/300", "300/300"}},
			"no matches":  {map[string]any{"search_keyword": "no such name"}, begin, 250, 0, []string{"300/300", "300/300", "300/300"}},
			"ids":         {map[string]any{"lead_ids": ids}, "0/2", 10, 5, []string{"2", "2"}},
			"ids, larger": {map[string]any{"lead_ids": ids}, "0/20", 2, 5, []string{"2", "2"}},
		} {
			criteria := storetest.ParseSettings(t, c.settings, moment)
			found, sizes := 0, []string(nil)
			for cursor, done := c.cursor, false; !done; {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, c.limit)
				must(t, err)
				found += len(page.Candidates)
				if cursor, done = page.Next, page.Done; !done {
					sizes = append(sizes, strings.SplitN(cursor, "/", 2)[1])
				}
			}
			if found != c.want || !slices.Equal(sizes, c.sizes) {
				t.Errorf("%s: %d leads, want %d; sizes %v, want %v", name, found, c.want, sizes, c.sizes)
			}
		}
	})
}

// Requested ids without a lead are counted once, whether the ids decide alone or with other criteria.
func TestIDsWithoutALeadAreCounted(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		insertNumbered(t, s, 6)
		ids := []any{newID().String(), newID().String(), newID().String()}
		for i := 1; i <= 4; i++ {
			ids = append(ids, fmt.Sprintf("%08x-0000-7000-8000-000000000000", i))
		}
		filter := named(3)["filters"] // matches the leads 1 and 2
		for name, c := range map[string]struct {
			settings map[string]any
			found    int
		}{
			"ids":            {map[string]any{"lead_ids": ids}, 4},
			"ids and filter": {map[string]any{"lead_ids": ids, "filters": filter}, 2},
			"ids or filter":  {map[string]any{"lead_ids": ids, "filters": map[string]any{"conditions": []any{map[string]any{"field": "first_name", "operator": "equals", "value": "n6"}}}, "match": "any"}, 5},
		} {
			criteria := storetest.ParseSettings(t, c.settings, moment)
			found, notFound, pages := 0, int64(0), 0
			for cursor, done := "", false; !done; pages++ {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, 2)
				must(t, err)
				found, notFound = found+len(page.Candidates), notFound+page.NotFound
				cursor, done = page.Next, page.Done
			}
			if found != c.found || notFound != 3 || pages < 2 {
				t.Errorf("%s: %d leads, %d ids without a lead, in %d pages; want %d and 3", name, found, notFound, pages, c.found)
			}
		}
	})
}
