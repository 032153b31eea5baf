package records_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/records"
	"herald/pkg/store/storetest"
)

// Numbers of an earlier version become sort keys, in more than one batch, and filters find the same leads before and after.
func TestNumbersBecomeSortKeys(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		const n = store.BackfillRows + 3
		leads := make([]message.Lead, n)
		for i := range leads {
			leads[i] = message.Lead{ID: newID(), Email: fmt.Sprintf("n%d@example.com", i), CustomFields: map[string]any{"score": i}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
		}
		must(t, s.InsertLeads(t.Context(), leads))
		for i, l := range leads {
			if i%2 == 0 {
				_, err := db.ExecContext(t.Context(), "UPDATE leads SET custom_number = $1 WHERE id = $2", fmt.Sprintf(`{%q: %d}`, store.CustomKey("score"), i), l.ID.String())
				must(t, err)
			}
		}
		above := func() int {
			t.Helper()
			c := storetest.ParseSettings(t, map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{
				"field": "custom_fields.score", "operator": "gte", "value": json.Number("100"),
			}}}}, time.Now())
			return len(storetest.ResolveAll(t, s, c, 1_000))
		}
		if got := above(); got != n-100 {
			t.Errorf("before: %d leads", got)
		}
		must(t, s.RunBackfills(t.Context(), records.Backfills()))
		if status, err := s.BackfillStatus(t.Context(), records.Backfills()[:1]); err != nil || status[0].RowsDone != n || status[0].State != store.BackfillDone {
			t.Errorf("status %+v, %v, want %d rows", status, err, n)
		}
		if got := above(); got != n-100 {
			t.Errorf("after: %d leads", got)
		}
		for i, l := range leads {
			d, _ := message.ParseDecimal(strconv.Itoa(i))
			var stored string
			must(t, db.QueryRowContext(t.Context(), "SELECT custom_number ->> $1 FROM leads WHERE id = $2", store.CustomKey("score"), l.ID.String()).Scan(&stored))
			if stored != d.SortKey() {
				t.Fatalf("%d is stored as %q", i, stored)
			}
		}
	})
}

// Leads that an earlier version wrote have no dates for filters, or those of before, until the backfill reaches them. It leaves
// leads whose custom fields cannot be read as they are.
func TestCustomFieldsGetDateKeys(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		const n = store.BackfillRows + 3
		leads := make([]message.Lead, n+2)
		for i := range leads {
			leads[i] = message.Lead{ID: newID(), CustomFields: map[string]any{"renewal": "2025-01-15", "n": i}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
		}
		leads[n].CustomFields = nil
		must(t, s.InsertLeads(t.Context(), leads))
		known, stale, unreadable := leads[n-1].ID.String(), leads[n-2].ID.String(), leads[n+1].ID.String()
		_, err := db.ExecContext(t.Context(), "UPDATE leads SET custom_date = NULL WHERE id NOT IN ($1, $2)", known, unreadable)
		must(t, err)
		_, err = db.ExecContext(t.Context(), "UPDATE leads SET custom_date = $1 WHERE id = $2", fmt.Sprintf(`{%q: "D2024-01-15"}`, store.CustomKey("renewal")), stale)
		must(t, err)
		_, err = db.ExecContext(t.Context(), "UPDATE leads SET custom_fields = '[1]' WHERE id = $1", unreadable)
		must(t, err)
		found := func() int {
			t.Helper()
			c := storetest.ParseSettings(t, map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{
				"field": "custom_fields.renewal", "operator": "between", "value": []any{"2025-01-15", "2025-01-15"},
			}}}}, time.Now())
			return len(storetest.ResolveAll(t, s, c, 1_000))
		}
		if got := found(); got != 2 {
			t.Errorf("before: %d leads", got)
		}
		must(t, s.RunBackfills(t.Context(), records.Backfills()))
		if got := found(); got != n+1 {
			t.Errorf("after: %d leads, want %d", got, n+1)
		}
		var absent int
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM leads WHERE custom_date IS NULL").Scan(&absent))
		if absent != 1 {
			t.Errorf("%d leads without date keys, want the one without custom fields", absent)
		}
	})
}
