package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// rawDocument is the document as generators of clients read it, without the types of any library.
func rawDocument(t *testing.T) map[string]any {
	t.Helper()
	b, err := Document()
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// child returns the object at a path of a document.
func child(d map[string]any, path ...string) map[string]any {
	for _, name := range path {
		d, _ = d[name].(map[string]any)
	}
	return d
}

func elements(v any) []any {
	l, _ := v.([]any)
	return l
}

// constructs checks the schemas of a document for what generators of clients cannot read, or make poor types of.
type constructs struct {
	t    *testing.T
	all  map[string]any // the components
	seen int
}

func (c *constructs) target(s map[string]any) map[string]any {
	ref, _ := s["$ref"].(string)
	if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); ok {
		return child(c.all, name)
	}
	return s
}

// kind is the JSON type of a schema, without null.
func (c *constructs) kind(s map[string]any) string {
	s = c.target(s)
	kinds := []string{}
	if k, ok := s["type"].(string); ok {
		kinds = append(kinds, k)
	}
	for _, k := range elements(s["type"]) {
		if k != "null" {
			kinds = append(kinds, fmt.Sprint(k))
		}
	}
	return strings.Join(kinds, "+")
}

func (c *constructs) schema(where string, v any) {
	s, ok := v.(map[string]any)
	if !ok {
		c.t.Errorf("%s is %v: oapi-codegen and ogen read no boolean schemas", where, v)
		return
	}
	c.seen++
	for _, keyword := range []string{"allOf", "const", "not", "default", "patternProperties", "prefixItems", "discriminator", "nullable", "oneOf", "enum"} {
		if s[keyword] != nil {
			c.t.Errorf("%s has the keyword %s, of which the generators make different things", where, keyword)
		}
	}
	c.shape(where, s)
	for name, p := range child(s, "properties") {
		c.schema(where+"."+name, p)
	}
	if items := s["items"]; items != nil {
		c.schema(where+"[]", items)
	}
	if values := s["additionalProperties"]; values != nil && values != true && values != false {
		c.schema(where+"{}", values)
	}
	for i, alternative := range elements(s["anyOf"]) {
		c.schema(fmt.Sprintf("%s|%d", where, i), alternative)
	}
}

func (c *constructs) shape(where string, s map[string]any) {
	kind := c.kind(s)
	if strings.Contains(kind, "+") {
		c.t.Errorf("%s has the types %s: generators know one type, or it and null", where, kind)
	}
	if kind == "number" && s["format"] != "double" {
		c.t.Errorf("%s is a number without the format double: oapi-codegen makes it a float32", where)
	}
	if kind == "array" && s["items"] == nil {
		c.t.Errorf("%s is an array of unknown items", where)
	}
	if kind == "object" && s["$ref"] == nil && s["properties"] == nil && s["additionalProperties"] == nil {
		c.t.Errorf("%s is an object without additionalProperties: generators of TypeScript allow it no field", where)
	}
	c.anyOf(where, s)
}

// anyOf checks that alternatives are a schema and null, or have different JSON types, by which ogen distinguishes them.
func (c *constructs) anyOf(where string, s map[string]any) {
	alternatives := elements(s["anyOf"])
	if alternatives == nil {
		return
	}
	if s["type"] != nil || s["properties"] != nil || len(alternatives) < 2 {
		c.t.Fatalf("%s has alternatives beside a type, or only one", where)
	}
	if null, _ := alternatives[1].(map[string]any); len(alternatives) == 2 && null["type"] == "null" {
		return
	}
	kinds := map[string]bool{}
	for _, a := range alternatives {
		alternative, _ := a.(map[string]any)
		kind := c.kind(alternative)
		if kinds[kind] || kind == "" || elements(alternative["type"]) != nil {
			c.t.Errorf("%s: the alternatives are not distinguished by their JSON type: %v", where, alternatives)
		}
		kinds[kind] = true
	}
}

// choice checks a component that is one of several objects. ogen distinguishes them by a discriminator. Else it distinguishes
// them by fields that one of them alone has, allows one object without such a field, and allows no field with two types.
func (c *constructs) choice(name string, s map[string]any) {
	alternatives, types, without := map[string]map[string]any{}, map[string]map[string]int{}, 0
	for _, a := range elements(s["oneOf"]) {
		ref, _ := a.(map[string]any)["$ref"].(string)
		fields := child(c.target(a.(map[string]any)), "properties")
		if ref == "" || fields == nil {
			c.t.Errorf("%s: %v is no object with a name", name, a)
		}
		alternatives[ref] = fields
		for field, p := range fields {
			if types[field] == nil {
				types[field] = map[string]int{}
			}
			types[field][fmt.Sprint(p.(map[string]any)["$ref"], c.kind(p.(map[string]any)))]++
		}
	}
	if by := child(s, "discriminator"); by != nil {
		c.discriminator(name, by, alternatives)
		return
	}
	for _, fields := range alternatives {
		own := slices.ContainsFunc(slices.Collect(maps.Keys(fields)), func(f string) bool { return slices.Equal(slices.Collect(maps.Values(types[f])), []int{1}) })
		if !own {
			without++
		}
	}
	if without > 1 {
		c.t.Errorf("%s: %d alternatives have no field of their own", name, without)
	}
	for field, of := range types {
		if len(of) > 1 {
			c.t.Errorf("%s: the field %s has the types %v", name, field, of)
		}
	}
}

// discriminator checks that each alternative has one value of the discriminator, which leads to it.
func (c *constructs) discriminator(name string, by map[string]any, alternatives map[string]map[string]any) {
	mapping := child(by, "mapping")
	if len(mapping) != len(alternatives) {
		c.t.Errorf("%s: the discriminator leads to %v", name, mapping)
	}
	for value, ref := range mapping {
		p := child(alternatives[fmt.Sprint(ref)], fmt.Sprint(by["propertyName"]))
		if p == nil || !slices.Equal(elements(c.target(p)["enum"]), []any{value}) {
			c.t.Errorf("%s: %s leads to %v, whose field is %v", name, value, ref, p)
		}
	}
}

// The document uses only constructs from which oapi-codegen, ogen, openapi-typescript and @hey-api/openapi-ts make clients that
// compile and have useful types. `make contract` runs these generators; this test says which construct is to blame.
func TestCaseConstructsOfGenerators(t *testing.T) {
	d := rawDocument(t)
	c := &constructs{t: t, all: child(d, "components", "schemas")}
	for name, v := range c.all {
		s, _ := v.(map[string]any)
		switch {
		case s["enum"] != nil:
			c.seen++
			if s["type"] != "string" || slices.ContainsFunc(elements(s["enum"]), func(v any) bool { _, ok := v.(string); return !ok }) {
				t.Errorf("%s: an enumeration has strings, and null beside it: oapi-codegen makes null the text <nil>", name)
			}
		case s["oneOf"] != nil:
			c.seen++
			c.choice(name, s)
		default:
			c.schema(name, v)
			goNames(t, name, child(s, "properties"))
		}
	}
	for path, methods := range child(d, "paths") {
		for method, v := range methods.(map[string]any) {
			op, _ := v.(map[string]any)
			for _, p := range elements(op["parameters"]) {
				p, _ := p.(map[string]any)
				c.schema(fmt.Sprint(method, " ", path, " ", p["name"]), p["schema"])
			}
			c.bodies(method+" "+path, child(op, "requestBody", "content"))
			for status, r := range child(op, "responses") {
				c.bodies(fmt.Sprint(method, " ", path, " ", status), child(r.(map[string]any), "content"))
			}
		}
	}
	for name, h := range child(d, "components", "headers") {
		c.schema(name, h.(map[string]any)["schema"])
	}
	if c.seen < 200 {
		t.Errorf("only %d schemas were seen", c.seen)
	}
}

// bodies checks bodies by their media types. ogen reads an unknown media type only as a stream.
func (c *constructs) bodies(where string, content map[string]any) {
	for media, v := range content {
		s, _ := v.(map[string]any)["schema"].(map[string]any)
		if media != "application/json" && s["format"] != "binary" {
			c.t.Errorf("%s: %s has no schema with the format binary", where, media)
		}
		c.schema(where+" "+media, v.(map[string]any)["schema"])
	}
}

// goNames checks that the fields of an object have different names in Go.
func goNames(t *testing.T, name string, properties map[string]any) {
	t.Helper()
	seen := map[string]string{}
	for field := range properties {
		plain := strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(field))
		if seen[plain] != "" {
			t.Errorf("%s: %s and %s are one name", name, seen[plain], field)
		}
		seen[plain] = field
	}
}

// Names that generators derive from an operation, and the names of components, are all different.
func TestCaseNamesOfGeneratedTypes(t *testing.T) {
	d := rawDocument(t)
	seen := map[string]string{}
	add := func(name, what string) {
		if key := strings.ToLower(name); seen[key] == "" {
			seen[key] = what
		} else {
			t.Errorf("%s is the name of %s and of %s", name, seen[key], what)
		}
	}
	for _, section := range []string{"schemas", "responses", "headers", "parameters", "securitySchemes"} {
		for name := range child(d, "components", section) {
			if section == "headers" || section == "securitySchemes" {
				continue // no generator makes types of them
			}
			add(name, "the component "+section+"/"+name)
		}
	}
	for _, methods := range child(d, "paths") {
		for _, op := range methods.(map[string]any) {
			id, _ := op.(map[string]any)["operationId"].(string)
			for _, suffix := range []string{
				"Params", "Response", "Responses", "Request", "RequestBody", "JSONRequestBody", "JSONBody", // oapi-codegen
				"Res", "Req", "OK", "Created", "NoContent", "Headers", // ogen
				"Data", "Error", "Errors", // @hey-api/openapi-ts
			} {
				add(id+suffix, "the operation "+id)
			}
		}
	}
}

// Each operation says what the user of a generated client needs: names, tags, failures with a type, when to try again, and how
// to authenticate; and each time has the format of a time.
func TestCaseOperationsAreComplete(t *testing.T) {
	d := rawDocument(t)
	known := map[string]bool{}
	for _, tag := range elements(d["tags"]) {
		known[fmt.Sprint(tag.(map[string]any)["name"])] = true
	}
	if bearer := child(d, "components", "securitySchemes", "apiKey"); bearer["type"] != "http" || bearer["scheme"] != "bearer" {
		t.Errorf("the security scheme is %v", bearer)
	}
	operations := 0
	for path, methods := range child(d, "paths") {
		for method, v := range methods.(map[string]any) {
			op, _ := v.(map[string]any)
			operations++
			if tags := elements(op["tags"]); op["operationId"] == "" || op["summary"] == "" || op["description"] == "" || len(tags) != 1 || !known[fmt.Sprint(tags[0])] {
				t.Errorf("%s %s: %v %v %v", method, path, op["operationId"], op["summary"], op["tags"])
			}
			failures(t, d, method+" "+path, op)
		}
	}
	if operations < 20 {
		t.Errorf("only %d operations", operations)
	}
	send := child(d, "paths", "/api/messaging/send", "post")
	if !slices.ContainsFunc(elements(send["parameters"]), func(p any) bool {
		return p.(map[string]any)["name"] == "Idempotency-Key" && p.(map[string]any)["in"] == "header"
	}) {
		t.Error("a send takes no Idempotency-Key")
	}
	for name, s := range child(d, "components", "schemas") {
		for field, p := range child(s.(map[string]any), "properties") {
			if isTime := strings.HasSuffix(field, "_at") || field == "at"; isTime && p.(map[string]any)["format"] != "date-time" {
				t.Errorf("%s.%s is a time without its format", name, field)
			}
		}
	}
}

// failures checks the failures of an operation.
func failures(t *testing.T, d map[string]any, where string, op map[string]any) {
	t.Helper()
	for status, r := range child(op, "responses") {
		if status < "400" {
			continue
		}
		name := strings.TrimPrefix(fmt.Sprint(r.(map[string]any)["$ref"]), "#/components/responses/")
		failure := child(d, "components", "responses", name)
		want := "#/components/schemas/Problem"
		if status == "422" {
			want = "#/components/schemas/ValidationError"
		}
		if failure["description"] == "" || child(failure, "content", "application/json", "schema")["$ref"] != want {
			t.Errorf("%s: %s is %v", where, status, failure)
		}
		if again := status == "429" || status == "503"; again && child(failure, "headers", "Retry-After") == nil {
			t.Errorf("%s: %s has no Retry-After", where, status)
		}
	}
	if keyed := len(elements(op["security"])) > 0; keyed && (child(op, "responses", "401") == nil || child(op, "responses", "403") == nil) {
		t.Errorf("%s needs a key and does not say what happens without", where)
	}
}
