package contract

import (
	"net/http"

	"herald/pkg/access"
	"herald/pkg/message"
)

// The routes of the API.
var (
	RouteSend = Route{
		ID: "sendMessage", Method: http.MethodPost, Path: "/api/messaging/send", Scope: access.Send,
		Tag: "Sending", Summary: "Send a single message or a bulk",
		Text:  "Without bulk_settings: delivers one message within the request and answers with its outcome. A message that the provider refuses is 200 with success false. With bulk_settings: accepts the bulk, waits for its figures as the Prefer header says, and answers with the figures of that moment. With dry_run: counts, estimates and renders samples (only their lead ids for a key without the scope read), and sends nothing; a dry run may take 10 s, and an API key may have two in progress. 404 if the channel is deleted concurrently.",
		Query: SendQuery{}, Headers: SendHeaders{},
		Request:  SendRequest{},
		Examples: append(TypeExamples(), "bulk_lead_ids", "bulk_search_keyword", "bulk_filters", "bulk_assignees"), AnswerExample: "single_response",
		AnswerHeaders: []string{HeaderReplayed, HeaderServerTiming, HeaderPreferenceApplied, HeaderLocation}, MaxBody: 8 << 20, MaxFiles: message.MaxAttachmentBytes,
		Status: http.StatusOK, Answers: []any{SendResponse{}, Bulk{}, Preview{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteListMessages = Route{
		ID: "listMessages", Method: http.MethodGet, Path: "/api/messaging/messages", Scope: access.Read,
		Tag: "Messages", Summary: "List messages, newest first", Text: "The parameters are filters; all of them must match.",
		Query:  MessagesQuery{},
		Status: http.StatusOK, Answers: []any{Page[Message]{}},
	}
	RouteGetMessage = Route{
		ID: "getMessage", Method: http.MethodGet, Path: "/api/messaging/messages/:id", Scope: access.Read,
		Tag: "Messages", Summary: "Read a message", Text: "Returns a message with its attempts and receipts, oldest first.",
		Status: http.StatusOK, Answers: []any{Message{}}, Errors: []int{http.StatusNotFound},
	}
	RouteListBulks = Route{
		ID: "listBulks", Method: http.MethodGet, Path: "/api/messaging/bulk", Scope: access.Read,
		Tag: "Bulks", Summary: "List bulks, newest first", Text: "Returns each bulk with its figures. The parameters are filters; all of them must match.",
		Query: BulksQuery{}, Status: http.StatusOK, Answers: []any{Page[Bulk]{}},
	}
	RouteGetBulk = Route{
		ID: "getBulk", Method: http.MethodGet, Path: "/api/messaging/bulk/:id", Scope: access.Read,
		Tag: "Bulks", Summary: "Read a bulk", Text: "Returns the figures and the request of a bulk.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound},
	}
	RoutePauseBulk = Route{
		ID: "pauseBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/pause", Scope: access.Send,
		Tag: "Bulks", Summary: "Pause a bulk", Text: "Stops sending. Deliveries in progress are completed. 409 unless the bulk is PROCESSING.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteResumeBulk = Route{
		ID: "resumeBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/resume", Scope: access.Send,
		Tag: "Bulks", Summary: "Resume a bulk", Text: "Continues a paused bulk. 409 unless the bulk is PAUSED.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteCancelBulk = Route{
		ID: "cancelBulk", Method: http.MethodPost, Path: "/api/messaging/bulk/:id/cancel", Scope: access.Send,
		Tag: "Bulks", Summary: "Cancel a bulk", Text: "Waiting messages end as CANCELLED; deliveries in progress are completed. 409 if the bulk has ended.",
		Status: http.StatusOK, Answers: []any{Bulk{}}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}
	RouteExplainLead = Route{
		ID: "explainLead", Method: http.MethodGet, Path: "/api/messaging/bulk/:id/leads/:lead_id", Scope: access.Read,
		Tag: "Bulks", Summary: "Explain a lead", Text: "Explains condition by condition why a lead was sent to, was skipped, failed, or is not in the audience.",
		Status: http.StatusOK, Answers: []any{Explanation{}}, Errors: []int{http.StatusNotFound},
	}
	RouteListChannels = Route{
		ID: "listChannels", Method: http.MethodGet, Path: "/api/channels", Scope: access.Read,
		Tag: "Channels", Summary: "List channels", Text: "Ordered by id.",
		Query: PageQuery{}, Status: http.StatusOK, Answers: []any{Page[Channel]{}},
	}
	RouteCreateChannel = Route{
		ID: "createChannel", Method: http.MethodPost, Path: "/api/channels", Scope: access.Admin,
		Tag: "Channels", Summary: "Register a channel", Text: "409 if the id already has a channel of this type. A key without the scope read gets only id and type.",
		Request: NewChannel{}, AnswerHeaders: []string{HeaderLocation, HeaderETag}, Status: http.StatusCreated, Answers: []any{Channel{}, ChannelRef{}}, Errors: []int{http.StatusConflict},
	}
	RouteGetChannel = Route{
		ID: "getChannel", Method: http.MethodGet, Path: "/api/channels/:id/:type", Scope: access.Read,
		Tag: "Channels", Summary: "Read a channel", Text: "Returns a channel. Credentials show only their last four characters.",
		AnswerHeaders: []string{HeaderETag}, Status: http.StatusOK, Answers: []any{Channel{}}, Errors: []int{http.StatusNotFound},
	}
	RouteChangeChannel = Route{
		ID: "changeChannel", Method: http.MethodPatch, Path: "/api/channels/:id/:type", Scope: access.Admin,
		Tag: "Channels", Summary: "Change a channel", Text: "Changes the fields in the body; concurrent changes of other fields are kept. All processes use the change within a second, and bulks sent after the answer at once. A new base_url needs all credentials of the channel in the same request. A key without the scope read gets only id and type.",
		Headers: MatchHeaders{}, Request: ChannelPatch{}, AnswerHeaders: []string{HeaderETag}, Status: http.StatusOK, Answers: []any{Channel{}, ChannelRef{}}, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusConflict},
	}
	RouteDeleteChannel = Route{
		ID: "deleteChannel", Method: http.MethodDelete, Path: "/api/channels/:id/:type", Scope: access.Admin,
		Tag: "Channels", Summary: "Delete a channel", Text: "409 while bulks or messages are waiting for the channel.",
		Headers: MatchHeaders{}, Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusConflict},
	}
	RouteListLeads = Route{
		ID: "listLeads", Method: http.MethodGet, Path: "/api/leads", Scope: access.Read,
		Tag: "Leads", Summary: "List leads", Text: "Ordered by id. The parameters are filters; all of them must match.",
		Query: LeadsQuery{}, Status: http.StatusOK, Answers: []any{Page[Lead]{}},
	}
	RouteCreateLead = Route{
		ID: "createLead", Method: http.MethodPost, Path: "/api/leads", Scope: access.Send,
		Tag: "Leads", Summary: "Store a lead", Text: "409 if the id exists. A key without the scope read gets only the id.",
		Request: NewLead{}, AnswerHeaders: []string{HeaderLocation, HeaderETag}, Status: http.StatusCreated, Answers: []any{Lead{}, LeadRef{}}, Errors: []int{http.StatusConflict},
	}
	RouteImportLeads = Route{
		ID: "importLeads", Method: http.MethodPost, Path: "/api/leads/import", Scope: access.Send,
		Tag: "Leads", Summary: "Import leads from a file",
		Text:      "Accepts CSV whose first row names the columns, as spreadsheets and address books export it, or NDJSON with one lead per line, up to 100 MB. The answer says how the file was read. The file is processed while it arrives: at least 64 KB a second over 30 s, within 15 minutes, two files of an API key at a time. A row updates the lead with its id, else the oldest lead with its email, else the oldest with its phone. An empty cell keeps the stored value; tags (separated by ;) and custom fields (all other columns) are added. Invalid rows are reported with their line numbers, and the import continues. Concurrent imports never create the same new lead twice. If the upload breaks off, the rows before are kept and the error says how many.",
		Query:     ImportQuery{},
		Admission: AdmitUpload, MaxBody: 100 << 20,
		Uploads: []Upload{{Media: MediaCSV, Example: "first_name,email,tags\nStella,stella@example.com,vip;Import 10/05/25\n"}, {Media: MediaNDJSON, Example: "{\"first_name\":\"Stella\",\"email\":\"stella@example.com\"}\n"}},
		Status:  http.StatusOK, Answers: []any{ImportReport{}},
	}
	RouteGetLead = Route{
		ID: "getLead", Method: http.MethodGet, Path: "/api/leads/:id", Scope: access.Read,
		Tag: "Leads", Summary: "Read a lead", Text: "Returns a lead.",
		AnswerHeaders: []string{HeaderETag}, Status: http.StatusOK, Answers: []any{Lead{}}, Errors: []int{http.StatusNotFound},
	}
	RouteChangeLead = Route{
		ID: "changeLead", Method: http.MethodPatch, Path: "/api/leads/:id", Scope: access.Send,
		Tag: "Leads", Summary: "Change a lead", Text: "Changes the fields in the body; concurrent changes of other fields are kept. custom_fields are merged with those of the lead (RFC 7396): null removes one, and those that are not named keep their value. add_tags and remove_tags change some of the tags, tags replaces all. A key without the scope read gets only the id.",
		Headers: MatchHeaders{}, Request: LeadPatch{}, AnswerHeaders: []string{HeaderETag}, Status: http.StatusOK, Answers: []any{Lead{}, LeadRef{}}, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}
	RouteEraseLead = Route{
		ID: "eraseLead", Method: http.MethodDelete, Path: "/api/leads/:id", Scope: access.Admin,
		Tag: "Leads", Summary: "Erase a lead", Text: "Erases the lead and its address, text and metadata in messages and in the requests of bulks. Messages that were not sent yet end as SKIPPED with the reason erased. Counts and suppressions remain.",
		Headers: MatchHeaders{}, Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}
	RouteListSuppressions = Route{
		ID: "listSuppressions", Method: http.MethodGet, Path: "/api/suppressions", Scope: access.Read,
		Tag: "Suppressions", Summary: "List suppressions, newest first", Text: "The parameters are filters; all of them must match.",
		Query:  SuppressionsQuery{},
		Status: http.StatusOK, Answers: []any{Page[Suppression]{}},
	}
	RouteCreateSuppression = Route{
		ID: "createSuppression", Method: http.MethodPost, Path: "/api/suppressions", Scope: access.Send,
		Tag: "Suppressions", Summary: "Suppress an address", Text: "The address gets no further messages, effective at once, also from bulks in progress. A key without the scope read gets only the id.",
		Request: NewSuppression{}, Status: http.StatusCreated, Answers: []any{Suppression{}, SuppressionRef{}},
	}
	RouteDeleteSuppression = Route{
		ID: "deleteSuppression", Method: http.MethodDelete, Path: "/api/suppressions/:id", Scope: access.Admin,
		Tag: "Suppressions", Summary: "Lift a suppression", Text: "The address may get messages again.",
		Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}
	RouteDocument = Route{
		ID: "getDocument", Method: http.MethodGet, Path: "/openapi.json", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "This document", Text: "OpenAPI 3.1.",
		Status: http.StatusOK, Answers: []any{map[string]any{}},
	}
	RouteDocs = Route{
		ID: "getDocs", Method: http.MethodGet, Path: "/docs", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "This document as a page", Text: "HTML without scripts and without external resources.",
		Status: http.StatusOK, Media: MediaHTML,
	}
	RouteAlive = Route{
		ID: "getLiveness", Method: http.MethodGet, Path: "/healthz", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "Liveness probe", Text: "200 while the process answers.",
		Status: http.StatusOK, Answers: []any{Health{}},
	}
	RouteReady = Route{
		ID: "getReadiness", Method: http.MethodGet, Path: "/readyz", Access: Open, Admission: AdmitAlways,
		Tag: "Service", Summary: "Readiness probe", Text: "200 while the API accepts requests, without Redis too (degraded); 503 without the database. The answer is at most a second old.",
		Status: http.StatusOK, Answers: []any{Health{}}, Errors: []int{http.StatusServiceUnavailable},
	}
)
