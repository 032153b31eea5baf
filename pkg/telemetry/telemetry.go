// Package telemetry reports what a process does: log lines with ids and figures, Prometheus metrics (README.md lists them), and the
// admin listener with probes and profiles. Nothing that passes here may hold an address, a text or a secret. The package must not
// know how work is done; it observes it through the ports of delivery and bulk.
package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// Telemetry observes deliveries, bulks and requests. It implements delivery.Observer and bulk.Observer, and is safe for
// concurrent use.
type Telemetry struct {
	log      *slog.Logger
	registry *prometheus.Registry
	metrics
	stages map[message.ChannelType]stages
}

// stages are the histograms of a channel type's stages. They are looked up once, since every delivery observes five.
type stages struct{ load, claim, send, outcome, count prometheus.Observer }

// New makes a Telemetry with its own registry, so that several can exist in one process.
func New(log *slog.Logger) *Telemetry {
	t := &Telemetry{log: log, registry: prometheus.NewRegistry(), stages: map[message.ChannelType]stages{}}
	t.metrics = newMetrics(t.registry)
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, ct := range message.ChannelTypes {
		of := func(stage string) prometheus.Observer { return t.deliveryStages.WithLabelValues(string(ct), stage) }
		t.stages[ct] = stages{of("load"), of("claim"), of("send"), of("outcome"), of("count")}
	}
	return t
}

// Log returns the process's logger.
func (t *Telemetry) Log() *slog.Logger { return t.log }

// Delivered implements delivery.Observer.
func (t *Telemetry) Delivered(ctx context.Context, e delivery.Event) {
	typ := string(e.Message.ChannelType)
	t.deliveries.WithLabelValues(typ, e.Provider, string(e.Status), string(e.Reason)).Inc()
	s := t.stages[e.Message.ChannelType]
	for _, stage := range [...]struct {
		to   prometheus.Observer
		took time.Duration
	}{{s.load, e.Load}, {s.claim, e.Claim}, {s.send, e.Send}, {s.outcome, e.Outcome}, {s.count, e.Count}} {
		if stage.took > 0 {
			stage.to.Observe(stage.took.Seconds())
		}
	}
	level := slog.LevelDebug
	if e.Err != nil {
		t.failures.WithLabelValues("deliver").Inc()
		level = slog.LevelWarn
	} else if e.Message.BulkID == uuid.Nil || e.Fenced || e.Status == message.Unknown {
		level = slog.LevelInfo
	}
	if !t.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("message_id", e.Message.ID.String()), slog.String("type", typ), slog.String("status", string(e.Status)),
		slog.Int("attempt", e.Attempt), slog.Duration("duration", e.Duration), slog.Duration("send", e.Send),
	}
	if e.Provider != "" {
		attrs = append(attrs, slog.String("provider", e.Provider))
	}
	if e.Message.BulkID != uuid.Nil {
		attrs = append(attrs, slog.String("bulk_id", e.Message.BulkID.String()))
	}
	if e.Reason != message.NoReason {
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
	}
	if e.Again > 0 {
		attrs = append(attrs, slog.Duration("again", e.Again))
	}
	if e.Fenced {
		attrs = append(attrs, slog.Bool("fenced", true))
	}
	if e.Detail != "" {
		attrs = append(attrs, slog.String("provider_error", e.Detail))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	t.log.LogAttrs(ctx, level, "delivered", attrs...)
}

// Step reports a step that a number of messages took together; each counts with its share of the time. It implements part of
// bulk.Observer, and is the Observe of asynqfast.Options.
func (t *Telemetry) Step(step string, messages int, took time.Duration) {
	h := t.messageSteps.WithLabelValues(step)
	for range messages {
		h.Observe(took.Seconds() / float64(messages))
	}
}

// BulkEvent implements bulk.Observer.
func (t *Telemetry) BulkEvent(ctx context.Context, event string, bulkID uuid.UUID, args ...any) {
	t.log.InfoContext(ctx, "bulk "+event, append([]any{"bulk_id", bulkID.String()}, args...)...)
}

// BulkError implements bulk.Observer.
func (t *Telemetry) BulkError(ctx context.Context, during string, bulkID uuid.UUID, err error) {
	t.Failure(ctx, "bulk: "+during, err, "bulk_id", bulkID.String())
}

// Failure reports an operation that failed and will be tried again. args are further attributes of the log line.
func (t *Telemetry) Failure(ctx context.Context, during string, err error, args ...any) {
	t.failures.WithLabelValues(during).Inc()
	t.log.WarnContext(ctx, "failed, will try again", append([]any{"during", during, "error", err.Error()}, args...)...)
}

// ChannelState reports that a channel's health changed.
func (t *Telemetry) ChannelState(k channel.Key, s channel.State) {
	t.log.Warn("channel "+strings.ToLower(string(s)), "channel_id", k.ID.String(), "type", string(k.Type))
}

// Cleaned reports orphaned tasks that the janitor repaired.
func (t *Telemetry) Cleaned(ctx context.Context, kind string, n int) {
	t.cleaned.WithLabelValues(kind).Add(float64(n))
	t.log.ErrorContext(ctx, "orphaned tasks in Redis were repaired", "kind", kind, "tasks", n)
}

// Request is one HTTP request as the log and the metrics show it: no header, no query, no body.
type Request struct {
	Method   string
	Route    string // the pattern, not the path
	Status   int
	Duration time.Duration
	ID       string
	Caller   string // the id of the API key, empty without one
	Shed     bool   // rejected by load shedding
	Err      error
}

// Request reports one HTTP request.
func (t *Telemetry) Request(ctx context.Context, r Request) {
	t.requests.WithLabelValues(r.Method, r.Route, statusLabel(r.Status)).Observe(r.Duration.Seconds())
	level := slog.LevelInfo
	switch {
	case r.Shed:
		level = slog.LevelDebug // shed requests are many, and come under overload; the metric counts them
	case r.Status >= 500:
		level = slog.LevelError
	}
	if !t.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("route", r.Route), slog.Int("status", r.Status), slog.Duration("duration", r.Duration),
		slog.String("request_id", r.ID),
	}
	if r.Caller != "" {
		attrs = append(attrs, slog.String("api_key", r.Caller))
	}
	if r.Err != nil && r.Status >= 500 {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	t.log.LogAttrs(ctx, level, "request", attrs...)
}

func statusLabel(status int) string { return string(rune('0'+status/100)) + "xx" }
