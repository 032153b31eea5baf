package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/access"
	"herald/pkg/contract"
)

// documentOfTheAPI is the part of the OpenAPI document that these tests read.
type documentOfTheAPI struct {
	Paths map[string]map[string]struct {
		OperationID string
		Security    []map[string][]access.Scope
	}
	Components struct {
		Schemas map[string]*jsonschema.Schema
	}
}

func readDocument(t *testing.T) documentOfTheAPI {
	t.Helper()
	b, err := Document()
	if err != nil {
		t.Fatal(err)
	}
	var d documentOfTheAPI
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The document has every route, with its path, method and scope, and no other.
func TestEveryRouteIsInTheDocument(t *testing.T) {
	d := readDocument(t)
	ids, operations := map[string]bool{}, 0
	for _, methods := range d.Paths {
		operations += len(methods)
	}
	routes := (&Server{}).routes()
	if operations != len(routes) {
		t.Errorf("%d operations, want %d", operations, len(routes))
	}
	for _, r := range routes {
		if ids[r.ID] {
			t.Errorf("two routes have the id %s", r.ID)
		}
		ids[r.ID] = true
		path := strings.NewReplacer(":id", "{id}", ":type", "{type}", ":lead_id", "{lead_id}").Replace(r.Path)
		op, ok := d.Paths[path][strings.ToLower(r.Method)]
		if !ok || op.OperationID != r.ID {
			t.Errorf("%s %s is in the document as %+v", r.Method, path, op)
		}
		if keyed := strings.HasPrefix(r.Path, "/api/"); keyed != (r.Access == contract.Keyed) || keyed != (r.Scope != "") {
			t.Errorf("%s %s has access %d and scope %q", r.Method, r.Path, r.Access, r.Scope)
		}
		switch {
		case r.Access == contract.Keyed && (len(op.Security) != 1 || len(op.Security[0]["apiKey"]) != 1 || op.Security[0]["apiKey"][0] != r.Scope):
			t.Errorf("%s %s documents %v, want the scope %s", r.Method, r.Path, op.Security, r.Scope)
		case r.Access != contract.Keyed && len(op.Security) != 0:
			t.Errorf("%s %s documents %v, want no key", r.Method, r.Path, op.Security)
		}
	}
}

// Every component has a meaning, and every field a meaning and an example that its own schema accepts.
func TestEveryFieldIsExplained(t *testing.T) {
	all := readDocument(t).Components.Schemas
	for name, s := range all {
		if s.Description == "" {
			t.Errorf("%s has no meaning", name)
		}
		for field, p := range s.Properties {
			if p.Description == "" {
				t.Errorf("%s.%s has no meaning", name, field)
			}
			if p = withEnumerations(p, all); refersToOthers(p) {
				continue
			}
			if len(p.Examples) == 0 {
				t.Errorf("%s.%s has no example", name, field)
			}
			resolved, err := p.CloneSchemas().Resolve(nil)
			if err != nil {
				t.Fatalf("%s.%s: %v", name, field, err)
			}
			for _, example := range p.Examples {
				if err := resolved.Validate(example); err != nil {
					t.Errorf("the example of %s.%s: %v", name, field, err)
				}
			}
		}
	}
}

// withEnumerations returns a schema with the enumerations and values that it refers to in their places.
func withEnumerations(s *jsonschema.Schema, all map[string]*jsonschema.Schema) *jsonschema.Schema {
	if s == nil {
		return nil
	}
	out := *s
	if named := all[strings.TrimPrefix(s.Ref, "#/components/schemas/")]; named != nil && named.Properties == nil {
		out.Ref, out.Type, out.Enum, out.AnyOf = "", named.Type, named.Enum, named.AnyOf
	}
	alternatives := out.AnyOf
	out.Items, out.AnyOf = withEnumerations(s.Items, all), nil
	for _, a := range alternatives {
		out.AnyOf = append(out.AnyOf, withEnumerations(a, all))
	}
	return &out
}

// refersToOthers reports whether a schema refers to a component, whose own fields have the examples.
func refersToOthers(s *jsonschema.Schema) bool {
	if s == nil {
		return false
	}
	found := s.Ref != "" || refersToOthers(s.Items) || refersToOthers(s.AdditionalProperties)
	for _, inner := range append(append([]*jsonschema.Schema{}, s.AnyOf...), s.OneOf...) {
		found = found || refersToOthers(inner)
	}
	return found
}
