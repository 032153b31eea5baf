// Package testenv gives tests what they run on: databases of their own, Redis servers of their own, a simulator. The
// embedded kinds are always there. PostgreSQL and redis-server are used too where they are found, and must be there
// in CI. Nothing that a test did not make is ever touched.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/jackc/pgx/v5"

	"herald/pkg/provider/simulator"
)

// Kinds of database and of Redis.
const (
	SQLite      = "sqlite"
	Postgres    = "postgres"
	PostgresC   = "postgres-c" // a database whose locale knows ASCII only
	MiniRedis   = "miniredis"
	RedisServer = "redis-server"
)

// The variables that name services to test on, and the default of the first.
const (
	DatabaseVariable = "HERALD_TEST_DATABASE_URL"
	RedisVariable    = "HERALD_TEST_REDIS_URL"
	defaultDatabase  = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
)

// InCI says whether the services must be there.
func InCI() bool { return os.Getenv("CI") != "" }

// EachDatabase runs a test on every kind of database that can be had here, as parallel subtests, each on an empty
// database of its own.
func EachDatabase(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Helper()
	for _, kind := range []string{SQLite, Postgres} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, Database(t, kind))
		})
	}
}

// Database returns the URL of an empty database of a kind. Without a PostgreSQL here the test is skipped, in CI it
// fails.
func Database(t testing.TB, kind string) string {
	t.Helper()
	if kind == SQLite {
		return "sqlite://" + filepath.Join(t.TempDir(), "test.db")
	}
	return databaseOn(t, postgresServer(), kind)
}

// databaseOn makes an empty database on a server and removes it when the test ends.
func databaseOn(t testing.TB, server, kind string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		absent(t, "PostgreSQL at "+host(server), err)
	}
	defer conn.Close(ctx)
	name := "herald_test_" + randomHex(8)
	locale := ""
	if kind == PostgresC {
		locale = " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+locale); err != nil {
		t.Fatalf("create a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Errorf("drop the database: %v", err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// EachRedis runs a test on every kind of Redis that can be had here, as parallel subtests.
func EachRedis(t *testing.T, test func(t *testing.T, redisURL string)) {
	t.Helper()
	for _, kind := range []string{MiniRedis, RedisServer} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, Redis(t, kind))
		})
	}
}

// Redis returns the URL of an empty Redis of a kind.
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
	if given := os.Getenv(RedisVariable); given != "" {
		return given
	}
	return StartRedis(t, RedisProgram(t), FreePort(t)).URL
}

// RedisProgram returns where redis-server is. Without one the test is skipped, in CI it fails.
func RedisProgram(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		absent(t, "redis-server", err)
	}
	return bin
}

// Simulator starts a simulator and returns it with its URL.
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

// FreePort returns a port that was free a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Eventually waits for a condition, looking often.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func absent(t testing.TB, what string, err error) {
	t.Helper()
	if InCI() {
		t.Fatalf("%s is required in CI: %v", what, err)
	}
	t.Skipf("not tested on %s: %v", what, err)
}

func host(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return "the given address"
	}
	return u.Host
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// PostgresServer returns the address of a server on which databases may be made.
func PostgresServer(t testing.TB) string {
	t.Helper()
	if !HasPostgres() {
		absent(t, "PostgreSQL at "+host(postgresServer()), errors.New("it does not answer"))
	}
	return postgresServer()
}

// HasPostgres says whether a PostgreSQL can be had here.
func HasPostgres() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, postgresServer())
	return err == nil && conn.Close(ctx) == nil
}

// postgresServer is where databases for tests are made.
func postgresServer() string {
	if given := os.Getenv(DatabaseVariable); given != "" {
		return given
	}
	return defaultDatabase
}
