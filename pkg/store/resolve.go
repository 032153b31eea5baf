package store

import (
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
	"herald/pkg/wire"
)

// addressColumn is where a lead's address of a type stands.
var addressColumn = map[message.ChannelType]string{message.Email: "email", message.SMS: "phone", message.InstagramDM: "instagram_id"}

// A page of a filter looks at a slab of leads, a range of ids, and takes from it those that match. The cost of a page
// is that of its slab, however many leads match in all. A slab that yields little is followed by a larger one, until the
// database is free to find the few that match by index; one that fills its page is followed by a smaller one, so that a
// filter that matches many is walked in the order of ids and never sorted whole.
const (
	firstSlab  = 20_000
	slabGrowth = 8
	wholeTable = firstSlab * slabGrowth * slabGrowth // from this size on a slab has no end
	goodYield  = 8                                   // a slab is good when it fills this part of a page
)

// A page that the database gives up is tried again over a part of the leads, down to leastSlab of them: more leads than
// that are never worth a page that takes longer than pageTime. What was found to be too large is not tried again: the
// cursor carries it.
const (
	leastSlab = firstSlab / slabGrowth / slabGrowth // 312 leads
	leastIDs  = 10
	pageTime  = 10 * time.Second
)

// Resolve implements audience.Resolver. The cursor is a position in the request's ids where these decide, and how many of
// them a page may have; else the last id looked at, the size of the next slab, and the largest size that slabs may have.
func (s *Store) Resolve(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	var (
		page audience.Page
		err  error
	)
	if len(c.LeadIDs) > 0 && !c.Any {
		page, err = s.resolveIDs(ctx, c, t, after, limit)
	} else {
		page, err = s.resolveSlab(ctx, c, t, after, limit)
	}
	if errors.Is(err, audience.ErrTooSlow) {
		return page, err
	}
	return page, fail("resolve the audience", err)
}

// patiently runs a part of a page, and says audience.ErrTooSlow when the database gave it up. PostgreSQL does by itself;
// SQLite is told to.
func (s *Store) patiently(ctx context.Context, part func(ctx context.Context) error) error {
	pctx := ctx
	if s.pools == nil {
		var cancel context.CancelFunc
		pctx, cancel = context.WithTimeout(ctx, s.pageTime)
		defer cancel()
	}
	err := part(pctx)
	gaveUp := pgCode(err) == pgerrcode.QueryCanceled
	if err != nil && ctx.Err() == nil && (gaveUp || pctx.Err() != nil) {
		return audience.ErrTooSlow
	}
	return err
}

func (s *Store) resolveIDs(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (page audience.Page, err error) {
	at, most, shrunk := strings.Cut(after, "/")
	if n, err := strconv.Atoi(most); err == nil {
		limit = min(limit, n)
	}
	for {
		err = s.patiently(ctx, func(ctx context.Context) (err error) {
			page, err = s.pageOfIDs(ctx, c, t, at, limit)
			return err
		})
		if !errors.Is(err, audience.ErrTooSlow) || limit <= leastIDs {
			break
		}
		limit, shrunk = max(limit/slabGrowth, leastIDs), true
	}
	if shrunk {
		page.Next += "/" + strconv.Itoa(limit)
	}
	return page, err
}

func (s *Store) pageOfIDs(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	from, _ := strconv.Atoi(after) // empty is the beginning
	to := min(from+limit, len(c.LeadIDs))
	page := audience.Page{Next: strconv.Itoa(to), Done: to == len(c.LeadIDs)}
	ids := c.LeadIDs[min(from, to):to]
	if len(ids) == 0 {
		return page, nil
	}
	q := &compiler{postgres: s.pools != nil}
	where := q.ids(ids) + " AND " + q.criteria(c, false)
	var err error
	if page.Candidates, err = s.candidates(ctx, q, t, where, limit); err != nil {
		return page, err
	}
	if missing := len(ids) - len(page.Candidates); missing > 0 {
		page.NotFound, err = s.missing(ctx, ids)
	}
	return page, err
}

// missing counts the ids that are no lead's.
func (s *Store) missing(ctx context.Context, ids []uuid.UUID) (int64, error) {
	q := &compiler{postgres: s.pools != nil}
	n, err := s.count(ctx, "SELECT count(*) FROM leads WHERE "+q.ids(ids), q.args)
	return int64(len(ids)) - n, err
}

// slab is where a walk over the leads stands.
type slab struct {
	last uuid.UUID // the last id looked at
	size int       // of the next slab
	most int       // that slabs may have: wholeTable until the database gave one up
}

func (b slab) String() string {
	cursor := b.last.String() + "/" + strconv.Itoa(b.size)
	if b.most < wholeTable {
		cursor += "/" + strconv.Itoa(b.most)
	}
	return cursor
}

func parseSlab(cursor string) slab {
	b := slab{last: uuid.Nil, size: firstSlab, most: wholeTable}
	parts := strings.Split(cursor, "/")
	if len(parts) > 1 {
		b.last, _ = wire.ParseUUID(parts[0])
		b.size, _ = strconv.Atoi(parts[1])
	}
	if len(parts) > 2 {
		b.most, _ = strconv.Atoi(parts[2])
	}
	return b
}

func (s *Store) resolveSlab(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (page audience.Page, err error) {
	at := parseSlab(after)
	var notFound int64
	if after == "" && len(c.LeadIDs) > 0 {
		if notFound, err = s.missing(ctx, c.LeadIDs); err != nil {
			return page, err
		}
	}
	for {
		err = s.patiently(ctx, func(ctx context.Context) (err error) {
			page, err = s.pageOfSlab(ctx, c, t, at, limit)
			return err
		})
		page.NotFound = notFound
		if !errors.Is(err, audience.ErrTooSlow) || at.size <= leastSlab {
			return page, err
		}
		at.size = max(at.size/slabGrowth, leastSlab)
		at.most = at.size
	}
}

func (s *Store) pageOfSlab(ctx context.Context, c *audience.Criteria, t message.ChannelType, at slab, limit int) (audience.Page, error) {
	var page audience.Page
	end := uuid.Nil
	if at.size < wholeTable {
		var err error
		if end, err = s.slabEnd(ctx, at.last, at.size); err != nil {
			return page, err
		}
	}
	q := &compiler{postgres: s.pools != nil}
	where := "leads.id > " + q.arg(at.last.String())
	if end != uuid.Nil {
		where += " AND leads.id <= " + q.arg(end.String())
	}
	where += " AND " + q.criteria(c, true)
	var err error
	if page.Candidates, err = s.candidates(ctx, q, t, where, limit); err != nil {
		return page, err
	}
	n := len(page.Candidates)
	switch {
	case n == limit: // there may be more in this slab
		at.last, at.size = page.Candidates[n-1].LeadID, min(max(at.size/slabGrowth, firstSlab), at.most)
	case end == uuid.Nil:
		page.Done = true
	default:
		if at.last = end; n < limit/goodYield {
			at.size = min(at.size*slabGrowth, at.most)
		}
	}
	page.Next = at.String()
	return page, nil
}

// slabEnd returns the last id of a slab, uuid.Nil when it reaches to the end.
func (s *Store) slabEnd(ctx context.Context, after uuid.UUID, size int) (uuid.UUID, error) {
	q := &compiler{postgres: s.pools != nil}
	var ids []uuid.UUID
	err := s.rows(ctx, "SELECT id FROM leads WHERE id > "+q.arg(after.String())+" ORDER BY id LIMIT 1 OFFSET "+strconv.Itoa(size-1), q.args,
		func(id uuid.UUID, _ string) { ids = append(ids, id) }, false)
	if len(ids) == 0 {
		return uuid.Nil, err
	}
	return ids[0], err
}

func (s *Store) candidates(ctx context.Context, q *compiler, t message.ChannelType, where string, limit int) ([]audience.Candidate, error) {
	out := make([]audience.Candidate, 0, limit)
	sql := "SELECT leads.id, " + addressColumn[t] + " FROM leads WHERE " + where + " ORDER BY leads.id LIMIT " + strconv.Itoa(limit)
	err := s.rows(ctx, sql, q.args, func(id uuid.UUID, address string) {
		out = append(out, audience.Candidate{LeadID: id, Address: address})
	}, true)
	return out, err
}

// rows runs a compiled query that yields ids, and a text with each where there is one.
func (s *Store) rows(ctx context.Context, sql string, args []any, each func(id uuid.UUID, text string), withText bool) error {
	var (
		id   uuid.UUID
		text string
	)
	into := []any{&id, &text}
	if !withText {
		into = into[:1]
	}
	if s.pools != nil {
		rows, err := s.pools.search.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, into, func() error {
			each(id, text)
			return nil
		})
		return err
	}
	rows, err := s.sql.QueryContext(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		each(id, text)
	}
	return rows.Err()
}

func (s *Store) count(ctx context.Context, sql string, args []any) (n int64, err error) {
	if s.pools != nil {
		err = s.pools.search.QueryRow(ctx, sql, args...).Scan(&n)
	} else {
		err = s.sql.QueryRowContext(ctx, sql, args...).Scan(&n)
	}
	return n, err
}

// CountLeads counts the leads that criteria describe, in one statement.
func (s *Store) CountLeads(ctx context.Context, c *audience.Criteria) (int64, error) {
	q := &compiler{postgres: s.pools != nil}
	n, err := s.count(ctx, "SELECT count(*) FROM leads WHERE "+q.criteria(c, true), q.args)
	return n, fail("count the leads", err)
}
