// Package search finds the leads of an audience in the database. It compiles the criteria to a condition in SQL and walks the
// leads in the order of their ids, page by page. It knows neither bulks nor messages.
package search

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/wire"
)

// A page of a filter reads one range of ids, and returns the leads in it that match. Its cost is that of the range, independent of
// the size of the audience. A range that yields few leads is followed by one of rangeGrowth times its size; a range without an end
// lets the database find few matches by index. A range that fills its page is followed by a smaller one, so a filter that matches
// many leads is walked in the order of ids and never sorted as a whole.
const (
	firstRange  = 20_000 // leads
	rangeGrowth = 8
	wholeTable  = firstRange * rangeGrowth * rangeGrowth // a range of this size or more has no end
	goodYield   = 8                                      // a range is good if it fills 1/goodYield of a page
)

// A page that exceeds the time limit is tried again over fewer leads, down to minRange: a larger range is never worth a page
// that takes longer than store.SearchTimeout. The cursor carries the size that was too large, so it is not tried again.
const (
	minRange = firstRange / rangeGrowth / rangeGrowth // 312 leads
	minIDs   = 10
)

// Resolver implements audience.Resolver. It is safe for concurrent use.
type Resolver struct {
	db      *store.DB
	timeout time.Duration // of a page on SQLite; PostgreSQL has its own (statement_timeout)
}

// NewResolver returns a resolver. timeout bounds a page on SQLite; 0 is store.SearchTimeout.
func NewResolver(db *store.DB, timeout time.Duration) *Resolver {
	return &Resolver{db: db, timeout: cmp.Or(timeout, store.SearchTimeout)}
}

// Resolve implements audience.Resolver. If the ids of the request decide, the cursor is a position among them and the size of
// the next page. Otherwise it is the last id that was read, the size of the next range, and the maximum size of ranges.
func (r *Resolver) Resolve(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	var (
		page audience.Page
		err  error
	)
	if len(c.LeadIDs) > 0 && !c.Any {
		page, err = r.resolveIDs(ctx, c, t, after, limit)
	} else {
		page, err = r.resolveRange(ctx, c, t, after, limit)
	}
	if errors.Is(err, audience.ErrTooSlow) {
		return page, err
	}
	return page, store.WrapError("resolve the audience", err)
}

// withTimeout executes the query of a page, and returns audience.ErrTooSlow if it exceeded the time limit. PostgreSQL enforces
// the limit itself; for SQLite the context does.
func (r *Resolver) withTimeout(ctx context.Context, query func(ctx context.Context) error) error {
	qctx := ctx
	if !r.db.IsPostgres() {
		var cancel context.CancelFunc
		qctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	err := query(qctx)
	cancelled := store.SQLState(err) == pgerrcode.QueryCanceled
	if err != nil && ctx.Err() == nil && (cancelled || qctx.Err() != nil) {
		return audience.ErrTooSlow
	}
	return err
}

// resolveIDs returns a page of the requested ids. A page that exceeds the time limit is tried again with fewer ids, down to minIDs.
func (r *Resolver) resolveIDs(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (page audience.Page, err error) {
	at, size, shrunk := strings.Cut(after, "/")
	if n, err := strconv.Atoi(size); err == nil {
		limit = min(limit, n)
	}
	for {
		err = r.withTimeout(ctx, func(ctx context.Context) (err error) {
			page, err = r.pageOfIDs(ctx, c, t, at, limit)
			return err
		})
		if !errors.Is(err, audience.ErrTooSlow) || limit <= minIDs {
			break
		}
		limit, shrunk = max(limit/rangeGrowth, minIDs), true
	}
	if shrunk {
		page.Next += "/" + strconv.Itoa(limit)
	}
	return page, err
}

// pageOfIDs resolves the ids from a position. An id without a candidate is counted as not found only if no lead has it: the lead may
// fail the other criteria.
func (r *Resolver) pageOfIDs(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	from, _ := strconv.Atoi(after) // "" is the beginning
	to := min(from+limit, len(c.LeadIDs))
	page := audience.Page{Next: strconv.Itoa(to), Done: to == len(c.LeadIDs)}
	ids := c.LeadIDs[min(from, to):to]
	if len(ids) == 0 {
		return page, nil
	}
	q := r.compiler()
	where := q.ids(ids) + " AND " + q.criteria(c, false)
	var err error
	if page.Candidates, err = r.candidates(ctx, q, t, where, limit); err != nil {
		return page, err
	}
	if missing := len(ids) - len(page.Candidates); missing > 0 {
		page.NotFound, err = r.missing(ctx, ids)
	}
	return page, err
}

func (r *Resolver) compiler() *compiler { return &compiler{postgres: r.db.IsPostgres()} }

// missing counts the ids without a lead.
func (r *Resolver) missing(ctx context.Context, ids []uuid.UUID) (int64, error) {
	q := r.compiler()
	n, err := r.count(ctx, "SELECT count(*) FROM leads WHERE "+q.ids(ids), q.args)
	return int64(len(ids)) - n, err
}

// idRange is the next range of ids to be read.
type idRange struct {
	after uuid.UUID // the last id that was read
	size  int       // leads
	max   int       // size of ranges: wholeTable, or less after the database exceeded the time limit
}

// String returns the range as a cursor: id/size, or id/size/max.
func (b idRange) String() string {
	cursor := b.after.String() + "/" + strconv.Itoa(b.size)
	if b.max < wholeTable {
		cursor += "/" + strconv.Itoa(b.max)
	}
	return cursor
}

// parseRange parses a cursor; "" is the beginning. Cursors are stored by the planner and never come from a request, so a damaged part
// reads as zero.
func parseRange(cursor string) idRange {
	b := idRange{after: uuid.Nil, size: firstRange, max: wholeTable}
	parts := strings.Split(cursor, "/")
	if len(parts) > 1 {
		b.after, _ = wire.ParseUUID(parts[0])
		b.size, _ = strconv.Atoi(parts[1])
	}
	if len(parts) > 2 {
		b.max, _ = strconv.Atoi(parts[2])
	}
	return b
}

// resolveRange returns a page of one range. The requested ids of a criteria that match any are counted once, with the first page.
func (r *Resolver) resolveRange(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (page audience.Page, err error) {
	at := parseRange(after)
	var notFound int64
	if after == "" && len(c.LeadIDs) > 0 {
		if notFound, err = r.missing(ctx, c.LeadIDs); err != nil {
			return page, err
		}
	}
	for {
		err = r.withTimeout(ctx, func(ctx context.Context) (err error) {
			page, err = r.pageOfRange(ctx, c, t, at, limit)
			return err
		})
		page.NotFound = notFound
		if !errors.Is(err, audience.ErrTooSlow) || at.size <= minRange {
			return page, err
		}
		at.size = max(at.size/rangeGrowth, minRange)
		at.max = at.size
	}
}

// pageOfRange returns the matches of a range, and the next range.
func (r *Resolver) pageOfRange(ctx context.Context, c *audience.Criteria, t message.ChannelType, at idRange, limit int) (audience.Page, error) {
	var page audience.Page
	end := uuid.Nil
	if at.size < wholeTable {
		var err error
		if end, err = r.rangeEnd(ctx, at.after, at.size); err != nil {
			return page, err
		}
	}
	q := r.compiler()
	where := "leads.id > " + q.arg(at.after.String())
	if end != uuid.Nil {
		where += " AND leads.id <= " + q.arg(end.String())
	}
	where += " AND " + q.criteria(c, true)
	var err error
	if page.Candidates, err = r.candidates(ctx, q, t, where, limit); err != nil {
		return page, err
	}
	n := len(page.Candidates)
	switch {
	case n == limit: // the range may hold more
		at.after, at.size = page.Candidates[n-1].LeadID, min(max(at.size/rangeGrowth, firstRange), at.max)
	case end == uuid.Nil:
		page.Done = true
	default:
		if at.after = end; n < limit/goodYield {
			at.size = min(at.size*rangeGrowth, at.max)
		}
	}
	page.Next = at.String()
	return page, nil
}

// rangeEnd returns the last id of a range, uuid.Nil if the range reaches the end of the table.
func (r *Resolver) rangeEnd(ctx context.Context, after uuid.UUID, size int) (uuid.UUID, error) {
	q := r.compiler()
	end := uuid.Nil
	sql := "SELECT id FROM leads WHERE id > " + q.arg(after.String()) + " ORDER BY id LIMIT 1 OFFSET " + strconv.Itoa(size-1)
	err := r.query(ctx, sql, q.args, []any{&end}, func() {})
	return end, err
}

// candidates returns at most limit leads that meet a condition, with their addresses for a channel type, in the order of ids.
func (r *Resolver) candidates(ctx context.Context, q *compiler, t message.ChannelType, where string, limit int) ([]audience.Candidate, error) {
	out := make([]audience.Candidate, 0, limit)
	sql := "SELECT leads.id, " + t.Spec().Address.LeadField + " FROM leads WHERE " + where + " ORDER BY leads.id LIMIT " + strconv.Itoa(limit)
	var c audience.Candidate
	err := r.query(ctx, sql, q.args, []any{&c.LeadID, &c.Address}, func() { out = append(out, c) })
	return out, err
}

// query executes a compiled query, scans each row into the targets, and then calls each.
func (r *Resolver) query(ctx context.Context, sql string, args, into []any, each func()) error {
	if r.db.IsPostgres() {
		rows, err := r.db.SearchPool().Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, into, func() error {
			each()
			return nil
		})
		return err
	}
	rows, err := r.db.SQL().QueryContext(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		each()
	}
	return rows.Err()
}

func (r *Resolver) count(ctx context.Context, sql string, args []any) (n int64, err error) {
	err = r.query(ctx, sql, args, []any{&n}, func() {})
	return n, err
}
