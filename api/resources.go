package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

func showBulk(v *bulk.View) contract.Bulk {
	r := contract.Bulk{
		TotalLeads: v.Figures.Total, MessagesSent: v.Sent, MessagesFailed: v.Failed, SuccessRate: v.SuccessRate, BulkID: v.ID.String(),
		Status: string(v.Status), StatusReason: orNull(v.StatusReason), MessagesPending: v.Pending, MessagesUnknown: v.Unknown, LeadsNotFound: v.NotFound, FailureReasons: v.Reasons, Cost: v.Cost.Amount(),
		CreatedAt: at(&v.CreatedAt), StartedAt: at(v.StartedAt), PlannedAt: at(v.PlannedAt), CompletedAt: at(v.CompletedAt), Kind: contract.KindBulk,
		Name: orNull(v.Name), ChannelID: v.Channel.ID.String(), ChannelType: v.Channel.Type, Currency: orNull(v.Currency),
		MessageType: v.MessageType, Priority: v.Priority, Metadata: metadataOf(v.Request),
	}
	if v.Author.ID != "" {
		r.CreatedBy = &contract.BulkAuthor{KeyID: v.Author.ID, Name: v.Author.Name}
	}
	if r.FailureReasons == nil {
		r.FailureReasons = map[message.Reason]int64{}
	}
	if v.ChannelState != "" {
		r.Channel = &contract.BulkChannel{ID: v.Channel.ID.String(), Type: v.Channel.Type, State: string(v.ChannelState), StateReason: orNull(v.ChannelReason)}
	}
	return r
}

// metadataOf returns the metadata in the request of a bulk, null if it has none.
func metadataOf(stored json.RawMessage) json.RawMessage {
	var r struct {
		Data struct {
			Metadata json.RawMessage `json:"metadata"`
		} `json:"message_data"`
	}
	if json.Unmarshal(stored, &r) != nil || len(r.Data.Metadata) == 0 {
		return json.RawMessage("null")
	}
	return r.Data.Metadata
}

// changeBulk returns the handler that pauses, resumes or cancels a bulk.
func (s *Server) changeBulk(change func(context.Context, uuid.UUID) (*bulk.View, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		id, err := request.PathID(c)
		if err != nil {
			return err
		}
		v, err := change(c.Request().Context(), id)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, shownBulk(c, v))
	}
}

// shownBulk returns the answer to a write: ids and figures. The reason of a paused channel is free text of a person or a
// provider, and name, metadata and author are of the key that sent the bulk, so only a key with the scope read gets them.
func shownBulk(c echo.Context, v *bulk.View) contract.Bulk {
	r := showBulk(v)
	if request.Allowed(c, access.Read) {
		return r
	}
	r.Name, r.Metadata, r.CreatedBy = nil, json.RawMessage("null"), nil
	if r.Channel != nil {
		r.Channel.StateReason = nil
	}
	return r
}

func (s *Server) getBulk(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	v, err := s.deps.Bulks.Get(c.Request().Context(), id)
	if err != nil {
		return err
	}
	r := showBulk(v)
	r.Request = v.Request
	return c.JSON(http.StatusOK, r)
}

// Bounds of texts in characters.
const (
	maxBulkName = 200
	maxKeyID    = 100
)

func (s *Server) listBulks(c echo.Context) error {
	errs := &wire.Errors{}
	q := request.NewQuery(c, errs)
	f := bulk.Filter{
		Name: q.Text("name", maxBulkName), ChannelType: q.ChannelType("channel_type"), KeyID: q.Text("created_by", maxKeyID),
		CreatedAfter: q.Time("created_after"), CreatedBefore: q.Time("created_before"),
	}
	if v := q.Get("status"); v != "" {
		var ok bool
		if f.Status, ok = bulk.ParseStatus(v); !ok {
			errs.Add(message.SlugEnum, "is no status of a bulk", "query", "status")
		}
	}
	limit, before := q.PageByID()
	if err := q.Close(); err != nil {
		return err
	}
	views, err := s.deps.Bulks.List(c.Request().Context(), f, before, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(q, views, limit, showBulk, func(v *bulk.View) string { return v.ID.String() }))
}

func showMessage(m *message.Message) contract.Message {
	r := contract.Message{
		ID: m.ID.String(), BulkID: idOrNull(m.BulkID), LeadID: idOrNull(m.LeadID), ChannelID: m.ChannelID.String(), ChannelType: m.ChannelType,
		Provider: m.Provider, Recipient: orNull(m.Recipient), MessageType: m.MessageType, Priority: m.Priority, Status: m.Status,
		Reason: orNull(string(m.Reason)), Error: m.Failure, ProviderMessageID: orNull(m.ProviderMessageID), Cost: m.Cost.Amount(),
		Metadata: m.Metadata, Attachments: make([]contract.AttachedFile, len(m.Attachments)), CreatedAt: at(&m.CreatedAt), ScheduledAt: at(m.ScheduledAt), SentAt: at(m.SentAt), UpdatedAt: at(&m.UpdatedAt),
	}
	if len(r.Metadata) == 0 {
		r.Metadata = json.RawMessage("null")
	}
	for i, a := range m.Attachments {
		r.Attachments[i] = contract.AttachedFile(a)
	}
	return r
}

func (s *Server) getMessage(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	m, attempts, err := s.deps.Messages.Message(c.Request().Context(), id)
	if err != nil {
		return err
	}
	r := showMessage(m)
	r.Attempts, r.Receipts = make([]contract.Attempt, len(attempts)), []contract.Receipt{}
	for i := range attempts {
		a := &attempts[i]
		r.Attempts[i] = contract.Attempt{N: a.N, Part: a.Part, StartedAt: at(&a.StartedAt), EndedAt: at(&a.EndedAt), Outcome: a.Outcome, Code: orNull(a.Code)}
		if a.HTTPStatus != 0 {
			r.Attempts[i].HTTPStatus = &a.HTTPStatus
		}
	}
	return c.JSON(http.StatusOK, r)
}

func (s *Server) listMessages(c echo.Context) error {
	errs := &wire.Errors{}
	q := request.NewQuery(c, errs)
	f := message.Filter{
		BulkID: q.UUID("bulk_id"), LeadID: q.UUID("lead_id"), CreatedAfter: q.Time("created_after"), CreatedBefore: q.Time("created_before"),
		UpdatedAfter: q.Time("updated_after"), Failed: q.Bool("failed"),
		Statuses: request.Among(q, "status", "is no status of a message", message.ParseStatus),
		Reasons:  request.Among(q, "reason", "is no reason of a message", message.ParseReason),
	}
	f.ChannelType, f.Recipient = q.ChannelType("channel_type"), q.Address("recipient")
	limit, before := q.PageByID()
	if err := q.Close(); err != nil {
		return err
	}
	items, err := s.deps.Messages.Messages(c.Request().Context(), f, before, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(q, items, limit, showMessage, func(m *message.Message) string { return m.ID.String() }))
}
