package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"herald/pkg/version"
)

// Health is the result of a readiness check. Parts has an error for each part that does not work.
type Health struct {
	Ready    bool             // false: the load balancer must send no traffic here
	Parts    map[string]error // the parts that were checked
	Degraded bool             // ready, with reduced function
}

// MarshalJSON shows parts as "ok" or "down". The reason is added only where the error has a Reason method; the log has the rest.
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

// Code is the HTTP status of a readiness probe.
func (h Health) Code() int {
	if h.Ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// Admin is the private listener: probes, metrics and, where enabled, profiles.
type Admin struct {
	server *http.Server
	Addr   string
}

// AdminOptions configure an Admin.
type AdminOptions struct {
	Addr    string
	Default bool // Addr is a default: if it is in use, a free port is taken instead
	Health  func(context.Context) Health
	Hosts   []string // host names that it answers to, besides Addr's and localhost
	PProf   bool     // serve profiles
}

// StartAdmin listens, and returns the error of the system if it cannot. moved reports that the default address was in use and a free port was taken.
func (t *Telemetry) StartAdmin(o AdminOptions) (a *Admin, moved bool, err error) {
	l, err := net.Listen("tcp", o.Addr)
	if err != nil && o.Default && errors.Is(err, syscall.EADDRINUSE) {
		moved = true
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, false, err
	}
	a = &Admin{
		server: &http.Server{Handler: ownHosts(hostsOf(o, l.Addr()), t.adminRoutes(o)), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
		Addr:   l.Addr().String(),
	}
	go func() { _ = a.server.Serve(l) }()
	return a, moved, nil
}

func (t *Telemetry) adminRoutes(o AdminOptions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok", "version": version.Get().Version})
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

// hosts are the names and addresses that a listener answers to.
type hosts struct {
	names []string
	anyIP bool // every IP address: it listens beyond this machine, and probes use the pod's address
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

// has reports whether a request's Host is one of them.
func (h hosts) has(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
		return h.anyIP || ip.IsLoopback()
	}
	return slices.ContainsFunc(h.names, func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), host) })
}

// ownHosts rejects requests that a web page may make a browser near this listener send. With DNS rebinding, Host is the page's
// name; an IP address in Host cannot be rebound. Images and scripts of a page send Sec-Fetch-Site or Origin. Only the pages of
// the profiles themselves may send requests from a page.
func ownHosts(own hosts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if !own.has(r.Host) || r.Header.Get("Origin") != "" || (site != "" && site != "same-origin" && site != "none") {
			writeJSON(w, http.StatusForbidden, map[string]string{"detail": "the admin address rejects requests of web pages and of unknown host names; add host names with HERALD_ADMIN_HOSTS", "code": "forbidden"})
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
