package request

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/dates"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// Query reads the query string strictly: Close rejects parameters that were not read.
type Query struct {
	c    echo.Context
	Errs *wire.Errors // collects the mistakes
	read map[string]bool
}

// NewQuery returns a reader that adds mistakes to errs.
func NewQuery(c echo.Context, errs *wire.Errors) *Query {
	return &Query{c, errs, map[string]bool{}}
}

// Get reads a parameter, "" if it is absent. A parameter given twice is a mistake, and so is an empty one: a program whose variable
// is unset would read everything, or send over the default channel.
func (q *Query) Get(name string) string {
	q.read[name] = true
	values := q.c.QueryParams()[name]
	if len(values) > 1 {
		q.Errs.Add(message.SlugValue, "is given more than once", "query", name)
	}
	if len(values) == 0 {
		return ""
	}
	if values[0] == "" {
		q.Errs.Add(message.SlugTooShort, "must not be empty: leave the parameter out", "query", name)
	}
	return values[0]
}

// Text reads a text of at most limit characters, "" if it is absent. A text that no row can hold is a mistake.
func (q *Query) Text(name string, limit int) string {
	v := q.Get(name)
	switch {
	case !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0:
		q.Errs.Add(message.SlugValue, "must be UTF-8 without NUL characters", "query", name)
	case utf8.RuneCountInString(v) > limit:
		q.Errs.Add(message.SlugTooLong, fmt.Sprintf("must have at most %d characters", limit), "query", name)
	default:
		return v
	}
	return ""
}

// Phone reads a text that may be a phone number. An unescaped + at its beginning is decoded as a space.
func (q *Query) Phone(name string, limit int) string { return withPlus(q.Text(name, limit)) }

// withPlus restores the + of a phone number that was not escaped.
func withPlus(v string) string {
	if len(v) > 1 && v[0] == ' ' && v[1] >= '0' && v[1] <= '9' {
		return "+" + v[1:]
	}
	return v
}

// UUID reads an id, uuid.Nil if it is absent.
func (q *Query) UUID(name string) uuid.UUID {
	v := q.Get(name)
	if v == "" {
		return uuid.Nil
	}
	id, ok := wire.ParseUUID(v)
	if !ok {
		q.Errs.Add(message.SlugUUID, "must be a UUID", "query", name)
	}
	return id
}

// Time reads an RFC 3339 time, nil if it is absent.
func (q *Query) Time(name string) *time.Time {
	v := q.Get(name)
	if v == "" {
		return nil
	}
	t, wrong := wire.ParseTime(v)
	if wrong != "" {
		q.Errs.Add(message.SlugDatetime, wrong, "query", name)
		return nil
	}
	return &t
}

// Zone reads the IANA name of a time zone, UTC if it is absent.
func (q *Query) Zone(name string) *time.Location {
	zone, err := dates.Zone(q.Get(name))
	if err != nil {
		q.Errs.Add(message.SlugValue, err.Error(), "query", name)
		return time.UTC
	}
	return zone
}

// Bool reads true or false, false if it is absent.
func (q *Query) Bool(name string) bool {
	switch q.Get(name) {
	case "", "false":
		return false
	case "true":
		return true
	}
	q.Errs.Add(message.SlugBool, "must be true or false", "query", name)
	return false
}

// ChannelType reads a channel type in any letter case, "" if it is absent.
func (q *Query) ChannelType(name string) message.ChannelType {
	v := q.Get(name)
	if v == "" {
		return ""
	}
	t, ok := message.ParseChannelType(v)
	if !ok {
		q.Errs.Add(message.SlugEnum, "must be "+message.ChannelTypeList(), "query", name)
	}
	return t
}

// Address reads an address of any type in its normalised form.
func (q *Query) Address(name string) string {
	v := withPlus(q.Get(name))
	if v == "" {
		return ""
	}
	for _, t := range message.ChannelTypes {
		if address, ok := message.ValidRecipient(t, v); ok {
			return address
		}
	}
	q.Errs.Add(message.SlugValue, "must be an address", "query", name)
	return ""
}

const defaultLimit = 50 // items of a page

// pageBounds bound the parameters of a page.
var pageBounds = boundsOf(reflect.TypeFor[contract.PageQuery]())

// Among reads values of a closed list that are separated by commas, nil if the parameter is absent.
func Among[E ~string](q *Query, name, wrong string, parse func(string) (E, bool)) []E {
	text := q.Get(name)
	if text == "" {
		return nil
	}
	var out []E
	for _, word := range strings.Split(text, ",") {
		v, ok := parse(word)
		if !ok {
			q.Errs.Add(message.SlugEnum, wrong, "query", name)
			return nil
		}
		out = append(out, v)
	}
	return out
}

// Page reads limit and cursor (keyset pagination). The cursor is opaque to callers; it encodes the key of the last item.
func (q *Query) Page() (limit int, after string) {
	limit = defaultLimit
	bound := pageBounds.of("limit")
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < int(bound.min) || n > int(bound.max) {
			q.Errs.Add(message.SlugInt, fmt.Sprintf("must be a number from %v to %v", bound.min, bound.max), "query", "limit")
		} else {
			limit = n
		}
	}
	if v := q.Get("cursor"); v != "" {
		b, err := base64.RawURLEncoding.DecodeString(v)
		key, ok := bytes.CutPrefix(b, q.list())
		if err != nil || !ok || len(key) == 0 {
			q.BadCursor()
			return limit, ""
		}
		after = string(key)
	}
	return limit, after
}

// BadCursor records that the cursor belongs to another list.
func (q *Query) BadCursor() {
	q.Errs.Add(message.SlugValue, "is not a cursor of this list with these filters", "query", "cursor")
}

// PageByID reads limit and a cursor that encodes an id.
func (q *Query) PageByID() (int, uuid.UUID) {
	limit, after := q.Page()
	if after == "" {
		return limit, uuid.Nil
	}
	id, ok := wire.ParseUUID(after)
	if !ok {
		q.BadCursor()
	}
	return limit, id
}

// Close adds parameters that were not read as mistakes, and returns all mistakes as one error.
func (q *Query) Close() error {
	var unknown []string
	for name := range q.c.QueryParams() {
		if !q.read[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		q.Errs.Add(message.SlugExtra, "unknown parameter", "query", strings.ToValidUTF8(name, "?"))
	}
	return q.Errs.Err()
}

// withoutQuery rejects every parameter on a route that declares none.
func withoutQuery(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().URL.RawQuery != "" {
			if err := NewQuery(c, &wire.Errors{}).Close(); err != nil {
				return err
			}
		}
		return next(c)
	}
}

// PathID reads the parameter id of the path.
func PathID(c echo.Context) (uuid.UUID, error) {
	v := c.Param("id")
	if strings.Contains(v, "/") {
		return uuid.Nil, echo.ErrNotFound
	}
	id, ok := wire.ParseUUID(v)
	if !ok {
		return uuid.Nil, message.InvalidField(message.SlugUUID, "must be a UUID", "path", "id")
	}
	return id, nil
}

// Cursor encodes the key of a page's last item for Page. It is bound to the list, and to its filters: with others the next page would
// begin in the middle of another list.
func (q *Query) Cursor(key string) string {
	return base64.RawURLEncoding.EncodeToString(append(q.list(), key...))
}

// listBytes is the length of the hash of a list in a cursor.
const listBytes = 4

// list returns a hash of the path and the filters.
func (q *Query) list() []byte {
	filters := maps.Clone(q.c.QueryParams())
	filters.Del("cursor")
	filters.Del("limit")
	sum := sha256.Sum256([]byte(q.c.Path() + "?" + filters.Encode()))
	return sum[:listBytes]
}
