// Package transport carries the calls of provider adapters over HTTP/1.1. It replaces net/http's Transport under an http.Client
// for two reasons:
//
//   - Evidence. A message must not be sent twice, so delivery has to know of a failed call whether any byte of the request left.
//     This transport counts bytes on the socket, below TLS. It repeats a call only while no byte was written and the connection
//     came from the idle pool.
//   - Cost. A call runs on its caller's goroutine. net/http needs two more goroutines and several channel operations per
//     connection. Processor time of the process per send, for the Twilio adapter with 200 sends at a time to a simulator in
//     another process (medians of six pairs of 30,000 sends, in turn, on two shared cores): 49 µs here and 60 µs with net/http
//     and the same evidence; 60 µs and 76 µs if the provider takes 20 ms. All programs together need about 170 µs per message,
//     so net/http would cost 6 to 9 % of the rate.
//
// Answers are read whole, up to maxAnswer bytes. Calls through a proxy (HTTPS_PROXY) use net/http. HTTP/2 is not supported: one
// connection carries one call at a time. The package knows neither providers nor messages.
package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxIdleConns = 1024             // per provider; a process has at most as many calls in progress
	idleTimeout  = 30 * time.Second // below the vendors' own timeouts, so that a connection is not used while they close it
	keepAlive    = 15 * time.Second

	// recentlyUsed is the age below which an idle connection is used without a look at its socket. Servers close connections
	// that are idle for seconds, so the system call would find nothing.
	recentlyUsed = 20 * time.Millisecond

	maxAnswer      = 1 << 20 // bytes of an answer with its head; the vendors' answers have less than 10 kB
	maxTLSSessions = 64      // TLS sessions that can be resumed
)

var (
	errTooLong         = errors.New("the answer is too long")
	errSwitchProtocols = errors.New("the answer switches protocols")
)

// NewClient returns the HTTP client of one provider. It follows no redirect and sets no timeout: the context of each call has a
// deadline. It is safe for concurrent use.
func NewClient() *http.Client {
	return &http.Client{
		Transport:     newTransport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Evidence says whether a request may have reached the provider. It is safe for concurrent use.
type Evidence struct{ sent atomic.Bool }

// BytesSent says whether any byte of the request was written to the network. While it is false, the provider certainly did not
// receive the request.
func (e *Evidence) BytesSent() bool { return e.sent.Load() }

func (e *Evidence) markSent() { e.sent.Store(true) }

type evidenceKey struct{}

// Trace returns a context whose requests, made with a client of NewClient, leave their evidence in the returned Evidence.
func Trace(ctx context.Context) (context.Context, *Evidence) {
	e := &Evidence{}
	return context.WithValue(ctx, evidenceKey{}, e), e
}

// transport implements http.RoundTripper.
type transport struct {
	proxy   func(*http.Request) (*url.URL, error)
	proxied *http.Transport // carries the calls through a proxy
	dialer  net.Dialer
	tls     *tls.Config

	mu    sync.Mutex
	idle  map[hostKey][]*persistConn // per host in the order of use, the latest last
	kept  int                        // idle connections to all hosts
	sweep *time.Timer                // closes idle connections after idleTimeout; nil while the pool is empty
}

func newTransport() *transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = maxIdleConns, maxIdleConns, idleTimeout
	return &transport{
		proxy: http.ProxyFromEnvironment, proxied: t, dialer: net.Dialer{KeepAlive: keepAlive}, idle: map[hostKey][]*persistConn{},
		tls: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(maxTLSSessions)},
	}
}

// RoundTrip implements http.RoundTripper. It repeats a call on another connection only if no byte of it was sent, the connection
// was idle before, and the body can be read again.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	ev, ok := ctx.Value(evidenceKey{}).(*Evidence)
	if !ok {
		ev = &Evidence{}
	}
	if via, err := t.proxy(req); err != nil || via != nil {
		return t.proxied.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: ev.markSent})))
	}
	for {
		c, err := t.connect(ctx, req.URL)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		reused := c.reused
		res, err := c.roundTrip(req, ev)
		if err == nil {
			t.release(c)
			return res, nil
		}
		_ = c.conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if !reused || ev.BytesSent() || !rewind(&req) {
			return nil, err
		}
	}
}

// CloseIdleConnections closes all idle connections. http.Client's method of this name calls it.
func (t *transport) CloseIdleConnections() {
	t.proxied.CloseIdleConnections()
	t.closeIdleSince(time.Now())
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// rewind replaces the request by one whose body starts again, and reports whether that is possible.
func rewind(req **http.Request) bool {
	next := **req
	if next.Body != nil && next.Body != http.NoBody {
		if next.GetBody == nil {
			return false
		}
		body, err := next.GetBody()
		if err != nil {
			return false
		}
		next.Body = body
	}
	*req = &next
	return true
}

// connect returns a connection to a URL's host: the idle one that was used last and is still open, or a new one.
func (t *transport) connect(ctx context.Context, u *url.URL) (*persistConn, error) {
	key := hostKey{u.Scheme, u.Host}
	for c := t.takeIdle(key); c != nil; c = t.takeIdle(key) {
		if time.Since(c.idleSince) < recentlyUsed || c.alive() {
			return c, nil
		}
		_ = c.conn.Close()
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // net resolves the service names http and https to their ports
	}
	conn, err := t.dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	c := &persistConn{key: key, counting: countingConn{Conn: conn}}
	c.conn = &c.counting
	if u.Scheme == "https" {
		cfg := t.tls.Clone()
		cfg.ServerName = u.Hostname()
		secure := tls.Client(&c.counting, cfg)
		c.counting.readable = maxAnswer
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		c.conn = secure
	}
	return c, nil
}

// takeIdle removes the connection to a host that was used last from the idle pool. It returns nil if the pool has none.
func (t *transport) takeIdle(key hostKey) *persistConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	conns := t.idle[key]
	if len(conns) == 0 {
		return nil
	}
	c := conns[len(conns)-1]
	conns[len(conns)-1] = nil
	t.idle[key] = conns[:len(conns)-1]
	t.kept--
	return c
}

// release puts a connection into the idle pool, or closes it if it cannot carry another call or the pool is full.
func (t *transport) release(c *persistConn) {
	if !c.reusable || !t.putIdle(c) {
		_ = c.conn.Close()
	}
}

func (t *transport) putIdle(c *persistConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept >= maxIdleConns {
		return false
	}
	c.reused, c.idleSince = true, time.Now()
	t.idle[c.key] = append(t.idle[c.key], c)
	t.kept++
	if t.sweep == nil {
		t.sweep = time.AfterFunc(idleTimeout, func() { t.closeIdleSince(time.Now().Add(-idleTimeout)) })
	}
	return true
}

// closeIdleSince closes the connections that have been idle since the given time or longer.
func (t *transport) closeIdleSince(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, conns := range t.idle {
		n := 0
		for n < len(conns) && !conns[n].idleSince.After(since) {
			_ = conns[n].conn.Close()
			n++
		}
		t.kept -= n
		if t.idle[key] = append(conns[:0:0], conns[n:]...); len(t.idle[key]) == 0 {
			delete(t.idle, key)
		}
	}
	switch {
	case t.sweep == nil:
	case t.kept > 0:
		t.sweep.Reset(idleTimeout)
	default:
		t.sweep.Stop()
		t.sweep = nil
	}
}

// hostKey names the host of a connection. Connections are shared by calls with equal keys.
type hostKey struct{ scheme, host string }

// persistConn is a persistent connection. It carries one call at a time.
type persistConn struct {
	key       hostKey
	counting  countingConn
	conn      net.Conn // &counting, or TLS on top of it
	reused    bool     // it carried a call before
	idleSince time.Time
	reusable  bool // after a call: it can carry another one
}

// countingConn is the connection below TLS. It records that bytes of a call were written, and bounds what a call reads.
type countingConn struct {
	net.Conn
	ev       *Evidence // of the call in progress
	readable int       // bytes that may still be read
}

// Write implements io.Writer.
func (c *countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n > 0 && c.ev != nil {
		c.ev.markSent()
	}
	return n, err
}

// Read implements io.Reader. It fails with errTooLong once the bound is used up.
func (c *countingConn) Read(b []byte) (int, error) {
	if c.readable <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.readable)])
	c.readable -= n
	return n, err
}

var (
	writers  = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
	readers  = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	longPast = time.Unix(1, 0)
)

// roundTrip makes one call. It closes the request's body in every case. A cancelled context interrupts reads and writes.
func (c *persistConn) roundTrip(req *http.Request, ev *Evidence) (*http.Response, error) {
	ctx := req.Context()
	deadline, _ := ctx.Deadline() // the zero time of a context without a deadline removes that of the previous call
	if err := errors.Join(ctx.Err(), c.conn.SetDeadline(deadline)); err != nil {
		closeBody(req)
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(longPast) })
	c.counting.ev, c.counting.readable = ev, maxAnswer
	defer func() { c.counting.ev = nil }() // TLS writes an alert when it closes; the alert is not part of the call
	writeErr := c.write(req)
	if writeErr != nil && !ev.BytesSent() {
		stop()
		return nil, writeErr
	}
	// A server that refuses a long request may answer and close before it has read the request. The answer counts, not the
	// broken write.
	res, clean, err := c.read(req)
	undisturbed := stop()
	if err != nil {
		if writeErr != nil {
			err = writeErr
		}
		return nil, err
	}
	c.reusable = clean && writeErr == nil && undisturbed && !res.Close && !req.Close
	return res, nil
}

func (c *persistConn) write(req *http.Request) error {
	w := writers.Get().(*bufio.Writer) //nolint:forcetypeassert // nothing else is in the pool
	defer writers.Put(w)
	w.Reset(c.conn)
	if err := req.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// read reads an answer whole. clean says that no byte followed it.
func (c *persistConn) read(req *http.Request) (res *http.Response, clean bool, err error) {
	r := readers.Get().(*bufio.Reader) //nolint:forcetypeassert // nothing else is in the pool
	defer readers.Put(r)
	r.Reset(c.conn)
	for {
		if res, err = http.ReadResponse(r, req); err != nil {
			return nil, false, err
		}
		if res.StatusCode >= http.StatusOK {
			break
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return nil, false, errSwitchProtocols
		}
	}
	var body bytes.Buffer
	if res.ContentLength != 0 {
		if _, err = body.ReadFrom(res.Body); err != nil {
			return nil, false, err
		}
	}
	_ = res.Body.Close() // it was read to its end
	res.Body = io.NopCloser(&body)
	return res, r.Buffered() == 0, nil
}
