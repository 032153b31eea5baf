package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/version"
)

// values returns a source of samples.
func values(s ...Sample) Read {
	return func(context.Context) ([]Sample, error) { return s, nil }
}

// everyMetric returns a Telemetry each of whose metrics was written once.
func everyMetric(t *testing.T) *Telemetry {
	t.Helper()
	tel := New(slog.New(slog.DiscardHandler))
	tel.AddGauges(Gauges{
		QueueTasks: values(Sample{[]string{"sms.high", "pending"}, 7}, Sample{[]string{"sms.low", "retry"}, 1}),
		Workers:    values(Sample{Value: 2}),
	})
	m := &message.Message{ID: uuid.New(), ChannelType: message.SMS}
	tel.Delivered(t.Context(), delivery.Event{Message: m, Provider: "twilio", Status: message.Sent, Load: time.Second, Claim: time.Second, Send: time.Second})
	tel.Step("plan", 4, 2*time.Second)
	tel.Request(t.Context(), Request{Method: "GET", Route: "/api/leads/:id", Status: 404, Duration: time.Second})
	tel.Failure(t.Context(), "count", errors.New("x"))
	tel.Cleaned(t.Context(), "ghost", 3)
	return tel
}

// series are the values of all metrics of the program: counters and gauges by value, histograms as count and sum.
func series(t *testing.T, tel *Telemetry) map[string]string {
	t.Helper()
	families, err := tel.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "herald_") {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make([]string, 0, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			if h := m.GetHistogram(); h != nil {
				value = fmt.Sprintf("%d, %g", h.GetSampleCount(), h.GetSampleSum())
			}
			got[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return got
}

func TestEveryMetricIsWritten(t *testing.T) {
	got := series(t, everyMetric(t))
	for name := range got { // the stages of all types exist from the start
		if strings.HasPrefix(name, "herald_delivery_stage_seconds") && got[name] == "0, 0" {
			delete(got, name)
		}
	}
	build := version.Get()
	want := map[string]string{
		fmt.Sprintf("herald_build_info{go=%s,revision=%s,version=%s}", build.Go, build.Revision, build.Version): "1",
		"herald_deliveries_total{provider=twilio,reason=,status=SENT,type=SMS}":                                 "1",
		"herald_delivery_stage_seconds{stage=claim,type=SMS}":                                                   "1, 1",
		"herald_delivery_stage_seconds{stage=load,type=SMS}":                                                    "1, 1",
		"herald_delivery_stage_seconds{stage=send,type=SMS}":                                                    "1, 1",
		"herald_message_step_seconds{step=plan}":                                                                "4, 2",
		"herald_http_request_seconds{method=GET,route=/api/leads/:id,status=4xx}":                               "1, 1",
		"herald_failures_total{during=count}":                                                                   "1",
		"herald_queue_cleaned_total{kind=ghost}":                                                                "3",
		"herald_queue_tasks{queue=sms.high,state=pending}":                                                      "7",
		"herald_queue_tasks{queue=sms.low,state=retry}":                                                         "1",
		"herald_workers{}": "2",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestTheListOfMetrics compares the table in README.md with the registry: names, types and labels.
func TestTheListOfMetrics(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(herald_\\w+)` \\| (\\w+) \\| ([^|]+) \\| (\\w+) \\| .{20,} \\|$").FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1)
		names := make([]string, 0, len(labels))
		for _, l := range labels {
			names = append(names, l[1])
		}
		slices.Sort(names)
		listed[row[1]] = row[2] + " " + strings.Join(names, ",")
	}
	families, err := everyMetric(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	registered := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "herald_") {
			continue
		}
		names := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			names = append(names, l.GetName())
		}
		slices.Sort(names)
		registered[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(names, ",")
		if f.GetHelp() == "" {
			t.Errorf("%s has no help text", f.GetName())
		}
	}
	if d := cmp.Diff(registered, listed); d != "" {
		t.Errorf("README.md (+) differs from the registry (-): %s", d)
	}
	if n, all := len(registered), describedMetrics(everyMetric(t)); n != all {
		t.Errorf("%d metrics are registered and %d are written: everyMetric must write each", all, n)
	}
}

// describedMetrics counts the program's metrics in the registry, written or not.
func describedMetrics(tel *Telemetry) (n int) {
	descs := make(chan *prometheus.Desc)
	go func() {
		tel.registry.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		if strings.Contains(d.String(), `fqName: "herald_`) {
			n++
		}
	}
	return n
}

// A gauge that cannot be read is missing from the scrape, and counts as a failure; the others are served.
func TestAGaugeThatCannotBeRead(t *testing.T) {
	var log bytes.Buffer
	tel := New(slog.New(slog.NewTextHandler(&log, nil)))
	tel.AddGauges(Gauges{
		QueueTasks: func(ctx context.Context) ([]Sample, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a gauge may hold a scrape up for ever")
			}
			return []Sample{{[]string{"sms.high", "pending"}, 7}}, errors.New("no Redis")
		},
		Workers: values(Sample{Value: 2}),
	})
	series(t, tel)
	got := series(t, tel) // the second scrape shows the failure of the first
	if got["herald_workers{}"] != "2" || got["herald_queue_tasks{queue=sms.high,state=pending}"] != "" {
		t.Errorf("%v", got)
	}
	if got[`herald_failures_total{during=read a gauge}`] == "" || !strings.Contains(log.String(), "herald_queue_tasks") {
		t.Errorf("the failure is not reported: %v, log %s", got, log.String())
	}
}

// levels are the levels of the log lines that fn writes.
func levels(fn func(t *Telemetry)) string {
	var log bytes.Buffer
	fn(New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	var all []string
	for _, m := range regexp.MustCompile(`level=(\w+)`).FindAllStringSubmatch(log.String(), -1) {
		all = append(all, m[1])
	}
	return strings.Join(all, " ")
}

// The level of a log line follows from what happened: messages of bulks are many, so their plain success is DEBUG.
func TestLevels(t *testing.T) {
	ctx := t.Context()
	single, ofBulk := &message.Message{ID: uuid.New(), ChannelType: message.SMS}, &message.Message{ID: uuid.New(), BulkID: uuid.New(), ChannelType: message.SMS}
	for name, c := range map[string]struct {
		do   func(t *Telemetry)
		want string
	}{
		"a single":                              {func(t *Telemetry) { t.Delivered(ctx, delivery.Event{Message: single, Status: message.Sent}) }, "INFO"},
		"a bulk's message":                      {func(t *Telemetry) { t.Delivered(ctx, delivery.Event{Message: ofBulk, Status: message.Sent}) }, "DEBUG"},
		"one whose claim was lost":              {func(t *Telemetry) { t.Delivered(ctx, delivery.Event{Message: ofBulk, Fenced: true}) }, "INFO"},
		"one of unknown outcome":                {func(t *Telemetry) { t.Delivered(ctx, delivery.Event{Message: ofBulk, Status: message.Unknown}) }, "INFO"},
		"a delivery that failed":                {func(t *Telemetry) { t.Delivered(ctx, delivery.Event{Message: ofBulk, Err: errors.New("x")}) }, "WARN"},
		"a request":                             {func(t *Telemetry) { t.Request(ctx, Request{Status: 404}) }, "INFO"},
		"a probe of a server that is not ready": {func(t *Telemetry) { t.Request(ctx, Request{Status: 503, Probe: true}) }, "DEBUG"},
		"a request that failed":                 {func(t *Telemetry) { t.Request(ctx, Request{Status: 500}) }, "ERROR"},
		"a request that was shed":               {func(t *Telemetry) { t.Request(ctx, Request{Status: 503, Shed: true}) }, "DEBUG"},
		"a bulk":                                {func(t *Telemetry) { t.BulkEvent(ctx, "planned", uuid.New()) }, "INFO"},
		"a failure":                             {func(t *Telemetry) { t.Failure(ctx, "count", errors.New("x")) }, "WARN"},
		"a channel":                             {func(t *Telemetry) { t.ChannelState(channel.Key{}, channel.Down) }, "WARN"},
		"tasks that the janitor met":            {func(t *Telemetry) { t.Cleaned(ctx, "ghost", 1) }, "ERROR"},
	} {
		if got := levels(c.do); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
