package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of Raw

	"herald/pkg/store"
	"herald/pkg/testenv"
)

// Main runs the tests of a package and then drops the PostgreSQL databases that they shared. A package whose tests call New or
// Each calls it in its TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if err := shared.drop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Each runs a test on SQLite and on PostgreSQL, as parallel subtests of a parallel test. Each subtest gets an empty store.
func Each(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Helper()
	t.Parallel()
	for _, kind := range []string{testenv.SQLite, testenv.Postgres} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, New(t, kind))
		})
	}
}

// New opens an empty store on a database of a kind of testenv, with a random master key. A PostgreSQL database is used by one
// test after the other, so a test must not change its schema. A test that does opens testenv.Database.
func New(t testing.TB, kind string) *Store {
	t.Helper()
	o := Options{Sealer: Sealer(t)}
	if kind == testenv.SQLite {
		return Open(t, testenv.Database(t, kind), o)
	}
	return Connect(t, shared.take(t, kind), o)
}

// databases are the migrated PostgreSQL databases of this process. To create, migrate and drop a database takes the server
// 0.5 s and more, to empty one a few milliseconds.
type databases struct {
	mu    sync.Mutex
	free  map[string][]string     // URLs by kind
	drops map[string]func() error // by URL
}

var shared = databases{free: map[string][]string{}, drops: map[string]func() error{}}

// take returns the URL of an empty database that no other test uses until the test ends.
func (d *databases) take(t testing.TB, kind string) string {
	t.Helper()
	for {
		databaseURL := d.pop(kind)
		if databaseURL == "" {
			databaseURL = d.create(t, kind)
		} else if err := empty(databaseURL); err != nil {
			t.Logf("empty a shared database: %v; another one is created", err)
			continue
		}
		t.Cleanup(func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.free[kind] = append(d.free[kind], databaseURL)
		})
		return databaseURL
	}
}

func (d *databases) pop(kind string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.free[kind])
	if n == 0 {
		return ""
	}
	databaseURL := d.free[kind][n-1]
	d.free[kind] = d.free[kind][:n-1]
	return databaseURL
}

// create creates and migrates a database. Its commits do not wait for the disk: no test of this process takes away the server's power.
func (d *databases) create(t testing.TB, kind string) string {
	t.Helper()
	databaseURL, drop := testenv.SharedDatabase(t, kind)
	databaseURL += separator(databaseURL) + "synchronous_commit=off"
	db, err := store.Open(t.Context(), databaseURL, store.Options{})
	Must(t, err)
	defer db.Close()
	_, err = db.Migrate(t.Context())
	Must(t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drops[databaseURL] = drop
	return databaseURL
}

func separator(databaseURL string) string {
	if strings.Contains(databaseURL, "?") {
		return "&"
	}
	return "?"
}

// drop drops the databases.
func (d *databases) drop() error {
	errs := make([]error, 0, len(d.drops))
	for _, drop := range d.drops {
		errs = append(errs, drop())
	}
	return errors.Join(errs...)
}

// emptySQL deletes the rows of all tables and leaves what the migrations insert.
const emptySQL = `
DO $$ BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY'
        FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('goose_db_version', 'import_lease'));
    UPDATE import_lease SET token = '00000000-0000-0000-0000-000000000000';
END $$`

func empty(databaseURL string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, emptySQL)
	return err
}

// migratedSQLite is the content of a SQLite file with the current schema.
var migratedSQLite = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "herald-sqlite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "migrated.db")
	db, err := store.Open(context.Background(), "sqlite://"+path, store.Options{})
	if err != nil {
		return nil, err
	}
	_, err = db.Migrate(context.Background())
	db.Close()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path) //nolint:gosec // the file was created above
})

// copySQLite creates the file of a SQLite database with the current schema, which takes a tenth of the time of the
// migrations. It reports false for a file that exists and for PostgreSQL.
func copySQLite(t testing.TB, databaseURL string) bool {
	t.Helper()
	path, ok := strings.CutPrefix(databaseURL, "sqlite://")
	if !ok {
		return false
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	b, err := migratedSQLite()
	Must(t, err)
	Must(t, os.WriteFile(path, b, 0o600))
	return true
}

// Raw opens a database without a Store.
func Raw(t testing.TB, databaseURL string) *sql.DB {
	t.Helper()
	driver, name := "pgx", databaseURL
	if path, ok := strings.CutPrefix(databaseURL, "sqlite://"); ok {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, name)
	Must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// AwaitLock waits until a statement on a PostgreSQL database waits for a lock.
func AwaitLock(t testing.TB, db *sql.DB) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, "a statement waits for a lock", func() bool {
		var n int
		Must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n))
		return n > 0
	})
}
