package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"text/tabwriter"
	"time"

	"herald/pkg/app"
	"herald/pkg/bench"
)

type benchCmd struct {
	output
	Leads     int           `default:"100000" help:"Leads per bulk."`
	Bulks     int           `default:"1" help:"Bulks at the same time."`
	Singles   float64       `default:"20" help:"Singles per second during the bulks; 0: none."`
	Workers   int           `default:"1" help:"Worker processes."`
	Latency   time.Duration `help:"Response time of the simulator."`
	Postgres  string        `default:"postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable" help:"A PostgreSQL server; the bench creates a database on it and drops it."`
	Profile   string        `help:"Write a processor profile of a worker to this file while the bulks run. A build can be optimized with it: go build -pgo."`
	Remote    bool          `help:"Measure the deployment at HERALD_URL instead of starting one. Its channels must point at a simulator."`
	Simulator string        `help:"With --remote: the simulator's URL."`
	Admin     []string      `help:"With --remote: admin addresses of the processes, for the times of the stages."`
}

// profileTime is shorter than a bulk of the default size.
const profileTime = 10 * time.Second

// Run measures a deployment.
func (c *benchCmd) Run(ctx context.Context) error {
	if c.Leads < 1 || c.Bulks < 1 || c.Workers < 1 || c.Singles < 0 {
		return fmt.Errorf("%w: --leads, --bulks and --workers are at least 1, --singles is not negative", errUsage)
	}
	cfg, err := parse()
	if err != nil {
		return err
	}
	o := bench.Options{
		Leads: c.Leads, Bulks: c.Bulks, Singles: c.Singles, Workers: c.Workers, Latency: c.Latency, Postgres: c.Postgres, Profile: c.Profile, ProfileTime: profileTime,
		Tell: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	}
	if c.Remote {
		o.URL, o.Key, o.Simulator, o.Admin = cfg.URL, string(cfg.APIKey), c.Simulator, c.Admin
	} else {
		if o.Redis, err = exec.LookPath("redis-server"); err != nil {
			return fmt.Errorf("start a deployment: redis-server: %w", err)
		}
		if o.Program, err = os.Executable(); err != nil {
			return err
		}
	}
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(r)
	}
	return showReport(r)
}

func showReport(r *bench.Report) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	measured := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.2f ms", *v)
	}
	line("leads", "%d × %d", r.Leads, r.Bulks)
	line("rate", "%.0f messages/s (%.2f s)", r.Rate, r.Seconds)
	line("first message", "%s", measured(r.FirstMessageMS))
	line("planning", "%.0f leads/s, beside the delivery", r.Planning)
	line("singles, without the provider", "median %s, 99th percentile %s", measured(r.SingleP50MS), measured(r.SingleP99MS))
	line("statistics", "99th percentile %.2f ms", r.StatisticsP99)
	line("import", "%.0f leads/s", r.Import)
	if r.RedisPeak != nil {
		line("Redis, peak", "%.1f MB", float64(*r.RedisPeak)/1e6)
	}
	for _, name := range slices.Sorted(maps.Keys(r.RSSPeak)) {
		line("memory of "+name, "%.0f MB, peak", float64(r.RSSPeak[name])/1e6)
	}
	total := 0.0
	for _, name := range slices.Sorted(maps.Keys(r.CPU)) {
		total += r.CPU[name]
		line("processor of "+name, "%.1f s", r.CPU[name])
	}
	line("processor, all", "%.0f µs per message", total/float64(r.Leads*r.Bulks)*1e6)
	byTime := slices.SortedFunc(maps.Keys(r.Stages), func(a, b string) int { return cmp.Compare(r.Stages[b].Seconds, r.Stages[a].Seconds) })
	for _, name := range byTime {
		s := r.Stages[name]
		line("stage "+name, "%.0f µs, %d calls", s.MeanUS, s.Count)
	}
	return w.Flush()
}

// apiCmd and workerCmd are the programs api and worker, so that the bench needs only this program.
type (
	apiCmd    struct{}
	workerCmd struct{}
)

// Run runs the API.
func (*apiCmd) Run() error { return role(app.RoleAPI) }

// Run runs a worker.
func (*workerCmd) Run() error { return role(app.RoleWorker) }

func role(r app.Role) error {
	switch code := app.Main(r, nil); code {
	case app.ExitDone:
		return nil
	case app.ExitUsage:
		return fmt.Errorf("%w: the settings of the %s are invalid", errUsage, r)
	default:
		return fmt.Errorf("the %s ended with exit code %d", r, code)
	}
}
