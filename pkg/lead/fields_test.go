package lead_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/pkg/contract"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// object decodes a JSON object for Parse or Patch.
func object(t *testing.T, doc string) (*wire.Object, *wire.Errors) {
	t.Helper()
	v, err := wire.Decode([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	errs := &wire.Errors{}
	return wire.NewObject(errs, v, "body"), errs
}

// mistakes lists the paths of the mistakes, with their slugs.
func mistakes(errs *wire.Errors) string {
	var list []string
	for _, f := range errs.List() {
		list = append(list, fmt.Sprint(f.Loc, " ", f.Type))
	}
	return strings.Join(list, ", ")
}

// full is a document with every field of a lead.
const full = `{"id":"550e8400-e29b-41d4-a716-446655440001","first_name":"a","last_name":"b","email":"c","phone":"d","instagram_id":"e","company":"f",
	"title":"g","status":"h","source":"i","city":"j","state":"k","country":"l","timezone":"m","language":"n","assignee_id":"o","tags":["p","q"],
	"custom_fields":{"r":1},"created_at":"2024-01-02T03:04:05Z","updated_at":"2024-01-02T03:04:05Z","last_contacted_at":"2025-01-02T03:04:05+01:00"}`

func TestParseReadsEveryField(t *testing.T) {
	o, errs := object(t, full)
	got := lead.Parse(o)
	if len(errs.List()) > 0 {
		t.Fatal(errs.List())
	}
	contacted := time.Date(2025, 1, 2, 2, 4, 5, 0, time.UTC)
	want := &message.Lead{
		ID: got.ID, FirstName: "a", LastName: "b", Email: "c", Phone: "d", InstagramID: "e", Company: "f", Title: "g", Status: "h", Source: "i", City: "j",
		State: "k", Country: "l", Timezone: "m", Language: "n", AssigneeID: "o", Tags: []string{"p", "q"}, CustomFields: map[string]any{"r": json.Number("1")},
		CreatedAt: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), LastContactedAt: &contacted,
	}
	if !reflect.DeepEqual(got, want) || got.ID.String() != "550e8400-e29b-41d4-a716-446655440001" {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseReportsMistakes(t *testing.T) {
	wide := strings.Repeat("é", 1_000) + "x" // 1,001 characters; two bytes each
	for doc, want := range map[string]string{
		`{"first_name":"` + wide + `"}`:                       "[body first_name] string_too_long",
		`{"first_name":"` + strings.Repeat("é", 1_000) + `"}`: "",
		`{"email":"` + strings.Repeat("é", 1_000) + `"}`:      "",
		`{"email":"` + strings.Repeat("\u0958", 700) + `"}`:   "[body email] string_too_long",
		`{"city":"` + strings.Repeat("\u0958", 700) + `"}`:    "",
		`{"tags":["` + strings.Repeat(`a","`, 200) + `b"]}`:   "[body tags] too_long",
		`{"tags":["` + strings.Repeat("é", 201) + `"]}`:       "[body tags 0] string_too_long",
		`{"tags":[""]}`:            "[body tags 0] string_too_short",
		`{"custom_fields":{"":1}}`: "[body custom_fields ] value_error",
		`{"custom_fields":{"` + strings.Repeat("é", 201) + `":1}}`:      "", // checked below: its path is cut
		`{"custom_fields":{"a":"` + strings.Repeat("x", 64<<10) + `"}}`: "[body custom_fields] string_too_long",
		`{"id":"1"}`:              "[body id] uuid_parsing",
		`{"created_at":"x"}`:      "[body created_at] datetime_parsing",
		`{"updated_at":"x"}`:      "[body updated_at] datetime_parsing",
		`{"last_contacted_at":1}`: "[body last_contacted_at] string_type",
		`{"full_name":"x"}`:       "[body full_name] extra_forbidden",
		`{"nickname":"x"}`:        "[body nickname] extra_forbidden",
		`{"id":null,"first_name":null,"tags":null,"custom_fields":null}`: "",
	} {
		o, errs := object(t, doc)
		lead.Parse(o)
		got := mistakes(errs)
		if strings.Contains(doc, strings.Repeat("é", 201)+`":1`) {
			if len(errs.List()) != 1 || errs.List()[0].Msg != message.FieldNameBound {
				t.Errorf("a long name of a custom field: %v", errs.List())
			}
			continue
		}
		if got != want {
			t.Errorf("%.60s: got %q, want %q", doc, got, want)
		}
	}
}

func TestPatchChangesWhatIsNamed(t *testing.T) {
	contacted := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	stored := func() *message.Lead {
		return &message.Lead{FirstName: "Ann", Email: "ann@example.com", Tags: []string{"a"}, CustomFields: map[string]any{"x": "1"}, LastContactedAt: &contacted}
	}
	for name, c := range map[string]struct {
		doc    string
		change func(l *message.Lead)
		wrong  string
	}{
		"nothing":             {`{}`, func(*message.Lead) {}, ""},
		"a text":              {`{"first_name":"Bob"}`, func(l *message.Lead) { l.FirstName = "Bob" }, ""},
		"a text to null":      {`{"email":null}`, func(l *message.Lead) { l.Email = "" }, ""},
		"tags":                {`{"tags":["b"]}`, func(l *message.Lead) { l.Tags = []string{"b"} }, ""},
		"tags to null":        {`{"tags":null}`, func(l *message.Lead) { l.Tags = []string{} }, ""},
		"custom fields":       {`{"custom_fields":{"y":"2"}}`, func(l *message.Lead) { l.CustomFields = map[string]any{"x": "1", "y": "2"} }, ""},
		"a custom field away": {`{"custom_fields":{"x":null}}`, func(l *message.Lead) { l.CustomFields = map[string]any{} }, ""},
		"some tags":           {`{"add_tags":["b","A"],"remove_tags":["c"]}`, func(l *message.Lead) { l.Tags = []string{"a", "b"} }, ""},
		"custom to null":      {`{"custom_fields":null}`, func(l *message.Lead) { l.CustomFields = nil }, ""},
		"contact":             {`{"last_contacted_at":"2025-01-02T03:04:06Z"}`, func(l *message.Lead) { l.LastContactedAt = new(contacted.Add(time.Second)) }, ""},
		"contact to null":     {`{"last_contacted_at":null}`, func(l *message.Lead) { l.LastContactedAt = nil }, ""},
		"the id":              {`{"id":"550e8400-e29b-41d4-a716-446655440001"}`, func(*message.Lead) {}, "[body id] extra_forbidden"},
		"the creation":        {`{"created_at":"2025-01-02T03:04:06Z"}`, func(*message.Lead) {}, "[body created_at] extra_forbidden"},
		"an unknown field":    {`{"nickname":"x"}`, func(*message.Lead) {}, "[body nickname] extra_forbidden"},
		"a text that is none": {`{"city":1}`, func(*message.Lead) {}, "[body city] string_type"},
	} {
		o, errs := object(t, c.doc)
		got, want := stored(), stored()
		lead.Patch(o, got)
		c.change(want)
		if !reflect.DeepEqual(got, want) || mistakes(errs) != c.wrong {
			t.Errorf("%s: got %+v, %s\nwant %+v, %s", name, got, mistakes(errs), want, c.wrong)
		}
	}
}

// memberNames returns the JSON names of a struct's fields, with those of embedded structs.
func memberNames(typ reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The contract's types have the fields that are accepted and no others: what a caller writes, reads and may change.
func TestFieldsAreThoseOfTheContract(t *testing.T) {
	for name, c := range map[string]struct {
		typ  reflect.Type
		read func(o *wire.Object)
	}{
		"POST":  {reflect.TypeFor[contract.NewLead](), func(o *wire.Object) { lead.Parse(o) }},
		"PATCH": {reflect.TypeFor[contract.LeadPatch](), func(o *wire.Object) { lead.Patch(o, &message.Lead{}) }},
		"GET":   {reflect.TypeFor[contract.Lead](), func(o *wire.Object) { lead.Parse(o) }},
	} {
		var accepted []string
		var all map[string]any
		if err := json.Unmarshal([]byte(full), &all); err != nil {
			t.Fatal(err)
		}
		all["add_tags"], all["remove_tags"] = nil, nil // of PATCH alone
		for member := range all {
			o, errs := object(t, `{"`+member+`":null}`)
			if c.read(o); len(errs.List()) == 0 {
				accepted = append(accepted, member)
			}
		}
		slices.Sort(accepted)
		if names := memberNames(c.typ); !slices.Equal(names, accepted) {
			t.Errorf("%s: the contract has %v, accepted are %v", name, names, accepted)
		}
	}
}
