package search_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// Each operator of numbers at, below and above its bounds, for sort keys and for the JSON numbers that earlier versions stored.
func TestNumberOperators(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for _, n := range []string{"1", "2", "3"} {
			storetest.Lead(t, s, func(l *message.Lead) { l.CustomFields = map[string]any{"n": json.Number(n)} })
		}
		check := func(stored string) {
			t.Helper()
			for operator, c := range map[string]struct {
				value any
				want  int
			}{
				"gt": {json.Number("2"), 1}, "gte": {json.Number("2"), 2}, "lt": {json.Number("2"), 1}, "lte": {json.Number("2"), 2},
				"between": {[]any{json.Number("1"), json.Number("2")}, 2},
			} {
				criteria := storetest.ParseSettings(t, map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{
					"field": "custom_fields.n", "operator": operator, "value": c.value,
				}}}}, moment)
				if got := storetest.ResolveAll(t, s, criteria, 10); len(got) != c.want {
					t.Errorf("%s: %s finds %d leads, want %d", stored, operator, len(got), c.want)
				}
			}
		}
		check("sort keys")
		db := storetest.Raw(t, s.URL)
		for _, n := range []int{1, 2, 3} {
			d, _ := message.ParseDecimal(fmt.Sprint(n))
			_, err := db.ExecContext(t.Context(), "UPDATE leads SET custom_number = $1 WHERE custom_number ->> $2 = $3",
				fmt.Sprintf("{%q: %d}", store.CustomKey("n"), n), store.CustomKey("n"), d.SortKey())
			must(t, err)
		}
		check("numbers")
	})
}
