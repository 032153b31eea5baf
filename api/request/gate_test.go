package request

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// The bounds as they are documented.
const (
	mib         = 1 << 20
	allMemory   = 112 * mib
	keyMemory   = allMemory / 4
	connection  = 32 << 10 // bytes that a request with a body counts for beside it
	manyInTests = 16
)

var (
	readRoute = contract.Route{Method: "GET", Path: "/api/x", Scope: access.Read}
	sendRoute = contract.Route{Method: "POST", Path: "/api/x", Scope: access.Send, Request: contract.SendRequest{}, MaxBody: 8 * mib}
	hookRoute = contract.Route{Method: "POST", Path: "/hook", Access: contract.Signed, Uploads: []contract.Upload{{Media: contract.MediaJSON}}}
)

// visitor is a request to a gate.
type visitor struct {
	key  *access.Key // nil in the keyless mode
	body string
	set  func(*http.Request)
}

func keyed(id string, scopes ...access.Scope) *access.Key {
	if scopes == nil {
		scopes = access.Scopes
	}
	return &access.Key{ID: id, Scopes: scopes}
}

// visit runs a handler behind the gate, as a request of a route, and returns its error.
func visit(g *Gate, r contract.Route, v visitor, handler echo.HandlerFunc) error {
	req := httptest.NewRequest(r.Method, r.Path, strings.NewReader(v.body))
	if v.body == "" {
		req = httptest.NewRequest(r.Method, r.Path, http.NoBody)
	}
	if v.set != nil {
		v.set(req)
	}
	c := echo.New().NewContext(req, httptest.NewRecorder())
	if v.key != nil {
		SetKey(c, v.key)
	}
	return g.Admit(r, handler)(c)
}

func pass(echo.Context) error { return nil }

// inside holds n requests within the gate, and returns how to let them go and their errors.
func inside(t *testing.T, g *Gate, r contract.Route, v visitor, n int) (leave func()) {
	t.Helper()
	entered, release, done := make(chan struct{}), make(chan struct{}), make(chan error)
	for range n {
		go func() {
			done <- visit(g, r, v, func(echo.Context) error {
				entered <- struct{}{}
				<-release
				return nil
			})
		}()
	}
	for range n {
		select {
		case <-entered:
		case err := <-done:
			t.Fatalf("not let in: %v", err)
		}
	}
	return func() {
		t.Helper()
		close(release)
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func wantError(t *testing.T, what string, err error, code message.Code, says string) {
	t.Helper()
	var e *message.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message+e.Error(), says) {
		t.Errorf("%s: %v, want %s with %q", what, err, code, says)
	}
}

func wantIdle(t *testing.T, g *Gate) {
	t.Helper()
	if u := g.Usage(); u != (Usage{}) {
		t.Errorf("the gate still holds %+v", u)
	}
	for _, p := range []*places{g.requests, g.uploads, g.downloads, g.waits, g.dryRuns} {
		if len(p.taken) > 0 {
			t.Errorf("callers that hold nothing are still counted: %v", p.taken)
		}
	}
}

// Each class has its places, in all and of one key, and gives them back.
func TestPlacesOfEachClass(t *testing.T) {
	class := func(a contract.Admission) contract.Route {
		r := readRoute
		r.Admission = a
		return r
	}
	for name, test := range map[string]struct {
		route    contract.Route
		all, key int
		share    string
	}{
		"requests":  {class(contract.AdmitRequest), manyInTests, manyInTests / 4, "a quarter of the API"},
		"uploads":   {class(contract.AdmitUpload), 4, 2, "2 imports in progress"},
		"downloads": {class(contract.AdmitDownload), 8, 2, "2 downloads in progress"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(Limits{InFlight: manyInTests})
				var leave []func()
				for i := range test.all / test.key {
					key := visitor{key: keyed(string(rune('a' + i)))}
					leave = append(leave, inside(t, g, test.route, key, test.key))
					if i < test.all/test.key-1 {
						err := visit(g, test.route, key, pass)
						wantError(t, "beyond a key's share", err, message.CodeThrottled, test.share)
						if !Shed(err) {
							t.Error("it does not count as shed")
						}
					}
				}
				start := time.Now()
				err := visit(g, test.route, visitor{key: keyed("another")}, pass)
				wantError(t, "beyond all places", err, message.CodeUnavailable, "too many requests in progress")
				if waited := time.Since(start); test.route.Admission == contract.AdmitRequest && waited != 10*time.Millisecond || test.route.Admission != contract.AdmitRequest && waited != 0 {
					t.Errorf("it waited %s", waited)
				}
				if !Shed(err) {
					t.Error("it does not count as shed")
				}
				for _, l := range leave {
					l()
				}
				wantIdle(t, g)
				if err := visit(g, test.route, visitor{key: keyed("another")}, pass); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// A request waits a moment for a place that becomes free.
func TestARequestWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{InFlight: 1})
		leave := inside(t, g, readRoute, visitor{key: keyed("a")}, 1)
		done := make(chan error)
		go func() { done <- visit(g, readRoute, visitor{key: keyed("b")}, pass) }()
		time.Sleep(9 * time.Millisecond) // of the fake clock
		leave()
		if err := <-done; err != nil {
			t.Error(err)
		}
		wantIdle(t, g)
	})
}

// The keyless mode has one caller, and no share of the places is kept from it.
func TestTheKeylessCallerHasAllPlaces(t *testing.T) {
	g := NewGate(Limits{InFlight: manyInTests})
	leave := inside(t, g, readRoute, visitor{}, manyInTests)
	wantError(t, "one more", visit(g, readRoute, visitor{}, pass), message.CodeUnavailable, "too many")
	if u := g.Usage(); u.Requests != manyInTests || u.Callers != 0 {
		t.Errorf("%+v", u)
	}
	leave()
	wantIdle(t, g)
}

// Requests of routes without a key count as one caller, also when they bring keys.
func TestRequestsWithoutAKeyAreOneCaller(t *testing.T) {
	g := NewGate(Limits{InFlight: manyInTests})
	leave := inside(t, g, hookRoute, visitor{key: keyed("a")}, manyInTests/4)
	wantError(t, "beyond the share", visit(g, hookRoute, visitor{key: keyed("b")}, pass), message.CodeUnavailable, "too many requests in progress")
	if err := visit(g, readRoute, visitor{key: keyed("a")}, pass); err != nil {
		t.Errorf("a caller with a key: %v", err)
	}
	leave()
	wantIdle(t, g)
}

// A request whose key lacks the route's scope is refused before its body is read. Without keys every scope is given.
func TestScopes(t *testing.T) {
	g := NewGate(Limits{InFlight: 1})
	always := sendRoute
	always.Admission = contract.AdmitAlways
	for name, test := range map[string]struct {
		route contract.Route
		key   *access.Key
		ok    bool
	}{
		"the scope":              {sendRoute, keyed("a", access.Send), true},
		"other scopes":           {sendRoute, keyed("a", access.Read, access.Admin), false},
		"keyless":                {sendRoute, nil, true},
		"no admission, no scope": {always, keyed("a", access.Read), false},
		"a signed route":         {hookRoute, keyed("a", access.Admin), true},
	} {
		var read bytes.Buffer
		err := visit(g, test.route, visitor{key: test.key, set: func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(io.TeeReader(strings.NewReader("{}"), &read)), -1
		}}, pass)
		if test.ok && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !test.ok {
			wantError(t, name, err, message.CodeForbidden, "scope send")
			if read.Len() > 0 {
				t.Errorf("%s: %d bytes of the body were read", name, read.Len())
			}
		}
	}
	wantIdle(t, g)
}

// A route without parameters refuses every query; one with parameters and one without a key leave it to their handler.
func TestQueriesOfRoutesWithoutParameters(t *testing.T) {
	g := NewGate(Limits{InFlight: 1})
	paged := readRoute
	paged.Query = contract.PageQuery{}
	for name, test := range map[string]struct {
		route contract.Route
		query string
		ok    bool
	}{
		"no query": {readRoute, "", true}, "a query": {readRoute, "x=1", false}, "a route with parameters": {paged, "x=1", true}, "a signed route": {hookRoute, "x=1", true},
	} {
		err := visit(g, test.route, visitor{set: func(r *http.Request) { r.URL.RawQuery = test.query }}, pass)
		if test.ok && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !test.ok {
			wantError(t, name, err, message.CodeInvalid, "unknown parameter")
		}
	}
}

// Memory is bounded in all and for one key, counted as bodies come, and given back.
func TestMemory(t *testing.T) {
	g := NewGate(Limits{InFlight: 100})
	grants := []*Grant{g.grant("a"), g.grant("b"), g.grant(""), g.grant(anonymous)}
	for i, caller := range []string{"a", "b", anonymous} {
		v := g.grant(caller)
		if err := v.Reserve(keyMemory); err != nil {
			t.Errorf("%s, its share: %v", caller, err)
		}
		err := grants[[]int{0, 1, 3}[i]].Reserve(1)
		code := message.CodeThrottled
		if caller == anonymous {
			code = message.CodeUnavailable
		}
		wantError(t, caller+" beyond its share", err, code, "too many requests")
		if !Shed(err) {
			t.Error("it does not count as shed")
		}
		grants = append(grants, v)
	}
	if err := grants[2].Reserve(keyMemory); err != nil {
		t.Errorf("the last quarter: %v", err)
	}
	wantError(t, "beyond all", g.grant("").Reserve(1), message.CodeUnavailable, "too many requests")
	if u := g.Usage(); u.Memory != allMemory || u.Callers != 3 {
		t.Errorf("%+v", u)
	}
	grants[4].ReleaseMemory()
	if u := g.Usage(); u.Memory != allMemory-keyMemory {
		t.Errorf("after one gave its memory back: %+v", u)
	}
	if err := grants[0].Reserve(keyMemory); err != nil {
		t.Errorf("its key's other request: %v", err)
	}
	for _, v := range grants {
		v.end()
	}
	wantIdle(t, g)
}

// A body is in memory when the handler runs, and counts with its connection until the request ends.
func TestBodiesAreReadAndCounted(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 300_000, 8 * mib} {
		g := NewGate(Limits{InFlight: 1})
		body := strings.Repeat("x", size)
		err := visit(g, sendRoute, visitor{key: keyed("a"), body: body}, func(c echo.Context) error {
			v := GrantOf(c)
			if string(v.Body()) != body || v.complete != (size > 0) {
				t.Errorf("%d bytes: the handler has %d, complete %v", size, len(v.Body()), v.complete)
			}
			want := int64(connection + size + 1)
			if size == 0 {
				want = 0
			}
			if u := g.Usage(); u.Memory < want || u.Memory > 2*want+4096 {
				t.Errorf("%d bytes count as %d, want about %d", size, u.Memory, want)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		wantIdle(t, g)
	}
}

// A body beyond its route's bound is refused: before it is read where its length is announced, else as soon as it shows.
func TestBodiesAreBounded(t *testing.T) {
	small := sendRoute
	small.MaxBody = 0
	for name, test := range map[string]struct {
		route contract.Route
		limit int
		says  string
	}{
		"a declared bound": {sendRoute, 8 * mib, "8 MB (8388608 bytes)"}, "the default bound": {small, 256 << 10, "256 KB (262144 bytes)"},
	} {
		g := NewGate(Limits{InFlight: 1})
		send := func(n int, announced int64) error {
			return visit(g, test.route, visitor{key: keyed("a"), body: strings.Repeat("x", n), set: func(r *http.Request) { r.ContentLength = announced }}, pass)
		}
		if err := send(test.limit, int64(test.limit)); err != nil {
			t.Errorf("%s, exactly: %v", name, err)
		}
		if err := send(test.limit, -1); err != nil {
			t.Errorf("%s, exactly, not announced: %v", name, err)
		}
		wantError(t, name+", announced", send(1, int64(test.limit)+1), message.CodeTooLarge, test.says)
		wantError(t, name+", not announced", send(test.limit+1, -1), message.CodeTooLarge, test.says)
		wantIdle(t, g)
	}
}

// Room for a body grows with what came, since an announced length need not come; then it is made at once.
func TestRoomFor(t *testing.T) {
	for _, test := range []struct{ come, announced, want int }{
		{4096, 8 * mib, 16384}, {65536, 8 * mib, 262144}, {255 << 10, 8 * mib, 1020 << 10}, {256 << 10, 8 * mib, 8*mib + 1}, {4096, 5000, 5001},
	} {
		if got := roomFor(test.come, test.announced); got != test.want {
			t.Errorf("room for %d of %d bytes is %d, want %d", test.come, test.announced, got, test.want)
		}
	}
}

// A bulk that waits for its figures exchanges its place for one of those that wait, which are bounded too.
func TestWaiting(t *testing.T) {
	g := NewGate(Limits{InFlight: 4})
	err := visit(g, readRoute, visitor{key: keyed("a")}, func(c echo.Context) error {
		if err := GrantOf(c).Wait(c); err != nil {
			t.Error(err)
		}
		if u := g.Usage(); u.Requests != 0 || u.Waits != 1 {
			t.Errorf("%+v", u)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	wantIdle(t, g)
	var leave []func()
	take := func(caller string, n int) {
		for range n {
			l, err := g.waits.take(t.Context(), caller)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
	}
	take("a", 500)
	if _, err := g.waits.take(t.Context(), "a"); !errors.Is(err, errShare) {
		t.Errorf("a key's 501st: %v", err)
	}
	take("", 1500)
	if _, err := g.waits.take(t.Context(), "b"); !errors.Is(err, errBusy) {
		t.Errorf("one beyond 2000: %v", err)
	}
	for _, l := range leave {
		l()
	}
	wantIdle(t, g)
}

// Singles of one type take half of the places at most; dry runs are few for each caller, also in the keyless mode.
func TestSendsAndDryRuns(t *testing.T) {
	g := NewGate(Limits{InFlight: manyInTests, DryRuns: 3})
	for range manyInTests / 2 {
		if _, err := g.EnterSend(t.Context(), message.Email); err != nil {
			t.Fatal(err)
		}
	}
	_, err := g.EnterSend(t.Context(), message.Email)
	wantError(t, "beyond half", err, message.CodeUnavailable, "too many requests")
	if _, err := g.EnterSend(t.Context(), message.SMS); err != nil {
		t.Errorf("another type: %v", err)
	}
	dry := func(key *access.Key) (func(), error) {
		c := echo.New().NewContext(httptest.NewRequest("POST", "/", nil), httptest.NewRecorder())
		if key != nil {
			SetKey(c, key)
		}
		return g.EnterDryRun(c)
	}
	first, err := dry(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dry(nil); err != nil {
		t.Fatal(err)
	}
	_, err = dry(nil)
	wantError(t, "a caller's third", err, message.CodeThrottled, "at most 2 dry runs")
	if Shed(err) {
		t.Error("a dry run over its share counts as shed, so a repeated request would not be answered as before")
	}
	if _, err := dry(keyed("a")); err != nil {
		t.Fatal(err)
	}
	_, err = dry(keyed("b"))
	wantError(t, "a fourth in all", err, message.CodeUnavailable, "too many dry runs")
	first()
	if _, err := dry(keyed("b")); err != nil {
		t.Errorf("after one ended: %v", err)
	}
	if _, err := NewGate(Limits{}).dryRuns.take(context.Background(), "a"); err != nil {
		t.Errorf("a gate without a number has none: %v", err)
	}
}

// Every error that tells a caller to come back says when.
func TestBusyErrorsSayWhen(t *testing.T) {
	for _, e := range []*message.Error{errBusy, errShare, errUploads, errDownloads} {
		if e.RetryAfter != time.Second {
			t.Errorf("%s: %s", e.Message, e.RetryAfter)
		}
	}
	for _, e := range []*message.Error{errDryRuns, errKeyDryRuns} {
		if e.RetryAfter != 5*time.Second {
			t.Errorf("%s: %s", e.Message, e.RetryAfter)
		}
	}
	if !errors.Is(Busy(), errBusy) || Shed(nil) || Shed(message.Errorf(message.CodeThrottled, "of a rate")) {
		t.Error("what counts as shed")
	}
}
