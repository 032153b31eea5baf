// Package instagram sends Instagram direct messages over Meta's Graph API (the Instagram API with Instagram login).
// Meta takes text and image in two calls; the image goes first, and delivery keeps each call's outcome.
package instagram

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
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

// Version is the version of the Graph API.
const Version = "v26.0"

const maxBody = 1 << 20 // bytes of an answer that are read

// Provider implements delivery.Provider.
type Provider struct {
	url    string
	client *http.Client
}

// New makes a Provider. The URL is used by channels that name none of their own.
func New(url string, client *http.Client) *Provider { return &Provider{url: url, client: client} }

// Parts implements delivery.Provider: an image and a text are a call each.
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
	base := p.url
	if e.Channel.BaseURL != "" {
		base = e.Channel.BaseURL
	}
	body, err := json.Marshal(build(e))
	if err != nil {
		return provider.NoAnswer(&provider.Evidence{}, err)
	}
	ctx, ev := provider.Trace(ctx)
	// The account's id, not "me": a token of another account then fails instead of sending from it.
	target := strings.TrimSuffix(base, "/") + "/" + Version + "/" + e.Channel.Sender + "/messages"
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

// own says whether it has what every error of the Graph API has, and errors of other servers have not together.
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

const backOff = time.Minute // Meta's limits are counted over minutes to an hour

// byCode decides by Meta's code, and the subcode where it matters. The meanings are those of Meta's error tables.
func byCode(a provider.Answer, e *graphError) delivery.Response {
	switch e.Subcode {
	case 1357046: // "invalid JSON reply": the message was sent although an error came back
		return a.Unknown()
	case 2534022, 2018278:
		return a.Refused(message.OutsideWindow)
	case 1893063, 2534029, 2534041, 2018276:
		return a.OfChannel(message.ChannelRefused)
	case 2534014, 2018001:
		return a.Refused(message.RecipientRefused)
	}
	switch {
	case e.Code == 190:
		return a.OfChannel(message.ChannelCredentials)
	case e.Code == 4, e.Code == 17, e.Code == 32, e.Code == 613, e.Code == 341, e.Code == 80002, e.Code == 80006:
		return a.NotNow(backOff)
	case e.Code == 368: // blocked for a while, for a policy
		return a.NotNow(10 * backOff)
	case e.Code == 3, e.Code == 10, e.Code >= 200 && e.Code <= 299:
		return a.OfChannel(message.ChannelRefused)
	case e.Code == 551:
		return a.Refused(message.RecipientRefused)
	case e.Code == 100:
		return a.Refused(message.ContentRefused)
	case a.Status >= 500:
		return a.Unknown()
	case e.Code == 1, e.Code == 2, e.Transient:
		return a.NotNow(backOff)
	case a.Status == http.StatusTooManyRequests:
		return a.NotNow(backOff)
	}
	return a.Refused(message.ProviderRefused)
}
