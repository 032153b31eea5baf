package records

import (
	"context"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
)

// leadMerge is one batch of an import while it is written.
type leadMerge struct {
	lead.Batch
	// created is a lead that the previous try inserted under a new id, or uuid.Nil. If that lead exists, the try was committed and
	// only its answer was lost.
	created uuid.UUID
}

// rows merges the batch into the stored leads, and returns the rows to insert and the rows to update.
func (m *leadMerge) rows(stored []message.Lead) (created, updated []store.LeadRow) {
	c, u := m.Merge(stored)
	given := make(map[uuid.UUID]bool, len(m.IDs))
	for _, id := range m.IDs {
		given[id] = true
	}
	m.created = uuid.Nil
	for i := range c {
		if !given[c[i].ID] {
			m.created = c[i].ID
			break
		}
	}
	return store.RowsOfLeads(c), store.RowsOfLeads(u)
}

// MergeLeads implements lead.Store. If another request inserts one of its ids meanwhile, the batch is merged again and finds
// that lead.
func (s *LeadStore) MergeLeads(ctx context.Context, b lead.Batch) error {
	m := &leadMerge{Batch: b}
	return store.Retry(ctx, func() error {
		err := s.writer.mergeLeads(ctx, m)
		if store.IsDuplicate(err) {
			return message.Unavailable("the id of a lead", err)
		}
		return store.WrapError("merge leads", err)
	})
}
