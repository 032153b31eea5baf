package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// echo answers each request with its body.
func echo(p *peer, conn net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		p.requests.Add(1)
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

var errBroken = errors.New("broken pipe")

// broken is a connection that fails after a number of bytes was written. What can be read from it is the answer.
type broken struct {
	net.Conn
	takes  int
	answer io.Reader
}

// Write implements io.Writer.
func (b *broken) Write(p []byte) (n int, err error) {
	if b.takes > 0 {
		n, _ = b.Conn.Write(p[:min(b.takes, len(p))])
		b.takes -= n
	}
	return n, errBroken
}

// Read implements io.Reader.
func (b *broken) Read(p []byte) (int, error) { return b.answer.Read(p) }

// breakIdle breaks the idle connections after takes further bytes, with an answer. The next call uses one of them: they are too
// young for a look at the socket.
func breakIdle(tr *transport, takes int, answer string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, conns := range tr.idle {
		for _, c := range conns {
			c.counting.Conn, c.idleSince = &broken{c.counting.Conn, takes, strings.NewReader(answer)}, time.Now().Add(time.Hour)
		}
	}
}

// A call whose first byte was refused by an idle connection is repeated on another connection, if its body can be read again.
func TestUnsentCallIsRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		body     io.Reader
		want     string
		repeated bool
	}{
		"text":                   {strings.NewReader("again"), "again", true},
		"no body":                {http.NoBody, "", true},
		"body that is read once": {io.MultiReader(strings.NewReader("once")), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := listen(t, echo)
			client, tr := client(t)
			if status, _, _, err := post(t, client, p.url, "first"); status != 202 || err != nil {
				t.Fatal(status, err)
			}
			breakIdle(tr, 0, "")
			status, answer, ev, err := send(t, client, p.url, c.body)
			if c.repeated {
				if status != 202 || answer != c.want || err != nil || !ev.BytesSent() || p.conns.Load() != 2 || p.requests.Load() != 2 {
					t.Errorf("%d %q %v, sent %v, %d connections, %d requests", status, answer, err, ev.BytesSent(), p.conns.Load(), p.requests.Load())
				}
			} else if !errors.Is(err, errBroken) || ev.BytesSent() || p.conns.Load() != 1 || p.requests.Load() != 1 {
				t.Errorf("%v, sent %v, %d connections, %d requests", err, ev.BytesSent(), p.conns.Load(), p.requests.Load())
			}
			client.CloseIdleConnections()
		})
	}
}

// A call is not repeated once a byte of it was written, although its body could be read again.
func TestPartlySentCallIsNotRepeated(t *testing.T) {
	p := listen(t, echo)
	c, tr := client(t)
	if status, _, _, err := post(t, c, p.url, "first"); status != 202 || err != nil {
		t.Fatal(status, err)
	}
	breakIdle(tr, 1, "")
	_, _, ev, err := post(t, c, p.url, "second")
	if !errors.Is(err, errBroken) || !ev.BytesSent() {
		t.Errorf("%v, sent %v", err, ev.BytesSent())
	}
	if p.conns.Load() != 1 || p.requests.Load() != 1 {
		t.Errorf("%d connections, %d requests", p.conns.Load(), p.requests.Load())
	}
}

// A server may answer and close the connection before it has read a whole request. The answer counts, not the broken write.
func TestAnswerToAPartlySentCall(t *testing.T) {
	p := listen(t, echo)
	c, tr := client(t)
	if status, _, _, err := post(t, c, p.url, "first"); status != 202 || err != nil {
		t.Fatal(status, err)
	}
	breakIdle(tr, 1, "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 8\r\n\r\ntoo long")
	status, answer, ev, err := post(t, c, p.url, "second")
	if status != 413 || answer != "too long" || err != nil || !ev.BytesSent() {
		t.Errorf("%d %q %v, sent %v", status, answer, err, ev.BytesSent())
	}
	if tr.kept != 0 {
		t.Error("the broken connection is kept")
	}
}

// A call that was sent whole and not answered is not repeated.
func TestSentCallIsNotRepeated(t *testing.T) {
	p := listen(t, func(p *peer, conn net.Conn, r *bufio.Reader) {
		if p.next(r) {
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
		}
		p.next(r) // and no answer
	})
	c, _ := client(t)
	if status, _, _, err := post(t, c, p.url, "x"); status != 202 || err != nil {
		t.Fatal(status, err)
	}
	_, _, ev, err := post(t, c, p.url, "x")
	if err == nil || !ev.BytesSent() {
		t.Errorf("sent %v, %v", ev.BytesSent(), err)
	}
	if p.conns.Load() != 1 || p.requests.Load() != 2 {
		t.Errorf("%d connections, %d requests", p.conns.Load(), p.requests.Load())
	}
}

// TLS writes an alert when a connection is closed. The alert is no evidence that a byte of the call was sent.
func TestAlertIsNoEvidence(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer srv.Close()
	c, tr := client(t)
	tr.tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ctx, ev := Trace(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader("short"))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 100 // writing the request fails at the end of the body, before anything is flushed
	if res, err := c.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("a request with a short body was sent")
	}
	if ev.BytesSent() {
		t.Error("the alert counts as a byte of the call")
	}
}
