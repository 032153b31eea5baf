// Package twilio sends SMS and MMS with Twilio's Programmable Messaging API. The vendor's SDK builds the request and reads the
// answer. A carrier below the SDK makes the call: it passes the caller's context on, leaves evidence of whether the request was
// sent, and keeps the status and headers that the SDK drops.
package twilio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twilio/twilio-go/client"
	openapi "github.com/twilio/twilio-go/rest/api/v2010"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/transport"
)

// Spec registers the provider.
var Spec = provider.Spec{
	ProviderSpec: channel.ProviderSpec{
		Name: "twilio", Label: "Twilio", Types: []message.ChannelType{message.SMS}, BaseURL: "https://api.twilio.com", OnUnknown: channel.Hold,
		Credentials: []channel.Credential{
			{Name: "account_sid", Required: true, Public: true, Check: channel.PathSegment}, // part of the path of a call
			{Name: "auth_token", Required: true},
			{Name: "api_key_sid", Public: true},
			{Name: "api_key_secret"},
		},
	},
	New: func(baseURL string, client *http.Client) delivery.Provider { return New(baseURL, client) },
}

const maxBody = 1 << 20 // bytes of an answer that are read

// Provider implements delivery.Provider. It is safe for concurrent use.
type Provider struct {
	url    string
	client *http.Client
}

// New returns a Provider. It uses url for channels without a base URL.
func New(url string, client *http.Client) *Provider { return &Provider{url: url, client: client} }

// Parts implements delivery.Provider. An SMS is one call for any number of segments.
func (p *Provider) Parts(*message.Content) int { return 1 }

// Send implements delivery.Provider.
func (p *Provider) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	ctx, ev := transport.Trace(ctx)
	c := &carrier{ctx: ctx, http: p.client, base: provider.BaseURL(e.Channel, p.url), sid: e.Channel.Credentials["account_sid"].Reveal()}
	c.user, c.password = c.sid, e.Channel.Credentials["auth_token"].Reveal()
	if key := e.Channel.Credentials["api_key_sid"]; !key.Empty() {
		c.user, c.password = key.Reveal(), e.Channel.Credentials["api_key_secret"].Reveal()
	}
	// The SDK's constructor is not used: it lets environment variables change the host.
	msg, err := openapi.NewApiService(&client.RequestHandler{Client: c}).CreateMessage(build(e))
	if err != nil {
		return c.classify(ev, e, err)
	}
	if msg.Sid == nil || *msg.Sid == "" {
		return provider.Unknown(c.status, "no_sid", "Twilio answered without a message SID")
	}
	return delivery.Response{Class: delivery.Accepted, HTTPStatus: c.status, ProviderMessageID: *msg.Sid}
}

func build(e delivery.Envelope) *openapi.CreateMessageParams {
	sender := e.Channel.Sender
	if e.Content.Sender != "" {
		sender = e.Content.Sender
	}
	params := &openapi.CreateMessageParams{}
	params.SetTo(e.Recipient)
	params.SetBody(e.Content.Text)
	if strings.HasPrefix(sender, "MG") && len(sender) == 34 {
		params.SetMessagingServiceSid(sender)
	} else {
		params.SetFrom(sender)
	}
	if len(e.Content.MediaURLs) > 0 {
		params.SetMediaUrl(e.Content.MediaURLs)
	}
	return params
}

// carrier implements the SDK's BaseClient for one send.
type carrier struct {
	ctx                       context.Context //nolint:containedctx // the SDK's interface has no other way to pass it
	http                      *http.Client
	base, sid, user, password string
	status                    int
	header                    http.Header
}

// refusal is an answer with a status other than 2xx.
type refusal struct{ answer provider.Answer }

func (r *refusal) Error() string { return "HTTP " + strconv.Itoa(r.answer.Status) }

// AccountSid implements client.BaseClient.
func (c *carrier) AccountSid() string { return c.sid }

// SetTimeout implements client.BaseClient. It does nothing: the context has the deadline.
func (c *carrier) SetTimeout(time.Duration) {}

// SetOauth implements client.BaseClient. It does nothing: Herald authenticates with keys.
func (c *carrier) SetOauth(client.OAuth) {}

// OAuth implements client.BaseClient.
func (c *carrier) OAuth() client.OAuth { return nil }

// SendRequest implements client.BaseClient. It replaces the host that the SDK chose by the base URL.
func (c *carrier) SendRequest(method, rawURL string, data url.Values, headers map[string]interface{}, _ ...byte) (*http.Response, error) {
	target, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(c.ctx, method, c.base+target.EscapedPath(), strings.NewReader(data.Encode()))
	if err != nil {
		return nil, err
	}
	for name, v := range headers {
		if s, ok := v.(string); ok {
			req.Header.Set(name, s)
		}
	}
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(c.user, c.password)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	c.status, c.header = res.StatusCode, res.Header
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, &refusal{answerOf(res, body)}
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// Twilio's documented errors have a code of five digits, the HTTP status, and a link to the error's page. A code and a message
// alone do not identify Twilio: many servers send these.
const (
	codeDigits = 5
	moreInfo   = "https://www.twilio.com/docs/"
)

func answerOf(res *http.Response, body []byte) provider.Answer {
	a := provider.Answer{Status: res.StatusCode, Header: res.Header}
	var doc struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		More    string `json:"more_info"`
		Status  int    `json:"status"`
	}
	if json.Unmarshal(body, &doc) == nil && doc.Code != 0 {
		a.Code, a.Text = strconv.Itoa(doc.Code), doc.Message
		a.Own = len(a.Code) == codeDigits && doc.Status == res.StatusCode && strings.HasPrefix(doc.More, moreInfo)
	}
	return a
}

// classify returns the response to a failed call. Twilio's code decides, or the HTTP status if the code is not in the table.
func (c *carrier) classify(ev *transport.Evidence, e delivery.Envelope, err error) delivery.Response {
	var r *refusal
	if !errors.As(err, &r) {
		if c.status != 0 {
			return provider.Unknown(c.status, "unreadable", "Twilio's answer could not be read")
		}
		return provider.NoAnswer(ev, err)
	}
	a := r.answer
	a.OwnSender = e.Content.Sender != ""
	if row, ok := codes[a.Code]; ok {
		return a.As(row.Verdict)
	}
	return a.ByStatus()
}
