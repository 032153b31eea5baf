// Package instagram sends Instagram direct messages with Meta's Graph API (the Instagram API with Instagram login). Meta takes text
// and image in two calls. The image goes first, and delivery records the outcome of each call.
package instagram

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/transport"
)

// Spec registers the provider.
var Spec = provider.Spec{
	ProviderSpec: channel.ProviderSpec{
		Name: "instagram", Label: "Instagram", Types: []message.ChannelType{message.InstagramDM}, BaseURL: "https://graph.instagram.com", OnUnknown: channel.Hold,
		Credentials: []channel.Credential{
			{Name: "access_token", Required: true},
			{Name: "app_secret"},
			{Name: "verify_token"},
		},
	},
	New: func(baseURL string, client *http.Client) delivery.Provider { return New(baseURL, client) },
}

// Version is the version of the Graph API. Meta keeps a version for about two years.
const Version = "v26.0"

const maxBody = 1 << 20 // bytes of an answer that are read

// Provider implements delivery.Provider. It is safe for concurrent use.
type Provider struct {
	url    string
	client *http.Client
}

// New returns a Provider. It uses url for channels without a base URL.
func New(url string, client *http.Client) *Provider { return &Provider{url: url, client: client} }

// Parts implements delivery.Provider. An image and a text are two calls.
func (p *Provider) Parts(c *message.Content) int {
	if c.ImageURL != "" && strings.TrimSpace(c.Text) != "" {
		return 2
	}
	return 1
}

type request struct {
	Recipient struct {
		ID string `json:"id"`
	} `json:"recipient"`
	Message struct {
		Text       string      `json:"text,omitempty"`
		Attachment *attachment `json:"attachment,omitempty"`
	} `json:"message"`
}

type attachment struct {
	Type    string `json:"type"`
	Payload struct {
		URL string `json:"url"`
	} `json:"payload"`
}

func build(e delivery.Envelope) request {
	var r request
	r.Recipient.ID = e.Recipient
	if e.Content.ImageURL != "" && e.Part == 0 {
		r.Message.Attachment = &attachment{Type: "image"}
		r.Message.Attachment.Payload.URL = e.Content.ImageURL
	} else {
		r.Message.Text = e.Content.Text
	}
	return r
}

// Send implements delivery.Provider.
func (p *Provider) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	body, err := json.Marshal(build(e))
	if err != nil {
		return provider.NoAnswer(&transport.Evidence{}, err)
	}
	ctx, ev := transport.Trace(ctx)
	// The path names the account's id instead of "me", so that a token of another account fails instead of sending from it.
	target := provider.BaseURL(e.Channel, p.url) + "/" + Version + "/" + e.Channel.Sender + "/messages"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return provider.NoAnswer(ev, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+e.Channel.Credentials["access_token"].Reveal())
	res, err := p.client.Do(req)
	if err != nil {
		return provider.NoAnswer(ev, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return provider.NoAnswer(ev, err)
	}
	return classify(res, answer)
}

// graphError is Meta's error object.
type graphError struct {
	Message   string `json:"message"`
	Code      int    `json:"code"`
	Subcode   int    `json:"error_subcode"`
	Transient bool   `json:"is_transient"`
	Type      string `json:"type"`
	Trace     string `json:"fbtrace_id"`
}

// own reports whether the error has the members that every error of the Graph API has. Errors of other servers do not have all three.
func (e *graphError) own() bool { return e.Type != "" && e.Trace != "" && e.Code > 0 }

func classify(res *http.Response, body []byte) delivery.Response {
	var doc struct {
		MessageID string      `json:"message_id"`
		Error     *graphError `json:"error"`
	}
	err := json.Unmarshal(body, &doc)
	ok := res.StatusCode >= 200 && res.StatusCode < 300
	switch {
	case ok && (err != nil || doc.MessageID == ""):
		return provider.Unknown(res.StatusCode, "no_message_id", "Meta answered without a message id")
	case ok:
		return delivery.Response{Class: delivery.Accepted, HTTPStatus: res.StatusCode, ProviderMessageID: doc.MessageID}
	}
	a := provider.Answer{Status: res.StatusCode, Header: res.Header}
	if doc.Error == nil {
		return a.ByStatus()
	}
	a.Text, a.Own = doc.Error.Message, doc.Error.own()
	a.Code = strconv.Itoa(doc.Error.Code)
	if doc.Error.Subcode != 0 {
		a.Code += "/" + strconv.Itoa(doc.Error.Subcode)
	}
	return byCode(a, doc.Error)
}

// byCode returns the response to an error of Meta. The subcode decides if the table has it, because it is more specific; then the
// code; then the HTTP status.
func byCode(a provider.Answer, e *graphError) delivery.Response {
	if row, ok := subcodes[strconv.Itoa(e.Subcode)]; ok {
		return a.As(row.Verdict)
	}
	code := e.Code
	if code >= firstPermission && code <= lastPermission {
		code = firstPermission
	}
	if e.Subcode != 0 && (code == missingPermission || code == firstPermission) {
		return a.As(provider.RefuseThenPause(message.ProviderRefused, refusedInARow))
	}
	if row, ok := codes[strconv.Itoa(code)]; ok {
		return a.As(row.Verdict)
	}
	switch {
	case a.Status >= http.StatusInternalServerError:
		return a.As(provider.MaybeSent)
	case a.Status == http.StatusTooManyRequests:
		return a.As(provider.Throttle(minBackOff))
	case e.Transient:
		return a.As(provider.RetryLater())
	}
	return a.As(provider.Refuse(message.ProviderRefused))
}
