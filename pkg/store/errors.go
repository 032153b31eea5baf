package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	sqlite3 "modernc.org/sqlite/lib"

	"herald/pkg/message"
)

// WrapError names the operation in an error and gives it the code that callers act on: not found, conflict, invalid value or
// unavailable. nil stays nil.
func WrapError(doing string, err error) error {
	if err == nil { // checked here, because classify allocates before it compares
		return nil
	}
	return classify(doing, err)
}

// classify maps an error by a closed list. Of PostgreSQL's errors only those of the data (classes 22, 23, and 54: larger than
// an index entry may be) and of the statement (42 and 0A) are permanent. Every other class is temporary: read-only after a
// switch-over (25006), a full disk (53100), no free connection (53300), an internal error (XX000).
func classify(doing string, err error) error {
	var known *message.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, gorm.ErrRecordNotFound):
		return message.Errorf(message.CodeNotFound, "not found")
	case errors.Is(err, gorm.ErrDuplicatedKey):
		return message.Errorf(message.CodeConflict, "already exists")
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case IsInvalidValue(err):
		return &message.Error{Code: message.CodeInvalid, Message: "the database rejects a value", Cause: fmt.Errorf("%s: %w", doing, err)}
	case isTemporary(err):
		return message.Unavailable("the database", fmt.Errorf("%s: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// keepConnection reports whether a connection stays in use after an error. A connection to a server that became read-only is
// closed, because the next one may reach the server that replaced it.
func keepConnection(err *pgconn.PgError) bool {
	return !strings.EqualFold(err.Severity, "FATAL") && err.Code != pgerrcode.ReadOnlySQLTransaction
}

// severalHosts reports whether a connection string names more than one server. Then only a server that accepts writes is used.
func severalHosts(c *pgx.ConnConfig) bool {
	return slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != c.Host || f.Port != c.Port })
}

const (
	retryBudget = 2 * time.Second       // bounds how long Retry repeats a write
	retryFirst  = 20 * time.Millisecond // the first wait; the following ones double, with jitter
)

// Retry executes an idempotent write, and repeats it with back-off while the database is unavailable: perhaps only the answer
// was lost. It returns the error of the last execution.
func Retry(ctx context.Context, write func() error) error {
	last := write()
	if !message.IsCode(last, message.CodeUnavailable) { // nearly always; this path allocates nothing
		return last
	}
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.Multiplier = retryFirst, 2
	first := true
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		if !first {
			last = write()
		}
		first = false
		if message.IsCode(last, message.CodeUnavailable) {
			return struct{}{}, last
		}
		return struct{}{}, backoff.Permanent(last)
	}, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(retryBudget))
	return last
}

// SQLState returns the SQLSTATE of a PostgreSQL error, "" for any other error.
func SQLState(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	return pg.Code
}

// IsInvalidValue reports whether the database rejected a value. Such a row must not fail the other rows of its group.
func IsInvalidValue(err error) bool {
	if pg := SQLState(err); pg != "" {
		return pgerrcode.IsDataException(pg) || pgerrcode.IsIntegrityConstraintViolation(pg) || pgerrcode.IsProgramLimitExceeded(pg)
	}
	code := sqliteCode(err)
	return code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_MISMATCH || code == sqlite3.SQLITE_TOOBIG
}

// isTemporary reports whether an error is a state of the server, the disk or the connection that ends without a change of the
// request.
func isTemporary(err error) bool {
	var (
		pg      *pgconn.PgError
		connErr *pgconn.ConnectError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &connErr): // also when the server rejected the connection with a PgError
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

// sqliteCode returns the primary result code of a SQLite error, SQLITE_OK for any other error.
func sqliteCode(err error) int {
	var e interface {
		error
		Code() int // the higher bytes hold the extended code
	}
	if !errors.As(err, &e) {
		return sqlite3.SQLITE_OK
	}
	return e.Code() & 0xff
}
