package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// SendOption configures one send.
type SendOption func(*call)

// UnderKey sets the Idempotency-Key of a send, so that a caller that restarts can repeat it safely. Without this option each
// call gets a random key, which makes its own retries safe.
func UnderKey(key string) SendOption {
	return func(r *call) { r.headers[contract.HeaderIdempotencyKey] = quote(key) }
}

// Waiting makes a bulk send wait for its figures, at most 60 s. d is truncated to seconds.
func Waiting(d time.Duration) SendOption {
	return func(r *call) { r.headers[contract.HeaderPrefer] = "wait=" + strconv.Itoa(int(d/time.Second)) }
}

// Replayed stores whether an earlier request used the same key, so that this one had no effect.
func Replayed(yes *bool) SendOption {
	return noting(func(h http.Header) { *yes = h.Get(contract.HeaderReplayed) == "true" })
}

// ProviderTook stores the response time of the provider; 0 if no provider was called.
func ProviderTook(d *time.Duration) SendOption {
	return noting(func(h http.Header) {
		ms, _ := strconv.ParseFloat(strings.TrimPrefix(h.Get(contract.HeaderServerTiming), "provider;dur="), 64)
		*d = time.Duration(ms * float64(time.Millisecond))
	})
}

// noting adds a function that receives the headers of the response. Several options may add one.
func noting(what func(h http.Header)) SendOption {
	return func(r *call) {
		before := r.note
		r.note = func(h http.Header) {
			if before != nil {
				before(h)
			}
			what(h)
		}
	}
}

// quote encodes a key as a string of HTTP's structured fields (RFC 9651, section 3.3.3).
func quote(key string) string {
	out := make([]byte, 0, len(key)+2)
	out = append(out, '"')
	for i := range len(key) {
		if key[i] == '"' || key[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, key[i])
	}
	return string(append(out, '"'))
}

// CallOption configures a call about one lead or one channel.
type CallOption func(*call)

// IfMatch makes a change conditional: it fails with the status 412 and the code precondition_failed unless the object has the ETag.
// A change whose response is lost is not repeated, because it may have changed the ETag.
func IfMatch(etag string) CallOption {
	return func(r *call) {
		r.headers = map[string]string{contract.HeaderIfMatch: etag}
		r.repeatable = false
	}
}

// ETag stores the ETag of the object that the call returns.
func ETag(to *string) CallOption {
	return func(r *call) { r.note = func(h http.Header) { *to = h.Get(contract.HeaderETag) } }
}

// with applies options.
func (r call) with(options []CallOption) call {
	for _, o := range options {
		o(&r)
	}
	return r
}

// send makes a send under a random idempotency key, unless an option sets another one.
func (c *Client) send(ctx context.Context, body, into any, prefer string, options []SendOption) error {
	r := call{route: contract.RouteSend, body: body, headers: map[string]string{contract.HeaderIdempotencyKey: quote(uuid.NewString())}, repeatable: true}
	if prefer != "" {
		r.headers[contract.HeaderPrefer] = prefer
	}
	for _, o := range options {
		o(&r)
	}
	return c.do(ctx, r, into)
}

// Send sends a single and returns its outcome. A message that the provider refused is an outcome and not an error.
func (c *Client) Send(ctx context.Context, req SendRequest, options ...SendOption) (*SendResponse, error) {
	var out SendResponse
	return &out, c.send(ctx, req, &out, "", options)
}

// SendBulk sends a bulk and returns its state: immediately after acceptance, or later as Waiting says.
func (c *Client) SendBulk(ctx context.Context, req SendRequest, options ...SendOption) (*Bulk, error) {
	var out Bulk
	return &out, c.send(ctx, req, &out, "respond-async", options)
}

// DryRun returns the audience, cost and samples of a bulk, and sends nothing.
func (c *Client) DryRun(ctx context.Context, req SendRequest) (*Preview, error) {
	var out Preview
	req.DryRun = true
	return &out, c.send(ctx, req, &out, "", nil)
}

// SendJSON sends an encoded request, single or bulk, and returns the response as JSON. A bulk is not waited for.
func (c *Client) SendJSON(ctx context.Context, request []byte, options ...SendOption) ([]byte, error) {
	var out rawJSON
	err := c.send(ctx, rawJSON(request), &out, "respond-async", options)
	return out, err
}

// rawJSON is JSON that is sent and received verbatim.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// get reads one object. args are the parameters of the path, in their order.
func get[T any](ctx context.Context, c *Client, route contract.Route, args ...string) (*T, error) {
	var out T
	return &out, c.do(ctx, call{route: route, args: args, repeatable: true}, &out)
}

const pageSize = 200 // items; the maximum of the API

// all returns an iterator over a list. It reads a page when the previous one is consumed, and ends with the first error.
func all[T any](ctx context.Context, c *Client, route contract.Route, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := url.Values{"limit": {strconv.Itoa(pageSize)}}
		for name, v := range query {
			q[name] = v
		}
		for {
			var page contract.Page[T]
			if err := c.do(ctx, call{route: route, query: q, repeatable: true}, &page); err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextCursor == nil {
				return
			}
			q.Set("cursor", *page.NextCursor)
		}
	}
}

// Message returns one message with its attempts and receipts.
func (c *Client) Message(ctx context.Context, id string) (*Message, error) {
	return get[Message](ctx, c, contract.RouteGetMessage, id)
}

// MessageFilter filters a list of messages. Empty fields match every message; the others must all match.
type MessageFilter struct {
	BulkID        string
	LeadID        string
	Statuses      []message.Status // any of these
	Reasons       []message.Reason // any of these
	Failed        bool             // only those that ended as FAILED, SKIPPED, UNKNOWN or CANCELLED
	Type          message.ChannelType
	Recipient     string
	CreatedAfter  time.Time
	CreatedBefore time.Time
	UpdatedAfter  time.Time
}

// query encodes the filter as the query of the list.
func (f MessageFilter) query() url.Values {
	q := queryOf(map[string]string{
		"bulk_id": f.BulkID, "lead_id": f.LeadID, "status": commaList(f.Statuses), "reason": commaList(f.Reasons), "channel_type": string(f.Type),
		"recipient": f.Recipient,
	}, map[string]time.Time{"created_after": f.CreatedAfter, "created_before": f.CreatedBefore, "updated_after": f.UpdatedAfter})
	if f.Failed {
		q.Set("failed", "true")
	}
	return q
}

func commaList[E ~string](values []E) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return strings.Join(words, ",")
}

// queryOf encodes the texts that are not empty and the times that are not zero.
func queryOf(texts map[string]string, times map[string]time.Time) url.Values {
	q := url.Values{}
	for name, v := range texts {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, t := range times {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// Messages iterates over the messages that match a filter, newest first.
func (c *Client) Messages(ctx context.Context, f MessageFilter) iter.Seq2[Message, error] {
	return all[Message](ctx, c, contract.RouteListMessages, f.query())
}

// Bulk returns the state of a bulk, and its request.
func (c *Client) Bulk(ctx context.Context, id string) (*Bulk, error) {
	return get[Bulk](ctx, c, contract.RouteGetBulk, id)
}

// BulkFilter filters a list of bulks. Empty fields match every bulk; the others must all match.
type BulkFilter struct {
	Status        string
	Name          string
	Type          message.ChannelType
	CreatedBy     string // id of an API key
	CreatedAfter  time.Time
	CreatedBefore time.Time
}

// query encodes the filter as the query of the list.
func (f BulkFilter) query() url.Values {
	return queryOf(
		map[string]string{"status": f.Status, "name": f.Name, "channel_type": string(f.Type), "created_by": f.CreatedBy},
		map[string]time.Time{"created_after": f.CreatedAfter, "created_before": f.CreatedBefore})
}

// Bulks iterates over the bulks that match a filter, newest first.
func (c *Client) Bulks(ctx context.Context, f BulkFilter) iter.Seq2[Bulk, error] {
	return all[Bulk](ctx, c, contract.RouteListBulks, f.query())
}

// PauseBulk pauses a bulk. Deliveries in progress are completed.
func (c *Client) PauseBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RoutePauseBulk, id)
}

// ResumeBulk continues a paused bulk.
func (c *Client) ResumeBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RouteResumeBulk, id)
}

// CancelBulk cancels a bulk. Messages that were not sent end as CANCELLED.
func (c *Client) CancelBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RouteCancelBulk, id)
}

// steer changes the state of a bulk. It is not idempotent: a second pause is a conflict.
func (c *Client) steer(ctx context.Context, route contract.Route, id string) (*Bulk, error) {
	var out Bulk
	return &out, c.do(ctx, call{route: route, args: []string{id}}, &out)
}

// Over reports whether a bulk has ended: its state no longer changes.
func Over(b *Bulk) bool { return b.CompletedAt != nil }

// Intervals at which WatchBulk reads a bulk.
const (
	firstWatch = 50 * time.Millisecond
	maxWatch   = time.Second
)

// WatchBulk yields the state of a bulk each time it changes, until the bulk has ended or cannot be read. It polls; the
// interval doubles up to maxWatch while nothing changes.
func (c *Client) WatchBulk(ctx context.Context, id string) iter.Seq2[*Bulk, error] {
	return func(yield func(*Bulk, error) bool) {
		var last *Bulk
		for pause := firstWatch; ; pause = min(2*pause, maxWatch) {
			b, err := c.Bulk(ctx, id)
			if err != nil {
				yield(nil, err)
				return
			}
			if last == nil || b.MessagesPending != last.MessagesPending || b.TotalLeads != last.TotalLeads || b.Status != last.Status || Over(b) {
				pause = min(pause, maxWatch/4) // a changing bulk is polled more often
				if !yield(b, nil) || Over(b) {
					return
				}
			}
			last = b
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

// ExplainLead explains the result of a bulk for one lead.
func (c *Client) ExplainLead(ctx context.Context, bulkID, leadID string) (*Explanation, error) {
	return get[Explanation](ctx, c, contract.RouteExplainLead, bulkID, leadID)
}

// Channels iterates over the channels in the order of their ids.
func (c *Client) Channels(ctx context.Context) iter.Seq2[Channel, error] {
	return all[Channel](ctx, c, contract.RouteListChannels, nil)
}

// Channel returns one channel.
func (c *Client) Channel(ctx context.Context, id string, t message.ChannelType, options ...CallOption) (*Channel, error) {
	var out Channel
	return &out, c.do(ctx, call{route: contract.RouteGetChannel, args: []string{id, string(t)}, repeatable: true}.with(options), &out)
}

// CreateChannel registers a channel.
func (c *Client) CreateChannel(ctx context.Context, ch NewChannel) (*Channel, error) {
	var out Channel
	return &out, c.do(ctx, call{route: contract.RouteCreateChannel, body: ch}, &out)
}

// ChangeChannel changes the fields of a channel that the patch contains.
func (c *Client) ChangeChannel(ctx context.Context, id string, t message.ChannelType, p Patch, options ...CallOption) (*Channel, error) {
	var out Channel
	return &out, c.do(ctx, call{route: contract.RouteChangeChannel, args: []string{id, string(t)}, body: p, repeatable: true}.with(options), &out)
}

// DeleteChannel deletes a channel. It is a conflict while bulks or messages wait for the channel.
func (c *Client) DeleteChannel(ctx context.Context, id string, t message.ChannelType, options ...CallOption) error {
	return c.do(ctx, call{route: contract.RouteDeleteChannel, args: []string{id, string(t)}}.with(options), nil)
}

// LeadFilter filters a list of leads. Empty fields match every lead; the others must all match.
type LeadFilter struct {
	Email         string
	Phone         string
	InstagramID   string
	AssigneeID    string
	Tag           string
	Status        string
	Search        string // words, as search_keyword of a bulk
	CreatedAfter  time.Time
	CreatedBefore time.Time
	UpdatedAfter  time.Time
}

// query encodes the filter as the query of the list.
func (f LeadFilter) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{
		"email": f.Email, "phone": f.Phone, "instagram_id": f.InstagramID, "assignee_id": f.AssigneeID, "tag": f.Tag, "status": f.Status, "search": f.Search,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, t := range map[string]time.Time{"created_after": f.CreatedAfter, "created_before": f.CreatedBefore, "updated_after": f.UpdatedAfter} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// Leads iterates over the leads in the order of their ids.
func (c *Client) Leads(ctx context.Context) iter.Seq2[Lead, error] {
	return c.FindLeads(ctx, LeadFilter{})
}

// FindLeads iterates over the leads that match a filter, in the order of their ids.
func (c *Client) FindLeads(ctx context.Context, f LeadFilter) iter.Seq2[Lead, error] {
	return all[Lead](ctx, c, contract.RouteListLeads, f.query())
}

// Lead returns one lead.
func (c *Client) Lead(ctx context.Context, id string, options ...CallOption) (*Lead, error) {
	var out Lead
	return &out, c.do(ctx, call{route: contract.RouteGetLead, args: []string{id}, repeatable: true}.with(options), &out)
}

// CreateLead creates a lead. An id that is in use is a conflict.
func (c *Client) CreateLead(ctx context.Context, l NewLead) (*Lead, error) {
	var out Lead
	return &out, c.do(ctx, call{route: contract.RouteCreateLead, body: l}, &out)
}

// ChangeLead changes the fields of a lead that the patch contains.
func (c *Client) ChangeLead(ctx context.Context, id string, p Patch, options ...CallOption) (*Lead, error) {
	var out Lead
	return &out, c.do(ctx, call{route: contract.RouteChangeLead, args: []string{id}, body: p, repeatable: true}.with(options), &out)
}

// EraseLead erases a person: the lead, and its personal data in all messages. Suppressions remain.
func (c *Client) EraseLead(ctx context.Context, id string, options ...CallOption) error {
	return c.do(ctx, call{route: contract.RouteEraseLead, args: []string{id}}.with(options), nil)
}

// Format is the media type of an imported file.
type Format string

// The formats.
const (
	CSV    Format = contract.MediaCSV
	NDJSON Format = contract.MediaNDJSON
)

// ImportOptions say how a file is read; what is empty is found out from the file. The fields are those of the parameters of
// the route (contract.ImportQuery).
type ImportOptions struct {
	Columns      map[string]string // what columns become: a field, custom_fields.NAME, or "" to leave it out
	Charset      string
	Delimiter    string
	Dates        string // dmy or mdy
	Timezone     string
	TagSeparator string
	DryRun       bool // report only
}

func (o ImportOptions) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{
		"charset": o.Charset, "delimiter": o.Delimiter, "dates": o.Dates, "timezone": o.Timezone, "tag_separator": o.TagSeparator,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if o.DryRun {
		q.Set("dry_run", "true")
	}
	if len(o.Columns) > 0 {
		columns := make(map[string]*string, len(o.Columns))
		for name, field := range o.Columns {
			if columns[name] = nil; field != "" {
				columns[name] = &field
			}
		}
		b, _ := json.Marshal(columns) // of texts: it cannot fail
		q.Set("columns", string(b))
	}
	return q
}

// ImportLeads imports a file as it is, see ImportLeadsWith.
func (c *Client) ImportLeads(ctx context.Context, f Format, file io.Reader) (*ImportReport, error) {
	return c.ImportLeadsWith(ctx, f, ImportOptions{}, file)
}

// ImportLeadsWith imports a file of at most 100 MB while it is read. It is not retried, because a reader can be read once. Rows
// before a failure stay imported; a second import of the file updates them if they have ids, emails or phones.
func (c *Client) ImportLeadsWith(ctx context.Context, f Format, o ImportOptions, file io.Reader) (*ImportReport, error) {
	if f != CSV && f != NDJSON {
		return nil, fmt.Errorf("leads are imported from CSV or NDJSON, not %q", f)
	}
	var out ImportReport
	return &out, c.do(ctx, call{route: contract.RouteImportLeads, query: o.query(), stream: file, mediaType: string(f)}, &out)
}

// SuppressionFilter filters a list of suppressions. Empty fields match every suppression; the others must all match.
type SuppressionFilter struct {
	Type         message.ChannelType
	Address      string
	Reason       message.Reason
	CreatedAfter time.Time
}

// Suppressions iterates over the suppressions that match a filter, newest first.
func (c *Client) Suppressions(ctx context.Context, f SuppressionFilter) iter.Seq2[Suppression, error] {
	return all[Suppression](ctx, c, contract.RouteListSuppressions, queryOf(
		map[string]string{"type": string(f.Type), "address": f.Address, "reason": string(f.Reason)},
		map[string]time.Time{"created_after": f.CreatedAfter}))
}

// Suppress adds a suppression. It is idempotent.
func (c *Client) Suppress(ctx context.Context, s NewSuppression) (*Suppression, error) {
	var out Suppression
	return &out, c.do(ctx, call{route: contract.RouteCreateSuppression, body: s, repeatable: true}, &out)
}

// LiftSuppression deletes a suppression, so that its address can be contacted again.
func (c *Client) LiftSuppression(ctx context.Context, id string) error {
	return c.do(ctx, call{route: contract.RouteDeleteSuppression, args: []string{id}}, nil)
}

// Alive returns the liveness of the API, with the version of the program that answers.
func (c *Client) Alive(ctx context.Context) (*Health, error) {
	return get[Health](ctx, c, contract.RouteAlive)
}

// Ready returns nil if the API accepts requests, and otherwise the reason.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, call{route: contract.RouteReady}, nil)
}
