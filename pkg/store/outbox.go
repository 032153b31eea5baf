package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/event"
)

// outboxRow is a row of outbox.
type outboxRow struct {
	ID        int64
	Type      string
	SubjectID uuid.UUID
	Data      Document
	CreatedAt time.Time
}

// TableName implements schema.Tabler.
func (outboxRow) TableName() string { return "outbox" }

// Publish writes an event to the outbox, in the transaction that causes it.
func (db *DB) Publish(tx *gorm.DB, e event.Event) error {
	err := tx.Exec("INSERT INTO outbox (type, subject_id, data, created_at) VALUES (?, ?, ?, ?)",
		string(e.Type()), e.Subject(), Encode(e), db.Now()).Error
	if err != nil {
		return fmt.Errorf("publish %s: %w", e.Type(), err)
	}
	return nil
}

// Events implements event.Outbox.
func (db *DB) Events(ctx context.Context, after int64, limit int) ([]event.Stored, error) {
	var rows []outboxRow
	if err := db.WithContext(ctx).Where("id > ?", after).Order("id").Limit(limit).Find(&rows).Error; err != nil {
		return nil, WrapError("read events", err)
	}
	out := make([]event.Stored, 0, len(rows))
	for _, r := range rows {
		e, err := event.Decode(event.Type(r.Type), r.Data)
		if err != nil {
			return nil, err
		}
		out = append(out, event.Stored{ID: r.ID, Event: e, CreatedAt: r.CreatedAt.UTC()})
	}
	return out, nil
}

// pruneRows bounds the events that one statement deletes, so that it holds no locks for long.
const pruneRows = 10_000

// Prune implements event.Outbox.
func (db *DB) Prune(ctx context.Context) error {
	for {
		res := db.WithContext(ctx).Exec("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE created_at < ? ORDER BY created_at LIMIT ?)",
			db.In(-event.Keep), pruneRows)
		if res.Error != nil || res.RowsAffected < pruneRows {
			return WrapError("prune events", res.Error)
		}
	}
}
