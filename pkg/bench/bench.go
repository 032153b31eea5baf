// Package bench measures a deployment from outside, through its API. It starts one (the real programs on an empty database,
// a Redis and the provider simulator) or uses one that runs. It knows the client and no internal package. README.md has the
// method and the figures.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"herald/pkg/client"
)

// Options select what is measured.
type Options struct {
	Leads   int           // per bulk
	Bulks   int           // at the same time
	Singles float64       // per second, beside the bulks
	Workers int           // worker processes to start
	Latency time.Duration // of the simulator
	Tell    func(format string, args ...any)

	Profile     string // the file for a processor profile of the last worker, "": none
	ProfileTime time.Duration

	Program  string // herald itself, which also is the API and the worker
	Postgres string // a server on which a database may be made
	Redis    string // the redis-server program

	// A running deployment. Its channels must point at a simulator with the same Latency.
	URL, Key  string
	Simulator string   // its URL, "" if it cannot be reached
	Admin     []string // admin addresses of processes, for the breakdown
}

// Stage is the time of one part of the work, from the metrics of the programs.
type Stage struct {
	Count   int64   `json:"count"`
	MeanUS  float64 `json:"mean_us"`
	Seconds float64 `json:"seconds"` // the sum of all calls; calls overlap
}

// Report is the result. Figures of processes that the bench did not start are null.
type Report struct {
	Leads          int                `json:"leads"`
	Bulks          int                `json:"bulks"`
	Workers        int                `json:"workers,omitempty"`
	LatencyMS      float64            `json:"latency_ms"`
	Seconds        float64            `json:"seconds"`
	Rate           float64            `json:"rate_per_second"`
	FirstMessageMS *float64           `json:"first_message_ms"`
	Planning       float64            `json:"planning_leads_per_second"` // beside the delivery
	SingleP50MS    *float64           `json:"single_p50_ms"`             // without the provider's time
	SingleP99MS    *float64           `json:"single_p99_ms"`
	StatisticsP99  float64            `json:"statistics_p99_ms"`
	RedisPeak      *int64             `json:"redis_peak_bytes"`
	RSSPeak        map[string]int64   `json:"rss_peak_bytes"`
	CPU            map[string]float64 `json:"cpu_seconds"`
	Stages         map[string]Stage   `json:"stages"`
	Import         float64            `json:"import_leads_per_second"`
}

// Run measures a deployment. It stops and removes everything that it started, also when ctx ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	d, err := deploy(ctx, o)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	r := &Report{Leads: o.Leads, Bulks: o.Bulks, Workers: len(d.workers), LatencyMS: ms(o.Latency)}
	o.Tell("importing %d leads", o.Leads)
	began := time.Now()
	if err := d.importLeads(ctx, o.Leads); err != nil {
		return nil, err
	}
	r.Import = float64(o.Leads) / time.Since(began).Seconds()
	if err := d.settle(ctx); err != nil {
		return nil, err
	}
	o.Tell("sending %d bulks to %d leads each, and %g singles a second", o.Bulks, o.Leads, o.Singles)
	before, stagesBefore := d.cpu(), d.stages(ctx)
	singles := d.startSingles(ctx, o.Singles)
	profiled := d.profile(ctx, o)
	err = d.bulks(ctx, o, r)
	one := singles.end()
	if err != nil {
		return nil, err
	}
	for _, failed := range one.failed {
		return nil, fmt.Errorf("a single failed: %w", failed)
	}
	r.SingleP50MS, r.SingleP99MS = one.quantile(0.5), one.quantile(0.99)
	r.RedisPeak = d.redisPeak(ctx)
	r.RSSPeak, r.CPU = d.rss(), map[string]float64{}
	for name, after := range d.cpu() {
		r.CPU[name] = math.Round((after-before[name])*100) / 100
	}
	r.Stages = difference(d.stages(ctx), stagesBefore)
	if err := profiled.end(); err != nil {
		return nil, err
	}
	return r, d.once(ctx, o)
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Millisecond)*100) / 100 }

const (
	statisticsEvery = 50 * time.Millisecond // the resolution of the measured time
	quiet           = 10 * time.Minute      // a bulk without progress for this long is an error
)

// bulks sends the bulks and waits until the last outcome of each is counted.
func (d *deployment) bulks(ctx context.Context, o Options, r *Report) error {
	ids := make([]string, o.Bulks)
	began := time.Now()
	for i := range ids {
		b, err := d.api.SendBulk(ctx, d.request())
		if err != nil {
			return err
		}
		ids[i] = b.BulkID
	}
	var looks []time.Duration
	var planned time.Duration
	var ended time.Time
	moved, last := time.Now(), int64(-1)
	for {
		var left, total, done int64
		for _, id := range ids {
			asked := time.Now()
			b, err := d.api.Bulk(ctx, id)
			if err != nil {
				return err
			}
			looks = append(looks, time.Since(asked))
			total += b.TotalLeads
			done += b.MessagesSent + b.MessagesFailed
			left += max(int64(o.Leads)-b.MessagesSent-b.MessagesFailed, 0)
		}
		if planned == 0 && total >= int64(o.Leads*o.Bulks) {
			planned = time.Since(began)
		}
		if done != last {
			moved, last = time.Now(), done
		}
		if left == 0 {
			ended = time.Now()
			break
		}
		if time.Since(moved) > quiet {
			return errors.New("the bulks make no progress")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(statisticsEvery):
		}
	}
	took := ended.Sub(began).Seconds()
	r.Seconds, r.Rate = math.Round(took*1000)/1000, math.Round(float64(o.Leads*o.Bulks)/took)
	r.Planning = math.Round(float64(o.Leads*o.Bulks) / planned.Seconds())
	slices.Sort(looks)
	r.StatisticsP99 = ms(looks[int(0.99*float64(len(looks)-1))])
	if first, ok := d.firstMessage(ctx, began); ok {
		v := ms(first)
		r.FirstMessageMS = &v
	}
	return d.over(ctx, ids)
}

// over waits until every bulk is complete, and returns an error if a message was not sent.
func (d *deployment) over(ctx context.Context, ids []string) error {
	for _, id := range ids {
		var last *client.Bulk
		for b, err := range d.api.WatchBulk(ctx, id) {
			if err != nil {
				return err
			}
			last = b
		}
		if last.MessagesSent != last.TotalLeads {
			return fmt.Errorf("bulk %s sent %d of %d: %v", id, last.MessagesSent, last.TotalLeads, last.FailureReasons)
		}
	}
	return nil
}

// times are the durations of calls.
type times struct {
	mu     sync.Mutex
	took   []time.Duration
	failed []error
}

// quantile returns a quantile in milliseconds, nil without calls.
func (t *times) quantile(q float64) *float64 {
	if len(t.took) == 0 {
		return nil
	}
	slices.Sort(t.took)
	v := ms(t.took[int(q*float64(len(t.took)-1))])
	return &v
}

// loop is background work that runs until end.
type loop[T any] struct {
	stop context.CancelFunc
	done chan T
}

// begin starts background work. Its context ends with end.
func begin[T any](ctx context.Context, work func(ctx context.Context) T) *loop[T] {
	ctx, cancel := context.WithCancel(ctx) //nolint:gosec // end cancels it
	l := &loop[T]{cancel, make(chan T, 1)}
	go func() { l.done <- work(ctx) }()
	return l
}

func (l *loop[T]) end() T {
	l.stop()
	return <-l.done
}

// startSingles sends singles at a constant rate, independent of the answers (an open loop). It starts once the simulator has
// accepted a message of the bulks, so that the first message is the bulk's.
func (d *deployment) startSingles(ctx context.Context, perSecond float64) *loop[*times] {
	return begin(ctx, func(ctx context.Context) *times {
		t := &times{}
		var wg sync.WaitGroup
		if perSecond > 0 && d.begun(ctx) {
			tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
			defer tick.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				select {
				case <-ctx.Done():
				case <-tick.C:
					wg.Go(func() { d.single(context.WithoutCancel(ctx), n, t) })
				}
			}
		}
		wg.Wait()
		return t
	})
}

func (d *deployment) single(ctx context.Context, n int, t *times) {
	var provider time.Duration
	began := time.Now()
	res, err := d.api.Send(ctx, client.SendRequest{MessageData: client.MessageData{
		Recipient: fmt.Sprintf("single%d@bench.example", n), Subject: "Your order {{ first_name | default: 'is here' }}", Content: "One message.",
	}}, client.ProviderTook(&provider))
	took := time.Since(began) - provider
	if err == nil && !res.Success {
		err = fmt.Errorf("its status is %s", res.Status)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed = append(t.failed, err)
		return
	}
	t.took = append(t.took, took)
}
