package audience_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// now is the time of every request in these tests. It is more precise than a stored time.
var now = time.Date(2026, 3, 31, 12, 0, 0, 123_456_789, time.UTC)

const (
	id1 = "11111111-0000-4000-8000-000000000001"
	id2 = "22222222-0000-4000-8000-000000000002"
	id3 = "33333333-0000-4000-8000-000000000003"
)

func ids(texts ...string) []uuid.UUID {
	var out []uuid.UUID
	for _, s := range texts {
		out = append(out, uuid.MustParse(s))
	}
	return out
}

// decoded is a request body as the API decodes it.
func decoded(t testing.TB, body string) any {
	t.Helper()
	v, err := wire.Decode([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

// parse reads bulk_settings and returns the mistakes as "type at path: message".
func parse(t testing.TB, settings string) (audience.Criteria, []string) {
	t.Helper()
	errs := &wire.Errors{}
	c := audience.Parse(errs, wire.NewObject(errs, decoded(t, settings)), now)
	var mistakes []string
	for _, e := range errs.List() {
		path := make([]string, len(e.Loc))
		for i, part := range e.Loc {
			path[i] = fmt.Sprint(part)
		}
		mistakes = append(mistakes, e.Type+" at "+strings.Join(path, ".")+": "+e.Msg)
	}
	return c, mistakes
}

// mustParse reads bulk_settings that have no mistake.
func mustParse(t testing.TB, settings string) audience.Criteria {
	t.Helper()
	c, mistakes := parse(t, settings)
	if len(mistakes) > 0 {
		t.Fatalf("%s: %q", settings, mistakes)
	}
	return c
}

// filtered wraps conditions into bulk_settings.
func filtered(conditions string) string {
	return `{"filters":{"conditions":[` + conditions + `]}}`
}

// repeat returns a JSON array of n elements, each made from its number.
func repeat(n int, element func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = element(i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func quoted(prefix string) func(i int) string {
	return func(i int) string { return fmt.Sprintf("%q", fmt.Sprint(prefix, i)) }
}

func idNumber(i int) string { return fmt.Sprintf(`"11111111-0000-4000-8000-%012d"`, i) }

func TestParseReadsEachSetting(t *testing.T) {
	for settings, want := range map[string]audience.Criteria{
		`{"lead_ids":["` + id3 + `","` + id1 + `","` + id3 + `","` + id2 + `"]}`: {LeadIDs: ids(id1, id2, id3)},
		`{"search_keyword":"  Ann\tSTRASSE  İ "}`:                                {Words: []string{"ann", "strasse", "i̇"}},
		`{"assignees":["User-1","user-2"]}`:                                      {Assignees: []string{"User-1", "user-2"}},
		`{"all_leads":true}`:                                                     {AllLeads: true},
		`{"all_leads":true,"match":"ALL"}`:                                       {AllLeads: true},
		`{"all_leads":true,"match":"Any"}`:                                       {AllLeads: true, Any: true},
		`{"all_leads":true,"allow_duplicate_recipients":true}`:                   {AllLeads: true, AllowDuplicateRecipients: true},
		`{"all_leads":true,"exclude_lead_ids":["` + id2 + `","` + id1 + `"]}`:    {AllLeads: true, ExcludeLeadIDs: ids(id1, id2)},
		`{"all_leads":true,"exclude_tags":["VIP","straße"]}`:                     {AllLeads: true, ExcludeTags: []string{"vip", "strasse"}},
		`{"all_leads":true,"exclude_tags":[],"exclude_lead_ids":[]}`:             {AllLeads: true},
		`{"all_leads":true,"search_keyword":null,"lead_ids":null}`:               {AllLeads: true},
	} {
		got := mustParse(t, settings)
		for _, empty := range []*[]uuid.UUID{&got.LeadIDs, &got.ExcludeLeadIDs} {
			if len(*empty) == 0 {
				*empty = nil
			}
		}
		if len(got.Assignees) == 0 {
			got.Assignees = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", settings, got, want)
		}
	}
}

func TestParseReportsMistakes(t *testing.T) {
	const missing = "missing at : "
	tooMany := func(n int) string { return fmt.Sprintf("must have at most %d elements", n) }
	for _, c := range []struct{ name, settings, want string }{
		{"no criterion", `{}`, missing},
		{"exclusions only", `{"exclude_tags":["a"],"match":"any"}`, missing},
		{"all_leads is false", `{"all_leads":false}`, missing},
		{"criteria are null", `{"lead_ids":null,"filters":null,"search_keyword":null,"assignees":null}`, missing},
		{"no lead id", `{"lead_ids":[]}`, "too_short at lead_ids: must have at least 1 element"},
		{"no assignee", `{"assignees":[]}`, "too_short at assignees: must have at least 1 element"},
		{"assignee without text", `{"assignees":[""]}`, "string_too_short at assignees.0: "},
		{"long assignee", `{"assignees":["` + strings.Repeat("é", 129) + `"]}`, "string_too_long at assignees.0: must have at most 128 characters"},
		{"many assignees", `{"assignees":` + repeat(1_001, quoted("a")) + `}`, "too_long at assignees: " + tooMany(1_000)},
		{"many lead ids", `{"lead_ids":` + repeat(100_001, idNumber) + `}`, "too_long at lead_ids: " + tooMany(100_000)},
		{"many excluded ids", `{"all_leads":true,"exclude_lead_ids":` + repeat(100_001, idNumber) + `}`, "too_long at exclude_lead_ids: " + tooMany(100_000)},
		{"many excluded tags", `{"all_leads":true,"exclude_tags":` + repeat(1_001, quoted("t")) + `}`, "too_long at exclude_tags: " + tooMany(1_000)},
		{"long excluded tag", `{"all_leads":true,"exclude_tags":["` + strings.Repeat("é", 201) + `"]}`, "string_too_long at exclude_tags.0: must have at most 200 characters"},
		{"keyword of white space", `{"search_keyword":" \t "}`, "string_too_short at search_keyword: must have at least one word"},
		{"long keyword", `{"search_keyword":"` + strings.Repeat("é", 201) + `"}`, "string_too_long at search_keyword: must have at most 200 characters"},
		{"keyword is a number", `{"search_keyword":1}`, "string_type at search_keyword: "},
		{"unknown match", `{"all_leads":true,"match":"some"}`, "enum at match: must be all or any"},
		{"unknown setting", `{"all_leads":true,"everyone":true}`, "extra_forbidden at everyone: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, mistakes := parse(t, c.settings)
			if len(mistakes) != 1 || !strings.HasPrefix(mistakes[0], c.want) {
				t.Errorf("mistakes %q, want one that begins with %q", mistakes, c.want)
			}
		})
	}
}

// The API accepts values up to these bounds.
func TestParseTakesValuesAtTheirBounds(t *testing.T) {
	for name, settings := range map[string]string{
		"lead ids":      `{"lead_ids":` + repeat(100_000, idNumber) + `}`,
		"excluded ids":  `{"all_leads":true,"exclude_lead_ids":` + repeat(100_000, idNumber) + `}`,
		"assignees":     `{"assignees":` + repeat(1_000, quoted("a")) + `}`,
		"assignee":      `{"assignees":["` + strings.Repeat("é", 128) + `"]}`,
		"excluded tags": `{"all_leads":true,"exclude_tags":` + repeat(1_000, quoted("t")) + `}`,
		"excluded tag":  `{"all_leads":true,"exclude_tags":["` + strings.Repeat("é", 200) + `"]}`,
		"keyword":       `{"search_keyword":"` + strings.Repeat("é", 200) + `"}`,
	} {
		if _, mistakes := parse(t, settings); len(mistakes) > 0 {
			t.Errorf("%s: %q", name, mistakes)
		}
	}
}

// TestComparisons fixes what each criterion costs, and the bound on their sum.
func TestComparisons(t *testing.T) {
	condition := func(field, op, value string) string {
		return filtered(fmt.Sprintf(`{"field":%q,"operator":%q,"value":%s}`, field, op, value))
	}
	three := `["a","b","c"]`
	for settings, want := range map[string]int{
		`{"all_leads":true}`: 0,
		`{"lead_ids":["` + id1 + `"],"assignees":["a"],"search_keyword":"x y z"}`: 3,
		`{"all_leads":true,"exclude_tags":["a"]}`:                                 1,
		`{"all_leads":true,"exclude_tags":["a","b","c"]}`:                         1,
		`{"all_leads":true,"exclude_tags":["a","b","c","d"]}`:                     2,
		condition("tags", "contains_all", `["a","b","c","d"]`):                    2,
		condition("email", "contains", three):                                     3,
		condition("email", "not_contains", three):                                 3,
		condition("email", "starts_with", `"a"`):                                  1,
		condition("email", "ends_with", `"a"`):                                    1,
		condition("email", "equals", `"a"`):                                       0,
		condition("email", "in", three):                                           0,
		condition("created_at", "after", `"2026-01-01"`):                          0,
		condition("custom_fields.x", "in", three):                                 1,
		condition("custom_fields.x", "gt", `1`):                                   1,
		condition("custom_fields.x", "contains", three):                           3,
		filtered(`{"conditions":[{"field":"email","operator":"starts_with","value":"a"},{"field":"city","operator":"contains","value":["b","c"]}]}`): 3,
	} {
		c := mustParse(t, settings)
		if got := c.Comparisons(); got != want {
			t.Errorf("%s: %d comparisons, want %d", settings, got, want)
		}
	}

	atBound := condition("email", "contains", repeat(1_000, quoted("v")))
	if c := mustParse(t, atBound); c.Comparisons() != audience.MaxComparisons {
		t.Errorf("%d comparisons, want the bound", c.Comparisons())
	}
	_, mistakes := parse(t, strings.TrimSuffix(atBound, "}")+`,"search_keyword":"x"}`)
	if len(mistakes) != 1 || !strings.HasPrefix(mistakes[0], "too_long at : at most 1000 comparisons per lead, these criteria make 1001") {
		t.Errorf("above the bound: %q", mistakes)
	}
}

func TestUsable(t *testing.T) {
	for _, c := range []struct {
		typ            message.ChannelType
		stored, region string
		want           string
		reason         message.Reason
	}{
		{message.Email, " Ann@Example.COM ", "", "Ann@example.com", ""},
		{message.Email, "", "", "", message.NoRecipient},
		{message.Email, "  ", "", "", message.NoRecipient},
		{message.Email, "nonsense", "", "", message.InvalidRecipient},
		{message.SMS, "+1234567890", "", "+1234567890", ""}, // well formed but not assigned: the provider decides
		{message.SMS, "+9991234567", "", "+9991234567", ""}, // an unassigned calling code
		{message.SMS, "+44 20 7946 0958", "", "+442079460958", ""},
		{message.SMS, "(415) 555-0101", "US", "+14155550101", ""},
		{message.SMS, "(415) 555-0101", "", "", message.InvalidRecipient},
		{message.SMS, "12", "US", "", message.InvalidRecipient},
		{message.SMS, "letters", "US", "", message.InvalidRecipient},
		{message.InstagramDM, "17841400000000001", "", "17841400000000001", ""},
		{message.InstagramDM, "@ann", "", "", message.InvalidRecipient},
	} {
		got, reason := audience.Usable(c.typ, c.stored, c.region)
		if got != c.want || reason != c.reason {
			t.Errorf("Usable(%s, %q, %q) = %q, %q, want %q, %q", c.typ, c.stored, c.region, got, reason, c.want, c.reason)
		}
	}
}

// The OpenAPI document lists fields and operators from these functions. A caller must not be able to change the parser's lists.
func TestFieldsAndOperators(t *testing.T) {
	want := []string{
		"first_name", "last_name", "email", "phone", "company", "title", "status", "source", "city", "state", "country", "timezone",
		"language", "instagram_id", "assignee_id", "full_name", "tags", "created_at", "updated_at", "last_contacted_at",
	}
	got := audience.Fields()
	slices.Sort(want)
	sorted := slices.Sorted(slices.Values(got))
	if !slices.Equal(sorted, want) {
		t.Errorf("fields:\n got %v\nwant %v", sorted, want)
	}
	got[0] = "changed"
	if audience.Fields()[0] == "changed" {
		t.Error("Fields returns the parser's own list")
	}
	operators := []audience.Op{
		"after", "before", "between", "contains", "contains_all", "ends_with", "equals", "gt", "gte", "in", "is_empty", "is_not_empty",
		"lt", "lte", "not_contains", "not_equals", "not_in", "starts_with", "within_last_days", "within_next_days",
	}
	if got := slices.Sorted(slices.Values(audience.Operators())); !slices.Equal(got, operators) {
		t.Errorf("operators:\n got %v\nwant %v", got, operators)
	}
}
