package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math/bits"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/osteele/liquid/filters"
	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/values"
	"github.com/osteele/tuesday"

	"herald/pkg/dates"
)

// filter is a filter that templates may use. A call costs one step, weight steps for each kibibyte of its arguments, one for
// each kibibyte of its result, and the steps of cost. A weight of 1 stands for a throughput of a gigabyte a second;
// slower filters have a higher weight.
type filter struct {
	name   string
	fn     reflect.Value           // called through the library, which converts the arguments
	view   bool                    // returns its argument or a part of it, so the result costs nothing
	weight int                     // steps for each kibibyte of the arguments
	cost   func(args []any) int    // additional steps; nil for none. It is called after the arguments were charged
	only   map[engineKind]struct{} // nil: everywhere
}

// printWeight is the weight of arguments that are printed: fmt takes a few microseconds for each kibibyte.
const printWeight = 4

// allowed contains the standard filters of Liquid that the library has, and safe, which turns escaping off in HTML. It is an
// allow list, because a new version of the library may add filters without a bound. The library's inspect, type and json are
// not on it: they multiply quotes and reveal Go types.
var allowed = newFilters()

// dictionary collects the filters of the library.
type dictionary map[string]any

// AddFilter implements filters.FilterDictionary.
func (d dictionary) AddFilter(name string, fn any) { d[name] = fn }

// newFilters builds allowed. Filters that multiply their input are replaced by bounded ones, and slow ones by faster ones.
func newFilters() map[string]*filter {
	library := dictionary{}
	filters.AddStandardFilters(library)
	out := map[string]*filter{}
	for _, name := range []string{
		"default", "compact", "concat", "map", "reverse", "first", "last", "size", "sort",
		"abs", "ceil", "floor", "modulo", "minus", "plus", "times", "divided_by", "round",
		"downcase", "upcase", "escape", "escape_once", "newline_to_br", "remove", "remove_first", "slice",
		"strip", "lstrip", "rstrip", "strip_newlines", "url_encode", "url_decode",
	} {
		out[name] = &filter{fn: reflect.ValueOf(library[name]), weight: 1}
	}
	for name, fn := range map[string]any{
		"append": func(s, more string) (string, error) {
			return bounded(len(s)+len(more), func() string { return s + more })
		},
		"prepend": func(s, more string) (string, error) {
			return bounded(len(s)+len(more), func() string { return more + s })
		},
		"replace":       func(s, old, by string) (string, error) { return replaceBounded(s, old, by, -1) },
		"replace_first": func(s, old, by string) (string, error) { return replaceBounded(s, old, by, 1) },
		"split":         splitBounded,
		"join":          joinBounded,
		"capitalize":    capitalize,
		"date":          dateBounded,
		"uniq":          uniq,
		"sort_natural":  sortNatural,
		"strip_html":    stripHTML,
		"truncate":      truncate,
		"truncatewords": truncateWords,
	} {
		out[name] = &filter{fn: reflect.ValueOf(fn), weight: 1}
	}
	for name, weight := range map[string]int{
		"upcase": 8, "downcase": 8, "escape": 8, "escape_once": 16, "url_encode": 8, "url_decode": 8, "newline_to_br": 8,
		"replace": 8, "remove": 8, "split": 8, "join": printWeight, "slice": 4, "strip_html": 4, "truncate": 4, "truncatewords": 8,
		"map": 2, "uniq": 8, "compact": 2, "reverse": 2, "concat": 2,
	} {
		out[name].weight = weight
	}
	for _, name := range []string{"default", "first", "last"} {
		out[name].view = true
	}
	out["sort"].cost, out["sort_natural"].cost = sortCost, sortCost
	out["uniq"].cost = uniqCost
	out["date"].cost = dateCost
	out["safe"] = &filter{fn: reflect.ValueOf(safe), view: true, only: map[engineKind]struct{}{escapedHTML: {}}}
	for name, f := range out {
		f.name = name
	}
	return out
}

// makingHTML are the filters whose result is HTML by definition. In HTML they replace those of allowed: their result is
// marked as safe, so that it is not escaped a second time, and they leave alone what is HTML already.
var makingHTML = map[string]*filter{
	"escape":      {name: "escape", fn: reflect.ValueOf(escapeHTML), weight: 8},
	"escape_once": {name: "escape_once", fn: reflect.ValueOf(escapeHTMLOnce), weight: 16},
	"newline_to_br": {name: "newline_to_br", fn: reflect.ValueOf(func(v any) (any, error) {
		return markup(v, render.HtmlEscaper.Replace, func(s string) string { return strings.ReplaceAll(s, "\n", "<br />\n") })
	}), weight: 8},
}

// filterNamed returns a filter, or nil if templates of a kind may not use it.
func filterNamed(name string, kind engineKind) *filter {
	if f := makingHTML[name]; f != nil && kind == escapedHTML {
		return f
	}
	f := allowed[name]
	if f != nil && f.only != nil {
		if _, ok := f.only[kind]; !ok {
			return nil
		}
	}
	return f
}

// application is an expression that applies a filter.
type application struct {
	def  *filter
	in   expr
	args []expr
}

func (a *application) eval(b *budget) (any, error) {
	var buf [4]any // on the stack; most filters have at most three arguments beside the value
	args := buf[:0]
	v, err := a.in.eval(b)
	if err != nil {
		return nil, err
	}
	args = append(args, v)
	for _, e := range a.args {
		if v, err = e.eval(b); err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	if !a.def.takesHTML() {
		for i := range args {
			args[i] = bare(args[i])
		}
	}
	return a.def.apply(b, args)
}

// takesHTML reports whether a filter tells HTML from text.
func (f *filter) takesHTML() bool { return f.only != nil || makingHTML[f.name] == f }

// apply charges for a call and makes it. Arguments are charged before the call, because a filter cannot be stopped; the result
// is charged afterwards, which is safe because the bounded filters check its size before they allocate it.
func (f *filter) apply(b *budget, args []any) (any, error) {
	n := 0
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			n += len(s)
			continue
		}
		s := size(arg)
		if f.prints(i) {
			if s > MaxOutput {
				return nil, b.fail(errTooLong)
			}
			s *= printWeight
		}
		n += s
	}
	cost := 1 + f.weight*n>>10
	if f.cost != nil {
		if err := b.charge(cost); err != nil { // before the walk through the arrays
			return nil, err
		}
		cost = f.cost(args)
	}
	if err := b.charge(cost); err != nil {
		return nil, err
	}
	out, err := f.call(args)
	switch {
	case isBound(err):
		return nil, b.fail(err)
	case err != nil:
		return nil, err
	case f.view:
		return out, nil
	}
	return out, came(b, out)
}

// call converts the arguments and calls the function. Errors of the library quote values, so they are replaced by texts
// without personal data; so are its panics with values that it cannot convert.
func (f *filter) call(args []any) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the filter %s cannot take this value", f.name)
		}
	}()
	out, err = values.Call(f.fn, args)
	var parity *values.CallParityError
	switch {
	case err == nil || isBound(err) || f.name == "date":
	case errors.As(err, &parity):
		err = fmt.Errorf("the filter %s takes at most %d values after its colon", f.name, parity.NumParams-1)
	case f.name == "divided_by":
		err = errors.New("the filter divided_by cannot divide by this value")
	default:
		err = fmt.Errorf("the filter %s cannot take this value", f.name)
	}
	return out, err
}

// prints reports whether the library prints an argument that is not a text: to convert it, or to quote it in an error.
func (f *filter) prints(i int) bool {
	t := f.fn.Type()
	if i >= t.NumIn() {
		return false
	}
	kind := t.In(i).Kind()
	return kind != reflect.Slice && (kind != reflect.Interface || i > 0)
}

// came charges for the result of a filter and checks its size.
func came(b *budget, out any) error {
	switch out := out.(type) {
	case string:
		if len(out) > MaxOutput {
			return b.fail(errTooLong)
		}
		return b.make(len(out))
	case values.SafeValue:
		return came(b, out.Value)
	case []any:
		if len(out) > maxElements {
			return b.fail(errElements)
		}
		if err := b.charge(size(out) >> 10); err != nil {
			return err
		}
		return b.make(len(out) * elementSize)
	}
	return nil
}

// isBound reports whether a filter exceeded a bound, as opposed to not accepting a value.
func isBound(err error) bool {
	return err != nil && (errors.Is(err, errTooLong) || errors.Is(err, errElements))
}

// sortCost charges n log n comparisons, four for a step; each element's text is read log n times.
func sortCost(args []any) int {
	n := length(args[0])
	log := bits.Len(uint(n))
	return n*log/4 + log*(size(args[0])>>10)
}

// uniqCost charges the pairwise comparisons of elements that cannot be map keys.
func uniqCost(args []any) int {
	a, ok := args[0].([]any)
	if !ok {
		return 0
	}
	cost, before := 0, 0
	for _, v := range a {
		if !hashable(v) {
			cost += before + before*size(v)*printWeight>>10
			before++
		}
		if cost > maxSteps {
			break
		}
	}
	return cost
}

// dateCost charges 8 steps for the layouts that are tried, and 4 for each directive of the format, because the formatter
// searches for each by a regular expression.
func dateCost(args []any) int {
	cost := 8
	if len(args) > 1 {
		if s, ok := args[1].(string); ok {
			cost += 4 * strings.Count(s, "%")
		}
	}
	return cost
}

// length returns the number of elements of a slice or map, 0 for other values.
func length(v any) int {
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice || rv.Kind() == reflect.Map {
		return rv.Len()
	}
	return 0
}

// bounded calls make only if its result, of size bytes, is within MaxOutput. Text is measured before it is allocated: one
// replace of 1 MB of a's by 1 MB would otherwise need 10¹² bytes.
func bounded(size int, make func() string) (string, error) {
	if size > MaxOutput {
		return "", errTooLong
	}
	return make(), nil
}

// replaceBounded is strings.Replace with a bound; n < 0 replaces all.
func replaceBounded(s, old, by string, n int) (string, error) {
	count := strings.Count(s, old)
	if n >= 0 && count > n {
		count = n
	}
	return bounded(len(s)+count*(len(by)-len(old)), func() string { return strings.Replace(s, old, by, n) })
}

// splitBounded is strings.Split with a bound. Unlike the library it keeps empty parts at the end.
func splitBounded(s, sep string) ([]any, error) {
	n := strings.Count(s, sep) + 1
	if sep == "" {
		n -= 2 // strings.Count counts the positions between characters, including both ends
	}
	if n > maxElements {
		return nil, errElements
	}
	parts := strings.Split(s, sep)
	out := make([]any, len(parts))
	for i, part := range parts {
		out[i] = part
	}
	return out, nil
}

// joinBounded joins the elements of an array, nil as nothing. It stops as soon as the text is too long: the separator alone
// may have a megabyte.
func joinBounded(a []any, sep func(string) string) (string, error) {
	s := sep(" ")
	var b strings.Builder
	for i, v := range a {
		if i > 0 {
			b.WriteString(s)
		}
		switch v := v.(type) {
		case nil:
		case string:
			b.WriteString(v)
		default:
			if size(v) > MaxOutput {
				return "", errTooLong
			}
			fmt.Fprint(&b, v)
		}
		if b.Len() > MaxOutput {
			return "", errTooLong
		}
	}
	return b.String(), nil
}

// wideFormat matches a width of three or more digits in a date format: the formatter pads to any width, so %999999999d would
// allocate a gigabyte.
var wideFormat = regexp.MustCompile(`%[^A-Za-z%]*[0-9]{3}`)

const maxDateFormat = 256 // bytes

// reader reads the dates of leads and of templates.
var reader = dates.Reader{Epoch: true}

// dateBounded formats a date, as standard Liquid does: nothing for nil and for an empty text, and a text that is no date, or
// a date with two readings, as it is. Texts are read as imports read them; now and today are the time of rendering.
func dateBounded(v any, format func(string) string) (any, error) {
	f := format("%a, %b %d, %y")
	if len(f) > maxDateFormat || wideFormat.MatchString(f) {
		return nil, errors.New("date format is too long")
	}
	t, ok := dateOf(v)
	if !ok {
		if v == "" {
			return nil, nil //nolint:nilnil // Liquid's nil, for which the filter default has a value
		}
		return v, nil
	}
	return tuesday.Strftime(f, t)
}

// dateOf returns the time that a value stands for. Numbers are seconds since 1970.
func dateOf(v any) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, true
	case int:
		return dateOf(strconv.Itoa(v))
	case float64:
		return dateOf(strconv.FormatFloat(v, 'f', 0, 64))
	case json.Number:
		return dateOf(v.String())
	case string:
		if name := strings.ToLower(strings.TrimSpace(v)); name == "now" || name == "today" {
			return time.Now().UTC(), true
		}
		d, err := reader.Parse(v)
		return d.Time, err == nil
	}
	return time.Time{}, false
}

// safe marks a value as HTML, so that it is written without escaping.
func safe(v any) any {
	if _, already := v.(values.SafeValue); already {
		return v
	}
	return values.SafeValue{Value: v}
}

// bare returns a value without the mark of HTML.
func bare(v any) any {
	if s, ok := v.(values.SafeValue); ok {
		return s.Value
	}
	return v
}

// markup makes HTML of a value: of one that is HTML already by more alone, of any other by escape and more.
func markup(v any, escape, more func(string) string) (any, error) {
	if safe, ok := v.(values.SafeValue); ok {
		v, escape = safe.Value, same
	}
	if v == nil {
		return nil, nil //nolint:nilnil // Liquid's nil
	}
	converted, err := values.Convert(v, reflect.TypeFor[string]())
	if err != nil {
		return nil, err
	}
	s, _ := converted.(string)
	if len(s) > MaxOutput {
		return nil, errTooLong
	}
	return values.SafeValue{Value: more(escape(s))}, nil
}

func same(s string) string { return s }

func escapeHTML(v any) (any, error) { return markup(v, render.HtmlEscaper.Replace, same) }

func escapeHTMLOnce(v any) (any, error) {
	return markup(v, func(s string) string { return render.HtmlEscaper.Replace(html.UnescapeString(s)) }, same)
}

// capitalize makes the first character upper case and the others lower case, as standard Liquid does. The library's filter
// cuts the first byte off.
func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + strings.ToLower(s[n:])
}
