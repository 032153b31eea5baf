package request

import (
	"errors"
	"fmt"
	"mime"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// Object reads one JSON object of a request. The bounds of its strings, numbers and arrays are those that the tags of its
// type in package contract declare. Every method records its mistake and returns the zero value.
type Object struct {
	*wire.Object
	errs   *wire.Errors
	bounds bounds
}

// ReadJSON decodes the body as one strict JSON object of a contract type. It reserves the memory of the decoded tree.
func ReadJSON[T any](c echo.Context) (*Object, *wire.Errors, error) {
	if ct := c.Request().Header.Get(echo.HeaderContentType); ct != "" {
		media, _, err := mime.ParseMediaType(ct)
		if err != nil || (media != "application/json" && !strings.HasSuffix(media, "+json")) {
			return nil, nil, message.Errorf(message.CodeMediaType, "the body must be application/json")
		}
	}
	grant := GrantOf(c)
	body := grant.body
	grant.body = nil // the tree has copies of all that is needed
	weight, err := wire.Weigh(body)
	if err == nil {
		err = grant.Reserve(weight)
	}
	if err != nil {
		return nil, nil, err
	}
	v, err := wire.Decode(body)
	if err != nil {
		return nil, nil, grant.place(err)
	}
	errs := &wire.Errors{}
	o := wire.NewObject(errs, v, "body")
	return &Object{o, errs, boundsOf(reflect.TypeFor[T]())}, errs, errs.Err()
}

// place corrects the byte offset in an error of wire.Decode for a body whose files were taken out.
func (v *Grant) place(err error) error {
	var e *message.Error
	if v.extractor == nil || !errors.As(err, &e) || len(e.Fields) != 1 || len(e.Fields[0].Loc) != 2 {
		return err
	}
	f := e.Fields[0]
	at, ok := f.Loc[1].(int)
	if !ok {
		return err
	}
	return message.InvalidField(f.Type, f.Msg, f.Loc[0], int(v.extractor.offset(int64(at))))
}

// Items reads an array of objects of a contract type within its bound. An element that is no object is nil.
func Items[T any](o *Object, name string) []*Object {
	list := o.List(name, int(o.bounds.of(name).max))
	items := make([]*Object, len(list))
	for i, v := range list {
		if item := wire.NewObject(o.errs, v, o.At(name, i)...); item != nil {
			items[i] = &Object{item, o.errs, boundsOf(reflect.TypeFor[T]())}
		}
	}
	return items
}

// Child reads a field that is an object of a contract type, or returns nil when it is absent or none.
func Child[T any](o *Object, name string) *Object {
	child := o.Child(name)
	if child == nil {
		return nil
	}
	return &Object{child, o.errs, boundsOf(reflect.TypeFor[T]())}
}

// maxWord is the most characters of a string that must be one of a few words.
const maxWord = 200

// Word reads a string of which a few values are valid; which ones, its caller knows.
func (o *Object) Word(name string) string { return o.Object.String(name, maxWord) }

// Words reads an array of such strings.
func (o *Object) Words(name string) []string {
	return o.Object.Strings(name, int(o.bounds.of(name).max), maxWord)
}

// String reads a string within its bound.
func (o *Object) String(name string) string { return o.Object.String(name, int(o.bounds.of(name).max)) }

// Text reads a string whose bound the domain checks, since it depends on other fields.
func (o *Object) Text(name string) string { return o.Object.String(name, 0) }

// Strings reads an array of strings within its bounds.
func (o *Object) Strings(name string) []string {
	b := o.bounds.of(name)
	return o.Object.Strings(name, int(b.max), b.each)
}

// Texts reads an array of bounded strings; how many there may be, the domain checks.
func (o *Object) Texts(name string) []string {
	return o.Object.Strings(name, 0, o.bounds.of(name).each)
}

// Number reads a number within its bounds, or nil when it is absent.
func (o *Object) Number(name string) *float64 {
	b := o.bounds.of(name)
	return o.Object.Number(name, b.min, b.max)
}

// Free reads a free-form object within its bound in bytes.
func (o *Object) Free(name string) map[string]any {
	return o.Object.Free(name, o.bounds.of(name).bytes)
}

// Values reads an object of strings, each within the field's bound. Null and "" are empty strings.
func (o *Object) Values(name string) map[string]string {
	child := o.Child(name)
	if child == nil {
		return nil
	}
	values := map[string]string{}
	for _, key := range child.Names() {
		values[key] = child.String(key, o.bounds.of(name).each)
	}
	return values
}

// Enum reads one of all values of a type. parse takes any letter case.
func Enum[E ~string](o *Object, name string, absent E, parse func(string) (E, bool), all []E) E {
	if !o.Has(name) {
		o.Text(name)
		return absent
	}
	v, isString := o.Raw(name)
	if s, ok := v.(string); ok {
		if e, ok := parse(s); ok {
			return e
		}
	} else if !isString {
		return absent
	}
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = string(e)
	}
	o.Fail(message.SlugEnum, "must be one of "+strings.Join(names, ", "), name)
	return absent
}

// Under prefixes the paths of mistakes with loc. Other errors pass unchanged.
func Under(err error, loc ...any) error {
	var e *message.Error
	if !errors.As(err, &e) || e.Code != message.CodeInvalid || len(e.Fields) == 0 {
		return err
	}
	var errs wire.Errors
	errs.AddUnder(e.Fields, loc...)
	return errs.Err()
}

// bound is what a field's tags say of its size: min and max of a number's value, a string's length or an array's; each of
// the length of an array's or object's strings; bytes of an object.
type bound struct {
	min, max    float64
	each, bytes int
}

// bounds are the bounds of a type's fields, by their JSON names.
type bounds map[string]bound

// of returns the bound of a field. It panics for a field without one: reading it unbounded would be a bug.
func (b bounds) of(name string) bound {
	found, ok := b[name]
	if !ok {
		panic(fmt.Sprintf("the contract declares no bound of %q", name))
	}
	return found
}

// knownBounds are bounds by their type. Tags are read once.
var knownBounds sync.Map

func boundsOf(t reflect.Type) bounds {
	if known, ok := knownBounds.Load(t); ok {
		return known.(bounds) //nolint:forcetypeassert // only this function stores
	}
	all := bounds{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Tag.Get("name")
		}
		number := func(tag string) float64 {
			v, err := strconv.ParseFloat(f.Tag.Get(tag), 64)
			if err != nil {
				return 0
			}
			return v
		}
		b := bound{min: number("min"), max: number("max"), each: int(number("each")), bytes: int(number("bytes"))}
		if b != (bound{}) {
			all[name] = b
		}
	}
	knownBounds.Store(t, all)
	return all
}
