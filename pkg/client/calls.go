package client

import (
	"context"
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

// SendOption is a choice of one send.
type SendOption func(*call)

// UnderKey sets the Idempotency-Key of a send, so that a caller that restarts can repeat it safely. Without this option each
// call gets a random key, which makes its own retries safe.
func UnderKey(key string) SendOption {
	return func(r *call) { r.headers[contract.HeaderIdempotencyKey] = quote(key) }
}

// Waiting lets a bulk send wait for its figures, up to a minute, to the second.
func Waiting(d time.Duration) SendOption {
	return func(r *call) { r.headers[contract.HeaderPrefer] = "wait=" + strconv.Itoa(int(d/time.Second)) }
}

// Replayed is told whether the answer is that of an earlier request under the same key.
func Replayed(yes *bool) SendOption {
	return noting(func(h http.Header) { *yes = h.Get(contract.HeaderReplayed) == "true" })
}

// ProviderTook is told how long the provider took to answer, 0 when the answer does not say.
func ProviderTook(d *time.Duration) SendOption {
	return noting(func(h http.Header) {
		ms, _ := strconv.ParseFloat(strings.TrimPrefix(h.Get(contract.HeaderServerTiming), "provider;dur="), 64)
		*d = time.Duration(ms * float64(time.Millisecond))
	})
}

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

// quote writes a key as a string of HTTP's structured fields.
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

// Send sends one message and returns what became of it; a message that the provider refused is no error.
func (c *Client) Send(ctx context.Context, req SendRequest, options ...SendOption) (*SendResponse, error) {
	var out SendResponse
	return &out, c.send(ctx, req, &out, "", options)
}

// SendBulk orders a bulk and returns how it stands: at once, or as long as Waiting says.
func (c *Client) SendBulk(ctx context.Context, req SendRequest, options ...SendOption) (*Bulk, error) {
	var out Bulk
	return &out, c.send(ctx, req, &out, "respond-async", options)
}

// DryRun tells whom a bulk would reach, and sends nothing.
func (c *Client) DryRun(ctx context.Context, req SendRequest) (*Preview, error) {
	var out Preview
	req.DryRun = true
	return &out, c.send(ctx, req, &out, "", nil)
}

// SendJSON sends a request that is JSON already and returns the answer as JSON.
func (c *Client) SendJSON(ctx context.Context, request []byte, options ...SendOption) ([]byte, error) {
	var out rawJSON
	err := c.send(ctx, rawJSON(request), &out, "respond-async", options)
	return out, err
}

// rawJSON passes through as it is.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// get reads one thing. args are the parameters of the route's path, in their order.
func get[T any](ctx context.Context, c *Client, route contract.Route, args ...string) (*T, error) {
	var out T
	return &out, c.do(ctx, call{route: route, args: args, repeatable: true}, &out)
}

const pageSize = 200

// all walks a list page by page. It ends with the first error.
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

// MessageFilter narrows a list of messages down; what is empty does not.
type MessageFilter struct {
	BulkID        string
	LeadID        string
	Status        message.Status
	Type          message.ChannelType
	Recipient     string
	CreatedAfter  time.Time
	CreatedBefore time.Time
}

func (f MessageFilter) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{
		"bulk_id": f.BulkID, "lead_id": f.LeadID, "status": string(f.Status), "channel_type": string(f.Type), "recipient": f.Recipient,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, t := range map[string]time.Time{"created_after": f.CreatedAfter, "created_before": f.CreatedBefore} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339))
		}
	}
	return q
}

// Messages walks the ledger, newest first.
func (c *Client) Messages(ctx context.Context, f MessageFilter) iter.Seq2[Message, error] {
	return all[Message](ctx, c, contract.RouteListMessages, f.query())
}

// Bulk returns how a bulk stands, and its request.
func (c *Client) Bulk(ctx context.Context, id string) (*Bulk, error) {
	return get[Bulk](ctx, c, contract.RouteGetBulk, id)
}

// Bulks walks the bulks, newest first.
func (c *Client) Bulks(ctx context.Context) iter.Seq2[Bulk, error] {
	return all[Bulk](ctx, c, contract.RouteListBulks, nil)
}

// PauseBulk stops a bulk until it is resumed.
func (c *Client) PauseBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RoutePauseBulk, id)
}

// ResumeBulk lets a paused bulk go on.
func (c *Client) ResumeBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RouteResumeBulk, id)
}

// CancelBulk ends a bulk.
func (c *Client) CancelBulk(ctx context.Context, id string) (*Bulk, error) {
	return c.steer(ctx, contract.RouteCancelBulk, id)
}

func (c *Client) steer(ctx context.Context, route contract.Route, id string) (*Bulk, error) {
	var out Bulk
	return &out, c.do(ctx, call{route: route, args: []string{id}}, &out)
}

// Over says whether nothing more can happen to a bulk.
func Over(b *Bulk) bool { return b.CompletedAt != nil }

const (
	firstWatch = 50 * time.Millisecond
	maxWatch   = time.Second
)

// WatchBulk yields how a bulk stands, whenever that has changed, until it is over or fails to be read.
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
				pause = min(pause, maxWatch/4) // it moves: look more often
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

// ExplainLead tells why a lead was, or was not, among those of a bulk.
func (c *Client) ExplainLead(ctx context.Context, bulkID, leadID string) (*Explanation, error) {
	return get[Explanation](ctx, c, contract.RouteExplainLead, bulkID, leadID)
}

// Channels walks the channels in the order of their ids.
func (c *Client) Channels(ctx context.Context) iter.Seq2[Channel, error] {
	return all[Channel](ctx, c, contract.RouteListChannels, nil)
}

// Channel returns one channel.
func (c *Client) Channel(ctx context.Context, id string, t message.ChannelType) (*Channel, error) {
	return get[Channel](ctx, c, contract.RouteGetChannel, id, string(t))
}

// CreateChannel registers a channel.
func (c *Client) CreateChannel(ctx context.Context, ch NewChannel) (*Channel, error) {
	var out Channel
	return &out, c.do(ctx, call{route: contract.RouteCreateChannel, body: ch}, &out)
}

// ChangeChannel changes what the patch names.
func (c *Client) ChangeChannel(ctx context.Context, id string, t message.ChannelType, p Patch) (*Channel, error) {
	var out Channel
	return &out, c.do(ctx, call{route: contract.RouteChangeChannel, args: []string{id, string(t)}, body: p, repeatable: true}, &out)
}

// DeleteChannel removes a channel.
func (c *Client) DeleteChannel(ctx context.Context, id string, t message.ChannelType) error {
	return c.do(ctx, call{route: contract.RouteDeleteChannel, args: []string{id, string(t)}}, nil)
}

// Leads walks the leads in the order of their ids.
func (c *Client) Leads(ctx context.Context) iter.Seq2[Lead, error] {
	return all[Lead](ctx, c, contract.RouteListLeads, nil)
}

// Lead returns one lead.
func (c *Client) Lead(ctx context.Context, id string) (*Lead, error) {
	return get[Lead](ctx, c, contract.RouteGetLead, id)
}

// CreateLead stores a lead.
func (c *Client) CreateLead(ctx context.Context, l NewLead) (*Lead, error) {
	var out Lead
	return &out, c.do(ctx, call{route: contract.RouteCreateLead, body: l}, &out)
}

// ChangeLead changes what the patch names.
func (c *Client) ChangeLead(ctx context.Context, id string, p Patch) (*Lead, error) {
	var out Lead
	return &out, c.do(ctx, call{route: contract.RouteChangeLead, args: []string{id}, body: p, repeatable: true}, &out)
}

// EraseLead forgets a person.
func (c *Client) EraseLead(ctx context.Context, id string) error {
	return c.do(ctx, call{route: contract.RouteEraseLead, args: []string{id}}, nil)
}

// Format is the kind of an imported file.
type Format string

// The formats.
const (
	CSV    Format = contract.MediaCSV
	NDJSON Format = contract.MediaNDJSON
)

// ImportLeads imports a file of up to 100 MB as it is read. It is not repeated: rows before a failure stay imported, and
// importing a file again updates what it imported, if its rows have ids, emails or phones.
func (c *Client) ImportLeads(ctx context.Context, f Format, file io.Reader) (*ImportReport, error) {
	if f != CSV && f != NDJSON {
		return nil, fmt.Errorf("leads are imported from CSV or NDJSON, not %q", f)
	}
	var out ImportReport
	return &out, c.do(ctx, call{route: contract.RouteImportLeads, stream: file, mediaType: string(f)}, &out)
}

// Suppressions walks the suppressions, newest first, of a type or an address where these are not empty.
func (c *Client) Suppressions(ctx context.Context, t message.ChannelType, address string) iter.Seq2[Suppression, error] {
	q := url.Values{}
	if t != "" {
		q.Set("type", string(t))
	}
	if address != "" {
		q.Set("address", address)
	}
	return all[Suppression](ctx, c, contract.RouteListSuppressions, q)
}

// Suppress puts an address on the list; doing so again changes nothing.
func (c *Client) Suppress(ctx context.Context, s NewSuppression) (*Suppression, error) {
	var out Suppression
	return &out, c.do(ctx, call{route: contract.RouteCreateSuppression, body: s, repeatable: true}, &out)
}

// LiftSuppression lets an address be contacted again.
func (c *Client) LiftSuppression(ctx context.Context, id string) error {
	return c.do(ctx, call{route: contract.RouteDeleteSuppression, args: []string{id}}, nil)
}

// Ready says whether the API is ready for requests.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, call{route: contract.RouteReady}, nil)
}
