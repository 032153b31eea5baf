package openapi

import (
	"net/http"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// conventions is the description of the document: what holds for all routes.
const conventions = `One endpoint, ` + "`POST /api/messaging/send`" + `, sends a single message within the request, or, with ` + "`bulk_settings`" + `, a bulk: one message to every lead that meets the criteria. The other endpoints manage messages, bulks, channels, leads and suppressions.

Requests and answers are JSON in UTF-8. Times are RFC 3339 in UTC, in the years 1 to 9999, ids are UUIDs. Numbers in custom_fields, metadata and filters have at most 40 digits before and 40 after the decimal point, written without an exponent; every digit is kept and compared. Unknown fields and parameters are rejected. null for an optional field means that the field is absent; null within an array is rejected.

An invalid request is answered with 422 and changes nothing; the answer lists every mistake with its path. Every other failure has a detail for people and a code for programs. 429 and 503 have a Retry-After header.

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
	{http.StatusRequestTimeout, "The body arrived too slowly: at less than 64 KB a second over 5 s, or not within 15 s; for an imported file 30 s and 15 minutes. The request had no effect, except for the rows of a file that were read before.", "", "Problem", `{"detail":"the body arrived at less than 64 KB a second over 5s","code":"too_slow"}`},
	{http.StatusRequestEntityTooLarge, "The body is too large: 8 MB to send, 100 MB for an imported file, 256 KB elsewhere.", "", "Problem", `{"detail":"the body is larger than the 256 KB (262144 bytes) that this route accepts","code":"too_large"}`},
	{http.StatusUnsupportedMediaType, "The route does not accept the media type of the body.", "", "Problem", `{"detail":"the body must be application/json","code":"unsupported_media_type"}`},
	{http.StatusUnprocessableEntity, "The request is invalid and had no effect. The first 100 mistakes are listed; a last entry of type more_errors says how many more were found. A body has at most 200,000 values and keys.", "", "ValidationError", `{"detail":[{"loc":["body","message_data","subject"],"msg":"an email needs a subject","type":"missing"}]}`},
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
	{contract.HeaderRetryAfter, header("Seconds to wait.", 1, &jsonschema.Schema{Type: "integer"})},
	{"WWW-Authenticate", header("The authentication scheme.", `Bearer realm="herald"`, &jsonschema.Schema{Type: "string"})},
}

func header(doc string, example any, s *jsonschema.Schema) object {
	return object{{"description", doc}, {"schema", s}, {"example", example}}
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
