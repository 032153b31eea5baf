package bulk

import (
	"context"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// Leads per page of a plan. The first page is small, so that the first messages leave soon.
const (
	firstPage = 500
	nextPage  = 4_000
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
	for done := false; !done; limit = nextPage {
		err := c.again(ctx, "plan", func() error {
			page, err := c.Resolver.Resolve(ctx, &c.bulk.Criteria, c.bulk.Channel.Type, cursor, limit)
			if err != nil {
				return err
			}
			rows, err := c.draft(ctx, page.Candidates, ch.Region)
			if err != nil {
				return err
			}
			err = c.Plan.AddPage(ctx, PlanPage{
				Lease: c.lease, Bulk: c.bulk, Base: base, Rows: rows, Cursor: page.Next, NotFound: page.NotFound, Done: page.Done,
			})
			if err != nil {
				return err
			}
			cursor, done = page.Next, page.Done
			base += int64(len(rows))
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

// draft decides for each lead whether it gets a message. The lead with the lowest id keeps an address that several
// share, which is the first to come, since pages are in the order of ids.
func (c *course) draft(ctx context.Context, leads []audience.Candidate, region string) ([]Planned, error) {
	rows := make([]Planned, len(leads))
	hashes := make([]Hash, 0, len(leads))
	for i, l := range leads {
		row := Planned{ID: uuid.Must(uuid.NewV7()), LeadID: l.LeadID, Status: message.Pending}
		row.Recipient, row.Reason = audience.Usable(c.bulk.Channel.Type, l.Address, region)
		if row.Reason != message.NoReason {
			row.Status = message.Skipped
		} else {
			row.Hash = HashAddress(row.Recipient)
			row.Sole = !c.bulk.Criteria.AllowDuplicateRecipients
			hashes = append(hashes, row.Hash)
		}
		rows[i] = row
	}
	if c.bulk.Criteria.AllowDuplicateRecipients || len(hashes) == 0 {
		return rows, nil
	}
	taken, err := c.Plan.Taken(ctx, c.bulk.ID, hashes)
	if err != nil {
		return nil, err
	}
	if taken == nil {
		taken = make(map[Hash]bool, len(hashes))
	}
	for i := range rows {
		row := &rows[i]
		if !row.Sole {
			continue
		}
		if taken[row.Hash] {
			row.Status, row.Reason, row.Sole = message.Skipped, message.DuplicateRecipient, false
		}
		taken[row.Hash] = true
	}
	return rows, nil
}
