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
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/version"
)

// Telemetry observes deliveries, bulks and requests. It implements delivery.Observer and bulk.Observer, and is safe for
// concurrent use.
type Telemetry struct {
	log      *slog.Logger
	registry *prometheus.Registry
	metrics
	stages map[message.ChannelType]stages
	waits  *lru.Cache[uuid.UUID, string] // singles that wait, and why, as they were logged last
}

// maxWaits bounds the memory of waiting singles. One that was evicted is logged again.
const maxWaits = 10_000

// stages are the histograms of a channel type's stages. They are looked up once, since every delivery observes five.
type stages struct{ load, claim, send, outcome, count prometheus.Observer }

// New makes a Telemetry with its own registry, so that several can exist in one process.
func New(log *slog.Logger) *Telemetry {
	waits, _ := lru.New[uuid.UUID, string](maxWaits) // fails for a size below 1 only
	t := &Telemetry{log: log, registry: prometheus.NewRegistry(), stages: map[message.ChannelType]stages{}, waits: waits}
	t.metrics = newMetrics(t.registry)
	registerBuild(t.registry, version.Get())
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
	if e.Err != nil {
		t.failures.WithLabelValues("deliver").Inc()
	}
	outcome := outcomeOf(&e)
	level := t.levelOf(&e, outcome)
	if !t.log.Enabled(ctx, level) {
		return
	}
	t.log.LogAttrs(ctx, level, "delivery", deliveryAttrs(&e, outcome)...)
}

// Outcomes of deliveries that did not settle their message. The others are the message's status in lower case.
const (
	outcomeError   = "error"   // the delivery failed before it could decide anything, and is repeated
	outcomeRetry   = "retry"   // the provider was called and the message was not sent: it is tried again
	outcomeWaiting = "waiting" // the provider was not called: the channel is paused or its rate is used up
)

func outcomeOf(e *delivery.Event) string {
	switch {
	case e.Err != nil:
		return outcomeError
	case e.Status.Rank() > 0:
		return strings.ToLower(string(e.Status))
	case e.Class != 0:
		return outcomeRetry
	}
	return outcomeWaiting
}

// levelOf returns the level of a delivery's line. Messages of bulks are many, so only what is odd about them is INFO. A single
// that waits is looked at every few seconds, so only the first look and changes of its state are INFO.
func (t *Telemetry) levelOf(e *delivery.Event, outcome string) slog.Level {
	single := e.Message.BulkID == uuid.Nil
	switch {
	case e.Err != nil:
		return slog.LevelWarn
	case single && e.Status.Rank() == 0:
		why := outcome + " " + string(e.Reason)
		before, _ := t.waits.Get(e.Message.ID)
		t.waits.Add(e.Message.ID, why)
		if why == before {
			return slog.LevelDebug
		}
		return slog.LevelInfo
	case single:
		t.waits.Remove(e.Message.ID)
		return slog.LevelInfo
	case e.Fenced, e.Status == message.Unknown:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// milliseconds is a duration in the log, with three decimals.
func milliseconds(name string, d time.Duration) slog.Attr {
	return slog.Float64(name, float64(d.Microseconds())/1000)
}

func deliveryAttrs(e *delivery.Event, outcome string) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("outcome", outcome), slog.String("message_id", e.Message.ID.String()), slog.String("type", string(e.Message.ChannelType)),
		slog.String("status", string(e.Status)), slog.Int("attempt", e.Attempt), milliseconds("duration_ms", e.Duration), milliseconds("send_ms", e.Send),
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
		attrs = append(attrs, milliseconds("again_ms", e.Again))
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
	return attrs
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
	Path     string // as the caller of Telemetry.Request cleared it: ids are kept, all other values are not
	Remote   string // address of the other end of the connection, without the port
	Probe    bool   // of health: logged at DEBUG
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
	case r.Shed, r.Probe:
		level = slog.LevelDebug // shed requests are many, and come under overload; probes come for ever. The metric counts them
	case r.Status >= 500:
		level = slog.LevelError
	}
	if !t.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("route", r.Route), slog.String("path", r.Path), slog.Int("status", r.Status),
		milliseconds("duration_ms", r.Duration), slog.String("remote", r.Remote), slog.String("request_id", r.ID),
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
