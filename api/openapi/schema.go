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
// their first use.
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
		return &jsonschema.Schema{Type: "object"}
	case t == reflect.TypeFor[contract.FilterNode]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			b.of(reflect.TypeFor[contract.FilterRequest](), request), b.of(reflect.TypeFor[contract.FilterCondition](), request),
		}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return b.component(t, request)
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: b.of(t.Elem(), request)}
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: b.of(t.Elem(), request)}
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Int, reflect.Int64:
		return &jsonschema.Schema{Type: "integer"}
	case reflect.Float64:
		return &jsonschema.Schema{Type: "number"}
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

func (b *schemas) component(t reflect.Type, request bool) *jsonschema.Schema {
	name := componentName(t)
	if b.all[name] != nil {
		return &jsonschema.Schema{Ref: schemaPrefix + name}
	}
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	b.names, b.all[name] = append(b.names, name), s // before its fields, which may be recursive
	for _, f := range reflect.VisibleFields(t) {
		tag, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || tag == "" {
			continue
		}
		required := rest == ""
		if request {
			required = f.Tag.Get("required") != ""
		}
		of, nullable := f.Type, request && !required
		if of.Kind() == reflect.Pointer {
			of, nullable = of.Elem(), true
		}
		p := b.of(of, request)
		limit(p, f.Tag, request)
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
	return &jsonschema.Schema{Ref: schemaPrefix + name}
}

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
func limit(s *jsonschema.Schema, tag reflect.StructTag, request bool) {
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
		set := enumeration(e, request)
		*inner = *set
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
	for name, to := range map[string][3]any{
		"min": {&s.MinItems, &s.MinLength, &s.Minimum}, "max": {&s.MaxItems, &s.MaxLength, &s.Maximum},
	} {
		v, ok := number(name)
		switch {
		case !ok:
		case s.Items != nil:
			*to[0].(**int) = jsonschema.Ptr(int(v)) //nolint:forcetypeassert // of the table above
		case numeric:
			*to[2].(**float64) = jsonschema.Ptr(v) //nolint:forcetypeassert // of the table above
		default:
			*to[1].(**int) = jsonschema.Ptr(int(v)) //nolint:forcetypeassert // of the table above
		}
	}
}

// enumerations are the values of the tag enum.
var enumerations = map[string][]string{
	"type":               names(message.ChannelTypes),
	"provider":           vendors.All.Names(),
	"message_type":       names(message.MessageTypes),
	"priority_name":      names(message.Priorities),
	"status":             append(names(message.Open), names(message.Settled)...),
	"reason":             names(message.Reasons()),
	"suppression_reason": names(message.SuppressionReasons),
	"bulk_status":        names(bulk.Statuses),
	"channel_state":      {string(channel.Active), string(channel.Paused)},
	"bulk_channel_state": {string(channel.Active), string(channel.Paused), string(channel.Throttled), string(channel.Down), string(channel.Deleted)},
	"policy":             {string(channel.Hold), string(channel.ResendOnce)},
	"match":              {"all", "any"},
	"logic":              {"AND", "OR"},
	"outcome":            {message.AttemptSent, message.AttemptNotSent, message.AttemptRefused, message.AttemptUnknown, message.AttemptLate},
	"health":             {"ok", "degraded", "unavailable"},
	"slug":               message.Slugs,
	"code":               append(codes(), contract.CodeMethod, contract.CodeInternal),
	"operator":           names(audience.Operators()),
}

// exact are the enumerations whose values requests must write in exactly one letter case.
var exact = map[string]bool{"provider": true, "channel_state": true, "policy": true, "operator": true}

func names[E ~string](all []E) []string {
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = string(e)
	}
	return out
}

func enumeration(kind string, request bool) *jsonschema.Schema {
	switch kind {
	case "priority":
		s := enumeration("priority_name", true)
		s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "string", Pattern: "^[1-5]$"},
			&jsonschema.Schema{Type: "integer", Minimum: jsonschema.Ptr(1.0), Maximum: jsonschema.Ptr(5.0)})
		return s
	case "field":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			enumOf(audience.Fields()), {Type: "string", Pattern: `^custom_fields\..+$`, MaxLength: jsonschema.Ptr(len("custom_fields.") + audience.MaxKey)},
		}}
	case "value":
		one := []*jsonschema.Schema{{Type: "string", MaxLength: jsonschema.Ptr(audience.MaxValue)}, {Type: "number"}, {Type: "boolean"}}
		list := &jsonschema.Schema{Type: "array", MinItems: jsonschema.Ptr(1), MaxItems: jsonschema.Ptr(audience.MaxValues), Items: &jsonschema.Schema{AnyOf: one}}
		return &jsonschema.Schema{AnyOf: slices.Concat(one, []*jsonschema.Schema{list})}
	}
	values, ok := enumerations[kind]
	if !ok {
		panic(fmt.Sprintf("unknown enumeration %q", kind))
	}
	if !request || exact[kind] {
		return enumOf(values)
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{enumOf(values), {Type: "string", Pattern: anyCase(values)}}}
}

func enumOf(values []string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

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
