package app_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/config"
	"herald/pkg/testenv"
)

// Without keys the API starts only if the configuration permits it to every process of the machine, and on loopback only.
func TestFaultOpenMustBeSet(t *testing.T) {
	e := embedded(t, nil)
	defer e.Stop()
	if e.Config.Open != config.OpenLoopback {
		t.Error("the embedded mode does not set it")
	}
	for what, c := range map[string]struct {
		open   config.Open
		listen string
		says   string
	}{
		"not set":                      {"", "127.0.0.1:0", "HERALD_OPEN=loopback"},
		"not set, IPv6":                {"", "[::1]:0", "HERALD_OPEN=loopback"},
		"set, but on every address":    {config.OpenLoopback, "0.0.0.0:0", "loopback address only"},
		"not set, on every address":    {"", "0.0.0.0:0", "herald keys create"},
		"another value, by a mistake":  {"yes", "127.0.0.1:0", "HERALD_OPEN=loopback"},
		"set, on every IPv6 address":   {config.OpenLoopback, "[::]:0", "loopback address only"},
		"without a host, all of them ": {config.OpenLoopback, ":0", "loopback address only"},
	} {
		e.Config.Open, e.Config.Listen = c.open, c.listen
		if _, err := e.StartAPI(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "keys create") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// With a key it needs no permission, and requests need the key.
	if _, err := e.Keys.Create(t.Context(), &access.Key{Scopes: access.Scopes}, true); err != nil {
		t.Fatal(err)
	}
	e.Config.Open, e.Config.Listen = "", "127.0.0.1:0"
	var addr string
	testenv.Eventually(t, 10*time.Second, "it starts with a key", func() (ok bool) {
		var err error
		addr, err = e.StartAPI(t.Context())
		return err == nil
	})
	res, err := http.Get("http://" + addr + "/api/leads")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: %d", res.StatusCode)
	}
}
