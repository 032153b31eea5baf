package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"herald/pkg/message"
)

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

// PutSuppression implements lead.Suppressions.
func (s *Store) PutSuppression(ctx context.Context, sup *message.Suppression) error {
	row := suppressionRow{
		ID: sup.ID, Type: string(sup.Type), Address: sup.Address, AddressHash: sup.Hash[:], Reason: string(sup.Reason),
		Transactional: slices.Contains(sup.MessageTypes, message.Transactional), Marketing: slices.Contains(sup.MessageTypes, message.Marketing),
		Notification: slices.Contains(sup.MessageTypes, message.Notification), Note: sup.Note, CreatedAt: stamp(sup.CreatedAt),
	}
	var stored suppressionRow                                          // its id is that of the one before, if there was one
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { // so that an error means that nothing was written
		err := tx.Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "type"}, {Name: "address_hash"}, {Name: "reason"}},
			DoUpdates: clause.AssignmentColumns([]string{"address", "transactional", "marketing", "notification", "note"}),
		}).Create(&row).Error
		if err != nil {
			return err
		}
		err = tx.Where("type = ? AND address_hash = ? AND reason = ?", row.Type, row.AddressHash, row.Reason).Take(&stored).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			err = errors.New("the row is not there after it was written") // which is no fault of the request
		}
		return err
	})
	if err != nil {
		return fail("write the suppression", err)
	}
	*sup = stored.suppression()
	return nil
}

// ListSuppressions implements lead.Suppressions.
func (s *Store) ListSuppressions(ctx context.Context, t message.ChannelType, address string, before uuid.UUID, limit int) ([]message.Suppression, error) {
	q := s.db.WithContext(ctx).Order("id DESC").Limit(limit)
	if t != "" {
		q = q.Where("type = ?", string(t))
	}
	if address != "" {
		hash := message.HashAddress(address)
		q = q.Where("address_hash = ?", hash[:])
	}
	if before != uuid.Nil {
		q = q.Where("id < ?", before)
	}
	var rows []suppressionRow
	if err := q.Find(&rows).Error; err != nil {
		return nil, fail("list suppressions", err)
	}
	out := make([]message.Suppression, len(rows))
	for i := range rows {
		out[i] = rows[i].suppression()
	}
	return out, nil
}

// DropSuppression implements lead.Suppressions.
func (s *Store) DropSuppression(ctx context.Context, id uuid.UUID) error {
	res := s.db.WithContext(ctx).Where("id = ?", id).Delete(&suppressionRow{})
	if res.Error == nil && res.RowsAffected == 0 {
		return message.Errorf(message.CodeNotFound, "there is no suppression %s", id)
	}
	return fail("lift the suppression", res.Error)
}

// messageTypeColumn is the flag that says whether a suppression stops a message type.
var messageTypeColumn = map[message.MessageType]string{
	message.Transactional: "transactional", message.Marketing: "marketing", message.Notification: "notification",
}

// Suppressed implements bulk.Plan: the reason for each hash that is suppressed.
func (s *Store) Suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	out := map[message.Hash]message.Reason{}
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	if s.pools != nil {
		rows, err := s.pools.hot.Query(ctx, "SELECT address_hash, reason FROM suppressions WHERE type = $1 AND address_hash = ANY($2::bytea[]) AND "+
			messageTypeColumn[p]+" ORDER BY reason", string(t), list)
		if err != nil {
			return nil, fail("look for suppressions", err)
		}
		var hash []byte
		var reason string
		_, err = pgx.ForEachRow(rows, []any{&hash, &reason}, func() error {
			out[message.Hash(hash)] = message.Reason(reason)
			return nil
		})
		return out, fail("look for suppressions", err)
	}
	var rows []suppressionRow
	err := s.db.WithContext(ctx).Select("address_hash, reason").
		Where("type = ? AND address_hash IN ? AND "+messageTypeColumn[p], string(t), list).Order("reason").Find(&rows).Error
	for _, r := range rows {
		out[message.Hash(r.AddressHash)] = message.Reason(r.Reason)
	}
	return out, fail("look for suppressions", err)
}
