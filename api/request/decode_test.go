package request

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/audience"
	"herald/pkg/contract"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// sample is a request type with a bound of each kind.
type sample struct {
	Name   string            `json:"name" max:"3"`
	Word   string            `json:"word"`
	Words  []string          `json:"words" max:"2"`
	List   []string          `json:"list" max:"2" each:"3"`
	Price  float64           `json:"price" min:"0.5" max:"2"`
	Free   map[string]any    `json:"free" bytes:"16"`
	Values map[string]string `json:"values" each:"3"`
	Inner  inner             `json:"inner"`
}

type inner struct {
	Text string `json:"text" max:"2"`
}

// decode reads a body as a sample within a request.
func decode(t *testing.T, body string, read func(o *Object), headers ...string) error {
	t.Helper()
	g := NewGate(Limits{InFlight: 1})
	return visit(g, sendRoute, visitor{body: body, set: func(r *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
	}}, func(c echo.Context) error {
		o, errs, err := ReadJSON[sample](c)
		if err != nil {
			return err
		}
		if GrantOf(c).Body() != nil {
			t.Error("the body is kept beside its tree")
		}
		if u := g.Usage(); u.Memory < int64(connection+2*len(body)) {
			t.Errorf("body and tree of %d bytes count as %d", len(body), u.Memory)
		}
		read(o)
		return errs.Err()
	})
}

// mistakes returns the paths and kinds of an error's mistakes.
func mistakes(err error) string {
	var e *message.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	var all []string
	for _, f := range e.Fields {
		all = append(all, fmt.Sprint(f.Loc, " ", f.Type))
	}
	return strings.Join(all, ", ")
}

// Every reader takes what is within the bound of its field's tag, and refuses what is just beyond.
func TestBoundsComeFromTheTags(t *testing.T) {
	for name, test := range map[string]struct {
		read    func(o *Object) any
		within  string
		want    any
		beyond  string
		mistake string
	}{
		"string":      {func(o *Object) any { return o.String("name") }, `{"name":"äöü"}`, "äöü", `{"name":"äöüx"}`, "[body name] string_too_long"},
		"word":        {func(o *Object) any { return o.Word("word") }, `{"word":"` + strings.Repeat("x", 200) + `"}`, strings.Repeat("x", 200), `{"word":"` + strings.Repeat("x", 201) + `"}`, "[body word] string_too_long"},
		"words":       {func(o *Object) any { return o.Words("words") }, `{"words":["a","` + strings.Repeat("x", 200) + `"]}`, []string{"a", strings.Repeat("x", 200)}, `{"words":["a","b","c"]}`, "[body words] too_long"},
		"a long word": {func(o *Object) any { return o.Words("words") }, `{"words":[]}`, []string{}, `{"words":["` + strings.Repeat("x", 201) + `"]}`, "[body words 0] string_too_long"},
		"list":        {func(o *Object) any { return o.Strings("list") }, `{"list":["abc","a"]}`, []string{"abc", "a"}, `{"list":["a","b","c"]}`, "[body list] too_long"},
		"element":     {func(o *Object) any { return o.Strings("list") }, `{"list":["abc"]}`, []string{"abc"}, `{"list":["a","abcd"]}`, "[body list 1] string_too_long"},
		"texts":       {func(o *Object) any { return o.Texts("list") }, `{"list":["a","b","c"]}`, []string{"a", "b", "c"}, `{"list":["abcd"]}`, "[body list 0] string_too_long"},
		"least":       {func(o *Object) any { return *o.Number("price") }, `{"price":0.5}`, 0.5, `{"price":0.49}`, "[body price] float_type"},
		"most":        {func(o *Object) any { return *o.Number("price") }, `{"price":2}`, 2.0, `{"price":2.01}`, "[body price] float_type"},
		"object":      {func(o *Object) any { return len(o.Free("free")) }, `{"free":{"k":"12345678"}}`, 1, `{"free":{"k":"1234567890"}}`, "[body free] string_too_long"},
		"values":      {func(o *Object) any { return o.Values("values") }, `{"values":{"a":"abc","b":null}}`, map[string]string{"a": "abc", "b": ""}, `{"values":{"a":"abcd"}}`, "[body values a] string_too_long"},
		"child":       {func(o *Object) any { return Child[inner](o, "inner").String("text") }, `{"inner":{"text":"ab"}}`, "ab", `{"inner":{"text":"abc"}}`, "[body inner text] string_too_long"},
		"text":        {func(o *Object) any { return o.Text("name") }, `{"name":"abcdef"}`, "abcdef", `{"name":1}`, "[body name] string_type"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := decode(t, test.within, func(o *Object) {
				if d := cmp.Diff(test.want, test.read(o)); d != "" {
					t.Error(d)
				}
			}); err != nil {
				t.Errorf("within the bound: %v", err)
			}
			err := decode(t, test.beyond, func(o *Object) {
				defer func() { _ = recover() }() // a number that is refused is nil
				test.read(o)
			})
			if got := mistakes(err); got != test.mistake {
				t.Errorf("beyond the bound: %s, want %s", got, test.mistake)
			}
		})
	}
}

// Fields that are absent or no objects are nil; a field without a declared bound is a mistake of the program.
func TestAbsentAndUndeclaredFields(t *testing.T) {
	err := decode(t, `{"inner":1}`, func(o *Object) {
		if o.Values("values") != nil || Child[inner](o, "inner") != nil || Child[inner](o, "none") != nil || o.Number("price") != nil {
			t.Error("what is absent is not nil")
		}
		defer func() {
			if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), `"word"`) {
				t.Errorf("an undeclared bound: %v", p)
			}
		}()
		o.String("word")
	})
	if got := mistakes(err); got != "[body inner] dict_type" {
		t.Error(got)
	}
}

// The body must be one JSON object; other media types are refused, none is taken for JSON.
func TestMediaTypes(t *testing.T) {
	for media, ok := range map[string]bool{
		"": true, "application/json": true, "application/json; charset=utf-8": true, "application/merge-patch+json": true, "text/json": false, "application/jsonx": false, "nonsense;;": false,
	} {
		err := decode(t, `{}`, func(*Object) {}, "Content-Type", media)
		if ok && err != nil {
			t.Errorf("%q: %v", media, err)
		}
		if !ok {
			wantError(t, media, err, message.CodeMediaType, "application/json")
		}
	}
	for _, body := range []string{"", "[]", "1", "{", "{}{}"} {
		if err := decode(t, body, func(*Object) { t.Error("read") }); !message.IsCode(err, message.CodeInvalid) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// A tree that is heavier than what its key may hold is refused before it is made.
func TestTheTreeCounts(t *testing.T) {
	g := NewGate(Limits{InFlight: 1})
	body := `{"x":[` + strings.Repeat(`{"a":0},`, 50_000) + `0]}`
	err := visit(g, sendRoute, visitor{key: keyed("a"), body: body}, func(c echo.Context) error {
		if err := GrantOf(c).Reserve(keyMemory - g.Usage().Memory - 1000); err != nil {
			t.Fatal(err)
		}
		_, _, err := ReadJSON[sample](c)
		return err
	})
	if !errors.Is(err, errShare) {
		t.Errorf("%v", err)
	}
	wantIdle(t, g)
}

func TestEnum(t *testing.T) {
	parse := func(s string) (message.Status, bool) {
		return message.Status(strings.ToUpper(s)), strings.EqualFold(s, "sent")
	}
	for body, test := range map[string]struct {
		want    message.Status
		mistake string
	}{
		`{}`: {"absent", ""}, `{"word":null}`: {"absent", ""}, `{"word":"sEnt"}`: {"SENT", ""}, `{"word":"lost"}`: {"absent", "[body word] enum"}, `{"word":1}`: {"absent", "[body word] enum"},
	} {
		err := decode(t, body, func(o *Object) {
			if got := Enum(o, "word", "absent", parse, []message.Status{"SENT"}); got != test.want {
				t.Errorf("%s: %s, want %s", body, got, test.want)
			}
			o.Close() // the field counts as read
		})
		if test.mistake == "" && err != nil || test.mistake != "" && mistakes(err) != test.mistake {
			t.Errorf("%s: %v, want %q", body, err, test.mistake)
		}
	}
}

func TestUnder(t *testing.T) {
	if got := mistakes(Under(message.InvalidField(message.SlugValue, "m", "a", 1), "body", "x")); got != "[body x a 1] value_error" {
		t.Error(got)
	}
	for _, err := range []error{nil, message.Errorf(message.CodeConflict, "c"), &message.Error{Code: message.CodeInvalid}, errors.New("other")} {
		if got := Under(err, "body"); !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// ask makes a request with a query.
func ask(t *testing.T, query string) *Query {
	t.Helper()
	return NewQuery(echo.New().NewContext(httptest.NewRequest("GET", "/?"+query, nil), httptest.NewRecorder()), &wire.Errors{})
}

func TestQueries(t *testing.T) {
	const id = "01a20960-62b0-796f-9cfb-5b3a36495aeb"
	for name, test := range map[string]struct {
		query   string
		read    func(q *Query) any
		want    any
		mistake string
	}{
		"a value":            {"a=x", func(q *Query) any { return q.Get("a") }, "x", ""},
		"an absent value":    {"", func(q *Query) any { return q.Get("a") }, "", ""},
		"a value twice":      {"a=x&a=y", func(q *Query) any { return q.Get("a") }, "x", "[query a] value_error"},
		"an unknown one":     {"a=x&b=y&c=z", func(q *Query) any { return q.Get("a") }, "x", "[query b] extra_forbidden, [query c] extra_forbidden"},
		"an id":              {"a=" + id, func(q *Query) any { return q.UUID("a").String() }, id, ""},
		"no id":              {"", func(q *Query) any { return q.UUID("a") }, uuid.Nil, ""},
		"a wrong id":         {"a=x", func(q *Query) any { return q.UUID("a") }, uuid.Nil, "[query a] uuid_parsing"},
		"a time":             {"a=2025-01-31T10:30:00Z", func(q *Query) any { return q.Time("a").Unix() }, time.Date(2025, 1, 31, 10, 30, 0, 0, time.UTC).Unix(), ""},
		"no time":            {"", func(q *Query) any { return q.Time("a") == nil }, true, ""},
		"a wrong time":       {"a=now", func(q *Query) any { return q.Time("a") == nil }, true, "[query a] datetime_parsing"},
		"a type":             {"a=sms", func(q *Query) any { return q.ChannelType("a") }, message.SMS, ""},
		"no type":            {"", func(q *Query) any { return q.ChannelType("a") }, message.ChannelType(""), ""},
		"a wrong type":       {"a=fax", func(q *Query) any { return q.ChannelType("a") }, message.ChannelType(""), "[query a] enum"},
		"an address":         {"a=%2B14155550100", func(q *Query) any { return q.Address("a") }, "+14155550100", ""},
		"no address":         {"", func(q *Query) any { return q.Address("a") }, "", ""},
		"a wrong address":    {"a=x", func(q *Query) any { return q.Address("a") }, "", "[query a] value_error"},
		"the usual page":     {"", page, "50 ", ""},
		"the smallest page":  {"limit=1", page, "1 ", ""},
		"the largest page":   {"limit=200", page, "200 ", ""},
		"no items":           {"limit=0", page, "50 ", "[query limit] int_type"},
		"too many items":     {"limit=201", page, "50 ", "[query limit] int_type"},
		"no number of items": {"limit=x", page, "50 ", "[query limit] int_type"},
		"a cursor":           {"cursor=" + cursorOf(t, "key"), page, "50 key", ""},
		"a wrong cursor":     {"cursor=!", page, "50 ", "[query cursor] value_error"},
		"a cursor by id":     {"limit=3&cursor=" + cursorOf(t, id), pageByID, "3 " + id, ""},
		"no cursor by id":    {"", pageByID, "50 " + uuid.Nil.String(), ""},
		"another's cursor":   {"cursor=" + cursorOf(t, "key"), pageByID, "50 " + uuid.Nil.String(), "[query cursor] value_error"},
	} {
		q := ask(t, test.query)
		if d := cmp.Diff(test.want, test.read(q)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if err := q.Close(); (err == nil) != (test.mistake == "") || err != nil && mistakes(err) != test.mistake {
			t.Errorf("%s: %v, want %q", name, err, test.mistake)
		}
	}
}

// cursorOf returns a cursor of the list without filters that ask reads.
func cursorOf(t *testing.T, key string) string {
	t.Helper()
	return ask(t, "").Cursor(key)
}

// A cursor belongs to one list and its filters. The size of a page may change from page to page.
func TestIntegrationCursorsBelongToTheirList(t *testing.T) {
	cursor := ask(t, "status=SENT&a=1&limit=3").Cursor("key")
	for query, want := range map[string]string{
		"status=SENT&a=1": "key", "a=1&status=SENT&limit=7": "key", "status=FAILED&a=1": "", "status=SENT": "", "status=SENT&a=1&b=2": "",
	} {
		q := ask(t, query+"&cursor="+cursor)
		if _, after := q.Page(); after != want || (want == "") != (len(q.Errs.List()) == 1) {
			t.Errorf("%s: %q, %v", query, after, q.Errs.List())
		}
	}
	other := NewQuery(echo.New().NewContext(httptest.NewRequest("GET", "/other?cursor="+ask(t, "").Cursor("key"), nil), httptest.NewRecorder()), &wire.Errors{})
	other.c.SetPath("/other")
	if _, after := other.Page(); after != "" || len(other.Errs.List()) != 1 {
		t.Errorf("another list: %q", after)
	}
}

func page(q *Query) any {
	limit, after := q.Page()
	return fmt.Sprint(limit, " ", after)
}

func pageByID(q *Query) any {
	limit, after := q.PageByID()
	return fmt.Sprint(limit, " ", after)
}

func TestPathID(t *testing.T) {
	for value, want := range map[string]string{"01a20960-62b0-796f-9cfb-5b3a36495aeb": "", "x": "[path id] uuid_parsing", "a/b": "code=404, message=Not Found"} {
		c := echo.New().NewContext(httptest.NewRequest("GET", "/", nil), httptest.NewRecorder())
		c.SetParamNames("id")
		c.SetParamValues(value)
		id, err := PathID(c)
		if want == "" && (err != nil || id.String() != value) {
			t.Errorf("%s: %s, %v", value, id, err)
		}
		if want != "" && mistakes(err) != want {
			t.Errorf("%s: %v, want %s", value, err, want)
		}
	}
}

// The bounds that the contract declares for fields which the domain checks are the domain's.
func TestDeclaredBoundsAreThoseOfTheDomain(t *testing.T) {
	for _, test := range []struct {
		of    any
		field string
		want  bound
	}{
		{contract.ChannelFields{}, "sender_name", bound{max: message.MaxSenderName}},
		{contract.ChannelFields{}, "base_url", bound{max: message.MaxURL}},
		{contract.MessageData{}, "sender_name", bound{max: message.MaxSenderName}},
		{contract.MessageData{}, "image_url", bound{max: message.MaxURL}},
		{contract.MessageData{}, "media_urls", bound{max: 10, each: message.MaxURL}},
		{contract.MessageData{}, "metadata", bound{bytes: message.MaxMetadataBytes}},
		{contract.LeadFields{}, "first_name", bound{max: lead.MaxText}},
		{contract.LeadFields{}, "tags", bound{max: lead.MaxTags, each: lead.MaxTag}},
		{contract.LeadFields{}, "custom_fields", bound{bytes: lead.MaxCustomBytes}},
		{contract.NewSuppression{}, "message_types", bound{max: float64(len(message.MessageTypes))}},
		{contract.BulkSettings{}, "lead_ids", bound{min: 1, max: audience.MaxLeadIDs}},
		{contract.BulkSettings{}, "search_keyword", bound{min: 1, max: audience.MaxKeyword}},
		{contract.FilterRequest{}, "conditions", bound{min: 1, max: audience.MaxConditions}},
	} {
		if got := boundsOf(reflect.TypeOf(test.of)).of(test.field); got != test.want {
			t.Errorf("%T.%s is declared as %+v, the domain has %+v", test.of, test.field, got, test.want)
		}
	}
}
