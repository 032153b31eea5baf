package search_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

// datesOf matches leads that have the given values of the field renewal, both in the database and in memory, and returns the values
// of those that match.
func datesOf(t *testing.T, s *storetest.Store, leads []message.Lead, settings map[string]any, now time.Time) []string {
	t.Helper()
	c := storetest.ParseSettings(t, settings, now)
	var matched []string
	var ids []uuid.UUID
	for i := range leads {
		if c.Match(audience.NewPerson(&leads[i])) {
			matched, ids = append(matched, leads[i].FirstName), append(ids, leads[i].ID)
		}
	}
	if got := storetest.ResolveAll(t, s, c, 100); !slices.Equal(got, ids) {
		t.Errorf("%v: the database finds %d leads, the evaluator %v", settings, len(got), matched)
	}
	return matched
}

// leadsWith stores one lead for each value of the field renewal. Its first name is the value as JSON.
func leadsWith(t *testing.T, s *storetest.Store, values ...any) []message.Lead {
	t.Helper()
	leads := make([]message.Lead, len(values))
	for i, v := range values {
		name, err := json.Marshal(v)
		must(t, err)
		leads[i] = message.Lead{ID: newID(), FirstName: string(name), CustomFields: map[string]any{"renewal": v}, CreatedAt: moment, UpdatedAt: moment}
	}
	slices.SortFunc(leads, func(a, b message.Lead) int { return slices.Compare(a.ID[:], b.ID[:]) })
	must(t, s.InsertLeads(t.Context(), leads))
	return leads
}

func on(op string, value any) map[string]any {
	return map[string]any{"conditions": []any{map[string]any{"field": "custom_fields.renewal", "operator": op, "value": value}}}
}

// Conditions on dates of custom fields find the leads that a person expects. The request is received at noon in UTC on the 15th.
func TestCaseDatesOfCustomFields(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := time.Date(2025, 1, 15, 12, 0, 0, 0, time.UTC)
		leads := leadsWith(t, s, "2025-01-14", "15.01.2025", "1/16/2025", "2025-01-14T23:30:00Z", "2025-01-15 11:00", "2025-01-15T11:30:00Z", "15.01.2025 12:30",
			json.Number("1736942400"), "2024-02-29", // the number is the time of the request
			"1/2/2025", "2023-02-29", "soon", "", json.Number("20250115"), true, nil, []any{"2025-01-15"}, "1,234.50")
		leads = append(leads, message.Lead{ID: uuid.Max, FirstName: "none", CreatedAt: moment, UpdatedAt: moment})
		must(t, s.InsertLeads(t.Context(), leads[len(leads)-1:]))
		for _, c := range []struct {
			zone, op string
			value    any
			want     []string
		}{
			{"", "before", "2025-01-15", []string{`"2025-01-14"`, `"2025-01-14T23:30:00Z"`, `"2024-02-29"`}},
			{"Europe/Berlin", "before", "2025-01-15", []string{`"2025-01-14"`, `"2024-02-29"`}}, // 23:30Z is the 15th there
			{"", "after", "2025-01-15", []string{`"1/16/2025"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"", "after", "2025-01-15T11:30:00Z", []string{`"1/16/2025"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"Europe/Berlin", "after", "2025-01-15T11:30:00Z", []string{`"1/16/2025"`, `1736942400`}}, // 12:30 on a clock there
			{"", "between", []any{"2025-01-15", "2025-01-15"}, []string{`"15.01.2025"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"Europe/Berlin", "between", []any{"15.01.2025", "1/15/2025"}, []string{`"15.01.2025"`, `"2025-01-14T23:30:00Z"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"", "between", []any{"2024-02-29", "2024-02-29"}, []string{`"2024-02-29"`}},
			{"", "between", []any{"2025-01-16", "2025-01-15"}, nil},
			{"", "between", []any{json.Number("1736942400"), json.Number("1736942400")}, []string{`1736942400`}}, // as numbers
			{"", "within_last_days", json.Number("1"), []string{`"2025-01-14"`, `"15.01.2025"`, `"2025-01-14T23:30:00Z"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `1736942400`}},
			{"", "within_last_days", json.Number("0"), []string{`"15.01.2025"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `1736942400`}},
			{"", "within_next_days", json.Number("1"), []string{`"15.01.2025"`, `"1/16/2025"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"", "within_next_days", json.Number("0"), []string{`"15.01.2025"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"Pacific/Kiritimati", "within_next_days", json.Number("0"), []string{`"1/16/2025"`, `1736942400`}}, // it is 2:00 on the 16th there
			{"Asia/Tokyo", "within_last_days", json.Number("0"), []string{`"15.01.2025"`, `"2025-01-14T23:30:00Z"`, `"2025-01-15 11:00"`, `"2025-01-15T11:30:00Z"`, `"15.01.2025 12:30"`, `1736942400`}},
			{"", "equals", "15.01.2025", []string{`"15.01.2025"`}}, // as text
		} {
			got := datesOf(t, s, leads, map[string]any{"timezone": c.zone, "filters": on(c.op, c.value)}, now)
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("%s %s %v:\n got %v\nwant %v", c.zone, c.op, c.value, got, c.want)
			}
		}
	})
}
