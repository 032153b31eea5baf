package bulk

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/render"
)

// PreviewStore is what previews and explanations read. LeadsByID omits leads that do not exist. BulkWithIDs is Store.Bulk with the
// lead ids of the request. MessageOf returns a lead's message in a bulk, or a message.Error not_found.
type PreviewStore interface {
	LeadsByID(ctx context.Context, ids []uuid.UUID) ([]message.Lead, error)
	BulkWithIDs(ctx context.Context, id uuid.UUID) (*Bulk, error)
	MessageOf(ctx context.Context, bulkID, leadID uuid.UUID) (*message.Message, error)
}

// PreviewDeps are the ports of a Previewer. All are required.
type PreviewDeps struct {
	Resolver audience.Resolver
	Plan     Plan
	Store    PreviewStore
	Queue    Queue
	Timeout  time.Duration // 0: PreviewTimeout
}

// PreviewTimeout bounds a preview: a caller waits for it, and it occupies a database connection.
const PreviewTimeout = 10 * time.Second

// Previewer performs dry runs of bulks and explains a bulk's decision about one lead. It writes and sends nothing. It is safe for
// concurrent use.
type Previewer struct{ deps PreviewDeps }

// NewPreviewer makes a Previewer.
func NewPreviewer(d PreviewDeps) *Previewer { return &Previewer{d} }

// Sample is the message that one lead would receive.
type Sample struct {
	LeadID    uuid.UUID
	Recipient string
	render.Rendered
	Err error // why the message would end FAILED; nil if it would not
}

// Preview is the result of a dry run. Cost and Seconds are estimates: Cost is extrapolated from the first leads' messages, and a
// channel without a rate is assumed to send perWorker messages a second for each running worker.
type Preview struct {
	Total, Reachable, NotFound int64
	Skipped                    map[message.Reason]int64
	Cost                       message.Micros
	Seconds                    float64
	Rendered, Failed           int64 // of the first messages: how many were rendered, and how many of these would end FAILED
	Failure                    error // of the first that would; nil if none would
	AttachmentBytes            int64 // of all messages together
	Samples                    []Sample
}

const (
	samples   = 5
	measured  = 100   // leads whose messages are rendered to estimate the cost
	perWorker = 1_000 // messages a second; see pkg/bench/README.md
)

// Preview resolves an audience and decides for every lead as the plan would. It keeps eight bytes per reachable lead, to find
// addresses that several leads share. It returns the errors of Service.Accept, and audience.ErrTooSlow after Timeout.
func (p *Previewer) Preview(ctx context.Context, o Request) (*Preview, error) {
	tpl, err := check(ctx, o)
	if err != nil {
		return nil, err
	}
	pctx, cancel := context.WithTimeout(ctx, cmp.Or(p.deps.Timeout, PreviewTimeout))
	defer cancel()
	out, err := p.preview(pctx, o, tpl)
	if err != nil && pctx.Err() != nil && ctx.Err() == nil {
		return nil, audience.ErrTooSlow
	}
	return out, err
}

func (p *Previewer) preview(ctx context.Context, o Request, tpl *render.Template) (*Preview, error) {
	out := &Preview{Skipped: map[message.Reason]int64{}}
	var seen []uint64
	var first []PlannedRow
	for cursor, done := "", false; !done; {
		page, err := p.deps.Resolver.Resolve(ctx, &o.Criteria, o.Channel.Type, cursor, pageSize)
		if err != nil {
			return nil, err
		}
		cursor, done = page.Next, page.Done
		out.NotFound += page.NotFound
		rows, hashes := candidates(page.Candidates, o.Channel.Type, o.Channel.Region, o.Criteria.AllowDuplicateRecipients)
		suppressed, err := p.suppressed(ctx, o, hashes)
		if err != nil {
			return nil, err
		}
		decide(rows, suppressed)
		for i := range rows {
			out.Total++
			if rows[i].Status == message.Skipped {
				out.Skipped[rows[i].Reason]++
				continue
			}
			out.Reachable++
			if rows[i].Dedupe {
				seen = append(seen, short(rows[i].Hash))
			}
			if len(first) < measured {
				first = append(first, rows[i])
			}
		}
	}
	if n := repeated(seen); n > 0 { // across pages; decide has found those within a page
		out.Reachable -= n
		out.Skipped[message.DuplicateRecipient] += n
	}
	out.AttachmentBytes = out.Reachable * o.Content.AttachmentBytes()
	return out, p.estimate(ctx, o, tpl, first, out)
}

func (p *Previewer) suppressed(ctx context.Context, o Request, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	if len(hashes) == 0 {
		return nil, nil //nolint:nilnil // without addresses no suppression applies
	}
	return p.deps.Plan.Suppressed(ctx, o.Channel.Type, o.MessageType, hashes)
}

// short returns the first eight bytes of a hash: a collision within a million leads has a probability below 1 in 10 million.
func short(h message.Hash) uint64 {
	var v uint64
	for _, b := range h[:8] {
		v = v<<8 | uint64(b)
	}
	return v
}

// repeated returns how many of the hashes equal an earlier one. It sorts them.
func repeated(hashes []uint64) int64 {
	n := len(hashes)
	slices.Sort(hashes)
	return int64(n - len(slices.Compact(hashes)))
}

// estimate renders the messages of the first leads, returns some as samples, and extrapolates the cost.
func (p *Previewer) estimate(ctx context.Context, o Request, tpl *render.Template, first []PlannedRow, out *Preview) error {
	if len(first) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(first))
	for i := range first {
		ids[i] = first[i].LeadID
	}
	leads, err := p.deps.Store.LeadsByID(ctx, ids)
	if err != nil {
		return err
	}
	byID := make(map[uuid.UUID]*message.Lead, len(leads))
	for i := range leads {
		byID[leads[i].ID] = &leads[i]
	}
	var cost message.Micros
	var rendered int64
	for i := range first {
		lead := byID[first[i].LeadID]
		if lead == nil {
			continue // erased since it was resolved
		}
		s := Sample{LeadID: lead.ID, Recipient: first[i].Recipient}
		out.Rendered++
		if s.Rendered, s.Err = tpl.Render(ctx, lead); s.Err == nil {
			cost += o.Channel.Cost(s.Segments, len(s.MediaURLs) > 0)
			rendered++
		} else if out.Failed++; out.Failure == nil {
			out.Failure = s.Err
		}
		if len(out.Samples) < samples {
			out.Samples = append(out.Samples, s)
		}
	}
	if rendered > 0 {
		out.Cost = message.Micros(float64(cost) / float64(rendered) * float64(out.Reachable)) // their product may be beyond an int64
	}
	rate := delivery.Decide(o.Channel).Rate
	if rate == 0 {
		workers, err := p.deps.Queue.Workers(ctx)
		if err != nil || workers < 1 {
			workers = 1
		}
		rate = float64(workers * perWorker)
	}
	out.Seconds = float64(out.Reachable) / rate
	return nil
}

// Explanation is a bulk's decision about a lead, and the verdict of each criterion on the lead as it is now. Lead is nil when the
// lead no longer exists, Message when the bulk has no message for it.
type Explanation struct {
	LeadID   uuid.UUID
	Lead     *message.Lead
	Message  *message.Message
	Planned  bool // the audience is complete: a lead without a message will not get one
	Matches  bool // the lead as it is now meets the criteria
	Verdicts []audience.Verdict
}

// Explain returns why a lead's message was sent, skipped or failed, or why the lead is not in the audience. It returns a
// message.Error not_found for an unknown bulk, and for an unknown lead without a message in the bulk.
func (p *Previewer) Explain(ctx context.Context, bulkID, leadID uuid.UUID) (*Explanation, error) {
	b, err := p.deps.Store.BulkWithIDs(ctx, bulkID)
	if err != nil {
		return nil, err
	}
	out := &Explanation{LeadID: leadID, Planned: b.Planned}
	if out.Message, err = p.deps.Store.MessageOf(ctx, bulkID, leadID); err != nil && !message.IsCode(err, message.CodeNotFound) {
		return nil, err
	}
	leads, err := p.deps.Store.LeadsByID(ctx, []uuid.UUID{leadID})
	if err != nil {
		return nil, err
	}
	if len(leads) == 0 {
		if out.Message == nil {
			return nil, message.Errorf(message.CodeNotFound, "lead %s not found", leadID)
		}
		return out, nil
	}
	out.Lead = &leads[0]
	out.Matches, out.Verdicts = b.Criteria.Explain(audience.NewPerson(out.Lead))
	return out, nil
}
