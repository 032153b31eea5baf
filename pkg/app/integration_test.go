package app_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"herald/pkg/app"
	"herald/pkg/config"
	"herald/pkg/testenv"
)

// lines returns the lines of a program's log with a message, decoded.
func (p *process) lines(msg string) (out []map[string]any) {
	for line := range strings.Lines(p.log.String()) {
		var got map[string]any
		if json.Unmarshal([]byte(line), &got) == nil && strings.HasPrefix(fmt.Sprint(got["msg"]), msg) {
			out = append(out, got)
		}
	}
	return out
}

// A server that cannot start because of its settings tells all mistakes at once, with the exit code of wrong usage.
func TestIntegrationMistakesAreToldTogether(t *testing.T) {
	t.Parallel()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, bin: bin, env: append(os.Environ(), "DATABASE_URL=mysql://db", "REDIS_URL=http://redis", "HERALD_MASTER_KEY=", "HERALD_MASTER_KEYS=secret", "HERALD_LISTEN=8080")}
	for _, name := range []string{"api", "worker"} {
		cmd := s.command(name)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != app.ExitUsage {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"DATABASE_URL: ", "REDIS_URL: ", "HERALD_MASTER_KEY: is required", "HERALD_LISTEN: ", "HERALD_MASTER_KEYS is not a setting and is ignored; the nearest is HERALD_MASTER_KEY"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s does not say %q: %s", name, want, out)
			}
		}
		if strings.Contains(string(out), "secret") {
			t.Errorf("%s shows the value of a variable: %s", name, out)
		}
	}
}

// Every program tells its version: for people, in its log, to probes and as a metric.
func TestIntegrationEveryProgramTellsItsVersion(t *testing.T) {
	t.Parallel()
	s := deployAs(t, plan{env: []string{"HERALD_LISTN=127.0.0.1:1"}})
	for name, want := range map[string]string{"api": "herald api ", "worker": "herald worker ", "herald": "herald "} {
		out, err := s.command(name, "--version").Output()
		if err != nil || !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "go1.") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s --version: %q, %v", name, out, err)
		}
	}
	var build struct{ Version, Go string }
	out, err := s.command("herald", "version", "--json").Output()
	if err != nil || json.Unmarshal(out, &build) != nil || build.Version == "" {
		t.Fatalf("herald version: %s, %v", out, err)
	}
	for name, p := range map[string]*process{"api": s.startedAPI, "worker": s.start("worker")} {
		admin := s.address(p, "admin listens")
		if starts := p.lines("herald starts"); len(starts) != 1 || starts[0]["version"] != build.Version || starts[0]["go"] != build.Go {
			t.Errorf("%s starts with %v, want %+v", name, starts, build)
		}
		if unknown := p.lines("unknown setting"); len(unknown) != 1 || unknown[0]["variable"] != "HERALD_LISTN" || unknown[0]["nearest"] != "HERALD_LISTEN" || unknown[0]["level"] != "WARN" {
			t.Errorf("%s warns of %v", name, unknown)
		}
		if metrics := s.metrics(p); !strings.Contains(metrics, "herald_build_info{") || !strings.Contains(metrics, fmt.Sprintf("version=%q} 1\n", build.Version)) {
			t.Errorf("%s has no metric of its build: %s", name, metrics)
		}
		var alive map[string]string
		res, err := http.Get("http://" + admin + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(res.Body).Decode(&alive); err != nil || alive["version"] != build.Version {
			t.Errorf("%s: %v, %v", name, alive, err)
		}
		_ = res.Body.Close()
	}
	if _, body := s.try("GET", "/healthz", ""); !strings.Contains(body, build.Version) {
		t.Errorf("/healthz: %s", body)
	}
}

// While Redis is away, each program says so once and where, and says when it is back. The queue's library does not flood.
func TestIntegrationAnOutageOfRedisIsInTheLog(t *testing.T) {
	t.Parallel()
	rdb := testenv.StartRedis(t)
	s := deployAs(t, plan{redis: rdb.URL})
	programs := []*process{s.startedAPI, s.start("worker")}
	s.address(programs[1], "admin listens")
	rdb.Kill()
	for _, p := range programs {
		s.eventually(30*time.Second, "the outage is told", func() bool { return len(p.lines("redis does not answer")) > 0 })
	}
	worker := programs[1]
	s.eventually(30*time.Second, "Asynq notices as well", func() bool { return strings.Contains(worker.log.String(), `"component":"asynq"`) })
	before := time.Now()
	s.eventually(30*time.Second, "time goes by", func() bool { return time.Since(before) > 5*time.Second })
	rdb.Start()
	for _, p := range programs {
		s.eventually(time.Minute, "the end of the outage is told", func() bool { return len(p.lines("redis answers again")) == 1 })
		told := p.lines("redis does not answer")
		if told[0]["level"] != "WARN" || told[0]["address"] != rdb.Socket || told[0]["component"] != "redis" || len(told) > 3 { // the first, and reminders after 10 and 30 s on a slow machine
			t.Errorf("%v", told)
		}
		if again := p.lines("redis answers again")[0]; again["level"] != "INFO" || again["address"] != rdb.Socket || again["seconds"].(float64) < 4 {
			t.Errorf("%v", again)
		}
	}
	asynq := map[string]int{}
	for _, line := range strings.Split(worker.log.String(), "\n") {
		if strings.Contains(line, `"component":"asynq"`) {
			asynq[line]++
		}
		if strings.Count(line, `"msg":`) > 1 {
			t.Errorf("two messages in one line: %s", line)
		}
	}
	if len(asynq) > 10 {
		t.Errorf("%d lines of Asynq: %v", len(asynq), asynq)
	}
}

// A client that honours /readyz loses no request when the API is stopped under load: the API says that it is not ready, goes on
// for a while, and only then closes its port.
func TestIntegrationNoRequestIsLostWhenTheAPIStops(t *testing.T) {
	t.Parallel()
	s := deployAs(t, plan{api: []string{"HERALD_DRAIN_DELAY=2m"}})
	s.load(1)
	var stopped, ready atomic.Bool
	var sent, late, lost atomic.Int64
	ready.Store(true)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 30 * time.Second}
	var load sync.WaitGroup
	for i := range 8 {
		load.Go(func() {
			for n := 0; ready.Load(); n++ {
				body := fmt.Sprintf(`{"message_data":{"recipient":"d%d.%d@example.com","subject":"s","content":"c"}}`, i, n)
				after := stopped.Load()
				res, err := client.Post(s.base+"/api/messaging/send", "application/json", strings.NewReader(body))
				if err != nil || res.StatusCode != http.StatusOK {
					lost.Add(1)
					t.Errorf("a request is lost: %v %v", res, err)
					continue
				}
				_ = res.Body.Close()
				sent.Add(1)
				if after {
					late.Add(1)
				}
			}
		})
	}
	s.eventually(time.Minute, "there is load", func() bool { return sent.Load() >= 50 })
	stopped.Store(true)
	s.startedAPI.signal(syscall.SIGTERM)
	probes := 0
	s.eventually(10*time.Second, "the API is not ready", func() bool {
		probes++
		res, err := client.Get(s.base + "/readyz")
		if err != nil {
			t.Fatalf("the port was closed before /readyz said anything: %v", err)
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusServiceUnavailable
	})
	s.eventually(time.Minute, "requests are answered while it drains", func() bool { return late.Load() >= 8 })
	ready.Store(false)
	load.Wait()
	s.eventually(time.Minute, "it stops", func() bool {
		s.startedAPI.signal(syscall.SIGTERM) // the second one ends the wait
		return s.startedAPI.ended()
	})
	if !s.startedAPI.cmd.ProcessState.Success() || len(s.startedAPI.lines("draining")) != 1 {
		t.Errorf("%v: %s", s.startedAPI.cmd.ProcessState, s.startedAPI.log)
	}
	t.Logf("%d requests, %d of them after the signal, %d lost; not ready at probe %d", sent.Load(), late.Load(), lost.Load(), probes)
}

// While the process drains it is not ready, and answers close their connections.
func TestIntegrationDrainingClosesConnections(t *testing.T) {
	e := embedded(t, func(c *config.Config) { c.DrainDelay = 2 * time.Second })
	defer e.Stop()
	addr, err := e.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	probe := func() *http.Response {
		t.Helper()
		res, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	if res := probe(); res.Close || res.StatusCode != http.StatusOK {
		t.Errorf("before: %d, closes: %v", res.StatusCode, res.Close)
	}
	drained := make(chan struct{})
	go func() {
		e.Drain()
		close(drained)
	}()
	testenv.Eventually(t, 10*time.Second, "it is not ready", func() bool { return probe().StatusCode == http.StatusServiceUnavailable })
	testenv.Eventually(t, 10*time.Second, "answers close their connections", func() bool { return probe().Close })
	select {
	case <-drained:
	case <-time.After(30 * time.Second):
		t.Error("the wait does not end")
	}
}

// A second signal ends the wait.
func TestIntegrationASecondSignalEndsTheWait(t *testing.T) {
	t.Parallel()
	s := deployAs(t, plan{api: []string{"HERALD_DRAIN_DELAY=5m"}})
	s.startedAPI.signal(syscall.SIGTERM)
	s.eventually(30*time.Second, "it drains", func() bool { return len(s.startedAPI.lines("draining")) == 1 })
	s.eventually(50*time.Second, "it ends", func() bool {
		s.startedAPI.signal(syscall.SIGTERM)
		return s.startedAPI.ended()
	})
	if !s.startedAPI.cmd.ProcessState.Success() {
		t.Errorf("%v: %s", s.startedAPI.cmd.ProcessState, s.startedAPI.log)
	}
}

// An address in use is told with the setting that moves it.
func TestIntegrationAnAddressInUse(t *testing.T) {
	first := embedded(t, nil)
	defer first.Stop()
	addr, err := first.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := embedded(t, func(c *config.Config) { c.Listen, c.AdminListen = addr, addr })
	defer second.Stop()
	if _, err := second.StartAPI(t.Context()); err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "set HERALD_LISTEN to another") {
		t.Errorf("the API: %v", err)
	}
	if err := second.StartAdmin("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "set HERALD_ADMIN_LISTEN to another") {
		t.Errorf("the admin listener: %v", err)
	}
}

// Two processes do not serve one directory. The lock ends with the first.
func TestIntegrationOneProcessServesADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	open := func() (*app.Embedded, error) {
		cfg, err := config.Parse(0)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen, cfg.DatabaseURL, cfg.RedisURL = "127.0.0.1:0", "", ""
		return app.OpenEmbedded(t.Context(), cfg, dir, false, slog.New(slog.DiscardHandler))
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := open(); err == nil {
		second.Stop()
		first.Stop()
		t.Fatal("two processes serve one directory")
	} else if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "HERALD_DATA") {
		t.Errorf("%v", err)
	}
	first.Stop()
	again, err := open()
	if err != nil {
		t.Fatal(err)
	}
	again.Stop()
}
