package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/contract"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/render"
	"herald/pkg/wire"
)

// sendRequest is a decoded and validated POST /api/messaging/send.
type sendRequest struct {
	channelType message.ChannelType // "" when sender_type is absent
	channelID   uuid.UUID
	channelAt   []any // the place of the request that names the channel
	messageType message.MessageType
	priority    message.Priority
	recipient   string
	content     message.Content
	files       []message.FileData // of content.Attachments
	contactID   uuid.UUID
	metadata    json.RawMessage
	key         *access.IdempotencyKey
	bulk        bool
	dryRun      bool
	criteria    audience.Criteria
	name        string
	stored      json.RawMessage // the request as the bulk stores it
	hasData     bool            // message_data is an object
	empty       []string        // its fields that are given and empty
}

// send handles POST /api/messaging/send: a single or a bulk, under an optional idempotency key.
func (s *Server) send(c echo.Context) error {
	o, errs, err := request.ReadJSON[contract.SendRequest](c)
	if err != nil {
		return err
	}
	files, err := request.TakeFiles(c, o, c.Request().Header.Get(contract.HeaderIdempotencyKey) != "")
	if err != nil {
		return err
	}
	if len(files) > 0 { // they may have taken the time that is for the answer
		_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	key := idempotencyKey(c, o.Value(), errs)
	err = s.sendNew(c, o, files, errs, key)
	if err == nil || key == nil || request.Shed(err) {
		return err
	}
	// Keys are nearly always new, so the look-up comes last. A known key is answered with its effect even if the same
	// request would be rejected now.
	if done, rerr := s.replay(c, key); done {
		return rerr
	}
	if errors.Is(err, access.ErrKeyTaken) {
		return request.Busy() // the key expired between both statements
	}
	return err
}

// sendNew executes a request. Any error means that the request had no effect; access.ErrKeyTaken means that an earlier request
// used the key.
func (s *Server) sendNew(c echo.Context, o *request.Object, files []*request.File, errs *wire.Errors, key *access.IdempotencyKey) error {
	req := parseSend(c, o, files, errs)
	req.key = key
	ch, err := s.checkSend(c, req, errs)
	if err != nil {
		return err
	}
	if req.bulk {
		return s.sendBulk(c, req, ch)
	}
	return s.sendSingle(c, req, ch)
}

// checkSend returns the channel of a valid request. Otherwise its error has every mistake: those of the request's form in errs, and
// those that depend on the channel and its type, as far as these can be told.
func (s *Server) checkSend(c echo.Context, req *sendRequest, errs *wire.Errors) (*channel.Channel, error) {
	if !req.hasData || errs.Has("body", "sender_type") || errs.Has("body", "sender_identifier") || errs.Has("query", "send_identifier") {
		return nil, errs.Err()
	}
	ch, err := s.channelFor(c, req)
	var invalid *message.Error
	if errors.As(err, &invalid) && invalid.Code == message.CodeInvalid {
		errs.AddUnder(invalid.Fields)
		return nil, errs.Err()
	}
	if err != nil {
		return nil, cmp.Or(errs.Err(), err)
	}
	for _, name := range req.empty {
		if !ch.Type.Spec().Content.Has(name) {
			errs.Add(message.SlugExtra, fmt.Sprintf("%s has no field %s", ch.Type, name), "body", "message_data", name)
		}
	}
	if errs.Err() == nil {
		return ch, nil
	}
	for _, f := range s.contentMistakes(c, req, ch) {
		if loc := append([]any{"body", "message_data"}, f.Loc...); !errs.Has(loc...) { // a field of the wrong type is not missing too
			errs.Add(f.Type, f.Msg, loc...)
		}
	}
	return nil, errs.Err()
}

// contentMistakes checks the content of a request that is rejected for its form already.
func (s *Server) contentMistakes(c echo.Context, req *sendRequest, ch *channel.Channel) []message.FieldError {
	list := message.ValidateContent(ch.Type, &req.content)
	list = append(list, delivery.CheckSender(ch, &req.content)...)
	if _, mistakes := render.Compile(c.Request().Context(), ch.Type, req.content); len(mistakes) > 0 {
		list = append(list, mistakes...)
	}
	if !req.bulk && req.contactID == uuid.Nil {
		if _, mistake := delivery.Recipient(ch, req.recipient); mistake != nil {
			list = append(list, *mistake)
		}
	}
	return list
}

// parseSend decodes a request. It reads all fields before the errors are checked, so that the response lists every mistake.
func parseSend(c echo.Context, o *request.Object, files []*request.File, errs *wire.Errors) *sendRequest {
	req := &sendRequest{bulk: o.Has("bulk_settings"), channelAt: []any{"body", "sender_identifier"}, priority: message.Normal, messageType: message.Transactional}
	if req.bulk {
		req.messageType = message.Marketing
	}
	req.channelType = request.Enum(o, "sender_type", req.channelType, message.ParseChannelType, message.ChannelTypes)
	req.messageType = request.Enum(o, "message_type", req.messageType, message.ParseMessageType, message.MessageTypes)
	req.priority = priority(o)
	req.channelID = o.UUID("sender_identifier")
	q := request.NewQuery(c, errs)
	if id := q.UUID("send_identifier"); id != uuid.Nil {
		if req.channelID != uuid.Nil && req.channelID != id {
			errs.Add(message.SlugValue, "differs from the body's sender_identifier", "query", "send_identifier")
		}
		if req.channelID == uuid.Nil {
			req.channelAt = []any{"query", "send_identifier"}
		}
		req.channelID = id
	}
	_ = q.Close() // its mistakes are added to errs
	o.Unsupported("scheduled_at")
	if req.dryRun = o.Bool("dry_run"); req.dryRun && !req.bulk {
		o.Fail(message.SlugValue, "only a bulk can be a dry run", "dry_run")
	}
	o.Require("message_data")
	if data := request.Child[contract.MessageData](o, "message_data"); data != nil {
		req.parseData(data, files)
	}
	if settings := o.Child("bulk_settings"); settings != nil {
		req.name = bulkName(settings)
		req.criteria = audience.Parse(errs, settings, time.Now())
		req.storeRequest(o, errs)
	}
	o.Close()
	return req
}

// bulkName reads the name in the bulk_settings. It is stored as it is given, without the white space around it.
func bulkName(settings *wire.Object) string {
	name := strings.TrimSpace(settings.String("name", maxBulkName))
	if strings.ContainsFunc(name, message.IsControl) {
		settings.Fail(message.SlugValue, "must have no control characters", "name")
	}
	return name
}

func (req *sendRequest) parseData(o *request.Object, files []*request.File) {
	req.recipient = strings.TrimSpace(o.Text("recipient")) // the channel type bounds it; in a bulk it is a placeholder of any length
	req.content = message.Content{
		Subject: o.Text("subject"), Text: o.Text("content"), HTML: o.Text("html_content"), Sender: o.String("sender"),
		SenderName: o.Text("sender_name"), ImageURL: o.Text("image_url"), MediaURLs: o.Texts("media_urls"), ReplyTo: replyTo(o), Headers: headers(o),
	}
	req.attach(o, files)
	req.contactID = o.AnyUUID("contact_id")
	if req.bulk && o.Has("contact_id") {
		o.Fail(message.SlugExtra, "a bulk send has no contact_id: its leads are the contacts", "contact_id")
	}
	if m := o.Free("metadata"); m != nil {
		req.metadata, _ = json.Marshal(m) // Free has encoded it once
	}
	req.hasData, req.empty = true, emptyFields(o)
	o.Close()
}

// replyTo reads a mailbox: a text, or an object with an address and a name.
func replyTo(o *request.Object) *message.Mailbox {
	v, _ := o.Raw("reply_to")
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		box, ok := message.ParseMailbox(v)
		if !ok || message.IsTemplate(v) || utf8.RuneCountInString(v) > contract.MaxMailbox {
			o.Fail(message.SlugValue, "must be an email address, or a name and <address>, and not a template", "reply_to")
			return nil
		}
		return &box
	case map[string]any:
		fields := request.Child[contract.ReplyTo](o, "reply_to")
		fields.Require("email")
		box := &message.Mailbox{Email: fields.String("email"), Name: fields.String("name")}
		fields.Close()
		email, ok := message.NormalizeEmail(box.Email)
		if !ok {
			email = box.Email // the rules of the channel type refuse it
		}
		box.Email = email
		return box
	}
	o.Fail(message.SlugValue, "must be an address as text, or an object with email and name", "reply_to")
	return nil
}

// headers reads an object of texts, in the order of their names.
func headers(o *request.Object) []message.Header {
	values := o.Values("headers")
	if len(values) == 0 {
		return nil
	}
	list := make([]message.Header, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list = append(list, message.Header{Name: name, Value: values[name]})
	}
	return list
}

// emptyFields returns the fields of content that are given as "" or [].
func emptyFields(o *request.Object) []string {
	var empty []string
	for _, name := range message.ContentFields() {
		v, _ := o.Raw(name)
		if list, isList := v.([]any); v == "" || isList && len(list) == 0 {
			empty = append(empty, name)
		}
	}
	return empty
}

// attach reads the attachments. files are their contents, by their index. An element that is wrong is replaced by a valid one, because
// the content is checked too, and its mistakes have indexes.
func (req *sendRequest) attach(o *request.Object, files []*request.File) {
	for i, item := range request.Items[contract.Attachment](o, "attachments") {
		a, data := message.Attachment{Name: "file", Type: message.MediaTypeOf(""), Size: 1}, message.FileData(nil)
		if item != nil {
			a, data = attachment(item, files[i])
		}
		req.content.Attachments, req.files = append(req.content.Attachments, a), append(req.files, data)
	}
}

// attachment reads one attachment. file is its content, nil for none.
func attachment(item *request.Object, file *request.File) (message.Attachment, message.FileData) {
	item.Require("name", "content")
	a := message.Attachment{Name: item.String("name"), Type: item.String("type"), Size: 1}
	if a.Type == "" {
		a.Type = message.MediaTypeOf(a.Name)
	}
	if _, given := item.Raw("content"); given && file == nil {
		item.Fail(message.SlugString, "must be a string", "content")
	}
	item.Close()
	if file == nil {
		return a, nil
	}
	if slug, msg := file.Mistake(); slug != "" {
		item.Fail(slug, msg, "content")
		return a, nil
	}
	a.Size = max(file.Size, 1) // nothing is left of a file behind one that exceeds the bound
	return a, file.Data
}

var maxStoredRequest = contract.RouteSend.BodyLimit() // bytes of a bulk's stored request, which escapes may make longer than its body

// storeRequest encodes the request as its bulk stores it, with the number of lead ids in place of the ids.
func (req *sendRequest) storeRequest(o *request.Object, errs *wire.Errors) {
	shown := map[string]any{}
	for _, name := range []string{"sender_type", "sender_identifier", "message_data", "message_type", "priority", "bulk_settings"} {
		if v, ok := o.Raw(name); ok {
			shown[name] = v
		}
	}
	if data, ok := shown["message_data"].(map[string]any); ok && len(req.content.Attachments) > 0 {
		copied := maps.Clone(data)
		copied["attachments"] = shownAttachments(req.content.Attachments)
		shown["message_data"] = copied
	}
	if settings, ok := shown["bulk_settings"].(map[string]any); ok && len(req.criteria.LeadIDs) > 0 {
		copied := maps.Clone(settings)
		copied["lead_ids"] = len(req.criteria.LeadIDs)
		shown["bulk_settings"] = copied
	}
	var kept bytes.Buffer
	if wire.Encode(&limitedWriter{&kept, int(maxStoredRequest)}, shown) != nil {
		errs.Add(message.SlugTooLong, fmt.Sprintf("must have at most %s without lead_ids", request.Size(maxStoredRequest)), "body")
		return
	}
	req.stored = kept.Bytes()
}

// shownAttachments returns attachments as a stored request has them: with their sizes in place of their contents.
func shownAttachments(list []message.Attachment) []any {
	shown := make([]any, len(list))
	for i, a := range list {
		shown[i] = map[string]any{"name": a.Name, "type": a.Type, "size": a.Size}
	}
	return shown
}

// limitedWriter writes at most left bytes and then fails.
type limitedWriter struct {
	to   io.Writer
	left int
}

// Write implements io.Writer.
func (l *limitedWriter) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return l.to.Write(b)
}

// priority reads a name, or 1 to 5 as a string or a number.
func priority(o *request.Object) message.Priority {
	v, ok := o.Raw("priority")
	if !ok {
		return message.Normal
	}
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case json.Number: // 3.0 and 3e0 are the number 3
		d, _ := message.ParseDecimal(v.String())
		s = d.String()
	}
	p, ok := message.ParsePriority(s)
	if !ok {
		o.Fail(message.SlugEnum, "must be HIGH, NORMAL, LOW, or 1 to 5", "priority")
	}
	return p
}

// channelFor returns the channel of a request: the named one, else the default channel of the request's type.
func (s *Server) channelFor(c echo.Context, req *sendRequest) (*channel.Channel, error) {
	ctx := c.Request().Context()
	if req.channelID == uuid.Nil {
		t, err := req.typeAmong(message.ChannelTypes)
		if err != nil {
			return nil, err
		}
		ch, err := s.deps.Channels.Default(ctx, t)
		if message.IsCode(err, message.CodeNotFound) {
			return nil, message.InvalidField(message.SlugNoDefault, "no default channel is configured for "+string(t), "body", "sender_identifier")
		}
		return ch, err
	}
	named, err := s.deps.Channels.Find(ctx, req.channelID)
	if err != nil {
		return nil, err
	}
	if len(named) == 0 {
		return nil, message.InvalidField(message.SlugNoChannel, "no channel has this id", req.channelAt...)
	}
	types := make([]message.ChannelType, len(named))
	for i, ch := range named {
		types[i] = ch.Type
	}
	t := types[0]
	if req.channelType != "" || len(types) > 1 {
		if t, err = req.typeAmong(types); err != nil {
			return nil, err
		}
	}
	at := slices.Index(types, t)
	if at < 0 {
		return nil, message.InvalidField(message.SlugValue, "the channel is not of type "+string(t), req.channelAt...)
	}
	return named[at], nil
}

// typeAmong returns the type of a request among types: sender_type, else the type of the recipient, else the type that its
// fields imply.
func (req *sendRequest) typeAmong(types []message.ChannelType) (message.ChannelType, error) {
	if req.channelType != "" {
		return req.channelType, nil
	}
	if t, ok := message.TypeOfRecipient(req.recipient); ok && slices.Contains(types, t) {
		return t, nil
	}
	if req.bulk || req.recipient == "" {
		if t, ok := message.TypeOfContent(&req.content); ok {
			return t, nil
		}
	}
	return "", message.InvalidField(message.SlugMissing, "sender_type is required, because nothing else determines the channel type: "+message.ChannelTypeList(), "body", "sender_type")
}

// underData prefixes the paths of content mistakes with message_data.
func underData(err error) error { return request.Under(err, "body", "message_data") }

func (s *Server) sendSingle(c echo.Context, req *sendRequest, ch *channel.Channel) error {
	leave, err := s.gate.EnterSend(c.Request().Context(), ch.Type)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.chargeSend(c, req); err != nil {
		return err
	}
	sent, err := s.deps.Sender.Send(c.Request().Context(), delivery.SendRequest{
		Channel: ch, Recipient: req.recipient, Content: req.content, Files: req.files, LeadID: req.contactID, Metadata: req.metadata,
		MessageType: req.messageType, Priority: req.priority, Key: req.key,
	})
	if err != nil {
		return underData(err)
	}
	if sent.Provider > 0 {
		c.Response().Header().Set(contract.HeaderServerTiming, fmt.Sprintf("provider;dur=%.3f", sent.Provider.Seconds()*1e3)) // milliseconds
	}
	return c.JSON(http.StatusOK, showSent(sent))
}

// Sending copies a text: rendered, and as the provider's JSON, where one character may become six.
const (
	longText   = 64 << 10
	sendCopies = 8
)

// chargeSend reserves the memory that sending a long text takes. Short texts are within the reservation of their body.
func (s *Server) chargeSend(c echo.Context, req *sendRequest) error {
	n := len(req.content.Text) + len(req.content.HTML)
	if n < longText {
		return nil
	}
	return request.GrantOf(c).Reserve(int64(n) * sendCopies)
}

func showSent(sent *delivery.SendResult) contract.SendResponse {
	m := sent.Message
	r := contract.SendResponse{
		MessageID: m.ID.String(), ChannelUsed: m.ChannelType, ProviderUsed: m.Provider, ProviderMessageID: orNull(sent.ProviderMessageID),
		Status: sent.Status, Cost: sent.Cost.Amount(), SentAt: at(sent.SentAt), Kind: contract.KindSingle,
	}
	r.Success = sent.Status.Accepted() || sent.Status == message.Queued
	if !r.Success {
		r.Error = &message.Failure{Code: string(sent.Reason), Text: "not sent"}
		if sent.Failure != nil {
			r.Error.Text = sent.Failure.Text
		}
	}
	return r
}

func (s *Server) sendBulk(c echo.Context, req *sendRequest, ch *channel.Channel) error {
	if errs := delivery.CheckSender(ch, &req.content); len(errs) > 0 {
		return underData(message.Invalid(errs))
	}
	ctx := c.Request().Context()
	order := bulk.Request{
		Channel: ch, Content: req.content, Files: req.files, Criteria: req.criteria, MessageType: req.messageType, Priority: req.priority, Request: req.stored,
		Key: req.key, Name: req.name, Author: request.Author(c),
	}
	if req.dryRun {
		return s.dryRun(c, order)
	}
	b, err := s.deps.Bulks.Accept(ctx, order)
	if err != nil {
		return underData(err)
	}
	return s.answerBulk(c, b)
}

// dryRun answers with the preview of a bulk.
func (s *Server) dryRun(c echo.Context, order bulk.Request) error {
	leave, err := s.gate.EnterDryRun(c)
	if err != nil {
		return err
	}
	defer leave()
	p, err := s.deps.Preview.Preview(c.Request().Context(), order)
	if errors.Is(err, audience.ErrTooSlow) {
		return message.InvalidField(message.SlugValue, fmt.Sprintf("a dry run may take %.0f s, and resolving this audience takes longer: "+
			"narrow its criteria, use fewer contains conditions, or send without a dry run", bulk.PreviewTimeout.Seconds()), "body", "dry_run")
	}
	if err != nil {
		return underData(err)
	}
	return c.JSON(http.StatusOK, showPreview(p, request.Allowed(c, access.Read)))
}

// answerBulk waits for a bulk's figures as the Prefer header says, and answers with the figures of that moment.
func (s *Server) answerBulk(c echo.Context, b *bulk.Bulk) error {
	ctx := c.Request().Context()
	wait, applied := s.prefer(c)
	if applied != "" {
		c.Response().Header().Set(contract.HeaderPreferenceApplied, applied)
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/messaging/bulk/"+b.ID.String()) // where the figures are when they have changed
	grant := request.GrantOf(c)
	grant.Leave()
	grant.ReleaseMemory()
	waiting := *b // without content and ids, which may be megabytes and are not needed for up to a minute
	waiting.Content, waiting.Criteria, waiting.Request, waiting.Files = message.Content{}, audience.Criteria{}, nil, nil
	b = &waiting
	if grant.Wait(c) != nil {
		wait = 0
	}
	v, err := s.deps.Bulks.Wait(ctx, b.ID, wait)
	if err != nil {
		// The bulk is stored and will be sent, so an error here must not look like a rejection.
		s.deps.Telemetry.BulkError(ctx, "wait", b.ID, err)
		v = &bulk.View{Bulk: b}
	}
	return c.JSON(http.StatusOK, shownBulk(c, v))
}

const maxWait = time.Minute

// prefer reads the Prefer header (RFC 7240). It returns how long to wait for a bulk, and the preference that was applied.
func (s *Server) prefer(c echo.Context) (time.Duration, string) {
	async := false
	for _, header := range c.Request().Header.Values(contract.HeaderPrefer) {
		for _, part := range strings.Split(header, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				async = true
			case "wait":
				n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
				if err == nil && n >= 0 {
					wait := min(time.Duration(n)*time.Second, maxWait)
					return wait, "wait=" + strconv.Itoa(int(wait/time.Second))
				}
			}
		}
	}
	if async {
		return 0, "respond-async"
	}
	return s.deps.BulkWait, ""
}
