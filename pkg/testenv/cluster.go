package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cluster is a PostgreSQL server that the test may restart, make read-only and replace by a replica. It listens on a
// unix socket in its own directory only.
type Cluster struct {
	URL string
	t   testing.TB
	dir string // holds the socket, the log and the data
	as  *account
}

// StartPostgres creates a PostgreSQL server, and removes it when the test ends. Where its programs are missing the test
// is skipped; in CI it fails.
func StartPostgres(t testing.TB) *Cluster {
	t.Helper()
	for _, bin := range []string{"initdb", "pg_ctl"} {
		if _, err := exec.LookPath(bin); err != nil {
			absent(t, bin, err)
		}
	}
	c := newCluster(t)
	c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	c.start()
	return c
}

// newCluster creates the directory of a server.
func newCluster(t testing.TB) *Cluster {
	t.Helper()
	dir := socketDir(t, "herald-pg-")
	return &Cluster{URL: socketURL(dir), t: t, dir: dir, as: postgresAccount(t, dir)}
}

// socketURL returns the URL of the database postgres of the servers whose sockets are in some directories. With more
// than one it is the URL of a primary and its replicas.
func socketURL(dirs ...string) string {
	return "postgres://postgres@/postgres?sslmode=disable&host=" + strings.Join(dirs, ",") + "&port=" + strings.Repeat(",5432", len(dirs))[1:]
}

// URLWith returns a URL that names this server and another, for clients that use the one that accepts writes.
func (c *Cluster) URLWith(other *Cluster) string { return socketURL(c.dir, other.dir) }

// Database returns the URL of an empty database on the server.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return databaseOn(t, c.URL, Postgres)
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// flags are the arguments of pg_ctl for starting the server. The port only names the socket's file.
func (c *Cluster) flags() []string {
	return []string{
		"-D", c.data(), "-l", filepath.Join(c.dir, "log"), "-w",
		"-o", fmt.Sprintf("-p 5432 -c max_connections=400 -c listen_addresses='' -c unix_socket_directories=%s", c.dir),
	}
}

// start starts the server and ends it with the test.
func (c *Cluster) start() {
	c.t.Helper()
	c.run("pg_ctl", append(c.flags(), "start")...)
	c.t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(c.data(), "postmaster.pid")); err == nil {
			c.run("pg_ctl", "-D", c.data(), "-m", "immediate", "stop")
		}
	})
}

// Replica creates a server that follows this one.
func (c *Cluster) Replica() *Cluster {
	c.t.Helper()
	r := newCluster(c.t)
	c.run("pg_basebackup", "-d", c.URL, "-D", r.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	r.start()
	return r
}

// SwitchOver stops the server in order and makes its replica the server that accepts writes.
func (c *Cluster) SwitchOver(replica *Cluster) {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.data(), "-m", "fast", "-w", "stop")
	c.run("pg_ctl", "-D", replica.data(), "-w", "promote")
}

// ReadOnly makes the server refuse writes, as a former primary does, or accept them again. Open connections are
// affected too.
func (c *Cluster) ReadOnly(on bool) {
	c.t.Helper()
	err := execute(c.URL, "SET default_transaction_read_only = off",
		fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %t", on), "SELECT pg_reload_conf()")
	if err != nil {
		c.t.Fatal(err)
	}
}

// Restart ends the server without a shutdown of its connections (pg_ctl -m immediate) and starts it again.
func (c *Cluster) Restart() {
	c.t.Helper()
	c.run("pg_ctl", append(c.flags(), "-m", "immediate", "restart")...)
	if err := execute(c.URL); err != nil {
		c.t.Fatalf("the database does not come back: %v", err)
	}
}

// run runs one of PostgreSQL's programs.
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
	runAs(cmd, c.as)
	// The server that pg_ctl starts keeps its output open. With a pipe, Run would wait for the server's end.
	log, err := os.CreateTemp("", "herald-pg-*.log")
	if err != nil {
		c.t.Fatal(err)
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		output, _ := os.ReadFile(log.Name())
		c.t.Fatalf("%s: %v: %s", name, err, output)
	}
}
