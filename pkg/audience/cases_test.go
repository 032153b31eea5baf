package audience

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// parseSettings reads bulk_settings and returns the mistakes.
func parseSettings(t *testing.T, body string) (*Criteria, []message.FieldError) {
	t.Helper()
	v, err := wire.Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var errs wire.Errors
	c := Parse(&errs, wire.NewObject(&errs, v), time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC))
	return &c, errs.List()
}

// What query builders send means what it says.
func TestCaseConditionsOfQueryBuilders(t *testing.T) {
	day := func(month, day, hour int) time.Time {
		return time.Date(2025, time.Month(month), day, hour, 0, 0, 0, time.UTC)
	}
	last := day(2, 1, 0).Add(-time.Microsecond)
	for condition, want := range map[string]Condition{
		`{"field":"company","operator":"CONTAINS","value":"acme"}`:                          {Field: "company", Kind: Text, Op: Contains, Values: []string{"acme"}},
		`{"field":"company","operator":" Equals ","value":"acme"}`:                          {Field: "company", Kind: Text, Op: Equals, Values: []string{"acme"}},
		`{"field":"custom_fields.score","operator":"gt","value":"4"}`:                       {Field: "custom_fields.score", Kind: Custom, Op: Greater, Numbers: []json.Number{"4"}},
		`{"field":"custom_fields.score","operator":"between","value":["+4"," 5.50 "]}`:      {Field: "custom_fields.score", Kind: Custom, Op: Between, Numbers: []json.Number{"4", "5.50"}},
		`{"field":"company","operator":"is_empty","value":""}`:                              {Field: "company", Kind: Text, Op: IsEmpty},
		`{"field":"created_at","operator":"equals","value":"2025-01-31"}`:                   {Field: "created_at", Kind: Time, Op: Between, Times: []time.Time{day(1, 31, 0), last}},
		`{"field":"created_at","operator":"equals","value":"2025-01-31T10:00:00Z"}`:         {Field: "created_at", Kind: Time, Op: Between, Times: []time.Time{day(1, 31, 10), day(1, 31, 10)}},
		`{"field":"created_at","operator":"after","value":"31.01.2025 10:00"}`:              {Field: "created_at", Kind: Time, Op: After, Times: []time.Time{day(1, 31, 10)}},
		`{"field":"created_at","operator":"between","value":["1/31/2025","31 Jan 2025"]}`:   {Field: "created_at", Kind: Time, Op: Between, Times: []time.Time{day(1, 31, 0), last}},
		`{"field":"created_at","operator":"before","value":"2025-01-31T12:00:00+02:00"}`:    {Field: "created_at", Kind: Time, Op: Before, Times: []time.Time{day(1, 31, 10)}},
		`{"field":"custom_fields.score","operator":"lte","value":12345678901234567890.125}`: {Field: "custom_fields.score", Kind: Custom, Op: AtMost, Numbers: []json.Number{"12345678901234567890.125"}},
	} {
		c, errs := parseSettings(t, `{"filters":{"conditions":[`+condition+`]}}`)
		if len(errs) > 0 {
			t.Errorf("%s: %v", condition, errs)
			continue
		}
		if d := cmp.Diff(&want, c.Filter.Children[0].Cond); d != "" {
			t.Errorf("%s: %s", condition, d)
		}
	}
	for condition, want := range map[string]string{
		`{"field":"custom_fields.score","operator":"gt","value":"four"}`:    "must be a number",
		`{"field":"custom_fields.score","operator":"gt","value":"1,234.5"}`: "must be a number",
		`{"field":"company","operator":"is_empty","value":"x"}`:             "is_empty takes no value",
		`{"field":"created_at","operator":"after","value":"1/2/2025"}`:      "can be day/month or month/day: write the year first, as in 2025-01-31",
		`{"field":"created_at","operator":"after","value":"soon"}`:          "must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z",
		`{"field":"created_at","operator":"equals","value":["2025-01-31"]}`: "must be one value",
	} {
		if _, errs := parseSettings(t, `{"filters":{"conditions":[`+condition+`]}}`); len(errs) != 1 || errs[0].Msg != want {
			t.Errorf("%s: %v, want %s", condition, errs, want)
		}
	}
}

func TestCaseKeywordsWithPunctuation(t *testing.T) {
	lead := &message.Lead{FirstName: "John", LastName: "Smith", Phone: "+1 (415) 555-0101"}
	for _, keyword := range []string{"smith, john", `"john smith"`, "“Smith”;John", "(415) 555-0101", "john (smith)"} {
		b, _ := json.Marshal(keyword)
		c, errs := parseSettings(t, fmt.Sprintf(`{"search_keyword":%s}`, b))
		if len(errs) > 0 || !c.Match(NewPerson(lead)) {
			t.Errorf("%s: %v", keyword, errs)
		}
	}
	if _, errs := parseSettings(t, `{"search_keyword":"\",\""}`); len(errs) != 1 || errs[0].Msg != "must have at least one word" {
		t.Error(errs)
	}
}

// A keyword finds what people mean when they type it without accents, or a phone number in any spelling.
func TestCaseKeywordsInBaseLetters(t *testing.T) {
	for keyword, lead := range map[string]message.Lead{
		"jose": {FirstName: "José"}, "JOSÉ": {FirstName: "Jose"}, "muller": {LastName: "Müller"}, "müller": {LastName: "Mu\u0308ller"}, "istanbul": {Company: "İstanbul A.Ş."},
		"strasse": {Company: "Straße 7"}, "straße": {Company: "STRASSE 7"}, "o'neil": {LastName: "O’Neil"}, "O’Neil": {LastName: "O'Neil"}, "lodz": {Company: "Łódź"},
		"(415) 555-0101": {Phone: "+1 (415) 555-0101"}, "4155550101": {Phone: "+1 (415) 555-0101"}, "+14155550101": {Phone: "+1 (415) 555-0101"},
		"415 555": {Phone: "+14155550101"}, "555-0101": {Phone: "(415) 555 0101"}, "+1-415": {Phone: "tel:+1.415.555.0101"}, "ann@münchen.test": {Email: "ann@xn--mnchen-3ya.test"},
	} {
		b, _ := json.Marshal(keyword)
		c, errs := parseSettings(t, fmt.Sprintf(`{"search_keyword":%s}`, b))
		if len(errs) > 0 || !c.Match(NewPerson(&lead)) {
			t.Errorf("%s does not find %+v: %v", keyword, lead, errs)
		}
	}
	for keyword, lead := range map[string]message.Lead{
		"jose": {FirstName: "Josh"}, "555-0102": {Phone: "+1 (415) 555-0101"}, "12-34": {Company: "1234 Ltd"}, "muller": {LastName: "Mueller"},
	} {
		c, _ := parseSettings(t, fmt.Sprintf(`{"search_keyword":%q}`, keyword))
		if c.Match(NewPerson(&lead)) {
			t.Errorf("%s finds %+v", keyword, lead)
		}
	}
}

// Conditions on addresses compare the normalised form. Conditions on other fields stay exact but for letter case.
func TestCaseConditionsOnAddresses(t *testing.T) {
	lead := NewPerson(&message.Lead{
		FirstName: "José", Phone: "+1 (415) 555-0101", Email: "Ann <Ann@M\u00fcnchen.test>", Company: "+1 (415) 555-0101", Tags: []string{" vip ", "New"},
	})
	for condition, want := range map[string]bool{
		`{"field":"phone","operator":"equals","value":"+14155550101"}`:                 true,
		`{"field":"phone","operator":"equals","value":"001 415 555 0101"}`:             true,
		`{"field":"phone","operator":"in","value":["x","tel:+1-415-555-0101"]}`:        true,
		`{"field":"phone","operator":"not_equals","value":"+1 415 555 0101"}`:          false,
		`{"field":"phone","operator":"not_in","value":["+1 415 555 0101"]}`:            false,
		`{"field":"phone","operator":"contains","value":"555-0101"}`:                   true,
		`{"field":"phone","operator":"not_contains","value":"555-0101"}`:               false,
		`{"field":"phone","operator":"starts_with","value":"+1 (415)"}`:                true,
		`{"field":"phone","operator":"ends_with","value":"01-01"}`:                     true,
		`{"field":"phone","operator":"contains","value":"555-0102"}`:                   false,
		`{"field":"email","operator":"equals","value":"ann@xn--mnchen-3ya.test"}`:      true,
		`{"field":"email","operator":"equals","value":"mailto:ann@M\u00dcNCHEN.test"}`: true,
		`{"field":"email","operator":"ends_with","value":"@m\u00fcnchen.test"}`:        true,
		`{"field":"email","operator":"in","value":["bob@x.test"]}`:                     false,
		`{"field":"company","operator":"equals","value":"+14155550101"}`:               false,
		`{"field":"first_name","operator":"equals","value":"jose"}`:                    false,
		`{"field":"first_name","operator":"equals","value":"JOSÉ"}`:                    true,
		`{"field":"tags","operator":"contains","value":" VIP"}`:                        true,
		`{"field":"tags","operator":"contains_all","value":["vip ","\tnew"]}`:          true,
		`{"field":"tags","operator":"not_contains","value":["vip"]}`:                   false,
	} {
		c, errs := parseSettings(t, `{"filters":{"conditions":[`+condition+`]}}`)
		if len(errs) > 0 || c.Match(lead) != want {
			t.Errorf("%s: %v, want %t", condition, errs, want)
		}
	}
	if c, errs := parseSettings(t, `{"all_leads":true,"exclude_tags":[" Vip "]}`); len(errs) > 0 || c.Match(lead) {
		t.Errorf("exclude_tags: %v", errs)
	}
	if _, errs := parseSettings(t, `{"filters":{"conditions":[{"field":"tags","operator":"contains","value":"  "}]}}`); len(errs) != 1 {
		t.Errorf("a blank tag: %v", errs)
	}
}
