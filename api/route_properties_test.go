package api

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"herald/api/openapi"
	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// testRoutes are routes of kinds that the product may get: a CSV download, server-sent events, a signed webhook and a page
// without a key. Their handlers do what next tells them.
type testRoutes struct {
	server *Server
	steps  chan step // one for each row of a download
	hooks  chan string
}

// step is what a download does next.
type step struct {
	row  string
	err  error
	done bool
}

var (
	routeExport = contract.Route{
		ID: "exportRows", Method: http.MethodGet, Path: "/api/test/export", Scope: access.Read, Admission: contract.AdmitDownload,
		Tag: "Service", Summary: "Export rows", Text: "As CSV.", Status: http.StatusOK, Media: contract.MediaCSV,
	}
	routeEvents = contract.Route{
		ID: "watchRows", Method: http.MethodGet, Path: "/api/test/events", Scope: access.Read, Admission: contract.AdmitDownload,
		Tag: "Service", Summary: "Watch rows", Text: "As server-sent events.", Status: http.StatusOK, Media: contract.MediaEventStream,
	}
	routeHook = contract.Route{
		ID: "receiveHook", Method: http.MethodPost, Path: "/hooks/test", Access: contract.Signed, MaxBody: 1 << 10,
		Tag: "Service", Summary: "Receive a webhook", Text: "Signed.", Status: http.StatusNoContent,
		Uploads: []contract.Upload{{Media: contract.MediaJSON, Example: "{}"}},
	}
	routePage = contract.Route{
		ID: "leavePage", Method: http.MethodGet, Path: "/leave/:id", Access: contract.Signed,
		Tag: "Service", Summary: "Leave", Text: "A page.", Status: http.StatusOK, Media: contract.MediaHTML,
	}
)

// table returns the routes of the product and the test's.
func (r *testRoutes) table() []route {
	return append(r.server.routes(), route{routeExport, r.stream}, route{routeEvents, r.stream}, route{routeHook, r.hook}, route{routePage, r.page})
}

func (r *testRoutes) stream(c echo.Context) error {
	answer := r.server.gate.StartStream(c, r.server.routeOf(c).Media)
	for {
		s := <-r.steps
		if s.err != nil || s.done {
			return s.err
		}
		if _, err := answer.Write([]byte(s.row)); err != nil {
			return err
		}
		if err := answer.Flush(); err != nil {
			return err
		}
	}
}

// signature is what the test's webhooks are signed with.
func signature(body string) string {
	mac := hmac.New(sha256.New, []byte("secret of the test"))
	_, _ = mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func (r *testRoutes) hook(c echo.Context) error {
	body := string(request.GrantOf(c).Body())
	if c.Request().Header.Get("X-Signature") != signature(body) {
		return message.Errorf(message.CodeUnauthorized, "the signature is wrong")
	}
	r.hooks <- body
	return c.NoContent(http.StatusNoContent)
}

func (r *testRoutes) page(c echo.Context) error { return page(c, []byte("<p>"+c.Param("id")+"</p>")) }

// newEdgeWith serves the product's routes and the test's.
func newEdgeWith(t *testing.T, set func(d *Deps), serve func(e *edge)) (*edge, *testRoutes) {
	t.Helper()
	r := &testRoutes{steps: make(chan step), hooks: make(chan string, 100)}
	e := newEdge(t, set, func(e *edge) {
		r.server = e.server
		if err := e.server.serve(r.table()); err != nil {
			t.Fatal(err)
		}
		if serve != nil {
			serve(e)
		}
	})
	return e, r
}

// open begins a request and returns its answer as soon as the head is here.
func (e *edge) open(path, headers string) *http.Response {
	e.t.Helper()
	l := e.begin("GET", path, headers, 0, "")
	_ = l.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(l.conn), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return res
}

// A download takes as long as it takes, reaches its client row by row, and holds no place of short requests.
func TestDownloadsAreStreams(t *testing.T) {
	const writeTimeout = 100 * time.Millisecond
	e, r := newEdgeWith(t, func(d *Deps) { d.Limits.InFlight = 1 }, func(e *edge) { e.http.WriteTimeout = writeTimeout })
	key := e.key(access.Read)
	for path, media := range map[string]string{routeExport.Path: contract.MediaCSV, routeEvents.Path: contract.MediaEventStream} {
		res := e.open(path, key)
		if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != media {
			t.Errorf("%s answers %d %q, want 200 %q", path, res.StatusCode, got, media)
		}
		rows := bufio.NewReader(res.Body)
		for i := range 3 {
			<-time.After(writeTimeout) // in all three times what the server gives an answer
			want := fmt.Sprintf("row %d\n", i)
			r.steps <- step{row: want}
			if row, err := rows.ReadString('\n'); row != want {
				t.Fatalf("%s: %q, %v, want %q", path, row, err, want)
			}
			if u := e.server.gate.Usage(); u.Downloads != 1 || u.Requests != 0 {
				t.Errorf("%s holds %+v, want one place of downloads", path, u)
			}
			e.call("GET", "/api/leads", key, "").wants(t, "a short request beside it", 200, "items")
		}
		r.end()
		if rest, err := io.ReadAll(rows); len(rest) > 0 || err != nil {
			t.Errorf("%s ends with %q, %v", path, rest, err)
		}
		e.rest()
	}
}

// end ends a download as complete.
func (r *testRoutes) end() { r.steps <- step{done: true} }

// A download that fails half-way is cut, so that its client does not take a part for the whole.
func TestADownloadThatFailsIsCut(t *testing.T) {
	t.Parallel()
	e, r := newEdgeWith(t, nil, nil)
	res := e.open(routeExport.Path, e.key(access.Read))
	r.steps <- step{row: "row\n"}
	r.steps <- step{err: message.Unavailable("the database", nil)}
	if rows, err := io.ReadAll(res.Body); string(rows) != "row\n" || err == nil {
		t.Errorf("the client read %q without an error", rows)
	}
	e.rest()
}

// A client that stops reading ends its download.
func TestADownloadThatIsNotReadEnds(t *testing.T) {
	t.Parallel()
	e, r := newEdgeWith(t, func(d *Deps) { d.Limits.Write = 200 * time.Millisecond }, nil)
	res := e.open(routeExport.Path, e.key(access.Read))
	row, deadline := strings.Repeat("x", 1<<20), time.After(20*time.Second)
	for e.server.gate.Usage().Downloads > 0 {
		select {
		case r.steps <- step{row: row}:
		case <-time.After(10 * time.Millisecond): // a write is under way, or none will come
		case <-deadline:
			t.Fatal("the download goes on")
		}
	}
	_ = res.Body.Close()
	e.rest()
}

// One key has two downloads, all together eight, and short requests go on beside them.
func TestDownloadsAreFew(t *testing.T) {
	t.Parallel()
	e, r := newEdgeWith(t, nil, nil)
	var open []*http.Response
	for range 4 {
		key := e.key(access.Read)
		open = append(open, e.open(routeExport.Path, key), e.open(routeEvents.Path, key))
		if len(open) < 8 {
			e.call("GET", routeExport.Path, key, "").wants(t, "a key's third download", 429, "this API key has 2 downloads in progress")
		}
	}
	key := e.key(access.Read)
	e.call("GET", routeExport.Path, key, "").wants(t, "a ninth download", 503, "unavailable")
	e.call("GET", "/api/leads", key, "").wants(t, "a short request", 200, "items")
	for range open {
		r.end()
	}
	for _, res := range open {
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Error(err)
		}
	}
	e.rest()
}

// A download needs the key and the scope of its route, and takes no parameters.
func TestADownloadNeedsItsKey(t *testing.T) {
	t.Parallel()
	e, _ := newEdgeWith(t, nil, nil)
	e.call("GET", routeExport.Path, "", "").wants(t, "no key", 401, "unauthorized")
	e.call("GET", routeExport.Path, e.key(access.Send, access.Admin), "").wants(t, "other scopes", 403, "scope read")
	e.call("GET", routeExport.Path+"?x=1", e.key(access.Read), "").wants(t, "a parameter", 422, "unknown parameter")
}

// A signed route takes no key, gets the body as it came, and is bounded like any other.
func TestSignedRoutes(t *testing.T) {
	t.Parallel()
	e, r := newEdgeWith(t, nil, nil)
	_ = e.key(access.Read) // keys are in use
	body := `{"event" : "x"}`
	signed := "X-Signature: " + signature(body) + "\r\n"
	e.call("POST", routeHook.Path, signed, body).wants(t, "signed", 204, "")
	if got := <-r.hooks; got != body {
		t.Errorf("the handler got %q, want %q", got, body)
	}
	e.call("POST", routeHook.Path, signed+"Authorization: Bearer nonsense\r\n", body).wants(t, "a key that is none", 204, "")
	e.call("POST", routeHook.Path, signed, body+" ").wants(t, "another body", 401, "signature")
	limit := int(routeHook.MaxBody)
	e.call("POST", routeHook.Path, "", strings.Repeat("x", limit)).wants(t, "the largest body", 401, "signature")
	e.begin("POST", routeHook.Path, "", limit+1, "").answer().wants(t, "an announced body that is too large", 413, "1 KB")
	e.begin("POST", routeHook.Path, "", -1, strings.Repeat("x", limit+1)).answer().wants(t, "a body that is too large", 413, "1 KB")
	got := e.call("GET", "/leave/42?token=x", "", "")
	got.wants(t, "a page", 200, "<p>42</p>")
	e.rest()
}

// Requests without a key hold a quarter of the places and of the memory together: a flood of forged webhooks leaves the
// rest to callers with keys.
func TestAFloodOfUnsignedRequests(t *testing.T) {
	t.Parallel()
	e, _ := newEdgeWith(t, nil, func(e *edge) {
		quick(false, request.ReadLimits{MinRate: 1, Grace: time.Hour, Total: time.Hour})(e)
		big := routeHook
		big.MaxBody = maxBody
		routes := e.server.routes()
		hooks := &testRoutes{server: e.server, hooks: make(chan string, 100)}
		if err := e.server.serve(append(routes, route{big, hooks.hook})); err != nil {
			e.t.Fatal(err)
		}
	})
	key := e.key(access.Send)
	answers := make(chan said, 10)
	var flood []net.Conn
	for range 10 {
		l := e.begin("POST", routeHook.Path, "", maxBody, strings.Repeat("x", maxBody/2))
		flood = append(flood, l.conn)
		go func() { answers <- l.answer() }()
	}
	for range 10 - maxMemory/keyShare/halfCounts {
		(<-answers).wants(t, "beyond the share", 503, "too many requests in progress")
	}
	e.until("the rest is held", func(u request.Usage) bool {
		return u.Memory == maxMemory/keyShare/halfCounts*halfCounts && u.Callers == 1
	})
	e.call("POST", "/api/leads", key, `{"email":"a@example.com"}`).wants(t, "a caller with a key", 201, "id")
	for _, conn := range flood {
		_ = conn.Close()
	}
	_ = e.http.Close()
	e.rest()
}

// The document of the test's routes says what their properties say.
func TestTheDocumentFollowsTheProperties(t *testing.T) {
	pages, err := openapi.New([]contract.Route{routeExport, routeEvents, routeHook, routePage})
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			Security    []map[string][]string
			RequestBody struct{ Content map[string]any }
			Responses   map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal(pages.JSON, &d); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, method string
		keyed        bool
		status       string
		media        []string // of the answer
		body         []string
		errors       []string // besides 401, 403, 413, 429, 500 and 503
	}{
		{"/api/test/export", "get", true, "200", []string{"text/csv"}, nil, nil},
		{"/api/test/events", "get", true, "200", []string{"text/event-stream"}, nil, nil},
		{"/hooks/test", "post", false, "204", nil, []string{"application/json"}, []string{"408", "415", "422"}},
		{"/leave/{id}", "get", false, "200", []string{"text/html"}, nil, []string{"422"}},
	} {
		op, ok := d.Paths[c.path][c.method]
		if !ok {
			t.Errorf("%s %s is not in the document", c.method, c.path)
			continue
		}
		if keyed := len(op.Security) == 1; keyed != c.keyed {
			t.Errorf("%s takes a key: %v, want %v", c.path, keyed, c.keyed)
		}
		if got := sortedKeys(op.Responses[c.status].Content); !slices.Equal(got, c.media) {
			t.Errorf("%s answers with %v, want %v", c.path, got, c.media)
		}
		if got := sortedKeys(op.RequestBody.Content); !slices.Equal(got, c.body) {
			t.Errorf("%s takes %v, want %v", c.path, got, c.body)
		}
		want := append([]string{c.status, "401", "403", "413", "429", "500", "503"}, c.errors...)
		slices.Sort(want)
		if got := sortedKeys(op.Responses); !slices.Equal(got, want) {
			t.Errorf("%s has the statuses %v, want %v", c.path, got, want)
		}
	}
	for _, path := range []string{"/api/test/export", "/api/test/events", "/hooks/test", "/leave/{id}"} {
		if !strings.Contains(string(pages.HTML), path) {
			t.Errorf("%s is not on the reference page", path)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
