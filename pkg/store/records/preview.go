package records

import (
	"context"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/store"
)

// PreviewStore implements bulk.PreviewStore: what a preview reads of bulks, leads and messages. It is safe for concurrent use.
type PreviewStore struct{ db *store.DB }

// NewPreviewStore returns a PreviewStore of a database.
func NewPreviewStore(db *store.DB) *PreviewStore { return &PreviewStore{db} }

// BulkWithIDs implements bulk.PreviewStore.
func (s *PreviewStore) BulkWithIDs(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return readBulk(ctx, s.db, "*", id)
}

// LeadsByID implements bulk.PreviewStore.
func (s *PreviewStore) LeadsByID(ctx context.Context, ids []uuid.UUID) ([]message.Lead, error) {
	db := s.db.WithContext(ctx)
	leads, err := store.ReadLeads(db.Where("id IN ?", ids).Order("id"))
	return leads, store.WrapError("read leads", err)
}

// MessageOf implements bulk.PreviewStore.
func (s *PreviewStore) MessageOf(ctx context.Context, bulkID, leadID uuid.UUID) (*message.Message, error) {
	var row store.MessageRow
	if err := s.db.WithContext(ctx).Where("lead_id = ? AND bulk_id = ?", leadID, bulkID).Take(&row).Error; err != nil {
		return nil, store.WrapError("read the message", err)
	}
	return row.Shown(), nil
}
