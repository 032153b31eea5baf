// Package message is Herald's dictionary: what a message is, to whom and over what it goes, how it can end, and
// what makes one valid. Every other package speaks in these words. It knows no database, queue, provider or
// framework, and imports nothing of ours.
package message

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"
)

// MessageType is why a message is sent, message_type on the wire. Suppressions and unsubscribe headers follow it.
type MessageType string

// The message types.
const (
	Transactional MessageType = "TRANSACTIONAL"
	Marketing     MessageType = "MARKETING"
	Notification  MessageType = "NOTIFICATION"
)

// MessageTypes lists every MessageType.
var MessageTypes = []MessageType{Transactional, Marketing, Notification}

// ParseMessageType reads a MessageType in any letter case.
func ParseMessageType(s string) (MessageType, bool) { return parseEnum(s, MessageTypes) }

// Priority says which of a type's queues a message waits in.
type Priority string

// The priorities, most urgent first.
const (
	High   Priority = "HIGH"
	Normal Priority = "NORMAL"
	Low    Priority = "LOW"
)

// Priorities lists every Priority, most urgent first.
var Priorities = []Priority{High, Normal, Low}

// ParsePriority reads a Priority by name in any letter case, or by its number from 1 to 5 as in mail's X-Priority
// header: 1 and 2 are HIGH, 3 is NORMAL, 4 and 5 are LOW.
func ParsePriority(s string) (Priority, bool) {
	switch strings.TrimSpace(s) {
	case "1", "2":
		return High, true
	case "3":
		return Normal, true
	case "4", "5":
		return Low, true
	}
	return parseEnum(s, Priorities)
}

func parseEnum[E ~string](s string, all []E) (E, bool) {
	for _, e := range all {
		if strings.EqualFold(string(e), s) {
			return e, true
		}
	}
	return "", false
}

// Micros is an amount of money in millionths of the channel's currency.
type Micros int64

// Amount returns m in whole units of the currency, as the wire shows it.
func (m Micros) Amount() float64 { return float64(m) / 1e6 }

// MicrosOf rounds an amount in whole units to millionths.
func MicrosOf(amount float64) Micros {
	if amount < 0 {
		return -MicrosOf(-amount)
	}
	return Micros(amount*1e6 + 0.5)
}

// Content is what a message says. Subject, Text and HTML are Liquid templates until they are rendered. Which of the
// fields a type may use is checked by ValidateContent.
type Content struct {
	Subject    string   `json:"subject,omitempty"`
	Text       string   `json:"content,omitempty"`
	HTML       string   `json:"html_content,omitempty"`
	Sender     string   `json:"sender,omitempty"`
	SenderName string   `json:"sender_name,omitempty"`
	MediaURLs  []string `json:"media_urls,omitempty"`
	ImageURL   string   `json:"image_url,omitempty"`
}

// Message is what one recipient gets over one channel: one row of the ledger.
type Message struct {
	ID          uuid.UUID
	BulkID      uuid.UUID // uuid.Nil for a single
	Seq         int64     // position in its bulk, from 0
	LeadID      uuid.UUID // uuid.Nil when the caller named no contact
	ChannelID   uuid.UUID
	ChannelType ChannelType
	Provider    string
	Recipient   string // the normalised address, empty when the lead has none
	MessageType MessageType
	Priority    Priority
	Content     *Content        // singles carry their own; a bulk's messages share the bulk's
	Metadata    json.RawMessage // the caller's own object, singles only
	Keyed       bool            // a single that was sent under an idempotency key: its caller cannot send it twice

	Status     Status
	Reason     Reason
	Failure    *Failure // what the provider said, when it refused
	Attempt    int      // claims so far that may have reached the provider
	Unknowns   int      // attempts with an unknown outcome
	Part       int      // parts that the provider has accepted (an Instagram message may have two)
	Generation int      // counts how often the message was put back into the queue under a new task id
	Suspect    Suspect  // whether rendering the message may end the process

	ProviderMessageID string
	HTTPStatus        int // of the call that settled the message
	Cost              Micros

	CreatedAt     time.Time
	UpdatedAt     time.Time
	ScheduledAt   *time.Time
	ClaimedAt     *time.Time
	SentAt        *time.Time
	NextAttemptAt *time.Time // when to look at the row again if nothing else does
}

// Suspect says what is known of a message whose rendering may end the process that renders it.
type Suspect int

// The degrees of suspicion. A message in SuspectRendering that is to be rendered again has ended its process while it was
// rendered alone.
const (
	NotSuspect       Suspect = iota
	Suspected                // a process ended while it held the message
	SuspectRendering         // a process has begun to render it under suspicion
)

// Failure is a provider's refusal in its own words: Code is the provider's code where it gave one, Text is safe to
// show and to store (no address, no secret).
type Failure struct {
	Code string `json:"code" doc:"The provider's own code, or a reason of ours." example:"21610"`
	Text string `json:"message" doc:"What it said, without addresses and secrets." example:"Attempt to send to unsubscribed recipient"`
}

// The outcomes of an attempt.
const (
	AttemptSent    = "sent"
	AttemptNotSent = "not_sent"
	AttemptRefused = "refused"
	AttemptUnknown = "not_known"
	AttemptLate    = "late" // it answered after its claim had passed on
)

// Attempt is one call to a provider, or one part of it.
type Attempt struct {
	MessageID  uuid.UUID
	N          int
	Part       int
	StartedAt  time.Time
	EndedAt    time.Time
	Outcome    string
	HTTPStatus int // 0 when no answer came
	Code       string
}

// Lead is a person in the CRM table.
type Lead struct {
	ID              uuid.UUID
	FirstName       string
	LastName        string
	Email           string
	Phone           string
	InstagramID     string
	Company         string
	Title           string
	Status          string
	Source          string
	City            string
	State           string
	Country         string
	Timezone        string
	Language        string
	AssigneeID      string
	Tags            []string
	CustomFields    map[string]any
	CreatedAt       time.Time
	UpdatedAt       time.Time
	LastContactedAt *time.Time
}

// Address returns the lead's address for a channel type as it is stored, not normalised.
func (l *Lead) Address(t ChannelType) string {
	if field := l.Text(t.Spec().Address.LeadField); field != nil {
		return *field
	}
	return ""
}

// Text returns a text field of the lead by its name, or nil when no field has the name.
func (l *Lead) Text(name string) *string {
	for i := range LeadTexts {
		if LeadTexts[i].Name == name {
			return LeadTexts[i].Of(l)
		}
	}
	return nil
}

// LeadText declares one plain text field of a lead. Name is its JSON member, its CSV column and its column in the
// database; Of returns the field of a lead.
type LeadText struct {
	Name string
	Of   func(*Lead) *string
}

// LeadTexts declares the plain text fields of a lead once, in the order of the API's documentation. Input, imports,
// filters, templates, answers and the store iterate over this list.
var LeadTexts = [...]LeadText{
	{"first_name", func(l *Lead) *string { return &l.FirstName }},
	{"last_name", func(l *Lead) *string { return &l.LastName }},
	{"email", func(l *Lead) *string { return &l.Email }},
	{"phone", func(l *Lead) *string { return &l.Phone }},
	{"instagram_id", func(l *Lead) *string { return &l.InstagramID }},
	{"company", func(l *Lead) *string { return &l.Company }},
	{"title", func(l *Lead) *string { return &l.Title }},
	{"status", func(l *Lead) *string { return &l.Status }},
	{"source", func(l *Lead) *string { return &l.Source }},
	{"city", func(l *Lead) *string { return &l.City }},
	{"state", func(l *Lead) *string { return &l.State }},
	{"country", func(l *Lead) *string { return &l.Country }},
	{"timezone", func(l *Lead) *string { return &l.Timezone }},
	{"language", func(l *Lead) *string { return &l.Language }},
	{"assignee_id", func(l *Lead) *string { return &l.AssigneeID }},
}

// TextField is a plain text field of one lead: its name and a pointer to its value.
type TextField struct {
	Name  string
	Value *string
}

// TextFields returns the fields of LeadTexts of this lead.
func (l *Lead) TextFields() []TextField {
	out := make([]TextField, len(LeadTexts))
	for i, f := range LeadTexts {
		out[i] = TextField{f.Name, f.Of(l)}
	}
	return out
}

// noFields is what a template sees of a lead without custom fields.
var noFields = map[string]any{}

// BindingNames are the names by which templates ask for a lead's values.
func BindingNames() []string {
	names := make([]string, 0, len(LeadTexts)+4)
	for _, f := range LeadTexts {
		names = append(names, f.Name)
	}
	return append(names, "full_name", "id", "tags", "custom_fields")
}

// Bindings returns the lead as a template sees it, of it what the template uses: a bulk does it for each of its messages,
// and most templates use two or three values. Templates change none of it. A nil lead has no values.
func (l *Lead) Bindings(uses map[string]bool) map[string]any {
	b := map[string]any{}
	if l == nil {
		l = &Lead{}
	}
	for _, f := range LeadTexts {
		if v := *f.Of(l); v != "" && uses[f.Name] {
			b[f.Name] = v
		}
	}
	if uses["full_name"] {
		if name := strings.TrimSpace(l.FirstName + " " + l.LastName); name != "" {
			b["full_name"] = name
		}
	}
	if uses["id"] && l.ID != uuid.Nil {
		b["id"] = l.ID.String()
	}
	if uses["tags"] {
		tags := make([]any, len(l.Tags))
		for i, t := range l.Tags {
			tags[i] = t
		}
		b["tags"] = tags
	}
	if uses["custom_fields"] {
		b["custom_fields"] = noFields
		if l.CustomFields != nil {
			b["custom_fields"] = bindable(l.CustomFields)
		}
	}
	return b
}

// Filter narrows a list of messages; zero fields do not narrow it.
type Filter struct {
	BulkID        uuid.UUID
	LeadID        uuid.UUID
	Status        Status
	ChannelType   ChannelType
	Recipient     string // normalised
	CreatedAfter  *time.Time
	CreatedBefore *time.Time
}
