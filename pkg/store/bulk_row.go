package store

import (
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// BulkRow is a row of bulks.
type BulkRow struct {
	ID             uuid.UUID
	ChannelID      uuid.UUID
	ChannelType    string
	ChannelVersion int64
	Provider       string
	Name           string
	Currency       string
	KeyID          string
	KeyName        string
	MessageType    string
	Priority       string
	Content        Document
	Criteria       Document
	LeadIDs        []byte `gorm:"column:lead_ids"`
	Request        Document
	Status         string
	StatusReason   string
	Planned        bool
	PlanCursor     string
	Total          int64
	NotFound       int64
	FeedSeq        int64
	SettledSeq     int64
	Final          Document
	CreatedAt      time.Time
	StartedAt      *time.Time
	PlannedAt      *time.Time
	CompletedAt    *time.Time
}

// TableName implements schema.Tabler.
func (BulkRow) TableName() string { return "bulks" }

// BulkColumns are the columns of a bulk without the ids of the request: these are large, and only the planner needs them.
var BulkColumns = strings.Join(Columns(BulkRow{}, "lead_ids"), ", ")

// Bulk returns the row as a bulk. LeadIDs are empty if the row was read without lead_ids. It returns an error if a document
// cannot be decoded.
func (r *BulkRow) Bulk() (*bulk.Bulk, error) {
	b := &bulk.Bulk{
		ID: r.ID, Channel: channel.Key{ID: r.ChannelID, Type: message.ChannelType(r.ChannelType)}, ChannelVersion: r.ChannelVersion, Provider: r.Provider,
		Name: r.Name, Currency: r.Currency, Author: access.Author{ID: r.KeyID, Name: r.KeyName},
		MessageType: message.MessageType(r.MessageType), Priority: message.Priority(r.Priority), Request: []byte(r.Request),
		Status: bulk.Status(r.Status), StatusReason: r.StatusReason, Planned: r.Planned, PlanCursor: r.PlanCursor, Total: r.Total, NotFound: r.NotFound,
		FeedSeq: r.FeedSeq, SettledSeq: r.SettledSeq, CreatedAt: r.CreatedAt.UTC(), StartedAt: UTC(r.StartedAt), CompletedAt: UTC(r.CompletedAt),
		PlannedAt: UTC(r.PlannedAt),
	}
	if b.Planned && b.PlannedAt == nil { // planned by an earlier version: the first moment that it can have been
		b.PlannedAt = b.StartedAt
	}
	if len(r.Final) > 0 {
		b.Final = &stats.Counts{}
	}
	if err := errors.Join(r.Content.Decode(&b.Content), r.Criteria.Decode(&b.Criteria), r.Final.Decode(b.Final)); err != nil {
		return nil, err
	}
	if len(r.LeadIDs) > 0 {
		b.Criteria.LeadIDs = unpackIDs(r.LeadIDs)
	}
	return b, nil
}

// PackIDs stores ids as their 16 bytes, one after the other.
func PackIDs(ids []uuid.UUID) []byte {
	b := make([]byte, 0, 16*len(ids))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

// unpackIDs reads what PackIDs wrote.
func unpackIDs(b []byte) []uuid.UUID {
	ids := make([]uuid.UUID, len(b)/16)
	for i := range ids {
		copy(ids[i][:], b[16*i:])
	}
	return ids
}
