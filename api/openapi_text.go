package api

import (
	"net/http"

	"github.com/google/jsonschema-go/jsonschema"

	"herald/pkg/access"
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

func uuidSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Format: "uuid", Pattern: uuidPattern}
}

const exampleID = "01a20960-62b0-796f-9cfb-5b3a36495aeb"

var (
	typeSchema = enumeration("type", true)
	timeSchema = &jsonschema.Schema{Type: "string", Format: "date-time"}
)

// pathParameters are those that paths have, by their names.
var pathParameters = map[string]parameter{
	"id":      {in: "path", name: "id", doc: "Its id.", example: exampleID, schema: uuidSchema()},
	"lead_id": {in: "path", name: "lead_id", doc: "The lead's id.", example: "550e8400-e29b-41d4-a716-446655440001", schema: uuidSchema()},
	"type":    {in: "path", name: "type", doc: "The channel's type, in any letter case.", example: "EMAIL", schema: typeSchema},
}

// paged are the parameters of a list, after those of its own.
func paged(own ...parameter) []parameter {
	return append(own,
		parameter{in: "query", name: "limit", doc: "How many items at most; 50 when absent.", example: 50,
			schema: &jsonschema.Schema{Type: "integer", Minimum: jsonschema.Ptr(1.0), Maximum: jsonschema.Ptr(float64(maxLimit))}},
		parameter{in: "query", name: "cursor", doc: "The next_cursor of the page before.", example: "MDFhMjA5NjAtNjJiMC03OTZmLTljZmItNWIzYTM2NDk1YWVi",
			schema: &jsonschema.Schema{Type: "string", Pattern: "^[A-Za-z0-9_-]+$"}})
}

// query describes a parameter of the query.
func queried(name, doc string, example any, s *jsonschema.Schema) parameter {
	return parameter{in: "query", name: name, doc: doc, example: example, schema: s}
}

var sendParameters = []parameter{
	queried("send_identifier", "The channel's id, like sender_identifier in the body. When both are given they must be the same.", "825b8057-c85f-44a9-9e9f-6e7d7389ecfc", uuidSchema()),
	{in: "header", name: headerIdempotencyKey, doc: "Makes it safe to send the request again: within seven days the same key and the same body are answered with the message's or the bulk's present state and Idempotent-Replayed: true, and nothing is sent twice. The same key with another body is 422; while the first is under way, 409. A key belongs to the API key that it came with. Bare or quoted. An email that is sent under a key, and whose outcome nobody knows, is sent once more after a while, if its channel says so.",
		example: "8e03978e-40d5-43dd-bc93-6894a57f9324", schema: &jsonschema.Schema{Type: "string", MinLength: jsonschema.Ptr(1), MaxLength: jsonschema.Ptr(access.MaxIdempotencyKey + 2)}},
	{in: "header", name: "Prefer", doc: "Of a bulk: wait=N waits so many seconds for the figures, 0 to 60 (10 when absent); respond-async answers at once.", example: "wait=30", schema: &jsonschema.Schema{Type: "string"}},
}

// operations is what the document says of each route, by its method and path.
var operations = map[string]operation{
	"POST /api/messaging/send": {
		id: "send", tag: "Sending", summary: "Send a message, or a message to many",
		text:   "Without bulk_settings: delivers one message within the request and answers with what became of it. A refusal by the provider is 200 with success false. With bulk_settings: accepts the bulk, waits for its figures as long as Prefer says, and answers with those of that moment. With dry_run: counts, estimates and shows samples (to a key without the scope read their ids), and sends nothing; it may take 10 s, and an API key may have two under way at a time. 404 when the channel is deleted at the same moment.",
		params: sendParameters, request: contract.SendRequest{},
		examples: []string{"email", "sms", "instagram_dm", "bulk_lead_ids", "bulk_search_keyword", "bulk_filters", "bulk_assignees"},
		status:   http.StatusOK, answers: []any{contract.SendResponse{}, contract.Bulk{}, contract.Preview{}}, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"GET /api/messaging/messages": {
		id: "listMessages", tag: "Messages", summary: "List messages, newest first", text: "Parameters narrow the list down; each must hold.",
		params: paged(
			queried("bulk_id", "Of one bulk.", exampleID, uuidSchema()),
			queried("status", "With a status, in any letter case.", "SENT", enumeration("status", true)),
			queried("channel_type", "Over a type of channel, in any letter case.", "EMAIL", typeSchema),
			queried("recipient", "To an address.", "customer@example.com", &jsonschema.Schema{Type: "string"}),
			queried("lead_id", "To one lead.", "550e8400-e29b-41d4-a716-446655440001", uuidSchema()),
			queried("created_after", "Written after a time in the years 1 to 9999 in UTC.", "2025-01-31T10:30:00Z", timeSchema),
			queried("created_before", "Written before a time in the years 1 to 9999 in UTC.", "2025-01-31T10:30:00Z", timeSchema)),
		status: http.StatusOK, answers: []any{contract.Page[contract.Message]{}},
	},
	"GET /api/messaging/messages/:id": {
		id: "getMessage", tag: "Messages", summary: "Read a message", text: "One message with its attempts and receipts, oldest first.",
		status: http.StatusOK, answers: []any{contract.Message{}}, errors: []int{http.StatusNotFound},
	},
	"GET /api/messaging/bulk": {
		id: "listBulks", tag: "Bulks", summary: "List bulks, newest first", text: "Each with its figures.",
		params: paged(), status: http.StatusOK, answers: []any{contract.Page[contract.Bulk]{}},
	},
	"GET /api/messaging/bulk/:id": {
		id: "getBulk", tag: "Bulks", summary: "Read a bulk", text: "Its figures, and its request.",
		status: http.StatusOK, answers: []any{contract.Bulk{}}, errors: []int{http.StatusNotFound},
	},
	"POST /api/messaging/bulk/:id/pause": {
		id: "pauseBulk", tag: "Bulks", summary: "Pause a bulk", text: "No message leaves any more but those whose delivery has begun. 409 unless it is PROCESSING.",
		status: http.StatusOK, answers: []any{contract.Bulk{}}, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"POST /api/messaging/bulk/:id/resume": {
		id: "resumeBulk", tag: "Bulks", summary: "Resume a bulk", text: "It goes on where it was. 409 unless it is PAUSED.",
		status: http.StatusOK, answers: []any{contract.Bulk{}}, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"POST /api/messaging/bulk/:id/cancel": {
		id: "cancelBulk", tag: "Bulks", summary: "Cancel a bulk", text: "Messages that wait are taken back and end CANCELLED; those under way run to their end. 409 when it is over.",
		status: http.StatusOK, answers: []any{contract.Bulk{}}, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"GET /api/messaging/bulk/:id/leads/:lead_id": {
		id: "explainLead", tag: "Bulks", summary: "Explain a lead", text: "Why a lead was sent to, skipped, failed, or not in the audience at all, condition by condition.",
		status: http.StatusOK, answers: []any{contract.Explanation{}}, errors: []int{http.StatusNotFound},
	},
	"GET /api/channels": {
		id: "listChannels", tag: "Channels", summary: "List channels", text: "In the order of their ids.",
		params: paged(), status: http.StatusOK, answers: []any{contract.Page[contract.Channel]{}},
	},
	"POST /api/channels": {
		id: "createChannel", tag: "Channels", summary: "Register a channel", text: "409 when the id has a channel of the type already, or the type another default. A key without the scope read is told id and type.",
		request: contract.NewChannel{}, status: http.StatusCreated, answers: []any{contract.Channel{}, contract.ChannelRef{}}, errors: []int{http.StatusConflict},
	},
	"GET /api/channels/:id/:type": {
		id: "getChannel", tag: "Channels", summary: "Read a channel", text: "Of its credentials the last four characters.",
		status: http.StatusOK, answers: []any{contract.Channel{}}, errors: []int{http.StatusNotFound},
	},
	"PATCH /api/channels/:id/:type": {
		id: "changeChannel", tag: "Channels", summary: "Change a channel", text: "Changes what the body names; changes at the same time are all kept. Every process follows within a second, and for a bulk that is sent after the answer at once. A new base_url takes all credentials of the channel in the same request. A key without the scope read is told id and type.",
		request: contract.ChannelPatch{}, status: http.StatusOK, answers: []any{contract.Channel{}, contract.ChannelRef{}}, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"DELETE /api/channels/:id/:type": {
		id: "deleteChannel", tag: "Channels", summary: "Delete a channel", text: "409 while bulks or messages are still to go over it.",
		status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
	},
	"GET /api/leads": {
		id: "listLeads", tag: "Leads", summary: "List leads", text: "In the order of their ids.",
		params: paged(), status: http.StatusOK, answers: []any{contract.Page[contract.Lead]{}},
	},
	"POST /api/leads": {
		id: "createLead", tag: "Leads", summary: "Store a lead", text: "409 when the id is taken. A key without the scope read is told the id.",
		request: contract.NewLead{}, status: http.StatusCreated, answers: []any{contract.Lead{}, contract.LeadRef{}}, errors: []int{http.StatusConflict},
	},
	"POST /api/leads/import": {
		id: "importLeads", tag: "Leads", summary: "Import leads from a file",
		text:   "A CSV with a header row that bears the names of a lead's fields, or a lead in JSON a line; up to 100 MB, read as it comes: at least 64 KB a second over 30 s, 15 minutes at most, two files of one API key at a time. A row updates the lead with its id, else the oldest with its email, else the oldest with its phone; an empty cell leaves what is stored, tags (separated by ;) and custom fields (all other columns) are added. Rows that are no lead, or that would make one too large, are reported with their lines, and the rest goes on. Files at the same time never store one new lead twice. When the file breaks off, the rows that were read before are kept, and the error says how many.",
		files:  map[string]string{"text/csv": "first_name,email,tags\nStella,stella@example.com,vip;Import 10/05/25\n", "application/x-ndjson": "{\"first_name\":\"Stella\",\"email\":\"stella@example.com\"}\n"},
		status: http.StatusOK, answers: []any{contract.ImportReport{}},
	},
	"GET /api/leads/:id": {
		id: "getLead", tag: "Leads", summary: "Read a lead", text: "One lead.",
		status: http.StatusOK, answers: []any{contract.Lead{}}, errors: []int{http.StatusNotFound},
	},
	"PATCH /api/leads/:id": {
		id: "changeLead", tag: "Leads", summary: "Change a lead", text: "Changes what the body names; changes at the same time are all kept. A key without the scope read is told the id.",
		request: contract.LeadPatch{}, status: http.StatusOK, answers: []any{contract.Lead{}, contract.LeadRef{}}, errors: []int{http.StatusNotFound},
	},
	"DELETE /api/leads/:id": {
		id: "eraseLead", tag: "Leads", summary: "Erase a lead", text: "Erases the lead, and its address, text and metadata wherever messages and the requests of bulks hold them. Messages that have not left end as SKIPPED with the reason erased. Counts and suppressions stay.",
		status: http.StatusNoContent, errors: []int{http.StatusNotFound},
	},
	"GET /api/suppressions": {
		id: "listSuppressions", tag: "Suppressions", summary: "List suppressions, newest first", text: "Parameters narrow the list down; each must hold.",
		params: paged(
			queried("type", "Over a type of channel, in any letter case.", "EMAIL", typeSchema),
			queried("address", "Of an address.", "stella@example.com", &jsonschema.Schema{Type: "string"})),
		status: http.StatusOK, answers: []any{contract.Page[contract.Suppression]{}},
	},
	"POST /api/suppressions": {
		id: "createSuppression", tag: "Suppressions", summary: "Suppress an address", text: "It gets nothing any more, at once, also from bulks under way. A key without the scope read is told the id.",
		request: contract.NewSuppression{}, status: http.StatusCreated, answers: []any{contract.Suppression{}, contract.SuppressionRef{}},
	},
	"DELETE /api/suppressions/:id": {
		id: "deleteSuppression", tag: "Suppressions", summary: "Lift a suppression", text: "The address may be contacted again.",
		status: http.StatusNoContent, errors: []int{http.StatusNotFound},
	},
	"GET /healthz": {
		id: "alive", tag: "Service", summary: "Is it alive?", text: "200 as long as the process answers.",
		status: http.StatusOK, answers: []any{contract.Health{}},
	},
	"GET /readyz": {
		id: "ready", tag: "Service", summary: "Is it ready?", text: "200 when requests are welcome, also without Redis (degraded); 503 without the database. The answer is at most a second old.",
		status: http.StatusOK, answers: []any{contract.Health{}}, errors: []int{http.StatusServiceUnavailable},
	},
	"GET /openapi.json": {
		id: "document", tag: "Service", summary: "This document", text: "OpenAPI 3.1.",
		status: http.StatusOK, answers: []any{map[string]any{}},
	},
	"GET /docs": {
		id: "docs", tag: "Service", summary: "This document as a page", text: "HTML, without scripts and without anything from elsewhere.", status: http.StatusOK,
	},
}

const retryAfterHeader = "Retry-After"

// errorDocs are the failures, in the order of their statuses.
var errorDocs = []struct {
	status                        int
	text, header, schema, example string
}{
	{http.StatusUnauthorized, "There is no API key, or not one that is valid.", "WWW-Authenticate", "Problem", `{"detail":"there is no such API key","code":"unauthorized"}`},
	{http.StatusForbidden, "The API key does not have the scope; or, without keys, the request does not come from this machine, or came through a proxy.", "", "Problem", `{"detail":"this takes an API key with the scope send","code":"forbidden"}`},
	{http.StatusNotFound, "It is not there.", "", "Problem", `{"detail":"there is no bulk 01a20960-62b0-796f-9cfb-5b3a36495aeb","code":"not_found"}`},
	{http.StatusConflict, "It cannot be done as things stand: conflict; channel_paused: the channel sends nothing at the moment; in_progress: the same request is under way, come back after Retry-After.", retryAfterHeader, "Problem", `{"detail":"the bulk is COMPLETED","code":"conflict"}`},
	{http.StatusRequestTimeout, "The body came too slowly: at less than 64 KB a second over 5 s, or not within 15 s; an imported file over 30 s and 15 minutes. Nothing was done but rows of a file that were written before.", "", "Problem", `{"detail":"the body came at less than 64 KB a second over 5s","code":"too_slow"}`},
	{http.StatusRequestEntityTooLarge, "The body is too large: 8 MB to send, 100 MB for an imported file, 256 KB elsewhere.", "", "Problem", `{"detail":"the body is larger than 256 KB (262144 bytes), which is the most that this route takes","code":"too_large"}`},
	{http.StatusUnsupportedMediaType, "The body is of another kind than this takes.", "", "Problem", `{"detail":"the body must be application/json","code":"unsupported_media_type"}`},
	{http.StatusUnprocessableEntity, "The request is not valid, and nothing was done. The first 100 mistakes are named; where there are more, a last entry of type more_errors says how many. A body has at most 200,000 values and keys.", "", "ValidationError", `{"detail":[{"loc":["body","message_data","subject"],"msg":"an email needs a subject","type":"missing"}]}`},
	{http.StatusTooManyRequests, "The API key has used up its requests of the moment; or it holds a quarter of the API's places or memory, or has two imports under way.", retryAfterHeader, "Problem", `{"detail":"this API key has 1000 requests a second","code":"throttled"}`},
	{http.StatusInternalServerError, "Something went wrong here. The request id finds it in the log.", "", "Problem", `{"detail":"something went wrong here; the request id finds it in the log","code":"internal","request_id":"5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52"}`},
	{http.StatusServiceUnavailable, "There is more to do than can be done, or a part does not answer. Come back later.", retryAfterHeader, "Problem", `{"detail":"too many requests are under way; come back in a moment","code":"unavailable"}`},
}

// headerComponents are the headers of answers.
var headerComponents = object{
	{headerRequestID, header("Names the request, in the answer and in our log: yours if you sent one of up to 128 letters, digits and -_.:", "5c6e2f0e-4f0c-4c8e-9f40-0a4f9a8a1b52", &jsonschema.Schema{Type: "string"})},
	{headerReplayed, header("true when the request was made before under its Idempotency-Key.", "true", &jsonschema.Schema{Type: "string"})},
	{headerTiming, header("Of a single: how many milliseconds its provider took to answer.", "provider;dur=153.207", &jsonschema.Schema{Type: "string"})},
	{"Preference-Applied", header("What of Prefer was honoured.", "wait=30", &jsonschema.Schema{Type: "string"})},
	{retryAfterHeader, header("Seconds to wait.", 1, &jsonschema.Schema{Type: "integer"})},
	{"WWW-Authenticate", header("How to say who you are.", `Bearer realm="herald"`, &jsonschema.Schema{Type: "string"})},
}

func header(doc string, example any, s *jsonschema.Schema) object {
	return object{{"description", doc}, {"schema", s}, {"example", example}}
}

// codes are the codes of problems.
func codes() []string {
	all := make([]string, 0, len(statuses))
	for _, c := range message.Codes {
		if c != message.CodeInvalid {
			all = append(all, string(c))
		}
	}
	return all
}
