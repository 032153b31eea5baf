package testenv

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to a server. A test can freeze it, close its connections, let it lose an answer, and
// change its server while its own address stays. All methods may be called at the same time.
type Proxy struct {
	Addr   string // host:port
	listen net.Listener

	mu              sync.Mutex
	network, target string
	thawed          chan struct{} // closed while bytes flow
	conns           map[net.Conn]bool
	lose            int // answers still to be lost, each with its connection
	lost            int
}

// StartProxy starts a proxy to the server at an address: host:port, or the path of a unix socket.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), listen: l, thawed: make(chan struct{}), conns: map[net.Conn]bool{}}
	p.Forward(target)
	close(p.thawed)
	go p.accept()
	t.Cleanup(func() {
		_ = l.Close()
		p.Thaw()
		p.Cut()
	})
	return p
}

// ProxyDatabase starts a proxy to the server of a PostgreSQL URL, and returns it with the URL that leads through it.
func ProxyDatabase(t testing.TB, databaseURL string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	target, q := u.Host, u.Query()
	if target == "" {
		target = filepath.Join(q.Get("host"), ".s.PGSQL."+q.Get("port"))
		q.Del("host")
		q.Del("port")
	}
	p := StartProxy(t, target)
	u.Host, u.RawQuery = p.Addr, q.Encode()
	return p, u.String()
}

// Forward makes new connections go to another server.
func (p *Proxy) Forward(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.target = "tcp", target
	if strings.HasPrefix(target, "/") {
		p.network = "unix"
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		network, target := p.network, p.target
		p.mu.Unlock()
		server, err := net.DialTimeout(network, target, 5*time.Second)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go p.pump(client, server, false)
		go p.pump(server, client, true)
	}
}

// pump copies bytes in one direction until either side closes. answers marks the direction from the server.
func (p *Proxy) pump(from, to net.Conn, answers bool) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
		p.mu.Lock()
		delete(p.conns, from)
		delete(p.conns, to)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		thawed := p.thawed
		p.mu.Unlock()
		<-thawed
		if n > 0 {
			if answers && p.loses() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) loses() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lose == 0 {
		return false
	}
	p.lose--
	p.lost++
	return true
}

// Freeze lets nothing pass until Thaw. Connections stay open.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thawed = make(chan struct{})
}

// Thaw ends Freeze. The bytes that were held back pass then.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// Cut closes every connection. The proxy accepts new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// LoseAnswers closes the connection instead of delivering the server's next n answers. The server has executed the
// requests by then.
func (p *Proxy) LoseAnswers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = n
}

// Lost returns how many answers were lost.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}
