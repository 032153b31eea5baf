package api

import (
	"maps"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

func showChannel(c *channel.Channel) contract.Channel {
	r := contract.Channel{
		ID: c.ID.String(), Type: c.Type, Provider: c.Provider, Name: c.Name, Sender: c.Sender, SenderName: orNull(c.SenderName),
		AllowedSenders: append([]string{}, c.AllowedSenders...), Credentials: map[string]string{}, Price: c.Price.Amount(),
		PriceMedia: c.PriceMedia.Amount(), Currency: c.Currency, Default: c.Default, OnUnknown: string(c.OnUnknown), BaseURL: orNull(c.BaseURL),
		Region: orNull(c.Region), State: string(c.State), StateReason: orNull(c.StateReason), CreatedAt: at(&c.CreatedAt), UpdatedAt: at(&c.UpdatedAt),
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
	maxPrice          = 100_000 // of a message: the cost of the largest bulk stays within an int64 of millionths
	maxRate           = 1e12
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
	c.Type = enum(o, "type", "", message.ParseChannelType, message.ChannelTypes)
	if c.State != "" && c.State != channel.Active && c.State != channel.Paused {
		o.Fail(message.SlugEnum, "must be ACTIVE or PAUSED", "state")
	}
	if p := o.Number("price", 0, maxPrice); p != nil {
		c.Price = message.MicrosOf(*p)
	}
	if p := o.Number("price_media", 0, maxPrice); p != nil {
		c.PriceMedia = message.MicrosOf(*p)
	}
	if r := o.Number("rate_per_second", 0.01, maxRate); r != nil {
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
		return under(err, "body")
	}
	return c.JSON(http.StatusCreated, shownChannel(c, ch))
}

// shownChannel is what the answer to a write shows of a channel: everything to a key that may read.
func shownChannel(c echo.Context, ch *channel.Channel) any {
	if !has(c, access.Read) {
		return contract.ChannelRef{ID: ch.ID.String(), Type: ch.Type}
	}
	return showChannel(ch)
}

func (s *Server) getChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	ch, err := s.Channels.Get(c.Request().Context(), k)
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
		t, known := message.ParseChannelType(after[min(36, len(after)):])
		if !ok || !known {
			q.badCursor()
		}
		key = channel.Key{ID: id, Type: t}
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

// channelKey reads the path's id and type.
func channelKey(c echo.Context) (channel.Key, error) {
	id, err := pathID(c)
	if err != nil {
		return channel.Key{}, err
	}
	t, ok := message.ParseChannelType(c.Param("type"))
	if !ok {
		return channel.Key{}, message.InvalidField(message.SlugEnum, "must be EMAIL, SMS or INSTAGRAM_DM", "path", "type")
	}
	return channel.Key{ID: id, Type: t}, nil
}

// patchChannel changes what the body names. Credentials are changed one by one; null takes one away.
func (s *Server) patchChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	o, errs, err := readJSON(c)
	if err != nil {
		return err
	}
	ch, err := s.Channels.Update(c.Request().Context(), k, func(ch *channel.Channel) error {
		patchFields(o, ch)
		return errs.Err()
	})
	if errs := errs.Err(); errs != nil {
		return errs
	}
	if err != nil {
		return under(err, "body")
	}
	return c.JSON(http.StatusOK, shownChannel(c, ch))
}

func patchFields(o *wire.Object, ch *channel.Channel) {
	moved(o, ch)
	text := func(name string, to *string, limit int) {
		if o.Given(name) {
			*to = o.String(name, limit)
		}
	}
	state, policy := string(ch.State), string(ch.OnUnknown)
	text("name", &ch.Name, maxName)
	text("sender", &ch.Sender, maxRecipient)
	text("sender_name", &ch.SenderName, message.MaxSenderName)
	text("currency", &ch.Currency, 3)
	text("on_unknown", &policy, maxName)
	text("base_url", &ch.BaseURL, message.MaxURL)
	text("region", &ch.Region, 2)
	text("state", &state, maxName)
	ch.OnUnknown = channel.Policy(policy)
	if s := channel.State(state); s != channel.Active && s != channel.Paused {
		o.Fail(message.SlugEnum, "must be ACTIVE or PAUSED", "state")
	} else if s != ch.State {
		ch.State, ch.StateReason = s, ""
	}
	text("state_reason", &ch.StateReason, maxNote)
	if o.Given("allowed_senders") {
		ch.AllowedSenders = o.Strings("allowed_senders", maxAllowedSenders, maxRecipient)
	}
	if o.Given("default") {
		ch.Default = o.Bool("default")
	}
	for name, to := range map[string]*message.Micros{"price": &ch.Price, "price_media": &ch.PriceMedia} {
		if o.Given(name) {
			*to = 0
			if p := o.Number(name, 0, maxPrice); p != nil {
				*to = message.MicrosOf(*p)
			}
		}
	}
	if o.Given("rate_per_second") {
		ch.RatePerSecond = 0
		if r := o.Number("rate_per_second", 0.01, maxRate); r != nil {
			ch.RatePerSecond = *r
		}
	}
	if creds := o.Child("credentials"); creds != nil {
		for _, name := range creds.Names() {
			if v := creds.String(name, maxCredential); v != "" {
				ch.Credentials[name] = channel.NewSecret(v)
			} else {
				delete(ch.Credentials, name)
			}
		}
	}
	o.Close()
}

// moved refuses a new base_url without new credentials: the stored ones were given for the old one, and the scope
// to write them does not allow to read them. null counts, for it takes a credential away.
func moved(o *wire.Object, ch *channel.Channel) {
	v, _ := o.Raw("base_url")
	if text, _ := v.(string); !o.Given("base_url") || text == ch.BaseURL {
		return
	}
	v, _ = o.Raw("credentials")
	given, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(ch.Credentials)) {
		if _, there := given[name]; !there {
			o.Fail(message.SlugMissing, "a new base_url takes all credentials of the channel in the same request: the stored ones are not sent to another address", "credentials", name)
		}
	}
}

func (s *Server) deleteChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	if err := s.Channels.Delete(c.Request().Context(), k); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
