package api

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

func showSuppression(s *message.Suppression) contract.Suppression {
	return contract.Suppression{
		ID: s.ID.String(), Type: s.Type, Address: orNull(s.Address), Reason: s.Reason, MessageTypes: s.MessageTypes, Note: orNull(s.Note),
		CreatedAt: at(&s.CreatedAt),
	}
}

func (s *Server) createSuppression(c echo.Context) error {
	o, errs, err := request.ReadJSON[contract.NewSuppression](c)
	if err != nil {
		return err
	}
	o.Require("type", "address")
	sup := &message.Suppression{
		Type: request.Enum(o, "type", "", message.ParseChannelType, message.ChannelTypes), Address: o.String("address"), Note: o.String("note"),
		Reason: request.Enum(o, "reason", message.ManuallySuppressed, parseSuppressionReason, message.SuppressionReasons),
	}
	for i, name := range o.Words("message_types") {
		p, ok := message.ParseMessageType(name)
		if !ok {
			o.Fail(message.SlugEnum, "must be TRANSACTIONAL, MARKETING or NOTIFICATION", "message_types", i)
		}
		sup.MessageTypes = append(sup.MessageTypes, p)
	}
	if list, _ := o.Raw("message_types"); list != nil && len(sup.MessageTypes) == 0 && len(errs.List()) == 0 {
		o.Fail(message.SlugListShort, "must have at least 1 element; without the field the reason decides", "message_types")
	}
	o.Close()
	if err := errs.Err(); err != nil {
		return err
	}
	if err := s.deps.Leads.Suppress(c.Request().Context(), sup); err != nil {
		return request.Under(err, "body")
	}
	if !request.Allowed(c, access.Read) { // the entry may be an older one, whose note and address the key must not read
		return c.JSON(http.StatusCreated, contract.SuppressionRef{ID: sup.ID.String()})
	}
	return c.JSON(http.StatusCreated, showSuppression(sup))
}

func parseSuppressionReason(s string) (message.Reason, bool) {
	for _, r := range message.SuppressionReasons {
		if strings.EqualFold(string(r), s) {
			return r, true
		}
	}
	return "", false
}

func (s *Server) listSuppressions(c echo.Context) error {
	errs := &wire.Errors{}
	q := request.NewQuery(c, errs)
	f := message.SuppressionFilter{Type: q.ChannelType("type"), Address: q.Address("address"), CreatedAfter: q.Time("created_after")}
	if v := q.Get("reason"); v != "" {
		var ok bool
		if f.Reason, ok = parseSuppressionReason(v); !ok {
			errs.Add(message.SlugEnum, "is no reason of a suppression", "query", "reason")
		}
	}
	limit, before := q.PageByID()
	if err := q.Close(); err != nil {
		return err
	}
	items, err := s.deps.Leads.ListSuppressions(c.Request().Context(), f, before, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(q, items, limit, showSuppression, func(s *message.Suppression) string { return s.ID.String() }))
}

func (s *Server) deleteSuppression(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	if err := s.deps.Leads.DropSuppression(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
