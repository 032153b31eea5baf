// Package message is Herald's dictionary: messages, leads, channel types, statuses and reasons, and the validation of content and
// addresses. Every other package uses its terms. It knows no database, queue, provider or framework, and imports no other package of
// Herald.
package message

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"
)

// MessageType is the purpose of a message, message_type on the wire. A suppression applies to some message types only.
type MessageType string

// The message types.
const (
	Transactional MessageType = "TRANSACTIONAL"
	Marketing     MessageType = "MARKETING"
	Notification  MessageType = "NOTIFICATION"
)

// MessageTypes lists every MessageType.
var MessageTypes = []MessageType{Transactional, Marketing, Notification}

// ParseMessageType parses a MessageType in any letter case.
func ParseMessageType(s string) (MessageType, bool) { return parseEnum(s, MessageTypes) }

// Priority selects the queue of a message among those of its channel type.
type Priority string

// The priorities, most urgent first.
const (
	High   Priority = "HIGH"
	Normal Priority = "NORMAL"
	Low    Priority = "LOW"
)

// Priorities lists every Priority, most urgent first.
var Priorities = []Priority{High, Normal, Low}

// ParsePriority parses a Priority: its name in any letter case, or a number from 1 to 5 as in the mail header X-Priority (1 and 2 are
// HIGH, 3 is NORMAL, 4 and 5 are LOW).
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

// Amount returns m in units of the currency, as on the wire.
func (m Micros) Amount() float64 { return float64(m) / 1e6 }

// MicrosOf converts an amount in units of the currency, rounded half away from zero.
func MicrosOf(amount float64) Micros {
	if amount < 0 {
		return -MicrosOf(-amount)
	}
	return Micros(amount*1e6 + 0.5)
}

// Content is the content of a message. Subject, Text and HTML are Liquid templates until they are rendered. ValidateContent checks which
// fields a channel type has.
type Content struct {
	Subject    string   `json:"subject,omitempty"`
	Text       string   `json:"content,omitempty"`
	HTML       string   `json:"html_content,omitempty"`
	Sender     string   `json:"sender,omitempty"`
	SenderName string   `json:"sender_name,omitempty"`
	MediaURLs  []string `json:"media_urls,omitempty"`
	ImageURL   string   `json:"image_url,omitempty"`
	ReplyTo    *Mailbox `json:"reply_to,omitempty"` // not a template
	Headers    []Header `json:"headers,omitempty"`  // their values are templates

	Attachments []Attachment `json:"attachments,omitempty"`
}

// Message is one message to one recipient over one channel: one row of the ledger.
type Message struct {
	ID          uuid.UUID
	BulkID      uuid.UUID // uuid.Nil for a single
	Seq         int64     // position in its bulk, from 0
	LeadID      uuid.UUID // uuid.Nil if the caller named no lead
	ChannelID   uuid.UUID
	ChannelType ChannelType
	Provider    string
	Recipient   string // the normalised address, empty if the lead has none
	MessageType MessageType
	Priority    Priority
	Content     *Content        // of a single; the messages of a bulk share the bulk's
	Metadata    json.RawMessage // JSON object of the caller, singles only
	Attachments []Attachment    // of a message that is shown: its own, or those of its bulk
	Keyed       bool            // a single with an idempotency key: its caller cannot send it twice

	Status     Status
	Reason     Reason
	Failure    *Failure // of a refusal by the provider
	Attempt    int      // claims that may have reached the provider
	Unknowns   int      // attempts with an unknown outcome
	Part       int      // parts that the provider accepted; an Instagram message may have two
	Generation int      // number of times that the message was enqueued again under a new task id
	Suspect    Suspect  // whether rendering the message may end the process

	ProviderMessageID string
	HTTPStatus        int // of the call that settled the message
	Cost              Micros

	CreatedAt     time.Time
	UpdatedAt     time.Time
	ScheduledAt   *time.Time
	ClaimedAt     *time.Time
	SentAt        *time.Time
	NextAttemptAt *time.Time // when the sweep looks at the row again
}

// Suspect is the degree of suspicion that rendering a message ends the process.
type Suspect int

// The degrees of suspicion. A message that is loaded in SuspectRendering ended its process while no other message was rendered.
const (
	NotSuspect       Suspect = iota
	Suspected                // a process ended while it had the message
	SuspectRendering         // a process began to render it under suspicion
)

// Failure is a provider's refusal. Code is the provider's code, or one of Herald's if it gave none. Text contains no address and no
// secret, so it can be stored and shown.
type Failure struct {
	Code string `json:"code" doc:"The provider's code, or one of Herald's if it gave none." example:"21610"`
	Text string `json:"message" doc:"The provider's text, without addresses and secrets." example:"Attempt to send to unsubscribed recipient"`
}

// The outcomes of an attempt.
const (
	AttemptSent    = "sent"
	AttemptNotSent = "not_sent"
	AttemptRefused = "refused"
	AttemptUnknown = "not_known"
	AttemptLate    = "late" // the answer came after the claim had expired
)

// Attempt is one call to a provider, or one part of it.
type Attempt struct {
	MessageID  uuid.UUID
	N          int
	Part       int
	StartedAt  time.Time
	EndedAt    time.Time
	Outcome    string
	HTTPStatus int // 0 without an answer
	Code       string
}

// Lead is a person in the address book.
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

// Address returns the lead's address for a channel type as stored, not normalised. It is "" if the lead has none.
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

// LeadTexts declares the plain text fields of a lead, in the order of the API's documentation. Input, imports, filters, templates,
// responses and the store iterate over this list.
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

// leadTimes declares the times of a lead, by their JSON members. Of returns the zero time for a lead without one.
var leadTimes = [...]struct {
	name string
	of   func(*Lead) time.Time
}{
	{"created_at", func(l *Lead) time.Time { return l.CreatedAt }},
	{"updated_at", func(l *Lead) time.Time { return l.UpdatedAt }},
	{"last_contacted_at", func(l *Lead) time.Time {
		if l.LastContactedAt == nil {
			return time.Time{}
		}
		return *l.LastContactedAt
	}},
}

// UsesTimes reports whether a template uses a time of the lead, by the names that it uses.
func UsesTimes(uses map[string]bool) bool {
	for _, f := range leadTimes {
		if uses[f.name] {
			return true
		}
	}
	return false
}

// noFields is the value of custom_fields for a lead without custom fields. It is shared and read only.
var noFields = map[string]any{}

// BindingNames returns the names of a lead's values in templates.
func BindingNames() []string {
	names := make([]string, 0, len(LeadTexts)+len(leadTimes)+4)
	for _, f := range LeadTexts {
		names = append(names, f.Name)
	}
	for _, f := range leadTimes {
		names = append(names, f.name)
	}
	return append(names, "full_name", "id", "tags", "custom_fields")
}

// Bindings returns the values of the lead that a template uses, by their names in templates. Other values are left out, because a bulk
// calls it for each message and most templates use two or three values. Times are text as in the API's responses: RFC 3339 in UTC, to
// the second. The result is read only. A nil lead has no values; an empty field is absent, so that a template's default applies.
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
	for _, f := range leadTimes {
		if t := f.of(l); !t.IsZero() && uses[f.name] {
			b[f.name] = t.UTC().Format(time.RFC3339)
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

// Filter selects messages. A zero field selects all.
type Filter struct {
	BulkID        uuid.UUID
	LeadID        uuid.UUID
	Statuses      []Status
	Reasons       []Reason
	Failed        bool // only messages that have ended and that the provider did not accept: those of messages_failed of a bulk
	ChannelType   ChannelType
	Recipient     string // normalised
	CreatedAfter  *time.Time
	CreatedBefore *time.Time
	UpdatedAfter  *time.Time
}
