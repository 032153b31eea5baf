package store

import (
	"bytes"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
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

// MarshalJSON writes the document itself, for statements that take rows as JSON.
func (d document) MarshalJSON() ([]byte, error) {
	if len(d) == 0 {
		return []byte("null"), nil
	}
	return d, nil
}

// orNull is the document for COPY, nil when it is empty.
func (d document) orNull() any {
	if len(d) == 0 {
		return nil
	}
	return []byte(d)
}

// text is the document as a nullable parameter.
func (d document) text() *string {
	if len(d) == 0 {
		return nil
	}
	s := string(d)
	return &s
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

// numberReader decodes documents one after the other and keeps the digits of their numbers. It is used again, because a
// new json.Decoder for every lead of a bulk would cost more than what it decodes.
type numberReader struct {
	doc bytes.Reader
	dec *json.Decoder
}

var numberReaders = sync.Pool{New: func() any {
	r := &numberReader{}
	r.dec = json.NewDecoder(&r.doc)
	r.dec.UseNumber()
	return r
}}

// decodeNumbers decodes an object whose numbers become json.Number.
func (d document) decodeNumbers(into *map[string]any) error {
	if len(d) == 0 {
		return nil
	}
	r, _ := numberReaders.Get().(*numberReader)
	before := r.dec.InputOffset()
	r.doc.Reset(d)
	err := r.dec.Decode(into)
	if err == nil && r.dec.InputOffset()-before != int64(len(bytes.TrimRight(d, " \t\r\n"))) {
		err = errors.New("there is more after it")
	}
	if err != nil { // a decoder that has failed is not used again
		return fmt.Errorf("decode a JSON column: %w", err)
	}
	numberReaders.Put(r)
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
	Keyed             bool
	Status            string
	Reason            string
	Failure           document
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

// TableName implements gorm's Tabler.
func (messageRow) TableName() string { return "messages" }

// message returns the row as a message, complete but for its content where that cannot be decoded.
func (r *messageRow) message() (*message.Message, error) {
	m := &message.Message{
		ID: r.ID, BulkID: orNil(r.BulkID), Seq: r.Seq, LeadID: orNil(r.LeadID), ChannelID: r.ChannelID,
		ChannelType: message.ChannelType(r.ChannelType), Provider: r.Provider, Recipient: r.Recipient,
		MessageType: message.MessageType(r.MessageType), Priority: message.Priority(r.Priority), Metadata: json.RawMessage(r.Metadata), Keyed: r.Keyed,
		Status: message.Status(r.Status), Reason: message.Reason(r.Reason), Attempt: r.Attempt, Unknowns: r.Unknowns,
		Part: r.Part, Generation: r.Generation, Suspect: message.Suspect(r.Suspect), ProviderMessageID: r.ProviderMessageID, HTTPStatus: r.HTTPStatus,
		Cost: message.Micros(r.CostMicros), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		ScheduledAt: utc(r.ScheduledAt), ClaimedAt: utc(r.ClaimedAt), SentAt: utc(r.SentAt), NextAttemptAt: utc(r.NextAttemptAt),
	}
	var content, failure error
	if len(r.Content) > 0 {
		m.Content = &message.Content{}
		content = r.Content.decode(m.Content)
	}
	if len(r.Failure) > 0 {
		m.Failure = &message.Failure{}
		failure = r.Failure.decode(m.Failure)
	}
	return m, errors.Join(content, failure)
}

// shown returns the row for reading. Content that cannot be decoded is left out: one such row must not fail a list.
func (r *messageRow) shown() *message.Message {
	m, err := r.message()
	if err != nil {
		m.Content, m.Failure = nil, nil
	}
	return m
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
	ID              uuid.UUID `json:"id"`
	FirstName       string    `json:"first_name"`
	LastName        string    `json:"last_name"`
	Email           string    `json:"email"`
	Phone           string    `json:"phone"`
	InstagramID     string    `json:"instagram_id"`
	Company         string    `json:"company"`
	Title           string    `json:"title"`
	Status          string    `json:"status"`
	Source          string    `json:"source"`
	City            string    `json:"city"`
	State           string    `json:"state"`
	Country         string    `json:"country"`
	Timezone        string    `json:"timezone"`
	Language        string    `json:"language"`
	AssigneeID      string    `json:"assignee_id"`
	FirstNameFold   string    `json:"first_name_fold"`
	LastNameFold    string    `json:"last_name_fold"`
	FullNameFold    string    `json:"full_name_fold"`
	EmailFold       string    `json:"email_fold"`
	PhoneFold       string    `json:"phone_fold"`
	InstagramIDFold string    `json:"instagram_id_fold"`
	CompanyFold     string    `json:"company_fold"`
	TitleFold       string    `json:"title_fold"`
	StatusFold      string    `json:"status_fold"`
	SourceFold      string    `json:"source_fold"`
	CityFold        string    `json:"city_fold"`
	StateFold       string    `json:"state_fold"`
	CountryFold     string    `json:"country_fold"`
	TimezoneFold    string    `json:"timezone_fold"`
	LanguageFold    string    `json:"language_fold"`
	AssigneeIDFold  string    `json:"assignee_id_fold"`
	SearchText      string    `json:"search_text"`
	Tags            document  `json:"tags"`
	TagsFold        document  `json:"tags_fold"`
	CustomFields    document  `json:"custom_fields"`
	CustomText      document  `json:"custom_text"`
	CustomNumber    document  `json:"custom_number"`
	CreatedAt       moment    `json:"created_at"`
	UpdatedAt       moment    `json:"updated_at" gorm:"autoUpdateTime:false"`
	LastContactedAt *moment   `json:"last_contacted_at"`
}

// moment is a time of a lead, which callers choose. One beyond message.TimeBound, of an earlier version, reads as the
// nearest that is within it: JSON has no form for it, and SQLite's driver does not read what it wrote.
type moment struct{ time.Time }

// Value implements driver.Valuer.
func (m moment) Value() (driver.Value, error) { return m.Time, nil }

// Scan implements sql.Scanner.
func (m *moment) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case time.Time:
		m.Time = message.ClampTime(v)
		return nil
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return fmt.Errorf("a time column holds %T", v)
	}
	if m.Time = message.ClampTime(farPast); !strings.HasPrefix(text, "-") {
		m.Time = message.ClampTime(farFuture)
	}
	return nil
}

var (
	farPast   = time.Date(-1, time.January, 1, 0, 0, 0, 0, time.UTC)
	farFuture = time.Date(10_000, time.January, 1, 0, 0, 0, 0, time.UTC)
)

func momentOf(t *time.Time) *moment {
	if t == nil {
		return nil
	}
	return &moment{stamp(*t)}
}

func (m *moment) time() *time.Time {
	if m == nil {
		return nil
	}
	return &m.Time
}

// TableName implements gorm's Tabler.
func (leadRow) TableName() string { return "leads" }

func rowOfLead(l *message.Lead) leadRow {
	folded := audience.FoldedFields(l)
	r := leadRow{
		ID: l.ID, FirstName: l.FirstName, LastName: l.LastName, Email: l.Email, Phone: l.Phone, InstagramID: l.InstagramID,
		Company: l.Company, Title: l.Title, Status: l.Status, Source: l.Source, City: l.City, State: l.State,
		Country: l.Country, Timezone: l.Timezone, Language: l.Language, AssigneeID: l.AssigneeID,
		SearchText: audience.SearchText(folded), CreatedAt: moment{stamp(l.CreatedAt)}, UpdatedAt: moment{stamp(l.UpdatedAt)},
		LastContactedAt: momentOf(l.LastContactedAt),
	}
	for i, to := range r.folds() {
		*to = folded[i].Value
	}
	if tags := dedupe(l.Tags); len(tags) > 0 {
		fold := make([]string, len(tags))
		for i, t := range tags {
			fold[i] = message.Fold(t)
		}
		r.Tags, r.TagsFold = encode(tags), encode(fold)
	}
	if len(l.CustomFields) > 0 {
		text, number := audience.FoldedCustom(l.CustomFields)
		r.CustomFields, r.CustomText, r.CustomNumber = encode(l.CustomFields), encode(hexKeys(text)), encode(hexKeys(number))
	}
	return r
}

// folds are the folded columns, in the order of audience.FoldedFields.
func (r *leadRow) folds() []*string {
	return []*string{
		&r.FirstNameFold, &r.LastNameFold, &r.EmailFold, &r.PhoneFold, &r.InstagramIDFold, &r.CompanyFold, &r.TitleFold, &r.StatusFold,
		&r.SourceFold, &r.CityFold, &r.StateFold, &r.CountryFold, &r.TimezoneFold, &r.LanguageFold, &r.AssigneeIDFold, &r.FullNameFold,
	}
}

// leadColumns are the columns of leads in the order of values.
var leadColumns = []string{
	"id", "first_name", "last_name", "email", "phone", "instagram_id", "company", "title", "status", "source", "city", "state", "country",
	"timezone", "language", "assignee_id", "first_name_fold", "last_name_fold", "email_fold", "phone_fold", "instagram_id_fold",
	"company_fold", "title_fold", "status_fold", "source_fold", "city_fold", "state_fold", "country_fold", "timezone_fold", "language_fold",
	"assignee_id_fold", "full_name_fold", "search_text", "tags", "tags_fold", "custom_fields", "custom_text", "custom_number", "created_at", "updated_at",
	"last_contacted_at",
}

func (r *leadRow) values() []any {
	v := make([]any, 0, len(leadColumns))
	v = append(v, r.ID, r.FirstName, r.LastName, r.Email, r.Phone, r.InstagramID, r.Company, r.Title, r.Status, r.Source, r.City, r.State,
		r.Country, r.Timezone, r.Language, r.AssigneeID)
	for _, f := range r.folds() {
		v = append(v, *f)
	}
	return append(v, r.SearchText, r.Tags.orNull(), r.TagsFold.orNull(), r.CustomFields.orNull(), r.CustomText.orNull(), r.CustomNumber.orNull(), r.CreatedAt.Time, r.UpdatedAt.Time, r.LastContactedAt.time())
}

// hexKey is a custom field's name as a key that means the same to every database, whatever characters it has.
func hexKey(name string) string { return "k" + hex.EncodeToString([]byte(name)) }

func hexKeys[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[hexKey(k)] = v
	}
	return out
}

// lead returns the lead of a row. A row whose tags or custom fields cannot be decoded gives the lead without them, and an
// error.
func (r *leadRow) lead() (*message.Lead, error) {
	l := &message.Lead{
		ID: r.ID, FirstName: r.FirstName, LastName: r.LastName, Email: r.Email, Phone: r.Phone, InstagramID: r.InstagramID,
		Company: r.Company, Title: r.Title, Status: r.Status, Source: r.Source, City: r.City, State: r.State,
		Country: r.Country, Timezone: r.Timezone, Language: r.Language, AssigneeID: r.AssigneeID,
		CreatedAt: r.CreatedAt.Time, UpdatedAt: r.UpdatedAt.Time, LastContactedAt: r.LastContactedAt.time(),
	}
	terr, cerr := r.Tags.decode(&l.Tags), r.CustomFields.decodeNumbers(&l.CustomFields)
	if terr != nil {
		l.Tags = nil
	}
	if cerr != nil {
		l.CustomFields = nil
	}
	return l, errors.Join(terr, cerr)
}
