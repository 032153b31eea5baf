package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// peer is a server that answers each connection as its script says. It counts connections and the requests read whole.
type peer struct {
	url             string
	conns, requests atomic.Int64
}

// listen starts a peer; serve has a connection to itself and closes it when it returns.
func listen(t *testing.T, serve func(p *peer, conn net.Conn, r *bufio.Reader)) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{url: "http://" + l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			wg.Go(func() {
				defer conn.Close()
				serve(p, conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return p
}

// next reads a request whole.
func (p *peer) next(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	p.requests.Add(1)
	return err == nil
}

// post makes one call.
func post(t *testing.T, c *http.Client, url, body string) (status int, answer string, ev *Evidence, err error) {
	t.Helper()
	return send(t, c, url, strings.NewReader(body))
}

// send is post for any body.
func send(t *testing.T, c *http.Client, url string, body io.Reader) (status int, answer string, ev *Evidence, err error) {
	t.Helper()
	ctx, ev := Trace(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", ev, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), ev, err
}

// client is a client whose connections end with the test.
func client(t *testing.T) (*http.Client, *transport) {
	t.Helper()
	c := NewClient()
	t.Cleanup(c.CloseIdleConnections)
	return c, c.Transport.(*transport)
}

// age lets the idle connections have been idle for longer.
func age(tr *transport) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, conns := range tr.idle {
		for _, c := range conns {
			c.idleSince = c.idleSince.Add(-time.Second)
		}
	}
}

// Answers come in every shape that HTTP/1.1 knows, and a connection is used again exactly when its end is certain.
func TestAnswersAreReadWhole(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, c := range map[string]struct {
		answer string
		status int
		body   string
		conns  int64 // for two calls
	}{
		"no body":           {"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, "", 1},
		"204":               {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", 1},
		"length":            {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", 1},
		"chunked":           {"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 400, "hello", 1},
		"hints before":      {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1},
		"goes on":           {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1},
		"says it closes":    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2},
		"old":               {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2},
		"more than its own": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", 200, "ok", 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
				for p.next(r) {
					_, _ = io.WriteString(conn, c.answer)
				}
			})
			client, _ := client(t)
			for range 2 {
				status, body, ev, err := post(t, client, p.url, "x")
				if status != c.status || body != c.body || err != nil || !ev.BytesSent() {
					t.Errorf("%d %q %v", status, body, err)
				}
			}
			if p.conns.Load() != c.conns || p.requests.Load() != 2 {
				t.Errorf("%d connections, %d requests", p.conns.Load(), p.requests.Load())
			}
			client.CloseIdleConnections()
		})
	}
}

func TestAnswerEndsWithItsConnection(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		p.next(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nto the end")
	})
	c, _ := client(t)
	for range 2 {
		if status, body, _, err := post(t, c, p.url, "x"); status != 200 || body != "to the end" || err != nil {
			t.Errorf("%d %q %v", status, body, err)
		}
	}
}

// An idle connection that the server closed is not used: the call is made once, over another connection.
func TestClosedConnectionsAreNoticed(t *testing.T) {
	closed := make(chan bool, 8)
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		p.next(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		_ = conn.Close()
		closed <- true
	})
	c, tr := client(t)
	for n := range int64(5) {
		age(tr)
		status, _, ev, err := post(t, c, p.url, "x")
		if status != 202 || err != nil || !ev.BytesSent() {
			t.Fatalf("call %d: %d %v", n, status, err)
		}
		<-closed
		if p.conns.Load() != n+1 || p.requests.Load() != n+1 {
			t.Fatalf("call %d: %d connections, %d requests", n, p.conns.Load(), p.requests.Load())
		}
	}
}

// A refusal that comes before the request was read whole is an answer.
func TestEarlyAnswer(t *testing.T) {
	p := listen(t, func(_ *peer, conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlong")
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	})
	c, _ := client(t)
	if status, body, _, err := post(t, c, p.url, strings.Repeat("x", 4<<20)); status != 413 || body != "long" || err != nil {
		t.Errorf("%d %q %v", status, body, err)
	}
}

func TestEndlessAnswer(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		p.next(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		for {
			if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	c, _ := client(t)
	if _, _, ev, err := post(t, c, p.url, "x"); !errors.Is(err, errTooLong) || !ev.BytesSent() {
		t.Errorf("%v", err)
	}
}

func TestOtherProtocol(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		p.next(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	})
	c, _ := client(t)
	if status, _, ev, err := post(t, c, p.url, "x"); err == nil || !ev.BytesSent() {
		t.Errorf("%d", status)
	}
}

// A call ends with its context, and its connection is closed. Later calls over the same transport succeed.
func TestCallsEndWithTheirContext(t *testing.T) {
	var hang atomic.Bool
	hang.Store(true)
	read := make(chan bool, 1)
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		for p.next(r) {
			if hang.Load() {
				read <- true
				_, _ = r.ReadByte() // until the caller is gone
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c, _ := client(t)
	ctx, cancel := context.WithCancel(t.Context())
	ctx, ev := Trace(ctx)
	go func() {
		<-read
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(req); !errors.Is(err, context.Canceled) || !ev.BytesSent() {
		t.Errorf("%v, sent %v", err, ev.BytesSent())
	}
	hang.Store(false)
	if status, _, _, err := post(t, c, p.url, "x"); status != 202 || err != nil {
		t.Errorf("%d %v", status, err)
	}
}

// The deadline of one call is not that of the next.
func TestDeadlinesAreOfOneCall(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		for p.next(r) {
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c, tr := client(t)
	if status, _, _, err := post(t, c, p.url, "x"); status != 202 || err != nil {
		t.Fatal(status, err)
	}
	tr.mu.Lock()
	for _, conns := range tr.idle {
		_ = conns[0].conn.SetDeadline(longPast)
	}
	tr.mu.Unlock()
	age(tr)
	if status, _, _, err := post(t, c, p.url, "x"); status != 202 || err != nil || p.conns.Load() != 1 {
		t.Errorf("%d %v, %d connections", status, err, p.conns.Load())
	}
}

func TestTLS(t *testing.T) {
	conns := map[string]bool{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true
		w.Header().Set("X-Message-Id", r.Proto)
		w.WriteHeader(http.StatusAccepted)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	c, tr := client(t)
	tr.tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	var untrusted *tls.CertificateVerificationError
	if _, _, ev, err := post(t, c, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1), "x"); !errors.As(err, &untrusted) || ev.BytesSent() {
		t.Errorf("a certificate for another host: %v, sent %v", err, ev.BytesSent())
	}
	for range 3 {
		status, _, ev, err := post(t, c, srv.URL, "x")
		if status != 202 || err != nil || !ev.BytesSent() {
			t.Fatalf("%d %v", status, err)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections for 3 calls", len(conns))
	}
}

// Idle connections are closed after their time. The pool has no more connections than calls at a time.
func TestIdleConnectionsAreClosed(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		for p.next(r) {
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c, tr := client(t)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				if status, _, _, err := post(t, c, p.url, "x"); status != 202 || err != nil {
					t.Errorf("%d %v", status, err)
				}
			}
		})
	}
	wg.Wait()
	if p.conns.Load() > 32 || p.requests.Load() != 32*20 || int64(tr.kept) != p.conns.Load() {
		t.Errorf("%d connections, %d kept, %d requests", p.conns.Load(), tr.kept, p.requests.Load())
	}
	tr.closeIdleSince(time.Now().Add(-time.Hour))
	if tr.kept == 0 || tr.sweep == nil {
		t.Error("connections were closed before their time")
	}
	tr.closeIdleSince(time.Now())
	if tr.kept != 0 || len(tr.idle) != 0 || tr.sweep != nil {
		t.Errorf("%d kept of %d hosts", tr.kept, len(tr.idle))
	}
}

// Calls through a proxy leave evidence too.
func TestProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprint(w, r.URL.Host)
	}))
	defer proxy.Close()
	via, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, tr := client(t)
	tr.proxy = http.ProxyURL(via)
	tr.proxied.Proxy = tr.proxy
	if status, body, ev, err := post(t, c, "http://vendor.example", "x"); status != 202 || body != "vendor.example" || err != nil || !ev.BytesSent() {
		t.Errorf("%d %q %v", status, body, err)
	}
	proxy.Close()
	c.CloseIdleConnections()
	if _, _, ev, err := post(t, c, "http://vendor.example", "x"); err == nil || ev.BytesSent() {
		t.Errorf("sent %v, %v", ev.BytesSent(), err)
	}
}

// BenchmarkTransport is a call over this transport and over Go's, from many goroutines to a server in this process.
func BenchmarkTransport(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	own := newTransport()
	for name, rt := range map[string]http.RoundTripper{"herald": own, "go": own.proxied} {
		c := &http.Client{Transport: rt}
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(100)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					ctx, _ := Trace(context.Background())
					ctx, cancel := context.WithTimeout(ctx, time.Minute)
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader(strings.Repeat("x", 400)))
					if err != nil {
						b.Error(err)
					}
					res, err := c.Do(req)
					if err != nil {
						b.Error(err)
						cancel()
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
					cancel()
				}
			})
		})
		c.CloseIdleConnections()
	}
}
