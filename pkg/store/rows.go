package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// document is a JSON column: jsonb in PostgreSQL, text in SQLite. Empty is NULL.
type document []byte

// Value implements driver.Valuer.
func (d document) Value() (driver.Value, error) {
	if len(d) == 0 {
		return nil, nil //nolint:nilnil // this is how a Valuer says NULL
	}
	return string(d), nil
}

// Scan implements sql.Scanner.
func (d *document) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*d = nil
	case string:
		*d = document(v)
	case []byte:
		*d = append(document(nil), v...)
	default:
		return fmt.Errorf("a JSON column holds %T", v)
	}
	return nil
}

func encode(v any) document {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // our own types always encode
	}
	return b
}

func (d document) decode(into any) error {
	if len(d) == 0 {
		return nil
	}
	if err := json.Unmarshal(d, into); err != nil {
		return fmt.Errorf("decode a JSON column: %w", err)
	}
	return nil
}

func nullID(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// messageRow is a row of the ledger.
type messageRow struct {
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
	Content           document
	Metadata          document
	Status            string
	Reason            string
	Failure           document
	Attempt           int
	Unknowns          int
	Part              int
	Generation        int
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

// TableName implements gorm's Tabler.
func (messageRow) TableName() string { return "messages" }

func (r *messageRow) message() (*message.Message, error) {
	m := &message.Message{
		ID: r.ID, BulkID: orNil(r.BulkID), Seq: r.Seq, LeadID: orNil(r.LeadID), ChannelID: r.ChannelID,
		Type: message.Type(r.ChannelType), Provider: r.Provider, Recipient: r.Recipient,
		Purpose: message.Purpose(r.MessageType), Priority: message.Priority(r.Priority), Metadata: json.RawMessage(r.Metadata),
		Status: message.Status(r.Status), Reason: message.Reason(r.Reason), Attempt: r.Attempt, Unknowns: r.Unknowns,
		Part: r.Part, Generation: r.Generation, ProviderMessageID: r.ProviderMessageID, HTTPStatus: r.HTTPStatus,
		Cost: message.Micros(r.CostMicros), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		ScheduledAt: utc(r.ScheduledAt), ClaimedAt: utc(r.ClaimedAt), SentAt: utc(r.SentAt), NextAttemptAt: utc(r.NextAttemptAt),
	}
	if len(r.Content) > 0 {
		m.Content = &message.Content{}
		if err := r.Content.decode(m.Content); err != nil {
			return nil, err
		}
	}
	if len(r.Failure) > 0 {
		m.Failure = &message.Failure{}
		if err := r.Failure.decode(m.Failure); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// attemptRow is a row of attempts.
type attemptRow struct {
	MessageID  uuid.UUID
	N          int
	Part       int
	Outcome    string
	HTTPStatus int `gorm:"column:http_status"`
	Code       string
	StartedAt  time.Time
	EndedAt    time.Time
}

// TableName implements gorm's Tabler.
func (attemptRow) TableName() string { return "attempts" }

func rowOfAttempt(a *message.Attempt) attemptRow {
	return attemptRow{
		MessageID: a.MessageID, N: a.N, Part: a.Part, Outcome: a.Outcome, HTTPStatus: a.HTTPStatus, Code: a.Code,
		StartedAt: stamp(a.StartedAt), EndedAt: stamp(a.EndedAt),
	}
}

func (r attemptRow) attempt() message.Attempt {
	return message.Attempt{
		MessageID: r.MessageID, N: r.N, Part: r.Part, Outcome: r.Outcome, HTTPStatus: r.HTTPStatus, Code: r.Code,
		StartedAt: r.StartedAt.UTC(), EndedAt: r.EndedAt.UTC(),
	}
}

// leadRow is a row of leads. Its JSON form is what PostgreSQL's json_populate_recordset reads.
type leadRow struct {
	ID              uuid.UUID  `json:"id"`
	FirstName       string     `json:"first_name"`
	LastName        string     `json:"last_name"`
	Email           string     `json:"email"`
	Phone           string     `json:"phone"`
	InstagramID     string     `json:"instagram_id"`
	Company         string     `json:"company"`
	Title           string     `json:"title"`
	Status          string     `json:"status"`
	Source          string     `json:"source"`
	City            string     `json:"city"`
	State           string     `json:"state"`
	Country         string     `json:"country"`
	Timezone        string     `json:"timezone"`
	Language        string     `json:"language"`
	AssigneeID      string     `json:"assignee_id"`
	EmailFold       string     `json:"email_fold"`
	CustomFields    document   `json:"-"`
	Custom          any        `json:"custom_fields" gorm:"-"`
	CreatedAt       time.Time  `json:"created_at"`
	UpdatedAt       time.Time  `json:"updated_at" gorm:"autoUpdateTime:false"`
	LastContactedAt *time.Time `json:"last_contacted_at"`
}

// TableName implements gorm's Tabler.
func (leadRow) TableName() string { return "leads" }

// tagRow is a row of lead_tags.
type tagRow struct {
	LeadID   uuid.UUID
	Tag      string
	TagFold  string
	Position int
}

// TableName implements gorm's Tabler.
func (tagRow) TableName() string { return "lead_tags" }

func rowOfLead(l *message.Lead) leadRow {
	r := leadRow{
		ID: l.ID, FirstName: l.FirstName, LastName: l.LastName, Email: l.Email, Phone: l.Phone, InstagramID: l.InstagramID,
		Company: l.Company, Title: l.Title, Status: l.Status, Source: l.Source, City: l.City, State: l.State,
		Country: l.Country, Timezone: l.Timezone, Language: l.Language, AssigneeID: l.AssigneeID,
		EmailFold: message.Fold(l.Email), CreatedAt: stamp(l.CreatedAt), UpdatedAt: stamp(l.UpdatedAt),
		LastContactedAt: utc(l.LastContactedAt),
	}
	if len(l.CustomFields) > 0 {
		r.CustomFields = encode(l.CustomFields)
		r.Custom = l.CustomFields
	}
	return r
}

func (r *leadRow) lead(tags []string) (*message.Lead, error) {
	l := &message.Lead{
		ID: r.ID, FirstName: r.FirstName, LastName: r.LastName, Email: r.Email, Phone: r.Phone, InstagramID: r.InstagramID,
		Company: r.Company, Title: r.Title, Status: r.Status, Source: r.Source, City: r.City, State: r.State,
		Country: r.Country, Timezone: r.Timezone, Language: r.Language, AssigneeID: r.AssigneeID, Tags: tags,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), LastContactedAt: utc(r.LastContactedAt),
	}
	return l, r.CustomFields.decode(&l.CustomFields)
}
