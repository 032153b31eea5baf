package records

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"herald/pkg/message"
	"herald/pkg/store"
)

// postgresLeads writes leads over connections that may wait for locks.
type postgresLeads struct{ pool *pgxpool.Pool }

// errOtherImporter is the error of a batch that found the lease with another process.
var errOtherImporter = errors.New("another process imports leads")

const (
	// Batches of one process hold this lock together. Requests for table locks are served in their order, so a process
	// that waits for the exclusive lock gets it although others go on importing; with locks on the row it would starve.
	shareImportsSQL = "LOCK TABLE import_lease IN ROW SHARE MODE"
	ownImportsSQL   = "LOCK TABLE import_lease IN EXCLUSIVE MODE"
	importerSQL     = "SELECT EXISTS (SELECT 1 FROM import_lease WHERE token = $1), EXISTS (SELECT 1 FROM leads WHERE id = $2)"
	takeImportsSQL  = "UPDATE import_lease SET token = $1"

	// matchSQL finds leads by their keys, without locks.
	matchSQL = `
SELECT id FROM leads WHERE id = ANY($1::uuid[])
UNION ALL SELECT id FROM leads WHERE email_fold <> '' AND email_fold = ANY($2::text[])
UNION ALL SELECT id FROM leads WHERE phone_fold <> '' AND phone_fold = ANY($3::text[])`
)

// lockLeadsSQL locks leads in the order of their ids, so that two batches never deadlock, and reads them as they are under the
// lock.
var lockLeadsSQL = "SELECT " + store.WholeLeadColumns + " FROM leads WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"

// updateLeadsSQL updates existing leads. The rows are one parameter in JSON: as arrays, the 40 columns of a batch would be as many
// parameters to plan.
var updateLeadsSQL = func() string {
	set := slices.Clone(store.LeadUpdates)
	for i, c := range set {
		set[i] = c + " = u." + c
	}
	return "UPDATE leads l SET " + strings.Join(set, ", ") + " FROM json_populate_recordset(NULL::leads, $1::json) u WHERE l.id = u.id"
}()

// mergeLeads excludes batches of other processes. As long as this process holds the lease its batches run beside each
// other. A batch that finds another process's token begins again under the exclusive lock, which ends with its commit: so
// every change of hands writes a batch, and processes that alternate never only take the lease from each other.
func (w *postgresLeads) mergeLeads(ctx context.Context, m *leadMerge) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		own, done, err := enterImports(ctx, tx, shareImportsSQL, m)
		switch {
		case err != nil || done:
			return err
		case !own:
			return errOtherImporter
		}
		return mergeUnderLock(ctx, tx, m)
	})
	if !errors.Is(err, errOtherImporter) {
		return err
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		_, done, err := enterImports(ctx, tx, ownImportsSQL, m)
		if err != nil || done {
			return err
		}
		if _, err := tx.Exec(ctx, takeImportsSQL, m.Importer); err != nil {
			return err
		}
		return mergeUnderLock(ctx, tx, m)
	})
}

// enterImports takes a lock on the lease, and then reads whether the token is the batch's own, and whether the batch was
// written by the attempt before.
func enterImports(ctx context.Context, tx pgx.Tx, lock string, m *leadMerge) (own, done bool, err error) {
	var statements pgx.Batch
	statements.Queue(lock)
	statements.Queue(importerSQL, m.Importer, m.created).QueryRow(func(row pgx.Row) error { return row.Scan(&own, &done) })
	return own, done, tx.SendBatch(ctx, &statements).Close()
}

// mergeUnderLock reads, merges and writes a batch. Leads are matched without locks and then locked by id, so a lead that changed
// its email meanwhile is still updated by id.
func mergeUnderLock(ctx context.Context, tx pgx.Tx, m *leadMerge) error {
	rows, err := tx.Query(ctx, matchSQL, m.IDs, m.Emails, m.Phones)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return err
	}
	var stored []message.Lead
	if len(ids) > 0 {
		if stored, err = lockLeads(ctx, tx, ids); err != nil {
			return err
		}
	}
	created, updated := m.rows(stored)
	return writeLeads(ctx, tx, created, updated)
}

// lockLeads locks leads and reads them.
func lockLeads(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) ([]message.Lead, error) {
	rows, err := tx.Query(ctx, lockLeadsSQL, ids)
	if err != nil {
		return nil, err
	}
	var r store.LeadScan
	leads := make([]message.Lead, 0, len(ids))
	_, err = pgx.ForEachRow(rows, r.WholeTargets(), func() error {
		l, _ := r.Next() // a value that cannot be decoded reads as absent, as in store.ReadLeads
		leads = append(leads, *l)
		return nil
	})
	return leads, err
}

// writeLeads copies new leads, which is several times faster than inserting them, and updates the others by id.
func writeLeads(ctx context.Context, tx pgx.Tx, created, updated []store.LeadRow) error {
	if len(created) > 0 {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"leads"}, store.LeadColumns, pgx.CopyFromSlice(len(created), func(i int) ([]any, error) {
			return created[i].CopyValues(), nil
		}))
		if err != nil {
			return err
		}
	}
	if len(updated) == 0 {
		return nil
	}
	set, err := json.Marshal(updated)
	if err == nil {
		_, err = tx.Exec(ctx, updateLeadsSQL, string(set))
	}
	return err
}

func (w *postgresLeads) insertLeads(ctx context.Context, leads []store.LeadRow) error {
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return writeLeads(ctx, tx, leads, nil) })
}
