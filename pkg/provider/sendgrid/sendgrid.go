// Package sendgrid sends email over SendGrid's v3 API: the vendor's SDK builds the request, one tuned client carries
// it, and every answer gets its class.
package sendgrid

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sendgrid/rest"
	"github.com/sendgrid/sendgrid-go"
	"github.com/sendgrid/sendgrid-go/helpers/mail"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
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

// MessageIDArg is the custom argument that carries our message id; SendGrid puts it into every event.
const MessageIDArg = "herald_message_id"

// Provider implements delivery.Provider.
type Provider struct {
	url    string
	client *rest.Client
}

// New makes a Provider. The URL is used by channels that name none of their own.
func New(url string, client *http.Client) *Provider {
	return &Provider{url: url, client: &rest.Client{HTTPClient: client}}
}

// Parts implements delivery.Provider: an email is one call.
func (p *Provider) Parts(*message.Content) int { return 1 }

// Send implements delivery.Provider.
func (p *Provider) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	url := p.url
	if e.Channel.BaseURL != "" {
		url = e.Channel.BaseURL
	}
	// A request of its own per send: the SDK's client writes the body into a shared one.
	req := sendgrid.GetRequest(e.Channel.Credentials["api_key"].Reveal(), "/v3/mail/send", url)
	req.Method = rest.Post
	req.Body = mail.GetRequestBody(build(e))
	ctx, ev := provider.Trace(ctx)
	res, err := p.client.SendWithContext(ctx, req)
	if err != nil {
		return provider.NoAnswer(ev, err)
	}
	return classify(e, res)
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
	return m
}

// classify reads SendGrid's answer. Any 2xx is an acceptance (202, and 200 in sandbox mode).
func classify(e delivery.Envelope, res *rest.Response) delivery.Response {
	header := http.Header(res.Headers)
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return accepted(res.StatusCode, header, res.Body)
	}
	a := provider.Answer{Status: res.StatusCode, Header: header}
	var field string
	a.Text, field, a.Own = readError(res.Body)
	switch {
	case a.Status == http.StatusForbidden && e.Content.Sender != "":
		return a.Refused(message.SenderRefused) // the message's own sender, not the channel's
	case a.Status == http.StatusForbidden:
		return a.OfChannel(message.ChannelRefused)
	case a.Status == http.StatusBadRequest && strings.Contains(field, "personalizations"):
		return a.Refused(message.RecipientRefused)
	case a.Status == http.StatusBadRequest || a.Status == http.StatusRequestEntityTooLarge:
		return a.Refused(message.ContentRefused)
	case a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed:
		return a.OfChannel(message.ChannelRefused) // a wrong base URL
	}
	return a.ByStatus()
}

// accepted tells a real acceptance from some other server's page with a 2xx status.
func accepted(status int, header http.Header, body string) delivery.Response {
	id := header.Get("X-Message-Id")
	if id == "" && strings.HasPrefix(strings.TrimSpace(body), "<") {
		return provider.Unknown(status, "not_sendgrid", "a page came instead of SendGrid's answer")
	}
	return delivery.Response{Class: delivery.Accepted, HTTPStatus: status, ProviderMessageID: id}
}

// errorDoc is SendGrid's documented error. Every entry has a field, null where none is at fault.
type errorDoc struct {
	Errors []struct {
		Message string          `json:"message"`
		Field   json.RawMessage `json:"field"`
		Help    any             `json:"help"`
		ErrorID string          `json:"error_id"`
	} `json:"errors"`
	ID string `json:"id"`
}

// readError returns what SendGrid says is wrong and with which field, and whether it is SendGrid that says so: other
// servers have lists of errors too, of another form.
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
