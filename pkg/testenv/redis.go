package testenv

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Redis returns the URL of an empty Redis of a kind, which ends with the test. Where redis-server is missing the test is
// skipped; in CI it fails.
func Redis(t testing.TB, kind string) string {
	t.Helper()
	if kind == MiniRedis {
		m := miniredis.NewMiniRedis()
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		return "redis://" + m.Addr()
	}
	return StartRedis(t).URL
}

// RedisProgram returns the path of redis-server. Where it is missing the test is skipped; in CI it fails.
func RedisProgram(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		absent(t, "redis-server", err)
	}
	return bin
}

// Server is a redis-server that the test may kill and freeze. It listens on a unix socket only.
type Server struct {
	URL    string // unix://…
	Socket string // the socket's path
	t      testing.TB
	bin    string
	args   []string
	cmd    *exec.Cmd
}

// StartRedis starts a redis-server that writes nothing to disk, and ends it with the test.
func StartRedis(t testing.TB) *Server {
	t.Helper()
	dir := socketDir(t, "herald-redis-")
	socket := filepath.Join(dir, "redis.sock")
	s := &Server{URL: "unix://" + socket, Socket: socket, t: t, bin: RedisProgram(t), args: []string{
		"--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir,
	}}
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// Start starts the server again after Kill. It is empty then, and listens on the same socket.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command(s.bin, s.args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	ready := make(chan bool, 1)
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if strings.Contains(strings.ToLower(sc.Text()), "ready to accept connections") {
				ready <- true
			}
		}
		close(ready)
	}()
	select {
	case ok := <-ready:
		if !ok {
			s.t.Fatal("redis-server ended at once")
		}
	case <-time.After(30 * time.Second):
		s.t.Fatal("redis-server does not start")
	}
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Freeze stops the server's execution until Thaw. Connections stay open.
func (s *Server) Freeze() { Freeze(s.t, s.cmd.Process) }

// Thaw continues a frozen server.
func (s *Server) Thaw() { Thaw(s.cmd.Process) }
