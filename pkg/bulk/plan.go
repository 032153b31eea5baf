package bulk

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/fault"
	"herald/pkg/message"
)

// Leads per page of a plan. The first page is small, so that the first messages leave soon; the others are not large,
// since everybody's commits wait while a page's is written out.
const (
	firstPage = 500
	nextPage  = 1_000
)

// plan freezes the audience page by page, from wherever the last process got to.
func (c *course) plan(ctx context.Context) error {
	if c.planned {
		return nil
	}
	ch, err := c.channelOf(ctx)
	if err != nil {
		return err
	}
	cursor, base, limit := c.bulk.PlanCursor, c.total, firstPage
	earlier := seen{whole: base == 0}
	for done := false; !done; limit = nextPage {
		err := c.again(ctx, "plan", func() error {
			began := time.Now()
			page, err := c.Resolver.Resolve(ctx, &c.bulk.Criteria, c.bulk.Channel.Type, cursor, limit)
			if err != nil {
				return err
			}
			rows, err := c.draft(ctx, page.Candidates, ch.Region)
			if err != nil {
				return err
			}
			earlier.mark(rows)
			err = c.Plan.AddPage(ctx, PlanPage{
				Lease: c.lease, Bulk: c.bulk, Base: base, Rows: rows, Cursor: page.Next, NotFound: page.NotFound, Done: page.Done,
			})
			if err != nil {
				return err
			}
			fault.Point(fault.PagePlanned)
			if !page.Done {
				earlier.add(rows)
			}
			cursor, done = page.Next, page.Done
			base += int64(len(rows))
			c.Observer.Step("plan", len(rows), time.Since(began))
			return nil
		})
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.total, c.planned = base, done
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
	c.Observer.BulkEvent(ctx, "planned", c.bulk.ID, "total", base)
	return nil
}

// draft decides for each lead whether it gets a message.
func (c *course) draft(ctx context.Context, leads []audience.Candidate, region string) ([]Planned, error) {
	b := c.bulk
	rows, hashes := candidates(leads, b.Channel.Type, region, b.Criteria.AllowDuplicateRecipients)
	if len(hashes) == 0 {
		return rows, nil
	}
	suppressed, err := c.Plan.Suppressed(ctx, b.Channel.Type, b.Purpose, hashes)
	if err != nil {
		return nil, err
	}
	decide(rows, suppressed)
	return rows, nil
}

// candidates drafts a row for each lead: PENDING with its normalised address, or SKIPPED without one.
func candidates(leads []audience.Candidate, t message.Type, region string, duplicates bool) ([]Planned, []message.Hash) {
	rows := make([]Planned, len(leads))
	hashes := make([]message.Hash, 0, len(leads))
	for i, l := range leads {
		row := Planned{ID: uuid.Must(uuid.NewV7()), LeadID: l.LeadID, Status: message.Pending}
		row.Recipient, row.Reason = audience.Usable(t, l.Address, region)
		if row.Reason != message.NoReason {
			row.Status = message.Skipped
		} else {
			row.Hash, row.Sole = message.HashAddress(row.Recipient), !duplicates
			hashes = append(hashes, row.Hash)
		}
		rows[i] = row
	}
	return rows, hashes
}

// decide skips who is suppressed, and every lead of the page but the first of an address. Pages come in the order of
// ids, and AddPage does the same across them, so the lead with the lowest id keeps an address that several share.
func decide(rows []Planned, suppressed map[message.Hash]message.Reason) {
	taken := make(map[message.Hash]bool, len(rows))
	for i := range rows {
		row := &rows[i]
		if row.Status != message.Pending {
			continue
		}
		reason := suppressed[row.Hash]
		if reason == message.NoReason && row.Sole && taken[row.Hash] {
			reason = message.DuplicateRecipient
		}
		if reason != message.NoReason {
			row.Status, row.Reason, row.Sole = message.Skipped, reason, false
			continue
		}
		taken[row.Hash] = true
	}
}
