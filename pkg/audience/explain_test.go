package audience_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// explained is the explanation as the API shows it, one line for each criterion.
func explained(t *testing.T, settings string, l *message.Lead) (bool, []string) {
	t.Helper()
	c := mustParse(t, settings)
	matched, verdicts := c.Explain(audience.NewPerson(l))
	var lines []string
	for _, v := range verdicts {
		var text strings.Builder
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(text.String()))
	}
	return matched, lines
}

func TestExplainJudgesEachCriterion(t *testing.T) {
	for _, c := range []struct {
		settings string
		matched  bool
		want     []string
	}{
		{`{"lead_ids":["` + id1 + `"]}`, true, []string{`{"criterion":"lead_ids","matched":true}`}},
		{`{"lead_ids":["` + id2 + `"]}`, false, []string{`{"criterion":"lead_ids","matched":false}`}},
		{`{"all_leads":true}`, true, []string{`{"criterion":"all_leads","matched":true}`}},
		{
			`{"search_keyword":"Ann Bob"}`, false,
			[]string{`{"criterion":"search_keyword","value":["ann","bob"],"actual":"ann\nweiss\nann weiss\nann@example.com\nacme\n+4930","matched":false}`},
		},
		{
			`{"assignees":["User-1","x"]}`, true,
			[]string{`{"criterion":"assignees","value":["User-1","x"],"actual":"User-1","matched":true}`},
		},
		{
			`{"match":"any","lead_ids":["` + id2 + `"],"assignees":["x"],"all_leads":true}`, true,
			[]string{`{"criterion":"lead_ids","matched":false}`, `{"criterion":"assignees","value":["x"],"actual":"User-1","matched":false}`, `{"criterion":"all_leads","matched":true}`},
		},
		{
			`{"all_leads":true,"exclude_lead_ids":["` + id1 + `"],"exclude_tags":["x"]}`, false,
			[]string{`{"criterion":"all_leads","matched":true}`, `{"criterion":"exclude_lead_ids","matched":true}`, `{"criterion":"exclude_tags","value":["x"],"actual":["VIP","Größe"],"matched":false}`},
		},
		{
			`{"all_leads":true,"exclude_lead_ids":["` + id2 + `"],"exclude_tags":["vip"]}`, false,
			[]string{`{"criterion":"all_leads","matched":true}`, `{"criterion":"exclude_lead_ids","matched":false}`, `{"criterion":"exclude_tags","value":["vip"],"actual":["VIP","Größe"],"matched":true}`},
		},
	} {
		matched, got := explained(t, c.settings, ann())
		if matched != c.matched || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v\n got %s\nwant %s", c.settings, matched, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

func TestExplainJudgesEachCondition(t *testing.T) {
	at := func(days int) string {
		return `"` + now.AddDate(0, 0, -days).Truncate(time.Microsecond).Format(time.RFC3339Nano) + `"`
	}
	for _, c := range []struct{ field, op, value, want string }{
		{"email", "ends_with", `".ORG"`, `"value":[".org"],"actual":"ann@example.com","matched":false`},
		{"city", "is_empty", ``, `"actual":"","matched":true`},
		{"tags", "contains", `"vip"`, `"value":["vip"],"actual":["VIP","Größe"],"matched":true`},
		{"created_at", "before", at(0), `"value":[` + at(0) + `],"actual":` + at(2) + `,"matched":true`},
		{"custom_fields.plan", "equals", `"x"`, `"value":["x"],"actual":"gold","matched":false`},
		{"custom_fields.score", "gt", `1`, `"value":[1],"actual":"12.5","matched":true`},
		{"custom_fields.absent", "is_empty", ``, `"actual":"","matched":true`},
	} {
		_, got := explained(t, filtered(condition(c.field, c.op, c.value)), ann())
		want := `"conditions":[{"field":"` + c.field + `","operator":"` + c.op + `",` + c.want + `}]}`
		if len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("%s %s %s:\n got %s\nwant …%s", c.field, c.op, c.value, got, want)
		}
	}
	if _, got := explained(t, filtered(condition("last_contacted_at", "is_empty", "")), blank()); !strings.Contains(got[0], `"operator":"is_empty","matched":true`) {
		t.Errorf("a time that is missing has an actual value: %s", got)
	}
}

func TestExplainKeepsTheGroups(t *testing.T) {
	matched, got := explained(t, `{"filters":{"id":"root","logic":"OR","conditions":[
		{"id":"c1","field":"city","operator":"is_not_empty"},
		{"id":"g1","conditions":[{"id":"c2","field":"city","operator":"is_empty"}]}]}}`, ann())
	want := `{"criterion":"filters","id":"root","logic":"OR","matched":true,"conditions":[` +
		`{"id":"c1","field":"city","operator":"is_not_empty","actual":"","matched":false},` +
		`{"id":"g1","logic":"AND","matched":true,"conditions":[{"id":"c2","field":"city","operator":"is_empty","actual":"","matched":true}]}]}`
	if !matched || len(got) != 1 || got[0] != want {
		t.Errorf("%v\n got %s\nwant %s", matched, got, want)
	}
}
