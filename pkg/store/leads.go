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
		return nil, message.Errorf(message.CodeNotFound, "there is no lead %s", id)
	}
	return &leads[0], nil
}

// Leads implements lead.Store.
func (s *Store) Leads(ctx context.Context, after uuid.UUID, limit int) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := readLeads(db.Where("id > ?", after).Order("id").Limit(limit))
	return leads, fail("list leads", err)
}

// LeadsByID implements bulk.Inspection.
func (s *Store) LeadsByID(ctx context.Context, ids []uuid.UUID) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := readLeads(db.Where("id IN ?", ids).Order("id"))
	return leads, fail("read leads", err)
}

// MatchLeads implements lead.Store.
func (s *Store) MatchLeads(ctx context.Context, ids []uuid.UUID, emails, phones []string) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	var out []message.Lead
	seen := map[uuid.UUID]bool{}
	for _, q := range []struct {
		where string
		n     int
		arg   any
	}{
		{"id IN ?", len(ids), ids}, {"email_fold <> '' AND email_fold IN ?", len(emails), emails}, {"phone <> '' AND phone IN ?", len(phones), phones},
	} {
		if q.n == 0 {
			continue
		}
		leads, err := readLeads(db.Where(q.where, q.arg))
		if err != nil {
			return nil, fail("match leads", err)
		}
		for _, l := range leads {
			if !seen[l.ID] {
				seen[l.ID] = true
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// SaveLeads implements lead.Store.
func (s *Store) SaveLeads(ctx context.Context, created, updated []message.Lead) error {
	if len(created)+len(updated) == 0 {
		return nil
	}
	rows := func(leads []message.Lead) []leadRow {
		rows := make([]leadRow, len(leads))
		for i := range leads {
			rows[i] = rowOfLead(&leads[i])
		}
		return rows
	}
	return fail("save leads", s.hot.saveLeads(ctx, rows(created), rows(updated)))
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
