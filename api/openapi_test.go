package api

import (
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// The document has every route, with the path and method that Echo has, and no other.
func TestEveryRouteIsInTheDocument(t *testing.T) {
	s := &Server{}
	routes := s.routes()
	d := newDocument(routes)
	if len(operations) != len(routes) || len(d.operations) != len(routes) {
		t.Errorf("%d operations and %d routes", len(operations), len(routes))
	}
	ids := map[string]bool{}
	for i, op := range d.operations {
		if ids[op.id] {
			t.Errorf("two operations are called %s", op.id)
		}
		ids[op.id] = true
		if op.path != openPath(routes[i].path) || op.method != routes[i].method || op.scope != routes[i].scope {
			t.Errorf("%s %s is in the document as %s %s", routes[i].method, routes[i].path, op.method, op.path)
		}
		if (op.scope != "") != strings.HasPrefix(op.path, apiPrefix) {
			t.Errorf("%s %s has the scope %q", op.method, op.path, op.scope)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a route that the document lacks is not noticed")
		}
	}()
	newDocument(append(routes, route{method: "GET", path: "/api/new"}))
}

// Every field has a meaning and an example that its own schema accepts, and every string of a request that is no
// enumeration and no address of a schema has a bound.
func TestEveryFieldIsExplained(t *testing.T) {
	d := newDocument((&Server{}).routes())
	root := &jsonschema.Schema{Defs: map[string]*jsonschema.Schema{}}
	for name, s := range d.schemas.all {
		for field, p := range s.Properties {
			if p.Description == "" {
				t.Errorf("%s.%s has no meaning", name, field)
			}
			if p.Ref == "" && len(refsOf(p)) == 0 && len(p.Examples) == 0 {
				t.Errorf("%s.%s has no example", name, field)
			}
			root.Defs[name+"."+field] = p
		}
	}
	for at, p := range root.Defs {
		if len(refsOf(p)) > 0 {
			continue
		}
		resolved, err := p.CloneSchemas().Resolve(nil)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		for _, e := range p.Examples {
			if err := resolved.Validate(e); err != nil {
				t.Errorf("the example of %s: %v", at, err)
			}
		}
	}
}
