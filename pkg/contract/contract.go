// Package contract declares the API: its routes, and its requests and responses as Go types. The server, the client and the
// OpenAPI document are all derived from these declarations, so they cannot disagree. The package knows the dictionary
// (package message) and the scopes (package access), and must not know handlers.
//
// A field of a request is optional, and null means the same as absence, unless the field is tagged as required. Tags declare
// what Go types cannot express:
//
//	doc       meaning, unit and default; the description in the OpenAPI document. Placeholders in braces are replaced by texts
//	          of the registries of channel types and providers (api/openapi/placeholders.go)
//	example   a value as JSON, or a string without quotes
//	required  the request must contain the field
//	min, max  bounds of a string's characters, an array's elements, or a number
//	each      maximum number of characters of an array's or object's elements
//	bytes     maximum size of an object as JSON
//	format    uuid
//	null      never: the value of a pointer field is never null
//	enum      name of a closed list of values (api/openapi/schema.go)
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

// Example returns a documented request or response, verbatim. Names are those of TypeExamples, and bulk_lead_ids,
// bulk_search_keyword, bulk_filters, bulk_assignees, single_response and bulk_response. It panics for any other name.
func Example(name string) string {
	b, err := examples.ReadFile("examples/" + name + ".json")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TypeExamples returns the names of the documented single requests, one for each channel type that has an example: the type
// in lower case.
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

// Page is one page of a list (keyset pagination). NextCursor requests the next page and is null on the last one.
type Page[T any] struct {
	Items      []T     `json:"items" doc:"The items of this page, at most limit of the query."`
	NextCursor *string `json:"next_cursor" doc:"Value of the parameter cursor that requests the next page; null on the last page. Opaque." example:"MDFhMjA5NjAtNjJhOS03YWZmLTliYTQtYWIwODQyOWI4Mjhl"`
}

// FieldError is one mistake in one field of a request.
type FieldError struct {
	Loc  []any  `json:"loc" doc:"Path of the field: body, query, path or header, followed by names and, in arrays, indexes from 0." enum:"step" example:"[\"body\",\"message_data\",\"subject\"]"`
	Msg  string `json:"msg" doc:"Description of the mistake. The text may change between versions." example:"an email needs a subject"`
	Type string `json:"type" doc:"Kind of the mistake. The values never change their meaning." enum:"slug" example:"missing"`
}

// ValidationError is the response to an invalid request, with the status 422. The request had no effect.
type ValidationError struct {
	Code   string       `json:"code" doc:"Always invalid." enum:"code_invalid" example:"invalid"`
	Detail []FieldError `json:"detail" doc:"The first 100 mistakes of the request. If it has more, a last entry of the type more_errors contains their number."`
}

// Problem is the response to a request that failed for any other reason.
type Problem struct {
	Detail    string `json:"detail" doc:"Description of the problem. The text may change between versions." example:"there is no bulk 01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Code      string `json:"code" doc:"Kind of the problem. The values never change their meaning." enum:"code" example:"not_found"`
	RequestID string `json:"request_id,omitempty" doc:"Id of the request in the server's log; present for internal errors." example:"5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52"`
}

// SendRequest is the request of a single, or with BulkSettings of a bulk.
type SendRequest struct {
	SenderType       string              `json:"sender_type,omitempty" doc:"Channel type, in any letter case. Default: the type of the channel that sender_identifier names; else derived from the recipient ({recipient_forms}); for a bulk without a recipient, derived from the fields that are present ({implying_fields})." enum:"type" example:"EMAIL"`
	SenderIdentifier string              `json:"sender_identifier,omitempty" doc:"Id of the channel. Default: the default channel of the type. The query parameter send_identifier has the same meaning." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	MessageData      MessageData         `json:"message_data" required:"true" doc:"Content of the message; for a single also its recipient."`
	MessageType      message.MessageType `json:"message_type,omitempty" doc:"Purpose of the message, in any letter case. It decides which suppressions apply. Default: TRANSACTIONAL for a single, MARKETING for a bulk." enum:"message_type" example:"TRANSACTIONAL"`
	Priority         string              `json:"priority,omitempty" doc:"Priority: HIGH, NORMAL or LOW in any letter case, or 1 to 5 as in the mail header X-Priority, as a number or a string: 1 and 2 are HIGH, 3 is NORMAL, 4 and 5 are LOW. Default: NORMAL." enum:"priority" example:"HIGH"`
	BulkSettings     *BulkSettings       `json:"bulk_settings,omitempty" doc:"Audience of a bulk. A request with this field is a bulk, a request without it is a single."`
	DryRun           bool                `json:"dry_run,omitempty" doc:"For a bulk: counts the audience, estimates cost and duration, renders five samples, and sends nothing. A dry run may take 10 s (otherwise 422), and an API key may have two in progress (otherwise 429). Default: false." example:"false"`
}

// MessageData is the content of a message. Subject, Content and HTMLContent are Liquid templates over the lead.
type MessageData struct {
	Recipient   string            `json:"recipient,omitempty" doc:"Address of the recipient, by type: {address_forms}. Optional for a single with a contact_id. In a bulk it is a placeholder that determines the channel type; nothing is sent to it, and it is not checked." example:"customer@example.com"`
	Subject     string            `json:"subject,omitempty" doc:"{types} only, required there: subject, a Liquid template over the lead, without control characters." max:"998" example:"Welcome to our service!"`
	Content     string            `json:"content,omitempty" doc:"Text, a Liquid template over the lead. Its variables are {template_fields}. {content_rules}" example:"Thank you for signing up, {{ first_name | default: \"friend\" }}."`
	HTMLContent string            `json:"html_content,omitempty" doc:"{types} only: HTML body, a Liquid template over the lead. Values are HTML-escaped unless the filter safe is applied." example:"<h1>Welcome!</h1><p>Thank you for signing up.</p>"`
	Sender      string            `json:"sender,omitempty" doc:"{types}: sender address. It must match a pattern in allowed_senders of the channel. Default: the sender of the channel." max:"320" example:"news@acme.test"`
	SenderName  string            `json:"sender_name,omitempty" doc:"{types} only: display name of the sender, without control characters. Default: sender_name of the channel." max:"256" example:"Acme Support Team"`
	MediaURLs   []string          `json:"media_urls,omitempty" doc:"{types} only: http or https URLs of media that the provider fetches." max:"10" each:"2048" example:"[\"https://example.com/promo.jpg\"]"`
	ImageURL    string            `json:"image_url,omitempty" doc:"{types} only: https URL of a picture that the provider fetches. It is sent before the text." max:"2048" example:"https://example.com/promo.jpg"`
	ReplyTo     *ReplyTo          `json:"reply_to,omitempty" doc:"{types} only: address to which replies go, as text with or without a display name, or as an object. It is not a template. Default: the sender." example:"{\"email\":\"help@acme.test\",\"name\":\"Acme Support\"}"`
	Headers     map[string]string `json:"headers,omitempty" doc:"{types} only: additional mail headers by name. A name is X- followed by letters, digits and hyphens, at most 100 characters; names that begin with X-SG- and X-SMTPAPI are reserved. A value is one line, a Liquid template over the lead; a header whose value renders empty is left out." max:"20" each:"1000" example:"{\"X-Campaign\":\"spring\"}"`
	Attachments []Attachment      `json:"attachments,omitempty" doc:"{types} only: files, at most 20 MB in all after decoding. Those of a bulk go to every recipient." max:"10"`
	ContactID   string            `json:"contact_id,omitempty" doc:"For a single: id of the lead that receives it. If the lead exists, it is the data of the templates, and its address is the default recipient. An unknown id is accepted if recipient is given. A bulk with it is rejected: its leads are the contacts." format:"uuid" example:"11111111-0001-0001-0001-000000000001"`
	Metadata    json.RawMessage   `json:"metadata,omitempty" doc:"Free-form object of the caller, returned with the message and never sent to a provider. Numbers have the bounds of custom_fields of a lead." bytes:"8192" example:"{\"campaign_id\":\"spring_promo\"}"`
}

// MaxMailbox is the maximum length of an address with a display name in one text, in characters.
const MaxMailbox = 600

// ReplyTo is the address to which replies go. A request may also contain it as text: the address, or "Name <address>".
type ReplyTo struct {
	Email string `json:"email" required:"true" doc:"Email address." max:"320" example:"help@acme.test"`
	Name  string `json:"name,omitempty" doc:"Display name: one line." max:"256" example:"Acme Support"`
}

// Attachment is a file that an email carries.
type Attachment struct {
	Name    string `json:"name" required:"true" doc:"File name, without a path and without control characters, at most 255 bytes in UTF-8." min:"1" max:"255" example:"invoice.pdf"`
	Type    string `json:"type,omitempty" doc:"Media type without parameters. Default: by the extension of the name, else application/octet-stream." max:"255" example:"application/pdf"`
	Content []byte `json:"content" required:"true" doc:"The file in base64 (RFC 4648, section 4), not empty. Line ends in it are ignored." example:"SGVsbG8="`
}

// BulkSettings describe the audience of a bulk: the leads that meet all criteria (with Match any: at least one), without the
// exclusions, each address once.
type BulkSettings struct {
	Name                     string         `json:"name,omitempty" doc:"Name of the bulk, one line, for display and for the filter name of the list. Several bulks may have the same name." max:"200" example:"Spring sale, first wave"`
	LeadIDs                  []string       `json:"lead_ids,omitempty" doc:"Ids of leads. A repeated id counts once. Unknown ids are counted in leads_not_found." format:"uuid" min:"1" max:"100000" example:"[\"550e8400-e29b-41d4-a716-446655440001\"]"`
	Filters                  *FilterRequest `json:"filters,omitempty" doc:"Conditions on fields of the lead, in groups of AND and OR. All criteria together may need at most 1000 comparisons per lead: one for each value of contains, not_contains, starts_with and ends_with, for each condition on a custom field, for each word of search_keyword, and for each three tags. The lists of equals, in and not_in are not counted."`
	SearchKeyword            string         `json:"search_keyword,omitempty" doc:"Words that must all occur in name, email, company or phone. Letter case, accents and the form of quotes do not count: jose finds José. Words of digits are compared with the digits of the phone." min:"1" max:"200" example:"enterprise customers"`
	Assignees                []string       `json:"assignees,omitempty" doc:"Ids of users. Selects leads that are assigned to any of them." min:"1" max:"1000" each:"128" example:"[\"user-uuid-1\",\"user-uuid-2\"]"`
	AllLeads                 bool           `json:"all_leads,omitempty" doc:"Selects all leads. If false, at least one other criterion is required. Default: false." example:"false"`
	Timezone                 string         `json:"timezone,omitempty" doc:"IANA time zone of the filters: of their days and their times without a zone, of within_last_days and within_next_days, and of dates without a zone in custom fields of leads. Default: UTC." max:"100" example:"Europe/Berlin"`
	Match                    string         `json:"match,omitempty" doc:"Whether a lead must meet all criteria or any. Default: all." enum:"match" example:"all"`
	ExcludeLeadIDs           []string       `json:"exclude_lead_ids,omitempty" doc:"Ids of leads that are excluded, regardless of the criteria." format:"uuid" max:"100000" example:"[\"550e8400-e29b-41d4-a716-446655440003\"]"`
	ExcludeTags              []string       `json:"exclude_tags,omitempty" doc:"Tags. Leads with any of them are excluded, regardless of the criteria." max:"1000" each:"200" example:"[\"do not contact\"]"`
	AllowDuplicateRecipients bool           `json:"allow_duplicate_recipients,omitempty" doc:"Whether several leads with the same address all get a message. If false, the lead with the lowest id gets it. Default: false." example:"false"`
}

// FilterRequest is a group of conditions, and of further groups, at most 10 deep and with at most 500 conditions in all.
type FilterRequest struct {
	ID         string       `json:"id,omitempty" doc:"Name of the group or condition, chosen by the caller. Error messages and explanations contain it." max:"1000" example:"group-1"`
	Conditions []FilterNode `json:"conditions" required:"true" doc:"Conditions and groups, at most 500 conditions in all groups together." min:"1" max:"500" example:"[{\"field\":\"first_name\",\"operator\":\"contains\",\"value\":\"st\"}]"`
	Logic      string       `json:"logic,omitempty" doc:"Whether all conditions must hold (AND) or at least one (OR). Default: AND." enum:"logic" example:"AND"`
}

// FilterCondition compares one field of a lead.
type FilterCondition struct {
	ID       string `json:"id,omitempty" doc:"Name of the condition, chosen by the caller. Error messages and explanations contain it." max:"1000" example:"cond-1"`
	Field    string `json:"field" required:"true" doc:"Field of the lead: {fields}; or custom_fields.<key> with a key of at most 200 characters." enum:"field" example:"first_name"`
	Operator string `json:"operator" required:"true" doc:"Comparison. Text: equals not_equals contains not_contains starts_with ends_with in not_in is_empty is_not_empty. Times: equals before after between within_last_days within_next_days is_empty is_not_empty. tags: contains contains_all not_contains is_empty is_not_empty. custom_fields: the operators of text, gt gte lt lte between for numbers, and before after between within_last_days within_next_days for dates; the values decide what between compares. Comparisons of text ignore letter case." enum:"operator" example:"contains"`
	Value    any    `json:"value,omitempty" doc:"Value to compare with: text of at most 1000 characters; a number of at most 40 digits before and 40 after the decimal point; true or false; a time or a date in the years 1 to 9999, in a form with one reading such as 2025-01-31, 31.01.2025 10:00 or an RFC 3339 time; a number of days; or, where the operator accepts one, a list of at most 1000 of these. Absent for is_empty and is_not_empty." enum:"value" example:"st"`
}

// FilterNode is a group or a condition; exactly one of them is set. JSON has no tag for the difference: a group has the field
// conditions.
type FilterNode struct {
	Group     *FilterRequest
	Condition *FilterCondition
}

// MarshalJSON implements json.Marshaler: it encodes the group or the condition.
func (n FilterNode) MarshalJSON() ([]byte, error) {
	if n.Group != nil {
		return json.Marshal(n.Group)
	}
	return json.Marshal(n.Condition)
}

// The kinds of answers to a send. Clients distinguish the answers by their field kind.
const (
	KindSingle  = "single"
	KindBulk    = "bulk"
	KindPreview = "preview"
)

// SendResponse is the response to a single: the outcome of the message.
type SendResponse struct {
	Success           bool                `json:"success" doc:"true if the provider accepted the message (SENT) or workers will deliver it (QUEUED); false for FAILED, SKIPPED and UNKNOWN." example:"true"`
	MessageID         string              `json:"message_id" doc:"Id of the message." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440000"`
	ChannelUsed       message.ChannelType `json:"channel_used" doc:"Channel type of the message." enum:"type" example:"EMAIL"`
	ProviderUsed      string              `json:"provider_used" doc:"Provider of the channel." enum:"provider" example:"sendgrid"`
	ProviderMessageID *string             `json:"provider_message_id" doc:"Id that the provider gave the message; null if it was not accepted." example:"msg_abc123"`
	Status            message.Status      `json:"status" doc:"SENT: the provider accepted the message. QUEUED: the provider is busy; workers will retry. FAILED: permanently refused. SKIPPED: the recipient is suppressed. UNKNOWN: the request was sent and no response arrived." enum:"status" example:"SENT"`
	Cost              float64             `json:"cost" doc:"Cost in the currency of the channel; 0 if the message was not sent." example:"0.001"`
	SentAt            *time.Time          `json:"sent_at" doc:"Time at which the provider accepted the message; null if it did not." example:"2025-01-31T10:30:00Z"`
	Kind              string              `json:"kind" doc:"Which of the three answers to a send this is." enum:"kind_single" example:"single"`
	Error             *message.Failure    `json:"error,omitempty" doc:"Reason of the failure; absent if success is true."`
}

// Bulk is the state of a bulk. The first four fields are the response that callers of the original contract read.
type Bulk struct {
	TotalLeads      int64                    `json:"total_leads" doc:"Number of leads in the audience, as far as it is resolved. It is final from planned_at on." example:"150"`
	MessagesSent    int64                    `json:"messages_sent" doc:"Number of messages that the provider accepted. It never decreases." example:"148"`
	MessagesFailed  int64                    `json:"messages_failed" doc:"Number of messages that ended as FAILED, SKIPPED, UNKNOWN or CANCELLED." example:"2"`
	SuccessRate     float64                  `json:"success_rate" doc:"messages_sent as a percentage of total_leads, rounded to two decimals; 0 without leads." example:"98.67"`
	BulkID          string                   `json:"bulk_id" doc:"Id of the bulk." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Name            *string                  `json:"name" doc:"name of its bulk_settings; null if it has none, and for API keys without the scope read." example:"Spring sale, first wave"`
	ChannelID       string                   `json:"channel_id" doc:"Id of its channel, which may have been deleted since." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	ChannelType     message.ChannelType      `json:"channel_type" doc:"Type of its channel." enum:"type" example:"EMAIL"`
	Currency        *string                  `json:"currency" doc:"Currency of cost (ISO 4217): that of the channel when the bulk was accepted. null if an earlier version accepted the bulk and the channel was deleted." example:"USD"`
	MessageType     message.MessageType      `json:"message_type" doc:"Purpose of its messages." enum:"message_type" example:"MARKETING"`
	Priority        message.Priority         `json:"priority" doc:"Priority of its messages." enum:"priority_name" example:"NORMAL"`
	Metadata        json.RawMessage          `json:"metadata" doc:"metadata of its message_data; null if it has none, and for API keys without the scope read." example:"{\"campaign_id\":\"spring_promo\"}"`
	CreatedBy       *BulkAuthor              `json:"created_by" doc:"API key of its request; null without API keys, for bulks of earlier versions, and for API keys without the scope read."`
	Status          string                   `json:"status" doc:"Where it stands." enum:"bulk_status" example:"COMPLETED"`
	StatusReason    *string                  `json:"status_reason" doc:"Reason why Herald cancelled the bulk: the database could not resolve its audience in time. total_leads then counts the leads that were resolved before. null otherwise." example:"the audience cannot be resolved: its criteria take the database too long"`
	MessagesPending int64                    `json:"messages_pending" doc:"Number of messages that have not ended: total_leads minus messages_sent minus messages_failed." example:"0"`
	MessagesUnknown int64                    `json:"messages_unknown" doc:"Number of messages of which it is unknown whether the provider accepted them. Those that ended as UNKNOWN are included in messages_failed; those that wait to be sent again are included in messages_pending." example:"0"`
	LeadsNotFound   int64                    `json:"leads_not_found" doc:"Number of ids in lead_ids that belong to no lead." example:"0"`
	FailureReasons  map[message.Reason]int64 `json:"failure_reasons" doc:"messages_failed by reason." example:"{\"no_recipient\":1,\"invalid_recipient\":1}"`
	Cost            float64                  `json:"cost" doc:"Cost so far, in the currency of the channel." example:"0.148"`
	CreatedAt       *time.Time               `json:"created_at" doc:"Time at which the bulk was accepted." null:"never" example:"2025-01-31T10:30:00Z"`
	StartedAt       *time.Time               `json:"started_at" doc:"Time at which a worker started it; null before." example:"2025-01-31T10:30:00Z"`
	PlannedAt       *time.Time               `json:"planned_at" doc:"Time from which total_leads is final; null before, and if the bulk was cancelled before." example:"2025-01-31T10:30:01Z"`
	CompletedAt     *time.Time               `json:"completed_at" doc:"Time at which its last message ended; null before." example:"2025-01-31T10:31:00Z"`
	Channel         *BulkChannel             `json:"channel" doc:"Its channel and the state of the channel, which may be the reason for a delay; null after the bulk has ended."`
	Kind            string                   `json:"kind" doc:"Which of the three answers to a send this is." enum:"kind_bulk" example:"bulk"`
	Request         json.RawMessage          `json:"request,omitempty" doc:"Request of the bulk, with the number of lead_ids instead of the ids. Present only when a single bulk is read." example:"{\"bulk_settings\":{\"lead_ids\":150}}"`
}

// BulkAuthor is the API key that made a bulk. It may have been revoked since.
type BulkAuthor struct {
	KeyID string `json:"key_id" doc:"Id of the API key." example:"k7Qx2mVb"`
	Name  string `json:"name" doc:"Name of the API key." example:"nightly"`
}

// BulkChannel is the state of the channel of a bulk that has not ended, which may explain a delay.
type BulkChannel struct {
	ID          string              `json:"id" doc:"Id of the channel." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type        message.ChannelType `json:"type" doc:"Its type." enum:"type" example:"SMS"`
	State       string              `json:"state" doc:"ACTIVE; PAUSED: by the API, or because the provider refused the credentials; THROTTLED: the provider limits the rate; DOWN: the provider does not respond; DELETED: the channel was deleted." enum:"bulk_channel_state" example:"ACTIVE"`
	StateReason *string             `json:"state_reason" doc:"Reason of PAUSED; null for API keys without the scope read." example:"Authenticate"`
}

// Preview is the response to a dry run.
type Preview struct {
	TotalLeads       int64                    `json:"total_leads" doc:"Number of leads in the audience." example:"150"`
	Reachable        int64                    `json:"reachable" doc:"Number of leads that would get a message." example:"148"`
	LeadsNotFound    int64                    `json:"leads_not_found" doc:"Number of ids in lead_ids that belong to no lead." example:"0"`
	Skipped          map[message.Reason]int64 `json:"skipped" doc:"Number of the other leads by reason." example:"{\"no_recipient\":1,\"unsubscribed\":1}"`
	EstimatedCost    float64                  `json:"estimated_cost" doc:"Estimated cost in the currency of the channel. For SMS, the segments are extrapolated from the first 100 messages." example:"0.148"`
	EstimatedSeconds float64                  `json:"estimated_seconds" doc:"Estimated duration in seconds, from the rate of the channel and the workers that are running now." example:"1.2"`
	AttachmentBytes  int64                    `json:"attachment_bytes" doc:"Bytes of the attachments in all messages together: their size times reachable. 0 without attachments." example:"0"`
	Warnings         []Warning                `json:"warnings" doc:"What the sender should know before the bulk is sent."`
	Samples          []Sample                 `json:"samples" doc:"Messages of the first five leads; only their ids for API keys without the scope read."`
	Kind             string                   `json:"kind" doc:"Which of the three answers to a send this is." enum:"kind_preview" example:"preview"`
}

// WarnRenderFailed is the code of a warning about messages that cannot be rendered.
const WarnRenderFailed = "render_failed"

// Warning is one remark on a dry run.
type Warning struct {
	Code    string `json:"code" doc:"render_failed: some of the first 100 messages cannot be rendered and would end as FAILED." enum:"preview_warning" example:"render_failed"`
	Message string `json:"message" doc:"Explanation with figures." example:"2 of the 100 messages that were rendered would end as FAILED: the rendered text is empty"`
}

// Sample is the message that one lead would get.
type Sample struct {
	LeadID      string  `json:"lead_id" doc:"Id of the lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	Recipient   string  `json:"recipient,omitzero" doc:"Address. Without the scope read it is absent, and the fields below are null." example:"stella@example.com"`
	Subject     *string `json:"subject" doc:"Rendered subject; null if the type has none." example:"Special Offer - 50% Off!"`
	Content     *string `json:"content" doc:"Rendered text." example:"Limited time offer just for you!"`
	HTMLContent *string `json:"html_content" doc:"Rendered HTML; null if the message has none." example:"<p>Hello Stella</p>"`
	Segments    *int    `json:"segments" doc:"Number of segments of an SMS; null for other types." example:"1"`
	Error       *string `json:"error" doc:"Reason why the message would end as FAILED; null if it would not." example:"the rendered text is empty"`
}

// Explanation explains the result of a bulk for one lead: sent, skipped, failed, or not in the audience.
type Explanation struct {
	LeadID     string    `json:"lead_id" doc:"Id of the lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	InAudience bool      `json:"in_audience" doc:"Whether the lead was in the audience when the bulk was planned." example:"true"`
	Message    *Message  `json:"message" doc:"Message to the lead; null if it is not in the audience."`
	MatchesNow *bool     `json:"matches_now" doc:"Whether the lead, with its present values, matches the request; null if the lead no longer exists." example:"true"`
	Criteria   []Verdict `json:"criteria" doc:"Result of each criterion for the present values of the lead. A lead that matches an exclusion is excluded."`
}

// Verdict is the result of one criterion, group or condition for a lead.
type Verdict struct {
	Criterion  string    `json:"criterion,omitempty" doc:"Name of the field of bulk_settings that contains the criterion." example:"filters"`
	ID         string    `json:"id,omitempty" doc:"id of the group or condition in the request." example:"cond-1"`
	Logic      string    `json:"logic,omitempty" doc:"Operator of a group." enum:"logic" example:"AND"`
	Field      string    `json:"field,omitempty" doc:"Of a condition." example:"first_name"`
	Operator   string    `json:"operator,omitempty" doc:"Of a condition." example:"contains"`
	Value      any       `json:"value,omitempty" doc:"Value of a condition, folded: Unicode normalisation, lower case." example:"st"`
	Actual     any       `json:"actual,omitempty" doc:"Value of the lead that was compared, folded." example:"stella"`
	Note       string    `json:"note,omitempty" doc:"Why the value of the lead cannot be compared: 'is not a number' for an operator of numbers, 'is not a date' for an operator of dates." example:"is not a number"`
	Matched    bool      `json:"matched" doc:"Whether the criterion, group or condition holds." example:"true"`
	Conditions []Verdict `json:"conditions,omitempty" doc:"Results of the conditions and groups of a group."`
}

// Message is one message of the ledger. Lists omit attempts and receipts.
type Message struct {
	ID                string              `json:"id" doc:"Id of the message." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440000"`
	BulkID            *string             `json:"bulk_id" doc:"Id of the bulk; null for a single." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	LeadID            *string             `json:"lead_id" doc:"Id of the lead; null if the request named none." format:"uuid" example:"11111111-0001-0001-0001-000000000001"`
	ChannelID         string              `json:"channel_id" doc:"Id of the channel." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	ChannelType       message.ChannelType `json:"channel_type" doc:"Type of the channel." enum:"type" example:"SMS"`
	Provider          string              `json:"provider" doc:"Provider of the channel." enum:"provider" example:"twilio"`
	Recipient         *string             `json:"recipient" doc:"Normalised address; null if the lead has none or was erased." example:"+1234567890"`
	MessageType       message.MessageType `json:"message_type" doc:"Purpose of the message." enum:"message_type" example:"TRANSACTIONAL"`
	Priority          message.Priority    `json:"priority" doc:"Priority." enum:"priority_name" example:"NORMAL"`
	Status            message.Status      `json:"status" doc:"Status. Open: SCHEDULED, PENDING, QUEUED, SENDING. Settled, in ascending order: UNKNOWN, CANCELLED, SKIPPED, FAILED, SENT, DELIVERED, READ, BOUNCED. The status of a settled message changes only to a higher one." enum:"status" example:"SENT"`
	Reason            *string             `json:"reason" doc:"Reason of the status, from a closed list; null for open and accepted messages." enum:"reason" example:"recipient_refused"`
	Error             *message.Failure    `json:"error" doc:"Response of the provider if it refused the message; null otherwise."`
	Attempts          []Attempt           `json:"attempts,omitzero" doc:"Calls to the provider, oldest first. Present only when a single message is read."`
	Receipts          []Receipt           `json:"receipts,omitzero" doc:"Later reports of the provider, oldest first. Present only when a single message is read."`
	ProviderMessageID *string             `json:"provider_message_id" doc:"Id that the provider gave the message; null if it was not accepted." example:"SM0123456789abcdef0123456789abcdef"`
	Cost              float64             `json:"cost" doc:"Cost in the currency of the channel; 0 if the message was not sent." example:"0.0079"`
	Metadata          json.RawMessage     `json:"metadata" doc:"Free-form object of the request." example:"{\"campaign_id\":\"spring_promo\"}"`
	Attachments       []AttachedFile      `json:"attachments" doc:"Files that the email carries, without their content; those of a bulk for its messages. Empty for other messages, and for a single whose lead was erased."`
	CreatedAt         *time.Time          `json:"created_at" doc:"Time of creation." null:"never" example:"2025-01-31T10:30:00Z"`
	ScheduledAt       *time.Time          `json:"scheduled_at" doc:"Time at which the message is due; null if it is not delayed." example:"2025-01-31T10:30:00Z"`
	SentAt            *time.Time          `json:"sent_at" doc:"Time at which the provider accepted the message; null if it did not." example:"2025-01-31T10:30:00Z"`
	UpdatedAt         *time.Time          `json:"updated_at" doc:"Time of the last change." null:"never" example:"2025-01-31T10:30:00Z"`
}

// AttachedFile describes an attachment of a message.
type AttachedFile struct {
	Name string `json:"name" doc:"File name." example:"invoice.pdf"`
	Type string `json:"type" doc:"Media type." example:"application/pdf"`
	Size int64  `json:"size" doc:"Size in bytes, decoded." example:"48213"`
}

// Attempt is one call to a provider.
type Attempt struct {
	N          int        `json:"n" doc:"Number of the attempt, from 1." example:"1"`
	Part       int        `json:"part" doc:"Index of the part of the message, from 0. Only Instagram messages have two parts." example:"0"`
	StartedAt  *time.Time `json:"started_at" doc:"Start of the call." null:"never" example:"2025-01-31T10:30:00Z"`
	EndedAt    *time.Time `json:"ended_at" doc:"End of the call." null:"never" example:"2025-01-31T10:30:00Z"`
	Outcome    string     `json:"outcome" doc:"sent: accepted; not_sent: certainly nothing was sent; refused: rejected by the provider; not_known: no response; late: the response arrived after the claim had expired." enum:"outcome" example:"sent"`
	HTTPStatus *int       `json:"http_status" doc:"HTTP status of the response; null without a response." example:"201"`
	Code       *string    `json:"code" doc:"Error code of the provider." example:"21610"`
}

// Receipt is a later report of a provider on a message, such as a delivery.
type Receipt struct {
	Event string     `json:"event" doc:"Name of the event." example:"delivered"`
	At    *time.Time `json:"at" doc:"Time of the event." null:"never" example:"2025-01-31T10:30:05Z"`
}
