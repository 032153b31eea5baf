package audience_test

import (
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"

	"herald/pkg/audience"
	"herald/pkg/message"
)

func TestFoldedFields(t *testing.T) {
	got := map[string]string{}
	for _, f := range audience.FoldedFields(ann()) {
		if _, twice := got[f.Name]; twice {
			t.Errorf("%s occurs twice", f.Name)
		}
		got[f.Name] = f.Value
	}
	for name, want := range map[string]string{
		"first_name": "ann", "last_name": "weiss", "full_name": "ann weiss", "email": "ann@example.com", "company": "acme", "phone": "+4930",
		"title": "ceo", "assignee_id": "user-1", "city": "",
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %q, %v, want %q", name, v, ok, want)
		}
	}
}

func TestFullNameOfHalfANameHasNoSpace(t *testing.T) {
	for _, c := range []struct {
		lead message.Lead
		want string
	}{
		{message.Lead{FirstName: "Ann"}, "ann"},
		{message.Lead{LastName: "Weiß"}, "weiss"},
		{message.Lead{}, ""},
	} {
		fields := audience.FoldedFields(&c.lead)
		if last := fields[len(fields)-1]; last.Name != "full_name" || last.Value != c.want {
			t.Errorf("%+v: %+v, want full_name %q", c.lead, last, c.want)
		}
	}
}

// The order of the lines is stored with the leads. A change needs a migration of all leads.
func TestSearchText(t *testing.T) {
	want := strings.Join([]string{"ann", "weiss", "ann weiss", "ann@example.com", "acme", "+4930"}, "\n")
	if got := audience.SearchText(audience.FoldedFields(ann())); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFoldedCustom(t *testing.T) {
	for _, c := range []struct {
		name         string
		value        any
		text, number string // number: the number as a decimal, "" when the value is none
	}{
		{"text", "Straße", "strasse", ""},
		{"null", nil, "", ""},
		{"empty text", "", "", ""},
		{"true", true, "true", ""},
		{"false", false, "false", ""},
		{"float", 2.50, "2.5", "2.5"},
		{"large float", 1e21, "1000000000000000000000", "1000000000000000000000"},
		{"float beyond the bounds", 1e41, "1e+41", ""},
		{"infinite", math.Inf(1), "+inf", ""},
		{"int", -7, "-7", "-7"},
		{"exact number", json.Number("9007199254740993"), "9007199254740993", "9007199254740993"},
		{"exponent", json.Number("1E3"), "1000", "1000"},
		{"number beyond the bounds", json.Number("1E41"), "1e41", ""},
		{"text that is a number", " 2.50 ", " 2.50 ", "2.5"},
		{"text with a plus", "+2", "+2", "2"},
		{"negative text", "-2", "-2", "-2"},
		{"two plus signs", "++2", "++2", ""},
		{"exponent in text", "1e3", "1e3", ""},
		{"text with a bare point", "2.", "2.", ""},
		{"text that begins with a number", "2 euro", "2 euro", ""},
		{"40 digits in text", strings.Repeat("9", 40), strings.Repeat("9", 40), strings.Repeat("9", 40)},
		{"41 digits in text", strings.Repeat("9", 41), strings.Repeat("9", 41), ""},
		{"40 decimals in text", "0." + strings.Repeat("9", 40), "0." + strings.Repeat("9", 40), "0." + strings.Repeat("9", 40)},
		{"41 decimals in text", "0." + strings.Repeat("9", 41), "0." + strings.Repeat("9", 41), ""},
		{"list", []any{"A", 1.0}, `["a",1]`, ""},
		{"object", map[string]any{"K": "V"}, `{"k":"v"}`, ""},
		{"not JSON", make(chan int), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, number := audience.FoldedCustom(map[string]any{"Key": c.value})
			wantText, wantNumber := map[string]string{}, map[string]string{}
			if c.text != "" {
				wantText["Key"] = c.text
			}
			if c.number != "" {
				d, ok := message.ParseDecimal(c.number)
				if !ok {
					t.Fatalf("%q is not a number", c.number)
				}
				wantNumber["Key"] = d.SortKey()
			}
			if !maps.Equal(text, wantText) || !maps.Equal(number, wantNumber) {
				t.Errorf("got %q, %q, want %q, %q", text, number, wantText, wantNumber)
			}
		})
	}
}
