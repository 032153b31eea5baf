package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"herald/pkg/config"
	"herald/pkg/contract"
	"herald/pkg/testenv"
)

// mutator walks the request schemas of the document along valid requests, and makes wrong ones of them.
type mutator struct {
	t       *testing.T
	h       *herald // gets the wrong requests, and must stay as it is
	witness *herald // gets the valid ones, so that it is known that each is wrong for one reason only
	d       *document
	tree    map[string]any
	covered map[string]bool  // by schema and field
	values  map[string][]any // wrong values by schema
	tries   int
}

func (m *mutator) node(pointer string) any {
	var v any = m.tree
	for _, part := range strings.Split(strings.Trim(pointer, "/"), "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch c := v.(type) {
		case map[string]any:
			v = c[part]
		case []any:
			var i int
			_, _ = fmt.Sscan(part, &i)
			v = c[i]
		}
	}
	return v
}

// objectAt follows references and alternatives to the schema of an object that may stand at a pointer.
func (m *mutator) objectAt(pointer string, value map[string]any) string {
	s, _ := m.node(pointer).(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return m.objectAt(strings.TrimPrefix(ref, "#"), value)
	}
	list, _ := s["anyOf"].([]any)
	for i := range list {
		if at := m.objectAt(fmt.Sprintf("%s/anyOf/%d", pointer, i), value); at != "" && m.valid(at, value) {
			return at
		}
	}
	if s["properties"] != nil || s["additionalProperties"] != nil {
		return pointer
	}
	return ""
}

func (m *mutator) schema(pointer string) *jsonschema.Schema {
	m.t.Helper()
	parts := strings.Split(strings.Trim(pointer, "/"), "/")
	for i := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(parts[i])
	}
	s, err := m.d.schema(parts...)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *mutator) valid(pointer string, v any) bool {
	m.t.Helper()
	return m.schema(pointer).Validate(plainJSON(v)) == nil
}

// plainJSON is a value as the validator reads it.
func plainJSON(v any) any {
	b, _ := json.Marshal(v)
	out, _ := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	return out
}

// sample makes a value that a schema accepts, of its examples.
func (m *mutator) sample(pointer string) any {
	s, _ := m.node(pointer).(map[string]any)
	if examples, ok := s["examples"].([]any); ok {
		return examples[0]
	}
	if ref, ok := s["$ref"].(string); ok {
		return m.sample(strings.TrimPrefix(ref, "#"))
	}
	if list, ok := s["anyOf"].([]any); ok {
		for i := len(list) - 1; i >= 0; i-- {
			if t, _ := list[i].(map[string]any)["type"].(string); t != "null" {
				return m.sample(fmt.Sprintf("%s/anyOf/%d", pointer, i))
			}
		}
	}
	if values, ok := s["enum"].([]any); ok {
		return values[0]
	}
	if s["items"] != nil {
		return []any{m.sample(pointer + "/items")}
	}
	out := map[string]any{}
	required, _ := s["required"].([]any)
	for _, name := range required {
		out[name.(string)] = m.sample(pointer + "/properties/" + name.(string))
	}
	return out
}

// wrong returns values of which a schema accepts none: of every type, and just beyond every bound. They are made once.
func (m *mutator) wrong(pointer string) []any {
	values, ok := m.values[pointer]
	if !ok {
		values = m.makeWrong(pointer)
		m.values[pointer] = values
	}
	return values
}

func (m *mutator) makeWrong(pointer string) []any {
	candidates := []any{1, 1.5, -1, 1e300, true, "x", strings.Repeat("x", 20_000), []any{}, []any{1}, []any{nil}, []any{[]any{}}, []any{strings.Repeat("x", 5_000)}, map[string]any{}, map[string]any{"x": map[string]any{}}}
	var bounds func(pointer string)
	bounds = func(pointer string) {
		s, _ := m.node(pointer).(map[string]any)
		number := func(name string) (int, bool) {
			f, ok := s[name].(float64)
			return int(math.Min(f, 1e15)), ok
		}
		if n, ok := number("maxLength"); ok {
			candidates = append(candidates, strings.Repeat("é", n+1))
		}
		if n, ok := number("maxItems"); ok {
			candidates = append(candidates, slices.Repeat([]any{m.sample(pointer + "/items")}, n+1))
		}
		if n, ok := number("maximum"); ok {
			candidates = append(candidates, n+1)
		}
		if f, ok := s["minimum"].(float64); ok {
			candidates = append(candidates, f-1)
		}
		if n, ok := number("x-max-bytes"); ok {
			candidates = append(candidates, map[string]any{"x": strings.Repeat("x", n)})
		}
		list, _ := s["anyOf"].([]any)
		for i := range list {
			bounds(fmt.Sprintf("%s/anyOf/%d", pointer, i))
		}
	}
	bounds(pointer)
	limit, bounded := m.node(pointer).(map[string]any)["x-max-bytes"].(float64)
	return slices.DeleteFunc(candidates, func(v any) bool {
		b, _ := json.Marshal(v)
		return m.valid(pointer, v) && (!bounded || len(b) <= int(limit))
	})
}

// place is where a value stands within a request.
type place []any

// with returns a copy of a request with a value at a place; remove takes it away instead.
func (p place) with(root, value any, remove bool) any {
	if len(p) == 0 {
		return value
	}
	switch c := root.(type) {
	case map[string]any:
		out := maps.Clone(c)
		name := p[0].(string)
		if len(p) == 1 && remove {
			delete(out, name)
		} else {
			out[name] = p[1:].with(c[name], value, remove)
		}
		return out
	case []any:
		out := slices.Clone(c)
		i := p[0].(int)
		out[i] = p[1:].with(c[i], value, remove)
		return out
	}
	return value
}

// request sends a body and returns the status.
type request func(h *herald, body string) int

// refused makes sure that a wrong request is refused.
func (m *mutator) refused(what string, body any, send request) {
	m.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		m.t.Fatal(err)
	}
	m.tries++
	if status := send(m.h, string(b)); status < 400 || status > 499 {
		m.t.Errorf("%s: %d for %.300s", what, status, b)
	}
}

// walk makes wrong requests of a valid one: of the object that stands at a place in it, and below.
func (m *mutator) walk(pointer string, root any, at place, value map[string]any, send request) {
	m.t.Helper()
	pointer = m.objectAt(pointer, value)
	s, _ := m.node(pointer).(map[string]any)
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	if properties != nil {
		m.refused(fmt.Sprint(at, " with an unknown field"), append(slices.Clone(at), "nonsense").with(root, 1, false), send)
	}
	for name := range properties {
		here, property := append(slices.Clone(at), name), pointer+"/properties/"+name
		valid := root
		if _, there := value[name]; !there {
			valid = here.with(root, m.sample(property), false)
			b, _ := json.Marshal(valid)
			if status := send(m.witness, string(b)); status >= 400 {
				continue // it does not belong to this request
			}
		}
		values := m.wrong(property)
		if m.covered[property] { // all of them were tried in another request; here, one of each kind is enough
			values = firstOfEachKind(values)
		}
		m.covered[property] = true
		for _, v := range values {
			m.refused(fmt.Sprint(here), here.with(root, v, false), send)
		}
		if slices.Contains(required, any(name)) {
			m.refused(fmt.Sprint(here, " null"), here.with(root, nil, false), send)
			m.refused(fmt.Sprint(here, " absent"), here.with(root, nil, true), send)
		}
		m.descend(property, valid, here, send)
	}
	if values, ok := s["additionalProperties"].(map[string]any); ok && values["not"] == nil {
		for name := range value {
			for _, v := range m.wrong(pointer + "/additionalProperties") {
				m.refused(fmt.Sprint(at, name), append(slices.Clone(at), name).with(root, v, false), send)
			}
		}
	}
}

// firstOfEachKind returns the first value of each JSON type.
func firstOfEachKind(values []any) []any {
	seen := map[string]bool{}
	var first []any
	for _, v := range values {
		if kind := fmt.Sprintf("%T", plainJSON(v)); !seen[kind] {
			seen[kind] = true
			first = append(first, v)
		}
	}
	return first
}

// descend goes on with what stands at a place.
func (m *mutator) descend(pointer string, root any, at place, send request) {
	value := root
	for _, p := range at {
		switch c := value.(type) {
		case map[string]any:
			value = c[p.(string)]
		case []any:
			value = c[p.(int)]
		}
	}
	switch v := value.(type) {
	case map[string]any:
		if m.objectAt(pointer, v) != "" {
			m.walk(pointer, root, at, v, send)
		}
	case []any:
		items := pointer + "/items"
		if len(v) == 0 || m.node(items) == nil {
			return
		}
		here := append(slices.Clone(at), 0)
		m.refused(fmt.Sprint(here, " null"), here.with(root, nil, false), send)
		for _, w := range m.wrong(items) {
			m.refused(fmt.Sprint(here), here.with(root, w, false), send)
		}
		m.descend(items, root, here, send)
	}
}

// parameters tries wrong values of the path, the query and the headers.
func (m *mutator) parameters(method, path string, op *operation, body string) {
	m.t.Helper()
	for i, p := range op.Parameters {
		pointer := fmt.Sprintf("/paths/%s/%s/parameters/%d/schema", escape(path), strings.ToLower(method), i)
		for _, v := range []string{"x", "-1", "1.5", "201x", "{}", "%00", "%ff", strings.Repeat("x", 400)} {
			_, bounded := m.node(pointer).(map[string]any)["maxLength"]
			if m.valid(pointer, v) && (p.In == "header" || p.In == "query" && bounded && v[0] != '%') {
				continue // free text
			}
			target, headers := op.concrete(path), []string(nil)
			switch p.In {
			case "path":
				target = strings.Replace(path, "{"+p.Name+"}", v, 1)
				target = op.concrete(target)
			case "query":
				target += "?" + p.Name + "=" + v
			default:
				headers = []string{p.Name, v}
			}
			m.tries++
			a := m.h.call(method, target, body, headers...)
			if a.status < 400 || a.status > 499 {
				m.t.Errorf("%s %s %v: %d", method, target, headers, a.status)
			}
		}
	}
	for _, q := range []string{"?nonsense=1", "?limit=1&limit=2"} {
		m.tries++
		if a := m.h.call(method, op.concrete(path)+q, body); strings.HasPrefix(path, "/api/") && a.status != 422 {
			m.t.Errorf("%s %s%s: %d", method, path, q, a.status)
		}
	}
}

// Every invalid request on every route is answered with 4xx, and nothing is written.
func TestEveryWrongRequestIsRefused(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		refuseEverything(t, launch(t, func(c *config.Config) { c.DatabaseURL = url }), launch(t, func(*config.Config) {}))
	})
}

func refuseEverything(t *testing.T, h, witness *herald) {
	t.Helper()
	m := &mutator{t: t, h: h, witness: witness, d: the(h), covered: map[string]bool{}, values: map[string][]any{}}
	m.tree = h.must(200, "GET", "/openapi.json", "").body
	const leadID = "550e8400-e29b-41d4-a716-446655440002"
	for _, one := range []*herald{h, witness} {
		one.must(201, "POST", "/api/leads", `{"id":"`+leadID+`","email":"stella@example.com","phone":"+15005551001","instagram_id":"1234567890123456","first_name":"Stella","assignee_id":"user-uuid-1"}`)
	}
	fixtures := []string{"/api/leads/" + leadID, "/api/channels/" + emailChannel + "/EMAIL"}
	look := func() string {
		all := h.contents()
		for _, f := range fixtures {
			all += h.must(200, "GET", f, "").raw
		}
		return all
	}
	before := look()
	bases := map[string][]string{
		"sendMessage": {
			`{"bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`,
			`{"sender_type":"sms","bulk_settings":{"lead_ids":["` + leadID + `"]},"message_data":{"content":"c"}}`,
			`{"message_data":{"recipient":"a@example.com","subject":"s","content":"c","reply_to":{"email":"help@acme.test"}}}`,
		},
		"createChannel":     {`{"type":"EMAIL","name":"n","sender":"a@acme.test","credentials":{"api_key":"SG.a-key-of-a-test"}}`},
		"changeChannel":     {`{}`, `{"credentials":{"api_key":"SG.a-key-of-a-test"}}`},
		"createLead":        {`{}`},
		"changeLead":        {`{}`},
		"createSuppression": {`{"type":"SMS","address":"+15550001111"}`},
	}
	for _, name := range slices.Sorted(maps.Keys(m.d.Paths["/api/messaging/send"]["post"].RequestBody.Content["application/json"].Examples)) {
		bases["sendMessage"] = append(bases["sendMessage"], contract.Example(name))
	}
	path := func(p string, op *operation) string {
		switch op.OperationID {
		case "changeChannel":
			return fixtures[1]
		case "changeLead":
			return fixtures[0]
		}
		return op.concrete(p)
	}
	// Sending comes first: the requests about channels change the witness's channels, which sending needs.
	paths := slices.SortedFunc(maps.Keys(m.d.Paths), func(a, b string) int { return strings.Compare(b, a) })
	for _, p := range paths {
		for method, op := range m.d.Paths[p] {
			method = strings.ToUpper(method)
			m.parameters(method, p, &op, map[bool]string{true: "{}"}[method == "PATCH" || method == "POST"])
			if op.RequestBody == nil || op.RequestBody.Content["application/json"].Examples == nil && bases[op.OperationID] == nil {
				continue
			}
			send := func(h *herald, body string) int {
				return h.call(method, path(p, &op), body, "Prefer", "respond-async").status
			}
			for _, base := range bases[op.OperationID] {
				if a := witness.call(method, path(p, &op), base, "Prefer", "respond-async"); a.status >= 400 {
					t.Fatalf("%s: a valid request is refused: %s: %s", op.OperationID, a.raw, base)
				}
				var root map[string]any
				if err := json.Unmarshal([]byte(base), &root); err != nil {
					t.Fatal(err)
				}
				m.walk("/paths/"+escape(p)+"/"+strings.ToLower(method)+"/requestBody/content/application~1json/schema", root, nil, root, send)
			}
		}
	}
	m.rows()
	if after := look(); after != before {
		t.Errorf("something was written: %s\nbefore: %s", after, before)
	}
	if n := len(h.sim.Accepted("")); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	for _, name := range []string{"SendRequest", "MessageData", "ReplyTo", "Attachment", "BulkSettings", "FilterRequest", "FilterNode", "NewChannel", "ChannelPatch", "NewLead", "LeadPatch", "NewSuppression"} {
		properties, _ := m.node("/components/schemas/" + name + "/properties").(map[string]any)
		for field := range properties {
			if !m.covered["/components/schemas/"+name+"/properties/"+field] {
				t.Errorf("%s.%s was never part of a valid request, so nothing was shown of it", name, field)
			}
		}
	}
	t.Logf("%d wrong requests", m.tries)
}

// rows tries the fields of a lead as rows of an import, which reports what is wrong and is itself fine. A text that is no date
// costs its cell and not its row. The rows are a dry run's, since this one would be written.
func (m *mutator) rows() {
	m.t.Helper()
	properties, _ := m.node("/components/schemas/NewLead/properties").(map[string]any)
	for name := range properties {
		for _, v := range m.wrong("/components/schemas/NewLead/properties/" + name) {
			b, _ := json.Marshal(map[string]any{"last_name": "row", name: v})
			m.tries++
			a := m.h.must(200, "POST", "/api/leads/import?dry_run=true", string(b)+"\n", "Content-Type", "application/x-ndjson")
			want := map[string]any{"rejected": 1.0, "imported": 0.0, "warning_count": 0.0}
			if _, isText := v.(string); isText && strings.HasSuffix(name, "_at") {
				want = map[string]any{"rejected": 0.0, "imported": 1.0, "warning_count": 1.0}
			}
			for count, n := range want {
				if a.body[count] != n {
					m.t.Errorf("a row with %s: %s is not %v in %s for %.200s", name, count, n, a.raw, b)
				}
			}
		}
	}
}
