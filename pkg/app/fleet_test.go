package app_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
	"herald/pkg/queue"
	"herald/pkg/testenv"
)

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
		s.eventually(10*time.Second, "no task is left in "+name, func() bool {
			depth, err := s.q.Depth(s.t.Context(), name)
			if err != nil {
				s.t.Fatal(err)
			}
			return depth["pending"]+depth["active"]+depth["scheduled"]+depth["retry"]+depth["archived"] == 0
		})
	}
}

// watchPending records the largest number of tasks that wait in a queue until the context ends. It reads the queue at an
// interval, because a busy loop would take the processor time that the programs under test need.
func (s *system) watchPending(ctx context.Context, name string) *atomic.Int64 {
	peak := &atomic.Int64{}
	go func() {
		look := time.NewTicker(lookEvery)
		defer look.Stop()
		for ctx.Err() == nil {
			if d, err := s.q.Depth(ctx, name); err == nil && d["pending"]+d["scheduled"]+d["retry"] > peak.Load() {
				peak.Store(d["pending"] + d["scheduled"] + d["retry"])
			}
			<-look.C
		}
	}()
	return peak
}

const (
	systemLeads = 10_000
	workers     = 2
	window      = 2_000 // tasks of a bulk per worker
)

func TestBulkOverAFleet(t *testing.T) {
	t.Parallel()
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

// A worker that starts takes a share of the work. A worker that stops loses no message and repeats none.
func TestWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	const n = 6_000
	s := deploy(t)
	s.sim.SetLatency(20 * time.Millisecond)
	first := s.start("worker")
	f := s.sendBulk(s.load(n))
	progress := func(share int) {
		s.eventually(time.Minute, "some messages are sent", func() bool {
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
	for m, err := range s.api.Messages(t.Context(), client.MessageFilter{BulkID: f.BulkID, Statuses: []message.Status{message.Unknown}}) {
		t.Errorf("message %s is UNKNOWN after an orderly stop (%v)", m.ID, err)
	}
}

func TestServersRefuseToStart(t *testing.T) {
	t.Parallel()
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
		"on a schema that is behind": {[]string{"DATABASE_URL=" + empty, "REDIS_URL=" + testenv.NoRedis(t), key}, 1, []string{"herald migrate up"}},
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
