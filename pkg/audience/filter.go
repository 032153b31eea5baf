package audience

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"herald/pkg/dates"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// Bounds of a filter.
const (
	MaxDepth      = 10
	MaxConditions = 500
	MaxValue      = 1_000 // characters of a value
	MaxValues     = 1_000 // values of a list
	maxAllValues  = 10_000
	MaxKey        = message.MaxFieldName
	maxDays       = 36_500
	customPrefix  = "custom_fields."
)

// Kind determines how a field is compared and which operators it has.
type Kind string

// The kinds of field.
const (
	Text   Kind = "text"
	Time   Kind = "time"
	Tags   Kind = "tags"
	Custom Kind = "custom"
)

// Op is an operator of a condition.
type Op string

// The operators. The package comment defines them for missing values. Of tags, contains holds when the lead has at least one of
// the listed tags, contains_all when it has all of them, and not_contains when it has none.
const (
	Equals      Op = "equals"
	NotEquals   Op = "not_equals"
	Contains    Op = "contains"
	NotContains Op = "not_contains"
	ContainsAll Op = "contains_all"
	StartsWith  Op = "starts_with"
	EndsWith    Op = "ends_with"
	In          Op = "in"
	NotIn       Op = "not_in"
	IsEmpty     Op = "is_empty"
	IsNotEmpty  Op = "is_not_empty"
	Before      Op = "before"
	After       Op = "after"
	Between     Op = "between"
	WithinDays  Op = "within_last_days"
	WithinNext  Op = "within_next_days"
	Greater     Op = "gt"
	AtLeast     Op = "gte"
	Less        Op = "lt"
	AtMost      Op = "lte"
)

var (
	textOps   = []Op{Equals, NotEquals, Contains, NotContains, StartsWith, EndsWith, In, NotIn, IsEmpty, IsNotEmpty}
	timeOps   = []Op{Equals, Before, After, Between, WithinDays, WithinNext, IsEmpty, IsNotEmpty}
	tagOps    = []Op{Contains, ContainsAll, NotContains, IsEmpty, IsNotEmpty}
	customOps = append(slices.Clone(textOps), Greater, AtLeast, Less, AtMost, Between, Before, After, WithinDays, WithinNext)
	opsOf     = map[Kind][]Op{Text: textOps, Time: timeOps, Tags: tagOps, Custom: customOps}
)

// fields lists the fields of a filter, without custom fields.
var fields = func() []string {
	var names []string
	for _, f := range FoldedFields(&message.Lead{}) {
		names = append(names, f.Name)
	}
	return append(names, "tags", "created_at", "updated_at", "last_contacted_at")
}()

// Fields lists the fields of a filter, without custom fields.
func Fields() []string { return slices.Clone(fields) }

// Operators lists every operator once.
func Operators() []Op {
	var all []Op
	for _, ops := range [][]Op{textOps, timeOps, tagOps, customOps} {
		for _, op := range ops {
			if !slices.Contains(all, op) {
				all = append(all, op)
			}
		}
	}
	return all
}

// kindOf returns the kind of a field, and whether the field exists. Every valid key is a custom field.
func kindOf(field string) (Kind, bool) {
	switch field {
	case "tags":
		return Tags, true
	case "created_at", "updated_at", "last_contacted_at":
		return Time, true
	}
	if key, ok := strings.CutPrefix(field, customPrefix); ok {
		return Custom, message.ValidFieldName(key)
	}
	return Text, slices.Contains(fields, field)
}

// Node is a filter as a typed expression: one condition, or a group of nodes. Its JSON form is stored with the bulk.
type Node struct {
	ID       string     `json:"id,omitempty"`
	Or       bool       `json:"or,omitempty"`
	Children []Node     `json:"children,omitempty"`
	Cond     *Condition `json:"cond,omitempty"`
}

// Condition compares one field. Values are folded. Kind and operator determine which of Values, Numbers and Times is set. A
// condition on a custom field with Times compares dates (DateRanges); Clocks are then the same bounds as clocks in the zone of
// the request show them, written as if they were UTC.
type Condition struct {
	Field   string        `json:"field"`
	Kind    Kind          `json:"kind"`
	Op      Op            `json:"op"`
	Values  []string      `json:"values,omitempty"`
	Numbers []json.Number `json:"numbers,omitempty"`
	Times   []time.Time   `json:"times,omitempty"`
	Clocks  []time.Time   `json:"clocks,omitempty"`
}

// Key returns the name of a custom field.
func (c *Condition) Key() string { return strings.TrimPrefix(c.Field, customPrefix) }

// SortKeys returns the sort keys of the condition's numbers (message.Decimal). A bulk of an earlier version may have a number
// beyond the bounds of today. It compares as the largest number of its sign.
func (c *Condition) SortKeys() []string {
	keys := make([]string, len(c.Numbers))
	for i, n := range c.Numbers {
		d, ok := message.ParseDecimal(n.String())
		if f, _ := n.Float64(); !ok && (f >= 1 || f <= -1) { // Float64 returns ±Inf beyond its range
			sign := n.String()[:1]
			d, _ = message.ParseDecimal(strings.TrimLeft(sign, "0123456789") + strings.Repeat("9", message.MaxWhole))
		}
		keys[i] = d.SortKey()
	}
	return keys
}

// parser reads a FilterRequest. now is the time of the request: within_last_days counts from it on every page of the plan. Days
// and times that name no zone are those of zone.
type parser struct {
	errs       *wire.Errors
	now        time.Time
	zone       *time.Location
	conditions int
	values     int
}

// parseFilter reads a FilterRequest and adds its mistakes to errs, with their paths and the UI's ids.
func parseFilter(errs *wire.Errors, o *wire.Object, now time.Time, zone *time.Location) *Node {
	p := &parser{errs: errs, now: now, zone: zone}
	n := p.group(o, 1)
	if p.conditions > MaxConditions {
		o.Fail(message.SlugListLong, fmt.Sprintf("at most %d conditions, this has %d", MaxConditions, p.conditions), "conditions")
	}
	return &n
}

func (p *parser) group(o *wire.Object, depth int) Node {
	n := Node{ID: o.String("id", MaxValue)}
	switch logic := o.String("logic", MaxValue); {
	case logic == "" || strings.EqualFold(logic, "and"):
	case strings.EqualFold(logic, "or"):
		n.Or = true
	default:
		o.Fail(message.SlugEnum, named(n.ID, "must be AND or OR"), "logic")
	}
	list := o.List("conditions", 0)
	switch {
	case depth > MaxDepth:
		o.Fail(message.SlugListLong, named(n.ID, fmt.Sprintf("groups are nested more than %d deep", MaxDepth)), "conditions")
		list = nil
	case !o.Has("conditions"):
		o.Fail(message.SlugMissing, named(n.ID, "field required"), "conditions")
	case len(list) == 0:
		o.Fail(message.SlugListShort, named(n.ID, "a group needs at least one condition"), "conditions")
	}
	for i, v := range list {
		if p.conditions > MaxConditions {
			break // parseFilter reports the number once
		}
		child := wire.NewObject(p.errs, v, o.At("conditions", i)...)
		switch {
		case child == nil:
		case child.Has("conditions") || child.Has("logic"):
			n.Children = append(n.Children, p.group(child, depth+1))
		default:
			n.Children = append(n.Children, p.condition(child))
		}
	}
	o.Close()
	return n
}

// named appends the UI's id of a condition or group to a message, so that the UI can mark it.
func named(id, msg string) string {
	if id == "" {
		return msg
	}
	return fmt.Sprintf("%s (id %q)", msg, id)
}

func (p *parser) condition(o *wire.Object) Node {
	p.conditions++
	id := o.String("id", MaxValue)
	c := &Condition{Field: o.String("field", MaxValue), Op: Op(strings.ToLower(strings.TrimSpace(o.String("operator", MaxValue))))}
	value, hasValue := o.Raw("value")
	o.Close()
	node := Node{ID: id, Cond: c}
	var ok bool
	if c.Kind, ok = kindOf(c.Field); !ok {
		o.Fail(message.SlugEnum, named(id, "unknown field; the fields are "+strings.Join(fields, ", ")+" and custom_fields.<key>"), "field")
		return node
	}
	if !slices.Contains(opsOf[c.Kind], c.Op) {
		names := make([]string, len(opsOf[c.Kind]))
		for i, op := range opsOf[c.Kind] {
			names[i] = string(op)
		}
		o.Fail(message.SlugEnum, named(id, fmt.Sprintf("%s has the operators %s", c.Field, strings.Join(names, ", "))), "operator")
		return node
	}
	v := &valueReader{o: o, id: id, value: value, has: hasValue}
	p.value(c, v)
	if before := p.values; before <= maxAllValues {
		if p.values += len(c.Values); p.values > maxAllValues {
			v.fail(message.SlugListLong, fmt.Sprintf("a filter has at most %d values in all", maxAllValues))
		}
	}
	return node
}

// value reads the value of a condition whose kind and operator are known.
func (p *parser) value(c *Condition, v *valueReader) {
	switch {
	case c.Op == IsEmpty || c.Op == IsNotEmpty:
		if v.has && v.value != "" { // query builders send the empty value of a text field
			v.fail(message.SlugExtra, string(c.Op)+" takes no value")
		}
	case c.Kind == Time || c.Kind == Custom && comparesDates(c.Op, v.value):
		c.setBounds(p.bounds(v, c))
	case c.Kind == Custom && slices.Contains([]Op{Greater, AtLeast, Less, AtMost, Between}, c.Op):
		c.Numbers = v.numbers(c.Op == Between)
	default:
		c.Values = v.texts(c, c.Kind == Tags || c.Op == Contains || c.Op == NotContains, c.Op == In || c.Op == NotIn)
	}
}

// comparesDates reports whether a condition on a custom field compares dates. between has both numbers and dates, and its values
// decide: it compares dates if one of them is a date, or would be one if it had one reading only.
func comparesDates(op Op, value any) bool {
	if op != Between {
		return slices.Contains([]Op{Before, After, WithinDays, WithinNext}, op)
	}
	list, _ := value.([]any)
	return slices.ContainsFunc(list[:min(len(list), 2)], func(e any) bool {
		s, _ := e.(string)
		_, err := dates.Reader{}.Parse(s)
		return !errors.Is(err, dates.ErrNoDate)
	})
}

// setBounds sets the times of a condition. equals becomes between: a day is all of its moments.
func (c *Condition) setBounds(bounds []bound) {
	for _, b := range bounds {
		c.Times = append(c.Times, b.moment)
		if c.Kind == Custom {
			c.Clocks = append(c.Clocks, b.clock)
		}
	}
	if c.Op == Equals {
		c.Op = Between
	}
}

// valueReader reads the value of one condition.
type valueReader struct {
	o     *wire.Object
	id    string
	value any
	has   bool
}

func (v *valueReader) fail(slug, msg string, at ...any) {
	v.o.Fail(slug, named(v.id, msg), append([]any{"value"}, at...)...)
}

// list returns the value's elements and their positions. A single value has the position -1.
func (v *valueReader) list(mayBeList, mustBeList bool) ([]any, []int) {
	if !v.has {
		v.fail(message.SlugMissing, "field required")
		return nil, nil
	}
	l, isList := v.value.([]any)
	switch {
	case isList && !mayBeList && !mustBeList:
		v.fail(message.SlugString, "must be one value")
		return nil, nil
	case isList && len(l) == 0:
		v.fail(message.SlugListShort, "must have at least 1 element")
		return nil, nil
	case isList && len(l) > MaxValues:
		v.fail(message.SlugListLong, fmt.Sprintf("must have at most %d elements", MaxValues))
		return nil, nil
	case !isList && mustBeList && !mayBeList:
		v.fail(message.SlugList, "must be an array")
		return nil, nil
	case !isList:
		return []any{v.value}, []int{-1}
	}
	at := make([]int, len(l))
	for i := range at {
		at[i] = i
	}
	return l, at
}

// position is the end of a mistake's path, empty for a single value.
func position(at int) []any {
	if at < 0 {
		return nil
	}
	return []any{at}
}

// texts returns the folded values of a condition on texts or tags.
func (v *valueReader) texts(c *Condition, mayBeList, mustBeList bool) []string {
	list, at := v.list(mayBeList, mustBeList)
	out := make([]string, 0, len(list))
	for i, e := range list {
		s, ok := textOf(e)
		if c.Kind == Tags {
			s = strings.TrimSpace(s)
		}
		_, isNumber := e.(json.Number)
		switch {
		case !ok && isNumber:
			v.fail(message.SlugNumber, message.NumberBound, position(at[i])...)
		case !ok:
			v.fail(message.SlugString, "must be a string", position(at[i])...)
		case s == "":
			v.fail(message.SlugTooShort, "must not be empty; is_empty finds missing values", position(at[i])...)
		case utf8.RuneCountInString(s) > MaxValue:
			v.fail(message.SlugTooLong, fmt.Sprintf("must have at most %d characters", MaxValue), position(at[i])...)
		default:
			out = append(out, comparedForms(c, s)...)
		}
	}
	return out
}

// comparedForms returns the folded forms of a value with which a condition compares. The fields of addresses are compared in their
// normalised form (message.FoldField), so a whole address is normalised too, and a part of a phone number is reduced to its digits.
// The value as given is compared beside it: leads that an earlier version stored have it until the backfill reaches them.
func comparedForms(c *Condition, value string) []string {
	if c.Kind == Tags {
		return []string{foldTag(value)}
	}
	folded := message.Fold(value)
	normalised := folded
	switch c.Op {
	case Equals, NotEquals, In, NotIn:
		normalised = message.FoldField(c.Field, value)
	default:
		if digits, ok := message.PhonePart(value); ok && c.Field == "phone" {
			normalised = digits
		}
	}
	if normalised == folded {
		return []string{folded}
	}
	return []string{normalised, folded}
}

// Is returns the conditions that a text field has a value, which is compared as in a filter, or that a lead has a tag. They say too
// that the field is not empty, since the indexes of addresses leave empty ones out.
func Is(field, value string) []Node {
	c := &Condition{Field: field, Kind: Text, Op: In}
	if field == "tags" {
		c.Kind, c.Op, value = Tags, Contains, strings.TrimSpace(value)
	}
	c.Values = comparedForms(c, value)
	nodes := []Node{{Cond: c}}
	if c.Kind == Text {
		nodes = append(nodes, Node{Cond: &Condition{Field: field, Kind: Text, Op: IsNotEmpty}})
	}
	return nodes
}

// textOf converts a value to text. Numbers and booleans have the form of customText.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		d, ok := message.ParseDecimal(v.String())
		return d.String(), ok
	case bool:
		return customText(v), true
	}
	return "", false
}

func (v *valueReader) numbers(pair bool) []json.Number {
	list, at := v.list(false, pair)
	if pair && len(list) != 2 && v.has && len(list) > 0 {
		v.fail(message.SlugListLong, "must be two numbers")
		return nil
	}
	out := make([]json.Number, 0, len(list))
	for i, e := range list {
		n, isNumber := e.(json.Number)
		if s, isText := e.(string); isText && decimal.MatchString(strings.TrimSpace(s)) { // query builders send numbers as texts
			n, isNumber = json.Number(strings.TrimPrefix(strings.TrimSpace(s), "+")), true
		}
		n, ok := message.PlainNumber(n)
		switch {
		case !isNumber && pair:
			v.fail(message.SlugNumber, "must be a number, or both must be dates", position(at[i])...)
		case !isNumber:
			v.fail(message.SlugNumber, "must be a number", position(at[i])...)
		case !ok:
			v.fail(message.SlugNumber, message.NumberBound, position(at[i])...)
		default:
			out = append(out, n)
		}
	}
	return out
}

// bounds returns what a condition compares times with: one bound of before and after, two of the other operators. A date means its
// first microsecond in the zone of the request, and its last one as the end of between and of equals.
func (p *parser) bounds(v *valueReader, c *Condition) []bound {
	if c.Op == WithinDays || c.Op == WithinNext {
		return p.withinDays(v, c)
	}
	list, at := v.list(false, c.Op == Between)
	if c.Op == Between && len(list) != 2 && len(list) > 0 {
		v.fail(message.SlugListLong, "must be two times")
		return nil
	}
	out := make([]bound, 0, 2)
	for i, e := range list {
		s, _ := e.(string)
		first, last, wrong := p.parseTime(s)
		switch {
		case wrong != "":
			v.fail(message.SlugDatetime, wrong, position(at[i])...)
		case c.Op == Equals:
			out = append(out, first, last)
		case i == 1: // only between has a second time
			out = append(out, last)
		default:
			out = append(out, first)
		}
	}
	return out
}

// withinDays returns the bounds of within_last_days and within_next_days: the time of the request, and the same time of day some
// days before or after it. No days, which only dates have a use for, mean today until now, or from now on.
func (p *parser) withinDays(v *valueReader, c *Condition) []bound {
	least := 1
	if c.Kind == Custom {
		least = 0
	}
	n, _ := v.value.(json.Number)
	days, err := strconv.Atoi(n.String())
	if err != nil || days < least || days > maxDays {
		v.fail(message.SlugInt, fmt.Sprintf("must be a number of days from %d to %d", least, maxDays))
		return nil
	}
	now, today := boundAt(p.now, p.zone), dayOf(p.now, p.zone)
	switch {
	case c.Op == WithinDays && days == 0:
		return []bound{boundOf(today, p.zone), now}
	case c.Op == WithinDays:
		return []bound{boundAt(p.now.In(p.zone).AddDate(0, 0, -days), p.zone), now}
	case days == 0:
		return []bound{now, endOfDay(today, p.zone)}
	}
	return []bound{now, boundAt(p.now.In(p.zone).AddDate(0, 0, days), p.zone)}
}

// parseTime reads a time or a date, see package dates. first and last are the same for a time, and the ends of the day for a
// date. wrong is the text of the mistake, "" for none.
func (p *parser) parseTime(s string) (first, last bound, wrong string) {
	d, err := dates.Reader{}.Parse(s)
	switch {
	case errors.Is(err, dates.ErrAmbiguous):
		return first, last, "can be day/month or month/day: write the year first, as in 2025-01-31"
	case err != nil:
		return first, last, "must be a time or a date, for example 2025-01-31 or 2025-01-31T10:30:00Z"
	}
	if at := d.Time.Truncate(time.Microsecond); d.Zoned {
		first = boundAt(at, p.zone)
	} else {
		first = boundOf(at, p.zone)
	}
	if !message.ValidTime(first.moment) {
		return first, last, message.TimeBound
	}
	if last = first; d.DayOnly {
		last = endOfDay(d.Time, p.zone)
	}
	return first, last, ""
}
