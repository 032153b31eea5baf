package contract_test

import (
	"encoding/json"
	"strings"
	"testing"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// Every text field of a lead has its place in the answer, and an empty one is null.
func TestSetText(t *testing.T) {
	var l contract.Lead
	for _, f := range message.LeadTexts {
		l.SetText(f.Name, "value of "+f.Name)
	}
	l.SetText("city", "")
	l.SetText("custom_fields", "x")
	l.SetText("nickname", "x")
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, f := range message.LeadTexts {
		if got[f.Name] != "value of "+f.Name {
			t.Errorf("%s is %v", f.Name, got[f.Name])
		}
	}
	if empty, _ := json.Marshal(contract.Lead{}); strings.Contains(string(b), `"x"`) || strings.Count(string(empty), "null") != len(message.LeadTexts)+5 {
		t.Errorf("%s\n%s", b, empty)
	}
}

// Each documented example is JSON.
func TestExamples(t *testing.T) {
	for _, name := range []string{
		"email", "sms", "instagram_dm", "bulk_lead_ids", "bulk_search_keyword", "bulk_filters", "bulk_assignees", "single_response", "bulk_response",
	} {
		if !json.Valid([]byte(contract.Example(name))) {
			t.Errorf("%s is not JSON", name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an unknown example does not panic")
		}
	}()
	contract.Example("unknown")
}
