// Package openapi makes the OpenAPI 3.1 document and its reference page from a table of routes and the types of package
// contract. It receives the table as data and must not know handlers or how requests are admitted.
//
// The generator is our own. swaggest/openapi-go v0.2.60 (with jsonschema-go v0.3.74) also reflects over Go types, but keeps
// paths (Paths.MapOfPathItemValues) and properties (Schema.Properties) in Go maps, which are written in sorted order. This
// document keeps the order of declaration, on the page too, so it would change for its readers.
package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// object is a JSON object whose members keep their order.
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

// parameter is one parameter of an operation.
type parameter struct {
	in, name, doc string // in: path, query or header
	example       any
	schema        *jsonschema.Schema
}

// operation is a route in the form of the document.
type operation struct {
	contract.Route
	path   string // in the notation of OpenAPI
	params []parameter
}

// document holds the operations and the schemas that they refer to, in the order of the table of routes.
type document struct {
	operations []operation
	schemas    schemas
}

func newDocument(routes []contract.Route) *document {
	d := &document{schemas: schemas{all: map[string]*jsonschema.Schema{}}}
	for _, r := range routes {
		d.operations = append(d.operations, operation{Route: r, path: openPath(r.Path), params: d.parameters(&r)})
	}
	for _, op := range d.operations {
		if op.Request != nil {
			d.schemas.of(reflect.TypeOf(op.Request), true)
		}
		if len(op.Answers) > 0 {
			d.schemas.either(op.Answers)
		}
	}
	for _, e := range []any{contract.Problem{}, contract.ValidationError{}} {
		d.schemas.of(reflect.TypeOf(e), false)
	}
	return d
}

// parameters returns the parameters of a route: of its path, its query and its headers.
func (d *document) parameters(r *contract.Route) []parameter {
	var params []parameter
	for _, p := range d.parametersOf(contract.PathParameters{}, "path") {
		if strings.Contains(r.Path+"/", "/:"+p.name+"/") {
			params = append(params, p)
		}
	}
	params = append(params, d.parametersOf(r.Query, "query")...)
	return append(params, d.parametersOf(r.Headers, "header")...)
}

// parametersOf describes the fields of a struct as parameters. The struct may be nil.
func (d *document) parametersOf(v any, in string) []parameter {
	if v == nil {
		return nil
	}
	var params []parameter
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
		if f.Anonymous {
			continue
		}
		s := d.schemas.of(f.Type, true)
		d.schemas.limit(s, f.Tag, true)
		params = append(params, parameter{in: in, name: f.Tag.Get("name"), doc: f.Tag.Get("doc"), example: exampleOf(s, f.Tag), schema: s})
	}
	return params
}

// openPath returns a path in OpenAPI's notation: {id} for :id.
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
		methods = append(methods, member{strings.ToLower(op.Method), d.operation(op)})
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
			{"title", "Herald"}, {"version", contractVersion}, {"summary", "Sends one message, or a message to every lead that meets the criteria."},
			{"description", conventions}, {"license", object{{"name", "MIT"}, {"identifier", "MIT"}}},
		}},
		{"servers", []object{{{"url", "/"}, {"description", "The server that serves this document."}}}},
		{"tags", tagList},
		{"paths", paths},
		{"components", object{
			{"securitySchemes", object{{securityScheme, object{
				{"type", "http"}, {"scheme", "bearer"}, {"description", "An API key, created by `herald keys create`. Its scopes (send, read, admin) say what it allows; no scope includes another."},
			}}}},
			{"schemas", components}, {"responses", errorResponses()}, {"headers", headerComponents},
		}},
	}, "", "  ")
}

const (
	securityScheme  = "apiKey"
	contractVersion = "1.0.0"
)

func (d *document) operation(op operation) object {
	o := object{{"operationId", op.ID}, {"tags", []string{op.Tag}}, {"summary", op.Summary}, {"description", op.Text}}
	security := []object{}
	if op.Access == contract.Keyed {
		security = append(security, object{{securityScheme, []string{string(op.Scope)}}})
	}
	o = append(o, member{"security", security})
	if len(op.params) > 0 {
		params := make([]object, len(op.params))
		for i, p := range op.params {
			params[i] = object{{"name", p.name}, {"in", p.in}, {"description", p.doc}}
			if p.in == "path" {
				params[i] = append(params[i], member{"required", true})
			}
			if p.schema.Items != nil { // values separated by commas
				params[i] = append(params[i], member{"style", "form"}, member{"explode", false})
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

func (d *document) requestBody(op operation) object {
	content := make(object, 0, len(op.Uploads)+1)
	switch {
	case op.Request != nil:
		media := object{{"schema", d.schemas.of(reflect.TypeOf(op.Request), true)}}
		if len(op.Examples) > 0 {
			examples := make(object, 0, len(op.Examples))
			for _, name := range op.Examples {
				examples = append(examples, member{name, object{{"value", json.RawMessage(requestExample(name))}}})
			}
			media = append(media, member{"examples", examples})
		}
		content = append(content, member{contract.MediaJSON, media})
	case len(op.Uploads) > 0:
		for _, u := range op.Uploads {
			content = append(content, member{u.Media, object{{"schema", bytesOf()}, {"example", u.Example}}})
		}
	default:
		return nil
	}
	return object{{"required", true}, {"content", content}}
}

func (d *document) responses(op operation) object {
	success := object{{"description", "Success without a body."}, {"headers", answerHeaders(op)}}
	if content := d.answer(op); content != nil {
		success[0].value = "Success."
		success = append(success, member{"content", content})
	}
	errs := op.allErrors()
	out := make(object, 0, 1+len(errs))
	out = append(out, member{strconv.Itoa(op.Status), success})
	for _, status := range errs {
		out = append(out, member{strconv.Itoa(status), object{{"$ref", "#/components/responses/" + responseName(status)}}})
	}
	return out
}

// answer describes the body of a successful answer; nil without a body.
func (d *document) answer(op operation) object {
	switch {
	case op.Media != "":
		return object{{op.Media, object{{"schema", bytesOf()}}}}
	case len(op.Answers) == 0:
		return nil
	}
	media := object{{"schema", d.schemas.either(op.Answers)}}
	if op.AnswerExample != "" {
		media = append(media, member{"examples", object{
			{"single", object{{"summary", "A single message."}, {"value", json.RawMessage(contract.Example(op.AnswerExample))}}},
		}})
	}
	return object{{contract.MediaJSON, media}}
}

// requestExample returns a documented request with the types of channels in capitals, as the schema has them. Herald accepts any
// letter case, which generated clients need not know.
func requestExample(name string) string {
	example := contract.Example(name)
	for _, t := range message.ChannelTypes {
		const field = `"sender_type": "`
		example = strings.Replace(example, field+strings.ToLower(string(t)), field+string(t), 1)
	}
	return example
}

// bytesOf is the schema of a body that is not JSON. The format makes generated clients read and write it as a stream; without
// it, ogen refuses media types that it does not know.
func bytesOf() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Format: "binary"} }

func answerHeaders(op operation) object {
	names := append([]string{contract.HeaderRequestID}, op.AnswerHeaders...)
	if op.Access == contract.Keyed {
		names = append(names, rateHeaders...)
	}
	o := make(object, 0, len(names))
	for _, n := range names {
		o = append(o, member{n, object{{"$ref", "#/components/headers/" + n}}})
	}
	return o
}

// rateHeaders are in the answers to an API key with a rate.
var rateHeaders = []string{contract.HeaderRateLimit, contract.HeaderRateLimitPolicy}

// allErrors returns the statuses that an operation may fail with, in the order of the document: those that the route
// declares, and those that follow from its properties.
func (op *operation) allErrors() []int {
	has := map[int]bool{}
	add := func(statuses ...int) {
		for _, status := range statuses {
			has[status] = true
		}
	}
	add(op.Errors...)
	if op.Access != contract.Open {
		add(http.StatusUnauthorized, http.StatusForbidden)
	}
	if op.Admission != contract.AdmitAlways {
		add(http.StatusInternalServerError, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestEntityTooLarge)
	}
	if len(op.params) > 0 || op.HasBody() {
		add(http.StatusUnprocessableEntity)
	}
	if op.HasBody() {
		add(http.StatusUnsupportedMediaType, http.StatusRequestTimeout)
	}
	var out []int
	for _, e := range errorDocs {
		if has[e.status] {
			out = append(out, e.status)
		}
	}
	return out
}

// responseName returns the name of the component for a status.
func responseName(status int) string {
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

func errorResponses() object {
	out := make(object, 0, len(errorDocs))
	for _, e := range errorDocs {
		headers := object{{contract.HeaderRequestID, object{{"$ref", "#/components/headers/" + contract.HeaderRequestID}}}}
		if e.header != "" {
			headers = append(headers, member{e.header, object{{"$ref", "#/components/headers/" + e.header}}})
		}
		if e.status != http.StatusUnauthorized { // the key is known
			for _, name := range rateHeaders {
				headers = append(headers, member{name, object{{"$ref", "#/components/headers/" + name}}})
			}
		}
		out = append(out, member{responseName(e.status), object{
			{"description", e.text}, {"headers", headers},
			{"content", object{{contract.MediaJSON, object{{"schema", &jsonschema.Schema{Ref: schemaPrefix + e.schema}}, {"example", json.RawMessage(e.example)}}}}},
		}})
	}
	return out
}

// Pages are the document (JSON) and its reference page (HTML), ready to be served.
type Pages struct{ JSON, HTML []byte }

// New makes the document and the reference page of a table of routes.
func New(routes []contract.Route) (Pages, error) {
	d := newDocument(routes)
	j, err := d.json()
	if err != nil {
		return Pages{}, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	h, err := d.html()
	return Pages{JSON: j, HTML: h}, err
}
