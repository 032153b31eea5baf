package openapi

import (
	"net/http"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// conventions is the description of the document: what holds for all routes.
const conventions = `One endpoint, ` + "`POST /api/messaging/send`" + `, sends a single message within the request, or, with ` + "`bulk_settings`" + `, a bulk: one message to every lead that meets the criteria. The other endpoints manage messages, bulks, channels, leads and suppressions.

Requests and answers are JSON in UTF-8. Times are RFC 3339 in UTC, in the years 1 to 9999, ids are UUIDs. Numbers in custom_fields, metadata and filters have at most 40 digits before and 40 after the decimal point, written without an exponent; every digit is kept and compared. Unknown fields and parameters are rejected. null for an optional field means that the field is absent; null within an array is rejected. An empty string or array for an optional field that the channel type has (subject, media_urls, image_url, match) means the same; for a field of another type it is rejected like a value. A query parameter without a value is rejected. Where a request may have further values than a closed list, such as other letter cases, the extension x-also-accepts has their schema.

An invalid request is answered with 422 and changes nothing; the answer lists every mistake with its path. Every other failure has a detail for people and a code for programs. 429 and 503 have a Retry-After header. Answers to an API key with a rate have RateLimit and RateLimit-Policy headers.

Lists accept limit and cursor and return next_cursor. Every answer has an X-Request-Id: that of the request, if it has a valid one.`

// tags are the parts of the document, in their order.
var tags = []struct{ name, text string }{
	{"Sending", "Send a single message or a bulk."},
	{"Messages", "The ledger of messages: one entry per recipient."},
	{"Bulks", "Bulk sends: status, figures, pause, resume and cancel."},
	{"Channels", "Sending accounts."},
	{"Leads", "The contacts that bulks select."},
	{"Suppressions", "Addresses that must not be contacted."},
	{"Service", "Health probes and this document."},
}

// errorDocs are the failures, in the order of their statuses.
var errorDocs = []struct {
	status                        int
	text, header, schema, example string
}{
	{http.StatusUnauthorized, "The API key is missing or invalid.", "WWW-Authenticate", "Problem", `{"detail":"unknown API key","code":"unauthorized"}`},
	{http.StatusForbidden, "The API key lacks the scope; or no API key exists and the request is cross-site, through a proxy, or not from this machine.", "", "Problem", `{"detail":"this needs an API key with the scope send","code":"forbidden"}`},
	{http.StatusNotFound, "Not found.", "", "Problem", `{"detail":"bulk not found: 01a20960-62b0-796f-9cfb-5b3a36495aeb","code":"not_found"}`},
	{http.StatusConflict, "The state does not allow the request. conflict: the object's own state; channel_paused: the channel is paused; in_progress: a request with the same Idempotency-Key is in progress, retry after Retry-After.", contract.HeaderRetryAfter, "Problem", `{"detail":"the bulk is COMPLETED","code":"conflict"}`},
	{http.StatusPreconditionFailed, "The object does not have an ETag of If-Match: it has changed since it was read. Nothing is changed.", "", "Problem", `{"detail":"the lead has changed since it was read: read it again","code":"precondition_failed"}`},
	{http.StatusRequestTimeout, "The body arrived too slowly: at less than 64 KB a second over 5 s, or not within 15 s and a second for each 512 KB of attachments; for an imported file 30 s and 15 minutes. The request had no effect, except for the rows of a file that were read before.", "", "Problem", `{"detail":"the body arrived at less than 64 KB a second over 5s","code":"too_slow"}`},
	{http.StatusRequestEntityTooLarge, "The body is too large: 8 MB to send besides attachments, 100 MB for an imported file, 256 KB elsewhere.", "", "Problem", `{"detail":"the body is larger than the 256 KB (262144 bytes) that this route accepts","code":"too_large"}`},
	{http.StatusUnsupportedMediaType, "The route does not accept the media type of the body.", "", "Problem", `{"detail":"the body must be application/json","code":"unsupported_media_type"}`},
	{http.StatusUnprocessableEntity, "The request is invalid and had no effect. The first 100 mistakes are listed; a last entry of type more_errors says how many more were found. A body has at most 200,000 values and keys.", "", "ValidationError", `{"code":"invalid","detail":[{"loc":["body","message_data","subject"],"msg":"an email needs a subject","type":"missing"}]}`},
	{http.StatusTooManyRequests, "The API key exceeded its rate; or it holds a quarter of the API's places or memory, or has two imports or two downloads in progress.", contract.HeaderRetryAfter, "Problem", `{"detail":"this API key has 1000 requests a second","code":"throttled"}`},
	{http.StatusInternalServerError, "Internal error. The server's log has the details under the request id.", "", "Problem", `{"detail":"internal error; the server's log has the details under the request id","code":"internal","request_id":"5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52"}`},
	{http.StatusServiceUnavailable, "The API is overloaded, or the database does not answer. Retry after Retry-After.", contract.HeaderRetryAfter, "Problem", `{"detail":"too many requests in progress; retry after a moment","code":"unavailable"}`},
}

// headerComponents are the headers of answers.
var headerComponents = object{
	{contract.HeaderRequestID, header("Identifies the request in the answer and in the server's log: the id of the request if it has 1 to 128 letters, digits and -_.:", "5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderReplayed, header("true when an earlier request used the Idempotency-Key.", "true", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderServerTiming, header("Of a single: the time in milliseconds that its provider took to answer.", "provider;dur=153.207", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderPreferenceApplied, header("The preference that was applied.", "wait=30", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderLocation, header("Path of what was created: of a bulk, where its figures are.", "/api/messaging/bulk/01a20960-62b0-796f-9cfb-5b3a36495aeb", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderETag, header("The version of the object, for If-Match. It changes with every change of the object.", `"dn3k2hzzvk"`, &jsonschema.Schema{Type: "string"})},
	{contract.HeaderRetryAfter, header("Seconds to wait.", 1, &jsonschema.Schema{Type: "integer"})},
	{contract.HeaderRateLimit, header("Present if the API key has a rate. r: requests that the key may make at once; t: seconds until all of its quota is available again (draft-ietf-httpapi-ratelimit-headers-10).", `"key";r=49;t=1`, &jsonschema.Schema{Type: "string"})},
	{contract.HeaderRateLimitPolicy, header("Present if the API key has a rate. q: requests that it may make within w seconds.", `"key";q=50;w=1`, &jsonschema.Schema{Type: "string"})},
	{"WWW-Authenticate", header("The authentication scheme.", `Bearer realm="herald"`, &jsonschema.Schema{Type: "string"})},
}

func header(doc string, example any, s *jsonschema.Schema) object {
	return object{{"description", doc}, {"schema", s}, {"example", example}}
}

// componentTexts are the descriptions of the components, which generators write above the types that they make.
var componentTexts = map[string]string{
	"SendRequest":     "A request to send: a single message, or with bulk_settings a bulk.",
	"MessageData":     "The content of a message; for a single also its recipient.",
	"Attachment":      "A file that an email carries.",
	"AttachedFile":    "An attachment of a message, without its content.",
	"ReplyTo":         "The address to which replies go. A request may also have it as a text: the address, or a name and <address>.",
	"BulkSettings":    "The audience of a bulk: the leads that meet all criteria (with match any: at least one), without the exclusions, each address once. At least one criterion is required.",
	"FilterRequest":   "A group of conditions on the fields of a lead.",
	"FilterNode":      "Either a condition, with field, operator and value, or a group, with conditions and logic.",
	"FilterValue":     "The value of a condition: a scalar, or where the operator accepts one, a list of scalars.",
	"FilterScalar":    "A text, a number, or true or false. Times are texts.",
	"SendResponse":    "The outcome of a single message.",
	"Failure":         "Why a provider, or Herald, refused a message.",
	"Bulk":            "The state and the figures of a bulk.",
	"BulkAuthor":      "The API key that made a bulk.",
	"BulkChannel":     "The channel of a bulk that has not ended.",
	"Preview":         "The result of a dry run. Nothing was sent.",
	"Sample":          "The message that one lead would get.",
	"Warning":         "A remark on a dry run.",
	"Message":         "One message of the ledger.",
	"Attempt":         "One call to a provider.",
	"Receipt":         "A later report of a provider on a message, such as a delivery.",
	"Explanation":     "The result of a bulk for one lead, and of each criterion.",
	"Verdict":         "The result of one criterion, group or condition for a lead.",
	"Channel":         "A sending account. Of its credentials, only the last four characters are shown.",
	"NewChannel":      "A sending account to register.",
	"ChannelPatch":    "The fields of a channel to change. An absent field keeps its value; null empties an optional one.",
	"ChannelRef":      "The names of a channel: what an API key without the scope read gets.",
	"Lead":            "A contact in the address book. Fields without a value are null.",
	"NewLead":         "A lead to store.",
	"LeadPatch":       "The fields of a lead to change. An absent field keeps its value; null empties it.",
	"LeadRef":         "The id of a lead: what an API key without the scope read gets.",
	"ImportReport":    "The result of an import.",
	"ImportColumn":    "What a column of an imported file became.",
	"ImportWarning":   "A cell of an imported row that was left out, or that is stored and cannot be used.",
	"ImportError":     "A rejected row of an imported file.",
	"Suppression":     "An address that must not be contacted over one channel type.",
	"NewSuppression":  "A suppression to add. It overwrites the one with the same type, address and reason.",
	"SuppressionRef":  "The id of a suppression: what an API key without the scope read gets.",
	"Health":          "The result of a probe.",
	"Problem":         "Why a request failed, if not for its own mistakes.",
	"ValidationError": "The mistakes of an invalid request, which had no effect.",
	"FieldError":      "One mistake of a request.",

	"ChannelType":       "The kind of a channel and of the addresses that it sends to.",
	"Provider":          "The vendor that sends the messages of a channel.",
	"MessageType":       "The purpose of a message. It decides which suppressions apply.",
	"Priority":          "The priority of a message.",
	"SendPriority":      "The priority of a message in a request: its name, or a number as in the mail header X-Priority.",
	"MessageStatus":     "The status of a message.",
	"Reason":            "The reason of a status.",
	"SuppressionReason": "The reason of a suppression.",
	"BulkStatus":        "The status of a bulk.",
	"ChannelState":      "Whether a channel sends.",
	"BulkChannelState":  "The state of the channel of a bulk that has not ended.",
	"InvalidCode":       "The code of every invalid request.",
	"PreviewWarning":    "What a dry run warns of.",
	"UnknownPolicy":     "What happens to messages whose outcome is unknown.",
	"Match":             "Whether a lead must meet all criteria or any.",
	"Logic":             "Whether all conditions of a group must hold or at least one.",
	"AttemptOutcome":    "How a call to a provider ended.",
	"HealthStatus":      "How far the API serves requests.",
	"FieldErrorType":    "The kind of a mistake.",
	"ProblemCode":       "The kind of a problem.",
	"DateOrder":         "Whether the day or the month is first in a date such as 1/2/2024.",
	"SingleKind":        "The kind of the answer about a single message.",
	"BulkKind":          "The kind of the answer about a bulk.",
	"PreviewKind":       "The kind of the answer to a dry run.",
	"FilterOperator":    "A comparison of a field of a lead with a value.",

	"SendResponseOrBulkOrPreview": "SendResponse for a single message, Bulk with bulk_settings, Preview with bulk_settings and dry_run. The field kind tells which.",
	"ChannelOrChannelRef":         "Channel for an API key with the scope read, else ChannelRef.",
	"LeadOrLeadRef":               "Lead for an API key with the scope read, else LeadRef.",
	"SuppressionOrSuppressionRef": "Suppression for an API key with the scope read, else SuppressionRef.",
}

// componentText returns the description of a component.
func componentText(name string) string {
	if of, ok := strings.CutSuffix(name, "Page"); ok && componentTexts[name] == "" {
		return "One page of a list of " + of + " items (keyset pagination)."
	}
	return componentTexts[name]
}

// codes are the codes of problems.
func codes() []string {
	all := make([]string, 0, len(message.Codes))
	for _, c := range message.Codes {
		if c != message.CodeInvalid {
			all = append(all, string(c))
		}
	}
	return all
}
