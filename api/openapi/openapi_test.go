package openapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"herald/pkg/access"
	"herald/pkg/contract"
)

// thing is a type with a field of each kind.
type thing struct {
	Text   string            `json:"text" doc:"A text." max:"5" min:"2" example:"abc"`
	Count  int               `json:"count,omitempty" doc:"A count." min:"1" max:"9" example:"3"`
	Price  float64           `json:"price,omitempty" required:"true" doc:"A price." min:"0.5" max:"2" example:"1.5"`
	Names  []string          `json:"names" doc:"Names." min:"1" max:"4" each:"7" example:"[\"a\"]"`
	Values map[string]string `json:"values" doc:"Values." max:"3" each:"8" example:"{\"a\":\"b\"}"`
	Free   json.RawMessage   `json:"free" doc:"Anything." bytes:"99" example:"{}"`
	ID     string            `json:"id" doc:"An id." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Ref    *string           `json:"ref" doc:"A text or null." example:"x"`
	At     *time.Time        `json:"at" doc:"A time." example:"2025-01-31T10:30:00Z"`
	Since  *time.Time        `json:"since" doc:"A time that is always there." null:"never" example:"2025-01-31T10:30:00Z"`
	Flag   bool              `json:"flag" doc:"A flag." example:"true"`
	State  string            `json:"state" doc:"A state." enum:"channel_state" example:"ACTIVE"`
	Logic  string            `json:"logic" doc:"How." enum:"logic" example:"AND"`
	Inner  inner             `json:"inner" doc:"Another."`
	Code   string            `json:"code" doc:"A pattern." pattern:"^x$" example:"x"`
	hidden string
	base
}

type inner struct {
	X any `json:"x" doc:"Anything." example:"1"`
}

type base struct {
	Promoted string `json:"promoted" doc:"Of the embedded struct." example:"p"`
}

// schemaOf returns the schema of thing as JSON values.
func schemaOf(t *testing.T, request bool) map[string]any {
	t.Helper()
	_ = thing{}.hidden
	b := schemas{}
	b.all = map[string]*jsonschema.Schema{}
	b.of(reflect.TypeFor[thing](), request)
	text, err := json.Marshal(b.all["thing"])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Tags become the bounds, kinds and meanings of a schema.
func TestSchemas(t *testing.T) {
	pattern := "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
	type m = map[string]any
	answer := m{
		"text":     m{"type": "string", "minLength": 2.0, "maxLength": 5.0, "description": "A text.", "examples": []any{"abc"}},
		"count":    m{"type": "integer", "minimum": 1.0, "maximum": 9.0, "description": "A count.", "examples": []any{3.0}},
		"price":    m{"type": "number", "format": "double", "minimum": 0.5, "maximum": 2.0, "description": "A price.", "examples": []any{1.5}},
		"names":    m{"type": "array", "minItems": 1.0, "maxItems": 4.0, "items": m{"type": "string", "minLength": 1.0, "maxLength": 7.0}, "description": "Names.", "examples": []any{[]any{"a"}}},
		"values":   m{"type": "object", "maxProperties": 3.0, "additionalProperties": m{"type": "string", "maxLength": 8.0}, "description": "Values.", "examples": []any{m{"a": "b"}}},
		"free":     m{"type": []any{"object", "null"}, "additionalProperties": true, "x-max-bytes": 99.0, "description": "Anything.", "examples": []any{m{}}},
		"id":       m{"type": "string", "format": "uuid", "pattern": pattern, "description": "An id.", "examples": []any{"01a20960-62b0-796f-9cfb-5b3a36495aeb"}},
		"ref":      m{"type": []any{"string", "null"}, "description": "A text or null.", "examples": []any{"x"}},
		"at":       m{"type": []any{"string", "null"}, "format": "date-time", "description": "A time.", "examples": []any{"2025-01-31T10:30:00Z"}},
		"since":    m{"type": "string", "format": "date-time", "description": "A time that is always there.", "examples": []any{"2025-01-31T10:30:00Z"}},
		"flag":     m{"type": "boolean", "description": "A flag.", "examples": []any{true}},
		"state":    m{"$ref": "#/components/schemas/ChannelState", "description": "A state.", "examples": []any{"ACTIVE"}},
		"logic":    m{"$ref": "#/components/schemas/Logic", "description": "How.", "examples": []any{"AND"}},
		"inner":    m{"$ref": "#/components/schemas/inner", "description": "Another."},
		"code":     m{"type": "string", "pattern": "^x$", "description": "A pattern.", "examples": []any{"x"}},
		"promoted": m{"type": "string", "description": "Of the embedded struct.", "examples": []any{"p"}},
	}
	got := schemaOf(t, false)
	if d := cmp.Diff(answer, got["properties"]); d != "" {
		t.Error(d)
	}
	required, _ := got["required"].([]any)
	if len(required) != len(answer)-2 || slices.Contains(required, any("count")) || slices.Contains(required, any("price")) {
		t.Errorf("an answer always has %v", required)
	}
	if d := cmp.Diff(map[string]any{"not": map[string]any{}}, got["additionalProperties"]); d != "" && got["additionalProperties"] != false {
		t.Errorf("other fields are allowed: %v", got["additionalProperties"])
	}
	asked := schemaOf(t, true)
	properties, _ := asked["properties"].(map[string]any)
	if d := cmp.Diff([]any{"price"}, asked["required"]); d != "" {
		t.Errorf("a request requires what is marked: %s", d)
	}
	for name, want := range map[string]any{
		"text": []any{"string", "null"}, "price": "number", "names": []any{"array", "null"}, "flag": []any{"boolean", "null"},
	} {
		if d := cmp.Diff(want, properties[name].(map[string]any)["type"]); d != "" {
			t.Errorf("%s in a request: %s", name, d)
		}
	}
	// Words of a request come in any letter case, except where they are exact.
	words := func(name string) string {
		b, _ := json.Marshal(properties[name])
		return string(b)
	}
	if got, want := words("logic"), `{"anyOf":[{"$ref":"#/components/schemas/Logic","x-also-accepts":{"pattern":"^([Aa][Nn][Dd]|[Oo][Rr])$","type":"string"}},{"type":"null"}],"description":"How.","examples":["AND"]}`; got != want {
		t.Errorf("logic: %s", got)
	}
	if got, want := words("state"), `{"anyOf":[{"$ref":"#/components/schemas/ChannelState"},{"type":"null"}],"description":"A state.","examples":["ACTIVE"]}`; got != want {
		t.Errorf("state: %s", got)
	}
}

// A node of a filter is a condition or a group: its schema is one object, and the rest of it excludes what is neither or both.
func TestCaseNodesOfFilters(t *testing.T) {
	pages, err := New([]contract.Route{putRoute})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := validator.UnmarshalJSON(bytes.NewReader(pages.JSON))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("memory:document", tree); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("memory:document#/components/schemas/FilterNode")
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]bool{
		`{"field":"first_name","operator":"contains","value":"st"}`:                                true,
		`{"id":"a","field":"custom_fields.plan","operator":"is_empty"}`:                            true,
		`{"field":"tags","operator":"contains_all","value":["a",1,true]}`:                          true,
		`{"id":"g","logic":"OR","conditions":[{"field":"city","operator":"in","value":["Oslo"]}]}`: true,
		`{}`:                                    false,
		`{"id":"a"}`:                            false,
		`{"field":"first_name"}`:                false,
		`{"operator":"is_empty"}`:               false,
		`{"conditions":[]}`:                     false,
		`{"conditions":[{}]}`:                   false,
		`{"logic":"OR"}`:                        false,
		`{"field":"shoe_size","operator":"in"}`: false,
		`{"field":"custom_fields.","operator":"is_empty"}`:                                       false,
		`{"field":"city","operator":"is_empty","logic":"OR"}`:                                    false,
		`{"field":"city","operator":"in","value":{"a":1}}`:                                       false,
		`{"field":"city","operator":"in","value":[["Oslo"]]}`:                                    false,
		`{"conditions":[{"field":"city","operator":"is_empty"}],"field":"city"}`:                 false,
		`{"conditions":[{"field":"city","operator":"is_empty"}],"value":"Oslo"}`:                 false,
		`{"conditions":[{"field":"city","operator":"is_empty"}],"operator":"in","field":"city"}`: false,
	} {
		v, err := validator.UnmarshalJSON(strings.NewReader(node))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); (err == nil) != want {
			t.Errorf("%s: %v", node, err)
		}
	}
}

func TestAnyCase(t *testing.T) {
	re := regexp.MustCompile(anyCase([]string{"A_b", "c.d"}))
	for word, want := range map[string]bool{"a_B": true, "A_b": true, "C.D": true, "cxd": false, "a_b" + " ": false, "": false} {
		if re.MatchString(word) != want {
			t.Errorf("%q matches: %v", word, !want)
		}
	}
}

func TestUnknownEnumerationsPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an enumeration that is not declared is taken")
		}
	}()
	(&schemas{}).enumeration("no such", false)
}

// listRoute and its neighbours are routes for the tests of the document.
var (
	listRoute = contract.Route{
		ID: "list", Method: "GET", Path: "/api/x/:id/y/:lead_id", Scope: access.Read, Tag: "Leads", Summary: "List", Text: "Lists.",
		Query: contract.SuppressionsQuery{}, Status: 200, Answers: []any{contract.Page[contract.Lead]{}}, Errors: []int{404},
	}
	putRoute = contract.Route{
		ID: "put", Method: "POST", Path: "/api/x/:id/y/:lead_id", Scope: access.Send, Tag: "Leads", Summary: "Put", Text: "Puts.",
		Headers: contract.SendHeaders{}, Request: contract.SendRequest{}, Examples: []string{"sms"}, Status: 201,
		Answers: []any{contract.Lead{}, contract.LeadRef{}}, AnswerExample: "single_response", AnswerHeaders: []string{contract.HeaderReplayed},
	}
	dropRoute  = contract.Route{ID: "drop", Method: "DELETE", Path: "/api/z", Scope: access.Admin, Tag: "Leads", Summary: "Drop", Text: "Drops.", Status: 204}
	probeRoute = contract.Route{ID: "probe", Method: "GET", Path: "/z", Access: contract.Open, Admission: contract.AdmitAlways, Tag: "Service", Summary: "Probe", Text: "Probes.", Status: 200, Answers: []any{contract.Health{}}}
)

type shownOperation struct {
	OperationID string
	Tags        []string
	Security    []map[string][]string
	Parameters  []struct {
		In, Name string
		Required bool
		Example  any
		Schema   map[string]any
	}
	RequestBody *struct {
		Required bool
		Content  map[string]struct {
			Examples map[string]struct{ Value any }
		}
	}
	Responses map[string]struct {
		Ref     string `json:"$ref"`
		Headers map[string]any
		Content map[string]struct {
			Schema   map[string]any
			Examples map[string]any
		}
	}
}

func readPaths(t *testing.T, routes ...contract.Route) map[string]map[string]shownOperation {
	t.Helper()
	pages, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]shownOperation
	}
	if err := json.Unmarshal(pages.JSON, &d); err != nil {
		t.Fatal(err)
	}
	return d.Paths
}

func TestOperations(t *testing.T) {
	paths := readPaths(t, listRoute, putRoute, dropRoute, probeRoute)
	if len(paths) != 3 || len(paths["/api/x/{id}/y/{lead_id}"]) != 2 {
		t.Fatalf("%v", paths)
	}
	list, put, drop, probe := paths["/api/x/{id}/y/{lead_id}"]["get"], paths["/api/x/{id}/y/{lead_id}"]["post"], paths["/api/z"]["delete"], paths["/z"]["get"]
	var params []string
	for _, p := range list.Parameters {
		params = append(params, p.In+" "+p.Name)
		if p.Required != (p.In == "path") || p.Example == nil || p.Schema == nil {
			t.Errorf("%+v", p)
		}
	}
	if want := []string{"path id", "path lead_id", "query type", "query address", "query reason", "query created_after", "query limit", "query cursor"}; !slices.Equal(params, want) {
		t.Errorf("parameters %v, want %v", params, want)
	}
	if limit := list.Parameters[6]; limit.Example != 50.0 || limit.Schema["minimum"] != 1.0 || limit.Schema["maximum"] != 200.0 || limit.Schema["type"] != "integer" {
		t.Errorf("%+v", limit)
	}
	for what, test := range map[string]struct {
		op       shownOperation
		scope    string
		statuses string
	}{
		"a list":  {list, "read", "200 401 403 404 413 422 429 500 503"},
		"a write": {put, "send", "201 401 403 408 413 415 422 429 500 503"},
		"a drop":  {drop, "admin", "204 401 403 413 429 500 503"},
		"a probe": {probe, "", "200"},
	} {
		scope := ""
		if len(test.op.Security) == 1 {
			scope = strings.Join(test.op.Security[0]["apiKey"], " ")
		}
		var statuses []string
		for s, r := range test.op.Responses {
			statuses = append(statuses, s)
			if success := s < "300"; success == (r.Ref != "") {
				t.Errorf("%s: %s is %+v", what, s, r)
			}
		}
		slices.Sort(statuses)
		if got := strings.Join(statuses, " "); scope != test.scope || got != test.statuses {
			t.Errorf("%s: scope %q, statuses %s, want %q, %s", what, scope, got, test.scope, test.statuses)
		}
	}
	if list.RequestBody != nil || drop.RequestBody != nil || !put.RequestBody.Required || put.RequestBody.Content["application/json"].Examples["sms"].Value == nil {
		t.Errorf("bodies: %+v, %+v, %+v", list.RequestBody, drop.RequestBody, put.RequestBody)
	}
	created := put.Responses["201"]
	if created.Headers["X-Request-Id"] == nil || created.Headers["Idempotent-Replayed"] == nil || created.Headers["RateLimit"] == nil ||
		created.Headers["RateLimit-Policy"] == nil || len(created.Headers) != 4 {
		t.Errorf("headers %v", created.Headers)
	}
	answer := created.Content["application/json"]
	if answer.Schema["$ref"] != "#/components/schemas/LeadOrLeadRef" || answer.Examples["single"] == nil {
		t.Errorf("%+v", answer)
	}
	if one := list.Responses["200"].Content["application/json"]; one.Schema["$ref"] != "#/components/schemas/LeadPage" || one.Examples != nil {
		t.Errorf("%+v", one)
	}
	if drop.Responses["204"].Content != nil {
		t.Errorf("%+v", drop.Responses["204"])
	}
}

// The reference page shows what the document says, and runs nothing.
func TestReferencePage(t *testing.T) {
	pages, err := New([]contract.Route{listRoute, putRoute, dropRoute, probeRoute})
	if err != nil {
		t.Fatal(err)
	}
	page := string(pages.HTML)
	for _, want := range []string{
		`id="list"`, `id="put"`, `id="drop"`, `id="probe"`, "/api/x/{id}/y/{lead_id}", "integer (from 1, to 200)", "Idempotency-Key", "SendRequest", "LeadPage", "LeadRef", "at most 8192 bytes",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, foreign := range []string{"<script", "src=", "@import", "<link", "url("} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page has %s", foreign)
		}
	}
}

// Every problem of the document is an answer that its schema allows, and names each status once.
func TestProblems(t *testing.T) {
	pages, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Components struct {
			Responses map[string]struct {
				Headers map[string]any
				Content map[string]struct{ Example map[string]any }
			}
		}
	}
	if err := json.Unmarshal(pages.JSON, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Components.Responses) != len(errorDocs) {
		t.Errorf("%d responses of %d problems", len(d.Components.Responses), len(errorDocs))
	}
	for name, header := range map[string]string{"TooManyRequests": "Retry-After", "ServiceUnavailable": "Retry-After", "Conflict": "Retry-After", "Unauthorized": "WWW-Authenticate"} {
		if d.Components.Responses[name].Headers[header] == nil {
			t.Errorf("%s has no %s", name, header)
		}
	}
	for name, r := range d.Components.Responses {
		if r.Headers["X-Request-Id"] == nil || r.Content["application/json"].Example["detail"] == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
