package openapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
)

const (
	schemaPrefix = "#/components/schemas/"
	uuidPattern  = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
)

// schemas are the JSON schemas (draft 2020-12, as OpenAPI 3.1 requires) of the types of package contract, in the order of
// their first use. They use only constructs from which oapi-codegen, ogen, openapi-typescript and @hey-api/openapi-ts
// generate clients that compile; TestCaseConstructsOfGenerators lists them, `make contract` tries them.
type schemas struct {
	names []string
	all   map[string]*jsonschema.Schema
}

// of returns the schema of a Go type; a struct becomes a component and the schema a reference to it. Fields of a request are
// optional and nullable unless tagged as required, and enumerations accept any letter case.
func (b *schemas) of(t reflect.Type, request bool) *jsonschema.Schema {
	switch {
	case t.Kind() == reflect.Pointer:
		return orNothing(b.of(t.Elem(), request))
	case t == reflect.TypeFor[time.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		// Without additionalProperties, generators of TypeScript allow no field at all.
		return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{}}
	case t == reflect.TypeFor[[]byte]():
		return &jsonschema.Schema{Type: "string", Format: "byte", ContentEncoding: "base64"} // OpenAPI 3.0 and 3.1
	case t == reflect.TypeFor[contract.ReplyTo]():
		s := b.object(t, request)
		s.Extra = map[string]any{AlsoAccepts: &jsonschema.Schema{Type: "string", MaxLength: jsonschema.Ptr(contract.MaxMailbox)}}
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		return b.object(t, request)
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: b.of(t.Elem(), request)}
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: b.of(t.Elem(), request)}
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Int, reflect.Int64:
		return &jsonschema.Schema{Type: "integer"}
	case reflect.Float64:
		return number()
	case reflect.Interface:
		return &jsonschema.Schema{}
	default:
		return &jsonschema.Schema{Type: "string"}
	}
}

// componentName returns the name of a type's component: its own name, and LeadPage for Page[Lead].
func componentName(t reflect.Type) string {
	if items, ok := strings.CutPrefix(t.Name(), "Page["); ok {
		return strings.TrimSuffix(items[strings.LastIndexByte(items, '.')+1:], "]") + "Page"
	}
	return t.Name()
}

// object returns a reference to the component of a struct.
func (b *schemas) object(t reflect.Type, request bool) *jsonschema.Schema {
	name := componentName(t)
	if b.all[name] != nil {
		return &jsonschema.Schema{Ref: schemaPrefix + name}
	}
	s := &jsonschema.Schema{
		Type: "object", Description: componentText(name),
		Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
	b.add(name, s) // before its fields, which may be recursive
	if t == reflect.TypeFor[contract.FilterNode]() {
		b.node(s, request)
	} else {
		b.fields(s, t, request)
	}
	return &jsonschema.Schema{Ref: schemaPrefix + name}
}

// either returns the schema of an answer of one of several types. The choice is a component, named LeadOrLeadRef for Lead and
// LeadRef, because oapi-codegen makes methods only for a choice that has a name.
func (b *schemas) either(answers []any) *jsonschema.Schema {
	choice, alternatives := &jsonschema.Schema{}, make([]string, len(answers))
	for i, a := range answers {
		t := reflect.TypeOf(a)
		choice.OneOf = append(choice.OneOf, b.of(t, false))
		alternatives[i] = componentName(t)
	}
	if len(answers) == 1 {
		return choice.OneOf[0]
	}
	name := strings.Join(alternatives, "Or")
	if b.all[name] == nil {
		choice.Description = componentText(name)
		b.discriminate(choice)
		b.add(name, choice)
	}
	return &jsonschema.Schema{Ref: schemaPrefix + name}
}

// discriminate adds a discriminator to a choice whose alternatives have the field kind, each with one value of its own. Without
// it, ogen cannot choose among objects whose fields have the same name and different types, such as status.
func (b *schemas) discriminate(choice *jsonschema.Schema) {
	mapping := map[string]string{}
	for _, alternative := range choice.OneOf {
		kind := b.component(alternative).Properties["kind"]
		if kind == nil {
			return
		}
		mapping[fmt.Sprint(b.component(kind).Enum[0])] = alternative.Ref
	}
	choice.Extra = map[string]any{"discriminator": map[string]any{"propertyName": "kind", "mapping": mapping}}
}

// component returns the component that a schema refers to, nil if it refers to none.
func (b *schemas) component(s *jsonschema.Schema) *jsonschema.Schema {
	return b.all[strings.TrimPrefix(s.Ref, schemaPrefix)]
}

func (b *schemas) add(name string, s *jsonschema.Schema) {
	b.names, b.all[name] = append(b.names, name), s
}

// node describes a FilterNode as one object with the fields of a group and those of a condition. ogen does not implement a
// choice of two objects that have a field in common, and in the code of oapi-codegen it has no fields. The keywords if, then and
// else state the choice for validators; generators ignore them.
func (b *schemas) node(s *jsonschema.Schema, request bool) {
	b.fields(s, reflect.TypeFor[contract.FilterRequest](), request)
	group := len(s.PropertyOrder)
	b.fields(s, reflect.TypeFor[contract.FilterCondition](), request)
	for i, name := range s.PropertyOrder {
		of := "Of a condition: "
		switch {
		case name == "id":
			continue // of both
		case i < group:
			of = "Of a group: "
		}
		p := s.Properties[name]
		p.Description = of + strings.ToLower(p.Description[:1]) + p.Description[1:]
	}
	s.Required = nil
	s.If = &jsonschema.Schema{Required: []string{"conditions"}}
	s.Then = &jsonschema.Schema{PropertyNames: oneOfNames(s.PropertyOrder[:group])}
	s.Else = &jsonschema.Schema{Required: []string{"field", "operator"}, PropertyNames: oneOfNames(append([]string{"id"}, s.PropertyOrder[group:]...))}
}

func oneOfNames(names []string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	for _, n := range names {
		s.Enum = append(s.Enum, n)
	}
	return s
}

// fields adds the fields of a struct to the schema of an object. A field that the object has already stays as it is.
func (b *schemas) fields(s *jsonschema.Schema, t reflect.Type, request bool) {
	for _, f := range reflect.VisibleFields(t) {
		tag, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || tag == "" || s.Properties[tag] != nil {
			continue
		}
		required := rest == ""
		if request {
			required = f.Tag.Get("required") != ""
		}
		of, nullable := f.Type, request && !required
		if of.Kind() == reflect.Pointer {
			of, nullable = of.Elem(), f.Tag.Get("null") != "never"
		}
		p := b.of(of, request)
		b.limit(p, f.Tag, request)
		if nullable || (of == reflect.TypeFor[json.RawMessage]() && required) {
			p = orNothing(p)
		}
		if required {
			s.Required = append(s.Required, tag)
		}
		describe(p, tag, f.Tag)
		s.Properties[tag] = p
		s.PropertyOrder = append(s.PropertyOrder, tag)
	}
}

// number is the schema of a number. Without the format, oapi-codegen makes it a float32, which loses digits of a price.
func number() *jsonschema.Schema { return &jsonschema.Schema{Type: "number", Format: "double"} }

// orNothing extends a schema by null.
func orNothing(s *jsonschema.Schema) *jsonschema.Schema {
	switch {
	case s.Type == "null" || len(s.Types) > 0 || (s.Type == "" && s.Ref == "" && s.AnyOf == nil):
		return s
	case s.Type != "" && s.Enum == nil:
		s.Types, s.Type = []string{s.Type, "null"}, ""
		return s
	case s.AnyOf != nil:
		s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "null"})
		return s
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, {Type: "null"}}}
}

func describe(s *jsonschema.Schema, field string, tag reflect.StructTag) {
	s.Description = expand(tag.Get("doc"), field)
	if v := exampleOf(s, tag); v != nil {
		s.Examples = []any{v}
	}
}

// exampleOf returns a tag's example as a value of its schema, nil when the tag has none.
func exampleOf(s *jsonschema.Schema, tag reflect.StructTag) any {
	example := tag.Get("example")
	if example == "" {
		return nil
	}
	var v any
	if err := json.Unmarshal([]byte(example), &v); err != nil || isString(s) {
		return example
	}
	return v
}

func isString(s *jsonschema.Schema) bool {
	return s.Type == "string" || (len(s.Types) > 0 && s.Types[0] == "string")
}

// isNumber reports whether a schema is of numbers.
func isNumber(s *jsonschema.Schema) bool {
	kind := s.Type
	if len(s.Types) > 0 {
		kind = s.Types[0]
	}
	return kind == "number" || kind == "integer"
}

// limit adds the bounds of a field's tags to its schema. each, format and enum apply to the elements of an array or object.
func (b *schemas) limit(s *jsonschema.Schema, tag reflect.StructTag, request bool) {
	inner := s
	if s.Items != nil {
		inner = s.Items
	} else if s.AdditionalProperties != nil && s.AdditionalProperties.Not == nil {
		inner = s.AdditionalProperties
	}
	if f := tag.Get("format"); f != "" {
		inner.Format = f
		if f == "uuid" {
			inner.Pattern = uuidPattern
		}
	}
	if e := tag.Get("enum"); e != "" {
		*inner = *b.enumeration(e, request)
	}
	number := func(name string) (float64, bool) {
		v, err := strconv.ParseFloat(tag.Get(name), 64)
		return v, err == nil
	}
	if v, ok := number("each"); ok {
		inner.MaxLength = jsonschema.Ptr(int(v))
		if s.Items != nil {
			inner.MinLength = jsonschema.Ptr(1)
		}
	}
	if v, ok := number("bytes"); ok {
		s.Extra = map[string]any{"x-max-bytes": int(v)}
	}
	if pattern := tag.Get("pattern"); pattern != "" {
		s.Pattern = pattern
	}
	numeric := isNumber(s)
	for name, to := range map[string][4]any{
		"min": {&s.MinItems, &s.MinLength, &s.Minimum, &s.MinProperties}, "max": {&s.MaxItems, &s.MaxLength, &s.Maximum, &s.MaxProperties},
	} {
		v, ok := number(name)
		switch {
		case !ok:
		case s.Items != nil:
			*to[0].(**int) = jsonschema.Ptr(int(v)) //nolint:forcetypeassert // of the table above
		case inner == s.AdditionalProperties:
			*to[3].(**int) = jsonschema.Ptr(int(v)) //nolint:forcetypeassert // of the table above
		case numeric:
			*to[2].(**float64) = jsonschema.Ptr(v) //nolint:forcetypeassert // of the table above
		default:
			*to[1].(**int) = jsonschema.Ptr(int(v)) //nolint:forcetypeassert // of the table above
		}
	}
}

// enumeration is a closed list of values. It is a component of the document, so that the code of a generator has one type of
// it, and not one for each field.
type enumeration struct {
	component string
	values    []string
	exact     bool // requests must write the values in exactly this letter case
}

// enumerations are the values of the tag enum.
var enumerations = map[string]enumeration{
	"type":               {component: "ChannelType", values: names(message.ChannelTypes)},
	"provider":           {component: "Provider", values: vendors.All.Names(), exact: true},
	"message_type":       {component: "MessageType", values: names(message.MessageTypes)},
	"priority_name":      {component: "Priority", values: names(message.Priorities)},
	"priority":           {component: "SendPriority", values: append(names(message.Priorities), "1", "2", "3", "4", "5")},
	"status":             {component: "MessageStatus", values: append(names(message.Open), names(message.Settled)...)},
	"reason":             {component: reasonComponent, values: names(message.Reasons())},
	"suppression_reason": {component: "SuppressionReason", values: names(message.SuppressionReasons)},
	"bulk_status":        {component: "BulkStatus", values: names(bulk.Statuses)},
	"channel_state":      {component: "ChannelState", values: []string{string(channel.Active), string(channel.Paused)}, exact: true},
	"bulk_channel_state": {component: "BulkChannelState", values: []string{string(channel.Active), string(channel.Paused), string(channel.Throttled), string(channel.Down), string(channel.Deleted)}},
	"preview_warning":    {component: "PreviewWarning", values: []string{contract.WarnRenderFailed}, exact: true},
	"policy":             {component: "UnknownPolicy", values: []string{string(channel.Hold), string(channel.ResendOnce)}, exact: true},
	"match":              {component: "Match", values: []string{"all", "any"}},
	"logic":              {component: "Logic", values: []string{"AND", "OR"}},
	"outcome":            {component: "AttemptOutcome", values: []string{message.AttemptSent, message.AttemptNotSent, message.AttemptRefused, message.AttemptUnknown, message.AttemptLate}},
	"health":             {component: "HealthStatus", values: []string{"ok", "degraded", "unavailable"}},
	"slug":               {component: "FieldErrorType", values: message.Slugs},
	"code":               {component: "ProblemCode", values: append(codes(), contract.CodeMethod, contract.CodeInternal)},
	"dates":              {component: "DateOrder", values: []string{"dmy", "mdy"}, exact: true},
	"code_invalid":       {component: "InvalidCode", values: []string{string(message.CodeInvalid)}},
	"kind_single":        {component: "SingleKind", values: []string{contract.KindSingle}},
	"kind_bulk":          {component: "BulkKind", values: []string{contract.KindBulk}},
	"kind_preview":       {component: "PreviewKind", values: []string{contract.KindPreview}},
	"operator":           {component: "FilterOperator", values: names(audience.Operators()), exact: true},
}

func names[E ~string](all []E) []string {
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = string(e)
	}
	return out
}

// AlsoAccepts is the extension with a schema of further values that requests may have in the place of an enumeration: other
// letter cases, and priorities as numbers. An alternative beside the enumeration would make the types of generated clients
// plain strings, and ogen does not implement it.
const AlsoAccepts = "x-also-accepts"

// enumeration returns the schema of a value of the tag enum.
func (b *schemas) enumeration(kind string, request bool) *jsonschema.Schema {
	switch kind {
	case "field":
		return fieldName()
	case "value":
		return b.filterValue()
	case "step":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "integer"}}}
	}
	e, ok := enumerations[kind]
	if !ok {
		panic(fmt.Sprintf("unknown enumeration %q", kind))
	}
	if b.all[e.component] == nil {
		b.add(e.component, enumOf(e.component, e.values))
	}
	s := &jsonschema.Schema{Ref: schemaPrefix + e.component}
	if request && !e.exact {
		further := &jsonschema.Schema{Type: "string", Pattern: anyCase(e.values)}
		if kind == "priority" {
			further = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{further, {Type: "integer", Minimum: jsonschema.Ptr(1.0), Maximum: jsonschema.Ptr(5.0)}}}
		}
		s.Extra = map[string]any{AlsoAccepts: further}
	}
	return s
}

// fieldName is the schema of the name of a lead's field, or of one of its custom fields.
func fieldName() *jsonschema.Schema {
	known := make([]string, 0, len(audience.Fields()))
	for _, f := range audience.Fields() {
		known = append(known, regexp.QuoteMeta(f))
	}
	return &jsonschema.Schema{
		Type: "string", Pattern: "^(" + strings.Join(known, "|") + `|custom_fields\..+)$`, MaxLength: jsonschema.Ptr(len("custom_fields.") + audience.MaxKey),
	}
}

// filterValue is the schema of the value of a condition: a scalar or a list of scalars. The alternatives differ by their JSON type,
// which ogen requires of an anyOf.
func (b *schemas) filterValue() *jsonschema.Schema {
	const one, any = "FilterScalar", "FilterValue"
	if b.all[any] == nil {
		scalars := []*jsonschema.Schema{{Type: "string", MaxLength: jsonschema.Ptr(audience.MaxValue)}, number(), {Type: "boolean"}}
		list := &jsonschema.Schema{
			Type: "array", MinItems: jsonschema.Ptr(1), MaxItems: jsonschema.Ptr(audience.MaxValues), Items: &jsonschema.Schema{Ref: schemaPrefix + one},
		}
		b.add(any, &jsonschema.Schema{Description: componentText(any), AnyOf: append(slices.Clone(scalars), list)})
		b.add(one, &jsonschema.Schema{Description: componentText(one), AnyOf: scalars})
	}
	return &jsonschema.Schema{Ref: schemaPrefix + any}
}

func enumOf(component string, values []string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string", Description: componentText(component)}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	if component == reasonComponent {
		for _, r := range message.Reasons() {
			s.Description += fmt.Sprintf(" %s: %s.", r, r.Explain().Meaning)
		}
	}
	return s
}

// reasonComponent is the enumeration whose description explains each value.
const reasonComponent = "Reason"

// anyCase returns a regular expression for words in any letter case. JSON Schema's dialect has no flag for that.
func anyCase(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		var b strings.Builder
		for _, r := range w {
			upper, lower := strings.ToUpper(string(r)), strings.ToLower(string(r))
			if upper == lower {
				b.WriteString(regexp.QuoteMeta(upper))
			} else {
				b.WriteString("[" + upper + lower + "]")
			}
		}
		out[i] = b.String()
	}
	return "^(" + strings.Join(out, "|") + ")$"
}
