package bulk

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// Leads per page of a plan. The first page is small so that the first messages leave soon. The others are bounded because the
// commits of other transactions wait while a page is written to the log.
const (
	firstPageSize = 500
	pageSize      = 1_000
)

const (
	expensiveComparisons = 200         // an audience with this many comparisons per lead is expensive;
	expensivePage        = time.Second // so is one with a page that took longer than this
	maxSlowPages         = 3           // a bulk is abandoned when this many pages in a row exceeded the database's time limit
	tooSlowReason        = "the audience cannot be resolved: its criteria take the database too long; narrow them, or use fewer contains conditions"
)

// plan freezes the audience page by page, starting at the bulk's cursor. A process resolves one page of an expensive audience at
// a time, so that other bulks find a free database connection.
func (run *bulkRun) plan(ctx context.Context) error {
	defer run.endPlanOnly()
	ch, err := run.channelOf(ctx)
	if err != nil {
		return err
	}
	heavy := run.bulk.Criteria.Comparisons() >= expensiveComparisons
	if heavy {
		select {
		case run.runner.heavy <- struct{}{}:
			<-run.runner.heavy
		default:
			run.mu.Lock()
			run.planLater = true
			run.mu.Unlock()
			poke(run.more)
			return nil
		}
	}
	cursor, base, limit := run.bulk.PlanCursor, run.total, firstPageSize
	earlier := seenAddresses{complete: base == 0}
	slow := 0
	for done := false; !done; limit = pageSize {
		err := run.retryForever(ctx, "plan", func() error {
			began := time.Now()
			page, err := run.resolve(ctx, cursor, limit, heavy)
			if errors.Is(err, audience.ErrTooSlow) {
				if slow++; slow >= maxSlowPages {
					return run.abandon(ctx)
				}
			}
			if err != nil {
				return err
			}
			heavy, slow = heavy || time.Since(began) > expensivePage, 0
			rows, err := run.draft(ctx, page.Candidates, ch.Region)
			if err != nil {
				return err
			}
			earlier.mark(rows)
			err = run.deps.Plan.AddPage(ctx, PlanPage{
				Lease: run.lease, Bulk: run.bulk, Base: base, Rows: rows, Cursor: page.Next, NotFound: page.NotFound, Done: page.Done,
			})
			if err != nil {
				return err
			}
			fault.Point(fault.PagePlanned)
			if !page.Done {
				earlier.add(rows)
			}
			cursor, done = page.Next, page.Done
			run.add(rows, base, done)
			base += int64(len(rows))
			run.deps.Observer.Step("plan", len(rows), time.Since(began))
			return nil
		})
		if err != nil {
			return err
		}
	}
	run.deps.Observer.BulkEvent(ctx, "planned", run.bulk.ID, "total", base)
	run.bulk.Criteria = audience.Criteria{} // the ids of a request are large
	return nil
}

// resolve resolves a page. It waits for the page of another expensive audience.
func (run *bulkRun) resolve(ctx context.Context, cursor string, limit int, heavy bool) (audience.Page, error) {
	if heavy {
		select {
		case run.runner.heavy <- struct{}{}:
			defer func() { <-run.runner.heavy }()
		case <-ctx.Done():
			return audience.Page{}, ctx.Err()
		}
	}
	return run.deps.Resolver.Resolve(ctx, &run.bulk.Criteria, run.bulk.Channel.Type, cursor, limit)
}

// abandon cancels a bulk whose audience cannot be resolved. The end of the run wakes the runner to cancel the planned messages. It
// returns ErrLeaseLost on success, because the lease has ended.
func (run *bulkRun) abandon(ctx context.Context) error {
	run.expectLeaseEnd()
	if err := run.deps.Plan.Abandon(ctx, run.lease, tooSlowReason); err != nil {
		run.keepLease()
		return err
	}
	run.ended, run.abandoned = true, true
	run.deps.Observer.BulkEvent(ctx, "abandoned", run.id, "reason", tooSlowReason)
	return ErrLeaseLost
}

// add tells the feeder about a page. A feeder whose cursor is at base gets the rows, which saves a read.
func (run *bulkRun) add(rows []PlannedRow, base int64, done bool) {
	run.mu.Lock()
	defer poke(run.more)
	defer run.mu.Unlock()
	if run.fed == base {
		run.newPage = make([]Row, len(rows))
		for i := range rows {
			run.newPage[i] = Row{ID: rows[i].ID, State: stats.MessageState{Seq: base + int64(i), Status: rows[i].Status, Reason: rows[i].Reason}}
		}
	}
	run.total, run.planned = base+int64(len(rows)), done
}

// draft returns the rows of a page: PENDING, or SKIPPED with a reason.
func (run *bulkRun) draft(ctx context.Context, leads []audience.Candidate, region string) ([]PlannedRow, error) {
	b := run.bulk
	rows, hashes := candidates(leads, b.Channel.Type, region, b.Criteria.AllowDuplicateRecipients)
	if len(hashes) == 0 {
		return rows, nil
	}
	suppressed, err := run.deps.Plan.Suppressed(ctx, b.Channel.Type, b.MessageType, hashes)
	if err != nil {
		return nil, err
	}
	decide(rows, suppressed)
	return rows, nil
}

// candidates drafts a row for each lead: PENDING with its normalised address, or SKIPPED without a usable one. It also returns the
// hashes of the addresses.
func candidates(leads []audience.Candidate, t message.ChannelType, region string, duplicates bool) ([]PlannedRow, []message.Hash) {
	rows := make([]PlannedRow, len(leads))
	hashes := make([]message.Hash, 0, len(leads))
	for i, l := range leads {
		row := PlannedRow{ID: uuid.Must(uuid.NewV7()), LeadID: l.LeadID, Status: message.Pending}
		row.Recipient, row.Reason = audience.Usable(t, l.Address, region)
		if row.Reason != message.NoReason {
			row.Status = message.Skipped
		} else {
			row.Hash, row.Dedupe = message.HashAddress(row.Recipient), !duplicates
			hashes = append(hashes, row.Hash)
		}
		rows[i] = row
	}
	return rows, hashes
}

// decide skips suppressed addresses, and all leads of the page but the first with an address. Leads are in the order of their ids,
// and AddPage does the same across pages, so the lead with the lowest id keeps an address that several share.
func decide(rows []PlannedRow, suppressed map[message.Hash]message.Reason) {
	taken := make(map[message.Hash]bool, len(rows))
	for i := range rows {
		row := &rows[i]
		if row.Status != message.Pending {
			continue
		}
		reason := suppressed[row.Hash]
		if reason == message.NoReason && row.Dedupe && taken[row.Hash] {
			reason = message.DuplicateRecipient
		}
		if reason != message.NoReason {
			row.Status, row.Reason, row.Dedupe = message.Skipped, reason, false
			continue
		}
		taken[row.Hash] = true
	}
}
