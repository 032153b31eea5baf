package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"herald/pkg/version"
)

// metrics are the metrics that the program writes to. README.md lists them; TestTheListOfMetrics compares both. A new counter or
// histogram is a field, its line in newMetrics, and its line in README.md.
type metrics struct {
	deliveries     *prometheus.CounterVec
	deliveryStages *prometheus.HistogramVec
	messageSteps   *prometheus.HistogramVec
	requests       *prometheus.HistogramVec
	failures       *prometheus.CounterVec
	cleaned        *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return promauto.With(r).NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return promauto.With(r).NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	from500us, from10us := prometheus.ExponentialBuckets(0.0005, 2, 16), prometheus.ExponentialBuckets(0.00001, 4, 10)
	return metrics{
		deliveries:     counter("herald_deliveries_total", "Deliveries by the status and reason that they left their message with.", "type", "provider", "status", "reason"),
		deliveryStages: histogram("herald_delivery_stage_seconds", "Duration of a delivery's stages.", from500us, "type", "stage"),
		messageSteps:   histogram("herald_message_step_seconds", "Duration of steps around deliveries for each message; messages that went together share it.", from10us, "step"),
		requests:       histogram("herald_http_request_seconds", "Duration of HTTP requests.", from500us, "method", "route", "status"),
		failures:       counter("herald_failures_total", "Operations that failed and will be tried again.", "during"),
		cleaned:        counter("herald_queue_cleaned_total", "Orphaned tasks that the janitor removed from Redis or returned to their queue.", "kind"),
	}
}

// registerBuild adds the metric that tells which build runs. Its value is always 1; the labels tell.
func registerBuild(r prometheus.Registerer, v version.Info) {
	promauto.With(r).NewGaugeVec(prometheus.GaugeOpts{Name: "herald_build_info", Help: "The build of the program, always 1."}, []string{"version", "revision", "go"}).
		WithLabelValues(v.Version, v.Revision, v.Go).Set(1)
}

// Sample is one value of a gauge, with the values of its labels in their order.
type Sample struct {
	Labels []string
	Value  float64
}

// Read returns the present values of a gauge. It is called when metrics are scraped, with a context of readTimeout.
type Read func(ctx context.Context) ([]Sample, error)

// Gauges are where the gauges read their values. A new gauge is a field here, its line in AddGauges, its source in pkg/app and
// its line in README.md.
type Gauges struct {
	QueueTasks Read
	Workers    Read
}

// AddGauges adds the gauges to the registry. It is called once.
func (t *Telemetry) AddGauges(g Gauges) {
	t.gauge("herald_queue_tasks", "Tasks in Redis.", g.QueueTasks, "queue", "state")
	t.gauge("herald_workers", "Worker processes with a heartbeat.", g.Workers)
}

// readTimeout bounds the time that one gauge may add to a scrape.
const readTimeout = 2 * time.Second

// gaugeCollector reads a gauge when metrics are scraped. A gauge that cannot be read is absent from that scrape, which is not an
// error of the other metrics, and counts in herald_failures_total.
type gaugeCollector struct {
	desc   *prometheus.Desc
	name   string
	read   Read
	failed func(ctx context.Context, during string, err error, args ...any)
}

func (t *Telemetry) gauge(name, help string, read Read, labels ...string) {
	t.registry.MustRegister(&gaugeCollector{desc: prometheus.NewDesc(name, help, labels, nil), name: name, read: read, failed: t.Failure})
}

// Describe implements prometheus.Collector.
func (g *gaugeCollector) Describe(to chan<- *prometheus.Desc) { to <- g.desc }

// Collect implements prometheus.Collector.
func (g *gaugeCollector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	samples, err := g.read(ctx)
	if err != nil {
		g.failed(ctx, "read a gauge", err, "gauge", g.name)
		return
	}
	for _, s := range samples {
		to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, s.Value, s.Labels...)
	}
}
