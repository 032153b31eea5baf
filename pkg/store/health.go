package store

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Refusal is why a database that answers takes no writes. Its text is for operators; it holds no data.
type Refusal struct{ reason string }

// Error implements error.
func (r *Refusal) Error() string { return "the database takes no writes: " + r.reason }

// Reason returns the reason in one or two words, for probes.
func (r *Refusal) Reason() string { return r.reason }

// refusals are the errors that say that a server takes no writes, whatever the statement.
var refusals = map[string]string{
	pgerrcode.ReadOnlySQLTransaction: "read-only",
	pgerrcode.DiskFull:               "disk full",
	pgerrcode.OutOfMemory:            "out of memory",
	pgerrcode.IOError:                "I/O error",
}

// writes remembers that a server refused a write. A server whose disk is full still answers a ping.
type writes struct{ refused atomic.Bool }

// note is called with every error of the server.
func (w *writes) note(err *pgconn.PgError) {
	if _, refusal := refusals[err.Code]; refusal {
		w.refused.Store(true)
	}
}

// Ping says whether the database answers and takes writes. A full disk shows only in a write, so after one was refused Ping
// tries one itself, and rolls it back, until it succeeds.
func (db *DB) Ping(ctx context.Context) error {
	if db.pools == nil {
		return db.sql.PingContext(ctx)
	}
	var readOnly bool
	if err := db.pools.records.QueryRow(ctx, "SELECT current_setting('transaction_read_only')::bool").Scan(&readOnly); err != nil {
		return WrapError("ping", err)
	}
	if readOnly {
		return &Refusal{refusals[pgerrcode.ReadOnlySQLTransaction]}
	}
	if !db.writes.refused.Load() {
		return nil
	}
	if err := db.tryWrite(ctx); err != nil {
		return err
	}
	db.writes.refused.Store(false)
	return nil
}

// tryWrite writes a message and rolls it back.
func (db *DB) tryWrite(ctx context.Context) error {
	tx, err := db.pools.records.BeginTx(ctx, pgx.TxOptions{})
	if err != nil {
		return WrapError("ping", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, `
INSERT INTO messages (id, channel_id, channel_type, provider, recipient, message_type, priority, status, created_at, updated_at)
VALUES ($1, $1, '', '', '', '', '', 'CANCELLED', now(), now())`, uuid.New())
	if refusal := refusalOf(err); refusal != nil {
		return refusal
	}
	return WrapError("ping", err)
}

// refusalOf returns the Refusal that an error of the server stands for, nil for any other error.
func refusalOf(err error) error {
	if code := SQLState(err); refusals[code] != "" {
		return fmt.Errorf("%w: %w", &Refusal{refusals[code]}, err)
	}
	return nil
}
