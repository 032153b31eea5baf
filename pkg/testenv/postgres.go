package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// DatabaseVariable names the PostgreSQL server on which tests create their databases. Its user must be allowed to.
const DatabaseVariable = "HERALD_TEST_DATABASE_URL"

const (
	defaultServer    = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
	statementTimeout = 30 * time.Second // for creating and dropping databases on a busy server
)

// Database returns the URL of an empty database of a kind, which is removed when the test ends. Without PostgreSQL the
// test is skipped; in CI it fails.
func Database(t testing.TB, kind string) string {
	t.Helper()
	if kind == SQLite {
		return "sqlite://" + filepath.Join(t.TempDir(), "test.db")
	}
	return databaseOn(t, PostgresServer(t), kind)
}

// databaseOn creates an empty database on a server and drops it when the test ends.
func databaseOn(t testing.TB, server, kind string) string {
	t.Helper()
	databaseURL, drop, err := createDatabase(server, kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Error(err)
		}
	})
	return databaseURL
}

// SharedDatabase creates an empty database of a PostgreSQL kind that outlives the test, for tests of one process that use it
// in turn. The caller drops it. Without PostgreSQL the test is skipped; in CI it fails.
func SharedDatabase(t testing.TB, kind string) (databaseURL string, drop func() error) {
	t.Helper()
	databaseURL, drop, err := createDatabase(PostgresServer(t), kind)
	if err != nil {
		t.Fatal(err)
	}
	return databaseURL, drop
}

func createDatabase(server, kind string) (databaseURL string, drop func() error, err error) {
	name := "herald_test_" + randomHex(8)
	locale := ""
	if kind == PostgresC {
		locale = " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
	}
	if err := execute(server, "CREATE DATABASE "+name+locale); err != nil {
		return "", nil, fmt.Errorf("create a database: %w", err)
	}
	drop = func() error {
		if err := execute(server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop the database: %w", err)
		}
		return nil
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	return u.String(), drop, nil
}

// execute runs statements on a connection of their own.
func execute(server string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// PostgresServer returns the URL of a server on which databases can be created. Without one the test is skipped; in CI
// it fails.
func PostgresServer(t testing.TB) string {
	t.Helper()
	if !HasPostgres() {
		absent(t, "PostgreSQL at "+host(postgresServer()), errors.New("it does not answer"))
	}
	return postgresServer()
}

// HasPostgres reports whether a PostgreSQL server answers.
func HasPostgres() bool { return execute(postgresServer()) == nil }

func postgresServer() string {
	if given := os.Getenv(DatabaseVariable); given != "" {
		return given
	}
	return defaultServer
}

// host is what a message may show of a server's URL.
func host(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return "the given address"
	}
	if socketDirectory := u.Query().Get("host"); u.Host == "" {
		return socketDirectory
	}
	return u.Host
}
