package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// addressColumn is where a lead's address of a type stands.
var addressColumn = map[message.Type]string{message.Email: "email", message.SMS: "phone", message.InstagramDM: "instagram_id"}

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

// Resolve implements audience.Resolver. The cursor is a position in the request's ids where these decide, else the last
// id looked at and the size of the next slab.
func (s *Store) Resolve(ctx context.Context, c *audience.Criteria, t message.Type, after string, limit int) (audience.Page, error) {
	var (
		page audience.Page
		err  error
	)
	if len(c.LeadIDs) > 0 && !c.Any {
		page, err = s.resolveIDs(ctx, c, t, after, limit)
	} else {
		page, err = s.resolveSlab(ctx, c, t, after, limit)
	}
	return page, fail("resolve the audience", err)
}

func (s *Store) resolveIDs(ctx context.Context, c *audience.Criteria, t message.Type, after string, limit int) (audience.Page, error) {
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

func (s *Store) resolveSlab(ctx context.Context, c *audience.Criteria, t message.Type, after string, limit int) (audience.Page, error) {
	var page audience.Page
	last, size := uuid.Nil, firstSlab
	if id, rest, ok := strings.Cut(after, "/"); ok {
		last, _ = wire.ParseUUID(id)
		size, _ = strconv.Atoi(rest)
	}
	if after == "" && len(c.LeadIDs) > 0 {
		missing, err := s.missing(ctx, c.LeadIDs)
		if err != nil {
			return page, err
		}
		page.NotFound = missing
	}
	end := uuid.Nil
	if size < wholeTable {
		var err error
		if end, err = s.slabEnd(ctx, last, size); err != nil {
			return page, err
		}
	}
	q := &compiler{postgres: s.pools != nil}
	where := "leads.id > " + q.arg(last.String())
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
		last, size = page.Candidates[n-1].LeadID, max(size/slabGrowth, firstSlab)
	case end == uuid.Nil:
		page.Done = true
	default:
		if last = end; n < limit/goodYield {
			size = min(size*slabGrowth, wholeTable)
		}
	}
	page.Next = last.String() + "/" + strconv.Itoa(size)
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

func (s *Store) candidates(ctx context.Context, q *compiler, t message.Type, where string, limit int) ([]audience.Candidate, error) {
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
