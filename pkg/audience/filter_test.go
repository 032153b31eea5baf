package audience_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"herald/pkg/audience"
)

// condition is one condition of a filter as JSON. An empty value is left out.
func condition(field, op, value string) string {
	if value != "" {
		value = `,"value":` + value
	}
	return fmt.Sprintf(`{"field":%q,"operator":%q%s}`, field, op, value)
}

// nested puts a filter's condition into as many groups as depth says.
func nested(depth int) string {
	filter := condition("email", "is_empty", "")
	for range depth {
		filter = `{"conditions":[` + filter + `]}`
	}
	return `{"filters":` + filter + `}`
}

func TestParseFilterReadsConditions(t *testing.T) {
	midnight := func(year int, month time.Month, day int) time.Time {
		return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	}
	received := now.Truncate(time.Microsecond)
	for _, c := range []struct {
		field, op, value string
		want             audience.Condition // without field and operator
	}{
		{"email", "equals", `"ANN@x.com"`, audience.Condition{Kind: audience.Text, Values: []string{"ann@x.com"}}},
		{"email", "equals", `12.50`, audience.Condition{Kind: audience.Text, Values: []string{"12.5"}}},
		{"email", "equals", `true`, audience.Condition{Kind: audience.Text, Values: []string{"true"}}},
		{"full_name", "contains", `["A","b"]`, audience.Condition{Kind: audience.Text, Values: []string{"a", "b"}}},
		{"full_name", "contains", `"A"`, audience.Condition{Kind: audience.Text, Values: []string{"a"}}},
		{"full_name", "not_contains", `["A"]`, audience.Condition{Kind: audience.Text, Values: []string{"a"}}},
		{"city", "in", `["A","b"]`, audience.Condition{Kind: audience.Text, Values: []string{"a", "b"}}},
		{"city", "not_in", `["A"]`, audience.Condition{Kind: audience.Text, Values: []string{"a"}}},
		{"city", "is_empty", ``, audience.Condition{Kind: audience.Text}},
		{"tags", "contains", `"VIP"`, audience.Condition{Kind: audience.Tags, Values: []string{"vip"}}},
		{"tags", "not_contains", `["VIP"]`, audience.Condition{Kind: audience.Tags, Values: []string{"vip"}}},
		{"tags", "contains_all", `"VIP"`, audience.Condition{Kind: audience.Tags, Values: []string{"vip"}}},
		{"tags", "contains_all", `["VIP","x"]`, audience.Condition{Kind: audience.Tags, Values: []string{"vip", "x"}}},
		{"custom_fields.Plan", "equals", `"Gold"`, audience.Condition{Kind: audience.Custom, Values: []string{"gold"}}},
		{"custom_fields.score", "gt", `1e2`, audience.Condition{Kind: audience.Custom, Numbers: []json.Number{"100"}}},
		{"custom_fields.score", "between", `[1,2.50]`, audience.Condition{Kind: audience.Custom, Numbers: []json.Number{"1", "2.50"}}},
		{"created_at", "before", `"2026-01-02T03:04:05.123456789+02:00"`, audience.Condition{Kind: audience.Time, Times: []time.Time{time.Date(2026, 1, 2, 1, 4, 5, 123_456_000, time.UTC)}}},
		{"updated_at", "after", `"2026-01-02"`, audience.Condition{Kind: audience.Time, Times: []time.Time{midnight(2026, 1, 2)}}},
		{"created_at", "between", `["2026-01-02","2026-01-31"]`, audience.Condition{Kind: audience.Time, Times: []time.Time{midnight(2026, 1, 2), midnight(2026, 2, 1).Add(-time.Microsecond)}}},
		{"created_at", "between", `["2026-01-02","2026-01-31T00:00:00Z"]`, audience.Condition{Kind: audience.Time, Times: []time.Time{midnight(2026, 1, 2), midnight(2026, 1, 31)}}},
		{"last_contacted_at", "within_last_days", `1`, audience.Condition{Kind: audience.Time, Times: []time.Time{received.AddDate(0, 0, -1), received}}},
		{"last_contacted_at", "within_next_days", `1`, audience.Condition{Kind: audience.Time, Times: []time.Time{received, received.AddDate(0, 0, 1)}}},
		{"last_contacted_at", "within_last_days", `36500`, audience.Condition{Kind: audience.Time, Times: []time.Time{received.AddDate(0, 0, -36_500), received}}},
	} {
		criteria := mustParse(t, filtered(condition(c.field, c.op, c.value)))
		c.want.Field, c.want.Op = c.field, audience.Op(c.op)
		if got := *criteria.Filter.Children[0].Cond; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s %s:\n got %+v\nwant %+v", c.field, c.op, c.value, got, c.want)
		}
	}
}

func TestParseFilterReadsGroups(t *testing.T) {
	c := mustParse(t, `{"filters":{"id":"root","logic":"oR","conditions":[
		{"id":"leaf","field":"email","operator":"is_empty","value":null},
		{"id":"inner","logic":"And","conditions":[{"field":"city","operator":"is_not_empty"}]},
		{"conditions":[{"field":"city","operator":"is_empty"}]}]}}`)
	leaf := func(id, field string, op audience.Op) audience.Node {
		return audience.Node{ID: id, Cond: &audience.Condition{Field: field, Kind: audience.Text, Op: op}}
	}
	want := &audience.Node{ID: "root", Or: true, Children: []audience.Node{
		leaf("leaf", "email", audience.IsEmpty),
		{ID: "inner", Children: []audience.Node{leaf("", "city", audience.IsNotEmpty)}},
		{Children: []audience.Node{leaf("", "city", audience.IsEmpty)}},
	}}
	if !reflect.DeepEqual(c.Filter, want) {
		t.Errorf("\n got %+v\nwant %+v", c.Filter, want)
	}
}

func TestParseFilterReportsMistakes(t *testing.T) {
	const at, value = "filters.conditions.0", "filters.conditions.0.value"
	for _, c := range []struct{ name, settings, want string }{
		{"not an object", `{"filters":[]}`, "dict_type at filters: "},
		{"group without conditions", `{"filters":{"id":"g"}}`, `missing at filters.conditions: field required (id "g")`},
		{"empty group", `{"filters":{"id":"g","conditions":[]}}`, `too_short at filters.conditions: a group needs at least one condition (id "g")`},
		{"unknown logic", `{"filters":{"id":"g","logic":"XOR","conditions":[` + condition("email", "is_empty", "") + `]}}`, `enum at filters.logic: must be AND or OR (id "g")`},
		{"unknown field in a group", `{"filters":{"also":1,"conditions":[` + condition("email", "is_empty", "") + `]}}`, "extra_forbidden at filters.also: "},
		{"unknown field in a condition", filtered(`{"field":"email","operator":"is_empty","not":true}`), "extra_forbidden at " + at + ".not: "},
		{"condition is text", filtered(`"x"`), "dict_type at " + at + ": "},
		{"logic alone makes a group", filtered(`{"logic":"and"}`), "missing at " + at + ".conditions: field required"},

		{"unknown lead field", filtered(`{"id":"c","field":"shoe_size","operator":"equals","value":"1"}`), "enum at " + at + `.field: unknown field; the fields are first_name, `},
		{"custom field without a name", filtered(condition("custom_fields.", "is_empty", "")), "enum at " + at + ".field: "},
		{"custom field with a long name", filtered(condition("custom_fields."+strings.Repeat("k", 201), "is_empty", "")), "enum at " + at + ".field: "},
		{"operator of another kind", filtered(condition("email", "before", `"2026-01-01"`)), "enum at " + at + ".operator: email has the operators equals, not_equals, contains, not_contains, starts_with, ends_with, in, not_in, is_empty, is_not_empty"},
		{"operator of numbers for text", filtered(condition("email", "gt", `1`)), "enum at " + at + ".operator: "},
		{"operator of text for times", filtered(condition("created_at", "starts_with", `"x"`)), "enum at " + at + ".operator: created_at has the operators equals, before, after, between, within_last_days, within_next_days, is_empty, is_not_empty"},
		{"operator of text for tags", filtered(condition("tags", "equals", `"x"`)), "enum at " + at + ".operator: tags has the operators contains, contains_all, not_contains, is_empty, is_not_empty"},

		{"value where none belongs", filtered(condition("email", "is_empty", `"x"`)), "extra_forbidden at " + value + ": is_empty takes no value"},
		{"value where none belongs, negated", filtered(condition("email", "is_not_empty", `"x"`)), "extra_forbidden at " + value + ": is_not_empty takes no value"},
		{"no value", filtered(condition("email", "equals", "")), "missing at " + value + ": field required"},
		{"no list", filtered(condition("email", "in", "")), "missing at " + value + ": field required"},
		{"list for one value", filtered(condition("email", "equals", `["a"]`)), "string_type at " + value + ": must be one value"},
		{"one value for a list", filtered(condition("email", "in", `"a"`)), "list_type at " + value + ": must be an array"},
		{"empty list", filtered(condition("email", "contains", `[]`)), "too_short at " + value + ": must have at least 1 element"},
		{"long list", filtered(condition("email", "in", repeat(1_001, quoted("v")))), "too_long at " + value + ": must have at most 1000 elements"},
		{"empty text", filtered(condition("email", "equals", `""`)), "string_too_short at " + value + ": "},
		{"empty text in a list", filtered(condition("email", "in", `["a",""]`)), "string_too_short at " + value + ".1: "},
		{"long text", filtered(condition("email", "equals", `"`+strings.Repeat("é", 1_001)+`"`)), "string_too_long at " + value + ": must have at most 1000 characters"},
		{"object for a text", filtered(condition("email", "equals", `{}`)), "string_type at " + value + ": must be a string"},
		{"null in a list", filtered(condition("email", "in", `["a",null]`)), "string_type at " + value + ".1: must be a string"},
		{"number with too many digits, as text", filtered(condition("email", "equals", `1e41`)), "float_type at " + value + ": must be a number of at most 40 digits"},

		{"text for a number", filtered(condition("custom_fields.x", "gt", `"1x"`)), "float_type at " + value + ": must be a number"},
		{"number with too many digits", filtered(condition("custom_fields.x", "lte", `1e41`)), "float_type at " + value + ": must be a number of at most 40 digits"},
		{"no number", filtered(condition("custom_fields.x", "gte", "")), "missing at " + value + ": field required"},
		{"list for one number", filtered(condition("custom_fields.x", "lt", `[1]`)), "string_type at " + value + ": must be one value"},
		{"one bound of two", filtered(condition("custom_fields.x", "between", `[1]`)), "too_long at " + value + ": must be two numbers"},
		{"three bounds of numbers", filtered(condition("custom_fields.x", "between", `[1,2,3]`)), "too_long at " + value + ": must be two numbers"},
		{"a number for two", filtered(condition("custom_fields.x", "between", `1`)), "list_type at " + value + ": must be an array"},
		{"second bound is text", filtered(condition("custom_fields.x", "between", `[1,"2x"]`)), "float_type at " + value + ".1: must be a number"},

		{"not a time", filtered(condition("created_at", "before", `"tomorrow"`)), "datetime_parsing at " + value + ": must be a time or a date, for example"},
		{"number for a time", filtered(condition("created_at", "before", `1`)), "datetime_parsing at " + value + ": must be a time or a date, for example"},
		{"time beyond the calendar", filtered(condition("created_at", "before", `"9999-12-31T23:59:59-01:00"`)), "datetime_parsing at " + value + ": must be in the years 1 to 9999 in UTC"},
		{"date beyond the calendar", filtered(condition("created_at", "before", `"0000-01-01"`)), "datetime_parsing at " + value + ": must be in the years 1 to 9999 in UTC"},
		{"one time of two", filtered(condition("created_at", "between", `["2026-01-01"]`)), "too_long at " + value + ": must be two times"},
		{"three times of two", filtered(condition("created_at", "between", `["2026-01-01","2026-01-02","2026-01-03"]`)), "too_long at " + value + ": must be two times"},
		{"second time is not one", filtered(condition("created_at", "between", `["2026-01-01","x"]`)), "datetime_parsing at " + value + ".1: "},
		{"no days", filtered(condition("created_at", "within_last_days", "")), "int_type at " + value + ": must be a number of days from 1 to 36500"},
		{"zero days", filtered(condition("created_at", "within_last_days", "0")), "int_type at " + value + ": "},
		{"more days than a century", filtered(condition("created_at", "within_last_days", "36501")), "int_type at " + value + ": "},
		{"no days to come", filtered(condition("created_at", "within_next_days", "0")), "int_type at " + value + ": must be a number of days from 1 to 36500"},
		{"half a day", filtered(condition("created_at", "within_last_days", "0.5")), "int_type at " + value + ": "},
		{"days as text", filtered(condition("created_at", "within_last_days", `"1"`)), "int_type at " + value + ": "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, mistakes := parse(t, c.settings)
			if len(mistakes) != 1 || !strings.HasPrefix(mistakes[0], c.want) {
				t.Errorf("mistakes %q, want one that begins with %q", mistakes, c.want)
			}
		})
	}
}

// A mistake names the UI's id of the condition, so that the UI can mark it.
func TestParseFilterNamesTheCondition(t *testing.T) {
	for _, body := range []string{
		`{"id":"c7","field":"email","operator":"equals"}`,
		`{"id":"c7","field":"shoe_size","operator":"equals","value":"1"}`,
		`{"id":"c7","field":"email","operator":"before","value":"1"}`,
	} {
		_, mistakes := parse(t, filtered(body))
		if len(mistakes) != 1 || !strings.HasSuffix(mistakes[0], `(id "c7")`) {
			t.Errorf("%s: %q", body, mistakes)
		}
	}
}

func TestParseFilterBounds(t *testing.T) {
	conditions := func(n int) string {
		list := repeat(n, func(int) string { return condition("email", "is_empty", "") })
		return `{"filters":{"conditions":` + list + `}}`
	}
	values := func(lists ...int) string {
		list := repeat(len(lists), func(i int) string { return condition("email", "in", repeat(lists[i], quoted("v"))) })
		return `{"filters":{"conditions":` + list + `}}`
	}
	tooDeep := "too_long at filters." + strings.Repeat("conditions.0.", 10) + "conditions: groups are nested more than 10 deep"
	full := []int{1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000}
	for _, c := range []struct{ name, settings, want string }{
		{"ten groups deep", nested(10), ""},
		{"eleven groups deep", nested(11), tooDeep},
		{"fourteen groups deep", nested(14), tooDeep},
		{"500 conditions", conditions(500), ""},
		{"501 conditions", conditions(501), "too_long at filters.conditions: at most 500 conditions, this has 501"},
		{"600 conditions", conditions(600), "too_long at filters.conditions: at most 500 conditions, this has 501"},
		{"1,000 values of a list", values(1_000), ""},
		{"10,000 values in all", values(full...), ""},
		{"10,001 values in all", values(append(full, 1, 1)...), "too_long at filters.conditions.10.value: a filter has at most 10000 values in all"},
		{"value of 1,000 characters", filtered(condition("email", "equals", `"`+strings.Repeat("é", 1_000)+`"`)), ""},
		{"custom field name of 200 characters", filtered(condition("custom_fields."+strings.Repeat("k", 200), "is_empty", "")), ""},
		{"number of 40 digits", filtered(condition("custom_fields.x", "gt", strings.Repeat("9", 40))), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, mistakes := parse(t, c.settings)
			if c.want == "" && len(mistakes) == 0 {
				return
			}
			if len(mistakes) != 1 || mistakes[0] != c.want {
				t.Errorf("mistakes %q, want %q", mistakes, c.want)
			}
		})
	}
}

// A bulk of an earlier version may hold numbers beyond today's bounds. They sort after every number within the bounds.
func TestSortKeys(t *testing.T) {
	keys := func(numbers ...json.Number) []string { return (&audience.Condition{Numbers: numbers}).SortKeys() }
	sorted := keys("-1e300", "-9e39", "-1", "-0.5", "0", "0.5", "1", "9e39", "1e300")
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1] >= sorted[i] {
			t.Errorf("key %d %q does not sort before key %d %q", i-1, sorted[i-1], i, sorted[i])
		}
	}
	nines := json.Number(strings.Repeat("9", 40))
	for _, same := range [][2]json.Number{{"1e300", "1e400"}, {"-1e300", "-1e400"}, {"1e41", nines}, {"-1e41", "-" + nines}, {"2.50", "2.5"}} {
		if k := keys(same[0], same[1]); k[0] != k[1] {
			t.Errorf("%s and %s sort as %q and %q", same[0], same[1], k[0], k[1])
		}
	}
	if k := keys("1e-300", "-1e-300", "0.0001", "1"); k[0] >= k[2] || k[1] >= k[2] || k[0] >= k[3] {
		t.Errorf("tiny numbers sort beyond larger ones: %q", k)
	}
}

// Key is the name by which a lead's custom field is looked up.
func TestKey(t *testing.T) {
	for field, want := range map[string]string{"custom_fields.Plan": "Plan", "custom_fields.custom_fields.x": "custom_fields.x", "custom_fields.a b": "a b"} {
		c := mustParse(t, filtered(condition(field, "is_empty", "")))
		if got := c.Filter.Children[0].Cond.Key(); got != want {
			t.Errorf("key of %s is %q, want %q", field, got, want)
		}
	}
}
