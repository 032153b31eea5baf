package records

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
	"herald/pkg/store"
)

// sqliteLeads writes leads to SQLite.
type sqliteLeads struct{ db *store.DB }

// mergeLeads needs no lease and no locks: transactions on SQLite run one after the other.
func (w *sqliteLeads) mergeLeads(ctx context.Context, m *leadMerge) error {
	return w.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var stored []message.Lead
		seen := map[uuid.UUID]bool{}
		for _, q := range []struct {
			where string
			n     int
			arg   any
		}{
			{"id IN ?", len(m.IDs), m.IDs}, {"email_fold <> '' AND email_fold IN ?", len(m.Emails), m.Emails}, {"phone_fold <> '' AND phone_fold IN ?", len(m.Phones), m.Phones},
		} {
			if q.n == 0 {
				continue
			}
			leads, err := store.ReadLeads(tx.Where(q.where, q.arg))
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
		if err := insertLeadRows(tx, created, ""); err != nil {
			return err
		}
		return insertLeadRows(tx, updated, overwriteLeadSQL) // each of them exists, in this transaction
	})
}

// overwriteLeadSQL makes an insert update a lead that exists. Only the id and the time of creation stay.
var overwriteLeadSQL = func() string {
	set := slices.Clone(store.LeadUpdates)
	for i, c := range set {
		set[i] = c + " = excluded." + c
	}
	return " ON CONFLICT (id) DO UPDATE SET " + strings.Join(set, ", ")
}()

// insertLeadRows inserts leads in statements of store.BatchRows rows, because SQLite bounds the parameters of a statement. conflict
// is the ON CONFLICT clause, "" for none.
func insertLeadRows(tx *gorm.DB, rows []store.LeadRow, conflict string) error {
	row := "(?" + strings.Repeat(", ?", len(store.LeadColumns)-1) + ")"
	for batch := range slices.Chunk(rows, store.BatchRows) {
		values, args := make([]string, len(batch)), make([]any, 0, len(batch)*len(store.LeadColumns))
		for i := range batch {
			values[i], args = row, append(args, batch[i].Values()...)
		}
		sql := "INSERT INTO leads (" + strings.Join(store.LeadColumns, ", ") + ") VALUES " + strings.Join(values, ", ") + conflict
		if err := tx.Exec(sql, args...).Error; err != nil {
			return err
		}
	}
	return nil
}

func (w *sqliteLeads) insertLeads(ctx context.Context, leads []store.LeadRow) error {
	return w.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return insertLeadRows(tx, leads, "") })
}
