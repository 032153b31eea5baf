package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
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

// Admin is the listener that is not for the public: probes, metrics, profiles.
type Admin struct {
	server *http.Server
	Addr   string
}

// StartAdmin listens on addr. A default address that is taken gives way to a free port; one that was asked for does
// not. It returns the listener and whether it had to give way.
func (t *Telemetry) StartAdmin(addr string, isDefault bool, health func(context.Context) Health) (*Admin, bool, error) {
	l, err := net.Listen("tcp", addr)
	moved := false
	if err != nil && isDefault && errors.Is(err, syscall.EADDRINUSE) {
		moved = true
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, false, fmt.Errorf("admin listener: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h := health(r.Context())
		writeJSON(w, h.Code(), h)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a := &Admin{server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, Addr: l.Addr().String()}
	go func() { _ = a.server.Serve(l) }()
	return a, moved, nil
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
