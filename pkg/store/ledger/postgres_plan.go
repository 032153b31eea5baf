package ledger

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/store"
)

const (
	// pageSQL moves the bulk on. It matches only under the lease, and only where the page begins; without a match no row is
	// written. Its parameters are the first of addMessagesSQL.
	pageSQL = `
UPDATE bulks SET total = total + $3, plan_cursor = $4, not_found = not_found + $5, planned = $6, planned_at = CASE WHEN $6 THEN now() END
WHERE id = $1 AND lease_token = $2 AND total = $7 AND NOT planned`

	// takenSQL returns the addresses that have a message in the bulk. It compares rows instead of three columns, because only
	// the index that begins with the address can serve a row comparison. On a table without statistics the planner may
	// choose the index of the bulk's rows for three equations, and read all of them for every address.
	takenSQL = `
SELECT h.hash FROM unnest($2::bytea[]) h(hash), LATERAL (
    SELECT 1 FROM messages m
    WHERE (m.address_hash, m.bulk_id, m.copy) >= (h.hash, $1, 0) AND (m.address_hash, m.bulk_id, m.copy) <= (h.hash, $1, 0) LIMIT 1) m`

	rowsSQL = `
INSERT INTO messages (id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, copy,
                      message_type, priority, status, reason, created_at, updated_at)
SELECT u.id, $1, u.seq, u.lead_id, $8, $9, $10, CASE WHEN l.id IS NULL THEN '' ELSE u.recipient END, CASE WHEN l.id IS NOT NULL THEN u.address_hash END,
       CASE WHEN l.id IS NULL THEN u.seq + 1 ELSE u.copy END, $11, $12, CASE WHEN l.id IS NULL THEN 'SKIPPED' ELSE u.status END,
       CASE WHEN l.id IS NULL THEN 'erased' ELSE u.reason END, now(), now()
FROM page, unnest($13::uuid[], $14::bigint[], $15::uuid[], $16::text[], $17::bytea[], $18::bigint[], $19::text[], $20::text[])
     u(id, seq, lead_id, recipient, address_hash, copy, status, reason) LEFT JOIN leads l ON l.id = u.lead_id
RETURNING seq, reason`

	// plannedSQL publishes event.BulkPlanned with the last page.
	plannedSQL = `
INSERT INTO outbox (type, subject_id, data, created_at)
SELECT 'bulk.planned', id, jsonb_build_object('bulk_id', id, 'total', total, 'not_found', not_found), now() FROM page WHERE planned`

	// addMessagesSQL also returns the rows whose lead was erased after it was read.
	addMessagesSQL = "WITH page AS (" + pageSQL + " RETURNING id, planned, total, not_found), added AS (" + rowsSQL +
		"), published AS (" + plannedSQL + ") SELECT (SELECT count(*) FROM page), ARRAY(SELECT seq FROM added WHERE reason = 'erased')"

	sharedErasureSQL = "SELECT pg_advisory_xact_lock_shared($1)"
)

// addMessages writes a page in one statement. It first asks, under the lock of the bulk's row, which of the page's addresses
// have a message in the bulk: that costs less than a look-up of every row in every unique index. No other process adds to the
// bulk meanwhile, because that takes the lease.
//
// The leads were read before the transaction. A lead that was erased since then gets a row without an address. The advisory
// lock keeps erasures out until the rows are committed: either the page sees the erasure or the erasure sees the rows.
func (d *postgresDriver) addMessages(ctx context.Context, p bulk.PlanPage) error {
	hashes := needsDuplicateCheck(&p)
	if len(hashes) == 0 {
		return d.writePage(ctx, d.pool, &p)
	}
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sharedErasureSQL, store.ErasureLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT 1 FROM bulks WHERE id = $1 FOR NO KEY UPDATE", p.Lease.BulkID); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, takenSQL, p.Bulk.ID, hashes)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return err
		}
		skipDuplicates(&p, found)
		return d.writePage(ctx, tx, &p)
	})
}

// batcher is a pool or a transaction.
type batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// writePage writes the rows of a page and moves its bulk on.
func (d *postgresDriver) writePage(ctx context.Context, to batcher, p *bulk.PlanPage) error {
	n := len(p.Rows)
	ids, leads, seqs, copies := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]int64, n), make([]int64, n)
	recipients, statuses, reasons, hashes := make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i := range p.Rows {
		r := &p.Rows[i]
		seqs[i] = p.Base + int64(i)
		ids[i], leads[i], recipients[i], statuses[i], reasons[i] = r.ID, r.LeadID, r.Recipient, string(r.Status), string(r.Reason)
		hashes[i], copies[i] = hashBytes(r), copyNumber(r, seqs[i])
	}
	b := p.Bulk
	moved := 0
	var erased []int64
	var statements pgx.Batch // one implicit transaction, or part of one
	statements.Queue(sharedErasureSQL, store.ErasureLock)
	statements.Queue(addMessagesSQL, p.Lease.BulkID, p.Lease.Token, n, p.Cursor, p.NotFound, p.Done, p.Base,
		b.Channel.ID, string(b.Channel.Type), b.Provider, string(b.MessageType), string(b.Priority),
		ids, seqs, leads, recipients, hashes, copies, statuses, reasons).QueryRow(func(row pgx.Row) error { return row.Scan(&moved, &erased) })
	err := to.SendBatch(ctx, &statements).Close()
	if err == nil && moved != 1 {
		return bulk.ErrLeaseLost
	}
	for _, seq := range erased {
		skipErased(&p.Rows[seq-p.Base])
	}
	return err
}

// suppressed returns the greatest reason of a hash: rows are read in the order of reasons, and later ones overwrite.
func (d *postgresDriver) suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	rows, err := d.pool.Query(ctx, "SELECT address_hash, reason FROM suppressions WHERE type = $1 AND address_hash = ANY($2::bytea[]) AND "+
		messageTypeColumn[p]+" ORDER BY reason", string(t), hashList(hashes))
	if err != nil {
		return nil, err
	}
	out := map[message.Hash]message.Reason{}
	var hash []byte
	var reason string
	_, err = pgx.ForEachRow(rows, []any{&hash, &reason}, func() error {
		out[message.Hash(hash)] = message.Reason(reason)
		return nil
	})
	return out, err
}

// hashList returns the hashes as the drivers bind them.
func hashList(hashes []message.Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}

var postgresWalkSQL = fmt.Sprintf(walkSQL, "now()", "$1", "$2", "$3")

// walk reads a range of a bulk's messages by seq.
func (d *postgresDriver) walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	rows, err := d.pool.Query(ctx, postgresWalkSQL, bulkID, from, limit)
	if err != nil {
		return nil, err
	}
	out := make([]bulk.Row, 0, limit)
	var r walkedRow
	_, err = pgx.ForEachRow(rows, []any{&r.ID, &r.Seq, &r.Status, &r.Reason, &r.CostMicros, &r.Generation, &r.Waiting, &r.Claimed}, func() error {
		out = append(out, r.row())
		return nil
	})
	return out, err
}
