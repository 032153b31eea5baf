package records

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
	"herald/pkg/store"
)

// MessageStore reads messages with their attempts, erases single messages and marks suspects. It implements the ports of api,
// delivery and queue for that. It is safe for concurrent use.
type MessageStore struct{ db *store.DB }

// NewMessageStore returns the messages of a database.
func NewMessageStore(db *store.DB) *MessageStore { return &MessageStore{db} }

// Message returns one message with its attempts, oldest first. The message's row records the call that sent it; Message returns
// that call as the last attempt. A missing message is a message.Error not_found.
func (s *MessageStore) Message(ctx context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error) {
	db := s.db.WithContext(ctx)
	var row store.MessageRow
	if err := store.WrapError("read the message", db.Where("id = ?", id).Take(&row).Error); err != nil {
		if message.IsCode(err, message.CodeNotFound) {
			err = message.Errorf(message.CodeNotFound, "message %s not found", id)
		}
		return nil, nil, err
	}
	m := row.Shown()
	if err := s.addMetadata(ctx, []*message.Message{m}); err != nil {
		return nil, nil, err
	}
	var rows []store.AttemptRow
	if err := db.Where("message_id = ?", id).Order("started_at").Find(&rows).Error; err != nil {
		return nil, nil, store.WrapError("read the attempts", err)
	}
	attempts := make([]message.Attempt, 0, len(rows)+1)
	for _, r := range rows {
		attempts = append(attempts, r.Attempt())
	}
	if m.SentAt != nil && m.ClaimedAt != nil {
		attempts = append(attempts, message.Attempt{
			MessageID: id, N: m.Attempt, Part: max(m.Part-1, 0), StartedAt: *m.ClaimedAt, EndedAt: *m.SentAt, Outcome: message.AttemptSent, HTTPStatus: m.HTTPStatus,
		})
	}
	return m, attempts, nil
}

// Messages lists at most limit messages, newest first, with ids below before (uuid.Nil: from the newest). Zero fields of the filter
// select everything; its times are exclusive.
func (s *MessageStore) Messages(ctx context.Context, f message.Filter, before uuid.UUID, limit int) ([]message.Message, error) {
	q := s.db.WithContext(ctx).Order("id DESC").Limit(limit)
	if f.BulkID != uuid.Nil {
		q = q.Where("bulk_id = ?", f.BulkID)
	}
	if f.LeadID != uuid.Nil {
		q = q.Where("lead_id = ?", f.LeadID)
	}
	if len(f.Statuses) > 0 {
		q = q.Where("status IN ?", f.Statuses)
	}
	if len(f.Reasons) > 0 {
		q = q.Where("reason IN ?", f.Reasons)
	}
	if f.Failed { // an UNKNOWN message with a next attempt has not ended
		q = q.Where("status IN ('UNKNOWN', 'CANCELLED', 'SKIPPED', 'FAILED') AND (status <> 'UNKNOWN' OR next_attempt_at IS NULL)")
	}
	if f.ChannelType != "" {
		q = q.Where("channel_type = ?", string(f.ChannelType))
	}
	if f.Recipient != "" {
		q = q.Where("address_hash IN ?", hashBytes(f.Recipient))
	}
	if f.CreatedAfter != nil {
		q = q.Where("created_at > ?", f.CreatedAfter.UTC())
	}
	if f.CreatedBefore != nil {
		q = q.Where("created_at < ?", f.CreatedBefore.UTC())
	}
	if f.UpdatedAfter != nil {
		q = q.Where("updated_at > ?", f.UpdatedAfter.UTC())
	}
	if before != uuid.Nil {
		q = q.Where("id < ?", before)
	}
	var rows []store.MessageRow
	if err := q.Find(&rows).Error; err != nil {
		return nil, store.WrapError("list messages", err)
	}
	out := make([]message.Message, 0, len(rows))
	for i := range rows {
		out = append(out, *rows[i].Shown())
	}
	refs := make([]*message.Message, len(out))
	for i := range out {
		refs[i] = &out[i]
	}
	return out, s.addMetadata(ctx, refs)
}

// Files implements delivery.FileStore.
func (s *MessageStore) Files(ctx context.Context, owner uuid.UUID) ([]message.FileData, error) {
	rows, err := s.db.WithContext(ctx).Raw("SELECT file, data FROM message_files WHERE owner_id = ? ORDER BY file, piece", owner).Rows()
	if err != nil {
		return nil, store.WrapError("read the attachments", err)
	}
	defer func() { _ = rows.Close() }() // Err tells what went wrong
	var files []message.FileData
	for rows.Next() {
		var file int
		var data []byte
		if err := rows.Scan(&file, &data); err != nil {
			return nil, store.WrapError("read the attachments", err)
		}
		if file >= len(files) {
			files = append(files, nil)
		}
		last := len(files) - 1
		files[last] = append(files[last], data)
	}
	if err := rows.Err(); err != nil {
		return nil, store.WrapError("read the attachments", err)
	}
	if len(files) == 0 {
		return nil, message.Errorf(message.CodeNotFound, "the attachments of %s not found", owner)
	}
	return files, nil
}

// addMetadata sets the metadata and the attachments of messages of bulks. They are stored once, in the request of the bulk, not in each
// row.
func (s *MessageStore) addMetadata(ctx context.Context, messages []*message.Message) error {
	type shared struct {
		Metadata    json.RawMessage      `json:"metadata"`
		Attachments []message.Attachment `json:"attachments"`
	}
	of := map[uuid.UUID]shared{}
	for _, m := range messages {
		if m.BulkID != uuid.Nil {
			of[m.BulkID] = shared{}
		}
	}
	if len(of) == 0 {
		return nil
	}
	var rows []store.BulkRow
	err := s.db.WithContext(ctx).Select("id, request").Where("id IN ?", slices.Collect(maps.Keys(of))).Find(&rows).Error
	if err != nil {
		return store.WrapError("read the bulks' metadata", err)
	}
	for _, r := range rows {
		var request struct {
			Data shared `json:"message_data"`
		}
		if err := r.Request.Decode(&request); err != nil {
			return err
		}
		of[r.ID] = request.Data
	}
	for _, m := range messages {
		if m.BulkID != uuid.Nil {
			m.Metadata, m.Attachments = of[m.BulkID].Metadata, of[m.BulkID].Attachments
		}
	}
	return nil
}

// EraseMessage implements delivery.Suspicions.
func (s *MessageStore) EraseMessage(ctx context.Context, id uuid.UUID) error {
	return s.db.Transact(ctx, "erase the message", func(tx *gorm.DB) error { return eraseMessages(tx, s.db.Now(), "id = ?", id) })
}

// Suspect implements delivery.Suspicions.
func (s *MessageStore) Suspect(ctx context.Context, id uuid.UUID, suspicion message.Suspect) error {
	return store.WrapError("mark the suspect", s.db.WithContext(ctx).Exec("UPDATE messages SET suspect = ? WHERE id = ?", int(suspicion), id).Error)
}

// SuspectMessages implements queue.Suspicions. It marks messages that still wait; a stronger suspicion stays.
func (s *MessageStore) SuspectMessages(ctx context.Context, ids []uuid.UUID) error {
	return store.WrapError("mark the suspects", s.db.WithContext(ctx).Exec(
		"UPDATE messages SET suspect = 1 WHERE id IN ? AND suspect = 0 AND status IN ('PENDING', 'QUEUED')", ids).Error)
}
