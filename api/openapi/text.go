package openapi

import (
	"net/http"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/contract"
	"herald/pkg/message"
)

const conventions = `One endpoint, ` + "`POST /api/messaging/send`" + `, sends one message within the request, or, with ` + "`bulk_settings`" + `, a message to every lead that these describe. The rest is around it.

JSON in UTF-8, in and out. Times are RFC 3339 in UTC, in the years 1 to 9999, ids are UUIDs. Numbers in custom_fields, metadata and filters have at most 40 digits before and 40 after the decimal point, written without an exponent; every digit is kept and compared. An unknown field or parameter is refused. null for an optional field is the same as leaving it out; null within an array is refused.

A request that is not valid is 422 and changes nothing; the answer names every mistake, with its path. Every other failure has a sentence for people and a code for programs. 429 and 503 say in Retry-After when to come back.

Lists take limit and cursor, and give next_cursor. Every answer carries X-Request-Id, your own if you sent one.`

// tags are the parts of the document, in their order.
var tags = []struct{ name, text string }{
	{"Sending", "A message, or a message to many."},
	{"Messages", "The ledger: one row for each recipient."},
	{"Bulks", "Bulk sends: how they stand, and what steers them."},
	{"Channels", "Sending accounts."},
	{"Leads", "The people of the CRM."},
	{"Suppressions", "Who must not be contacted."},
	{"Service", "Probes, and this document."},
}

// errorDocs are the failures, in the order of their statuses.
var errorDocs = []struct {
	status                        int
	text, header, schema, example string
}{
	{http.StatusUnauthorized, "There is no API key, or not one that is valid.", "WWW-Authenticate", "Problem", `{"detail":"there is no such API key","code":"unauthorized"}`},
	{http.StatusForbidden, "The API key does not have the scope; or, without keys, the request does not come from this machine, or came through a proxy.", "", "Problem", `{"detail":"this takes an API key with the scope send","code":"forbidden"}`},
	{http.StatusNotFound, "It is not there.", "", "Problem", `{"detail":"there is no bulk 01a20960-62b0-796f-9cfb-5b3a36495aeb","code":"not_found"}`},
	{http.StatusConflict, "It cannot be done as things stand: conflict; channel_paused: the channel sends nothing at the moment; in_progress: the same request is under way, come back after Retry-After.", contract.HeaderRetryAfter, "Problem", `{"detail":"the bulk is COMPLETED","code":"conflict"}`},
	{http.StatusRequestTimeout, "The body came too slowly: at less than 64 KB a second over 5 s, or not within 15 s; an imported file over 30 s and 15 minutes. Nothing was done but rows of a file that were written before.", "", "Problem", `{"detail":"the body came at less than 64 KB a second over 5s","code":"too_slow"}`},
	{http.StatusRequestEntityTooLarge, "The body is too large: 8 MB to send, 100 MB for an imported file, 256 KB elsewhere.", "", "Problem", `{"detail":"the body is larger than 256 KB (262144 bytes), which is the most that this route takes","code":"too_large"}`},
	{http.StatusUnsupportedMediaType, "The body is of another kind than this takes.", "", "Problem", `{"detail":"the body must be application/json","code":"unsupported_media_type"}`},
	{http.StatusUnprocessableEntity, "The request is not valid, and nothing was done. The first 100 mistakes are named; where there are more, a last entry of type more_errors says how many. A body has at most 200,000 values and keys.", "", "ValidationError", `{"detail":[{"loc":["body","message_data","subject"],"msg":"an email needs a subject","type":"missing"}]}`},
	{http.StatusTooManyRequests, "The API key has used up its requests of the moment; or it holds a quarter of the API's places or memory, or has two imports under way.", contract.HeaderRetryAfter, "Problem", `{"detail":"this API key has 1000 requests a second","code":"throttled"}`},
	{http.StatusInternalServerError, "Something went wrong here. The request id finds it in the log.", "", "Problem", `{"detail":"something went wrong here; the request id finds it in the log","code":"internal","request_id":"5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52"}`},
	{http.StatusServiceUnavailable, "There is more to do than can be done, or a part does not answer. Come back later.", contract.HeaderRetryAfter, "Problem", `{"detail":"too many requests are under way; come back in a moment","code":"unavailable"}`},
}

// headerComponents are the headers of answers.
var headerComponents = object{
	{contract.HeaderRequestID, header("Names the request, in the answer and in our log: yours if you sent one of up to 128 letters, digits and -_.:", "5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderReplayed, header("true when the request was made before under its Idempotency-Key.", "true", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderServerTiming, header("Of a single: how many milliseconds its provider took to answer.", "provider;dur=153.207", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderPreferenceApplied, header("What of Prefer was honoured.", "wait=30", &jsonschema.Schema{Type: "string"})},
	{contract.HeaderRetryAfter, header("Seconds to wait.", 1, &jsonschema.Schema{Type: "integer"})},
	{"WWW-Authenticate", header("How to say who you are.", `Bearer realm="herald"`, &jsonschema.Schema{Type: "string"})},
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
