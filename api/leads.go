package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/contract"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/wire"
)

func showLead(l *message.Lead) contract.Lead {
	r := contract.Lead{
		ID: l.ID.String(), Tags: append([]string{}, l.Tags...), CustomFields: l.CustomFields,
		CreatedAt: at(&l.CreatedAt), UpdatedAt: at(&l.UpdatedAt), LastContactedAt: at(l.LastContactedAt),
	}
	for _, f := range l.TextFields() {
		r.SetText(f.Name, *f.Value)
	}
	if r.CustomFields == nil {
		r.CustomFields = map[string]any{}
	}
	return r
}

func (s *Server) createLead(c echo.Context) error {
	o, errs, err := request.ReadJSON[contract.NewLead](c)
	if err != nil {
		return err
	}
	l := lead.Parse(o.Object)
	if err := errs.Err(); err != nil {
		return err
	}
	if err := s.deps.Leads.Create(c.Request().Context(), l); err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/leads/"+l.ID.String())
	setTag(c, leadTag(l.UpdatedAt))
	return c.JSON(http.StatusCreated, shownLead(c, l))
}

// shownLead returns the answer to a write: the lead for a key with the scope read, its id for others.
func shownLead(c echo.Context, l *message.Lead) any {
	if !request.Allowed(c, access.Read) {
		return contract.LeadRef{ID: l.ID.String()}
	}
	return showLead(l)
}

func (s *Server) getLead(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	l, err := s.deps.Leads.Get(c.Request().Context(), id)
	if err != nil {
		return err
	}
	setTag(c, leadTag(l.UpdatedAt))
	return c.JSON(http.StatusOK, showLead(l))
}

func (s *Server) listLeads(c echo.Context) error {
	q := request.NewQuery(c, &wire.Errors{})
	f := leadFilter(q)
	limit, after := q.PageByID()
	if err := q.Close(); err != nil {
		return err
	}
	items, err := s.deps.Leads.List(c.Request().Context(), f, after, limit+1)
	if errors.Is(err, audience.ErrTooSlow) {
		return message.InvalidField(message.SlugValue, "the search takes too long: add a filter that fewer leads match", "query")
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(q, items, limit, showLead, func(l *message.Lead) string { return l.ID.String() }))
}

// leadFilter reads the filters of a list of leads.
func leadFilter(q *request.Query) lead.Filter {
	f := lead.Filter{
		Email: q.Text("email", lead.MaxText), Phone: q.Phone("phone", lead.MaxText), InstagramID: q.Text("instagram_id", lead.MaxText),
		AssigneeID: q.Text("assignee_id", lead.MaxText), Tag: q.Text("tag", lead.MaxTag), Status: q.Text("status", lead.MaxText),
		Search: q.Text("search", audience.MaxKeyword), CreatedAfter: q.Time("created_after"), CreatedBefore: q.Time("created_before"),
		UpdatedAfter: q.Time("updated_after"),
	}
	if f.Search != "" && len(audience.Words(f.Search)) == 0 {
		q.Errs.Add(message.SlugTooShort, "must have at least one word", "query", "search")
	}
	return f
}

func (s *Server) patchLead(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	unchanged, err := precondition(c, "lead")
	if err != nil {
		return err
	}
	o, errs, err := request.ReadJSON[contract.LeadPatch](c)
	if err != nil {
		return err
	}
	l, err := s.deps.Leads.Update(c.Request().Context(), id, func(l *message.Lead) error {
		if err := unchanged(leadTag(l.UpdatedAt)); err != nil {
			return err
		}
		lead.Patch(o.Object, l)
		return errs.Err()
	})
	if err != nil {
		return err
	}
	setTag(c, leadTag(l.UpdatedAt))
	return c.JSON(http.StatusOK, shownLead(c, l))
}

func (s *Server) eraseLead(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	unchanged, err := precondition(c, "lead")
	if err != nil {
		return err
	}
	if err := s.deps.Leads.Erase(c.Request().Context(), id, func(updated time.Time) error { return unchanged(leadTag(updated)) }); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
