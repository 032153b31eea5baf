package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"herald/pkg/app/apptest"
	"herald/pkg/bench"
	"herald/pkg/channel"
	"herald/pkg/config"
	"herald/pkg/message"
	"herald/pkg/testenv"
)

func check(t *testing.T, r *bench.Report, leads int, latency float64) {
	t.Helper()
	if r.Leads != leads || r.Rate <= 0 || r.Seconds <= 0 || r.Planning <= 0 || r.StatisticsP99 <= 0 || r.Import <= 0 || r.LatencyMS != latency {
		t.Errorf("%+v", r)
	}
}

// The bench starts the real programs, sends, and leaves nothing behind.
func TestADeploymentOfItsOwn(t *testing.T) {
	server, redis := testenv.PostgresServer(t), testenv.RedisProgram(t)
	program := filepath.Join(t.TempDir(), "herald")
	if out, err := exec.Command("go", "build", "-o", program, "herald/cmd/herald").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
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
	for _, stage := range []string{"plan", "enqueue", "dequeue", "claim", "send", "settle", "count", "ack"} {
		if r.Stages[stage].Count < 1 {
			t.Errorf("no stage %s: %+v", stage, r.Stages)
		}
	}
}

// A deployment that is there is measured by its API alone.
func TestADeploymentThatIsThere(t *testing.T) {
	e, base := apptest.Start(t, func(*config.Config) {})
	ch := &channel.Channel{Key: channel.Key{Type: message.Email}, Name: "x", Sender: "a@acme.test", Default: true, Credentials: map[string]channel.Secret{"api_key": channel.NewSecret("SG.x")}}
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
