// Package twilio sends SMS and MMS over Twilio's Programmable Messaging: the vendor's SDK builds the request and reads
// the answer, a client of our own carries it, with the caller's context, and keeps what the SDK would throw away.
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

// Provider implements delivery.Provider.
type Provider struct {
	url    string
	client *http.Client
}

// New makes a Provider. The URL is used by channels that name none of their own.
func New(url string, client *http.Client) *Provider { return &Provider{url: url, client: client} }

// Parts implements delivery.Provider: an SMS is one call, whatever its segments.
func (p *Provider) Parts(*message.Content) int { return 1 }

// Send implements delivery.Provider.
func (p *Provider) Send(ctx context.Context, e delivery.Envelope) delivery.Response {
	base := p.url
	if e.Channel.BaseURL != "" {
		base = e.Channel.BaseURL
	}
	ctx, ev := provider.Trace(ctx)
	c := &carrier{ctx: ctx, http: p.client, base: base, sid: e.Channel.Credentials["account_sid"].Reveal()}
	c.user, c.password = c.sid, e.Channel.Credentials["auth_token"].Reveal()
	if key := e.Channel.Credentials["api_key_sid"]; !key.Empty() {
		c.user, c.password = key.Reveal(), e.Channel.Credentials["api_key_secret"].Reveal()
	}
	// The handler is made by hand: the SDK's constructor lets environment variables change the host.
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

// refusal is an answer that is no 2xx.
type refusal struct{ answer provider.Answer }

func (r *refusal) Error() string { return "HTTP " + strconv.Itoa(r.answer.Status) }

// AccountSid implements client.BaseClient.
func (c *carrier) AccountSid() string { return c.sid }

// SetTimeout implements client.BaseClient; the context has the timeout.
func (c *carrier) SetTimeout(time.Duration) {}

// SetOauth implements client.BaseClient; Herald uses keys.
func (c *carrier) SetOauth(client.OAuth) {}

// OAuth implements client.BaseClient.
func (c *carrier) OAuth() client.OAuth { return nil }

// SendRequest implements client.BaseClient.
func (c *carrier) SendRequest(method, rawURL string, data url.Values, headers map[string]interface{}, _ ...byte) (*http.Response, error) {
	target, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(c.ctx, method, strings.TrimSuffix(c.base, "/")+target.EscapedPath(), strings.NewReader(data.Encode()))
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

// Twilio's documented errors have a code of five digits, the HTTP status, and a link to the error's page. Many servers have
// a code and a message.
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

// classify decides by Twilio's own code, and by the HTTP status where it gave none that is known. The codes' meanings
// are those of Twilio's error dictionary.
func (c *carrier) classify(ev *provider.Evidence, e delivery.Envelope, err error) delivery.Response {
	var r *refusal
	if !errors.As(err, &r) {
		if c.status != 0 {
			return provider.Unknown(c.status, "unreadable", "Twilio's answer could not be read")
		}
		return provider.NoAnswer(ev, err)
	}
	a := r.answer
	switch a.Code {
	case "20003", "20005", "20006", "20403", "20008", "30002":
		return a.OfChannel(message.ChannelCredentials)
	case "20429", "21611", "14107", "30001", "30022", "30017", "63017", "63018", "21730":
		return a.NotNow(time.Second)
	case "30023", "30027", "63038": // daily caps
		return a.NotNow(30 * time.Minute)
	case "20500", "20503", "30020", "30021", "30410", "63009", "63010", "63012":
		return a.Unknown()
	case "21211", "21214", "21612", "21217", "21401", "21407", "21614", "21408", "30003", "30005", "30006", "30011", "63003", "63024",
		"21608": // 21608: a trial account reaches verified numbers only
		return a.Refused(message.RecipientRefused)
	case "21610", "30004", "63014", "63033":
		return a.Refused(message.ConsentRefused)
	case "21602", "21617", "21618", "21619", "21620", "21623", "30007", "30019", "63005", "63021", "63013":
		return a.Refused(message.ContentRefused)
	case "63016":
		return a.Refused(message.OutsideWindow)
	case "21212", "21603", "21606", "21607", "21701", "21703", "21704", "21705", "30018", "30024", "30032", "30034", "63007", "21609":
		if e.Content.Sender != "" {
			return a.Refused(message.SenderRefused)
		}
		return a.OfChannel(message.ChannelRefused)
	}
	return a.ByStatus()
}
