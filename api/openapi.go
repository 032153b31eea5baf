package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/contract"
)

// object is a JSON object whose members keep their order, for a document that people read too.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// parameter is one of a path, a query or the headers.
type parameter struct {
	in, name, doc string
	example       any
	schema        *jsonschema.Schema
}

// operation is what the document says of a route. Every route has one.
type operation struct {
	id, tag, summary, text string
	params                 []parameter
	request                any               // a value of the request's type, nil for none
	examples               []string          // requests, by their names in package contract
	files                  map[string]string // instead of a request: media types, with an example of each
	status                 int               // of success
	answers                []any             // values of the types of the answer, none for none
	errors                 []int             // besides those that every operation of its kind has
}

// asks says whether the operation has parameters in the query.
func (op operation) asks() bool {
	return slices.ContainsFunc(op.params, func(p parameter) bool { return p.in == "query" })
}

// described is an operation with its route.
type described struct {
	operation
	method, path string
	scope        access.Scope
}

// document is everything that the contract says. It is made once, of the table of routes.
type document struct {
	operations []described
	schemas    schemas
}

func newDocument(routes []route) *document {
	d := &document{schemas: schemas{all: map[string]*jsonschema.Schema{}}}
	for _, r := range routes {
		op, ok := operations[r.method+" "+r.path]
		if !ok {
			panic("the document has nothing on " + r.method + " " + r.path)
		}
		var params []parameter
		for _, name := range []string{"id", "type", "lead_id"} {
			if strings.Contains(r.path+"/", "/:"+name+"/") {
				params = append(params, pathParameters[name])
			}
		}
		op.params = append(params, op.params...)
		d.operations = append(d.operations, described{op, r.method, openPath(r.path), r.scope})
	}
	for _, op := range d.operations {
		if op.request != nil {
			d.schemas.of(reflect.TypeOf(op.request), true)
		}
		for _, a := range op.answers {
			d.schemas.of(reflect.TypeOf(a), false)
		}
	}
	for _, e := range []any{contract.Problem{}, contract.ValidationError{}} {
		d.schemas.of(reflect.TypeOf(e), false)
	}
	return d
}

// openPath is a path as OpenAPI writes it: {id} for :id.
func openPath(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}

func (d *document) json() ([]byte, error) {
	var paths object
	for _, op := range d.operations {
		at := -1
		for i := range paths {
			if paths[i].name == op.path {
				at = i
			}
		}
		if at < 0 {
			at, paths = len(paths), append(paths, member{op.path, object{}})
		}
		methods := paths[at].value.(object) //nolint:forcetypeassert // made above
		methods = append(methods, member{strings.ToLower(op.method), d.operation(op)})
		paths[at].value = methods
	}
	components := make(object, 0, len(d.schemas.names))
	for _, name := range d.schemas.names {
		components = append(components, member{name, d.schemas.all[name]})
	}
	tagList := make([]object, 0, len(tags))
	for _, t := range tags {
		tagList = append(tagList, object{{"name", t.name}, {"description", t.text}})
	}
	return json.MarshalIndent(object{
		{"openapi", "3.1.0"},
		{"info", object{
			{"title", "Herald"}, {"version", contractVersion}, {"summary", "One message, or a message to everybody who fits a description."},
			{"description", conventions}, {"license", object{{"name", "MIT"}, {"identifier", "MIT"}}},
		}},
		{"servers", []object{{{"url", "/"}, {"description", "Wherever this document comes from."}}}},
		{"tags", tagList},
		{"paths", paths},
		{"components", object{
			{"securitySchemes", object{{securityScheme, object{
				{"type", "http"}, {"scheme", "bearer"}, {"description", "An API key, made by `herald keys create`. What it allows are its scopes: send, read, admin. None contains another."},
			}}}},
			{"schemas", components}, {"responses", errorResponses()}, {"headers", headerComponents},
		}},
	}, "", "  ")
}

const (
	securityScheme  = "apiKey"
	contractVersion = "1.0.0"
	mediaJSON       = "application/json"
)

func (d *document) operation(op described) object {
	o := object{{"operationId", op.id}, {"tags", []string{op.tag}}, {"summary", op.summary}, {"description", op.text}}
	security := []object{}
	if op.scope != "" {
		security = append(security, object{{securityScheme, []string{string(op.scope)}}})
	}
	o = append(o, member{"security", security})
	if len(op.params) > 0 {
		params := make([]object, len(op.params))
		for i, p := range op.params {
			params[i] = object{{"name", p.name}, {"in", p.in}, {"description", p.doc}}
			if p.in == "path" {
				params[i] = append(params[i], member{"required", true})
			}
			params[i] = append(params[i], member{"schema", p.schema}, member{"example", p.example})
		}
		o = append(o, member{"parameters", params})
	}
	if body := d.requestBody(op); body != nil {
		o = append(o, member{"requestBody", body})
	}
	return append(o, member{"responses", d.responses(op)})
}

func (d *document) requestBody(op described) object {
	content := make(object, 0, len(op.files)+1)
	switch {
	case op.request != nil:
		media := object{{"schema", d.schemas.of(reflect.TypeOf(op.request), true)}}
		if len(op.examples) > 0 {
			examples := make(object, 0, len(op.examples))
			for _, name := range op.examples {
				examples = append(examples, member{name, object{{"value", json.RawMessage(contract.Example(name))}}})
			}
			media = append(media, member{"examples", examples})
		}
		content = append(content, member{mediaJSON, media})
	case op.files != nil:
		for _, name := range []string{"text/csv", "application/x-ndjson"} {
			content = append(content, member{name, object{{"schema", &jsonschema.Schema{Type: "string"}}, {"example", op.files[name]}}})
		}
	default:
		return nil
	}
	return object{{"required", true}, {"content", content}}
}

func (d *document) responses(op described) object {
	success := object{{"description", "It is done."}, {"headers", answerHeaders(op)}}
	if len(op.answers) > 0 {
		success[0].value = "The answer."
		var schema *jsonschema.Schema
		if len(op.answers) == 1 {
			schema = d.schemas.of(reflect.TypeOf(op.answers[0]), false)
		} else {
			schema = &jsonschema.Schema{}
			for _, a := range op.answers {
				schema.OneOf = append(schema.OneOf, d.schemas.of(reflect.TypeOf(a), false))
			}
		}
		media := object{{"schema", schema}}
		if op.id == "send" {
			media = append(media, member{"examples", object{
				{"single", object{{"summary", "A single."}, {"value", json.RawMessage(contract.Example("single_response"))}}},
			}})
		}
		success = append(success, member{"content", object{{mediaJSON, media}}})
	}
	errs := op.allErrors()
	out := make(object, 0, 1+len(errs))
	out = append(out, member{strconv.Itoa(op.status), success})
	for _, status := range errs {
		out = append(out, member{strconv.Itoa(status), object{{"$ref", "#/components/responses/" + responseName(status)}}})
	}
	return out
}

func answerHeaders(op described) object {
	names := []string{headerRequestID}
	if op.id == "send" {
		names = append(names, headerReplayed, headerTiming, "Preference-Applied")
	}
	o := make(object, 0, len(names))
	for _, n := range names {
		o = append(o, member{n, object{{"$ref", "#/components/headers/" + n}}})
	}
	return o
}

// allErrors are the statuses that an operation may fail with, in their order.
func (op *described) allErrors() []int {
	has := map[int]bool{http.StatusInternalServerError: op.scope != ""}
	for _, status := range op.errors {
		has[status] = true
	}
	if op.scope != "" {
		for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestEntityTooLarge} {
			has[status] = true
		}
	}
	if len(op.params) > 0 || op.request != nil || op.files != nil {
		has[http.StatusUnprocessableEntity] = true
	}
	if op.request != nil || op.files != nil {
		has[http.StatusUnsupportedMediaType], has[http.StatusRequestTimeout] = true, true
	}
	var out []int
	for _, e := range errorDocs {
		if has[e.status] {
			out = append(out, e.status)
		}
	}
	return out
}

// responseName is what the document calls the answer with a status.
func responseName(status int) string {
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

func errorResponses() object {
	out := make(object, 0, len(errorDocs))
	for _, e := range errorDocs {
		headers := object{{headerRequestID, object{{"$ref", "#/components/headers/" + headerRequestID}}}}
		if e.header != "" {
			headers = append(headers, member{e.header, object{{"$ref", "#/components/headers/" + e.header}}})
		}
		out = append(out, member{responseName(e.status), object{
			{"description", e.text}, {"headers", headers},
			{"content", object{{mediaJSON, object{{"schema", &jsonschema.Schema{Ref: schemaPrefix + e.schema}}, {"example", json.RawMessage(e.example)}}}}},
		}})
	}
	return out
}

// contractPages are the document and its page, made once.
type contractPages struct{ json, html []byte }

func makePages(routes []route) (contractPages, error) {
	d := newDocument(routes)
	j, err := d.json()
	if err != nil {
		return contractPages{}, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	h, err := d.html()
	return contractPages{j, h}, err
}

// Document returns the OpenAPI document, without a server.
func Document() ([]byte, error) {
	pages, err := makePages((&Server{}).routes())
	return pages.json, err
}

func (s *Server) openapi(c echo.Context) error {
	return c.Blob(http.StatusOK, mediaJSON, s.pages.json)
}

func (s *Server) docs(c echo.Context) error {
	h := c.Response().Header()
	h.Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	return c.HTMLBlob(http.StatusOK, s.pages.html)
}
