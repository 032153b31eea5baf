// Package apptest runs a complete Herald in the process of a test, on embedded services by default.
package apptest

import (
	"log/slog"
	"testing"

	"herald/pkg/app"
	"herald/pkg/config"
)

// Start starts worker, API and simulator, and returns them with the URL of the API. change may modify the configuration
// first. Everything stops when the test ends.
func Start(t testing.TB, change func(*config.Config)) (*app.Embedded, string) {
	t.Helper()
	cfg, err := config.Parse(0)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen, cfg.DatabaseURL, cfg.RedisURL = "127.0.0.1:0", "", ""
	change(cfg)
	e, err := app.OpenEmbedded(t.Context(), cfg, t.TempDir(), true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	if err := e.StartWorker(); err != nil {
		t.Fatal(err)
	}
	addr, err := e.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e, "http://" + addr
}
