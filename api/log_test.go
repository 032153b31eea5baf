package api

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"herald/pkg/access"
	"herald/pkg/telemetry"
	"herald/pkg/version"
)

// A request's line names its path and the other end of its connection. Ids are kept; the query and whatever a caller may have
// written into the path are not.
func TestIntegrationRequestLinesNameThePath(t *testing.T) {
	t.Parallel()
	log := &requestLog{}
	e := newEdge(t, func(d *Deps) {
		d.Telemetry = telemetry.New(slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}, nil)
	reader := e.key(access.Read)
	for _, c := range []struct {
		method, target, path string
		status               int
	}{
		{"GET", "/api/leads/" + exampleID + "?x=1", "/api/leads/" + exampleID, 401},
		{"GET", "/api/leads/ann@example.com", "/api/leads/:id", 401},
		{"GET", "/api/channels/" + exampleID + "/Email", "/api/channels/" + exampleID + "/Email", 401},
		{"GET", "/api/channels/" + exampleID + "/ann", "/api/channels/" + exampleID + "/:type", 401},
		{"GET", "/api/lead/" + exampleID, "/api/***/" + exampleID, 404},
		{"GET", "/api/mesages?recipient=ann@example.com", "/api/***", 404},
		{"GET", "/api/contacts/ann@example.com/14155550100/Ann%20Smith", "/api/***/***/***/***", 404},
		{"GET", "/api/" + strings.Repeat("x", 65), "/api/***", 404},
		{"GET", "/api/b/c/d/e/f/g/h/i/j/leads/l/m/n", "/api/***/***/***/***/***/***/***/***/***/leads/***", 404},
		{"POST", "/healthz", "/healthz", 405},
		{"GET", "/api/leads/ann/notes", "/api/leads/***/***", 404},
	} {
		headers := reader
		if c.status == 401 {
			headers = ""
		}
		if got := e.call(c.method, c.target, headers, ""); got.status != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, got.status, c.status)
		}
		var line struct {
			Path, Remote string
			Duration     *float64 `json:"duration_ms"`
		}
		text := log.lastLine()
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line.Path != c.path || line.Remote != "127.0.0.1" || line.Duration == nil {
			t.Errorf("%s is logged as %s", c.target, text)
		}
		for _, secret := range []string{"example.com", "4155550100", "Smith", "x=1"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", secret, text)
			}
		}
	}
}

func TestIntegrationProbesAreDebug(t *testing.T) {
	t.Parallel()
	log := &requestLog{}
	e := newEdge(t, func(d *Deps) {
		d.Telemetry = telemetry.New(slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo})))
	}, nil)
	for _, path := range []string{"/healthz", "/readyz", "/healthz/"} {
		e.call("GET", path, "", "")
	}
	if text := log.lastLine(); text != "" {
		t.Errorf("a probe is logged: %s", text)
	}
	e.call("GET", "/api", "", "")
	if text := log.lastLine(); !strings.Contains(text, `"path":"/api"`) {
		t.Errorf("another request is not logged: %q", text)
	}
}

func TestIntegrationTheLivenessProbeTellsTheVersion(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(*Deps) {}, nil)
	if got := e.call("GET", "/healthz", "", ""); !strings.Contains(got.body, `"version":"`+version.Get().Version+`"`) {
		t.Error(got.body)
	}
}

// lastLine returns the newest line, "" without one.
func (l *requestLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	return lines[len(lines)-1]
}
