// Package contract is what goes over the wire: the requests and answers of the API as Go types. The server answers with
// them, the client sends and reads them, and the OpenAPI document is made of them, so the three cannot disagree. It knows
// the dictionary and the scopes, and nothing else. Route declares the routes, with everything that is not a handler.
//
// Tags say what the types cannot: doc is a field's meaning, example a value of it as JSON (or a string without its
// quotes), max and min bound the length of a string, the number of an array's elements or a number's value, each the
// length of an array's elements, bytes an object's size, format and enum name what kind of string it is. A doc may
// hold placeholders in braces, which stand for what the registries of channel types and providers say (see api/openapi/placeholders.go). A field of a
// request is optional, and null the same as leaving it out, unless it is marked as required.
package contract

import (
	"embed"
	"encoding/json"
	"strings"
	"time"

	"herald/pkg/message"
)

//go:embed examples/*.json
var examples embed.FS

// Example returns one of the documented requests and answers, word for word: those of TypeExamples, bulk_lead_ids,
// bulk_search_keyword, bulk_filters, bulk_assignees, single_response, bulk_response. Another name panics.
func Example(name string) string {
	b, err := examples.ReadFile("examples/" + name + ".json")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TypeExamples names the documented requests of a single, one for each channel type that has an example: the name of the
// type in lower case.
func TypeExamples() []string {
	var names []string
	for _, t := range message.ChannelTypes {
		name := strings.ToLower(string(t))
		if _, err := examples.Open("examples/" + name + ".json"); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// Page is one page of a list. NextCursor, null on the last page, asks for the next.
type Page[T any] struct {
	Items      []T     `json:"items" doc:"The items of this page."`
	NextCursor *string `json:"next_cursor" doc:"Ask for the next page with it; null on the last one. Opaque." example:"MDFhMjA5NjAtNjJhOS03YWZmLTliYTQtYWIwODQyOWI4Mjhl"`
}

// FieldError is one thing that is wrong with one field of a request.
type FieldError struct {
	Loc  []any  `json:"loc" doc:"The path to the field: body, query, path or header, then names and, in arrays, positions." example:"[\"body\",\"message_data\",\"subject\"]"`
	Msg  string `json:"msg" doc:"What is wrong, for a person." example:"an email needs a subject"`
	Type string `json:"type" doc:"What is wrong, for a program." enum:"slug" example:"missing"`
}

// ValidationError is the answer to a request that is not valid.
type ValidationError struct {
	Detail []FieldError `json:"detail" doc:"The first hundred mistakes of the request; where it has more, a last entry says how many."`
}

// Problem is the answer to a request that cannot be carried out.
type Problem struct {
	Detail    string `json:"detail" doc:"What happened, in a sentence for a person." example:"there is no bulk 01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Code      string `json:"code" doc:"What happened, for a program." enum:"code" example:"not_found"`
	RequestID string `json:"request_id,omitempty" doc:"Finds a failure of ours in our log." example:"5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52"`
}

// SendRequest asks for a single message, or, with BulkSettings, for a message to many.
type SendRequest struct {
	SenderType       string              `json:"sender_type,omitempty" doc:"The type of channel, in any letter case. When absent: that of the channel named; else from the recipient ({recipient_forms}); in a bulk without a recipient from the fields ({implying_fields})." enum:"type" example:"email"`
	SenderIdentifier string              `json:"sender_identifier,omitempty" doc:"The channel's id. The default channel of the type when absent. The query's send_identifier means the same." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	MessageData      MessageData         `json:"message_data" required:"true" doc:"What is said, and for a single to whom."`
	MessageType      message.MessageType `json:"message_type,omitempty" doc:"Why it is sent, in any letter case; suppressions follow it. TRANSACTIONAL when a single does not say, MARKETING when a bulk does not." enum:"message_type" example:"TRANSACTIONAL"`
	Priority         string              `json:"priority,omitempty" doc:"How urgent it is: HIGH, NORMAL, LOW in any letter case, or 1 to 5 as in mail's X-Priority, as a number or a string: 1 and 2 are HIGH, 3 is NORMAL, 4 and 5 are LOW." enum:"priority" example:"HIGH"`
	BulkSettings     *BulkSettings       `json:"bulk_settings,omitempty" doc:"Whom a bulk send reaches. Its presence is what makes it one."`
	DryRun           bool                `json:"dry_run,omitempty" doc:"Of a bulk: count, estimate and render five samples, and send nothing. It may take 10 s (422 beyond that), and an API key may have two under way at a time (429 beyond that)." example:"false"`
}

// MessageData is what a message says. Subject, Content and HTMLContent are Liquid templates over the lead.
type MessageData struct {
	Recipient   string          `json:"recipient,omitempty" doc:"The address, by type: {address_forms}. May be left out of a single with a contact_id. In a bulk a placeholder that decides the type and is never sent to." max:"320" example:"customer@example.com"`
	Subject     string          `json:"subject,omitempty" doc:"{types} only, required there: the subject, a template over the lead; no control characters." max:"998" example:"Welcome to our service!"`
	Content     string          `json:"content,omitempty" doc:"The text, a template over the lead. {content_rules}" example:"Thank you for signing up, {{ first_name | default: \"friend\" }}."`
	HTMLContent string          `json:"html_content,omitempty" doc:"{types} only: the HTML, a template over the lead whose values are escaped." example:"<h1>Welcome!</h1><p>Thank you for signing up.</p>"`
	Sender      string          `json:"sender,omitempty" doc:"{types}: who it comes from, when that is not the channel's sender. The channel must allow it." max:"320" example:"news@acme.test"`
	SenderName  string          `json:"sender_name,omitempty" doc:"{types} only: the name beside the sender's address; no control characters." max:"256" example:"Acme Support Team"`
	MediaURLs   []string        `json:"media_urls,omitempty" doc:"{types} only: http or https addresses of pictures and the like, which the provider fetches." max:"10" each:"2048" example:"[\"https://example.com/promo.jpg\"]"`
	ImageURL    string          `json:"image_url,omitempty" doc:"{types} only: the https address of a picture, which the provider fetches. It is sent before the text." max:"2048" example:"https://example.com/promo.jpg"`
	ContactID   string          `json:"contact_id,omitempty" doc:"Of a single: the id of the lead that it goes to. It need not exist; when it does, templates speak of it, and its address is the recipient where none is given." format:"uuid" example:"11111111-0001-0001-0001-000000000001"`
	Metadata    json.RawMessage `json:"metadata,omitempty" doc:"Anything of your own, given back with the message. It stays here: no provider gets it. Numbers are bounded as in custom_fields of a lead." bytes:"8192" example:"{\"campaign_id\":\"spring_promo\"}"`
}

// BulkSettings describe whom a bulk reaches: a lead that meets every criterion given (or any, with Match), once.
type BulkSettings struct {
	LeadIDs                  []string       `json:"lead_ids,omitempty" doc:"Leads by their ids; each counts once." format:"uuid" min:"1" max:"100000" example:"[\"550e8400-e29b-41d4-a716-446655440001\"]"`
	Filters                  *FilterRequest `json:"filters,omitempty" doc:"Leads by conditions on their fields, in groups of AND and OR. All criteria together make at most 1000 comparisons per lead: a value of contains, not_contains, starts_with and ends_with counts one, a condition on a custom field one, a word of search_keyword one, three tags one; lists of equals, in and not_in are free."`
	SearchKeyword            string         `json:"search_keyword,omitempty" doc:"Every word must occur, in any letter case, in name, email, company or phone." min:"1" max:"200" example:"enterprise customers"`
	Assignees                []string       `json:"assignees,omitempty" doc:"Leads of any of these users." min:"1" max:"1000" each:"128" example:"[\"user-uuid-1\",\"user-uuid-2\"]"`
	AllLeads                 bool           `json:"all_leads,omitempty" doc:"Everybody. Without it at least one of the criteria above must be given." example:"false"`
	Match                    string         `json:"match,omitempty" doc:"Whether a lead must meet all criteria, as it is without this, or any." enum:"match" example:"all"`
	ExcludeLeadIDs           []string       `json:"exclude_lead_ids,omitempty" doc:"Leads that are taken out at the end, by their ids." format:"uuid" max:"100000" example:"[\"550e8400-e29b-41d4-a716-446655440003\"]"`
	ExcludeTags              []string       `json:"exclude_tags,omitempty" doc:"Leads that are taken out at the end, because they have any of these tags." max:"1000" each:"200" example:"[\"do not contact\"]"`
	AllowDuplicateRecipients bool           `json:"allow_duplicate_recipients,omitempty" doc:"Lets several leads with one address each get their message. Without it the lead with the lowest id does." example:"false"`
}

// FilterRequest is a group of conditions, and of further groups, at most 10 deep and with at most 500 conditions in all.
type FilterRequest struct {
	ID         string       `json:"id,omitempty" doc:"Your own name for the group; mistakes name it." max:"1000" example:"group-1"`
	Conditions []FilterNode `json:"conditions" required:"true" doc:"Conditions and groups." min:"1" max:"500"`
	Logic      string       `json:"logic,omitempty" doc:"Whether all must hold, as it is without this, or one." enum:"logic" example:"AND"`
}

// FilterCondition compares one field of a lead.
type FilterCondition struct {
	ID       string `json:"id,omitempty" doc:"Your own name for the condition; mistakes name it." max:"1000" example:"cond-1"`
	Field    string `json:"field" required:"true" doc:"A field of the lead, or custom_fields.<key> with a key of up to 200 characters." enum:"field" example:"first_name"`
	Operator string `json:"operator" required:"true" doc:"How the field is compared. Text: equals not_equals contains not_contains starts_with ends_with in not_in is_empty is_not_empty. Times: before after between within_last_days is_empty is_not_empty. tags: contains contains_all not_contains is_empty is_not_empty. custom_fields: those of text, and gt gte lt lte between for numbers. Text is compared in any letter case." enum:"operator" example:"contains"`
	Value    any    `json:"value,omitempty" doc:"What it is compared with: text of up to 1000 characters, a number of at most 40 digits before and 40 after the decimal point, true or false, an RFC 3339 time or a date in the years 1 to 9999 in UTC, or a list of up to 1000 of them where the operator takes one. None for is_empty and is_not_empty." enum:"value" example:"st"`
}

// FilterNode is a group or a condition: exactly one of both is set.
type FilterNode struct {
	Group     *FilterRequest
	Condition *FilterCondition
}

// MarshalJSON writes the one that is set.
func (n FilterNode) MarshalJSON() ([]byte, error) {
	if n.Group != nil {
		return json.Marshal(n.Group)
	}
	return json.Marshal(n.Condition)
}

// SendResponse is the answer to a single: what became of the message.
type SendResponse struct {
	Success           bool                `json:"success" doc:"Whether the provider took the message, or will be asked to: false for FAILED, SKIPPED and UNKNOWN." example:"true"`
	MessageID         string              `json:"message_id" doc:"The message's id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440000"`
	ChannelUsed       message.ChannelType `json:"channel_used" doc:"The type of channel that it went over." enum:"type" example:"EMAIL"`
	ProviderUsed      string              `json:"provider_used" doc:"The provider that it went to." enum:"provider" example:"sendgrid"`
	ProviderMessageID *string             `json:"provider_message_id" doc:"The provider's own id of it." example:"msg_abc123"`
	Status            message.Status      `json:"status" doc:"SENT: the provider took it. QUEUED: the provider is busy, and workers go on trying. FAILED: refused for good. SKIPPED: the recipient is suppressed. UNKNOWN: the bytes left and no answer came." enum:"status" example:"SENT"`
	Cost              float64             `json:"cost" doc:"What it cost, in the channel's currency." example:"0.001"`
	SentAt            *time.Time          `json:"sent_at" doc:"When the provider took it." example:"2025-01-31T10:30:00Z"`
	Error             *message.Failure    `json:"error,omitempty" doc:"Why it was not sent, where success is false."`
}

// Bulk is how a bulk send stands. The first four figures are always there.
type Bulk struct {
	TotalLeads      int64                    `json:"total_leads" doc:"Leads that the request describes, as far as they are resolved: all of them once the plan is made." example:"150"`
	MessagesSent    int64                    `json:"messages_sent" doc:"Messages that the provider took. It never falls." example:"148"`
	MessagesFailed  int64                    `json:"messages_failed" doc:"Messages that ended otherwise: failed, skipped, unknown, cancelled." example:"2"`
	SuccessRate     float64                  `json:"success_rate" doc:"Messages sent for every hundred leads, two decimals; 0 without leads." example:"98.67"`
	BulkID          string                   `json:"bulk_id" doc:"The bulk's id." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Status          string                   `json:"status" doc:"Where it stands." enum:"bulk_status" example:"COMPLETED"`
	StatusReason    *string                  `json:"status_reason" doc:"Why Herald itself ended it, null when it did not: the database could not resolve its audience in time. Its status is then CANCELLED, and total_leads counts the leads that were resolved before." example:"the audience cannot be resolved: its criteria take the database too long"`
	MessagesPending int64                    `json:"messages_pending" doc:"Messages that have not ended: total less sent less failed." example:"0"`
	MessagesUnknown int64                    `json:"messages_unknown" doc:"Those of messages_failed of which nobody knows whether the provider took them." example:"0"`
	LeadsNotFound   int64                    `json:"leads_not_found" doc:"Ids in the request that are no lead's." example:"0"`
	FailureReasons  map[message.Reason]int64 `json:"failure_reasons" doc:"messages_failed by their reasons." example:"{\"no_recipient\":1,\"invalid_recipient\":1}"`
	Cost            float64                  `json:"cost" doc:"What it cost so far, in the channel's currency." example:"0.148"`
	CreatedAt       *time.Time               `json:"created_at" doc:"When it was accepted." example:"2025-01-31T10:30:00Z"`
	StartedAt       *time.Time               `json:"started_at" doc:"When a worker began with it." example:"2025-01-31T10:30:00Z"`
	CompletedAt     *time.Time               `json:"completed_at" doc:"When its last message ended." example:"2025-01-31T10:31:00Z"`
	Channel         *BulkChannel             `json:"channel" doc:"Until it is over, its channel and how that is, which may be what it waits for."`
	Request         json.RawMessage          `json:"request,omitempty" doc:"With a single bulk: its request, with the number of lead_ids instead of the ids." example:"{\"bulk_settings\":{\"lead_ids\":150}}"`
}

// BulkChannel tells, until a bulk is over, what it may be waiting for.
type BulkChannel struct {
	ID          string              `json:"id" doc:"The channel's id." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type        message.ChannelType `json:"type" doc:"Its type." enum:"type" example:"SMS"`
	State       string              `json:"state" doc:"ACTIVE; PAUSED by a person or because its credentials are dead; THROTTLED: its provider refuses what is too much; DOWN: its provider does not answer; DELETED: it is not there any more." enum:"bulk_channel_state" example:"ACTIVE"`
	StateReason *string             `json:"state_reason" doc:"Why it is PAUSED; null without the scope read." example:"Authenticate"`
}

// Preview is the answer to a dry run.
type Preview struct {
	TotalLeads       int64                    `json:"total_leads" doc:"Leads that the request describes." example:"150"`
	Reachable        int64                    `json:"reachable" doc:"Those that would get a message." example:"148"`
	LeadsNotFound    int64                    `json:"leads_not_found" doc:"Ids in the request that are no lead's." example:"0"`
	Skipped          map[message.Reason]int64 `json:"skipped" doc:"The others by their reasons." example:"{\"no_recipient\":1,\"unsubscribed\":1}"`
	EstimatedCost    float64                  `json:"estimated_cost" doc:"What it would cost, in the channel's currency. Of SMS, from the first hundred." example:"0.148"`
	EstimatedSeconds float64                  `json:"estimated_seconds" doc:"How long it would take, at the channel's rate and with the workers of the moment." example:"1.2"`
	Samples          []Sample                 `json:"samples" doc:"What the first five would get; without the scope read their ids."`
}

// Sample is a message as one lead would get it.
type Sample struct {
	LeadID      string  `json:"lead_id" doc:"The lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	Recipient   string  `json:"recipient,omitzero" doc:"Where it would go. Without the scope read it is absent, and everything below is null." example:"stella@example.com"`
	Subject     *string `json:"subject" doc:"The subject, rendered." example:"Special Offer - 50% Off!"`
	Content     *string `json:"content" doc:"The text, rendered." example:"Limited time offer just for you!"`
	HTMLContent *string `json:"html_content" doc:"The HTML, rendered." example:"<p>Hello Stella</p>"`
	Segments    *int    `json:"segments" doc:"Of an SMS: how many segments it takes." example:"1"`
	Error       *string `json:"error" doc:"Why it would end FAILED." example:"the rendered text is empty"`
}

// Explanation tells why a lead was sent to, skipped, failed, or not in the audience at all.
type Explanation struct {
	LeadID     string    `json:"lead_id" doc:"The lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	InAudience bool      `json:"in_audience" doc:"Whether the lead was among them when the bulk was planned." example:"true"`
	Message    *Message  `json:"message" doc:"Its message, if it is in the audience."`
	MatchesNow *bool     `json:"matches_now" doc:"Whether the lead as it is now fits the request. null when there is no such lead any more." example:"true"`
	Criteria   []Verdict `json:"criteria" doc:"How each criterion judges the lead as it is now. An exclusion that matches takes it out."`
}

// Verdict is how one criterion, group or condition judges a lead.
type Verdict struct {
	Criterion  string    `json:"criterion,omitempty" doc:"Which criterion of bulk_settings this is." example:"filters"`
	ID         string    `json:"id,omitempty" doc:"Your own name for the group or condition." example:"cond-1"`
	Logic      string    `json:"logic,omitempty" doc:"Of a group." enum:"logic" example:"AND"`
	Field      string    `json:"field,omitempty" doc:"Of a condition." example:"first_name"`
	Operator   string    `json:"operator,omitempty" doc:"Of a condition." example:"contains"`
	Value      any       `json:"value,omitempty" doc:"What it compares with, folded." example:"st"`
	Actual     any       `json:"actual,omitempty" doc:"The lead's own, as it was compared." example:"stella"`
	Matched    bool      `json:"matched" doc:"Whether it holds." example:"true"`
	Conditions []Verdict `json:"conditions,omitempty" doc:"Of a group: its conditions and groups."`
}

// Message is one message of the ledger. Lists leave its attempts and receipts out.
type Message struct {
	ID                string              `json:"id" doc:"The message's id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440000"`
	BulkID            *string             `json:"bulk_id" doc:"The bulk that it belongs to; null for a single." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	LeadID            *string             `json:"lead_id" doc:"The lead that it goes to." format:"uuid" example:"11111111-0001-0001-0001-000000000001"`
	ChannelID         string              `json:"channel_id" doc:"The channel that it goes over." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	ChannelType       message.ChannelType `json:"channel_type" doc:"The channel's type." enum:"type" example:"SMS"`
	Provider          string              `json:"provider" doc:"The channel's provider." enum:"provider" example:"twilio"`
	Recipient         string              `json:"recipient" doc:"The normalised address; empty where the lead has none, or was erased." example:"+1234567890"`
	MessageType       message.MessageType `json:"message_type" doc:"Why it is sent." enum:"message_type" example:"TRANSACTIONAL"`
	Priority          message.Priority    `json:"priority" doc:"How urgent it is." enum:"priority_name" example:"NORMAL"`
	Status            message.Status      `json:"status" doc:"Where it stands. Open: SCHEDULED PENDING QUEUED SENDING. Then one of UNKNOWN < CANCELLED < SKIPPED < FAILED < SENT < DELIVERED < READ < BOUNCED; a settled message only moves up." enum:"status" example:"SENT"`
	Reason            *string             `json:"reason" doc:"Why it ended so, from a closed list." enum:"reason" example:"recipient_refused"`
	Error             *message.Failure    `json:"error" doc:"What the provider said, where it refused."`
	Attempts          []Attempt           `json:"attempts,omitzero" doc:"With a single message: the calls to the provider, oldest first."`
	Receipts          []Receipt           `json:"receipts,omitzero" doc:"With a single message: what the provider said later, oldest first."`
	ProviderMessageID *string             `json:"provider_message_id" doc:"The provider's own id of it." example:"SM0123456789abcdef0123456789abcdef"`
	Cost              float64             `json:"cost" doc:"What it cost, in the channel's currency." example:"0.0079"`
	Metadata          json.RawMessage     `json:"metadata" doc:"The sender's own object." example:"{\"campaign_id\":\"spring_promo\"}"`
	CreatedAt         *time.Time          `json:"created_at" doc:"When it was written." example:"2025-01-31T10:30:00Z"`
	ScheduledAt       *time.Time          `json:"scheduled_at" doc:"When it is to be sent." example:"2025-01-31T10:30:00Z"`
	SentAt            *time.Time          `json:"sent_at" doc:"When the provider took it." example:"2025-01-31T10:30:00Z"`
	UpdatedAt         *time.Time          `json:"updated_at" doc:"When it changed last." example:"2025-01-31T10:30:00Z"`
}

// Attempt is one call to a provider.
type Attempt struct {
	N          int        `json:"n" doc:"Which attempt it was, from 1." example:"1"`
	Part       int        `json:"part" doc:"Which of a message's parts, from 0; only Instagram's have two." example:"0"`
	StartedAt  *time.Time `json:"started_at" doc:"When it began." example:"2025-01-31T10:30:00Z"`
	EndedAt    *time.Time `json:"ended_at" doc:"When it ended." example:"2025-01-31T10:30:00Z"`
	Outcome    string     `json:"outcome" doc:"sent; not_sent: certain that nothing was sent; refused; not_known; late: it answered after its claim had passed on." enum:"outcome" example:"sent"`
	HTTPStatus *int       `json:"http_status" doc:"The answer's status; null when none came." example:"201"`
	Code       *string    `json:"code" doc:"The provider's own code." example:"21610"`
}

// Receipt is what a provider said of a message later.
type Receipt struct {
	Event string     `json:"event" doc:"What happened." example:"delivered"`
	At    *time.Time `json:"at" doc:"When." example:"2025-01-31T10:30:05Z"`
}
