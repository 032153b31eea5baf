package records

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"herald/pkg/message"
	"herald/pkg/store"
)

// SuppressionStore implements lead.Suppressions. It is safe for concurrent use.
type SuppressionStore struct{ db *store.DB }

// NewSuppressionStore returns the suppressions of a database.
func NewSuppressionStore(db *store.DB) *SuppressionStore { return &SuppressionStore{db} }

// suppressionRow is a row of suppressions.
type suppressionRow struct {
	ID            uuid.UUID
	Type          string
	Address       string
	AddressHash   []byte
	Reason        string
	Transactional bool
	Marketing     bool
	Notification  bool
	Note          string
	CreatedAt     time.Time
}

// TableName implements gorm's Tabler.
func (suppressionRow) TableName() string { return "suppressions" }

// suppression returns the row as a suppression, with its message types in the order of message.MessageTypes.
func (r *suppressionRow) suppression() message.Suppression {
	s := message.Suppression{
		ID: r.ID, Type: message.ChannelType(r.Type), Address: r.Address, Hash: message.Hash(r.AddressHash), Reason: message.Reason(r.Reason), Note: r.Note,
		CreatedAt: r.CreatedAt.UTC(),
	}
	for p, stops := range map[message.MessageType]bool{message.Transactional: r.Transactional, message.Marketing: r.Marketing, message.Notification: r.Notification} {
		if stops {
			s.MessageTypes = append(s.MessageTypes, p)
		}
	}
	slices.SortFunc(s.MessageTypes, func(a, b message.MessageType) int {
		return slices.Index(message.MessageTypes, a) - slices.Index(message.MessageTypes, b)
	})
	return s
}

// PutSuppression implements lead.Suppressions. It overwrites the row with the same type, address hash and reason.
func (s *SuppressionStore) PutSuppression(ctx context.Context, sup *message.Suppression) error {
	row := suppressionRow{
		ID: sup.ID, Type: string(sup.Type), Address: sup.Address, AddressHash: sup.Hash[:], Reason: string(sup.Reason),
		Transactional: slices.Contains(sup.MessageTypes, message.Transactional), Marketing: slices.Contains(sup.MessageTypes, message.Marketing),
		Notification: slices.Contains(sup.MessageTypes, message.Notification), Note: sup.Note, CreatedAt: store.Stamp(sup.CreatedAt),
	}
	var stored suppressionRow // an overwritten row keeps its id
	// In one transaction, so that an error means that nothing was written.
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		err := tx.Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "type"}, {Name: "address_hash"}, {Name: "reason"}},
			DoUpdates: clause.AssignmentColumns([]string{"address", "transactional", "marketing", "notification", "note"}),
		}).Create(&row).Error
		if err != nil {
			return err
		}
		err = tx.Where("type = ? AND address_hash = ? AND reason = ?", row.Type, row.AddressHash, row.Reason).Take(&stored).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			err = errors.New("read the suppression: the row that was written is missing") // an internal error, not not_found
		}
		return err
	})
	if err != nil {
		return store.WrapError("write the suppression", err)
	}
	*sup = stored.suppression()
	return nil
}

// ListSuppressions implements lead.Suppressions.
func (s *SuppressionStore) ListSuppressions(ctx context.Context, f message.SuppressionFilter, before uuid.UUID, limit int) ([]message.Suppression, error) {
	q := s.db.WithContext(ctx).Order("id DESC").Limit(limit)
	if f.Type != "" {
		q = q.Where("type = ?", string(f.Type))
	}
	if f.Address != "" {
		q = q.Where("address_hash IN ?", hashBytes(f.Address))
	}
	if f.Reason != "" {
		q = q.Where("reason = ?", string(f.Reason))
	}
	if f.CreatedAfter != nil {
		q = q.Where("created_at > ?", f.CreatedAfter.UTC())
	}
	if before != uuid.Nil {
		q = q.Where("id < ?", before)
	}
	var rows []suppressionRow
	if err := q.Find(&rows).Error; err != nil {
		return nil, store.WrapError("list suppressions", err)
	}
	out := make([]message.Suppression, len(rows))
	for i := range rows {
		out[i] = rows[i].suppression()
	}
	return out, nil
}

// hashBytes returns the hashes under which rows have an address.
func hashBytes(address string) [][]byte {
	hashes := message.AddressHashes(address)
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}

// DropSuppression implements lead.Suppressions.
func (s *SuppressionStore) DropSuppression(ctx context.Context, id uuid.UUID) error {
	res := s.db.WithContext(ctx).Where("id = ?", id).Delete(&suppressionRow{})
	if res.Error == nil && res.RowsAffected == 0 {
		return message.Errorf(message.CodeNotFound, "suppression %s not found", id)
	}
	return store.WrapError("delete the suppression", res.Error)
}
