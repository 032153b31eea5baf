// Package client is the Go client of the API: typed requests and responses, a context for every call, iterators over lists,
// and retries that never repeat an effect. Each send carries an Idempotency-Key, so it is repeated safely when its response
// is lost. Routes and types come from package contract.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// The types of requests and responses, so that callers need no second import.
type (
	// SendRequest is the request of a single or a bulk.
	SendRequest = contract.SendRequest
	// MessageData is the content of a message.
	MessageData = contract.MessageData
	// Attachment is a file that an email carries.
	Attachment = contract.Attachment
	// AttachedFile describes an attachment of a message.
	AttachedFile = contract.AttachedFile
	// ReplyTo is the address to which replies go.
	ReplyTo = contract.ReplyTo
	// BulkSettings describe the audience of a bulk.
	BulkSettings = contract.BulkSettings
	// FilterRequest is a group of conditions.
	FilterRequest = contract.FilterRequest
	// FilterNode is a group or a condition.
	FilterNode = contract.FilterNode
	// Condition compares one field of a lead.
	Condition = contract.FilterCondition
	// SendResponse is the outcome of a single.
	SendResponse = contract.SendResponse
	// Bulk is the state of a bulk.
	Bulk = contract.Bulk
	// Preview is the result of a dry run.
	Preview = contract.Preview
	// Explanation explains the result of a bulk for one lead.
	Explanation = contract.Explanation
	// Reason is why a message was not sent, or may not have been; its method Explain returns what that means and what to do.
	Reason = message.Reason
	// Message is one message of the ledger.
	Message = contract.Message
	// Channel is a sending account.
	Channel = contract.Channel
	// NewChannel registers a sending account.
	NewChannel = contract.NewChannel
	// ChannelFields are the optional fields of a channel.
	ChannelFields = contract.ChannelFields
	// Lead is a contact in the address book.
	Lead = contract.Lead
	// NewLead creates a lead.
	NewLead = contract.NewLead
	// LeadFields are the writable fields of a lead.
	LeadFields = contract.LeadFields
	// ImportReport is the result of an import.
	ImportReport = contract.ImportReport
	// Suppression is an address that must not be contacted.
	Suppression = contract.Suppression
	// NewSuppression adds a suppression.
	NewSuppression = contract.NewSuppression
	// Health is the result of a probe.
	Health = contract.Health
	// FieldError is one mistake in one field of a request.
	FieldError = contract.FieldError
)

// Patch contains the fields to change, by their names on the wire; nil empties a field. It is a map because a Go struct cannot
// tell an absent field from an empty one.
type Patch map[string]any

// Client makes calls to one API. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	key     string
	http    *http.Client
	timeout time.Duration // of a call including its retries; 0: one attempt
	quota   func(Quota)   // receives the quota of each response that tells one; may be nil
}

// Option configures a Client.
type Option func(*Client)

// WithKey sets the API key of all requests.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient replaces the HTTP client, its timeouts and its connection pool.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithRetryTimeout sets how long a call is retried while the API does not respond or asks to retry. The default is
// DefaultRetryTimeout; with 0 every call is made once.
func WithRetryTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// DefaultRetryTimeout is longer than the restart of a server takes.
const DefaultRetryTimeout = 30 * time.Second

const (
	firstRetry     = 100 * time.Millisecond // delay before the first retry, with jitter
	maxRetry       = 5 * time.Second        // longest delay, unless Retry-After is longer
	answerTimeout  = 90 * time.Second       // until the headers of a response; above the longest wait for a bulk
	maxAnswer      = 64 << 20               // bytes of a JSON response
	connsPerServer = 256                    // idle connections: the default of 2 would reconnect under concurrency
)

// New returns a Client of the API at a URL, for example http://127.0.0.1:8080.
func New(baseURL string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("parse base URL: %q is not an http or https URL", baseURL)
	}
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	t.MaxIdleConnsPerHost, t.ResponseHeaderTimeout = connsPerServer, answerTimeout
	c := &Client{base: u, http: &http.Client{Transport: t}, timeout: DefaultRetryTimeout}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Error is a response with an HTTP status of 400 or above.
type Error struct {
	Status     int           // of HTTP
	Code       string        // kind of the failure; "invalid" if Fields lists the mistakes, empty if a proxy responded
	Detail     string        // description for people
	Fields     []FieldError  // mistakes of the request
	RetryAfter time.Duration // minimum delay before a retry; 0 if the server named none
	RequestID  string        // id of the request in the server's log
}

// Error implements error.
func (e *Error) Error() string {
	msg := fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Detail)
	for _, f := range e.Fields {
		msg += fmt.Sprintf("\n  %v: %s", f.Loc, f.Msg)
	}
	return msg
}

// IsStatus reports whether err is an Error with this HTTP status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// call is a request of one method of Client.
type call struct {
	route      contract.Route
	args       []string // of the parameters of the path, in their order
	query      url.Values
	body       any       // encoded as JSON, unless stream is set
	stream     io.Reader // can be read once, so the call is never retried
	mediaType  string    // of stream
	headers    map[string]string
	repeatable bool                // idempotent: may be retried if the response is lost
	note       func(h http.Header) // receives the headers of a successful response
}

// do makes a call and decodes the response into into. It retries with exponential back-off and jitter as long as a retry is
// safe, may succeed, and the timeout has not passed.
func (c *Client) do(ctx context.Context, r call, into any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	delay := &retryBackoff{ExponentialBackOff: backoff.NewExponentialBackOff()}
	delay.InitialInterval, delay.MaxInterval = firstRetry, maxRetry
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := c.once(ctx, r, body, into)
		if err != nil && !c.retryable(ctx, r, err, &delay.minimum) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(delay), backoff.WithMaxElapsedTime(c.timeout))
	return err
}

// errCut is the error of a download that broke off. The writer already has a part, so the call is not retried.
var errCut = errors.New("the download broke off")

// retryable reports whether a failed call is retried, and sets the minimum delay that the server asked for. 429 is always
// retried, because the server rejected the request before it had an effect.
func (c *Client) retryable(ctx context.Context, r call, err error, minimum *time.Duration) bool {
	if c.timeout == 0 || r.stream != nil || ctx.Err() != nil || errors.Is(err, errCut) {
		return false
	}
	var e *Error
	if !errors.As(err, &e) {
		return r.repeatable // no response: the request may have taken effect
	}
	*minimum = e.RetryAfter
	return e.Status == http.StatusTooManyRequests || (r.repeatable && e.passes())
}

// retryBackoff is an exponential back-off that is not shorter than the Retry-After of the server.
type retryBackoff struct {
	*backoff.ExponentialBackOff
	minimum time.Duration
}

// NextBackOff implements backoff.BackOff.
func (p *retryBackoff) NextBackOff() time.Duration {
	d := max(p.ExponentialBackOff.NextBackOff(), p.minimum)
	p.minimum = 0
	return d
}

// passes reports whether the same request may succeed later: the server is busy or restarting, or an earlier request under
// the same idempotency key is in progress.
func (e *Error) passes() bool {
	switch e.Status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict:
		return e.Code == "in_progress"
	}
	return false
}

// path returns the path of a call with its parameters, escaped.
func (r *call) path() string {
	parts, args := strings.Split(r.route.Path, "/"), r.args
	for i, p := range parts {
		if strings.HasPrefix(p, ":") && len(args) > 0 {
			parts[i], args = url.PathEscape(args[0]), args[1:]
		}
	}
	return strings.Join(parts, "/")
}

// once makes one attempt of a call. It decodes the response as JSON into into, or copies it if into is an io.Writer.
func (c *Client) once(ctx context.Context, r call, body []byte, into any) error {
	u := c.base.JoinPath(r.path())
	u.RawQuery = r.query.Encode()
	var reader io.Reader = bytes.NewReader(body)
	if r.stream != nil {
		reader = r.stream
	} else if body == nil {
		reader = nil
	}
	req, err := http.NewRequestWithContext(ctx, r.route.Method, u.String(), reader)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	for name, v := range r.headers {
		req.Header.Set(name, v)
	}
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
		if r.mediaType != "" {
			req.Header.Set("Content-Type", r.mediaType)
		}
	}
	if r.route.Media != "" {
		req.Header.Set("Accept", r.route.Media)
	}
	if c.key != "" && r.route.Access == contract.Keyed { // a credential is not sent where it is not needed
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("call %s: %w", c.base.Host, err)
	}
	defer res.Body.Close()
	c.tellQuota(res.Header)
	if to, ok := into.(io.Writer); ok && res.StatusCode < http.StatusBadRequest {
		if _, err := io.Copy(to, res.Body); err != nil {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		return failure(res, b)
	}
	if r.note != nil {
		r.note(res.Header)
	}
	if into == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // custom fields may contain numbers beyond the precision of float64
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// failure converts a response with an error status. The response of another program, for example a proxy, yields its status
// only.
func failure(res *http.Response, body []byte) error {
	e := &Error{Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id")}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	var problem struct {
		Detail json.RawMessage `json:"detail"`
		Code   string          `json:"code"`
	}
	if json.Unmarshal(body, &problem) == nil {
		e.Code = problem.Code
		if json.Unmarshal(problem.Detail, &e.Fields) == nil && len(e.Fields) > 0 {
			e.Code, e.Detail = "invalid", "the request is not valid"
		} else if json.Unmarshal(problem.Detail, &e.Detail) != nil {
			e.Detail = ""
		}
	}
	if e.Detail == "" {
		e.Detail = http.StatusText(res.StatusCode)
	}
	return e
}
