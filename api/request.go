package api

import (
	"encoding/base64"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// readJSON takes the body as one strict JSON object and returns its reader with the errors it collects.
func readJSON(c echo.Context) (*wire.Object, *wire.Errors, error) {
	if ct := c.Request().Header.Get(echo.HeaderContentType); ct != "" {
		media, _, err := mime.ParseMediaType(ct)
		if err != nil || (media != "application/json" && !strings.HasSuffix(media, "+json")) {
			return nil, nil, message.Errorf(message.CodeMediaType, "the body must be application/json")
		}
	}
	visit := visitOf(c)
	body := visit.body
	visit.body = nil // the tree has copies of all that is needed
	weight, err := wire.Weigh(body)
	if err == nil {
		err = visit.take(weight)
	}
	if err != nil {
		return nil, nil, err
	}
	v, err := wire.Decode(body)
	if err != nil {
		return nil, nil, err
	}
	errs := &wire.Errors{}
	o := wire.NewObject(errs, v, "body")
	return o, errs, errs.Err()
}

// query reads the query string. Parameters that are not known are refused, like fields.
type query struct {
	c    echo.Context
	errs *wire.Errors
	read map[string]bool
}

func newQuery(c echo.Context, errs *wire.Errors) *query {
	return &query{c, errs, map[string]bool{}}
}

func (q *query) get(name string) string {
	q.read[name] = true
	values := q.c.QueryParams()[name]
	if len(values) > 1 {
		q.errs.Add(message.SlugValue, "is given more than once", "query", name)
	}
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func (q *query) uuid(name string) uuid.UUID {
	v := q.get(name)
	if v == "" {
		return uuid.Nil
	}
	id, ok := wire.ParseUUID(v)
	if !ok {
		q.errs.Add(message.SlugUUID, "must be a UUID", "query", name)
	}
	return id
}

func (q *query) time(name string) *time.Time {
	v := q.get(name)
	if v == "" {
		return nil
	}
	t, wrong := wire.ParseTime(v)
	if wrong != "" {
		q.errs.Add(message.SlugDatetime, wrong, "query", name)
		return nil
	}
	return &t
}

func (q *query) messageType(name string) message.ChannelType {
	v := q.get(name)
	if v == "" {
		return ""
	}
	t, ok := message.ParseChannelType(v)
	if !ok {
		q.errs.Add(message.SlugEnum, "must be EMAIL, SMS or INSTAGRAM_DM", "query", name)
	}
	return t
}

// address reads an address in its normalised form.
func (q *query) address(name string) string {
	v := q.get(name)
	if v == "" {
		return ""
	}
	for _, t := range message.ChannelTypes {
		if address, ok := message.ValidRecipient(t, v); ok {
			return address
		}
	}
	q.errs.Add(message.SlugValue, "is no address", "query", name)
	return ""
}

// Sizes of a page.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// page reads limit and cursor. The cursor is opaque to callers; it holds the last item's key.
func (q *query) page() (limit int, after string) {
	limit = defaultLimit
	if v := q.get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxLimit {
			q.errs.Add(message.SlugInt, fmt.Sprintf("must be a number from 1 to %d", maxLimit), "query", "limit")
		} else {
			limit = n
		}
	}
	if v := q.get("cursor"); v != "" {
		b, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil {
			q.badCursor()
		}
		after = string(b)
	}
	return limit, after
}

func (q *query) badCursor() {
	q.errs.Add(message.SlugValue, "is no cursor of this list", "query", "cursor")
}

// pageByID reads limit and a cursor that holds an id.
func (q *query) pageByID() (int, uuid.UUID) {
	limit, after := q.page()
	if after == "" {
		return limit, uuid.Nil
	}
	id, ok := wire.ParseUUID(after)
	if !ok {
		q.badCursor()
	}
	return limit, id
}

// close refuses parameters that were not read and returns everything wrong.
func (q *query) close() error {
	var unknown []string
	for name := range q.c.QueryParams() {
		if !q.read[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		q.errs.Add(message.SlugExtra, "unknown parameter", "query", strings.ToValidUTF8(name, "?"))
	}
	return q.errs.Err()
}

// withoutQuery refuses every parameter, on a route that has none.
func withoutQuery(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().URL.RawQuery != "" {
			if err := newQuery(c, &wire.Errors{}).close(); err != nil {
				return err
			}
		}
		return next(c)
	}
}

// listOf makes a page: items was asked for with one more than limit, which tells whether there is a next page.
func listOf[D, T any](items []D, limit int, show func(*D) T, key func(*D) string) contract.Page[T] {
	l := contract.Page[T]{Items: make([]T, 0, limit)}
	for i := range items {
		if i == limit {
			next := base64.RawURLEncoding.EncodeToString([]byte(key(&items[i-1])))
			l.NextCursor = &next
			break
		}
		l.Items = append(l.Items, show(&items[i]))
	}
	return l
}

// pathID reads the id in the path.
func pathID(c echo.Context) (uuid.UUID, error) {
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

// at is a time as the wire has it: in UTC, to the second.
func at(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	s := t.UTC().Truncate(time.Second)
	return &s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func idOrNull(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	s := id.String()
	return &s
}
