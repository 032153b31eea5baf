package api

import (
	"encoding/json"
	"net/http"

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
	LeadsNotFound   int64                    `json:"leads_not_found"`
	FailureReasons  map[message.Reason]int64 `json:"failure_reasons"`
	Cost            float64                  `json:"cost"`
	CreatedAt       *string                  `json:"created_at"`
	StartedAt       *string                  `json:"started_at"`
	CompletedAt     *string                  `json:"completed_at"`
	Request         json.RawMessage          `json:"request,omitempty"`
}

func showBulk(v *bulk.View) bulkResponse {
	r := bulkResponse{
		TotalLeads: v.Figures.Total, MessagesSent: v.Sent, MessagesFailed: v.Failed, SuccessRate: v.SuccessRate, BulkID: v.ID.String(),
		Status: v.Status, MessagesPending: v.Pending, LeadsNotFound: v.NotFound, FailureReasons: v.Reasons, Cost: v.Cost.Amount(),
		CreatedAt: at(&v.CreatedAt), StartedAt: at(v.StartedAt), CompletedAt: at(v.CompletedAt),
	}
	if r.FailureReasons == nil {
		r.FailureReasons = map[message.Reason]int64{}
	}
	return r
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
	if v := q.get("channel_type"); v != "" {
		var ok bool
		if f.Type, ok = message.ParseType(v); !ok {
			errs.Add(message.SlugEnum, "must be EMAIL, SMS or INSTAGRAM_DM", "query", "channel_type")
		}
	}
	if v := q.get("recipient"); v != "" {
		f.Recipient = v
		if t, ok := message.TypeOfRecipient(v); ok {
			f.Recipient, _ = message.ValidRecipient(t, v)
		}
		if f.Recipient == "" {
			errs.Add(message.SlugValue, "is no address", "query", "recipient")
		}
	}
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

type channelResponse struct {
	ID             string            `json:"id"`
	Type           message.Type      `json:"type"`
	Provider       string            `json:"provider"`
	Name           string            `json:"name"`
	Sender         string            `json:"sender"`
	SenderName     *string           `json:"sender_name"`
	AllowedSenders []string          `json:"allowed_senders"`
	Credentials    map[string]string `json:"credentials"`
	Price          float64           `json:"price"`
	PriceMedia     float64           `json:"price_media"`
	Currency       string            `json:"currency"`
	RatePerSecond  *float64          `json:"rate_per_second"`
	Default        bool              `json:"default"`
	OnUnknown      channel.Policy    `json:"on_unknown"`
	BaseURL        *string           `json:"base_url"`
	Region         *string           `json:"region"`
	State          channel.State     `json:"state"`
	StateReason    *string           `json:"state_reason"`
	CreatedAt      *string           `json:"created_at"`
	UpdatedAt      *string           `json:"updated_at"`
}

func showChannel(c *channel.Channel) channelResponse {
	r := channelResponse{
		ID: c.ID.String(), Type: c.Type, Provider: c.Provider, Name: c.Name, Sender: c.Sender, SenderName: orNull(c.SenderName),
		AllowedSenders: append([]string{}, c.AllowedSenders...), Credentials: map[string]string{}, Price: c.Price.Amount(),
		PriceMedia: c.PriceMedia.Amount(), Currency: c.Currency, Default: c.Default, OnUnknown: c.OnUnknown, BaseURL: orNull(c.BaseURL),
		Region: orNull(c.Region), State: c.State, StateReason: orNull(c.StateReason), CreatedAt: at(&c.CreatedAt), UpdatedAt: at(&c.UpdatedAt),
	}
	for name, secret := range c.Credentials {
		r.Credentials[name] = secret.Hint()
	}
	if c.RatePerSecond > 0 {
		r.RatePerSecond = &c.RatePerSecond
	}
	return r
}

const (
	maxName           = 200
	maxAllowedSenders = 100
	maxCredential     = 4_096
)

func parseChannel(o *wire.Object) *channel.Channel {
	c := &channel.Channel{
		Key: channel.Key{ID: o.UUID("id")}, Provider: o.String("provider", maxName), Name: o.String("name", maxName),
		Sender: o.String("sender", maxRecipient), SenderName: o.String("sender_name", message.MaxSenderName),
		AllowedSenders: o.Strings("allowed_senders", maxAllowedSenders, maxRecipient), Currency: o.String("currency", 3),
		Default: o.Bool("default"), OnUnknown: channel.Policy(o.String("on_unknown", maxName)), BaseURL: o.String("base_url", message.MaxURL),
		Region: o.String("region", 2), State: channel.State(o.String("state", maxName)),
	}
	o.Require("type", "name", "sender", "credentials")
	c.Type = enum(o, "type", "", message.ParseType, message.Types)
	if c.State != "" && c.State != channel.Active && c.State != channel.Paused {
		o.Fail(message.SlugEnum, "must be ACTIVE or PAUSED", "state")
	}
	if p := o.Number("price", 0); p != nil {
		c.Price = message.MicrosOf(*p)
	}
	if p := o.Number("price_media", 0); p != nil {
		c.PriceMedia = message.MicrosOf(*p)
	}
	if r := o.Number("rate_per_second", 0.01); r != nil {
		c.RatePerSecond = *r
	}
	if creds := o.Child("credentials"); creds != nil {
		c.Credentials = map[string]channel.Secret{}
		for _, name := range creds.Names() {
			if v := creds.String(name, maxCredential); v != "" {
				c.Credentials[name] = channel.NewSecret(v)
			}
		}
	}
	o.Close()
	return c
}

func (s *Server) createChannel(c echo.Context) error {
	o, errs, err := readJSON(c)
	if err != nil {
		return err
	}
	ch := parseChannel(o)
	if err := errs.Err(); err != nil {
		return err
	}
	if err := s.Channels.Create(c.Request().Context(), ch); err != nil {
		if e, ok := asInvalid(err); ok {
			errs.AddUnder(e.Fields, "body")
			return errs.Err()
		}
		return err
	}
	return c.JSON(http.StatusCreated, showChannel(ch))
}

func (s *Server) getChannel(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	t, ok := message.ParseType(c.Param("type"))
	if !ok {
		return message.InvalidField(message.SlugEnum, "must be EMAIL, SMS or INSTAGRAM_DM", "path", "type")
	}
	ch, err := s.Channels.Get(c.Request().Context(), channel.Key{ID: id, Type: t})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showChannel(ch))
}

func (s *Server) listChannels(c echo.Context) error {
	q := newQuery(c, &wire.Errors{})
	limit, after := q.page()
	var key channel.Key
	if after != "" {
		id, ok := wire.ParseUUID(after[:min(36, len(after))])
		if !ok {
			q.badCursor()
		}
		key = channel.Key{ID: id, Type: message.Type(after[min(36, len(after)):])}
	}
	if err := q.close(); err != nil {
		return err
	}
	items, err := s.Channels.List(c.Request().Context(), key, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(items, limit, showChannel, func(ch *channel.Channel) string { return ch.ID.String() + string(ch.Type) }))
}
