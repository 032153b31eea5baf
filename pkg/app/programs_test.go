package app_test

import (
	"bytes"
	"context"
	"flag"
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
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/queue"
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
		out, err := exec.Command("go", "build", "-tags", tags, "-ldflags", "-s -w", "-o", dir, "herald/cmd/...").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build: %w: %s", err, out)
		}
		return dir, nil
	})
}

// The programs of a release, and programs that end at a point that a test selects.
var binaries, faultyBinaries = build(""), build("faults")

// shared is the PostgreSQL server of all deployments that do not need one for themselves. Each program may open 24
// connections, so several deployments beside each other would use up the server that the tests of all packages share.
var shared struct {
	sync.Mutex
	cluster *testenv.Cluster
	atEnd   []func()
}

// longLived is the test for which the shared server is started. The server outlives it.
type longLived struct{ testing.TB }

// Cleanup implements testing.TB. TestMain calls f.
func (longLived) Cleanup(f func()) { shared.atEnd = append(shared.atEnd, f) }

// sharedPostgres returns the shared server, which the first caller starts.
func sharedPostgres(t testing.TB) *testenv.Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		shared.cluster = testenv.StartPostgres(longLived{t})
	}
	return shared.cluster
}

// TestMain lets more tests run beside each other than there are processors. A test here spends most of its time waiting for
// a lease, a claim or a back-off of the programs to end. The flag -parallel takes precedence when it asks for more.
func TestMain(m *testing.M) {
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	if n, err := strconv.Atoi(parallel.Value.String()); err == nil && n < 4 {
		if err := parallel.Value.Set("4"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	for _, f := range slices.Backward(shared.atEnd) {
		f()
	}
	for _, dir := range built {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// process is one running program.
type process struct {
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan struct{} // closed when the program has ended and cmd.ProcessState is set
}

// syncBuffer is a bytes.Buffer that may be read while it is written.
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

// start starts a program, and makes sure that it stops in order, with success, when the test ends.
func (s *system) start(name string, env ...string) *process {
	s.t.Helper()
	p := &process{cmd: s.command(name), log: &syncBuffer{}, done: make(chan struct{})}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() { s.terminate(p) })
	return p
}

// ended reports whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to the program. One that has ended ignores it.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// thaw continues a program that is frozen.
func (p *process) thaw() { testenv.Thaw(p.cmd.Process) }

// terminate tells a program to stop, and checks that it does so with success.
func (s *system) terminate(p *process) {
	s.t.Helper()
	if p.ended() {
		return
	}
	p.thaw() // it may be frozen
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if !p.cmd.ProcessState.Success() {
			s.t.Errorf("%s ended with %v: %s", p.cmd.Path, p.cmd.ProcessState, p.log)
		}
	case <-time.After(time.Minute):
		s.kill(p)
		s.t.Errorf("%s does not stop: %s", p.cmd.Path, p.log)
	}
}

// died waits until a process has killed itself.
func (s *system) died(p *process) {
	s.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		s.t.Fatalf("%s does not die: %s", p.cmd.Path, p.log)
	}
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		s.t.Fatalf("%s ended otherwise: %v: %s", p.cmd.Path, p.cmd.ProcessState, p.log)
	}
}

// expireLeases ends the leases of all tasks in progress, as 30 s of waiting would: Asynq's lease is a constant. Their worker
// must be dead or frozen, and no other may run. The janitor recovers the tasks 5 s after their leases, and Asynq itself, which
// would not report them as suspects, after 30 s. The long form of the matrix waits.
func (s *system) expireLeases() {
	s.t.Helper()
	if *long {
		return
	}
	ctx, past := context.Background(), float64(time.Now().Add(-10*time.Second).Unix())
	for _, name := range queue.Names() {
		key := "asynq:{" + name + "}:lease"
		tasks, err := s.rdb.ZRange(ctx, key, 0, -1).Result()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, task := range tasks {
			if err := s.rdb.ZAddXX(ctx, key, redis.Z{Score: past, Member: task}).Err(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// kill ends a process as kill -9 does.
func (s *system) kill(p *process) {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// frozen waits until a process has frozen itself.
func (s *system) frozen(p *process) {
	s.t.Helper()
	s.eventually(time.Minute, "the process freezes", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		_, rest, ok := strings.Cut(string(b), ") ")
		return err == nil && ok && rest[0] == 'T'
	})
	s.t.Cleanup(func() { p.thaw() })
}

// address waits until a program has logged a message and returns the address in it.
func (s *system) address(p *process, msg string) string {
	s.t.Helper()
	line := regexp.MustCompile(`"msg":"` + msg + `","role":"[a-z]+","address":"([^"]+)"`)
	var found []string
	s.eventually(time.Minute, fmt.Sprintf("%s logs %q", p.cmd.Path, msg), func() bool {
		found = line.FindStringSubmatch(p.log.String())
		if found == nil && p.ended() {
			s.t.Fatalf("%s ended: %s", p.cmd.Path, p.log)
		}
		return found != nil
	})
	return found[1]
}

// metrics returns the metrics of a process.
func (s *system) metrics(p *process) string {
	s.t.Helper()
	res, err := http.Get("http://" + s.address(p, "admin listens") + "/metrics")
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
	return int(s.metric(p, `herald_deliveries_total{provider="sendgrid",reason="",status="SENT",type="EMAIL"}`))
}
