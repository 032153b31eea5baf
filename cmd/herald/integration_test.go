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
	"time"

	"herald/pkg/app"
	"herald/pkg/config"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
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

func TestIntegrationKeysOfAnOwner(t *testing.T) {
	t.Setenv("DATABASE_URL", "sqlite://"+filepath.Join(t.TempDir(), "herald.db"))
	t.Setenv("HERALD_MASTER_KEY", testenv.MasterKey())
	wants(t, 0, "up to date", "migrate")
	type key struct {
		ID, Token, Name, Owner string
		Rate                   any
		ExpiresAt              *time.Time `json:"expires_at"`
	}
	create := func(args ...string) key {
		t.Helper()
		return lines[key](t, wants(t, 0, "hk_", append([]string{"keys", "create", "--scope", "send", "--json"}, args...)...))[0]
	}
	nightly := create("--owner", "nightly", "--name", "cron")
	if nightly.Owner != "nightly" || nightly.Rate != "default" || nightly.ExpiresAt != nil {
		t.Errorf("%+v", nightly)
	}
	if own := create("--rate", "unlimited"); own.Owner != own.ID || own.Rate != "unlimited" {
		t.Errorf("%+v", own)
	}
	if counted := create("--rate", "2.5", "--expires", "30d"); counted.Rate != 2.5 {
		t.Errorf("%+v", counted)
	}
	if zero := create("--rate", "0"); zero.Rate != "default" {
		t.Errorf("%+v", zero)
	}
	began := time.Now()
	rotated := lines[key](t, wants(t, 0, "hk_", "keys", "rotate", nightly.ID, "--grace", "24h", "--json"))[0]
	if rotated.Owner != "nightly" || rotated.Name != "cron" || rotated.ID == nightly.ID || !strings.HasPrefix(rotated.Token, "hk_"+rotated.ID+"_") {
		t.Errorf("%+v", rotated)
	}
	table := wants(t, 0, "nightly", "keys", "list")
	says(t, table, "OWNER", "default", "unlimited", "2.5")
	for _, k := range lines[[]key](t, wants(t, 0, nightly.ID, "keys", "list", "--json"))[0] {
		if k.ID != nightly.ID {
			continue
		}
		if k.ExpiresAt == nil || k.ExpiresAt.Before(began.Add(24*time.Hour-2*time.Second)) || k.ExpiresAt.After(time.Now().Add(24*time.Hour)) {
			t.Errorf("the old key ends at %v", k.ExpiresAt)
		}
	}
	wants(t, 0, "its owner is nightly. The key "+rotated.ID+" ends at", "keys", "rotate", rotated.ID, "--grace", "7d", "--expires", "90d")
	wants(t, 0, "revoked", "keys", "revoke", nightly.ID)
	says(t, complains(t, 1, "keys", "rotate", nightly.ID), "is revoked", "of the owner nightly")
	says(t, complains(t, 1, "keys", "rotate", "0000000000000000"), "not found")
	for _, args := range [][]string{
		{"rotate", rotated.ID, "--grace", "soon"}, {"rotate", rotated.ID, "--grace=-1h"}, {"rotate", rotated.ID, "--grace", "366d"}, {"rotate", rotated.ID, "--grace", "xd"},
		{"rotate", rotated.ID, "--expires", "0d"}, {"rotate"}, {"create", "--scope", "send", "--rate", "many"}, {"create", "--scope", "send", "--rate", "NaN"},
		{"create", "--scope", "send", "--owner", "a\nb"}, {"create", "--scope", "send", "--owner", strings.Repeat("x", 201)},
	} {
		complains(t, 2, append([]string{"keys"}, args...)...)
	}
}
