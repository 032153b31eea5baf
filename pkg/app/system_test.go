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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/queue"
	"herald/pkg/testenv"
)

// built says that there are binaries to remove.
var built bool

// binaries builds the programs once.
var binaries = sync.OnceValues(func() (string, error) {
	built = true
	dir, err := os.MkdirTemp("", "herald-bin-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "herald/cmd/...").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built {
		if dir, err := binaries(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// system is a deployment: real programs on a PostgreSQL database and a redis-server of their own, and the simulator as
// the witness of what was sent.
type system struct {
	t    *testing.T
	bin  string
	env  []string
	base string
	sim  *simulator.Simulator
	q    *queue.Client
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

func deploy(t *testing.T) *system {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, bin: bin}
	redisURL, databaseURL := testenv.Redis(t, testenv.RedisServer), testenv.Database(t, testenv.Postgres)
	sim, simURL := testenv.Simulator(t)
	s.sim = sim
	port := testenv.FreePort(t)
	s.base = fmt.Sprintf("http://127.0.0.1:%d", port)
	s.env = append(os.Environ(), "DATABASE_URL="+databaseURL, "REDIS_URL="+redisURL, "HERALD_MASTER_KEY="+testenv.MasterKey(),
		"HERALD_SENDGRID_URL="+simURL, "HERALD_TWILIO_URL="+simURL, "HERALD_INSTAGRAM_URL="+simURL, fmt.Sprintf("HERALD_LISTEN=127.0.0.1:%d", port),
		"HERALD_ADMIN_LISTEN=127.0.0.1:0")
	rdb, err := queue.Connect(redisURL, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	s.q = queue.NewClient(rdb)
	s.run("herald", "migrate", "up")
	s.start("api")
	testenv.Eventually(t, 20*time.Second, "the API is ready", func() bool {
		res, err := http.Get(s.base + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return s
}

func (s *system) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Env = s.env
	return cmd
}

func (s *system) run(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// start starts a program, and makes sure that it ends with the test, by itself and with success.
func (s *system) start(name string) *process {
	s.t.Helper()
	p := &process{cmd: s.command(name), log: &syncBuffer{}}
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

func (s *system) post(path, contentType, body string, into any, headers ...string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	s.do(req, into)
}

func (s *system) get(path string, into any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.base+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.do(req, into)
}

func (s *system) do(req *http.Request, into any) {
	s.t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode > 299 {
		s.t.Fatalf("%s %s: %d %s %v", req.Method, req.URL.Path, res.StatusCode, b, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		s.t.Fatal(err)
	}
}

type figures struct {
	BulkID  string `json:"bulk_id"`
	Status  string `json:"status"`
	Total   int    `json:"total_leads"`
	Sent    int    `json:"messages_sent"`
	Failed  int    `json:"messages_failed"`
	Pending int    `json:"messages_pending"`
}

// load imports n leads from CSV and returns their ids.
func (s *system) load(n int) []string {
	s.t.Helper()
	s.post("/api/channels", "application/json", `{"type":"EMAIL","name":"Mail","sender":"news@acme.test","credentials":{"api_key":"SG.secret"},"default":true}`, &struct{}{})
	ids := make([]string, n)
	var csv strings.Builder
	w := bufio.NewWriter(&csv)
	fmt.Fprintln(w, "id,first_name,email,company")
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
		fmt.Fprintf(w, "%s,Name%d,lead%d@example.com,Company %d\n", ids[i], i, i, i%50)
	}
	_ = w.Flush()
	var report struct{ Imported, Updated, Rejected int }
	s.post("/api/leads/import", "text/csv", csv.String(), &report)
	if report.Imported != n || report.Rejected != 0 {
		s.t.Fatalf("import: %+v", report)
	}
	return ids
}

func (s *system) sendBulk(ids []string) figures {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{
		"bulk_settings": map[string]any{"lead_ids": ids},
		"message_data":  map[string]any{"subject": "Hi {{ first_name }}", "content": "Hello {{ first_name }} of {{ company }}"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	var f figures
	s.post("/api/messaging/send", "application/json", string(body), &f, "Prefer", "respond-async")
	return f
}

func (s *system) finish(f figures) figures {
	s.t.Helper()
	testenv.Eventually(s.t, 5*time.Minute, "the bulk is complete", func() bool {
		s.get("/api/messaging/bulk/"+f.BulkID, &f)
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

// delivered returns how many messages a worker says that it has sent.
func (s *system) delivered(p *process) int {
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
	count := regexp.MustCompile(`herald_deliveries_total\{reason="",status="SENT",type="EMAIL"\} ([0-9]+)`).FindSubmatch(metrics)
	if count == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(count[1]))
	return n
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
			s.get("/api/messaging/bulk/"+f.BulkID, &f)
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
	var list struct {
		Items []struct{ Status message.Status }
	}
	s.get("/api/messaging/messages?status=unknown&bulk_id="+f.BulkID, &list)
	if len(list.Items) != 0 {
		t.Errorf("%d messages are UNKNOWN after an orderly stop", len(list.Items))
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
