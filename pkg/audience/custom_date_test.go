package audience

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/dates"
	"herald/pkg/message"
)

func zoneNamed(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := dates.Zone(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// The values of custom fields that are dates, and in which form.
func TestCaseCustomFieldsThatAreDates(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string // "" is no date
	}{
		{"2024-01-31", "D2024-01-31"},
		{" 31.01.2024 ", "D2024-01-31"},
		{"1/31/2024", "D2024-01-31"},
		{"31 Jan 2024", "D2024-01-31"},
		{"2024-02-29", "D2024-02-29"},
		{"0001-01-01", "D0001-01-01"},
		{"9999-12-31", "D9999-12-31"},
		{"31.01.2024 10:00", "L2024-01-31T10:00:00.000000"},
		{"2024-01-31T10:00:00.1234567", "L2024-01-31T10:00:00.123456"},
		{"2024-01-31T10:00:00Z", "I2024-01-31T10:00:00.000000"},
		{"2024-01-31T10:00:00+02:00", "I2024-01-31T08:00:00.000000"},
		{"2024-01-31T23:59:59.9999999-12:00", "I2024-02-01T11:59:59.999999"},
		{"1706695500", "I2024-01-31T10:05:00.000000"},
		{json.Number("1706695500"), "I2024-01-31T10:05:00.000000"},
		{json.Number("1706695500123"), "I2024-01-31T10:05:00.123000"},
		{1706695500.0, "I2024-01-31T10:05:00.000000"},
		{1706695500, "I2024-01-31T10:05:00.000000"},

		{"1/2/2024", ""},
		{"2023-02-29", ""},
		{"31.02.2024", ""},
		{"0000-01-01", ""},
		{"9999-12-31T23:59:59-01:00", ""},
		{"0001-01-01T00:00:00+01:00", ""},
		{"soon", ""},
		{"", ""},
		{"2024", ""},
		{"20240131", ""},
		{json.Number("20240131"), ""},
		{json.Number("1706695500.5"), ""},
		{nil, ""},
		{true, ""},
		{[]any{"2024-01-31"}, ""},
		{map[string]any{"at": "2024-01-31"}, ""},
	} {
		got, isDate := CustomDates(map[string]any{"k": c.value, "other": "x"})["k"]
		if got != c.want || isDate != (c.want != "") {
			t.Errorf("%v: %q, want %q", c.value, got, c.want)
		}
	}
}

// The first moment at which clocks show a time, where clocks change and where they do not.
func TestFirstMoment(t *testing.T) {
	for _, c := range []struct{ zone, clock, want string }{
		{"UTC", "2024-01-31T00:00:00", "2024-01-31T00:00:00Z"},
		{"Europe/Berlin", "2024-01-31T00:00:00", "2024-01-30T23:00:00Z"},
		{"Europe/Berlin", "2024-07-31T00:00:00", "2024-07-30T22:00:00Z"},
		{"Europe/Berlin", "2024-03-31T02:30:00", "2024-03-31T01:00:00Z"}, // clocks skip from 2 to 3
		{"Europe/Berlin", "2024-03-31T03:00:00", "2024-03-31T01:00:00Z"},
		{"Europe/Berlin", "2024-10-27T02:30:00", "2024-10-27T00:30:00Z"}, // shown twice, again at 01:30Z
		{"Europe/Berlin", "2024-10-27T03:00:00", "2024-10-27T02:00:00Z"},
		{"America/New_York", "2024-11-03T01:30:00", "2024-11-03T05:30:00Z"},
		{"America/Sao_Paulo", "2018-11-04T00:00:00", "2018-11-04T03:00:00Z"}, // the day begins at 1
		{"Asia/Amman", "2021-10-29T00:00:00", "2021-10-28T21:00:00Z"},        // midnight is shown twice
		{"America/Havana", "2024-11-03T00:00:00", "2024-11-03T04:00:00Z"},
		{"Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00:00Z"}, // a day that Samoa left out begins with the next one
		{"Pacific/Apia", "2011-12-31T00:00:00", "2011-12-30T10:00:00Z"},
		{"Pacific/Kiritimati", "9999-12-31T00:00:00", "9999-12-30T10:00:00Z"},
	} {
		clock, err := time.Parse("2006-01-02T15:04:05", c.clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := firstMoment(clock, zoneNamed(t, c.zone)).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s is %s, want %s", c.clock, c.zone, got, c.want)
		}
	}
}

// Days and times of conditions are those of the time zone in the request.
func TestCaseConditionsInATimezone(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02T15:04:05.999999", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// The request is received at 2025-06-01T12:00:00Z, 14:00 in Berlin.
	for _, c := range []struct {
		field, op, value string
		times, clocks    []time.Time
	}{
		{"created_at", "before", `"2025-01-31"`, []time.Time{at("2025-01-30T23:00:00")}, nil},
		{"created_at", "after", `"2025-07-31T10:00"`, []time.Time{at("2025-07-31T08:00:00")}, nil},
		{"created_at", "after", `"2025-07-31T10:00Z"`, []time.Time{at("2025-07-31T10:00:00")}, nil},
		{"created_at", "equals", `"2025-03-30"`, []time.Time{at("2025-03-29T23:00:00"), at("2025-03-30T21:59:59.999999")}, nil}, // a day of 23 hours
		{"created_at", "between", `["2025-01-31","2025-01-31"]`, []time.Time{at("2025-01-30T23:00:00"), at("2025-01-31T22:59:59.999999")}, nil},
		{"created_at", "within_last_days", `90`, []time.Time{at("2025-03-03T13:00:00"), at("2025-06-01T12:00:00")}, nil}, // 14:00 of another offset
		{"created_at", "within_next_days", `1`, []time.Time{at("2025-06-01T12:00:00"), at("2025-06-02T12:00:00")}, nil},

		{"custom_fields.renewal", "before", `"2025-01-31"`, []time.Time{at("2025-01-30T23:00:00")}, []time.Time{at("2025-01-31T00:00:00")}},
		{"custom_fields.renewal", "after", `"31.01.2025 10:00"`, []time.Time{at("2025-01-31T09:00:00")}, []time.Time{at("2025-01-31T10:00:00")}},
		{"custom_fields.renewal", "after", `"2025-01-31T10:00:00.0000019Z"`, []time.Time{at("2025-01-31T10:00:00.000001")}, []time.Time{at("2025-01-31T11:00:00.000001")}},
		{
			"custom_fields.renewal", "between", `["2025-01-31","1/31/2025"]`,
			[]time.Time{at("2025-01-30T23:00:00"), at("2025-01-31T22:59:59.999999")}, []time.Time{at("2025-01-31T00:00:00"), at("2025-01-31T23:59:59.999999")},
		},
		{
			"custom_fields.renewal", "within_last_days", `7`,
			[]time.Time{at("2025-05-25T12:00:00"), at("2025-06-01T12:00:00")}, []time.Time{at("2025-05-25T14:00:00"), at("2025-06-01T14:00:00")},
		},
		{
			"custom_fields.renewal", "within_next_days", `7`,
			[]time.Time{at("2025-06-01T12:00:00"), at("2025-06-08T12:00:00")}, []time.Time{at("2025-06-01T14:00:00"), at("2025-06-08T14:00:00")},
		},
		{
			"custom_fields.renewal", "within_last_days", `0`,
			[]time.Time{at("2025-05-31T22:00:00"), at("2025-06-01T12:00:00")}, []time.Time{at("2025-06-01T00:00:00"), at("2025-06-01T14:00:00")},
		},
		{
			"custom_fields.renewal", "within_next_days", `0`,
			[]time.Time{at("2025-06-01T12:00:00"), at("2025-06-01T21:59:59.999999")}, []time.Time{at("2025-06-01T14:00:00"), at("2025-06-01T23:59:59.999999")},
		},
		{
			"custom_fields.renewal", "between", `["9999-12-31","9999-12-31T23:30:00Z"]`, // 00:30 in the year 10000 in Berlin
			[]time.Time{at("9999-12-30T23:00:00"), at("9999-12-31T23:30:00")}, []time.Time{at("9999-12-31T00:00:00"), at("9999-12-31T23:59:59.999999")},
		},
	} {
		body := fmt.Sprintf(`{"timezone":"Europe/Berlin","filters":{"conditions":[{"field":%q,"operator":%q,"value":%s}]}}`, c.field, c.op, c.value)
		criteria, errs := parseSettings(t, body)
		if len(errs) > 0 {
			t.Errorf("%s: %v", body, errs)
			continue
		}
		got := criteria.Filter.Children[0].Cond
		if d := cmp.Diff([2][]time.Time{c.times, c.clocks}, [2][]time.Time{got.Times, got.Clocks}); d != "" {
			t.Errorf("%s: %s", body, d)
		}
		// What is stored with a bulk means the same when it is read.
		b, err := json.Marshal(criteria)
		if err != nil {
			t.Fatal(err)
		}
		var back Criteria
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(got, back.Filter.Children[0].Cond); d != "" {
			t.Errorf("%s: stored: %s", body, d)
		}
	}
	// The last day of the calendar ends with the calendar, also in a zone behind UTC.
	c, errs := parseSettings(t, `{"timezone":"America/New_York","filters":{"conditions":[{"field":"created_at","operator":"equals","value":"9999-12-31"}]}}`)
	if want := []time.Time{at("9999-12-31T05:00:00"), at("9999-12-31T23:59:59.999999")}; len(errs) > 0 || !cmp.Equal(c.Filter.Children[0].Cond.Times, want) {
		t.Errorf("%+v, %v", c.Filter, errs)
	}
}

func TestCaseMistakesInDates(t *testing.T) {
	const days = "must be a number of days from 0 to 36500"
	for condition, want := range map[string]string{
		`"before","value":"soon"`:                     "value: must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`"before","value":20250131`:                   "value: must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`"before","value":"1/2/2025"`:                 "value: can be day/month or month/day: write the year first, as in 2025-01-31",
		`"after","value":"2025-02-29"`:                "value: must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`"after","value":"0000-01-01"`:                "value: " + message.TimeBound,
		`"after"`:                                     "value: field required",
		`"between","value":["2025-01-31"]`:            "value: must be two times",
		`"between","value":["1/2/2025","2025-01-31"]`: "value.0: can be day/month or month/day: write the year first, as in 2025-01-31",
		`"between","value":["2025-01-31","soon"]`:     "value.1: must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`"between","value":[1,"2025-01-31"]`:          "value.0: must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`"between","value":[1,"soon"]`:                "value.1: must be a number, or both must be dates",
		`"between","value":"2025-01-31"`:              "value: must be an array",
		`"within_last_days","value":-1`:               "value: " + days,
		`"within_last_days","value":36501`:            "value: " + days,
		`"within_next_days","value":1.5`:              "value: " + days,
		`"within_next_days","value":"7"`:              "value: " + days,
		`"within_next_days"`:                          "value: " + days,
	} {
		_, errs := parseSettings(t, `{"filters":{"conditions":[{"field":"custom_fields.renewal","operator":`+condition+`}]}}`)
		if len(errs) != 1 {
			t.Errorf("%s: %v", condition, errs)
			continue
		}
		path := make([]string, len(errs[0].Loc))
		for i, part := range errs[0].Loc {
			path[i] = fmt.Sprint(part)
		}
		if got := strings.TrimPrefix(strings.Join(path, "."), "filters.conditions.0.") + ": " + errs[0].Msg; got != want {
			t.Errorf("%s: %q, want %q", condition, got, want)
		}
	}
	// A date before the calendar's beginning in UTC.
	if _, errs := parseSettings(t, `{"timezone":"Europe/Berlin","filters":{"conditions":[{"field":"created_at","operator":"after","value":"0001-01-01"}]}}`); len(errs) != 1 || errs[0].Msg != message.TimeBound {
		t.Error(errs)
	}
	for _, zone := range []string{`"Mars/Phobos"`, `"Local"`, `"+02:00"`, `"../UTC"`} {
		_, errs := parseSettings(t, `{"all_leads":true,"timezone":`+zone+`}`)
		if len(errs) != 1 || errs[0].Msg != "must be the IANA name of a time zone, for example Europe/Berlin" || errs[0].Loc[0] != "timezone" {
			t.Errorf("%s: %v", zone, errs)
		}
	}
	if _, errs := parseSettings(t, `{"all_leads":true,"timezone":"`+strings.Repeat("x", 101)+`"}`); len(errs) != 1 || errs[0].Type != message.SlugTooLong {
		t.Error(errs)
	}
}

// between compares numbers or dates, as its values say.
func TestCaseBetweenComparesWhatItsValuesAre(t *testing.T) {
	lead := &message.Lead{CustomFields: map[string]any{"n": "1,234.50", "score": "15", "renewal": "2025-01-31"}}
	for condition, want := range map[string]bool{
		`score","operator":"between","value":[10,20]`:                      true,
		`score","operator":"between","value":["10","20"]`:                  true,
		`score","operator":"between","value":["2025-01-01","2025-12-31"]`:  false,
		`renewal","operator":"between","value":[1,99999999]`:               false,
		`renewal","operator":"between","value":["2025-01-31","1/31/2025"]`: true,
		`renewal","operator":"between","value":["2025-02-01","1/31/2025"]`: false, // the second precedes the first
	} {
		c, errs := parseSettings(t, `{"filters":{"conditions":[{"field":"custom_fields.`+condition+`}]}}`)
		if len(errs) > 0 || c.Match(NewPerson(lead)) != want {
			t.Errorf("%s: %v, want %t", condition, errs, want)
		}
	}
}

// A day is neither before nor after itself, nor a time before or after itself.
func TestCaseBeforeAndAfterExcludeTheirBound(t *testing.T) {
	for renewal, others := range map[string][2]string{
		"2025-01-31":           {"2025-01-30", "2025-02-01"},
		"31.01.2025 10:00":     {"2025-01-31 09:59:59.999999", "2025-01-31 10:00:00.000001"},
		"2025-01-31T10:00:00Z": {"2025-01-31T09:59:59.999999Z", "2025-01-31T10:00:00.000001Z"},
	} {
		lead := NewPerson(&message.Lead{CustomFields: map[string]any{"renewal": renewal}})
		for _, c := range []struct {
			op, value string
			want      bool
		}{
			{"before", renewal, false}, {"after", renewal, false}, {"before", others[0], false}, {"after", others[0], true}, {"before", others[1], true}, {"after", others[1], false},
		} {
			criteria, errs := parseSettings(t, fmt.Sprintf(`{"filters":{"conditions":[{"field":"custom_fields.renewal","operator":%q,"value":%q}]}}`, c.op, c.value))
			if len(errs) > 0 || criteria.Match(lead) != c.want {
				t.Errorf("%s %s %s: %v, want %t", renewal, c.op, c.value, errs, c.want)
			}
		}
	}
}

// An explanation says that a text is no number or no date, and nothing of a value that can be compared or is missing.
func TestCaseExplanationsOfValuesThatCannotBeCompared(t *testing.T) {
	lead := &message.Lead{CustomFields: map[string]any{
		"amount": "1,234.50", "price": "$5", "share": "5 %", "n": "5", "flag": true, "renewal": "2025-01-31", "order": "1/2/2025", "text": "soon", "list": []any{"2025-01-31"}, "none": nil,
	}}
	for condition, want := range map[string]string{
		`amount","operator":"gt","value":1`:                                "is not a number",
		`price","operator":"between","value":[1,9]`:                        "is not a number",
		`share","operator":"lte","value":9`:                                "is not a number",
		`flag","operator":"gte","value":0`:                                 "is not a number",
		`n","operator":"gt","value":9`:                                     "",
		`none","operator":"gt","value":9`:                                  "",
		`amount","operator":"equals","value":"1"`:                          "",
		`text","operator":"before","value":"2025-01-01"`:                   "is not a date",
		`flag","operator":"within_last_days","value":1`:                    "is not a date",
		`n","operator":"between","value":["2025-01-01","2025-01-02"]`:      "is not a date",
		`list","operator":"within_next_days","value":1`:                    "is not a date",
		`order","operator":"after","value":"2025-01-01"`:                   "is not a date: it can be read as day/month and as month/day",
		`renewal","operator":"before","value":"2025-01-01"`:                "",
		`missing","operator":"before","value":"2025-01-01"`:                "",
		`renewal","operator":"between","value":["2025-01-01","1/31/2025"]`: "",
	} {
		c, errs := parseSettings(t, `{"filters":{"conditions":[{"field":"custom_fields.`+condition+`}]}}`)
		if len(errs) > 0 {
			t.Fatalf("%s: %v", condition, errs)
		}
		_, verdicts := c.Explain(NewPerson(lead))
		if got := verdicts[0].Conditions[0]; got.Note != want || want != "" && got.Matched {
			t.Errorf("%s: %+v, want the note %q", condition, got, want)
		}
	}
}
