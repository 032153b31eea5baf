package search

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
)

// Matching returns at most limit leads with ids above after that meet criteria, in the order of their ids. It returns
// audience.ErrTooSlow if the database exceeds its time limit.
//
// A page of a list is small. With LIMIT alone PostgreSQL walks the primary key in the hope of early matches, which for a
// rare tag is the whole table. So the walk reads one range of ids, and matches beyond it are searched without an order, by the
// indexes that the criteria have, and sorted. A range that fills its page shows that matches are frequent, and ends there.
// An email or a phone has so few leads that its index is always the shorter way.
func (r *Resolver) Matching(ctx context.Context, c *audience.Criteria, after uuid.UUID, limit int) ([]message.Lead, error) {
	var leads []message.Lead
	err := r.withTimeout(ctx, func(ctx context.Context) (err error) {
		if !namesAddress(c.Filter) {
			var end uuid.UUID
			if end, err = r.rangeEnd(ctx, after, firstRange); err != nil {
				return err
			}
			if leads, err = r.walkLeads(ctx, c, after, end, limit); err != nil || len(leads) == limit || end == uuid.Nil {
				return err
			}
			after = end
		}
		rest, err := r.searchLeads(ctx, c, after, limit-len(leads))
		leads = append(leads, rest...)
		return err
	})
	if errors.Is(err, audience.ErrTooSlow) {
		return nil, err
	}
	return leads, store.WrapError("list leads", err)
}

// namesAddress reports whether a filter is met only by leads with a given email or phone.
func namesAddress(n *audience.Node) bool {
	return n != nil && !n.Or && slices.ContainsFunc(n.Children, func(child audience.Node) bool {
		return child.Cond != nil && child.Cond.Op == audience.In && (child.Cond.Field == "email" || child.Cond.Field == "phone")
	})
}

// walkLeads returns the first leads of a range of ids that meet criteria. A range whose end is uuid.Nil has none.
func (r *Resolver) walkLeads(ctx context.Context, c *audience.Criteria, after, end uuid.UUID, limit int) ([]message.Lead, error) {
	q := r.compiler()
	where := "leads.id > " + q.arg(after.String())
	if end != uuid.Nil {
		where += " AND leads.id <= " + q.arg(end.String())
	}
	where += " AND " + q.criteria(c, true)
	return r.wholeLeads(ctx, "SELECT "+store.WholeLeadColumns+" FROM leads WHERE "+where+" ORDER BY leads.id LIMIT "+strconv.Itoa(limit), q.args, limit)
}

// searchLeads returns the first leads above an id that meet criteria.
func (r *Resolver) searchLeads(ctx context.Context, c *audience.Criteria, after uuid.UUID, limit int) ([]message.Lead, error) {
	q := r.compiler()
	return r.wholeLeads(ctx, q.list(c, after, limit), q.args, limit)
}

// list compiles a search for the first leads above an id that meet criteria. MATERIALIZED keeps the order of the page out of the
// plan of the search.
func (c *compiler) list(a *audience.Criteria, after uuid.UUID, limit int) string {
	return "WITH found AS MATERIALIZED (SELECT leads.id FROM leads WHERE leads.id > " + c.arg(after.String()) + " AND " + c.criteria(a, true) + ") " +
		"SELECT " + store.WholeLeadColumns + " FROM leads WHERE id IN (SELECT id FROM found ORDER BY id LIMIT " + strconv.Itoa(limit) + ") ORDER BY id"
}

// wholeLeads returns the leads of a query. What cannot be decoded is absent, as in store.ReadLeads.
func (r *Resolver) wholeLeads(ctx context.Context, sql string, args []any, limit int) ([]message.Lead, error) {
	leads := make([]message.Lead, 0, limit)
	var row store.LeadScan
	err := r.query(ctx, sql, args, row.WholeTargets(), func() {
		l, _ := row.Next()
		leads = append(leads, *l)
	})
	return leads, err
}
