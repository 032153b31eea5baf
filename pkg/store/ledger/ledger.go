// Package ledger executes the statements that run once per message of a bulk or per single: inserting, loading, claiming and
// recording outcomes of messages, and planning and walking bulks. Concurrent calls share statements and commits (group
// commit). PostgreSQL and SQLite are two drivers with the same conditions. The package does not decide what happens to a
// message; delivery and bulk do.
package ledger

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/batch"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
)

// commitInterval is the minimal time between the starts of two commitBatches. A commit, and the wake-ups of the callers that
// wait for it, cost far more than one message of it. A worker with a hundred sends of 50 ms in flight would otherwise make six
// hundred commits a second with three messages each; with the interval it needs a quarter less of the machine. Under full load
// commits take longer than that anyway.
const commitInterval = 2 * time.Millisecond

// driver executes the statements in the way of one database. The methods that take a group return one result per item, in
// order.
type driver interface {
	insert(ctx context.Context, singles []single) ([]insertResult, error)
	// insertWithFiles inserts one single with its files, in a transaction of its own.
	insertWithFiles(ctx context.Context, s *single, files []message.FileData) (insertResult, error)
	load(ctx context.Context, ids []uuid.UUID) ([]delivery.Loaded, error)
	claim(ctx context.Context, claims []*delivery.Claim) ([]bool, error)
	// commitBatch records outcomes, and loads and claims messages, in one transaction: the commit is the expensive part.
	commitBatch(ctx context.Context, outcomes []*delivery.Outcome, claims []*delivery.Claim) ([]delivery.Settled, []delivery.Loaded, error)
	suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error)
	addMessages(ctx context.Context, p bulk.PlanPage) error
	walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error)
}

func newDriver(db *store.DB) driver {
	if db.IsPostgres() {
		return &postgresDriver{pool: db.LedgerPool(), files: db.RecordsPool()}
	}
	return &sqliteDriver{db}
}

// Ledger implements delivery.Ledger, delivery.Inserter and the sweep's port. It is safe for concurrent use: concurrent calls
// share statements. Close ends it.
type Ledger struct {
	db      *store.DB
	driver  driver
	inserts *batch.Group[single, insertResult]
	loads   *batch.Group[uuid.UUID, delivery.Loaded]
	claims  *batch.Group[*delivery.Claim, bool]
	commits *batch.Group[ledgerOp, ledgerOpResult]
}

// New returns a ledger on a database. Each kind of group has one run at a time. Calls that arrive meanwhile go with the next
// run, so groups, and with them the commits that they share, grow with the load.
func New(db *store.DB) *Ledger {
	l := &Ledger{db: db, driver: newDriver(db)}
	l.inserts = batch.New("insert", store.IsInvalidValue, l.driver.insert)
	l.loads = batch.New("load", store.IsInvalidValue, l.driver.load)
	l.claims = batch.New("claim", store.IsInvalidValue, l.driver.claim)
	l.commits = batch.New("commit", store.IsInvalidValue, l.commitBatch)
	l.commits.MinInterval(commitInterval)
	return l
}

// Close waits for the calls in flight. Close the ledger before its database.
func (l *Ledger) Close() {
	l.inserts.Close()
	l.loads.Close()
	l.claims.Close()
	l.commits.Close()
}

// Load implements delivery.Ledger.
func (l *Ledger) Load(ctx context.Context, id uuid.UUID) (delivery.Loaded, error) {
	loaded, err := l.loads.Do(ctx, id)
	return found(loaded, id, store.WrapError("load the message", err))
}

// LoadAndClaim implements delivery.Ledger.
func (l *Ledger) LoadAndClaim(ctx context.Context, c delivery.Claim) (delivery.Loaded, error) {
	done, err := l.commits.Do(ctx, ledgerOp{claim: &c})
	return found(done.loaded, c.ID, store.WrapError("load and claim the message", err))
}

// found returns a message.Error not_found if no message was loaded.
func found(l delivery.Loaded, id uuid.UUID, err error) (delivery.Loaded, error) {
	if err == nil && l.Message == nil {
		err = message.Errorf(message.CodeNotFound, "message %s not found", id)
	}
	return l, err
}

// Claim implements delivery.Ledger.
func (l *Ledger) Claim(ctx context.Context, c delivery.Claim) (bool, error) {
	ok, err := l.claims.Do(ctx, &c)
	return ok, store.WrapError("claim the message", err)
}

// Settle implements delivery.Ledger.
func (l *Ledger) Settle(ctx context.Context, o delivery.Outcome) (delivery.Settled, error) {
	done, err := l.commits.Do(ctx, ledgerOp{outcome: &o})
	return done.settled, store.WrapError("settle the message", err)
}

// ledgerOp is one call in a commitBatch: an outcome to record, or a claim to load a message with.
type ledgerOp struct {
	outcome *delivery.Outcome
	claim   *delivery.Claim
}

// ledgerOpResult is the result of a ledgerOp of the same kind.
type ledgerOpResult struct {
	settled delivery.Settled
	loaded  delivery.Loaded
}

// commitBatch executes a group: it sorts the operations by kind, and the results back into their order.
func (l *Ledger) commitBatch(ctx context.Context, ops []ledgerOp) ([]ledgerOpResult, error) {
	outcomes, claims := make([]*delivery.Outcome, 0, len(ops)), make([]*delivery.Claim, 0, len(ops))
	for _, op := range ops {
		if op.outcome != nil {
			outcomes = append(outcomes, op.outcome)
		} else {
			claims = append(claims, op.claim)
		}
	}
	settled, loaded, err := l.driver.commitBatch(ctx, outcomes, claims)
	if err != nil {
		return nil, err
	}
	out := make([]ledgerOpResult, len(ops))
	for i, op := range ops {
		if op.outcome != nil {
			out[i].settled, settled = settled[0], settled[1:]
		} else {
			out[i].loaded, loaded = loaded[0], loaded[1:]
		}
	}
	return out, nil
}

// Due implements the port of delivery's sweep: it returns messages whose next attempt is due, and moves that time on by
// again. Rows that another process is looking at are skipped.
func (l *Ledger) Due(ctx context.Context, limit int, again time.Duration) ([]delivery.DueMessage, error) {
	skip := ""
	if l.db.IsPostgres() {
		skip = "FOR UPDATE SKIP LOCKED"
	}
	var rows []struct {
		ID      uuid.UUID
		Sending bool
	}
	err := l.db.WithContext(ctx).Raw(`
UPDATE messages SET
    next_attempt_at = ?,
    generation = generation + CASE WHEN status = 'UNKNOWN' THEN 1 ELSE 0 END,
    suspect = CASE WHEN status = 'UNKNOWN' AND suspect = 0 THEN 1 ELSE suspect END,
    status = CASE WHEN status <> 'UNKNOWN' THEN status WHEN bulk_id IS NULL THEN 'QUEUED' ELSE 'PENDING' END
WHERE id IN (
    SELECT id FROM messages
    WHERE next_attempt_at < ? AND (status <> 'SENDING' OR claim_expires_at < ?)
    ORDER BY next_attempt_at LIMIT ? `+skip+`)
RETURNING id, status = 'SENDING' AS sending`, l.db.In(again), l.db.Now(), l.db.Now(), limit).Scan(&rows).Error
	if err != nil {
		return nil, store.WrapError("look for due messages", err)
	}
	due := make([]delivery.DueMessage, len(rows))
	for i, r := range rows {
		due[i] = delivery.DueMessage{ID: r.ID, Sending: r.Sending}
	}
	return due, nil
}

// writesAttempt reports whether an attempt gets a row in attempts: all but the plain success, which the message's own row
// records. matched is whether the outcome took effect.
func writesAttempt(o *delivery.Outcome, matched bool) bool {
	return o.Attempt() != nil && (o.Attempt().Outcome != message.AttemptSent || o.ExtendsClaim() > 0 || !matched)
}

// attemptsOf returns the attempts to be written for a group of outcomes. An attempt whose claim was lost is marked late.
func attemptsOf(outcomes []*delivery.Outcome, settled []delivery.Settled) []store.AttemptRow {
	var rows []store.AttemptRow
	for i, o := range outcomes {
		if !writesAttempt(o, settled[i].OK) {
			continue
		}
		row := store.RowOfAttempt(o.Attempt())
		if !settled[i].OK {
			row.Outcome = message.AttemptLate
		}
		rows = append(rows, row)
	}
	return rows
}
