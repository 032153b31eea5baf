package store

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
	"herald/pkg/stats"
)

// MessageRow is a row of messages, the ledger.
type MessageRow struct {
	ID                uuid.UUID
	BulkID            *uuid.UUID
	Seq               int64
	LeadID            *uuid.UUID
	ChannelID         uuid.UUID
	ChannelType       string
	Provider          string
	Recipient         string
	AddressHash       []byte
	Copy              int64
	MessageType       string
	Priority          string
	Content           Document
	Metadata          Document
	Keyed             bool
	Status            string
	Reason            string
	Failure           Document
	Attempt           int
	Unknowns          int
	Part              int
	Generation        int
	Suspect           int
	ProviderMessageID string
	HTTPStatus        int `gorm:"column:http_status"`
	CostMicros        int64
	ClaimToken        *uuid.UUID
	ClaimExpiresAt    *time.Time
	ClaimedAt         *time.Time
	NextAttemptAt     *time.Time
	CreatedAt         time.Time
	ScheduledAt       *time.Time
	SentAt            *time.Time
	UpdatedAt         time.Time `gorm:"autoUpdateTime:false"`
}

// TableName implements schema.Tabler.
func (MessageRow) TableName() string { return "messages" }

// Message returns the row as a message. If the content or the failure cannot be decoded, the message lacks it, and the error
// says why.
func (r *MessageRow) Message() (*message.Message, error) {
	m := &message.Message{
		ID: r.ID, BulkID: OrNil(r.BulkID), Seq: r.Seq, LeadID: OrNil(r.LeadID), ChannelID: r.ChannelID,
		ChannelType: message.ChannelType(r.ChannelType), Provider: r.Provider, Recipient: r.Recipient,
		MessageType: message.MessageType(r.MessageType), Priority: message.Priority(r.Priority), Metadata: json.RawMessage(r.Metadata), Keyed: r.Keyed,
		Status: message.Status(r.Status), Reason: message.Reason(r.Reason), Attempt: r.Attempt, Unknowns: r.Unknowns,
		Part: r.Part, Generation: r.Generation, Suspect: message.Suspect(r.Suspect), ProviderMessageID: r.ProviderMessageID, HTTPStatus: r.HTTPStatus,
		Cost: message.Micros(r.CostMicros), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		ScheduledAt: UTC(r.ScheduledAt), ClaimedAt: UTC(r.ClaimedAt), SentAt: UTC(r.SentAt), NextAttemptAt: UTC(r.NextAttemptAt),
	}
	var content, failure error
	if len(r.Content) > 0 {
		m.Content = &message.Content{}
		content = r.Content.Decode(m.Content)
	}
	if len(r.Failure) > 0 {
		m.Failure = &message.Failure{}
		failure = r.Failure.Decode(m.Failure)
	}
	return m, errors.Join(content, failure)
}

// Shown returns the row for reading. Content that cannot be decoded is left out: one such row must not fail a list.
func (r *MessageRow) Shown() *message.Message {
	m, err := r.Message()
	if err != nil {
		m.Content, m.Failure = nil, nil
	}
	if m.Content != nil {
		m.Attachments = m.Content.Attachments
	}
	return m
}

// AttemptRow is a row of attempts.
type AttemptRow struct {
	MessageID  uuid.UUID
	N          int
	Part       int
	Outcome    string
	HTTPStatus int `gorm:"column:http_status"`
	Code       string
	StartedAt  time.Time
	EndedAt    time.Time
}

// TableName implements schema.Tabler.
func (AttemptRow) TableName() string { return "attempts" }

// RowOfAttempt returns an attempt as a row.
func RowOfAttempt(a *message.Attempt) AttemptRow {
	return AttemptRow{
		MessageID: a.MessageID, N: a.N, Part: a.Part, Outcome: a.Outcome, HTTPStatus: a.HTTPStatus, Code: a.Code,
		StartedAt: Stamp(a.StartedAt), EndedAt: Stamp(a.EndedAt),
	}
}

// Attempt returns the row as an attempt.
func (r AttemptRow) Attempt() message.Attempt {
	return message.Attempt{
		MessageID: r.MessageID, N: r.N, Part: r.Part, Outcome: r.Outcome, HTTPStatus: r.HTTPStatus, Code: r.Code,
		StartedAt: r.StartedAt.UTC(), EndedAt: r.EndedAt.UTC(),
	}
}

// TallyBulk counts the messages of a bulk by state and sums their costs. It reads every row of the bulk. An UNKNOWN message that
// waits for its resend counts as waiting, because it is not settled.
func TallyBulk(db *gorm.DB, id uuid.UUID) (stats.Counts, error) {
	var rows []struct {
		Status  string
		Reason  string
		Waiting bool
		N       int64
		Cost    int64
	}
	err := db.Raw(`
SELECT status, reason, next_attempt_at IS NOT NULL AS waiting, count(*) AS n, sum(cost_micros) AS cost
FROM messages WHERE bulk_id = ? GROUP BY status, reason, next_attempt_at IS NOT NULL`, id).Scan(&rows).Error
	var c stats.Counts
	for _, r := range rows {
		status := message.Status(r.Status)
		c.Add(stats.MessageState{
			Status: status, Reason: message.Reason(r.Reason), Waiting: r.Waiting && status == message.Unknown, Cost: message.Micros(r.Cost),
		}, r.N)
	}
	return c, err
}
