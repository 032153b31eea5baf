package audience_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// ann is a lead with a value of every kind that a filter compares.
func ann() *message.Lead {
	contacted := now.Add(-24 * time.Hour)
	return &message.Lead{
		ID: uuid.MustParse(id1), FirstName: "Ann", LastName: "Weiß", Email: "Ann@Example.com", Company: "Acme", Phone: "+49 30", Title: "CEO",
		AssigneeID: "User-1", Tags: []string{"VIP", "Größe"},
		CustomFields: map[string]any{
			"plan": "Gold", "score": json.Number("12.50"), "ratio": 0.1, "count": 7, "active": true, "none": nil, "empty": "",
			"text number": " +8.0 ", "list": []any{"a", 1.0},
		},
		CreatedAt: now.Add(-48 * time.Hour), UpdatedAt: now.Add(-36 * time.Hour), LastContactedAt: &contacted,
	}
}

// blank is a lead without values.
func blank() *message.Lead {
	return &message.Lead{ID: uuid.MustParse(id2), CreatedAt: now.Add(-48 * time.Hour), UpdatedAt: now.Add(-36 * time.Hour)}
}

func matches(t *testing.T, settings string, l *message.Lead) bool {
	t.Helper()
	c := mustParse(t, settings)
	return c.Match(audience.NewPerson(l))
}

// TestConditions compares each operator with a value that fits, one that does not, and a missing value.
func TestConditions(t *testing.T) {
	quote := func(at time.Time) string { return `"` + at.Format(time.RFC3339Nano) + `"` }
	stored := func(at time.Time) string { return quote(at.Truncate(time.Microsecond)) }
	created := now.Add(-48 * time.Hour)
	justBefore, justAfter := stored(created.Add(-time.Microsecond)), stored(created.Add(time.Microsecond))
	for _, c := range []struct {
		field, op, value string
		ann, blank       bool
	}{
		{"first_name", "equals", `"ANN"`, true, false},
		{"first_name", "equals", `"an"`, false, false},
		{"last_name", "equals", `"WEISS"`, true, false},
		{"full_name", "equals", `"ann weiss"`, true, false},
		{"first_name", "not_equals", `"ann"`, false, true},
		{"first_name", "not_equals", `"bob"`, true, true},
		{"email", "contains", `"EXAMPLE"`, true, false},
		{"email", "contains", `["x@y","example"]`, true, false},
		{"email", "contains", `["x@y","z"]`, false, false},
		{"email", "not_contains", `["x@y","z"]`, true, true},
		{"email", "not_contains", `["x@y","example"]`, false, true},
		{"email", "starts_with", `"ann@"`, true, false},
		{"email", "starts_with", `"example"`, false, false},
		{"email", "ends_with", `".com"`, true, false},
		{"email", "ends_with", `"ann@"`, false, false},
		{"first_name", "in", `["bob","ANN"]`, true, false},
		{"first_name", "in", `["bob"]`, false, false},
		{"first_name", "not_in", `["bob"]`, true, true},
		{"first_name", "not_in", `["bob","ann"]`, false, true},
		{"first_name", "is_empty", ``, false, true},
		{"first_name", "is_not_empty", ``, true, false},

		{"tags", "contains", `"vip"`, true, false},
		{"tags", "contains", `["x","GRÖSSE"]`, true, false},
		{"tags", "contains", `"vi"`, false, false},
		{"tags", "not_contains", `["x"]`, true, true},
		{"tags", "not_contains", `["x","vip"]`, false, true},
		{"tags", "contains_all", `["vip","größe"]`, true, false},
		{"tags", "contains_all", `["vip","x"]`, false, false},
		{"tags", "is_empty", ``, false, true},
		{"tags", "is_not_empty", ``, true, false},

		{"created_at", "before", justAfter, true, true},
		{"created_at", "before", stored(created), false, false},
		{"created_at", "after", justBefore, true, true},
		{"created_at", "after", stored(created), false, false},
		{"created_at", "between", "[" + stored(created) + "," + stored(created) + "]", true, true},
		{"created_at", "between", "[" + justAfter + "," + stored(now) + "]", false, false},
		{"created_at", "between", "[" + quote(created.Add(-time.Hour)) + "," + justBefore + "]", false, false},
		{"created_at", "within_last_days", `2`, true, true},
		{"created_at", "within_last_days", `1`, false, false},
		{"created_at", "is_empty", ``, false, false},
		{"created_at", "is_not_empty", ``, true, true},
		{"updated_at", "before", quote(now.Add(-35 * time.Hour)), true, true},
		{"updated_at", "before", quote(now.Add(-40 * time.Hour)), false, false},
		{"last_contacted_at", "within_last_days", `1`, true, false},
		{"last_contacted_at", "after", quote(now.Add(-25 * time.Hour)), true, false},
		{"last_contacted_at", "before", quote(now), true, false},
		{"last_contacted_at", "is_empty", ``, false, true},
		{"last_contacted_at", "is_not_empty", ``, true, false},

		{"custom_fields.plan", "equals", `"GOLD"`, true, false},
		{"custom_fields.Plan", "equals", `"gold"`, false, false}, // names are case-sensitive
		{"custom_fields.plan", "is_empty", ``, false, true},
		{"custom_fields.none", "is_empty", ``, true, true},
		{"custom_fields.empty", "is_empty", ``, true, true},
		{"custom_fields.score", "equals", `12.5`, true, false},
		{"custom_fields.active", "equals", `true`, true, false},
		{"custom_fields.list", "contains", `"a"`, true, false},
		{"custom_fields.score", "gt", `12.49`, true, false},
		{"custom_fields.score", "gt", `12.5`, false, false},
		{"custom_fields.score", "gte", `12.5`, true, false},
		{"custom_fields.score", "gte", `12.51`, false, false},
		{"custom_fields.score", "lt", `12.51`, true, false},
		{"custom_fields.score", "lt", `12.5`, false, false},
		{"custom_fields.score", "lte", `12.5`, true, false},
		{"custom_fields.score", "lte", `12.49`, false, false},
		{"custom_fields.score", "between", `[12.5,12.5]`, true, false},
		{"custom_fields.score", "between", `[0,12.49]`, false, false},
		{"custom_fields.score", "between", `[12.51,99]`, false, false},
		{"custom_fields.ratio", "gte", `0.1`, true, false},
		{"custom_fields.count", "lte", `7`, true, false},
		{"custom_fields.text number", "gte", `8`, true, false},
		{"custom_fields.plan", "lt", `99`, false, false}, // not a number
		{"custom_fields.active", "gte", `0`, false, false},
	} {
		settings := filtered(condition(c.field, c.op, c.value))
		if got := matches(t, settings, ann()); got != c.ann {
			t.Errorf("%s %s %s matches ann: %v", c.field, c.op, c.value, got)
		}
		if got := matches(t, settings, blank()); got != c.blank {
			t.Errorf("%s %s %s matches the lead without values: %v", c.field, c.op, c.value, got)
		}
	}
}

// TestGroups combines a condition that ann meets (yes) with one that she does not (no).
func TestGroups(t *testing.T) {
	yes, no := condition("first_name", "equals", `"ann"`), condition("first_name", "equals", `"bob"`)
	group := func(logic, conditions string) string {
		return `{"logic":"` + logic + `","conditions":[` + conditions + `]}`
	}
	for filter, want := range map[string]bool{
		group("AND", yes+","+yes):                              true,
		group("AND", yes+","+no):                               false,
		group("AND", no+","+yes):                               false,
		group("OR", no+","+yes):                                true,
		group("OR", yes+","+no):                                true,
		group("OR", no+","+no):                                 false,
		group("AND", yes+","+group("OR", no+","+yes)):          true,
		group("OR", no+","+group("AND", yes+","+no)):           false,
		group("AND", group("OR", yes)+","+group("AND", no)):    false,
		group("OR", group("AND", no+","+no)+","+group("", no)): false,
	} {
		if got := matches(t, `{"filters":`+filter+`}`, ann()); got != want {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
}

func TestCriteria(t *testing.T) {
	yes, no := filterOf(`"ann"`), filterOf(`"bob"`)
	for _, c := range []struct {
		name, settings string
		want           bool
	}{
		{"her id", `{"lead_ids":["` + id3 + `","` + id1 + `"]}`, true},
		{"other ids", `{"lead_ids":["` + id3 + `","` + id2 + `"]}`, false},
		{"every word", `{"search_keyword":"weiss acme"}`, true},
		{"a part of a word", `{"search_keyword":"cm"}`, true},
		{"one word is missing", `{"search_keyword":"weiss bob"}`, false},
		{"one word is missing, the first", `{"search_keyword":"bob weiss"}`, false},
		{"the keyword does not search the title", `{"search_keyword":"ceo"}`, false},
		{"the keyword searches the phone", `{"search_keyword":"+49"}`, true},
		{"her assignee", `{"assignees":["x","User-1"]}`, true},
		{"assignees are not folded", `{"assignees":["user-1"]}`, false},
		{"every lead", `{"all_leads":true}`, true},

		{"all criteria hold", `{` + yes + `,"assignees":["User-1"]}`, true},
		{"the second of all fails", `{` + yes + `,"assignees":["x"]}`, false},
		{"the first of all fails", `{` + no + `,"assignees":["User-1"]}`, false},
		{"any holds", `{"match":"any",` + no + `,"assignees":["User-1"]}`, true},
		{"the first of any holds", `{"match":"any",` + yes + `,"assignees":["x"]}`, true},
		{"none of any holds", `{"match":"any",` + no + `,"assignees":["x"]}`, false},
		{"all_leads as one of all", `{"all_leads":true,` + no + `}`, false},
		{"all_leads as one of any", `{"match":"any","all_leads":true,` + no + `}`, true},

		{"excluded by id", `{"all_leads":true,"exclude_lead_ids":["` + id2 + `","` + id1 + `"]}`, false},
		{"other ids excluded", `{"all_leads":true,"exclude_lead_ids":["` + id2 + `"]}`, true},
		{"excluded by a tag", `{"all_leads":true,"exclude_tags":["x","vip"]}`, false},
		{"other tags excluded", `{"all_leads":true,"exclude_tags":["x"]}`, true},
		{"an exclusion outweighs any", `{"match":"any","all_leads":true,"exclude_tags":["vip"]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := matches(t, c.settings, ann()); got != c.want {
				t.Errorf("%s: %v, want %v", c.settings, got, c.want)
			}
		})
	}
	if matches(t, `{"assignees":["x"]}`, blank()) {
		t.Error("a lead without an assignee matches assignees")
	}
	if stored := (&audience.Criteria{Assignees: []string{""}}); stored.Match(audience.NewPerson(blank())) {
		t.Error("a lead without an assignee matches an empty assignee")
	}
	if none := (&audience.Criteria{}); none.Match(audience.NewPerson(ann())) {
		t.Error("criteria without a criterion match a lead")
	}
}

// filterOf is the filters setting with one condition on the first name.
func filterOf(name string) string {
	return `"filters":{"conditions":[` + condition("first_name", "equals", name) + `]}`
}

// Times are compared as they are stored, to the microsecond.
func TestTimesAreComparedToTheMicrosecond(t *testing.T) {
	l := ann()
	l.CreatedAt = time.Date(2026, 1, 1, 0, 0, 0, 1_999, time.UTC)
	if matches(t, filtered(condition("created_at", "after", `"2026-01-01T00:00:00.000001Z"`)), l) {
		t.Error("a fraction of a microsecond counts")
	}
}
