package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/wire"
)

// scopeOf is which scope each route takes, written down by hand: the document is made of the routes themselves.
var scopeOf = map[string]access.Scope{
	"POST /api/messaging/send": access.Send, "GET /api/messaging/messages": access.Read, "GET /api/messaging/messages/:id": access.Read,
	"GET /api/messaging/bulk": access.Read, "GET /api/messaging/bulk/:id": access.Read, "POST /api/messaging/bulk/:id/pause": access.Send,
	"POST /api/messaging/bulk/:id/resume": access.Send, "POST /api/messaging/bulk/:id/cancel": access.Send,
	"GET /api/messaging/bulk/:id/leads/:lead_id": access.Read, "GET /api/channels": access.Read, "POST /api/channels": access.Admin,
	"GET /api/channels/:id/:type": access.Read, "PATCH /api/channels/:id/:type": access.Admin, "DELETE /api/channels/:id/:type": access.Admin,
	"GET /api/leads": access.Read, "POST /api/leads": access.Send, "POST /api/leads/import": access.Send, "GET /api/leads/:id": access.Read,
	"PATCH /api/leads/:id": access.Send, "DELETE /api/leads/:id": access.Admin, "GET /api/suppressions": access.Read,
	"POST /api/suppressions": access.Send, "DELETE /api/suppressions/:id": access.Admin,
	"GET /openapi.json": "", "GET /docs": "", "GET /healthz": "", "GET /readyz": "",
}

func TestFaultTheScopeOfEveryRoute(t *testing.T) {
	routes := (&Server{}).routes()
	if len(routes) != len(scopeOf) {
		t.Errorf("%d routes, %d scopes", len(routes), len(scopeOf))
	}
	for _, r := range routes {
		if want, ok := scopeOf[r.Method+" "+r.Path]; !ok || r.Scope != want {
			t.Errorf("%s %s takes %q, want %q", r.Method, r.Path, r.Scope, want)
		}
	}
}

// concrete is a route's path with parameters that are some.
func concrete(r route) string {
	return strings.NewReplacer(":id", exampleID, ":lead_id", exampleID, ":type", "EMAIL").Replace(r.Path)
}

// An API that is not in open mode rejects every request without a key, also while no key exists.
func TestFaultNotOpenAndNoKeys(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(d *Deps) { d.Local = false }, nil)
	for _, r := range e.server.routes() {
		for what, headers := range map[string]string{"nothing": "", "a key that is none": "Authorization: Bearer hk_0123456789abcdef_x\r\n"} {
			got := e.call(r.Method, concrete(r), headers, "")
			if want := http.StatusUnauthorized; r.Scope != "" && got.status != want {
				t.Errorf("%s %s with %s: %d %s", r.Method, r.Path, what, got.status, got.body)
			} else if r.Scope == "" && got.status != http.StatusOK {
				t.Errorf("%s %s: %d", r.Method, r.Path, got.status)
			}
		}
	}
}

// The scope is looked at before the body: withheld bodies of requests that may not be made hold nothing.
func TestFaultScopeBeforeBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil, patient)
	keys := map[access.Scope]string{}
	for _, s := range access.Scopes {
		keys[s] = e.key(s)
	}
	var wg sync.WaitGroup
	for _, r := range e.server.routes() {
		for s, header := range keys {
			if r.Scope == "" || s == r.Scope {
				continue
			}
			for _, length := range []int{200_000, -1} {
				l := e.begin(r.Method, concrete(r), header, length, `{"a":"`+strings.Repeat("x", 10_000))
				wg.Go(func() {
					l.answer().wants(t, fmt.Sprintf("%s %s with %s, a body of %d that does not come", r.Method, r.Path, s, length), 403, "scope "+string(r.Scope))
				})
			}
		}
	}
	wg.Wait()
	e.rest()
}

// A body that is too large is refused before it is read, or as soon as it shows, and the bound is named.
func TestFaultBodiesAreBounded(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(d *Deps) { d.Local = true }, nil)
	for _, r := range e.server.routes() {
		if r.Scope == "" {
			continue
		}
		limit, says := 256<<10, "256 KB"
		announced, saysOfAll := 0, "" // attachments come beside the bound of the rest, so what is announced may be more
		switch r.Path {
		case contract.RouteSend.Path:
			limit, says = 8<<20, "8 MB"
			announced, saysOfAll = 48<<20, "48 MB"
		case contract.RouteImportLeads.Path:
			limit, says = 100<<20, "100 MB"
		}
		what := r.Method + " " + r.Path
		e.begin(r.Method, concrete(r), "", max(announced, limit)+1, "{").answer().wants(t, what+", announced", 413, cmp.Or(saysOfAll, says))
		if r.Request == nil {
			continue
		}
		e.begin(r.Method, concrete(r), "", -1, strings.Repeat(" ", limit+1)).answer().wants(t, what+", not announced", 413, says)
		whole := strings.Repeat(" ", limit-2) + "{}"
		if got := e.call(r.Method, concrete(r), "", whole); got.status == 413 {
			t.Errorf("%s: %d bytes are refused: %s", what, len(whole), got.body)
		}
	}
	e.rest()
}

func TestFaultNodesAndMistakesAreBounded(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(d *Deps) { d.Local = true }, nil)
	send := func(body string) said {
		got := e.call("POST", contract.RouteSend.Path, "", body)
		if len(got.body) > 100_000 {
			t.Errorf("%d bytes are answered", len(got.body))
		}
		return got
	}
	for what, piece := range map[string]string{"objects": "{},", "arrays": "[],", "numbers": "1,", "members": `{"a":0},`} {
		n := (7 << 20) / len(piece)
		got := send(`{"bulk_settings":{"lead_ids":[` + strings.Repeat(piece, n) + piece[:len(piece)-1] + `]}}`)
		got.wants(t, what, 422, "200000 values and keys")
	}
	many := send(`{"message_data":{"subject":"s","content":"c"},"bulk_settings":{"lead_ids":[` + strings.Repeat(`"x",`, 90_000) + `"x"]}}`)
	many.wants(t, "wrong ids", 422, "more_errors")
	if n := strings.Count(many.body, `"type"`); n != wire.MaxMistakes+1 {
		t.Errorf("%d mistakes are told", n)
	}
	names := make([]string, 5_000)
	for i := range names {
		names[i] = fmt.Sprintf(`"n%d":1`, i)
	}
	send(`{`+strings.Join(names, ",")+`}`).wants(t, "unknown fields", 422, "more_errors")
	if got := send(`{"` + strings.Repeat("<", 7<<20) + `":1}`); got.status != 422 {
		t.Errorf("a long name: %d %.200s", got.status, got.body)
	}
	e.rest()
}

// The bounds as they are documented.
const (
	exampleID   = "01a20960-62b0-796f-9cfb-5b3a36495aeb"
	maxBody     = 8 << 20   // bytes of a send
	maxMemory   = 112 << 20 // bytes of all bodies
	keyShare    = 4         // the part that one key may hold
	readingCost = 32 << 10  // bytes that a connection counts for beside its body
	minRate     = 64 << 10  // bytes a second
)

// patient is a pace at which a withheld body is waited for all through a test.
var patient = quick(false, request.ReadLimits{MinRate: 1, Grace: time.Hour, Total: time.Hour})

// withhold begins n sends whose bodies come to half, and returns what is answered to those that are not waited for.
func (e *edge) withhold(n int, headers string) <-chan said {
	answers := make(chan said, n)
	for range n {
		l := e.begin("POST", contract.RouteSend.Path, headers, maxBody, strings.Repeat("x", maxBody/2))
		go func() { answers <- l.answer() }()
	}
	return answers
}

const halfCounts = maxBody + 1 + readingCost // half of a body, and the room for the other half

// One key holds a quarter of the memory, and other keys go on.
func TestFaultAKeyHoldsAQuarterOfTheMemory(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil, patient)
	hostile, other := e.key(access.Send), e.key(access.Send, access.Read)
	refused := e.withhold(10, hostile)
	for range 10 - maxMemory/keyShare/halfCounts {
		(<-refused).wants(t, "beyond the share", 429, "a quarter of the API")
	}
	e.until("the rest is held", func(u request.Usage) bool { return u.Memory == maxMemory/keyShare/halfCounts*halfCounts })
	for i := range 20 {
		body := fmt.Sprintf(`{"email":"a%d@example.com","custom_fields":{"x":"%s"}}`, i, strings.Repeat("y", 60_000))
		e.call("POST", "/api/leads", other, body).wants(t, "another key", 201, `"email"`)
	}
	_ = e.http.Close()
	e.rest()
}

// All callers together hold so much and no more; the keyless mode has one caller, and no share of it.
func TestFaultAllHoldSoMuch(t *testing.T) {
	t.Parallel()
	for what, keys := range map[string]int{"without keys": 0, "of many keys": 10} {
		e := newEdge(t, func(d *Deps) { d.Local = keys == 0 }, patient)
		headers := make([]string, max(keys, 1))
		for i := range keys {
			headers[i] = e.key(access.Send)
		}
		answers := make(chan said, 20)
		for i := range 20 {
			one := e.withhold(1, headers[i%len(headers)])
			go func() { answers <- <-one }()
		}
		for range 20 - maxMemory/halfCounts {
			(<-answers).wants(t, "beyond the bound, "+what, 503, "unavailable")
		}
		e.until("the rest is held", func(u request.Usage) bool { return u.Memory == maxMemory/halfCounts*halfCounts })
		_ = e.http.Close()
		e.rest()
	}
}

// One key holds at most a quarter of the places, and other keys are not affected.
func TestFaultAKeyHoldsAQuarterOfThePlaces(t *testing.T) {
	t.Parallel()
	l := &ledger{entered: make(chan struct{}, 100), release: make(chan struct{})}
	e := newEdge(t, func(d *Deps) { d.Messages = l }, nil)
	hostile, other := e.key(access.Read), e.key(access.Read)
	answers := make(chan said, 16)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { answers <- e.call("GET", "/api/messaging/messages", hostile, "") })
	}
	for range 12 {
		(<-answers).wants(t, "beyond the share", 429, "a quarter of the API")
	}
	for range 4 {
		<-l.entered
	}
	for range 10 {
		e.call("GET", "/api/leads", other, "").wants(t, "another key", 200, "items")
	}
	close(l.release)
	wg.Wait()
	for range 4 {
		(<-answers).wants(t, "within the share", 200, "items")
	}
	e.rest()
}

// Without keys one caller may hold all places.
func TestFaultTheKeylessCallerHasAllPlaces(t *testing.T) {
	t.Parallel()
	l := &ledger{entered: make(chan struct{}, 100), release: make(chan struct{})}
	e := newEdge(t, func(d *Deps) { d.Messages, d.Local = l, true }, nil)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { e.call("GET", "/api/messaging/messages", "", "").wants(t, "within", 200, "items") })
	}
	for range 16 {
		<-l.entered
	}
	e.call("GET", "/api/leads", "", "").wants(t, "one more", 503, "unavailable")
	close(l.release)
	wg.Wait()
	e.rest()
}

// quick sets limits that a test can wait for; the server's own time for reading ends nothing.
func quick(uploads bool, l request.ReadLimits) func(e *edge) {
	return func(e *edge) {
		if uploads {
			e.server.gate.Limits.Upload = l
		} else {
			e.server.gate.Limits.Body = l
		}
		e.http.ReadTimeout = time.Hour
	}
}

// A body whose rest is withheld ends in time, however much of it came, and the bound is named.
func TestFaultBodiesArriveAtARate(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(d *Deps) { d.Local = true }, quick(false, request.ReadLimits{MinRate: minRate, Grace: 300 * time.Millisecond, Total: time.Minute}))
	for what, b := range map[string]struct {
		length int
		body   string
	}{
		"nothing of it": {1_000, ""}, "all but the last byte": {12, `{"email":"x`}, "half of a large one": {200_000, strings.Repeat(" ", 100_000)}, "no end of it": {-1, `{"email":"x`},
	} {
		e.begin("POST", "/api/leads", "", b.length, b.body).answer().wants(t, what, 408, "64 KB a second over 300ms")
	}
	e.rest()
	// One that trickles ends too, long before it is complete.
	l := e.begin("POST", "/api/leads", "", 200_000, "")
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = l.conn.Write([]byte(" "))
			}
		}
	}()
	l.answer().wants(t, "a byte now and then", 408, "too_slow")
	close(stop)
	bounded := newEdge(t, func(d *Deps) { d.Local = true }, quick(false, request.ReadLimits{MinRate: 1, Grace: time.Hour, Total: 300 * time.Millisecond}))
	bounded.begin("POST", "/api/leads", "", 12, `{`).answer().wants(t, "beyond the limit", 408, "within 300ms")
}

// A key imports two files at a time, a slow one is cut, and other keys import meanwhile.
func TestFaultImports(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil, quick(true, request.ReadLimits{MinRate: minRate, Grace: 3 * time.Second, Total: time.Minute}))
	csv := "Content-Type: text/csv\r\n"
	hostile, other, reader := e.key(access.Send)+csv, e.key(access.Send)+csv, e.key(access.Read)
	var slow []*line
	for i := range 2 {
		slow = append(slow, e.begin("POST", contract.RouteImportLeads.Path, hostile, 1<<20, fmt.Sprintf("email\nslow%d@example.com\n", i)))
		e.until("it is under way", func(u request.Usage) bool { return u.Uploads == i+1 })
	}
	e.begin("POST", contract.RouteImportLeads.Path, hostile, 1<<20, "email\n").answer().wants(t, "a third one", 429, "2 imports in progress")
	for i := range 3 {
		e.call("POST", contract.RouteImportLeads.Path, other, fmt.Sprintf("email\nquick%d@example.com\n", i)).wants(t, "another key's", 200, `"imported":1`)
	}
	for _, l := range slow {
		l.answer().wants(t, "a slow one", 408, "64 KB a second over 3s; rows that were read before are kept: 1 imported, 0 updated")
	}
	for i := range 2 {
		e.call("GET", "/api/leads", reader, "").wants(t, "the row that came before the cut", 200, fmt.Sprintf("slow%d@example.com", i))
	}
	e.rest()
	e.call("POST", contract.RouteImportLeads.Path, hostile, "email\nlate@example.com\n").wants(t, "the key's next", 200, `"imported":1`)
}

// An import has a total time limit at any rate, and at most four imports run at once.
func TestFaultImportsEnd(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil, quick(true, request.ReadLimits{MinRate: 1, Grace: time.Hour, Total: 3 * time.Second}))
	var lines []*line
	for i := range 2 {
		key := e.key(access.Send) + "Content-Type: application/x-ndjson\r\n"
		for j := range 2 {
			lines = append(lines, e.begin("POST", contract.RouteImportLeads.Path, key, -1, `{"email":"a@example.com"}`+"\n"))
			e.until("it is under way", func(u request.Usage) bool { return u.Uploads == 2*i+j+1 })
		}
	}
	e.call("POST", contract.RouteImportLeads.Path, e.key(access.Send)+"Content-Type: text/csv\r\n", "email\n").wants(t, "a fifth", 503, "unavailable")
	for _, l := range lines {
		l.answer().wants(t, "beyond the limit", 408, "within 3s; rows that were read before are kept: ")
	}
	e.rest()
}

// A request whose body is complete is not ended by the time that bodies have: net/http takes the deadline away as it reads
// on, to see whether the caller hangs up.
func TestFaultALongAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	effects := &lost{asked: make(chan struct{}, 1), wait: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return errors.New("the request was ended")
		case <-time.After(900 * time.Millisecond): // three times the server's time for reading
			return nil
		}
	}}
	e := newEdge(t, func(d *Deps) { d.Local, d.Effects = true, effects }, func(e *edge) {
		e.server.gate.Limits.Body = request.ReadLimits{MinRate: minRate, Grace: 300 * time.Millisecond, Total: 300 * time.Millisecond}
		e.http.ReadTimeout = 300 * time.Millisecond
	})
	e.call("POST", contract.RouteSend.Path, "Idempotency-Key: k\r\n", `{"message_data":{"recipient":"a@example.com"}}`).wants(t, "a long one", 422, "no default channel")
}

// A request with an Idempotency-Key that is shed causes no query, for each reason of shedding.
func TestFaultWhatIsShedAsksNothing(t *testing.T) {
	t.Parallel()
	effects := &lost{asked: make(chan struct{}, 100)}
	e := newEdge(t, func(d *Deps) { d.Effects = effects }, nil)
	ch := &channel.Channel{Key: channel.Key{Type: message.Email}, Name: "x", Sender: "a@acme.test", Default: true, Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("SG.x")}}
	if err := e.server.deps.Channels.Create(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	key := e.key(access.Send) + "Idempotency-Key: k\r\n"
	leave := func() {}
	for range 16 / 2 { // half of the places
		var err error
		if leave, err = e.server.gate.EnterSend(t.Context(), message.Email); err != nil {
			t.Fatal(err)
		}
	}
	body := `{"message_data":{"recipient":"a@example.com","subject":"s","content":"` + strings.Repeat("c", 100) + `"}}`
	e.call("POST", contract.RouteSend.Path, key, body).wants(t, "all places of the type taken", 503, "unavailable")
	leave()
	long := strings.Replace(body, "ccc", strings.Repeat("c", 3<<20), 1)
	e.call("POST", contract.RouteSend.Path, key, long).wants(t, "more memory than its share", 429, "a quarter of the API")
	if n := len(effects.asked); n > 0 {
		t.Errorf("the store was asked %d times", n)
	}
	// A request that is refused for itself is looked for.
	e.call("POST", contract.RouteSend.Path, key, strings.Replace(body, `"subject":"s",`, "", 1)).wants(t, "a wrong one", 422, "subject")
	if n := len(effects.asked); n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
}

// Fingerprints are stored for days, so their form stays: a literal, computed by an earlier version.
func TestFaultFingerprintsStay(t *testing.T) {
	v, err := wire.Decode([]byte(`{"b":[1,2.50,"<é>"],"a":{"x":null,"y":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%x", fingerprint(map[string][]string{"q": {"1"}}, v))
	if got != "21fcfe9638235c94acb343028df7ca9b0280902c3a6a179abcf94698106751af" {
		t.Error(got)
	}
}

// What a request may have, its key's share holds: no request is told to come back for ever.
func TestFaultTheLargestRequestFitsItsShare(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil, nil)
	key := e.key(access.Send)
	for what, body := range map[string]string{
		"100,000 ids":            `{"bulk_settings":{"lead_ids":[` + strings.Repeat(`"`+exampleID+`",`, 99_999) + `"` + exampleID + `"]}}`,
		"the heaviest values":    `{"bulk_settings":{"lead_ids":[` + strings.Repeat(`{"a":0},`, 66_000) + `{"a":0}]}}`,
		"a long text":            `{"message_data":{"content":"` + strings.Repeat("x", maxBody-100) + `"}}`,
		"a long text of escapes": `{"message_data":{"content":"` + strings.Repeat(`\n`, maxBody/2-100) + `"}}`,
	} {
		if got := e.call("POST", contract.RouteSend.Path, key, body); got.status != 422 {
			t.Errorf("%s: %d %.200s", what, got.status, got.body)
		}
	}
	e.rest()
}
