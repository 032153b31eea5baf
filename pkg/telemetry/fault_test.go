package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Probes share one check of readiness a second. A probe whose context ends does not end the check of the others.
func TestFaultProbesShareALook(t *testing.T) {
	now := time.Now()
	var looks atomic.Int32
	begun, end := make(chan struct{}, 10), make(chan struct{})
	r := NewRecent(func(ctx context.Context) Health {
		looks.Add(1)
		begun <- struct{}{}
		<-end
		return Health{Ready: ctx.Err() == nil}
	})
	var mu sync.Mutex
	r.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	gone, hangUp := context.WithCancel(t.Context())
	first := make(chan Health, 1)
	go func() { first <- r.Health(gone) }()
	<-begun
	hangUp()
	if h := <-first; h.Ready {
		t.Error("a probe that hung up was told ready")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if !r.Health(t.Context()).Ready {
				t.Error("not ready")
			}
		})
	}
	close(end)
	wg.Wait()
	for range 1_000 {
		r.Health(t.Context())
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("%d looks for 1,051 probes within a second", n)
	}
	mu.Lock()
	now = now.Add(recentFor)
	mu.Unlock()
	r.Health(t.Context())
	if n := looks.Load(); n != 2 {
		t.Errorf("%d looks, a second later", n)
	}
}

func startAdmin(t *testing.T, o AdminOptions) *Admin {
	t.Helper()
	o.Health = func(context.Context) Health { return Health{Ready: true} }
	a, _, err := New(slog.New(slog.DiscardHandler)).StartAdmin(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	return a
}

func ask(t *testing.T, a *Admin, path, host string, headers ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// The admin address answers no web page, and no request to a host name that is not its own.
func TestFaultTheAdminAddressAnswersItsOwn(t *testing.T) {
	local := startAdmin(t, AdminOptions{Addr: "127.0.0.1:0", PProf: true, Hosts: []string{"herald.internal"}})
	everywhere := startAdmin(t, AdminOptions{Addr: "0.0.0.0:0", PProf: true, Hosts: []string{"herald.internal"}})
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/nothing"} {
		open := http.StatusOK
		if path == "/nothing" {
			open = http.StatusNotFound
		}
		for what, c := range map[string]struct {
			host              string
			headers           []string
			local, everywhere int
		}{
			"as it is":                   {"", nil, open, open},
			"localhost":                  {"localhost:9101", nil, open, open},
			"IPv6":                       {"[::1]:9101", nil, open, open},
			"a name that was set":        {"Herald.internal:9101", nil, open, open},
			"a pod's address":            {"10.1.2.3:9101", nil, 403, open},
			"a page led here by a name":  {"evil.test", nil, 403, 403},
			"a name with an address":     {"127.0.0.1.evil.test:9101", nil, 403, 403},
			"an image of a page":         {"", []string{"Sec-Fetch-Site", "cross-site"}, 403, 403},
			"a page of a sibling":        {"", []string{"Sec-Fetch-Site", "same-site"}, 403, 403},
			"a script's question":        {"", []string{"Origin", "https://evil.test"}, 403, 403},
			"a sandboxed page":           {"", []string{"Origin", "null"}, 403, 403},
			"a person at the address":    {"", []string{"Sec-Fetch-Site", "none"}, open, open},
			"a link of the profiles'":    {"", []string{"Sec-Fetch-Site", "same-origin"}, open, open},
			"localhost as a part of one": {"localhost.evil.test", nil, 403, 403},
		} {
			if got := ask(t, local, path, c.host, c.headers...); got != c.local {
				t.Errorf("%s, %s, on loopback: %d, want %d", path, what, got, c.local)
			}
			if got := ask(t, everywhere, path, c.host, c.headers...); got != c.everywhere {
				t.Errorf("%s, %s, on every address: %d, want %d", path, what, got, c.everywhere)
			}
		}
	}
}

func TestFaultProfilesAreServedWhereAskedFor(t *testing.T) {
	a := startAdmin(t, AdminOptions{Addr: "127.0.0.1:0"})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1", "/debug/pprof/symbol", "/debug/pprof/trace"} {
		if got := ask(t, a, path, ""); got != http.StatusNotFound {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := ask(t, a, "/metrics", ""); got != http.StatusOK {
		t.Errorf("metrics: %d", got)
	}
}
