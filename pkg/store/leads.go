package store

import (
	"context"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
)

// readLeads reads the leads of a query, in its order. What cannot be decoded in one, which only a file of SQLite can hold,
// reads as absent: a page, an import or an erasure must not fail for it.
func readLeads(query *gorm.DB) ([]message.Lead, error) {
	var rows []leadRow
	if err := query.Find(&rows).Error; err != nil {
		return nil, err
	}
	leads := make([]message.Lead, len(rows))
	for i := range rows {
		l, _ := rows[i].lead()
		leads[i] = *l
	}
	return leads, nil
}

// Lead implements lead.Store and delivery.Leads.
func (s *Store) Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := readLeads(db.Where("id = ?", id))
	if err != nil {
		return nil, fail("read the lead", err)
	}
	if len(leads) == 0 {
		return nil, noLead(id)
	}
	return &leads[0], nil
}

func noLead(id uuid.UUID) error {
	return message.Errorf(message.CodeNotFound, "lead %s not found", id)
}

// Leads implements lead.Store.
func (s *Store) Leads(ctx context.Context, after uuid.UUID, limit int) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := readLeads(db.Where("id > ?", after).Order("id").Limit(limit))
	return leads, fail("list leads", err)
}

// LeadsByID implements bulk.PreviewStore.
func (s *Store) LeadsByID(ctx context.Context, ids []uuid.UUID) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := readLeads(db.Where("id IN ?", ids).Order("id"))
	return leads, fail("read leads", err)
}

// InsertLeads implements lead.Store.
func (s *Store) InsertLeads(ctx context.Context, leads []message.Lead) error {
	if len(leads) == 0 {
		return nil
	}
	err := s.hot.insertLeads(ctx, rowsOfLeads(leads))
	if isTaken(err) {
		return message.Errorf(message.CodeConflict, "the id of a lead is taken")
	}
	return fail("insert leads", err)
}

func rowsOfLeads(leads []message.Lead) []leadRow {
	rows := make([]leadRow, len(leads))
	for i := range leads {
		rows[i] = rowOfLead(&leads[i])
	}
	return rows
}

// UpdateLead implements lead.Store.
func (s *Store) UpdateLead(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error) {
	var l *message.Lead
	err := s.transact(ctx, "update the lead", func(tx *gorm.DB) error {
		found, err := readLeads(tx.Clauses(lockUpdate).Where("id = ?", id))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return noLead(id)
		}
		l = &found[0]
		before := rowOfLead(l)
		if err := change(l); err != nil {
			return err
		}
		l.ID, l.CreatedAt = before.ID, before.CreatedAt.Time
		after := rowOfLead(l)
		return writeChanged(tx.Where("id = ?", id), &before, &after)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func dedupe(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := list[:0:0]
	for _, v := range list {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}
