package testenv

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a redis-server of the test's own.
type Server struct {
	URL  string
	Addr string
	t    testing.TB
	bin  string
	args []string
	cmd  *exec.Cmd
}

// StartRedis starts a redis-server that keeps nothing, and stops it when the test ends.
func StartRedis(t testing.TB, bin string, port int) *Server {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	s := &Server{URL: "redis://" + addr + "/0", Addr: addr, t: t, bin: bin, args: []string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
	}}
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// OwnRedis starts a redis-server that the test may kill and freeze. Where there is none the test is skipped, in CI it
// fails.
func OwnRedis(t testing.TB) *Server {
	t.Helper()
	return StartRedis(t, RedisProgram(t), FreePort(t))
}

// Start starts the server, for the first time or after Kill; then it is empty.
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
			if strings.Contains(sc.Text(), "Ready to accept connections") {
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
	case <-time.After(10 * time.Second):
		s.t.Fatal("redis-server does not start")
	}
}

// Kill ends the server without a goodbye.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Freeze stops the server where it is, until Thaw.
func (s *Server) Freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets the server go on.
func (s *Server) Thaw() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// Cluster is a PostgreSQL server of the test's own.
type Cluster struct {
	URL  string
	Addr string // host and port
	t    testing.TB
	dir  string
	opt  string
	as   *syscall.Credential // nil: as the test itself
}

// Database returns the URL of an empty database on the server.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return databaseOn(t, c.URL, Postgres)
}

// StartPostgres makes a PostgreSQL server on a free port, and removes it when the test ends. Where its programs are
// missing the test is skipped, in CI it fails.
func StartPostgres(t testing.TB) *Cluster {
	t.Helper()
	for _, bin := range []string{"initdb", "pg_ctl"} {
		if _, err := exec.LookPath(bin); err != nil {
			absent(t, bin, err)
		}
	}
	c := newCluster(t)
	c.run("initdb", "-D", c.dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	c.start()
	return c
}

// newCluster chooses a port and a directory, which is removed when the test ends.
func newCluster(t testing.TB) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "herald-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := FreePort(t)
	c := &Cluster{
		URL: fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port), Addr: fmt.Sprintf("127.0.0.1:%d", port), t: t,
		dir: filepath.Join(dir, "data"),
		opt: fmt.Sprintf("-p %d -c max_connections=400 -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s", port, dir),
	}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			absent(t, "the user postgres", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *Cluster) log() string { return filepath.Join(filepath.Dir(c.dir), "log") }

// start starts the server, and makes sure that it ends with the test.
func (c *Cluster) start() {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.dir, "-o", c.opt, "-l", c.log(), "-w", "start")
	c.t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(c.dir, "postmaster.pid")); err == nil {
			c.run("pg_ctl", "-D", c.dir, "-m", "immediate", "stop")
		}
	})
}

// Replica makes a server that follows this one.
func (c *Cluster) Replica() *Cluster {
	c.t.Helper()
	r := newCluster(c.t)
	c.run("pg_basebackup", "-d", c.URL, "-D", r.dir, "-R", "-X", "stream", "-c", "fast", "--no-sync")
	r.start()
	return r
}

// SwitchOver stops the server in order and makes its replica the server that accepts writes.
func (c *Cluster) SwitchOver(replica *Cluster) {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.dir, "-m", "fast", "-w", "stop")
	c.run("pg_ctl", "-D", replica.dir, "-w", "promote")
}

// ReadOnly makes the server refuse writes, as a former primary does, or accept them again. It acts on open connections too.
func (c *Cluster) ReadOnly(on bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"SET default_transaction_read_only = off", fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %t", on), "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			c.t.Fatal(err)
		}
	}
}

// run runs one of PostgreSQL's programs, as its user where the test is root.
func (c *Cluster) run(name string, args ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bin, err := exec.LookPath(name)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
	// The server that pg_ctl starts keeps its streams open, so they are files and no pipes.
	log, err := os.CreateTemp("", "herald-pg-*.log")
	if err != nil {
		c.t.Fatal(err)
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		c.t.Fatalf("%s: %v: %s", name, err, said)
	}
}

// Restart ends the server without a goodbye to anybody, and starts it again.
func (c *Cluster) Restart() {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.dir, "-m", "immediate", "-o", c.opt, "-l", c.log(), "-w", "restart")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		c.t.Fatalf("the database does not come back: %v", err)
	}
	_ = conn.Close(ctx)
}
