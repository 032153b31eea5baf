// Package store is the base of all access to the database: PostgreSQL in production, SQLite in the embedded mode. It opens
// the database, applies the migrations, classifies errors, runs transactions with retries, and declares the rows and the
// column lists that more than one table's code needs. Its subpackages implement the ports of the domain packages:
//
//   - search finds the leads of an audience,
//   - records keeps what is read and written one row at a time, through GORM,
//   - ledger executes the statements that run once per message, in groups.
//
// None of them decides anything: the domain says what a row becomes, and under which condition.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	gosqlite "github.com/glebarez/go-sqlite"
	"github.com/glebarez/sqlite"
	"github.com/jackc/pgx/v5/pgxpool"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"herald/pkg/message"
)

// Options of a database. The zero value suits one process of a deployment.
type Options struct {
	MaxConns int // connections to PostgreSQL; 0: defaultConns
}

// defaultConns is the default bound of the connections of one process. Grouped statements need few.
const defaultConns = 24

// DB is one open database. It is safe for concurrent use.
type DB struct {
	gorm   *gorm.DB
	sql    *sql.DB
	pools  *pools // nil on SQLite
	writes writes
}

// Open connects to postgres://… or sqlite:///path. It does not touch the schema.
func Open(ctx context.Context, databaseURL string, o Options) (*DB, error) {
	db := &DB{}
	var err error
	switch {
	case strings.HasPrefix(databaseURL, "postgres://"), strings.HasPrefix(databaseURL, "postgresql://"):
		err = db.openPostgres(ctx, databaseURL, cmp.Or(o.MaxConns, defaultConns))
	case strings.HasPrefix(databaseURL, "sqlite://"):
		err = db.openSQLite(strings.TrimPrefix(databaseURL, "sqlite://"))
	default:
		err = errors.New("DATABASE_URL must begin with postgres:// or sqlite://")
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

func gormConfig() *gorm.Config {
	return &gorm.Config{
		Logger:                 logger.Default.LogMode(logger.Silent), // errors are returned; SQL with values is never logged
		TranslateError:         true,
		SkipDefaultTransaction: true,
		NowFunc:                func() time.Time { return Stamp(time.Now()) },
	}
}

// scrub removes the password of a database URL from an error.
func scrub(err error, databaseURL string) error {
	u, perr := url.Parse(databaseURL)
	if perr != nil || u.User == nil {
		return err
	}
	if pw, ok := u.User.Password(); ok && pw != "" {
		return errors.New(strings.ReplaceAll(err.Error(), pw, "xxxxx"))
	}
	return err
}

// address_hash is message.HashAddress in SQL. Migrations of SQLite use it, which has no hash function; PostgreSQL has sha256.
func init() {
	gosqlite.MustRegisterDeterministicScalarFunction("address_hash", 1, func(_ *gosqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		address, ok := args[0].(string)
		if !ok {
			return nil, nil //nolint:nilnil // SQL's NULL
		}
		hash := message.HashAddress(address)
		return hash[:], nil
	})
}

// openSQLite uses one connection, because SQLite has one writer: readers that wait briefly are simpler than writers that
// get SQLITE_BUSY. With synchronous=FULL every answered write is on disk. Transactions take the write lock when they begin
// (_txlock=immediate), so what a transaction has read still holds when it writes, also beside another process.
func (db *DB) openSQLite(path string) error {
	dsn := "file:" + path + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)&_txlock=immediate"
	g, err := gorm.Open(sqlite.Open(dsn), gormConfig())
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if db.sql, err = g.DB(); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	db.sql.SetMaxOpenConns(1)
	db.gorm = g
	return nil
}

// Close closes the connections. Stop everything that uses the database first.
func (db *DB) Close() {
	_ = db.sql.Close()
	if db.pools != nil {
		db.pools.close()
	}
}

// IsPostgres reports whether the database is PostgreSQL; otherwise it is SQLite.
func (db *DB) IsPostgres() bool { return db.pools != nil }

// Dialect returns "postgres" or "sqlite".
func (db *DB) Dialect() string {
	if db.IsPostgres() {
		return "postgres"
	}
	return "sqlite"
}

// WithContext returns a GORM session. On PostgreSQL it uses the connections of RecordsPool.
func (db *DB) WithContext(ctx context.Context) *gorm.DB { return db.gorm.WithContext(ctx) }

// SQL returns the connections below GORM.
func (db *DB) SQL() *sql.DB { return db.sql }

// LedgerPool returns the PostgreSQL connections for grouped statements. Call the pools only if IsPostgres.
func (db *DB) LedgerPool() *pgxpool.Pool { return db.pools.ledger }

// RecordsPool returns the PostgreSQL connections for statements on single rows, which may wait for locks.
func (db *DB) RecordsPool() *pgxpool.Pool { return db.pools.records }

// SearchPool returns the PostgreSQL connections for audiences, which may scan tables.
func (db *DB) SearchPool() *pgxpool.Pool { return db.pools.search }

// Now is the current time in a statement, by the clock of the database. SQLite shares the clock of this process.
func (db *DB) Now() clause.Expr { return db.In(0) }

// In is the time d from now in a statement; a negative d is in the past.
func (db *DB) In(d time.Duration) clause.Expr {
	if db.IsPostgres() {
		return gorm.Expr("now() + ? * interval '1 second'", d.Seconds())
	}
	return gorm.Expr("?", Stamp(time.Now().Add(d)))
}

// Stamp converts a time to what both databases store: UTC, in microseconds.
func Stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// UTC is Stamp's time zone for an optional time.
func UTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
