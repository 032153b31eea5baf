package transport

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A full idle pool closes the connection instead of keeping it.
func TestIdlePoolIsBounded(t *testing.T) {
	tr := newTransport()
	tr.kept = maxIdleConns
	near, far := net.Pipe()
	defer far.Close()
	c := &persistConn{key: hostKey{"http", "x"}, counting: countingConn{Conn: near}, reusable: true}
	c.conn = &c.counting
	tr.release(c)
	if tr.kept != maxIdleConns || len(tr.idle) != 0 {
		t.Errorf("%d kept", tr.kept)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is open: %v", err)
	}
	tr.kept = maxIdleConns - 1
	near, far = net.Pipe()
	defer far.Close()
	c = &persistConn{key: hostKey{"http", "x"}, counting: countingConn{Conn: near}, reusable: true}
	c.conn = &c.counting
	tr.release(c)
	if tr.kept != maxIdleConns || len(tr.idle) != 1 {
		t.Errorf("the last place is not used: %d kept", tr.kept)
	}
	tr.CloseIdleConnections()
}

// A connection whose call was disturbed by its context, or that the caller wants closed, is not used again.
func TestConnectionsAreClosedOnRequest(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		for p.next(r) {
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c, tr := client(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if tr.kept != 0 {
		t.Errorf("%d connections are kept", tr.kept)
	}
}

// A call that fails on a new connection is not repeated.
func TestNewConnectionsAreNotRepeated(t *testing.T) {
	var calls atomic.Int64
	p := listen(t, func(_ *peer, conn net.Conn, _ *bufio.Reader) {
		calls.Add(1)
		_ = conn.Close()
	})
	c, _ := client(t)
	if _, _, _, err := post(t, c, p.url, "x"); err == nil {
		t.Error("a closed connection answered")
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d connections for one call", n)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer srv.Close()
	c, _ := client(t)
	if status, _, _, err := post(t, c, srv.URL, "x"); status != http.StatusFound || err != nil || calls.Load() != 1 {
		t.Errorf("%d, %v, %d calls", status, err, calls.Load())
	}
}

// TLS below 1.2 is refused, as RFC 8996 demands.
func TestOldTLSIsRefused(t *testing.T) {
	if v := newTransport().tls.MinVersion; v != tls.VersionTLS12 {
		t.Errorf("minimum version %x", v)
	}
}

// The sweep closes connections once they were idle for idleTimeout, and runs again while younger ones remain.
func TestSweepRunsWhileConnectionsAreKept(t *testing.T) {
	tr := newTransport()
	now := time.Now()
	for i, since := range []time.Time{now.Add(-2 * idleTimeout), now} {
		near, far := net.Pipe()
		defer far.Close()
		c := &persistConn{key: hostKey{"http", string(rune('a' + i))}, counting: countingConn{Conn: near}}
		c.conn = &c.counting
		if !tr.putIdle(c) {
			t.Fatal("the pool is full")
		}
		c.idleSince = since
	}
	tr.sweep.Stop() // it fired
	tr.closeIdleSince(now.Add(-idleTimeout))
	if tr.kept != 1 || tr.sweep == nil || !tr.sweep.Stop() {
		t.Errorf("%d kept, sweep %v", tr.kept, tr.sweep)
	}
	tr.CloseIdleConnections()
}
