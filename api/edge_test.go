package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
	"herald/pkg/seal"
	"herald/pkg/store/storetest"
	"herald/pkg/telemetry"
	"herald/pkg/testenv"
)

// edge is an API on a store, without what sends, whose gate a test may set.
type edge struct {
	t      *testing.T
	server *Server
	store  *storetest.Store
	http   *http.Server
	addr   string
	rates  *rates
}

// rates is the limiter of the API keys, which a test may set.
type rates struct{ access.Limiter }

// ledger lists messages when it is let go.
type ledger struct {
	entered chan struct{}
	release chan struct{}
}

func (l *ledger) Message(context.Context, uuid.UUID) (*message.Message, []message.Attempt, error) {
	return nil, nil, message.Errorf(message.CodeNotFound, "not found")
}

func (l *ledger) Messages(ctx context.Context, _ message.Filter, _ uuid.UUID, _ int) ([]message.Message, error) {
	l.entered <- struct{}{}
	select {
	case <-l.release:
	case <-ctx.Done():
	}
	return nil, nil
}

// lost is Effects that knows nothing, counts how often it is asked, and answers when wait lets it.
type lost struct {
	asked chan struct{}
	wait  func(ctx context.Context) error
}

func (l *lost) Effect(ctx context.Context, _ *access.IdempotencyKey) (access.Effect, error) {
	l.asked <- struct{}{}
	if l.wait != nil {
		if err := l.wait(ctx); err != nil {
			return access.Effect{}, err
		}
	}
	return access.Effect{}, message.Errorf(message.CodeNotFound, "not found")
}

func (l *lost) ForgetEffects(context.Context) error { return nil }

// newEdge serves an API. set may change what it works with and its server before it begins.
func newEdge(t *testing.T, set func(d *Deps), serve func(e *edge)) *edge {
	t.Helper()
	sealer, err := seal.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t, testenv.Database(t, testenv.SQLite), storetest.Options{Sealer: sealer})
	limits := &rates{}
	d := Deps{
		Leads: lead.NewService(s, s, s), Channels: channel.NewRegistry(s, s, s, vendors.All.Providers()), Messages: s, Effects: s,
		Keys: access.NewKeyring(access.Deps{
			Keys: s, Usage: s, Limiter: limits, Checksums: access.NewChecksums(make([]byte, 32)), Failed: func(_ context.Context, err error) { t.Error(err) },
		}),
		Telemetry: telemetry.New(slog.New(slog.DiscardHandler)), Limits: request.Limits{InFlight: 16},
		Health: func(context.Context) telemetry.Health { return telemetry.Health{Ready: true} },
	}
	if set != nil {
		set(&d)
	}
	server, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, server: server, store: s, http: server.HTTPServer(), addr: l.Addr().String(), rates: limits}
	if serve != nil {
		serve(e)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.http.Serve(l)
	}()
	t.Cleanup(func() {
		_ = e.http.Close()
		<-done
	})
	return e
}

// key makes an API key and returns its header.
func (e *edge) key(scopes ...access.Scope) string {
	e.t.Helper()
	token, err := e.server.deps.Keys.Create(e.t.Context(), &access.Key{Scopes: scopes}, false)
	if err != nil {
		e.t.Fatal(err)
	}
	return "Authorization: Bearer " + token + "\r\n"
}

// line is a connection on which a request is under way.
type line struct {
	conn net.Conn
}

// begin sends the head of a request and the beginning of its body, and leaves the rest out. length -1 is unknown.
func (e *edge) begin(method, path, headers string, length int, body string) *line {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	size := fmt.Sprintf("Content-Length: %d", length)
	if length < 0 {
		size = "Transfer-Encoding: chunked"
		if body != "" {
			body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		}
	}
	if !strings.Contains(headers, "Content-Type") {
		headers += "Content-Type: application/json\r\n"
	}
	go func() { // the other end may read none of it
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s\r\n\r\n%s", method, path, headers, size, body)
	}()
	return &line{conn}
}

type said struct {
	status int
	retry  string
	body   string
}

// answer reads the answer, which must come although the request is not complete; status 0 is none.
func (l *line) answer() said {
	_ = l.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(l.conn), nil)
	if err != nil {
		return said{body: "no answer: " + err.Error()}
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return said{res.StatusCode, res.Header.Get("Retry-After"), string(b)}
}

// call makes a whole request.
func (e *edge) call(method, path, headers, body string) said {
	e.t.Helper()
	return e.begin(method, path, headers, len(body), body).answer()
}

// rest waits until nothing is held.
func (e *edge) rest() {
	e.t.Helper()
	e.until("everything is given back", func(u request.Usage) bool { return u == request.Usage{} })
}

// until waits until what requests hold is so.
func (e *edge) until(what string, ok func(u request.Usage) bool) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		u := e.server.gate.Usage()
		if ok(u) {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("not true in time: %s (%+v)", what, u)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s said) wants(t *testing.T, what string, status int, says string) {
	t.Helper()
	if s.status != status || !strings.Contains(s.body, says) {
		t.Errorf("%s: %d %.300s, want %d with %q", what, s.status, s.body, status, says)
	}
	if (status == 429 || status == 503) && (s.retry == "" || s.retry == "0") {
		t.Errorf("%s: %d without Retry-After", what, status)
	}
}
