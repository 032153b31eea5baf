package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	sqlite3 "modernc.org/sqlite/lib"

	"herald/pkg/message"
	"herald/pkg/pause"
)

// fail names what was being done, and gives failures that a caller can act on their code: a missing record, a taken
// key, a value that the database refuses, a database that does not answer.
func fail(doing string, err error) error {
	if err == nil { // here, because what follows allocates before it looks
		return nil
	}
	return failed(doing, err)
}

// failed maps an error by a closed list. Of what PostgreSQL reports only data (classes 22, 23, and 54: more than an
// index takes) and defects of the statement (42 and 0A) are permanent. Every other class passes: read-only after a switch-over (25006), a full disk (53100), no
// free connection (53300), an internal error (XX000).
func failed(doing string, err error) error {
	var known *message.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, gorm.ErrRecordNotFound):
		return message.Errorf(message.CodeNotFound, "not found")
	case errors.Is(err, gorm.ErrDuplicatedKey):
		return message.Errorf(message.CodeConflict, "it exists already")
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case isData(err):
		return &message.Error{Code: message.CodeInvalid, Message: "the database refuses a value", Cause: fmt.Errorf("%s: %w", doing, err)}
	case passes(err):
		return message.Unavailable("the database", fmt.Errorf("%s: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// keepConnection says whether a connection stays in use after an error. A connection to a server that has become read-only is
// closed, because the next one may reach the server that took its place.
func keepConnection(err *pgconn.PgError) bool {
	return !strings.EqualFold(err.Severity, "FATAL") && err.Code != pgerrcode.ReadOnlySQLTransaction
}

// severalHosts says whether a connection string names more than one server. Then only one that accepts writes is used.
func severalHosts(c *pgx.ConnConfig) bool {
	return slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != c.Host || f.Port != c.Port })
}

// repeatBudget is how long a write that may be repeated is tried while its connection breaks.
const repeatBudget = 2 * time.Second

// repeat runs a write that changes nothing when it was done already, again if the database did not answer: it may be
// the answer alone that was lost.
func repeat(ctx context.Context, write func() error) error {
	ctx, cancel := context.WithTimeout(ctx, repeatBudget)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		err := write()
		if !message.IsCode(err, message.CodeUnavailable) || !pause.For(ctx, wait) {
			return err
		}
	}
}

// pgCode returns the SQLSTATE of an error of PostgreSQL, "" for any other.
func pgCode(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	return pg.Code
}

// isData says whether the database refused a value, so that one bad row must not take others with it.
func isData(err error) bool {
	if pg := pgCode(err); pg != "" {
		return pgerrcode.IsDataException(pg) || pgerrcode.IsIntegrityConstraintViolation(pg) || pgerrcode.IsProgramLimitExceeded(pg)
	}
	code := sqliteCode(err)
	return code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_MISMATCH || code == sqlite3.SQLITE_TOOBIG
}

// passes says whether an error is a state of the server, of the disk or of the connection that ends by itself.
func passes(err error) bool {
	var (
		pg      *pgconn.PgError
		connErr *pgconn.ConnectError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &connErr): // it also holds what the server said as it refused the connection
		return true
	case errors.As(err, &pg):
		return !pgerrcode.IsSyntaxErrororAccessRuleViolation(pg.Code) && !pgerrcode.IsFeatureNotSupported(pg.Code)
	case errors.As(err, &netErr), pgconn.SafeToRetry(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, net.ErrClosed),
		strings.Contains(err.Error(), "unexpected EOF"):
		return true
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN:
		return true
	}
	return false
}

// sqliteCode returns the primary result code of an error of SQLite, SQLITE_OK for any other.
func sqliteCode(err error) int {
	var e interface {
		error
		Code() int // with the extended code in its higher bytes
	}
	if !errors.As(err, &e) {
		return sqlite3.SQLITE_OK
	}
	return e.Code() & 0xff
}
