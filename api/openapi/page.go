package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/message"
)

//go:embed page.html
var pageTemplate string

// docSection, docOperation and docField are the data of the page's template.
type docSection struct {
	Name, Text string
	Operations []docOperation
}

type docOperation struct {
	ID, Method, Path, Summary, Text, Scope string
	Params                                 []docField
	Request                                string // the name of its schema
	Examples                               []docExample
	Status                                 int
	Answers                                []string
	Errors                                 []docError
}

type docExample struct{ Name, Body string }

type docError struct {
	Status int
	Text   string
}

type docField struct {
	Name, In, Type, Text, Example string
	Refs                          []string
	Required                      bool
}

type docSchema struct {
	Name, Text string
	Fields     []docField
}

func (d *document) html() ([]byte, error) {
	sections := make([]docSection, 0, len(tags))
	for _, t := range tags {
		s := docSection{Name: t.name, Text: t.text}
		for _, op := range d.operations {
			if op.Tag == t.name {
				s.Operations = append(s.Operations, d.show(op))
			}
		}
		sections = append(sections, s)
	}
	var shown []docSchema
	for _, name := range d.schemas.names {
		// Enumerations and values are shown where fields have them, and choices of answers at their operations.
		if s := d.schemas.all[name]; s.Properties != nil {
			shown = append(shown, docSchema{Name: name, Text: s.Description, Fields: d.schemas.fieldsOf(s)})
		}
	}
	page, err := template.New("docs").Parse(pageTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse the page of the document: %w", err)
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"Version": contractVersion, "Conventions": strings.Split(strings.ReplaceAll(conventions, "`", ""), "\n\n"), "Sections": sections, "Schemas": shown,
		"Reasons": reasons(),
	})
	if err != nil {
		return nil, fmt.Errorf("write the page of the document: %w", err)
	}
	return b.Bytes(), nil
}

// docReason is one row of the table of reasons.
type docReason struct {
	Reason message.Reason
	message.ReasonText
}

func reasons() []docReason {
	all := message.Reasons()
	rows := make([]docReason, len(all))
	for i, r := range all {
		rows[i] = docReason{r, r.Explain()}
	}
	return rows
}

// show converts an operation to the data of the page's template.
func (d *document) show(op operation) docOperation {
	o := docOperation{ID: op.ID, Method: op.Method, Path: op.path, Summary: op.Summary, Text: op.Text, Scope: string(op.Scope), Status: op.Status}
	for _, p := range op.params {
		o.Params = append(o.Params, docField{Name: p.name, In: p.in, Type: d.schemas.typeOf(p.schema), Text: p.doc, Example: text(p.example), Required: p.in == "path"})
	}
	if op.Request != nil {
		o.Request = componentName(reflect.TypeOf(op.Request))
	}
	for _, name := range op.Examples {
		var indented bytes.Buffer
		if json.Indent(&indented, []byte(requestExample(name)), "", "  ") == nil {
			o.Examples = append(o.Examples, docExample{strings.ReplaceAll(name, "_", " "), indented.String()})
		}
	}
	for _, u := range op.Uploads {
		o.Examples = append(o.Examples, docExample{u.Media, u.Example})
	}
	for _, a := range op.Answers {
		if t := reflect.TypeOf(a); t.Kind() == reflect.Struct {
			o.Answers = append(o.Answers, componentName(t))
		}
	}
	for _, status := range op.allErrors() {
		o.Errors = append(o.Errors, docError{status, http.StatusText(status)})
	}
	return o
}

// fieldsOf returns the fields of an object in the order of their declaration.
func (b *schemas) fieldsOf(s *jsonschema.Schema) []docField {
	fields := make([]docField, len(s.PropertyOrder))
	for i, name := range s.PropertyOrder {
		p := s.Properties[name]
		fields[i] = docField{Name: name, Type: b.typeOf(p), Text: p.Description, Refs: b.refsOf(p), Required: slices.Contains(s.Required, name)}
		if len(p.Examples) > 0 {
			fields[i].Example = text(p.Examples[0])
		}
	}
	return fields
}

// text formats an example: a string without quotes, any other value as JSON.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// refsOf returns the names of the components with fields that a schema refers to.
func (b *schemas) refsOf(s *jsonschema.Schema) []string {
	if s == nil {
		return nil
	}
	var refs []string
	if name, ok := strings.CutPrefix(s.Ref, schemaPrefix); ok && b.all[name].Properties != nil {
		refs = append(refs, name)
	}
	for _, inner := range append(slices.Concat(s.AnyOf, s.OneOf), s.Items, s.AdditionalProperties) {
		refs = append(refs, b.refsOf(inner)...)
	}
	return refs
}

// typeOf describes the type and the bounds of a schema in a few words. Only objects are described at a place of their own.
func (b *schemas) typeOf(s *jsonschema.Schema) string {
	if named := b.component(s); named != nil && named.Properties == nil {
		s = named
	}
	kinds := s.Types
	if s.Type != "" {
		kinds = []string{s.Type}
	}
	for _, alternative := range s.AnyOf {
		if t := b.typeOf(alternative); t != "" && !slices.Contains(kinds, t) {
			kinds = append(kinds, t)
		}
	}
	kinds = slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k == "null" })
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		kinds = []string{"one of " + strings.Join(values, ", ")}
	}
	out := strings.Join(kinds, " or ")
	if s.Items != nil {
		if of := b.typeOf(s.Items); of != "" {
			out += " of " + of
		}
	}
	if s.Format != "" && isString(s) {
		out = s.Format
	}
	return out + bounds(s)
}

// bounds describes the bounds of a schema in parentheses; "" for none.
func bounds(s *jsonschema.Schema) string {
	var parts []string
	add := func(format string, v any) { parts = append(parts, fmt.Sprintf(format, v)) }
	if s.MaxLength != nil {
		add("at most %d characters", *s.MaxLength)
	}
	if s.MinItems != nil {
		add("at least %d", *s.MinItems)
	}
	if s.MaxItems != nil {
		add("at most %d", *s.MaxItems)
	}
	if s.MaxProperties != nil {
		add("at most %d", *s.MaxProperties)
	}
	if s.Minimum != nil {
		add("from %v", *s.Minimum)
	}
	if s.Maximum != nil {
		add("to %v", *s.Maximum)
	}
	if v, ok := s.Extra["x-max-bytes"]; ok {
		add("at most %d bytes", v)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
