package contract

import (
	"time"

	"herald/pkg/access"
	"herald/pkg/message"
)

// Route declares one route of the API. The server routes, authorizes and admits requests by it, the client builds its calls
// from it, and the OpenAPI document describes it. A route without a declaration cannot be served.
type Route struct {
	ID     string // of the operation in the OpenAPI document
	Method string
	Path   string // parameters are written :name; PathParameters explains them

	Access    Access
	Scope     access.Scope // that the API key must have, where Access is Keyed
	Admission Admission

	Tag     string // the section of the reference page
	Summary string // one line
	Text    string // what it does, in sentences

	Query    any      // a value of the struct whose fields are the query's parameters; nil: the route takes none
	Headers  any      // a value of the struct whose fields are the request's own headers; nil: none
	Request  any      // a value of the type of the JSON body; nil: no JSON body
	Examples []string // documented requests, by their names for Example
	Uploads  []Upload // bodies of other media types, instead of Request
	MaxBody  int64    // bytes of the body; 0: MaxSmallBody
	MaxFiles int64    // bytes of the files in the body, decoded, which count beyond MaxBody; 0: it has none

	Status        int      // of success
	Answers       []any    // values of the types of a JSON answer; none: no body, unless Media is set
	Media         string   // media type of an answer that is not JSON; "": JSON
	AnswerExample string   // a documented answer, by its name for Example
	AnswerHeaders []string // besides X-Request-Id
	Errors        []int    // statuses of failure besides those that Failures derives
}

// Access is the kind of credential that a route requires.
type Access int

const (
	// Keyed requires an API key with the scope of the route. It is the zero value, so a route is closed unless declared
	// otherwise.
	Keyed Access = iota
	// Signed requires no API key: the request itself proves its origin, by the signature of a webhook or the token of an
	// unsubscribe link. The handler must verify the proof before it does anything else.
	Signed
	// Open requires no credential.
	Open
)

// Admission is the class in which a request needs a place before its handler runs. Classes have separate numbers of places,
// so that slow requests of one class do not delay those of another (load shedding, see package api/request).
type Admission int

const (
	// AdmitRequest is for requests that take milliseconds. The body is read before the request takes a place, so a slow client
	// holds none.
	AdmitRequest Admission = iota
	// AdmitUpload is for requests whose body is read as a stream and may take minutes.
	AdmitUpload
	// AdmitDownload is for requests whose response is written as a stream and may take minutes: a CSV file, server-sent events.
	AdmitDownload
	// AdmitAlways is for requests that are answered from memory: probes and the document. They need no place, so they are
	// answered under overload too.
	AdmitAlways
)

// Upload is an accepted media type of a body that is not JSON of a type of this package.
type Upload struct{ Media, Example string }

// Media types.
const (
	MediaJSON        = "application/json"
	MediaCSV         = "text/csv"
	MediaNDJSON      = "application/x-ndjson"
	MediaHTML        = "text/html"
	MediaEventStream = "text/event-stream"
)

// Names of headers.
const (
	HeaderRequestID         = "X-Request-Id"
	HeaderIdempotencyKey    = "Idempotency-Key"
	HeaderReplayed          = "Idempotent-Replayed"
	HeaderServerTiming      = "Server-Timing"
	HeaderPrefer            = "Prefer"
	HeaderPreferenceApplied = "Preference-Applied"
	HeaderLocation          = "Location"
	HeaderETag              = "ETag"
	HeaderIfMatch           = "If-Match"
	HeaderRetryAfter        = "Retry-After"
	HeaderRateLimit         = "RateLimit"
	HeaderRateLimitPolicy   = "RateLimit-Policy"
)

// Codes of problems that HTTP defines; all others are message.Codes.
const (
	CodeMethod   = "method_not_allowed"
	CodeInternal = "internal"
)

// MaxSmallBody is the maximum size of a body, in bytes, for routes that declare no other bound. It fits a lead with all
// fields at their bounds.
const MaxSmallBody = 256 << 10

// BodyLimit returns the maximum size of a body of the route, in bytes.
func (r *Route) BodyLimit() int64 {
	if r.MaxBody > 0 {
		return r.MaxBody
	}
	return MaxSmallBody
}

// TransferLimit returns the maximum number of bytes that a request of the route may transfer. Files count twice: base64 makes them a
// third longer, line ends and escapes longer still, and a request with files that are somewhat too large is answered with their place
// in the body.
func (r *Route) TransferLimit() int64 { return r.BodyLimit() + 2*r.MaxFiles }

// HasBody reports whether a request of the route has a body.
func (r *Route) HasBody() bool { return r.Request != nil || len(r.Uploads) > 0 }

// PathParameters declares the parameters that occur in paths. The tag name is the parameter's name on the wire.
type PathParameters struct {
	ID     string              `name:"id" doc:"The object's id." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Type   message.ChannelType `name:"type" doc:"The channel's type, in any letter case." enum:"type" example:"EMAIL"`
	LeadID string              `name:"lead_id" doc:"The lead's id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
}

// PageQuery is the query of every list.
type PageQuery struct {
	Limit  int    `name:"limit" doc:"The maximum number of items; default 50." min:"1" max:"200" example:"50"`
	Cursor string `name:"cursor" doc:"The next_cursor of the previous page." pattern:"^[A-Za-z0-9_-]+$" example:"MDFhMjA5NjAtNjJiMC03OTZmLTljZmItNWIzYTM2NDk1YWVi"`
}

// MessagesQuery filters the list of messages. Parameters that are present must all match.
type MessagesQuery struct {
	BulkID        string              `name:"bulk_id" doc:"Messages of this bulk." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Statuses      []message.Status    `name:"status" doc:"Messages with any of these statuses, in any letter case, separated by commas." enum:"status" example:"[\"FAILED\",\"SKIPPED\"]"`
	Reasons       []message.Reason    `name:"reason" doc:"Messages with any of these reasons, in any letter case, separated by commas." enum:"reason" example:"[\"recipient_refused\"]"`
	Failed        bool                `name:"failed" doc:"true: messages that ended as FAILED, SKIPPED, UNKNOWN or CANCELLED, those of messages_failed of a bulk. false: as without the parameter." example:"true"`
	Type          message.ChannelType `name:"channel_type" doc:"Messages over this type of channel, in any letter case." enum:"type" example:"EMAIL"`
	Recipient     string              `name:"recipient" doc:"Messages to this address." example:"customer@example.com"`
	LeadID        string              `name:"lead_id" doc:"Messages to this lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	CreatedAfter  time.Time           `name:"created_after" doc:"Messages created after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	CreatedBefore time.Time           `name:"created_before" doc:"Messages created before this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	UpdatedAfter  time.Time           `name:"updated_after" doc:"Messages changed after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	PageQuery
}

// LeadsQuery filters the list of leads. Parameters that are present must all match.
type LeadsQuery struct {
	Email         string    `name:"email" doc:"Leads with this email address. Both are compared in their normalised form, so letter case does not count." max:"1000" example:"stella@example.com"`
	Phone         string    `name:"phone" doc:"Leads with this phone number. Both are compared in their normalised form, so separators do not count." max:"1000" example:"+15005551001"`
	InstagramID   string    `name:"instagram_id" doc:"Leads with this Instagram-scoped user id." max:"1000" example:"1234567890123456"`
	AssigneeID    string    `name:"assignee_id" doc:"Leads that are assigned to this user." max:"1000" example:"user-uuid-1"`
	Tag           string    `name:"tag" doc:"Leads with this tag, in any letter case." max:"200" example:"vip"`
	Status        string    `name:"status" doc:"Leads with this status, in any letter case." max:"1000" example:"qualified"`
	Search        string    `name:"search" doc:"Leads with every word in name, email, company or phone, as search_keyword of a bulk." max:"200" example:"enterprise customers"`
	CreatedAfter  time.Time `name:"created_after" doc:"Leads created after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	CreatedBefore time.Time `name:"created_before" doc:"Leads created before this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	UpdatedAfter  time.Time `name:"updated_after" doc:"Leads changed after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	PageQuery
}

// BulksQuery filters the list of bulks. Parameters that are present must all match.
type BulksQuery struct {
	Status        string              `name:"status" doc:"Bulks with this status, in any letter case." enum:"bulk_status" example:"COMPLETED"`
	Name          string              `name:"name" doc:"Bulks with exactly this name." max:"200" example:"Spring sale, first wave"`
	Type          message.ChannelType `name:"channel_type" doc:"Bulks over this type of channel, in any letter case." enum:"type" example:"EMAIL"`
	CreatedBy     string              `name:"created_by" doc:"Bulks that were sent with the API key of this id." max:"100" example:"k7Qx2mVb"`
	CreatedAfter  time.Time           `name:"created_after" doc:"Bulks created after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	CreatedBefore time.Time           `name:"created_before" doc:"Bulks created before this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	PageQuery
}

// SuppressionsQuery filters the list of suppressions. Parameters that are present must all match.
type SuppressionsQuery struct {
	Type         message.ChannelType `name:"type" doc:"Suppressions of this type of channel, in any letter case." enum:"type" example:"EMAIL"`
	Address      string              `name:"address" doc:"Suppressions of this address." example:"stella@example.com"`
	Reason       message.Reason      `name:"reason" doc:"Suppressions with this reason, in any letter case." enum:"suppression_reason" example:"bounced"`
	CreatedAfter time.Time           `name:"created_after" doc:"Suppressions created after this time, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
	PageQuery
}

// SendQuery is the query of a send.
type SendQuery struct {
	SendIdentifier string `name:"send_identifier" doc:"The channel's id, as an alternative to sender_identifier in the body. If both are given they must be equal." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
}

// ImportQuery says how an imported file is read. What is absent is found out from the file.
type ImportQuery struct {
	Columns      string `name:"columns" doc:"A JSON object with what columns of a CSV file become, by their names in the file: a field of a lead, custom_fields.NAME, or null to leave the column out. Columns that are not named here are known by the usual names of the fields in English, German, French and Spanish, or become custom fields." example:"{\"E-mail\":\"email\",\"Notes\":null}"`
	Charset      string `name:"charset" doc:"The encoding of the file by its IANA name. Without it, a byte order mark says UTF-8 or UTF-16, and a file without a mark must be UTF-8." example:"windows-1252"`
	Delimiter    string `name:"delimiter" doc:"The ASCII character between the cells of a CSV file. Without it, a first line sep=; or the header decides among comma, semicolon, tab and vertical bar." example:";"`
	Dates        string `name:"dates" doc:"Whether 1/2/2024 is the first of February (dmy) or the second of January (mdy). Without it, such a date is left out with a warning." enum:"dates" example:"dmy"`
	Timezone     string `name:"timezone" doc:"The IANA time zone of dates and times that name none; default UTC." example:"Europe/Berlin"`
	TagSeparator string `name:"tag_separator" doc:"The text between the tags in a cell. Without it, semicolons; commas while no cell of the file has had a semicolon." min:"1" max:"10" example:","`
	DryRun       bool   `name:"dry_run" doc:"Whether only to report what the import would do, with the first leads as they would be stored. Nothing is written." example:"true"`
}

// SendHeaders are the headers of a send.
type SendHeaders struct {
	IdempotencyKey string `name:"Idempotency-Key" doc:"Makes the request safe to repeat. For seven days, a request with the same key and body is answered with the present state of its message or bulk and Idempotent-Replayed: true, and sends nothing. The same key with another body is 422; while the first request is in progress, 409. The key is scoped to the owner of the caller's API key. Bare or quoted. An email sent under a key whose outcome is unknown is sent once more if the channel's on_unknown policy says so." min:"1" max:"257" example:"8e03978e-40d5-43dd-bc93-6894a57f9324"`
	Prefer         string `name:"Prefer" doc:"For a bulk: wait=N waits up to N seconds for the figures, 0 to 60 (default 10); respond-async answers at once." example:"wait=30"`
}

// MatchHeaders are the headers of a change that may depend on the version of its object.
type MatchHeaders struct {
	IfMatch string `name:"If-Match" doc:"ETags of which one must be that of the object, or 412 and nothing is changed. With * any version is right." example:"\"dn3k2hzzvk\""`
}
