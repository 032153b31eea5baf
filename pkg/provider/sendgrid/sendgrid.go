// Package sendgrid sends email with SendGrid's v3 API. The vendor's SDK builds the request; package transport carries it, so that
// each failed call has evidence of whether it was sent.
package sendgrid

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/sendgrid/rest"
	"github.com/sendgrid/sendgrid-go"
	"github.com/sendgrid/sendgrid-go/helpers/mail"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/transport"
)

// Spec registers the provider.
var Spec = provider.Spec{
	ProviderSpec: channel.ProviderSpec{
		Name: "sendgrid", Label: "SendGrid", Types: []message.ChannelType{message.Email}, BaseURL: "https://api.sendgrid.com", OnUnknown: channel.ResendOnce,
		Credentials: []channel.Credential{
			{Name: "api_key", Required: true},
			{Name: "webhook_public_key", Public: true},
		},
	},
	New: func(baseURL string, client *http.Client) delivery.Provider { return New(baseURL, client) },
}

// MessageIDArg is the custom argument that holds the id of the message. SendGrid repeats it in each event.
const MessageIDArg = "herald_message_id"

// Provider implements delivery.Provider. It is safe for concurrent use.
type Provider struct {
	url    string
	client *rest.Client
}

// New returns a Provider. It uses url for channels without a base URL.
func New(url string, client *http.Client) *Provider {
	return &Provider{url: url, client: &rest.Client{HTTPClient: client}}
}

// Parts implements delivery.Provider. An email is one call.
func (p *Provider) Parts(*message.Content) int { return 1 }

// Send implements delivery.Provider.
func (p *Provider) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	// Each send gets a new request, because the SDK's client shares one between calls.
	req := sendgrid.GetRequest(e.Channel.Credentials["api_key"].Reveal(), "/v3/mail/send", provider.BaseURL(e.Channel, p.url))
	req.Method = rest.Post
	req.Body = mail.GetRequestBody(build(e))
	ctx, ev := transport.Trace(ctx)
	res, err := p.post(ctx, req, e)
	if err != nil {
		return provider.NoAnswer(ev, err)
	}
	return classify(e, res)
}

// post makes the call. The SDK takes a body as one slice; one with attachments is read from their pieces instead, so that a call holds
// no copy of them.
func (p *Provider) post(ctx context.Context, req rest.Request, e delivery.Envelope) (*rest.Response, error) {
	if len(e.Files) == 0 {
		return p.client.SendWithContext(ctx, req)
	}
	r, err := rest.BuildRequestObject(req)
	if err != nil {
		return nil, err
	}
	b := newBody(req.Body, e.Content.Attachments, e.Files)
	r = r.WithContext(ctx)
	r.Body, r.ContentLength = b.reader(), b.size
	r.GetBody = func() (io.ReadCloser, error) { return b.reader(), nil }
	res, err := p.client.MakeRequest(r) //nolint:bodyclose // BuildResponse reads and closes it
	if err != nil {
		return nil, err
	}
	return rest.BuildResponse(res)
}

func build(e delivery.Envelope) *mail.SGMailV3 {
	sender, name := e.Channel.Sender, e.Channel.SenderName
	if e.Content.Sender != "" {
		sender = e.Content.Sender
	}
	if e.Content.SenderName != "" {
		name = e.Content.SenderName
	}
	to := mail.NewPersonalization()
	to.AddTos(mail.NewEmail("", e.Recipient))
	to.SetCustomArg(MessageIDArg, e.MessageID.String())
	m := mail.NewV3Mail()
	m.SetFrom(mail.NewEmail(name, sender))
	m.Subject = e.Content.Subject
	m.AddPersonalizations(to)
	if strings.TrimSpace(e.Content.Text) != "" {
		m.AddContent(mail.NewContent("text/plain", e.Content.Text))
	}
	if strings.TrimSpace(e.Content.HTML) != "" {
		m.AddContent(mail.NewContent("text/html", e.Content.HTML))
	}
	if box := e.Content.ReplyTo; box != nil {
		m.SetReplyTo(mail.NewEmail(box.Name, box.Email))
	}
	for _, h := range e.Content.Headers {
		m.SetHeader(h.Name, mime.QEncoding.Encode("utf-8", h.Value)) // SendGrid takes ASCII (RFC 2047)
	}
	return m
}

// statuses is the table of SendGrid's errors. SendGrid has no error codes: the HTTP status decides, and for 400 the field at fault.
// https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/responses
var statuses = provider.NewCodes(
	provider.Row("400", provider.Refuse(message.ContentRefused), "a field of the request is invalid"),
	provider.Row("400 personalizations", provider.Refuse(message.RecipientRefused), "the recipient is invalid"),
	provider.Row("400 from", provider.RefuseSender(), "the sender is invalid"),
	provider.Row("403", provider.RefuseSender(), "the sender is not a verified identity, or the key may not send"),
	provider.Row("404", provider.PauseChannel(message.ChannelRefused), "the path does not exist: the base URL is wrong"),
	provider.Row("405", provider.PauseChannel(message.ChannelRefused), "the method is not allowed: the base URL is wrong"),
	provider.Row("413", provider.Refuse(message.ContentRefused), "the message is larger than 30 MB"),
)

// classify returns the response to SendGrid's answer. Every 2xx is an acceptance: 202, and 200 in sandbox mode.
func classify(e delivery.Envelope, res *rest.Response) delivery.Response {
	header := http.Header(res.Headers)
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return accepted(res.StatusCode, header, res.Body)
	}
	a := provider.Answer{Status: res.StatusCode, Header: header, OwnSender: e.Content.Sender != ""}
	var field string
	a.Text, field, a.Own = readError(res.Body)
	status := strconv.Itoa(a.Status)
	switch {
	case a.Status != http.StatusBadRequest:
	case strings.Contains(field, "personalizations"):
		status += " personalizations"
	case field == "from" || strings.HasPrefix(field, "from."):
		status += " from"
	}
	if row, ok := statuses[status]; ok {
		return a.As(row.Verdict)
	}
	return a.ByStatus()
}

// accepted returns the response to a 2xx status. An HTML page without SendGrid's id comes from another server.
func accepted(status int, header http.Header, body string) delivery.Response {
	id := header.Get("X-Message-Id")
	if id == "" && strings.HasPrefix(strings.TrimSpace(body), "<") {
		return provider.Unknown(status, "not_sendgrid", "a page came instead of SendGrid's answer")
	}
	return delivery.Response{Class: delivery.Accepted, HTTPStatus: status, ProviderMessageID: id}
}

// errorDoc is SendGrid's documented error. Each entry has a field, which is null if no field is at fault.
type errorDoc struct {
	Errors []struct {
		Message string          `json:"message"`
		Field   json.RawMessage `json:"field"`
		Help    any             `json:"help"`
		ErrorID string          `json:"error_id"`
	} `json:"errors"`
	ID string `json:"id"`
}

// readError returns the text of the first error and the field at fault. own says that the body has SendGrid's form: other servers
// answer with lists of errors too.
func readError(body string) (text, field string, own bool) {
	var doc errorDoc
	if json.Unmarshal([]byte(body), &doc) != nil || len(doc.Errors) == 0 {
		return "", "", false
	}
	first := doc.Errors[0]
	_ = json.Unmarshal(first.Field, &field) // null is no field
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	own = dec.Decode(&errorDoc{}) == nil && first.Field != nil && first.Message != ""
	return first.Message, field, own
}
