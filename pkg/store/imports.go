package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"herald/pkg/lead"
	"herald/pkg/message"
)

// leadMerge is one batch of an import on its way into the database.
type leadMerge struct {
	lead.Batch
	// made is a lead that the attempt before made under a new id, or the nil id. If that lead is there, the attempt was
	// committed and only its answer was lost.
	made uuid.UUID
}

// rows has the batch merged into leads, and returns what is to be inserted and what is to be updated.
func (m *leadMerge) rows(stored []message.Lead) (created, updated []leadRow) {
	c, u := m.Merge(stored)
	given := make(map[uuid.UUID]bool, len(m.IDs))
	for _, id := range m.IDs {
		given[id] = true
	}
	m.made = uuid.Nil
	for i := range c {
		if !given[c[i].ID] {
			m.made = c[i].ID
			break
		}
	}
	return rowsOfLeads(c), rowsOfLeads(u)
}

// MergeLeads implements lead.Store. A batch whose new id was taken by another request meanwhile is merged again, and finds
// that lead.
func (s *Store) MergeLeads(ctx context.Context, b lead.Batch) error {
	m := &leadMerge{Batch: b}
	return repeat(ctx, func() error {
		err := s.hot.mergeLeads(ctx, m)
		if isTaken(err) {
			return message.Unavailable("the id of a lead", err)
		}
		return fail("merge leads", err)
	})
}

// errOtherImporter says that the batches under way are those of another process.
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
UNION ALL SELECT id FROM leads WHERE phone <> '' AND phone = ANY($3::text[])`
)

// lockLeadsSQL locks leads in the order of their ids, so that two batches never wait for each other, and reads them as
// they are under the lock.
var lockLeadsSQL = "SELECT id, tags, custom_fields, created_at, updated_at, last_contacted_at, " + strings.Join(leadTexts, ", ") +
	" FROM leads WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"

// changingColumns are the columns of a lead that a write over it may change.
func changingColumns() []string {
	return slices.DeleteFunc(slices.Clone(leadColumns), func(c string) bool { return c == "id" || c == "created_at" })
}

// updateLeadsSQL writes over leads that are there. A row set in JSON is one parameter, however many columns and rows there
// are.
var updateLeadsSQL = func() string {
	set := changingColumns()
	for i, c := range set {
		set[i] = c + " = u." + c
	}
	return "UPDATE leads l SET " + strings.Join(set, ", ") + " FROM json_populate_recordset(NULL::leads, $1::json) u WHERE l.id = u.id"
}()

// mergeLeads excludes batches of other processes. As long as this process holds the lease its batches run beside each
// other. A batch that finds another process's token begins again under the exclusive lock, which ends with its commit: so
// every change of hands writes a batch, and processes that alternate never only take the lease from each other.
func (h *postgresHot) mergeLeads(ctx context.Context, m *leadMerge) error {
	err := pgx.BeginFunc(ctx, h.records, func(tx pgx.Tx) error {
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
	return pgx.BeginFunc(ctx, h.records, func(tx pgx.Tx) error {
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
	statements.Queue(importerSQL, m.Importer, m.made).QueryRow(func(row pgx.Row) error { return row.Scan(&own, &done) })
	return own, done, tx.SendBatch(ctx, &statements).Close()
}

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

func lockLeads(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) ([]message.Lead, error) {
	rows, err := tx.Query(ctx, lockLeadsSQL, ids)
	if err != nil {
		return nil, err
	}
	var r leadRow
	leads := make([]message.Lead, 0, len(ids))
	into := []any{
		&r.ID, (*[]byte)(&r.Tags), (*[]byte)(&r.CustomFields), &r.CreatedAt, &r.UpdatedAt, &r.LastContactedAt,
		&r.FirstName, &r.LastName, &r.Email, &r.Phone, &r.InstagramID, &r.Company, &r.Title, &r.Status, &r.Source, &r.City, &r.State,
		&r.Country, &r.Timezone, &r.Language, &r.AssigneeID,
	}
	_, err = pgx.ForEachRow(rows, into, func() error {
		l, _ := r.lead() // what cannot be decoded reads as absent, as in readLeads
		leads = append(leads, *l)
		return nil
	})
	return leads, err
}

// writeLeads copies new leads, which is several times faster than inserting them, and updates the others by id.
func writeLeads(ctx context.Context, tx pgx.Tx, created, updated []leadRow) error {
	if len(created) > 0 {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"leads"}, leadColumns, pgx.CopyFromSlice(len(created), func(i int) ([]any, error) {
			return created[i].values(), nil
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

func (h *postgresHot) insertLeads(ctx context.Context, leads []leadRow) error {
	return pgx.BeginFunc(ctx, h.records, func(tx pgx.Tx) error { return writeLeads(ctx, tx, leads, nil) })
}

// mergeLeads needs no lease and no locks: transactions on SQLite run one after the other.
func (h *sqliteHot) mergeLeads(ctx context.Context, m *leadMerge) error {
	return h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var stored []message.Lead
		seen := map[uuid.UUID]bool{}
		for _, q := range []struct {
			where string
			n     int
			arg   any
		}{
			{"id IN ?", len(m.IDs), m.IDs}, {"email_fold <> '' AND email_fold IN ?", len(m.Emails), m.Emails}, {"phone <> '' AND phone IN ?", len(m.Phones), m.Phones},
		} {
			if q.n == 0 {
				continue
			}
			leads, err := readLeads(tx.Where(q.where, q.arg))
			if err != nil {
				return err
			}
			for _, l := range leads {
				if !seen[l.ID] {
					seen[l.ID] = true
					stored = append(stored, l)
				}
			}
		}
		created, updated := m.rows(stored)
		if len(created) > 0 {
			if err := tx.CreateInBatches(created, batchRows).Error; err != nil {
				return err
			}
		}
		if len(updated) == 0 {
			return nil
		}
		return tx.Clauses(overLeads).CreateInBatches(updated, batchRows).Error // each is there, in this transaction
	})
}

// overLeads makes an insert write over a lead that is there. Only the id and the time of creation stay.
var overLeads = clause.OnConflict{Columns: []clause.Column{{Name: "id"}}, DoUpdates: clause.AssignmentColumns(changingColumns())}

func (h *sqliteHot) insertLeads(ctx context.Context, leads []leadRow) error {
	return h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return tx.CreateInBatches(leads, batchRows).Error })
}
