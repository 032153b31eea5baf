package records

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/stats"
	"herald/pkg/store"
)

// BulkStore implements bulk.Store and bulk.Lifecycle: bulks as the API reads, accepts and changes them. What running a bulk
// needs is in the ledger package. It is safe for concurrent use.
type BulkStore struct{ db *store.DB }

// NewBulkStore returns the bulks of a database.
func NewBulkStore(db *store.DB) *BulkStore { return &BulkStore{db} }

// InsertBulk implements bulk.Store. The lock on the channel makes DeleteChannel wait for this transaction, or the reverse. The
// insert may be repeated: a bulk that exists from an earlier try stays as it is, and its event is not published again.
func (s *BulkStore) InsertBulk(ctx context.Context, b *bulk.Bulk, key *access.IdempotencyKey) error {
	criteria := b.Criteria
	criteria.LeadIDs = nil
	row := store.BulkRow{
		ID: b.ID, ChannelID: b.Channel.ID, ChannelType: string(b.Channel.Type), Provider: b.Provider, Name: b.Name,
		KeyID: b.Author.ID, KeyName: b.Author.Name, MessageType: string(b.MessageType),
		Priority: string(b.Priority), Content: store.Encode(b.Content), Criteria: store.Encode(criteria), LeadIDs: store.PackIDs(b.Criteria.LeadIDs),
		Request: store.Document(b.Request), Status: string(b.Status), CreatedAt: store.Stamp(b.CreatedAt),
	}
	return store.Retry(ctx, func() error {
		err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			var c channelRow
			err := atChannel(tx.Select("version", "currency").Clauses(store.LockReference), b.Channel).Take(&c).Error
			if errors.Is(err, gorm.ErrRecordNotFound) {
				return noChannel(b.Channel)
			}
			if err != nil {
				return err
			}
			row.ChannelVersion, b.ChannelVersion = c.Version, c.Version
			row.Currency, b.Currency = c.Currency, c.Currency
			ok, err := store.TakeIdempotencyKey(tx, key, access.Effect{ID: b.ID, Bulk: true}, s.db.Now(), s.db.In(-access.KeepEffects))
			if err == nil && !ok {
				err = access.ErrKeyTaken
			}
			if err != nil {
				return err
			}
			res := tx.Clauses(store.IgnoreKnownID).Create(&row)
			if res.Error != nil || res.RowsAffected == 0 { // the bulk and its event exist from an earlier try
				return res.Error
			}
			if err := store.InsertFiles(tx, b.ID, b.Files); err != nil {
				return err
			}
			return s.db.Publish(tx, event.BulkAccepted{BulkID: b.ID, ChannelID: b.Channel.ID, ChannelType: b.Channel.Type, MessageType: b.MessageType})
		})
		if errors.Is(err, access.ErrKeyTaken) {
			return err
		}
		return store.WrapError("insert the bulk", err)
	})
}

// readBulk reads some columns of a bulk. A missing bulk is a message.Error not_found.
func readBulk(ctx context.Context, db *store.DB, columns string, id uuid.UUID) (*bulk.Bulk, error) {
	var row store.BulkRow
	err := store.WrapError("read the bulk", db.WithContext(ctx).Select(columns).Where("id = ?", id).Take(&row).Error)
	if message.IsCode(err, message.CodeNotFound) {
		return nil, message.Errorf(message.CodeNotFound, "bulk %s not found", id)
	}
	if err != nil {
		return nil, err
	}
	return row.Bulk()
}

// Bulk implements bulk.Store.
func (s *BulkStore) Bulk(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return readBulk(ctx, s.db, store.BulkColumns, id)
}

// Bulks implements bulk.Store.
func (s *BulkStore) Bulks(ctx context.Context, f bulk.Filter, before uuid.UUID, limit int) ([]bulk.Bulk, error) {
	q := s.db.WithContext(ctx).Select(store.BulkColumns).Order("id DESC").Limit(limit)
	for column, value := range map[string]string{"status": string(f.Status), "name": f.Name, "channel_type": string(f.ChannelType), "key_id": f.KeyID} {
		if value != "" {
			q = q.Where(column+" = ?", value)
		}
	}
	if f.CreatedAfter != nil {
		q = q.Where("created_at > ?", f.CreatedAfter.UTC())
	}
	if f.CreatedBefore != nil {
		q = q.Where("created_at < ?", f.CreatedBefore.UTC())
	}
	if before != uuid.Nil {
		q = q.Where("id < ?", before)
	}
	var rows []store.BulkRow
	if err := q.Find(&rows).Error; err != nil {
		return nil, store.WrapError("list bulks", err)
	}
	out := make([]bulk.Bulk, 0, len(rows))
	for i := range rows {
		b, err := rows[i].Bulk()
		if err != nil {
			return nil, err
		}
		out = append(out, *b)
	}
	return out, nil
}

// Tally implements bulk.Store.
func (s *BulkStore) Tally(ctx context.Context, id uuid.UUID) (stats.Counts, error) {
	counts, err := store.TallyBulk(s.db.WithContext(ctx), id)
	return counts, store.WrapError("tally the bulk", err)
}

// Move implements bulk.Lifecycle. It ends the lease and forgets the turn, so the next runner begins at once. A bulk in a status
// outside from is a message.Error conflict.
func (s *BulkStore) Move(ctx context.Context, id uuid.UUID, from []bulk.Status, to bulk.Status) error {
	moved := false
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		res := tx.Exec("UPDATE bulks SET status = ?, lease_token = NULL, lease_expires_at = NULL, turn_at = NULL WHERE id = ? AND status IN ?", string(to), id, from)
		if moved = res.RowsAffected == 1; res.Error != nil || !moved {
			return res.Error
		}
		return s.db.Publish(tx, movedEvent(id, to))
	})
	if err != nil || moved {
		return store.WrapError("move the bulk", err)
	}
	b, err := s.Bulk(ctx, id)
	if err != nil {
		return err
	}
	return message.Errorf(message.CodeConflict, "the bulk is %s", b.Status)
}

// movedEvent returns the event of a bulk that a request paused, resumed or cancelled.
func movedEvent(id uuid.UUID, to bulk.Status) event.Event {
	switch to {
	case bulk.Paused:
		return event.BulkPaused{BulkID: id}
	case bulk.Cancelled:
		return event.BulkCancelled{BulkID: id}
	case bulk.Processing, bulk.Completed:
	}
	return event.BulkResumed{BulkID: id}
}
