package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health says how a process is: nil for a part that works.
type Health struct {
	Ready    bool             // false: send no traffic here
	Parts    map[string]error // what was looked at
	Degraded bool             // works, with less
}

// MarshalJSON shows parts as "ok" or "down", with the reason where the part names one that may be shown; the log has the rest.
func (h Health) MarshalJSON() ([]byte, error) {
	status := "ok"
	switch {
	case !h.Ready:
		status = "unavailable"
	case h.Degraded:
		status = "degraded"
	}
	parts := make(map[string]string, len(h.Parts))
	for name, err := range h.Parts {
		parts[name] = "ok"
		if err != nil {
			parts[name] = "down"
			var known interface{ Reason() string }
			if errors.As(err, &known) {
				parts[name] += ": " + known.Reason()
			}
		}
	}
	return json.Marshal(map[string]any{"status": status, "parts": parts})
}

// Code is the status of a readiness probe.
func (h Health) Code() int {
	if h.Ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// Admin is the listener that is not for the public: probes, metrics, and profiles where they are asked for.
type Admin struct {
	server *http.Server
	Addr   string
}

// AdminOptions are what an Admin serves, where and for which callers.
type AdminOptions struct {
	Addr    string
	Default bool // a default address that is taken gives way to a free port; one that was asked for does not
	Health  func(context.Context) Health
	Hosts   []string // names under which it answers, beside those of Addr and this machine
	PProf   bool     // serve profiles
}

// StartAdmin listens. It returns the listener and whether it had to give way.
func (t *Telemetry) StartAdmin(o AdminOptions) (*Admin, bool, error) {
	l, err := net.Listen("tcp", o.Addr)
	moved := false
	if err != nil && o.Default && errors.Is(err, syscall.EADDRINUSE) {
		moved = true
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, false, fmt.Errorf("admin listener: %w", err)
	}
	a := &Admin{
		server: &http.Server{Handler: ownHosts(hostsOf(o, l.Addr()), t.adminRoutes(o)), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
		Addr:   l.Addr().String(),
	}
	go func() { _ = a.server.Serve(l) }()
	return a, moved, nil
}

func (t *Telemetry) adminRoutes(o AdminOptions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h := o.Health(r.Context())
		writeJSON(w, h.Code(), h)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	if o.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// hosts are the names and addresses under which a listener answers.
type hosts struct {
	names []string
	anyIP bool // every IP address: it listens beyond this machine, and a probe asks by the address that it was given
}

func hostsOf(o AdminOptions, at net.Addr) hosts {
	h := hosts{names: append([]string{"localhost"}, o.Hosts...), anyIP: true}
	if name, _, err := net.SplitHostPort(o.Addr); err == nil && name != "" && net.ParseIP(name) == nil {
		h.names = append(h.names, name)
	}
	if tcp, ok := at.(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		h.anyIP = false
	}
	return h
}

// has says whether a request's Host is one of them.
func (h hosts) has(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
		return h.anyIP || ip.IsLoopback()
	}
	return slices.ContainsFunc(h.names, func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), host) })
}

// ownHosts refuses what a web page may make a browser near this listener send. A page whose own name resolves to this address
// (DNS rebinding) shows in Host, since an IP address cannot be given another meaning; an image or a script of a page that
// names an address shows in Sec-Fetch-Site or Origin. No page has anything to ask here but the profiles' own.
func ownHosts(own hosts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if !own.has(r.Host) || r.Header.Get("Origin") != "" || (site != "" && site != "same-origin" && site != "none") {
			writeJSON(w, http.StatusForbidden, map[string]string{"detail": "this address answers no web pages, and under its own names only; HERALD_ADMIN_HOSTS adds some", "code": "forbidden"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Stop closes the listener.
func (a *Admin) Stop() {
	if a != nil {
		_ = a.server.Close()
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
