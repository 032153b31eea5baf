package search_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store/search"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// pages reads a list page by page.
func pages(t *testing.T, s *storetest.Store, f lead.Filter, limit int) []uuid.UUID {
	t.Helper()
	var ids []uuid.UUID
	for after := uuid.Nil; ; {
		page, err := s.Leads(t.Context(), f.Criteria(), after, limit)
		must(t, err)
		if len(page) > limit {
			t.Errorf("%d leads on a page of %d", len(page), limit)
		}
		for i := range page {
			ids = append(ids, page[i].ID)
		}
		if len(page) < limit {
			return ids
		}
		after = ids[len(ids)-1]
	}
}

// A filter finds each lead once, in the order of ids, wherever the leads are: in the range that a page walks, and beyond it.
func TestIntegrationFilteredListsAreComplete(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *storetest.Store) {
		insertNumbered(t, s, 45_000)
		for name, c := range map[string]struct {
			filter lead.Filter
			limit  int
			want   []int
		}{
			"the first":          {lead.Filter{Email: "1@example.com"}, 10, []int{1}},
			"the last":           {lead.Filter{Email: "45000@EXAMPLE.com"}, 10, []int{45_000}},
			"none":               {lead.Filter{Email: "45001@example.com"}, 10, nil},
			"a page is full":     {lead.Filter{Search: "n7 0007@"}, 2, []int{10_007, 20_007, 30_007, 40_007}},
			"beyond the range":   {lead.Filter{Search: "4499"}, 3, []int{4499, 14_499, 24_499, 34_499, 44_499, 44_990, 44_991, 44_992, 44_993, 44_994, 44_995, 44_996, 44_997, 44_998, 44_999}},
			"across, small page": {lead.Filter{Search: "n19 9019@"}, 1, []int{9019, 19_019, 29_019, 39_019}},
			"several must match": {lead.Filter{Search: "n19", Email: "9019@example.com"}, 10, []int{9019}},
		} {
			want := make([]uuid.UUID, len(c.want))
			for i, n := range c.want {
				want[i] = uuid.MustParse(fmt.Sprintf("%08x-0000-7000-8000-000000000000", n))
			}
			if got := pages(t, s, c.filter, c.limit); !slices.Equal(got, want) {
				t.Errorf("%s: %d leads, want %d: %v", name, len(got), len(want), got)
			}
		}
	})
}

// Each filter that has an index uses it.
func TestIntegrationFiltersUseTheirIndexes(t *testing.T) {
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	insertNumbered(t, s, 45_000)
	storetest.Lead(t, s, func(l *message.Lead) {
		l.Email, l.Phone, l.InstagramID, l.AssigneeID, l.Tags = "ann@example.com", "+14155550101", "17841400", "user-1", []string{"vip"}
	})
	_, err := db.ExecContext(t.Context(), "VACUUM ANALYZE leads") // new entries of an inverted index are in a list until a vacuum
	must(t, err)
	for index, f := range map[string]lead.Filter{
		"leads_email": {Email: "Ann <ann@example.com>"}, "leads_phone_fold": {Phone: "+1 (415) 555-0101"}, "leads_instagram": {InstagramID: "17841400"},
		"leads_assignee": {AssigneeID: "user-1"}, "leads_tags": {Tag: "VIP"}, "leads_search": {Search: "ann@example"},
	} {
		sql, args := search.ListQuery(true, f.Criteria(), uuid.Nil, 51)
		rows, err := s.SearchPool().Query(t.Context(), "EXPLAIN "+sql, args...)
		must(t, err)
		var plan []string
		for rows.Next() {
			var line string
			must(t, rows.Scan(&line))
			plan = append(plan, line)
		}
		must(t, rows.Err())
		if all := strings.Join(plan, "\n"); !strings.Contains(all, index) {
			t.Errorf("%s is not used:\n%s", index, all)
		}
		if found := pages(t, s, f, 10); len(found) != 1 {
			t.Errorf("%s: %d leads", index, len(found))
		}
	}
}

// SQLite uses an index without empty values only for conditions that say that the value is not empty.
func TestIntegrationFiltersUseTheirIndexesInSQLite(t *testing.T) {
	s := storetest.SQLite(t)
	for index, f := range map[string]lead.Filter{
		"leads_email": {Email: "ann@example.com"}, "leads_phone_fold": {Phone: "+14155550101"}, "leads_instagram": {InstagramID: "17841400"}, "leads_assignee": {AssigneeID: "user-1"},
	} {
		sql, args := search.ListQuery(false, f.Criteria(), uuid.Nil, 51)
		rows, err := s.SQL().QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+sql, args...)
		must(t, err)
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var step string
			must(t, rows.Scan(&id, &parent, &unused, &step))
			plan = append(plan, step)
		}
		must(t, rows.Err())
		must(t, rows.Close())
		if all := strings.Join(plan, "\n"); !strings.Contains(all, "INDEX "+index+" ") {
			t.Errorf("%s is not used:\n%s", index, all)
		}
	}
}

// A list that takes too long says so.
func TestIntegrationAListThatTakesTooLong(t *testing.T) {
	s := storetest.Open(t, testenv.Database(t, testenv.SQLite), storetest.Options{PageTime: time.Nanosecond})
	f := lead.Filter{Status: "new"}
	if _, err := s.Matching(t.Context(), f.Criteria(), uuid.Nil, 10); err == nil || !strings.Contains(err.Error(), "time limit exceeded") {
		t.Errorf("%v", err)
	}
}
