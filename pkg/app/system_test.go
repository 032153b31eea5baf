package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"herald/pkg/client"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/queue"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/redisconn"
	"herald/pkg/testenv"
)

// built is the directories with programs that are to be removed.
var built []string

// build builds the programs, with the build tags given, and returns their directory.
func build(tags string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "herald-bin-")
		if err != nil {
			return "", err
		}
		built = append(built, dir)
		out, err := exec.Command("go", "build", "-tags", tags, "-o", dir, "herald/cmd/...").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build: %w: %s", err, out)
		}
		return dir, nil
	})
}

// The programs as they are, and those that die where a test wants it.
var binaries, faultyBinaries = build(""), build("faults")

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range built {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// system is a deployment: real programs on a PostgreSQL database and a redis-server of their own, and the simulator as
// the witness of what was sent.
type system struct {
	t        testing.TB
	bin      string
	env      []string
	base     string
	database string         // as the test reaches it, whatever stands between it and the programs
	api      *client.Client // makes every call once
	sim      *simulator.Simulator
	simURL   string
	rdb      redis.UniversalClient
	q        *queue.Client

	startedAPI *process
}

// process is one running program.
type process struct {
	cmd *exec.Cmd
	log *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// plan is what is special about a deployment; what is empty is made.
type plan struct {
	programs func() (string, error)
	database string // of the test's own
	redis    string
	env      []string // of the programs
	api      []string // of the API alone
}

func deploy(t testing.TB) *system {
	t.Helper()
	return deployAs(t, plan{})
}

func deployAs(t testing.TB, p plan) *system {
	t.Helper()
	if p.programs == nil {
		p.programs = binaries
	}
	if p.redis == "" {
		p.redis = testenv.Redis(t, testenv.RedisServer)
	}
	if p.database == "" {
		p.database = testenv.Database(t, testenv.Postgres)
	}
	bin, err := p.programs()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, bin: bin, database: p.database}
	s.sim, s.simURL = testenv.Simulator(t)
	port := testenv.FreePort(t)
	s.base = fmt.Sprintf("http://127.0.0.1:%d", port)
	if s.api, err = client.New(s.base, client.WithPatience(0)); err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), "DATABASE_URL="+p.database, "REDIS_URL="+p.redis, "HERALD_MASTER_KEY="+testenv.MasterKey(),
		"HERALD_SENDGRID_URL="+s.simURL, "HERALD_TWILIO_URL="+s.simURL, "HERALD_INSTAGRAM_URL="+s.simURL,
		fmt.Sprintf("HERALD_LISTEN=127.0.0.1:%d", port), "HERALD_OPEN=loopback", "HERALD_ADMIN_LISTEN=127.0.0.1:0")
	s.env = append(s.env, p.env...) // the last value of a variable counts
	if s.rdb, err = redisconn.Connect(p.redis, 4); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.q = queue.NewClient(s.rdb, asynqfast.Options{})
	s.run("herald", "migrate", "up")
	s.startAPI(p.api...)
	return s
}

// startAPI starts the API and waits until it answers.
func (s *system) startAPI(env ...string) *process {
	s.t.Helper()
	p := s.start("api", env...)
	s.startedAPI = p
	testenv.Eventually(s.t, 30*time.Second, "the API is ready", func() bool {
		return s.api.Ready(context.Background()) == nil
	})
	return p
}

func (s *system) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Env = slices.Clone(s.env)
	return cmd
}

func (s *system) run(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// start starts a program, and makes sure that it ends with the test, by itself and with success.
func (s *system) start(name string, env ...string) *process {
	s.t.Helper()
	p := &process{cmd: s.command(name), log: &syncBuffer{}}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.terminate(p) })
	return p
}

func (s *system) terminate(p *process) {
	s.t.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be frozen
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			s.t.Errorf("%s ended with %v: %s", p.cmd.Path, err, p.log)
		}
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		s.t.Errorf("%s does not stop: %s", p.cmd.Path, p.log)
	}
}

// figures is how a bulk stands, in the short words of these tests.
type figures struct {
	BulkID, Status                        string
	Total, Sent, Failed, Pending, Unknown int
	Channel                               *contract.BulkChannel
	Reasons                               map[message.Reason]int64
}

func figuresOf(b *client.Bulk) figures {
	return figures{
		b.BulkID, b.Status, int(b.TotalLeads), int(b.MessagesSent), int(b.MessagesFailed), int(b.MessagesPending), int(b.MessagesUnknown), b.Channel, b.FailureReasons,
	}
}

// must fails the test when a call of the client failed.
func must[T any](s *system) func(v *T, err error) *T {
	return func(v *T, err error) *T {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
		return v
	}
}

// bulk returns how a bulk stands.
func (s *system) bulk(id string) figures {
	s.t.Helper()
	return figuresOf(must[client.Bulk](s)(s.api.Bulk(s.t.Context(), id)))
}

// load makes the channels, imports n leads from CSV and returns their ids.
func (s *system) load(n int) []string {
	s.t.Helper()
	for _, c := range []client.NewChannel{
		{ID: mailChannel, Type: "email", Name: "Mail", Sender: "news@acme.test", Credentials: map[string]string{"api_key": "SG.secret"}},
		{ID: textChannel, Type: "sms", Name: "SMS", Sender: "+15005550006", Credentials: map[string]string{"account_sid": "AC00000000000000000000000000000000", "auth_token": "secret"}},
	} {
		c.Default = true
		must[client.Channel](s)(s.api.CreateChannel(s.t.Context(), c))
	}
	ids := make([]string, n)
	var csv strings.Builder
	w := bufio.NewWriter(&csv)
	fmt.Fprintln(w, "id,first_name,email,phone,company")
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
		fmt.Fprintf(w, "%s,Name%d,lead%d@example.com,+1555%07d,Company %d\n", ids[i], i, i, i, i%50)
	}
	_ = w.Flush()
	report := must[client.ImportReport](s)(s.api.ImportLeads(s.t.Context(), client.CSV, strings.NewReader(csv.String())))
	if report.Imported != n || report.Rejected != 0 {
		s.t.Fatalf("import: %+v", report)
	}
	return ids
}

const (
	mailChannel = "0190a000-0000-7000-8000-000000000001"
	textChannel = "0190a000-0000-7000-8000-000000000002"
)

// request asks for a bulk of a type to some leads.
func (s *system) request(typ string, ids []string) client.SendRequest {
	r := client.SendRequest{
		SenderType: typ, BulkSettings: &client.BulkSettings{LeadIDs: ids}, MessageData: client.MessageData{Content: "Hello {{ first_name }} of {{ company }}"},
	}
	if typ == "email" {
		r.MessageData.Subject = "Hi {{ first_name }}"
	}
	return r
}

// order is request as it goes over the wire.
func (s *system) order(typ string, ids []string) string {
	s.t.Helper()
	body, err := json.Marshal(s.request(typ, ids))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(body)
}

func (s *system) sendBulk(ids []string) figures {
	s.t.Helper()
	return s.sendBulkOf("email", ids)
}

func (s *system) sendBulkOf(typ string, ids []string) figures {
	s.t.Helper()
	return figuresOf(must[client.Bulk](s)(s.api.SendBulk(s.t.Context(), s.request(typ, ids))))
}

func (s *system) finish(f figures) figures {
	s.t.Helper()
	testenv.Eventually(s.t, 5*time.Minute, "the bulk is complete", func() bool {
		f = s.bulk(f.BulkID)
		if f.Sent+f.Failed+f.Pending != f.Total {
			s.t.Fatalf("the figures do not add up: %+v", f)
		}
		return f.Status == "COMPLETED"
	})
	return f
}

// exactlyOnce compares what the bulk says with what the simulator saw.
func (s *system) exactlyOnce(f figures, n int) {
	s.t.Helper()
	rep := s.sim.Report()
	if f.Total != n || f.Sent != n || f.Failed != 0 || rep.Accepted != int64(n) || rep.Recipients != n || len(rep.Repeated) != 0 {
		s.t.Errorf("%+v; the simulator accepted %d for %d recipients, %d more than once", f, rep.Accepted, rep.Recipients, len(rep.Repeated))
	}
}

func (s *system) noTaskLeft() {
	s.t.Helper()
	for _, name := range queue.Names() {
		testenv.Eventually(s.t, 10*time.Second, "no task is left in "+name, func() bool {
			depth, err := s.q.Depth(s.t.Context(), name)
			if err != nil {
				s.t.Fatal(err)
			}
			return depth["pending"]+depth["active"]+depth["scheduled"]+depth["retry"]+depth["archived"] == 0
		})
	}
}

// metrics returns the metrics of a process.
func (s *system) metrics(p *process) string {
	s.t.Helper()
	_, after, ok := strings.Cut(p.log.String(), `"msg":"admin listens"`)
	address := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(after)
	if !ok || address == nil {
		s.t.Fatalf("no admin address: %s", p.log)
	}
	res, err := http.Get("http://" + address[1] + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(metrics)
}

// metric returns the first value of a metric of a process, 0 when it has none. The name may carry labels.
func (s *system) metric(p *process, name string) float64 {
	s.t.Helper()
	v := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(s.metrics(p))
	if v == nil {
		return 0
	}
	n, err := strconv.ParseFloat(v[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// delivered returns how many messages a worker says that it has sent.
func (s *system) delivered(p *process) int {
	s.t.Helper()
	return int(s.metric(p, `herald_deliveries_total{reason="",status="SENT",type="EMAIL"}`))
}

// watchPending notes the largest number of tasks that wait in a queue, until the context ends.
func (s *system) watchPending(ctx context.Context, name string) *atomic.Int64 {
	peak := &atomic.Int64{}
	go func() {
		for ctx.Err() == nil {
			if d, err := s.q.Depth(ctx, name); err == nil && d["pending"]+d["scheduled"]+d["retry"] > peak.Load() {
				peak.Store(d["pending"] + d["scheduled"] + d["retry"])
			}
		}
	}()
	return peak
}

const (
	systemLeads = 20_000
	workers     = 2
	window      = 2_000 // tasks of a bulk per worker
)

func TestBulkOverAFleet(t *testing.T) {
	s := deploy(t)
	for range workers {
		s.start("worker")
	}
	ids := s.load(systemLeads)
	ctx, stop := context.WithCancel(t.Context())
	peak := s.watchPending(ctx, "email.normal")
	f := s.finish(s.sendBulk(ids))
	stop()
	s.exactlyOnce(f, systemLeads)
	s.noTaskLeft()
	if p := peak.Load(); p == 0 || p > workers*window {
		t.Errorf("up to %d tasks were waiting, the window is %d", p, workers*window)
	}
}

// A worker that comes shares the work, and one that is told to go loses nothing and repeats nothing.
func TestWorkersComeAndGo(t *testing.T) {
	const n = 6_000
	s := deploy(t)
	s.sim.SetLatency(20 * time.Millisecond)
	first := s.start("worker")
	f := s.sendBulk(s.load(n))
	progress := func(share int) {
		testenv.Eventually(t, time.Minute, "some messages are sent", func() bool {
			f = s.bulk(f.BulkID)
			return f.Sent >= n*share/10
		})
	}
	progress(2)
	second := s.start("worker")
	progress(4)
	s.terminate(first)
	if f.Status == "COMPLETED" {
		t.Fatal("the bulk was over before the worker went: nothing is shown")
	}
	f = s.finish(f)
	s.exactlyOnce(f, n)
	s.noTaskLeft()
	if sent := s.delivered(second); sent < n/5 {
		t.Errorf("the second worker sent %d of %d messages", sent, n)
	}
	s.terminate(second)
	for name, p := range map[string]*process{"first": first, "second": second} {
		if strings.Contains(p.log.String(), `"level":"ERROR"`) {
			t.Errorf("the %s worker logged errors: %s", name, p.log)
		}
	}
	for m, err := range s.api.Messages(t.Context(), client.MessageFilter{BulkID: f.BulkID, Status: message.Unknown}) {
		t.Errorf("message %s is UNKNOWN after an orderly stop (%v)", m.ID, err)
	}
}

func TestServersRefuseToStart(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	empty := testenv.Database(t, testenv.SQLite)
	key := "HERALD_MASTER_KEY=" + testenv.MasterKey()
	for name, c := range map[string]struct {
		env  []string
		code int
		says []string
	}{
		"without settings":           {nil, 2, []string{"DATABASE_URL", "REDIS_URL", "HERALD_MASTER_KEY"}},
		"every mistake at once":      {[]string{"HERALD_BULK_WAIT=x", "HERALD_FEED_WINDOW=-1", "HERALD_WORKER_CONCURRENCY=fax=1"}, 2, []string{"HERALD_BULK_WAIT", "HERALD_FEED_WINDOW", "HERALD_WORKER_CONCURRENCY", "DATABASE_URL"}},
		"on a schema that is behind": {[]string{"DATABASE_URL=" + empty, "REDIS_URL=redis://127.0.0.1:1", key}, 1, []string{"herald migrate up"}},
	} {
		for _, program := range []string{"api", "worker"} {
			cmd := exec.Command(filepath.Join(bin, program))
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, c.env...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("%s %s: exit code %d, want %d: %s", program, name, got, c.code, out)
			}
			for _, want := range c.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s %s: does not name %s: %s", program, name, want, out)
				}
			}
		}
	}
}
