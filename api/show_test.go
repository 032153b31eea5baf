package api

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// Times are shown in UTC, to the second.
func TestTimesAreShownToTheSecond(t *testing.T) {
	given := time.Date(2025, 1, 31, 12, 30, 5, 999_999_999, time.FixedZone("", 2*3600))
	if got := at(&given); got.Format(time.RFC3339Nano) != "2025-01-31T10:30:05Z" {
		t.Errorf("%s", got.Format(time.RFC3339Nano))
	}
	if at(nil) != nil || orNull("") != nil || *orNull("x") != "x" || idOrNull(uuid.Nil) != nil {
		t.Error("what is absent is not null")
	}
}

// A page has at most limit items. One item more says that a next page exists, whose cursor is the last item's key.
func TestPagesOfLists(t *testing.T) {
	same := func(s *string) string { return *s }
	q := request.NewQuery(echo.New().NewContext(httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()), &wire.Errors{})
	for _, test := range []struct {
		items, limit int
		shown        int
		next         string
	}{{0, 2, 0, ""}, {1, 2, 1, ""}, {2, 2, 2, ""}, {3, 2, 2, "b"}, {2, 1, 1, "a"}} {
		all := []string{"a", "b", "c"}[:test.items]
		page := listOf(q, all, test.limit, same, same)
		if !slices.Equal(page.Items, all[:test.shown]) || (page.NextCursor != nil) != (test.next != "") {
			t.Errorf("%d items in a page of %d: %+v", test.items, test.limit, page)
		}
		if page.NextCursor != nil && *page.NextCursor != q.Cursor(test.next) {
			t.Errorf("%d items in a page of %d: cursor %s", test.items, test.limit, *page.NextCursor)
		}
	}
}

// Retry-After is whole seconds, rounded up; 5 where the error does not say.
func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]int{0: 5, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := retryAfter(&message.Error{RetryAfter: after}); got != want {
			t.Errorf("%s: %d, want %d", after, got, want)
		}
	}
	if got := retryAfter(errors.New("x")); got != 5 {
		t.Errorf("another error: %d", got)
	}
}

func TestRequestIDsOfCallers(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "a": true, "Az09-_.:": true, "a b": false, "é": false, "a\n": false, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if plainID(id) != want {
			t.Errorf("%q is taken: %v", id, !want)
		}
	}
	if methodLabel("GET") != "GET" || methodLabel("BREW") != "other" {
		t.Error("labels of methods")
	}
}

// The Prefer header says how long a bulk send waits, up to a minute.
func TestPreferences(t *testing.T) {
	s := &Server{deps: Deps{BulkWait: 10 * time.Second}}
	for header, want := range map[string]struct {
		wait    time.Duration
		applied string
	}{
		"": {10 * time.Second, ""}, "wait=3": {3 * time.Second, "wait=3"}, "wait=0": {0, "wait=0"}, "wait=60": {time.Minute, "wait=60"}, "wait=61": {time.Minute, "wait=60"},
		"wait=-1": {10 * time.Second, ""}, "wait=x": {10 * time.Second, ""}, "respond-async": {0, "respond-async"}, "respond-async, wait=5": {5 * time.Second, "wait=5"},
		` WAIT = "7" `: {7 * time.Second, "wait=7"}, "other": {10 * time.Second, ""},
	} {
		req := httptest.NewRequest("POST", "/", nil)
		if header != "" {
			req.Header.Set("Prefer", header)
		}
		wait, applied := s.prefer(echo.New().NewContext(req, httptest.NewRecorder()))
		if wait != want.wait || applied != want.applied {
			t.Errorf("Prefer %q: %s %q, want %s %q", header, wait, applied, want.wait, want.applied)
		}
	}
}

// A writer with a bound fails as soon as the bound would be passed.
func TestLimitedWriter(t *testing.T) {
	var b strings.Builder
	w := &limitedWriter{&b, 5}
	for _, piece := range []string{"abc", "de"} {
		if _, err := w.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("f")); err == nil || b.String() != "abcde" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
