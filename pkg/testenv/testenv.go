// Package testenv provides what tests run on: an empty database, an empty Redis, a PostgreSQL cluster that a test may
// restart, a proxy that loses answers, and the provider simulator. SQLite and miniredis are always available.
// PostgreSQL and redis-server are used where they are found; in CI their absence fails the test.
//
// Nothing here binds a TCP port that was chosen beforehand. Servers that the package starts listen on unix sockets in
// directories of their own, and everything else binds port 0 and reports the address. The package never changes
// anything that it did not create.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/provider/simulator"
)

// Kinds of database and of Redis.
const (
	SQLite      = "sqlite"
	Postgres    = "postgres"
	PostgresC   = "postgres-c" // a PostgreSQL database with the locale C, which knows only ASCII letters
	MiniRedis   = "miniredis"
	RedisServer = "redis-server"
)

// The client logs to standard error unless it is told otherwise, and setting its logger later would race with clients
// that are open. So it is set once, before any test runs.
func init() { redis.SetLogger(redisLog{}) }

// redisLog passes the Redis client's messages to slog at the level debug: a test that stops its Redis causes hundreds.
type redisLog struct{}

// Printf implements the client's logger.
func (redisLog) Printf(ctx context.Context, format string, v ...any) {
	slog.DebugContext(ctx, fmt.Sprintf(format, v...), "component", "redis")
}

// InCI reports whether PostgreSQL and redis-server are required.
func InCI() bool { return os.Getenv("CI") != "" }

// EachDatabase runs a test on SQLite and on PostgreSQL, as parallel subtests. Each gets the URL of an empty database.
func EachDatabase(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Helper()
	each(t, []string{SQLite, Postgres}, func(t *testing.T, kind string) { test(t, Database(t, kind)) })
}

// EachRedis runs a test on miniredis and on redis-server, as parallel subtests. Each gets the URL of an empty server.
func EachRedis(t *testing.T, test func(t *testing.T, redisURL string)) {
	t.Helper()
	each(t, []string{MiniRedis, RedisServer}, func(t *testing.T, kind string) { test(t, Redis(t, kind)) })
}

func each(t *testing.T, kinds []string, test func(t *testing.T, kind string)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// Simulator starts a provider simulator and returns it with its URL.
func Simulator(t testing.TB) (*simulator.Simulator, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := simulator.New()
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		serving.Wait()
	})
	return s, "http://" + l.Addr().String()
}

// MasterKey returns a random master key.
func MasterKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// RefusedAddress returns a TCP address (host:port) that refuses connections until the test ends: its port is bound by
// an open connection, so no other program can listen on it.
func RefusedAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	bound, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bound.Close() })
	return bound.LocalAddr().String()
}

// NoRedis returns the URL of a Redis that refuses connections.
func NoRedis(t testing.TB) string {
	t.Helper()
	return "redis://" + RefusedAddress(t)
}

// Eventually waits until ok returns true, and fails the test when that takes longer than within. It calls ok every 5 ms.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	EventuallyEvery(t, 5*time.Millisecond, within, what, ok)
}

// EventuallyEvery is Eventually for conditions that are expensive to check, such as a request to a program: it calls ok
// at the given interval.
func EventuallyEvery(t testing.TB, interval, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-time.After(interval)
	}
}

// absent skips the test because a service is missing. In CI it fails the test.
func absent(t testing.TB, what string, err error) {
	t.Helper()
	if InCI() {
		t.Fatalf("%s is required in CI: %v", what, err)
	}
	t.Skipf("not tested on %s: %v", what, err)
}

// maxSocketPath is the length of a unix socket's path that every system accepts (104 bytes on macOS, with the final 0).
const maxSocketPath = 103

// socketDir creates a directory for a server and its sockets, and removes it when the test ends. The test's own
// temporary directory has too long a name for a socket.
func socketDir(t testing.TB, prefix string) string {
	t.Helper()
	parent := ""
	if len(os.TempDir()) > maxSocketPath-len(prefix)-40 {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
