package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"herald/pkg/app"
	"herald/pkg/config"
	"herald/pkg/store/storetest"
)

// complains runs a command line that must fail, and returns what it wrote to standard error.
func complains(t *testing.T, code int, args ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = w
	defer func() { os.Stderr = stderr }()
	written := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		written <- string(b)
	}()
	got, out := execute(t, args...)
	_ = w.Close()
	said := <-written
	if got != code {
		t.Fatalf("herald %s: exit code %d, want %d: %s%s", strings.Join(args, " "), got, code, out, said)
	}
	return said
}

// says fails the test unless a text has all parts.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in: %s", part, text)
		}
	}
}

func TestIntegrationMistakesInSettingsAreOneList(t *testing.T) {
	t.Setenv("DATABASE_URL", "mysql://db/herald")
	t.Setenv("REDIS_URL", "http://redis")
	t.Setenv("HERALD_KEY_RATE", "-1")
	t.Setenv("HERALD_LOG_LEVL", "debug")
	for _, args := range [][]string{{"migrate"}, {"serve"}, {"keys", "list"}, {"config"}, {"api"}, {"worker"}} {
		said := complains(t, 2, args...)
		says(t, said, "DATABASE_URL: must begin with", "REDIS_URL: must begin with", "HERALD_KEY_RATE: must be", "HERALD_LOG_LEVL is not a setting and is ignored; the nearest is HERALD_LOG_LEVEL")
	}
}

func TestIntegrationTheDemoHonoursTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("HERALD_LISTEN", l.Addr().String())
	t.Setenv("HERALD_DATA", t.TempDir())
	for _, name := range []string{"demo", "serve"} {
		says(t, complains(t, 1, name), "listen on "+l.Addr().String(), "another program uses this address", "HERALD_LISTEN", "--listen")
	}
	t.Setenv("HERALD_LISTEN", "127.0.0.1:0")
	says(t, complains(t, 1, "demo", "--listen", l.Addr().String()), "listen on "+l.Addr().String())
	says(t, complains(t, 1, "simulator", "--listen", l.Addr().String()), "listen on "+l.Addr().String(), "--listen")
}

func TestIntegrationTheVersionOnTheCommandLine(t *testing.T) {
	text := wants(t, 0, "herald ", "version")
	if flag := wants(t, 0, "herald ", "--version"); flag != text || !strings.Contains(text, "go1.") {
		t.Errorf("%q, %q", flag, text)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(wants(t, 0, `"version"`, "version", "--json")), &got); err != nil || !strings.Contains(text, got["version"].(string)) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestIntegrationMigrationsOfANewerVersion(t *testing.T) {
	url := "sqlite://" + filepath.Join(t.TempDir(), "herald.db")
	t.Setenv("DATABASE_URL", url)
	t.Setenv("HERALD_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	wants(t, 0, "up to date", "migrate")
	if _, err := storetest.Raw(t, url).Exec("INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES (90001, true, '2026-01-02 03:04:05')"); err != nil {
		t.Fatal(err)
	}
	wants(t, 0, "90001", "migrate", "status")
	wants(t, 0, "by a newer version", "migrate", "status")
	wants(t, 0, `"unknown": true`, "migrate", "status", "--json")
	for _, args := range [][]string{{"migrate"}, {"serve", "--listen", "127.0.0.1:0"}, {"keys", "list"}} {
		says(t, complains(t, 1, args...), "ahead of this version", "90001")
	}
}

func TestIntegrationTwoServersOfOneDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HERALD_DATA", dir)
	t.Setenv("DATABASE_URL", "")
	t.Setenv("REDIS_URL", "")
	cfg, err := config.Parse(0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := app.OpenEmbedded(t.Context(), cfg, cfg.DataDir(), false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop()
	says(t, complains(t, 1, "serve", "--listen", "127.0.0.1:0"), "another herald process serves the data directory "+dir, "HERALD_DATA")
	wants(t, 0, "hk_", "keys", "create", "--scope", "read") // commands may use the database meanwhile
	wants(t, 0, "read", "keys", "list")
}
