package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/redis/go-redis/v9"

	"herald/pkg/client"
	"herald/pkg/provider/vendors"
)

// deployment is the deployment under measurement.
type deployment struct {
	api       *client.Client
	simulator string
	admin     []string
	tag       string // of the imported leads
	own       bool

	database string // the URL of the created database
	server   string
	rdb      *redis.Client
	workers  []*process
	started  []*process // in the order of their start
}

// process is a program that the bench started.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines chan string   // lines of its output; those that nothing reads in time are dropped
	done  chan struct{} // closed when it has ended
	out   *tail
}

// tail keeps the end of a program's output, which says why the program failed, and passes whole lines on. It may be read
// while the program writes.
type tail struct {
	mu    sync.Mutex
	kept  []byte
	part  []byte
	lines chan string
}

const keptBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(len(t.kept)-keptBytes, 0):]
	t.part = append(t.part, b...)
	for {
		line, rest, complete := bytes.Cut(t.part, []byte("\n"))
		if !complete {
			return len(b), nil
		}
		select {
		case t.lines <- string(line):
		default:
		}
		t.part = rest
	}
}

// String returns the end of the output.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

const keptLines = 256

func deploy(ctx context.Context, o Options) (*deployment, error) {
	d := &deployment{tag: "bench " + randomHex(4), simulator: o.Simulator, admin: o.Admin}
	var err error
	if o.URL != "" {
		d.api, err = client.New(o.URL, client.WithKey(o.Key))
		return d, err
	}
	d.own = true
	if err := d.start(ctx, o); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// start starts all programs on a new Redis and a new database.
func (d *deployment) start(ctx context.Context, o Options) error {
	if err := d.startRedis(o.Redis); err != nil {
		return err
	}
	if err := d.makeDatabase(ctx, o.Postgres); err != nil {
		return err
	}
	// A real provider runs on other machines, so its simulator should take little of this one.
	spare := append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	var sim *process
	var err error
	patiently(func() {
		sim, err = d.launch(o.Program, "simulator", spare, "simulator", "--listen", "127.0.0.1:0", "--latency", o.Latency.String())
	})
	if err != nil {
		return err
	}
	if d.simulator, err = sim.says("simulator listens on "); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	env := append(os.Environ(),
		"DATABASE_URL="+d.database, "REDIS_URL=redis://"+d.rdb.Options().Addr+"/0", "HERALD_MASTER_KEY="+base64.StdEncoding.EncodeToString(key),
		"HERALD_LISTEN=127.0.0.1:0", "HERALD_OPEN=loopback", "HERALD_ADMIN_LISTEN=127.0.0.1:0", "HERALD_PPROF=true", "HERALD_DRAIN_DELAY=0s", "HERALD_LOG_FORMAT=json", "HERALD_LOG_LEVEL=info")
	for _, p := range vendors.All.Providers() {
		env = append(env, p.URLSetting()+"="+d.simulator)
	}
	migrate := exec.CommandContext(ctx, o.Program, "migrate", "up") //nolint:gosec // this very program
	migrate.Env = env
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w: %s", err, out)
	}
	api, err := d.launch(o.Program, "api", env, "api")
	if err != nil {
		return err
	}
	for i := range o.Workers {
		w, err := d.launch(o.Program, "worker"+strconv.Itoa(i+1), env, "worker")
		if err != nil {
			return err
		}
		d.workers = append(d.workers, w)
	}
	for _, p := range append([]*process{api}, d.workers...) {
		addr, err := p.says(`"msg":"admin listens"`)
		if err != nil {
			return err
		}
		d.admin = append(d.admin, field(addr, "address"))
	}
	line, err := api.says(`"msg":"api listens"`)
	if err != nil {
		return err
	}
	if d.api, err = client.New("http://" + field(line, "address")); err != nil {
		return err
	}
	_, err = d.api.CreateChannel(ctx, client.NewChannel{
		Type: "email", Name: "Bench", Sender: "news@bench.example", Credentials: map[string]string{"api_key": "SG.of-the-bench"}, ChannelFields: client.ChannelFields{Default: true},
	})
	return err
}

func field(line, name string) string {
	var doc map[string]any
	_ = json.Unmarshal([]byte(line[max(strings.IndexByte(line, '{'), 0):]), &doc) // without it the address is empty, and the next step says so
	s, _ := doc[name].(string)
	return s
}

// errEnded is the error of a program that has ended instead of starting.
var errEnded = errors.New("it ended")

// portTries is how many ports are tried: another program may take a free port before Redis binds it.
const portTries = 5

// startRedis starts a redis-server. It cannot report a port that it chose itself, so it is told a port that is free; when
// that has been taken meanwhile, redis-server ends, and another port is tried.
func (d *deployment) startRedis(program string) error {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addr := l.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		_ = l.Close()
		p, err := d.launch(program, "redis", nil, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
		if err != nil {
			return err
		}
		if _, err = p.says("Ready to accept connections"); err == nil {
			d.rdb = redis.NewClient(&redis.Options{Addr: addr})
			return nil
		}
		if !errors.Is(err, errEnded) || try == portTries {
			return err
		}
		d.started = slices.DeleteFunc(d.started, func(other *process) bool { return other == p })
	}
}

func (d *deployment) makeDatabase(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("the address of PostgreSQL: %w", err)
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	name := "herald_bench_" + randomHex(6)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	u.Path = "/" + name
	d.server, d.database = server, u.String()
	return nil
}

// launch starts a program in its own session.
func (d *deployment) launch(program, name string, env []string, args ...string) (*process, error) {
	p := &process{
		name: name, cmd: exec.Command(program, args...), lines: make(chan string, keptLines), done: make(chan struct{}), //nolint:gosec,noctx // programs that the user named; they are stopped in order
	}
	p.out = &tail{lines: p.lines}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, p.out, p.out
	p.cmd.SysProcAttr = ownSession()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	d.started = append(d.started, p)
	return p, nil
}

// startTimeout is how long a program may take to report that it has started.
const startTimeout = 30 * time.Second

// says waits for a line of output that contains a text. It returns the line if that is JSON, and else what follows the
// text.
func (p *process) says(text string) (string, error) {
	timeout := time.After(startTimeout)
	for {
		select {
		case line := <-p.lines:
			if _, after, ok := strings.Cut(line, text); ok {
				if strings.HasPrefix(line, "{") {
					return line, nil
				}
				return strings.TrimSpace(after), nil
			}
		case <-p.done:
			return "", fmt.Errorf("start %s: %w: %s", p.name, errEnded, p.out)
		case <-timeout:
			return "", fmt.Errorf("start %s: it does not report that it is ready: %s", p.name, p.out)
		}
	}
}

// stop ends the programs, the last one first, and removes the database.
func (d *deployment) stop() {
	for _, p := range slices.Backward(d.started) {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // it has ended, or this is Windows
			_ = p.cmd.Process.Kill()
		}
		<-p.done
	}
	if d.rdb != nil {
		_ = d.rdb.Close()
	}
	if d.database == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if conn, err := pgx.Connect(ctx, d.server); err == nil {
		u, _ := url.Parse(d.database)
		_, _ = conn.Exec(ctx, "DROP DATABASE "+strings.TrimPrefix(u.Path, "/")+" WITH (FORCE)")
		_ = conn.Close(ctx)
	}
}

const importPart = 500_000 // leads per file, well below the limit of an import

// importLeads imports n leads with the tag of this run.
func (d *deployment) importLeads(ctx context.Context, n int) error {
	for from := 0; from < n; from += importPart {
		r, w := io.Pipe()
		go func() {
			b := bufio.NewWriter(w)
			_, _ = b.WriteString("first_name,email,company,tags\n")
			for i := from; i < min(from+importPart, n); i++ {
				_, _ = fmt.Fprintf(b, "Name%d,lead%d+%s@bench.example,Company %d,%s\n", i, i, d.tag[len("bench "):], i%100, d.tag)
			}
			_ = w.CloseWithError(b.Flush())
		}()
		rep, err := d.api.ImportLeads(ctx, client.CSV, r)
		if err != nil {
			return err
		}
		if rep.Rejected > 0 || rep.Updated > 0 {
			return fmt.Errorf("import: %+v", rep)
		}
	}
	return nil
}

// request is a bulk to the imported leads.
func (d *deployment) request() client.SendRequest {
	settings := &client.BulkSettings{AllLeads: true}
	if !d.own {
		settings = &client.BulkSettings{Filters: &client.FilterRequest{Conditions: []client.FilterNode{{Condition: &client.Condition{Field: "tags", Operator: "contains", Value: d.tag}}}}}
	}
	return client.SendRequest{BulkSettings: settings, MessageData: client.MessageData{
		Subject: "Hello {{ first_name }}", HTMLContent: "<p>Hi {{ first_name }} of {{ company }}, your order is ready.</p>",
	}}
}

// settle vacuums and checkpoints the database, so that the bulk does not pay for the import.
func (d *deployment) settle(ctx context.Context) error {
	if !d.own {
		return nil
	}
	conn, err := pgx.Connect(ctx, d.database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "VACUUM ANALYZE leads"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CHECKPOINT")
	return err
}

// report is the report of the simulator.
type report struct {
	Accepted   int64          `json:"accepted"`
	Recipients int            `json:"recipients"`
	Repeated   map[string]int `json:"repeated"`
	First      time.Time      `json:"first"`
}

func (d *deployment) witness(ctx context.Context) (*report, error) {
	if d.simulator == "" {
		return nil, errors.New("the URL of the simulator is not known")
	}
	var r report
	return &r, fetch(ctx, d.simulator+"/simulator/report", func(b io.Reader) error { return json.NewDecoder(b).Decode(&r) })
}

func fetch(ctx context.Context, address string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return read(res.Body)
}

// firstMessage returns the time from began to the first message that the simulator accepted, if it is known.
func (d *deployment) firstMessage(ctx context.Context, began time.Time) (time.Duration, bool) {
	r, err := d.witness(ctx)
	if err != nil || r.First.Before(began) {
		return 0, false
	}
	return r.First.Sub(began), true
}

// begun waits until the simulator has accepted a message. It returns false if ctx ends first, and true at once without a
// simulator.
func (d *deployment) begun(ctx context.Context) bool {
	for d.simulator != "" {
		if r, err := d.witness(ctx); err == nil && r.Accepted > 0 {
			return true
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

const lookEvery = 10 * time.Millisecond

// once returns an error if a recipient received a message twice.
func (d *deployment) once(ctx context.Context, o Options) error {
	if !d.own {
		return nil
	}
	r, err := d.witness(ctx)
	switch {
	case err != nil:
		return err
	case o.Bulks == 1 && len(r.Repeated) > 0:
		return fmt.Errorf("%d recipients received a message twice", len(r.Repeated))
	}
	return nil
}

// redisPeak returns used_memory_peak of the bench's Redis in bytes, nil for another Redis.
func (d *deployment) redisPeak(ctx context.Context) *int64 {
	if d.rdb == nil {
		return nil
	}
	info, err := d.rdb.Info(ctx, "memory").Result()
	if err != nil {
		return nil
	}
	_, after, _ := strings.Cut(info, "used_memory_peak:")
	line, _, _ := strings.Cut(after, "\r\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// stages reads the stage metrics of all programs. It skips programs that do not answer.
func (d *deployment) stages(ctx context.Context) map[string]Stage {
	all := map[string]Stage{}
	for _, a := range d.admin {
		_ = fetch(ctx, "http://"+a+"/metrics", func(b io.Reader) error {
			parser := expfmt.NewTextParser(model.LegacyValidation)
			families, err := parser.TextToMetricFamilies(b)
			for name, f := range families {
				if name != "herald_delivery_stage_seconds" && name != "herald_message_step_seconds" {
					continue
				}
				for _, m := range f.GetMetric() {
					for _, label := range m.GetLabel() {
						if n := label.GetName(); n == "stage" || n == "step" {
							s := all[label.GetValue()]
							s.Count += int64(m.GetHistogram().GetSampleCount())
							s.Seconds += m.GetHistogram().GetSampleSum()
							all[label.GetValue()] = s
						}
					}
				}
			}
			return err
		})
	}
	return all
}

func difference(after, before map[string]Stage) map[string]Stage {
	out := map[string]Stage{}
	for name, s := range after {
		s.Count -= before[name].Count
		s.Seconds -= before[name].Seconds
		if s.Count > 0 {
			s.MeanUS = s.Seconds / float64(s.Count) * 1e6
			out[name] = s
		}
	}
	return out
}
