package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/wire"
)

type bulkResponse struct {
	TotalLeads      int64                    `json:"total_leads"`
	MessagesSent    int64                    `json:"messages_sent"`
	MessagesFailed  int64                    `json:"messages_failed"`
	SuccessRate     float64                  `json:"success_rate"`
	BulkID          string                   `json:"bulk_id"`
	Status          bulk.Status              `json:"status"`
	MessagesPending int64                    `json:"messages_pending"`
	MessagesUnknown int64                    `json:"messages_unknown"`
	LeadsNotFound   int64                    `json:"leads_not_found"`
	FailureReasons  map[message.Reason]int64 `json:"failure_reasons"`
	Cost            float64                  `json:"cost"`
	CreatedAt       *string                  `json:"created_at"`
	StartedAt       *string                  `json:"started_at"`
	CompletedAt     *string                  `json:"completed_at"`
	Channel         *bulkChannel             `json:"channel"`
	Request         json.RawMessage          `json:"request,omitempty"`
}

// bulkChannel tells, until a bulk is over, what it may be waiting for.
type bulkChannel struct {
	ID     string        `json:"id"`
	Type   message.Type  `json:"type"`
	State  channel.State `json:"state"`
	Reason *string       `json:"state_reason"`
}

func showBulk(v *bulk.View) bulkResponse {
	r := bulkResponse{
		TotalLeads: v.Figures.Total, MessagesSent: v.Sent, MessagesFailed: v.Failed, SuccessRate: v.SuccessRate, BulkID: v.ID.String(),
		Status: v.Status, MessagesPending: v.Pending, MessagesUnknown: v.Unknown, LeadsNotFound: v.NotFound, FailureReasons: v.Reasons, Cost: v.Cost.Amount(),
		CreatedAt: at(&v.CreatedAt), StartedAt: at(v.StartedAt), CompletedAt: at(v.CompletedAt),
	}
	if r.FailureReasons == nil {
		r.FailureReasons = map[message.Reason]int64{}
	}
	if v.ChannelState != "" {
		r.Channel = &bulkChannel{v.Channel.ID.String(), v.Channel.Type, v.ChannelState, orNull(v.ChannelReason)}
	}
	return r
}

// changeBulk answers a request that pauses, resumes or cancels a bulk. It takes no body.
func (s *Server) changeBulk(change func(context.Context, uuid.UUID) (*bulk.View, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		id, err := pathID(c)
		if err != nil {
			return err
		}
		v, err := change(c.Request().Context(), id)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, showBulk(v))
	}
}

func (s *Server) getBulk(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	v, err := s.Bulks.Get(c.Request().Context(), id)
	if err != nil {
		return err
	}
	r := showBulk(v)
	r.Request = v.Request
	return c.JSON(http.StatusOK, r)
}

func (s *Server) listBulks(c echo.Context) error {
	q := newQuery(c, &wire.Errors{})
	limit, before := q.pageByID()
	if err := q.close(); err != nil {
		return err
	}
	views, err := s.Bulks.List(c.Request().Context(), before, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(views, limit, showBulk, func(v *bulk.View) string { return v.ID.String() }))
}

type attemptResponse struct {
	N          int     `json:"n"`
	Part       int     `json:"part"`
	StartedAt  *string `json:"started_at"`
	EndedAt    *string `json:"ended_at"`
	Outcome    string  `json:"outcome"`
	HTTPStatus *int    `json:"http_status"`
	Code       *string `json:"code"`
}

type messageResponse struct {
	ID                string            `json:"id"`
	BulkID            *string           `json:"bulk_id"`
	LeadID            *string           `json:"lead_id"`
	ChannelID         string            `json:"channel_id"`
	ChannelType       message.Type      `json:"channel_type"`
	Provider          string            `json:"provider"`
	Recipient         string            `json:"recipient"`
	MessageType       message.Purpose   `json:"message_type"`
	Priority          message.Priority  `json:"priority"`
	Status            message.Status    `json:"status"`
	Reason            *string           `json:"reason"`
	Error             *message.Failure  `json:"error"`
	Attempts          []attemptResponse `json:"attempts,omitzero"`
	Receipts          []struct{}        `json:"receipts,omitzero"`
	ProviderMessageID *string           `json:"provider_message_id"`
	Cost              float64           `json:"cost"`
	Metadata          json.RawMessage   `json:"metadata"`
	CreatedAt         *string           `json:"created_at"`
	ScheduledAt       *string           `json:"scheduled_at"`
	SentAt            *string           `json:"sent_at"`
	UpdatedAt         *string           `json:"updated_at"`
}

func showMessage(m *message.Message) messageResponse {
	r := messageResponse{
		ID: m.ID.String(), BulkID: idOrNull(m.BulkID), LeadID: idOrNull(m.LeadID), ChannelID: m.ChannelID.String(), ChannelType: m.Type,
		Provider: m.Provider, Recipient: m.Recipient, MessageType: m.Purpose, Priority: m.Priority, Status: m.Status,
		Reason: orNull(string(m.Reason)), Error: m.Failure, ProviderMessageID: orNull(m.ProviderMessageID), Cost: m.Cost.Amount(),
		Metadata: m.Metadata, CreatedAt: at(&m.CreatedAt), ScheduledAt: at(m.ScheduledAt), SentAt: at(m.SentAt), UpdatedAt: at(&m.UpdatedAt),
	}
	if len(r.Metadata) == 0 {
		r.Metadata = json.RawMessage("null")
	}
	return r
}

func (s *Server) getMessage(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	m, attempts, err := s.Messages.Message(c.Request().Context(), id)
	if err != nil {
		return err
	}
	r := showMessage(m)
	r.Attempts, r.Receipts = make([]attemptResponse, len(attempts)), []struct{}{}
	for i := range attempts {
		a := &attempts[i]
		r.Attempts[i] = attemptResponse{N: a.N, Part: a.Part, StartedAt: at(&a.StartedAt), EndedAt: at(&a.EndedAt), Outcome: a.Outcome, Code: orNull(a.Code)}
		if a.HTTPStatus != 0 {
			r.Attempts[i].HTTPStatus = &a.HTTPStatus
		}
	}
	return c.JSON(http.StatusOK, r)
}

func (s *Server) listMessages(c echo.Context) error {
	errs := &wire.Errors{}
	q := newQuery(c, errs)
	f := message.Filter{
		BulkID: q.uuid("bulk_id"), LeadID: q.uuid("lead_id"), CreatedAfter: q.time("created_after"), CreatedBefore: q.time("created_before"),
	}
	if v := q.get("status"); v != "" {
		var ok bool
		if f.Status, ok = message.ParseStatus(v); !ok {
			errs.Add(message.SlugEnum, "is no status of a message", "query", "status")
		}
	}
	f.Type, f.Recipient = q.messageType("channel_type"), q.address("recipient")
	limit, before := q.pageByID()
	if err := q.close(); err != nil {
		return err
	}
	items, err := s.Messages.Messages(c.Request().Context(), f, before, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(items, limit, showMessage, func(m *message.Message) string { return m.ID.String() }))
}
