package api

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/telemetry"
)

// requestLog collects the log lines of requests.
type requestLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *requestLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// loggedRequest is one line of the request log.
type loggedRequest struct {
	Msg, Method, Route string
	Status             int
}

// last returns the newest line about a request.
func (l *requestLog) last(t *testing.T) loggedRequest {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	var r loggedRequest
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || r.Msg != "request" {
		t.Fatalf("no line about a request: %v: %s", err, lines[len(lines)-1])
	}
	return r
}

// Metrics and log name the route of every request, including requests that are rejected before their handler runs.
func TestRejectedRequestsNameTheirRoute(t *testing.T) {
	t.Parallel()
	log := &requestLog{}
	l := &ledger{entered: make(chan struct{}, 1), release: make(chan struct{})}
	e := newEdge(t, func(d *Deps) {
		d.Telemetry = telemetry.New(slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		d.Limits.InFlight, d.Messages = 1, l
	}, nil)
	e.rates.Limiter = exhausted{}
	reader, other, limited := e.key(access.Read), e.key(access.Read), e.limitedKey(access.Read)
	check := func(what, method, path, headers string, status int, route string) {
		t.Helper()
		if got := e.call(method, path, headers, ""); got.status != status {
			t.Errorf("%s: status %d, want %d: %s", what, got.status, status, got.body)
		}
		if r := log.last(t); r.Route != route || r.Status != status || r.Method != method {
			t.Errorf("%s is logged as %+v, want the route %q and the status %d", what, r, route, status)
		}
	}
	const lead, pattern = "/api/leads/" + exampleID, "/api/leads/:id"
	check("no key", "GET", lead, "", 401, pattern)
	check("wrong scope", "DELETE", lead, reader, 403, pattern)
	check("answered", "GET", "/api/leads", reader, 200, "/api/leads")
	check("over the key's rate", "GET", lead, limited, 429, pattern)
	check("unknown path", "GET", "/api/nothing", reader, 404, "unmatched")
	check("unknown path without key", "GET", "/api/nothing", "", 401, "unmatched")
	check("unknown method", "PUT", "/api/leads", reader, 405, "/api/leads")
	check("open route", "GET", "/healthz", "", 200, "/healthz")
	done := make(chan said)
	go func() { done <- e.call("GET", "/api/messaging/messages", reader, "") }()
	<-l.entered
	check("key over its share", "GET", lead, reader, 429, pattern)
	check("all places taken", "GET", lead, other, 503, pattern)
	close(l.release)
	if got := <-done; got.status != 200 {
		t.Errorf("the request that held the place: %d %s", got.status, got.body)
	}
}

// exhausted is a limiter under which every key with a rate has used it up.
type exhausted struct{}

func (exhausted) Allow(context.Context, string, float64) access.Allowance {
	return access.Allowance{Wait: time.Second}
}

// limitedKey makes an API key with a rate and returns its header.
func (e *edge) limitedKey(scopes ...access.Scope) string {
	e.t.Helper()
	token, err := e.server.deps.Keys.Create(context.Background(), &access.Key{Scopes: scopes, Rate: 0.1}, false)
	if err != nil {
		e.t.Fatal(err)
	}
	return "Authorization: Bearer " + token + "\r\n"
}
