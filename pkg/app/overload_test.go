package app_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is what came of the requests of one phase.
type load struct {
	mu       sync.Mutex
	accepted int
	refused  []time.Duration // how long each 503 took
	without  int             // 503s without Retry-After
	odd      map[int]int
}

func (l *load) note(status int, retryAfter bool, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch status {
	case http.StatusOK:
		l.accepted++
	case http.StatusServiceUnavailable:
		l.refused = append(l.refused, took)
		if !retryAfter {
			l.without++
		}
	default:
		l.odd[status]++
	}
}

func (l *load) quantile(q float64) time.Duration {
	if len(l.refused) == 0 {
		return 0
	}
	slices.Sort(l.refused)
	return l.refused[int(q*float64(len(l.refused)-1))]
}

// caller is a client that costs next to nothing, since it shares its processors with what it measures.
type caller struct {
	conn net.Conn
	buf  [4096]byte
}

var serial atomic.Int64

// single sends one message, and returns the status, 0 when the connection broke, and whether Retry-After was given.
func (c *caller) single() (status int, retryAfter bool) {
	body := fmt.Sprintf(`{"message_data":{"recipient":"o%d@example.com","subject":"s","content":"c"}}`, serial.Add(1))
	if _, err := fmt.Fprintf(c.conn, "POST /api/messaging/send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return 0, false
	}
	have := 0
	for {
		n, err := c.conn.Read(c.buf[have:])
		if have += n; err != nil || have == len(c.buf) {
			return 0, false
		}
		head, rest, ok := bytes.Cut(c.buf[:have], []byte("\r\n\r\n"))
		if !ok {
			continue
		}
		_, length, _ := bytes.Cut(head, []byte("Content-Length: "))
		length, _, _ = bytes.Cut(length, []byte("\r"))
		if want, err := strconv.Atoi(string(length)); err != nil || len(rest) < want {
			continue
		}
		status, _ = strconv.Atoi(string(head[9:12]))
		return status, bytes.Contains(head, []byte("Retry-After: "))
	}
}

// clients sends singles with so many clients at once, each waiting for its answer, and as long as Retry-After says
// after a refusal. They come within a second.
func (s *system) clients(n int, d time.Duration) (*load, float64) {
	l := &load{odd: map[int]int{}}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-time.After(time.Duration(i) * time.Second / time.Duration(n))
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
			if err != nil {
				s.t.Error(err)
				return
			}
			defer conn.Close()
			c := &caller{conn: conn}
			for begin := time.Now(); time.Since(begin) < d; {
				asked := time.Now()
				status, retryAfter := c.single()
				l.note(status, retryAfter, time.Since(asked))
				if status != http.StatusOK {
					<-time.After(time.Second)
				}
			}
		})
	}
	wg.Wait()
	return l, float64(l.accepted) / d.Seconds()
}

// resident returns a process's memory in MB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}

// BenchmarkOverload measures the API alone: what it takes at its best, and what it does with three times as many
// clients as it has places, while two hundred more send their requests a byte at a time.
func BenchmarkOverload(b *testing.B) {
	s := deploy(b)
	s.load(1)
	s.sim.SetLatency(50 * time.Millisecond)
	const d = 10 * time.Second
	best := 0.0
	for _, n := range []int{128, 256, 400} {
		l, rate := s.clients(n, d)
		b.Logf("%4d clients: %.0f a second, %d refused, odd %v", n, rate, len(l.refused), l.odd)
		best = max(best, rate)
	}
	stop := s.slowly(200)
	_, _ = s.clients(1_600, d)
	before := resident(b, s.startedAPI.cmd.Process.Pid)
	l, rate := s.clients(1_600, 2*d)
	stop()
	after := resident(b, s.startedAPI.cmd.Process.Pid)
	b.ReportMetric(best, "best/s")
	b.ReportMetric(rate, "overloaded/s")
	b.ReportMetric(100*rate/best, "%ofbest")
	b.ReportMetric(float64(l.quantile(0.5).Microseconds())/1000, "ms-503-p50")
	b.ReportMetric(float64(l.quantile(0.99).Microseconds())/1000, "ms-503-p99")
	b.ReportMetric(float64(len(l.refused)), "refused")
	b.ReportMetric(before, "MB-before")
	b.ReportMetric(after, "MB-after")
	b.ReportMetric(0, "ns/op")
	if l.without > 0 || len(l.odd) > 0 {
		b.Errorf("%d refusals without Retry-After, other answers: %v", l.without, l.odd)
	}
}

// slowly opens connections that send a request a byte at a time, until the returned function is called.
func (s *system) slowly(n int) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				if !s.trickle(done) {
					return
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// trickle sends one request until its server gives up, and says whether to go on.
func (s *system) trickle(done <-chan struct{}) bool {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		return false
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /api/messaging/send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
	for {
		select {
		case <-done:
			return false
		case <-time.After(time.Second):
		}
		if _, err := conn.Write([]byte(" ")); err != nil {
			return true
		}
	}
}
