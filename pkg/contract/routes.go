package contract

import (
	"net/http"

	"herald/pkg/access"
)

// The routes of the API.
var (
	RouteSend = Route{
		ID: "send", Method: http.MethodPost, Path: "/api/messaging/send", Scope: access.Send,
		Tag: "Sending", Summary: "Send a message, or a message to many",
		Text:  "Without bulk_settings: delivers one message within the request and answers with what became of it. A refusal by the provider is 200 with success false. With bulk_settings: accepts the bulk, waits for its figures as long as Prefer says, and answers with those of that moment. With dry_run: counts, estimates and shows samples (to a key without the scope read their ids), and sends nothing; it may take 10 s, and an API key may have two under way at a time. 404 when the channel is deleted at the same moment.",
		Query: SendQuery{}, Headers: SendHeaders{},
		Request:  SendRequest{},
		Examples: append(TypeExamples(), "bulk_lead_ids", "bulk_search_keyword", "bulk_filters", "bulk_assignees"), AnswerExample: "single_response",
		AnswerHeaders: []string{HeaderReplayed, HeaderServerTiming, HeaderPreferenceApplied}, MaxBody: 8 << 20,
		Status: http.StatusOK, Answers: []any{SendResponse{}, Bulk{}, Preview{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteListMessages = Route{
		ID: "listMessages", Method: http.MethodGet, Path: "/api/messaging/messages", Scope: access.Read,
		Tag: "Messages", Summary: "List messages, newest first", Text: "Parameters narrow the list down; each must hold.",
		Query:  MessagesQuery{},
		Status: http.StatusOK, Answers: []any{Page[Message]{}},
	}
	RouteGetMessage = Route{
		ID: "getMessage", Method: http.MethodGet, Path: "/api/messaging/messages/:id", Scope: access.Read,
		Tag: "Messages", Summary: "Read a message", Text: "One message with its attempts and receipts, oldest first.",
		Status: http.StatusOK, Answers: []any{Message{}}, Errors: []int{http.StatusNotFound},
	}
	RouteListBulks = Route{
		ID: "listBulks", Method: http.MethodGet, Path: "/api/messaging/bulk", Scope: access.Read,
		Tag: "Bulks", Summary: "List bulks, newest first", Text: "Each with its figures.",
		Query: PageQuery{}, Status: http.StatusOK, Answers: []any{Page[Bulk]{}},
	}
	RouteGetBulk = Route{
		ID: "getBulk", Method: http.MethodGet, Path: "/api/messaging/bulk/:id", Scope: access.Read,
		Tag: "Bulks", Summary: "Read a bulk", Text: "Its figures, and its request.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound},
	}
	RoutePauseBulk = Route{
		ID: "pauseBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/pause", Scope: access.Send,
		Tag: "Bulks", Summary: "Pause a bulk", Text: "No message leaves any more but those whose delivery has begun. 409 unless it is PROCESSING.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteResumeBulk = Route{
		ID: "resumeBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/resume", Scope: access.Send,
		Tag: "Bulks", Summary: "Resume a bulk", Text: "It goes on where it was. 409 unless it is PAUSED.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteCancelBulk = Route{
		ID: "cancelBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/cancel", Scope: access.Send,
		Tag: "Bulks", Summary: "Cancel a bulk", Text: "Messages that wait are taken back and end CANCELLED; those under way run to their end. 409 when it is over.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteExplainLead = Route{
		ID: "explainLead", Method: http.MethodGet, Path: "/api/messaging/bulk/:id/leads/:lead_id", Scope: access.Read,
		Tag: "Bulks", Summary: "Explain a lead", Text: "Why a lead was sent to, skipped, failed, or not in the audience at all, condition by condition.",
		Status: http.StatusOK, Answers: []any{Explanation{}}, Errors: []int{http.StatusNotFound},
	}
	RouteListChannels = Route{
		ID: "listChannels", Method: http.MethodGet, Path: "/api/channels", Scope: access.Read,
		Tag: "Channels", Summary: "List channels", Text: "In the order of their ids.",
		Query: PageQuery{}, Status: http.StatusOK, Answers: []any{Page[Channel]{}},
	}
	RouteCreateChannel = Route{
		ID: "createChannel", Method: http.MethodPost, Path: "/api/channels", Scope: access.Admin,
		Tag: "Channels", Summary: "Register a channel", Text: "409 when the id has a channel of the type already, or the type another default. A key without the scope read is told id and type.",
		Request: NewChannel{}, Status: http.StatusCreated, Answers: []any{Channel{}, ChannelRef{}}, Errors: []int{http.StatusConflict},
	}
	RouteGetChannel = Route{
		ID: "getChannel", Method: http.MethodGet, Path: "/api/channels/:id/:type", Scope: access.Read,
		Tag: "Channels", Summary: "Read a channel", Text: "Of its credentials the last four characters.",
		Status: http.StatusOK, Answers: []any{Channel{}}, Errors: []int{http.StatusNotFound},
	}
	RouteChangeChannel = Route{
		ID: "changeChannel", Method: http.MethodPatch, Path: "/api/channels/:id/:type", Scope: access.Admin,
		Tag: "Channels", Summary: "Change a channel", Text: "Changes what the body names; changes at the same time are all kept. Every process follows within a second, and for a bulk that is sent after the answer at once. A new base_url takes all credentials of the channel in the same request. A key without the scope read is told id and type.",
		Request: ChannelPatch{}, Status: http.StatusOK, Answers: []any{Channel{}, ChannelRef{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteDeleteChannel = Route{
		ID: "deleteChannel", Method: http.MethodDelete, Path: "/api/channels/:id/:type", Scope: access.Admin,
		Tag: "Channels", Summary: "Delete a channel", Text: "409 while bulks or messages are still to go over it.",
		Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteListLeads = Route{
		ID: "listLeads", Method: http.MethodGet, Path: "/api/leads", Scope: access.Read,
		Tag: "Leads", Summary: "List leads", Text: "In the order of their ids.",
		Query: PageQuery{}, Status: http.StatusOK, Answers: []any{Page[Lead]{}},
	}
	RouteCreateLead = Route{
		ID: "createLead", Method: http.MethodPost, Path: "/api/leads", Scope: access.Send,
		Tag: "Leads", Summary: "Store a lead", Text: "409 when the id is taken. A key without the scope read is told the id.",
		Request: NewLead{}, Status: http.StatusCreated, Answers: []any{Lead{}, LeadRef{}}, Errors: []int{http.StatusConflict},
	}
	RouteImportLeads = Route{
		ID: "importLeads", Method: http.MethodPost, Path: "/api/leads/import", Scope: access.Send,
		Tag: "Leads", Summary: "Import leads from a file",
		Text:      "A CSV with a header row that bears the names of a lead's fields, or a lead in JSON a line; up to 100 MB, read as it comes: at least 64 KB a second over 30 s, 15 minutes at most, two files of one API key at a time. A row updates the lead with its id, else the oldest with its email, else the oldest with its phone; an empty cell leaves what is stored, tags (separated by ;) and custom fields (all other columns) are added. Rows that are no lead, or that would make one too large, are reported with their lines, and the rest goes on. Files at the same time never store one new lead twice. When the file breaks off, the rows that were read before are kept, and the error says how many.",
		Admission: AdmitUpload, MaxBody: 100 << 20,
		Uploads: []Upload{{Media: MediaCSV, Example: "first_name,email,tags\nStella,stella@example.com,vip;Import 10/05/25\n"}, {Media: MediaNDJSON, Example: "{\"first_name\":\"Stella\",\"email\":\"stella@example.com\"}\n"}},
		Status:  http.StatusOK, Answers: []any{ImportReport{}},
	}
	RouteGetLead = Route{
		ID: "getLead", Method: http.MethodGet, Path: "/api/leads/:id", Scope: access.Read,
		Tag: "Leads", Summary: "Read a lead", Text: "One lead.",
		Status: http.StatusOK, Answers: []any{Lead{}}, Errors: []int{http.StatusNotFound},
	}
	RouteChangeLead = Route{
		ID: "changeLead", Method: http.MethodPatch, Path: "/api/leads/:id", Scope: access.Send,
		Tag: "Leads", Summary: "Change a lead", Text: "Changes what the body names; changes at the same time are all kept. A key without the scope read is told the id.",
		Request: LeadPatch{}, Status: http.StatusOK, Answers: []any{Lead{}, LeadRef{}}, Errors: []int{http.StatusNotFound},
	}
	RouteEraseLead = Route{
		ID: "eraseLead", Method: http.MethodDelete, Path: "/api/leads/:id", Scope: access.Admin,
		Tag: "Leads", Summary: "Erase a lead", Text: "Erases the lead, and its address, text and metadata wherever messages and the requests of bulks hold them. Messages that have not left end as SKIPPED with the reason erased. Counts and suppressions stay.",
		Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}
	RouteListSuppressions = Route{
		ID: "listSuppressions", Method: http.MethodGet, Path: "/api/suppressions", Scope: access.Read,
		Tag: "Suppressions", Summary: "List suppressions, newest first", Text: "Parameters narrow the list down; each must hold.",
		Query:  SuppressionsQuery{},
		Status: http.StatusOK, Answers: []any{Page[Suppression]{}},
	}
	RouteCreateSuppression = Route{
		ID: "createSuppression", Method: http.MethodPost, Path: "/api/suppressions", Scope: access.Send,
		Tag: "Suppressions", Summary: "Suppress an address", Text: "It gets nothing any more, at once, also from bulks under way. A key without the scope read is told the id.",
		Request: NewSuppression{}, Status: http.StatusCreated, Answers: []any{Suppression{}, SuppressionRef{}},
	}
	RouteDeleteSuppression = Route{
		ID: "deleteSuppression", Method: http.MethodDelete, Path: "/api/suppressions/:id", Scope: access.Admin,
		Tag: "Suppressions", Summary: "Lift a suppression", Text: "The address may be contacted again.",
		Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}
	RouteDocument = Route{
		ID: "document", Method: http.MethodGet, Path: "/openapi.json", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "This document", Text: "OpenAPI 3.1.",
		Status: http.StatusOK, Answers: []any{map[string]any{}},
	}
	RouteDocs = Route{
		ID: "docs", Method: http.MethodGet, Path: "/docs", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "This document as a page", Text: "HTML, without scripts and without anything from elsewhere.",
		Status: http.StatusOK, Media: MediaHTML,
	}
	RouteAlive = Route{
		ID: "alive", Method: http.MethodGet, Path: "/healthz", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "Is it alive?", Text: "200 as long as the process answers.",
		Status: http.StatusOK, Answers: []any{Health{}},
	}
	RouteReady = Route{
		ID: "ready", Method: http.MethodGet, Path: "/readyz", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "Is it ready?", Text: "200 when requests are welcome, also without Redis (degraded); 503 without the database. The answer is at most a second old.",
		Status: http.StatusOK, Answers: []any{Health{}}, Errors: []int{http.StatusServiceUnavailable},
	}
)
