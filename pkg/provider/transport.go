package provider

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
	"time"
)

// transport carries calls over HTTP/1.1 for http.Client, each on its caller's goroutine and on a connection of its own
// meanwhile. Go's own transport serves as many purposes as there are, at the price of two more goroutines for every
// connection, which is a tenth of a worker's processor; and it repeats calls by itself. This one knows to the byte whether
// a call left: it is made anew only while nothing of it did, on a connection that turned out to be closed. Answers are
// read whole. Calls that go through a proxy are left to Go's.
type transport struct {
	proxy   func(*http.Request) (*url.URL, error)
	proxied *http.Transport
	dialer  net.Dialer
	tls     *tls.Config

	mu    sync.Mutex
	idle  map[place][]*line // the one that was used last is last
	kept  int               // of all addresses
	sweep *time.Timer       // closes lines that nobody used for long; nil while none is kept
}

const (
	idleLines  = 1024             // kept per provider; as many as a process has calls under way
	idleTime   = 30 * time.Second // below the vendors' own, so that a connection is not used as they close it
	keepAlive  = 15 * time.Second
	fresh      = 20 * time.Millisecond // used so lately, a connection is not looked at: servers close those that idle for seconds
	mostAnswer = 1 << 20               // bytes of an answer with its head; the vendors' are below a hundredth of it
	sessions   = 64                    // TLS sessions that can be resumed
)

var errTooLong = errors.New("the answer is too long")

func newTransport() *transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = idleLines, idleLines, idleTime
	return &transport{
		proxy: http.ProxyFromEnvironment, proxied: t, dialer: net.Dialer{KeepAlive: keepAlive}, idle: map[place][]*line{},
		tls: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)},
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	ev, ok := ctx.Value(evidenceKey{}).(*Evidence)
	if !ok {
		ev = &Evidence{}
	}
	if via, err := t.proxy(req); err != nil || via != nil {
		return t.proxied.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: ev.leave})))
	}
	for {
		l, err := t.line(ctx, req.URL)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		used := l.used
		res, err := l.call(req, ev)
		if err == nil {
			t.release(l)
			return res, nil
		}
		_ = l.conn.Close()
		if cerr := context.Cause(ctx); cerr != nil {
			return nil, cerr
		}
		if !used || ev.Left() || !rewind(&req) {
			return nil, err
		}
	}
}

// CloseIdleConnections closes the connections that are not in use; http.Client's method of this name calls it.
func (t *transport) CloseIdleConnections() {
	t.proxied.CloseIdleConnections()
	t.expire(time.Now())
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// rewind makes a request ready to be written again, and says whether that can be done.
func rewind(req **http.Request) bool {
	again := **req
	if again.Body != nil && again.Body != http.NoBody {
		if again.GetBody == nil {
			return false
		}
		body, err := again.GetBody()
		if err != nil {
			return false
		}
		again.Body = body
	}
	*req = &again
	return true
}

// line returns a connection to a URL's host: the one that was used last, if its other end has not closed it, or else a
// new one.
func (t *transport) line(ctx context.Context, u *url.URL) (*line, error) {
	key := place{u.Scheme, u.Host}
	for l := t.take(key); l != nil; l = t.take(key) {
		if time.Since(l.since) < fresh || l.alive() {
			return l, nil
		}
		_ = l.conn.Close()
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // a service's name is as good as its number
	}
	conn, err := t.dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	l := &line{key: key, wire: wire{Conn: conn}}
	l.conn = &l.wire
	if u.Scheme == "https" {
		cfg := t.tls.Clone()
		cfg.ServerName = u.Hostname()
		secure := tls.Client(&l.wire, cfg)
		l.wire.most = mostAnswer
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		l.conn = secure
	}
	return l, nil
}

// take removes the line to a host that was used last from the idle ones, nil when there is none.
func (t *transport) take(key place) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.idle[key]
	if len(lines) == 0 {
		return nil
	}
	l := lines[len(lines)-1]
	lines[len(lines)-1] = nil
	t.idle[key] = lines[:len(lines)-1]
	t.kept--
	return l
}

// release keeps a line for the next call, if it can carry one.
func (t *transport) release(l *line) {
	if !l.again || !t.keep(l) {
		_ = l.conn.Close()
	}
}

func (t *transport) keep(l *line) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept >= idleLines {
		return false
	}
	l.used, l.since = true, time.Now()
	t.idle[l.key] = append(t.idle[l.key], l)
	t.kept++
	if t.sweep == nil {
		t.sweep = time.AfterFunc(idleTime, func() { t.expire(time.Now().Add(-idleTime)) })
	}
	return true
}

// expire closes the lines that were not used since.
func (t *transport) expire(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, lines := range t.idle {
		n := 0
		for n < len(lines) && !lines[n].since.After(since) {
			_ = lines[n].conn.Close()
			n++
		}
		t.kept -= n
		if t.idle[key] = append(lines[:0:0], lines[n:]...); len(t.idle[key]) == 0 {
			delete(t.idle, key)
		}
	}
	switch {
	case t.sweep == nil:
	case t.kept > 0:
		t.sweep.Reset(idleTime)
	default:
		t.sweep.Stop()
		t.sweep = nil
	}
}

// place is where a line leads to.
type place struct{ scheme, host string }

// line is a connection; it carries one call at a time.
type line struct {
	key   place
	wire  wire
	conn  net.Conn // the wire, or TLS over it
	used  bool     // it carried a call before
	since time.Time
	again bool // after a call: it can carry another
}

// wire is the connection to the network. It tells when something leaves, and bounds what comes.
type wire struct {
	net.Conn
	ev   *Evidence // of the call under way
	most int       // bytes that may still come
}

// Write implements io.Writer.
func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if n > 0 && w.ev != nil {
		w.ev.leave()
	}
	return n, err
}

// Read implements io.Reader.
func (w *wire) Read(b []byte) (int, error) {
	if w.most <= 0 {
		return 0, errTooLong
	}
	n, err := w.Conn.Read(b[:min(len(b), w.most)])
	w.most -= n
	return n, err
}

var (
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	past    = time.Unix(1, 0)
)

// call makes one call. Its request's body is closed in any case.
func (l *line) call(req *http.Request, ev *Evidence) (*http.Response, error) {
	ctx := req.Context()
	deadline, _ := ctx.Deadline() // none is the zero time, which is how a connection understands it
	if err := errors.Join(ctx.Err(), l.conn.SetDeadline(deadline)); err != nil {
		closeBody(req)
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(past) })
	l.wire.ev, l.wire.most = ev, mostAnswer
	defer func() { l.wire.ev = nil }() // what TLS says as it closes is not of the call
	werr := l.write(req)
	if werr != nil && !ev.Left() {
		stop()
		return nil, werr
	}
	// Who refuses a long request may answer and close before having read it: the answer counts, not the broken write.
	res, clean, err := l.read(req)
	undisturbed := stop()
	if err != nil {
		if werr != nil {
			err = werr
		}
		return nil, err
	}
	l.again = clean && werr == nil && undisturbed && !res.Close && !req.Close
	return res, nil
}

func (l *line) write(req *http.Request) error {
	w := writers.Get().(*bufio.Writer) //nolint:forcetypeassert // nothing else is in the pool
	defer writers.Put(w)
	w.Reset(l.conn)
	if err := req.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// read reads an answer whole, and says whether nothing came after it.
func (l *line) read(req *http.Request) (res *http.Response, clean bool, err error) {
	r := readers.Get().(*bufio.Reader) //nolint:forcetypeassert // nothing else is in the pool
	defer readers.Put(r)
	r.Reset(l.conn)
	for {
		if res, err = http.ReadResponse(r, req); err != nil {
			return nil, false, err
		}
		if res.StatusCode >= http.StatusOK {
			break
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return nil, false, errors.New("the answer speaks another protocol")
		}
	}
	var body bytes.Buffer
	if res.ContentLength != 0 {
		if _, err = body.ReadFrom(res.Body); err != nil {
			return nil, false, err
		}
	}
	_ = res.Body.Close() // read to its end
	res.Body = io.NopCloser(&body)
	return res, r.Buffered() == 0, nil
}
