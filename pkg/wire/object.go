package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Object reads one JSON object. Every method records its mistake and returns the zero value, so a caller reads all fields
// without checks and looks at the errors once. A field that is absent or null is no mistake unless Require is called for it.
// Close must be called at the end: it records unknown fields. An Object is not safe for concurrent use.
type Object struct {
	errs *Errors
	loc  []any           // path of the object
	m    map[string]any  // as decoded
	read map[string]bool // fields that a method read
}

// NewObject returns a reader of v, an object at a path. For any other value it records a mistake and returns nil.
func NewObject(errs *Errors, v any, loc ...any) *Object {
	m, ok := v.(map[string]any)
	if !ok {
		errs.Add(message.SlugObject, "must be an object", loc...)
		return nil
	}
	return &Object{errs: errs, loc: loc, m: m, read: map[string]bool{}}
}

// At returns the path of a field.
func (o *Object) At(name ...any) []any { return append(slices.Clone(o.loc), name...) }

// Fail records a mistake with one of the object's fields.
func (o *Object) Fail(slug, msg string, name ...any) {
	if !o.errs.full() { // building a path allocates, and a long array can have many mistakes
		o.errs.Add(slug, msg, o.At(name...)...)
	}
}

// get returns a field and marks it as read; false for absent and null.
func (o *Object) get(name string) (any, bool) {
	o.read[name] = true
	v, ok := o.m[name]
	return v, ok && v != nil
}

// Has reports whether a field is present and not null.
func (o *Object) Has(name string) bool {
	v, ok := o.m[name]
	return ok && v != nil
}

// Value returns the whole object as decoded. It is not a copy.
func (o *Object) Value() map[string]any { return o.m }

// Raw returns the value of a field as decoded, false if it is absent or null.
func (o *Object) Raw(name string) (any, bool) { return o.get(name) }

// Require records fields that are absent or null.
func (o *Object) Require(names ...string) {
	for _, n := range names {
		if !o.Has(n) {
			o.Fail(message.SlugMissing, "field required", n)
		}
	}
}

// String reads a string of at most limit characters (code points); 0: unbounded.
func (o *Object) String(name string, limit int) string {
	v, ok := o.get(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		o.Fail(message.SlugString, "must be a string", name)
		return ""
	}
	if limit > 0 && utf8.RuneCountInString(s) > limit {
		o.Fail(message.SlugTooLong, fmt.Sprintf("must have at most %d characters", limit), name)
		return ""
	}
	return s
}

// UUID reads an id in the form of ParseUUID.
func (o *Object) UUID(name string) uuid.UUID {
	if !o.Has(name) {
		o.read[name] = true
		return uuid.Nil
	}
	before := o.errs.count()
	s := o.String(name, 0)
	if o.errs.count() > before {
		return uuid.Nil
	}
	id, ok := ParseUUID(s)
	if !ok {
		o.Fail(message.SlugUUID, "must be a UUID", name)
	}
	return id
}

// ParseUUID parses the only form of a UUID that the API accepts: 8-4-4-4-12 hex digits, any version, not all zero. uuid.Parse
// alone also accepts URNs, braces and bare digits.
func ParseUUID(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil && id != uuid.Nil
}

// Bool reads a boolean.
func (o *Object) Bool(name string) bool {
	v, ok := o.get(name)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		o.Fail(message.SlugBool, "must be true or false", name)
	}
	return b
}

// Number reads a number between lower and upper, both inclusive, with at most message.MaxFraction decimals; nil if it is
// absent.
func (o *Object) Number(name string, lower, upper float64) *float64 {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	n, ok := v.(json.Number)
	if !ok {
		o.Fail(message.SlugNumber, "must be a number", name)
		return nil
	}
	f, err := n.Float64()
	if _, ok := message.PlainNumber(n); !ok || err != nil || f < lower || f > upper {
		o.Fail(message.SlugNumber, fmt.Sprintf("must be a number from %v to %v, with at most %d digits after the decimal point", lower, upper, message.MaxFraction), name)
		return nil
	}
	return &f
}

// ParseTime parses an RFC 3339 time and returns it as it is stored: in UTC, truncated to microseconds. wrong describes the
// mistake and is "" for none.
func ParseTime(s string) (t time.Time, wrong string) {
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		return time.Time{}, "must be an RFC 3339 time"
	case !message.ValidTime(t):
		return time.Time{}, message.TimeBound
	}
	return t.UTC().Truncate(time.Microsecond), ""
}

// Time reads an RFC 3339 time; nil if it is absent.
func (o *Object) Time(name string) *time.Time {
	if !o.Has(name) {
		o.read[name] = true
		return nil
	}
	before := o.errs.count()
	s := o.String(name, 0)
	if o.errs.count() > before {
		return nil
	}
	t, wrong := ParseTime(s)
	if wrong != "" {
		o.Fail(message.SlugDatetime, wrong, name)
		return nil
	}
	return &t
}

// Child returns a reader of an object within this one; nil if it is absent or not an object. Errors go to the same list.
func (o *Object) Child(name string) *Object {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	return NewObject(o.errs, v, o.At(name)...)
}

// List reads an array of at most limit elements; 0: unbounded. The elements are not checked.
func (o *Object) List(name string, limit int) []any {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		o.Fail(message.SlugList, "must be an array", name)
		return nil
	}
	if limit > 0 && len(list) > limit {
		o.Fail(message.SlugListLong, fmt.Sprintf("must have at most %d elements", limit), name)
		return nil
	}
	return list
}

// Strings reads an array of strings, each of 1 to limit characters.
func (o *Object) Strings(name string, elements, limit int) []string {
	list := o.List(name, elements)
	out := make([]string, 0, len(list))
	for i, v := range list {
		s, ok := v.(string)
		switch {
		case !ok:
			o.Fail(message.SlugString, "must be a string", name, i)
		case s == "":
			o.Fail(message.SlugTooShort, "must not be empty", name, i)
		case utf8.RuneCountInString(s) > limit:
			o.Fail(message.SlugTooLong, fmt.Sprintf("must have at most %d characters", limit), name, i)
		default:
			out = append(out, s)
		}
	}
	return out
}

// AnyUUID reads an id as UUID does and accepts the nil UUID, which names nothing.
func (o *Object) AnyUUID(name string) uuid.UUID {
	if v, _ := o.Raw(name); v == uuid.Nil.String() {
		o.read[name] = true
		return uuid.Nil
	}
	return o.UUID(name)
}

// UUIDs reads an array of at most elements ids. The nil UUID is one of them: no row has it.
func (o *Object) UUIDs(name string, elements int) []uuid.UUID {
	list := o.List(name, elements)
	out := make([]uuid.UUID, 0, len(list))
	for i, v := range list {
		s, _ := v.(string)
		id, ok := ParseUUID(s)
		if !ok && s != uuid.Nil.String() {
			o.Fail(message.SlugUUID, "must be a UUID", name, i)
			continue
		}
		out = append(out, id)
	}
	return out
}

// Free reads a free-form object whose encoding has at most limit bytes. Numbers must be within message.NumberBound; they keep
// all digits, and exponents are expanded, so that the databases compare them exactly. It changes the decoded tree.
func (o *Object) Free(name string, limit int) map[string]any {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		o.Fail(message.SlugObject, "must be an object", name)
		return nil
	}
	before := o.errs.count()
	o.plain(m, o.At(name))
	if o.errs.count() > before {
		return nil
	}
	if !Fits(m, limit) {
		o.Fail(message.SlugTooLong, fmt.Sprintf("must have at most %d bytes", limit), name)
		return nil
	}
	return m
}

// plain converts the numbers in a tree to their plain form, in place, and records those that exceed the bounds. It returns
// the replacement of v.
func (o *Object) plain(v any, loc []any) any {
	switch v := v.(type) {
	case json.Number:
		n, ok := message.PlainNumber(v)
		if !ok {
			o.errs.Add(message.SlugNumber, message.NumberBound, slices.Clone(loc)...)
		}
		return n
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			v[k] = o.plain(v[k], append(loc, k))
		}
	case []any:
		for i := range v {
			v[i] = o.plain(v[i], append(loc, i))
		}
	}
	return v
}

// Unsupported records fields that are present, that the contract names, and that this version does not implement: ignoring
// them would change the meaning of the request.
func (o *Object) Unsupported(names ...string) {
	for _, n := range names {
		o.read[n] = true
		if o.Has(n) {
			o.Fail(message.SlugUnsupported, n+" is not supported yet", n)
		}
	}
}

// Close records every field that no method read: it is unknown, and ignoring it could change the meaning of the request.
func (o *Object) Close() {
	var unknown []string
	for n := range o.m {
		if !o.read[n] {
			unknown = append(unknown, n)
		}
	}
	sort.Strings(unknown)
	for _, n := range unknown {
		o.Fail(message.SlugExtra, "unknown field "+strings.ToValidUTF8(n, "?"), n)
	}
}

// Names returns the object's keys, sorted.
func (o *Object) Names() []string {
	names := make([]string, 0, len(o.m))
	for n := range o.m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Given reports whether a field is present, null or not.
func (o *Object) Given(name string) bool {
	_, ok := o.m[name]
	return ok
}
