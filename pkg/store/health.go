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

// Refusal is the error of a database that answers and rejects every write. Its text is for operators; it holds no data.
type Refusal struct{ reason string }

// Error implements error.
func (r *Refusal) Error() string { return "the database takes no writes: " + r.reason }

// Reason returns the reason in two or three words, for probes.
func (r *Refusal) Reason() string { return r.reason }

// refusals are the SQLSTATEs with which a server rejects every write. The values are reasons for Refusal.
var refusals = map[string]string{
	pgerrcode.ReadOnlySQLTransaction: "read-only",
	pgerrcode.DiskFull:               "disk full",
	pgerrcode.OutOfMemory:            "out of memory",
	pgerrcode.IOError:                "I/O error",
}

// writes remembers that a server rejected a write, because a server with a full disk still answers a ping.
type writes struct{ refused atomic.Bool }

// note records an error of the server. Each connection calls it with each error, concurrently.
func (w *writes) note(err *pgconn.PgError) {
	if _, refusal := refusals[err.Code]; refusal {
		w.refused.Store(true)
	}
}

// Ping returns an error if the database does not answer, and a Refusal if it rejects writes. Only a write shows a full disk, so
// after a rejected write each Ping executes one and rolls it back, until one succeeds. Other pings cost one round trip.
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

// refusalOf returns the Refusal for an error of the server, nil for any other error.
func refusalOf(err error) error {
	if code := SQLState(err); refusals[code] != "" {
		return fmt.Errorf("%w: %w", &Refusal{refusals[code]}, err)
	}
	return nil
}
