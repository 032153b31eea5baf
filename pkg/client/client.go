// Package client speaks to Herald's API: typed requests and answers, a context for every call, iterators over lists, and
// retries that never do a thing twice. Sends carry an Idempotency-Key, so that they may be repeated when an answer is lost.
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
)

// The contract's own types, for requests and answers.
type (
	// SendRequest asks for a message, or a message to many.
	SendRequest = contract.SendRequest
	// MessageData is what a message says.
	MessageData = contract.MessageData
	// BulkSettings describe whom a bulk reaches.
	BulkSettings = contract.BulkSettings
	// FilterRequest is a group of conditions.
	FilterRequest = contract.FilterRequest
	// FilterNode is a group or a condition.
	FilterNode = contract.FilterNode
	// Condition compares one field of a lead.
	Condition = contract.FilterCondition
	// SendResponse tells what became of a single.
	SendResponse = contract.SendResponse
	// Bulk is how a bulk stands.
	Bulk = contract.Bulk
	// Preview is what a bulk would do.
	Preview = contract.Preview
	// Explanation tells why a lead was sent to or not.
	Explanation = contract.Explanation
	// Message is one message of the ledger.
	Message = contract.Message
	// Channel is a sending account.
	Channel = contract.Channel
	// NewChannel registers a sending account.
	NewChannel = contract.NewChannel
	// ChannelFields are those of a channel that can be changed.
	ChannelFields = contract.ChannelFields
	// Lead is a person.
	Lead = contract.Lead
	// NewLead is a person to be stored.
	NewLead = contract.NewLead
	// LeadFields are those of a lead that its owner writes.
	LeadFields = contract.LeadFields
	// ImportReport is what became of an imported file.
	ImportReport = contract.ImportReport
	// Suppression is an address that must not be contacted.
	Suppression = contract.Suppression
	// NewSuppression puts an address on the list.
	NewSuppression = contract.NewSuppression
	// FieldError is one thing that is wrong with one field.
	FieldError = contract.FieldError
)

// Patch changes what it names, by the names on the wire; nil empties a field.
type Patch map[string]any

// Client is safe for concurrent use.
type Client struct {
	base    *url.URL
	key     string
	http    *http.Client
	timeout time.Duration // of a call with its retries; 0: one attempt
}

// Option is a choice that New takes.
type Option func(*Client)

// WithKey sends an API key with every request.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient uses a client of the caller's.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithPatience is how long a call goes on trying while the API does not answer or says to come back, DefaultPatience
// without it; 0: every call is made once.
func WithPatience(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// DefaultPatience outlasts the restart of a server.
const DefaultPatience = 30 * time.Second

const (
	firstRetry     = 100 * time.Millisecond
	maxRetry       = 5 * time.Second
	answerTimeout  = 90 * time.Second // above the longest wait for a bulk
	maxAnswer      = 64 << 20
	connsPerServer = 256
)

// New makes a Client of an API at a URL, for example http://127.0.0.1:8080.
func New(baseURL string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is no http or https URL", baseURL)
	}
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	t.MaxIdleConnsPerHost, t.ResponseHeaderTimeout = connsPerServer, answerTimeout
	c := &Client{base: u, http: &http.Client{Transport: t}, timeout: DefaultPatience}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Error is an answer that says no.
type Error struct {
	Status     int    // HTTP's
	Code       string // for programs; invalid when Fields says what is wrong
	Detail     string // for people
	Fields     []FieldError
	RetryAfter time.Duration
	RequestID  string // finds the request in the server's log
}

// Error implements error.
func (e *Error) Error() string {
	msg := fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Detail)
	for _, f := range e.Fields {
		msg += fmt.Sprintf("\n  %v: %s", f.Loc, f.Msg)
	}
	return msg
}

// IsStatus says whether err is an answer with an HTTP status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// call is one request.
type call struct {
	route      contract.Route
	args       []string // of the parameters of the route's path, in their order
	query      url.Values
	body       any                 // encoded as JSON, unless stream is set
	stream     io.Reader           // of mediaType; it can be read once, so the call is made once
	mediaType  string              //
	headers    map[string]string   //
	repeatable bool                // doing it twice is the same as doing it once
	note       func(h http.Header) // told the headers of the answer
}

// do makes a call and decodes the response into into. It retries with exponential back-off while a repetition is safe and may
// help.
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

// errCut is the error of a download that broke off. Its writer has a part, so the call is not repeated.
var errCut = errors.New("the download broke off")

// retryable reports whether a failed call may be repeated, and sets the minimum delay that the server asked for.
func (c *Client) retryable(ctx context.Context, r call, err error, minimum *time.Duration) bool {
	if c.timeout == 0 || r.stream != nil || ctx.Err() != nil || errors.Is(err, errCut) {
		return false
	}
	var e *Error
	if !errors.As(err, &e) {
		return r.repeatable // no answer: nobody knows whether it was done
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

// passes says whether the same request may do better later: the server is busy, restarting, or at work on it.
func (e *Error) passes() bool {
	switch e.Status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict:
		return e.Code == "in_progress"
	}
	return false
}

// path returns the path of a call, its parameters filled in.
func (r *call) path() string {
	parts, args := strings.Split(r.route.Path, "/"), r.args
	for i, p := range parts {
		if strings.HasPrefix(p, ":") && len(args) > 0 {
			parts[i], args = url.PathEscape(args[0]), args[1:]
		}
	}
	return strings.Join(parts, "/")
}

// once makes a call one time. An answer goes into into as JSON, or as it comes where into is an io.Writer.
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
	if c.key != "" && r.route.Access == contract.Keyed { // other routes have no use for it
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base.Host, err)
	}
	defer res.Body.Close()
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
	dec.UseNumber() // a lead's custom fields have numbers that no float64 holds
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// failure reads an answer that says no. One that is not Herald's, a proxy's for example, has its status only.
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
