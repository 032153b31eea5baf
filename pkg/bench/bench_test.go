package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"herald/pkg/app/apptest"
	"herald/pkg/bench"
	"herald/pkg/channel"
	"herald/pkg/config"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/testenv"
)

func check(t *testing.T, r *bench.Report, leads int, latency float64) {
	t.Helper()
	if r.Leads != leads || r.Rate <= 0 || r.Seconds <= 0 || r.Planning <= 0 || r.StatisticsP99 <= 0 || r.Import <= 0 || r.LatencyMS != latency {
		t.Errorf("%+v", r)
	}
}

// built is the directory of the program, "" before the first test that needs it.
var built string

// program builds herald, once, and returns its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "herald-bench-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "herald")
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "herald/cmd/herald").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func build(t *testing.T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// The bench starts the real programs, sends, and leaves nothing behind.
func TestADeploymentOfItsOwn(t *testing.T) {
	server, redis := testenv.PostgresServer(t), testenv.RedisProgram(t)
	program := build(t)
	profile := filepath.Join(t.TempDir(), "cpu")
	r, err := bench.Run(t.Context(), bench.Options{
		Leads: 2_000, Bulks: 1, Singles: 50, Workers: 2, Profile: profile, ProfileTime: time.Second, Latency: 10 * time.Millisecond, Tell: t.Logf, Program: program, Postgres: server, Redis: redis,
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 2_000, 10)
	if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
		t.Errorf("no profile: %v", err)
	}
	if r.FirstMessageMS == nil || r.SingleP50MS == nil || r.SingleP99MS == nil || r.RedisPeak == nil || *r.RedisPeak == 0 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"api", "worker1", "worker2", "redis", "simulator"} {
		if r.RSSPeak[name] == 0 {
			t.Errorf("no memory of %s", name)
		}
	}
	for _, stage := range []string{"plan", "enqueue", "dequeue", "claim", "send", "outcome", "count", "ack"} {
		if r.Stages[stage].Count < 1 {
			t.Errorf("no stage %s: %+v", stage, r.Stages)
		}
	}
}

// processesOf are the ids of a program's processes, where the system tells.
func processesOf(t *testing.T, program string) (ids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == program {
			ids = append(ids, filepath.Base(filepath.Dir(link)))
		}
	}
	return ids
}

func benchDatabases(t *testing.T, server string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT datname FROM pg_database WHERE datname LIKE 'herald_bench_%'")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// An interrupted bench stops its programs and removes its database.
func TestAnInterruptedBench(t *testing.T) {
	server, redis := testenv.PostgresServer(t), testenv.RedisProgram(t)
	program := build(t)
	ctx, interrupt := context.WithCancel(t.Context())
	others := benchDatabases(t, server)
	var running, made []string
	_, err := bench.Run(ctx, bench.Options{
		Leads: 1_000, Bulks: 1, Workers: 1, Latency: time.Second, Program: program, Postgres: server, Redis: redis,
		Tell: func(string, ...any) {
			running = processesOf(t, program)
			made = slices.DeleteFunc(benchDatabases(t, server), func(name string) bool { return slices.Contains(others, name) })
			interrupt()
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if len(made) == 0 || runtime.GOOS == "linux" && len(running) != 3 {
		t.Errorf("programs %v and databases %v before", running, made)
	}
	if left := processesOf(t, program); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	for _, name := range benchDatabases(t, server) {
		if slices.Contains(made, name) {
			t.Errorf("still there: %s", name)
		}
	}
}

// An existing deployment is measured through its API alone.
func TestADeploymentThatIsThere(t *testing.T) {
	e, base := apptest.Start(t, func(*config.Config) {})
	ch := &channel.Channel{Key: channel.Key{Type: message.Email}, Name: "x", Sender: "a@acme.test", Default: true, Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("SG.x")}}
	if err := e.Channels.Create(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	r, err := bench.Run(t.Context(), bench.Options{Leads: 300, Bulks: 2, Tell: t.Logf, URL: base})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 300, 0)
	if r.RedisPeak != nil || r.SingleP50MS != nil || r.FirstMessageMS != nil || len(r.RSSPeak) != 0 {
		t.Errorf("figures out of nowhere: %+v", r)
	}
	if n := e.Simulator.Report().Accepted; n != 600 {
		t.Errorf("%d messages were sent", n)
	}
}
