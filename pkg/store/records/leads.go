// Package records reads and writes single rows through GORM: channels, API keys, leads, bulks, suppressions, messages as they
// are displayed. Each type is one aggregate and implements the ports of the domain package that owns it. Differences between
// PostgreSQL and SQLite stay inside the type. What runs once per message belongs to the ledger package.
package records

import (
	"context"
	"reflect"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/search"
)

// LeadStore implements lead.Store, lead.Eraser and delivery.Leads. It is safe for concurrent use.
type LeadStore struct {
	db       *store.DB
	resolver *search.Resolver
	writer   leadWriter
}

// NewLeadStore returns the leads of a database.
func NewLeadStore(db *store.DB) *LeadStore {
	if db.IsPostgres() {
		return &LeadStore{db, search.NewResolver(db, 0), &postgresLeads{db.RecordsPool()}}
	}
	return &LeadStore{db, search.NewResolver(db, 0), &sqliteLeads{db}}
}

// leadWriter writes many leads in the way of one database, in one transaction.
type leadWriter interface {
	insertLeads(ctx context.Context, leads []store.LeadRow) error
	mergeLeads(ctx context.Context, m *leadMerge) error
}

// Lead implements lead.Store and delivery.Leads.
func (s *LeadStore) Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	leads, err := store.ReadLeads(s.db.WithContext(ctx).Where("id = ?", id))
	if err != nil {
		return nil, store.WrapError("read the lead", err)
	}
	if len(leads) == 0 {
		return nil, leadNotFound(id)
	}
	return &leads[0], nil
}

func leadNotFound(id uuid.UUID) error {
	return message.Errorf(message.CodeNotFound, "lead %s not found", id)
}

// Leads implements lead.Store.
func (s *LeadStore) Leads(ctx context.Context, c *audience.Criteria, after uuid.UUID, limit int) ([]message.Lead, error) {
	if c != nil {
		return s.resolver.Matching(ctx, c, after, limit)
	}
	leads, err := store.ReadLeads(s.db.WithContext(ctx).Where("id > ?", after).Order("id").Limit(limit))
	return leads, store.WrapError("list leads", err)
}

// InsertLeads implements lead.Store.
func (s *LeadStore) InsertLeads(ctx context.Context, leads []message.Lead) error {
	if len(leads) == 0 {
		return nil
	}
	err := s.writer.insertLeads(ctx, store.RowsOfLeads(leads))
	if store.IsDuplicate(err) {
		return message.Errorf(message.CodeConflict, "the id of a lead exists already")
	}
	return store.WrapError("insert leads", err)
}

// UpdateLead implements lead.Store. It writes only the columns that change, so that it does not undo a concurrent change of
// another column by a version of the program that does not lock the row.
func (s *LeadStore) UpdateLead(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error) {
	var l *message.Lead
	err := s.db.Transact(ctx, "update the lead", func(tx *gorm.DB) error {
		found, err := store.ReadLeads(tx.Clauses(store.LockUpdate).Where("id = ?", id))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return leadNotFound(id)
		}
		l = &found[0]
		before := store.RowOfLead(l)
		if err := change(l); err != nil {
			return err
		}
		l.ID, l.CreatedAt = before.ID, before.CreatedAt
		after := store.RowOfLead(l)
		if changed := changedColumns(&before, &after); len(changed) > 0 {
			return tx.Table("leads").Where("id = ?", id).Updates(changed).Error
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// changedColumns returns the columns that differ between two rows, with the values of the second.
func changedColumns(before, after *store.LeadRow) map[string]any {
	changed := map[string]any{}
	was, is := before.Values(), after.Values()
	for i, column := range store.LeadColumns {
		if !reflect.DeepEqual(was[i], is[i]) {
			changed[column] = is[i]
		}
	}
	return changed
}
