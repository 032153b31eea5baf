package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/wire"
)

func showChannel(c *channel.Channel) contract.Channel {
	r := contract.Channel{
		ID: c.ID.String(), Type: c.Type, Provider: c.Provider, Name: c.Name, Sender: c.Sender, SenderName: orNull(c.SenderName),
		AllowedSenders: append([]string{}, c.AllowedSenders...), Credentials: map[string]string{}, Price: c.Price.Amount(),
		PriceMedia: amountOrNull(c.PriceMedia), Currency: c.Currency, Default: c.Default, OnUnknown: string(c.OnUnknown), BaseURL: orNull(c.BaseURL),
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

// nameOf reads the name of a channel, which people choose a channel by.
func nameOf(o *request.Object) string {
	name := o.String("name")
	if v, _ := o.Raw("name"); v == "" || name != "" && strings.TrimSpace(name) == "" {
		o.Fail(message.SlugTooShort, "must not be empty", "name")
	}
	return name
}

func amountOrNull(price *message.Micros) *float64 {
	if price == nil {
		return nil
	}
	amount := price.Amount()
	return &amount
}

// price reads an amount of money, nil if it is absent. One that rounds to nothing is a mistake, not free.
func price(o *request.Object, name string) *message.Micros {
	amount := o.Number(name)
	if amount == nil {
		return nil
	}
	micros := message.MicrosOf(*amount)
	if micros == 0 && *amount > 0 {
		o.Fail(message.SlugNumber, "must be 0 or at least 0.000001", name)
	}
	return &micros
}

func parseChannel(o *request.Object) *channel.Channel {
	c := &channel.Channel{
		Key: channel.Key{ID: o.UUID("id")}, Provider: o.Word("provider"), Name: nameOf(o), Sender: o.String("sender"),
		SenderName: o.String("sender_name"), AllowedSenders: o.Strings("allowed_senders"), Currency: o.String("currency"),
		Default: o.Bool("default"), OnUnknown: channel.Policy(o.Word("on_unknown")), BaseURL: o.String("base_url"),
		Region: o.String("region"), State: channel.State(o.Word("state")),
	}
	o.Require("type", "name", "sender", "credentials")
	c.Type = request.Enum(o, "type", "", message.ParseChannelType, message.ChannelTypes)
	if c.State != "" && c.State != channel.Active && c.State != channel.Paused {
		o.Fail(message.SlugEnum, "must be ACTIVE or PAUSED", "state")
	}
	if p := price(o, "price"); p != nil {
		c.Price = *p
	}
	c.PriceMedia = price(o, "price_media")
	if r := o.Number("rate_per_second"); r != nil {
		c.RatePerSecond = *r
	}
	if given := o.Values("credentials"); given != nil {
		c.Credentials = map[string]seal.Secret{}
		for name, v := range given {
			if v != "" {
				c.Credentials[name] = seal.NewSecret(v)
			}
		}
	}
	o.Close()
	return c
}

func (s *Server) createChannel(c echo.Context) error {
	o, errs, err := request.ReadJSON[contract.NewChannel](c)
	if err != nil {
		return err
	}
	ch := parseChannel(o)
	if err := errs.Err(); err != nil {
		return err
	}
	if err := s.deps.Channels.Create(c.Request().Context(), ch); err != nil {
		return request.Under(err, "body")
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/channels/"+ch.ID.String()+"/"+string(ch.Type))
	setTag(c, tag(ch.Version))
	return c.JSON(http.StatusCreated, shownChannel(c, ch))
}

// shownChannel returns the answer to a write: the channel for a key with the scope read, its id and type for others.
func shownChannel(c echo.Context, ch *channel.Channel) any {
	if !request.Allowed(c, access.Read) {
		return contract.ChannelRef{ID: ch.ID.String(), Type: ch.Type}
	}
	return showChannel(ch)
}

func (s *Server) getChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	ch, err := s.deps.Channels.Get(c.Request().Context(), k)
	if err != nil {
		return err
	}
	setTag(c, tag(ch.Version))
	return c.JSON(http.StatusOK, showChannel(ch))
}

func (s *Server) listChannels(c echo.Context) error {
	q := request.NewQuery(c, &wire.Errors{})
	limit, after := q.Page()
	var key channel.Key
	if after != "" {
		id, ok := wire.ParseUUID(after[:min(36, len(after))])
		t, known := message.ParseChannelType(after[min(36, len(after)):])
		if !ok || !known {
			q.BadCursor()
		}
		key = channel.Key{ID: id, Type: t}
	}
	if err := q.Close(); err != nil {
		return err
	}
	items, err := s.deps.Channels.List(c.Request().Context(), key, limit+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, listOf(q, items, limit, showChannel, func(ch *channel.Channel) string { return ch.ID.String() + string(ch.Type) }))
}

// channelKey reads the id and type of the path.
func channelKey(c echo.Context) (channel.Key, error) {
	id, err := request.PathID(c)
	if err != nil {
		return channel.Key{}, err
	}
	t, ok := message.ParseChannelType(c.Param("type"))
	if !ok {
		return channel.Key{}, message.InvalidField(message.SlugEnum, "must be "+message.ChannelTypeList(), "path", "type")
	}
	return channel.Key{ID: id, Type: t}, nil
}

// patchChannel changes the fields that the body names. Credentials change one by one; null removes one.
func (s *Server) patchChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	unchanged, err := precondition(c, "channel")
	if err != nil {
		return err
	}
	o, errs, err := request.ReadJSON[contract.ChannelPatch](c)
	if err != nil {
		return err
	}
	ch, err := s.deps.Channels.Update(c.Request().Context(), k, func(ch *channel.Channel) error {
		if err := unchanged(tag(ch.Version)); err != nil {
			return err
		}
		patchFields(o, ch)
		return errs.Err()
	})
	if errs := errs.Err(); errs != nil {
		return errs
	}
	if err != nil {
		return request.Under(err, "body")
	}
	setTag(c, tag(ch.Version))
	return c.JSON(http.StatusOK, shownChannel(c, ch))
}

func patchFields(o *request.Object, ch *channel.Channel) {
	requireCredentials(o, ch)
	patch := func(name string, to *string, read func(string) string) {
		if o.Given(name) {
			*to = read(name)
		}
	}
	state, policy := string(ch.State), string(ch.OnUnknown)
	patch("name", &ch.Name, func(string) string { return nameOf(o) })
	patch("sender", &ch.Sender, o.String)
	patch("sender_name", &ch.SenderName, o.String)
	patch("currency", &ch.Currency, o.String)
	patch("on_unknown", &policy, o.Word)
	patch("base_url", &ch.BaseURL, o.String)
	patch("region", &ch.Region, o.String)
	patch("state", &state, o.Word)
	ch.OnUnknown = channel.Policy(policy)
	if s := channel.State(state); s != channel.Active && s != channel.Paused {
		o.Fail(message.SlugEnum, "must be ACTIVE or PAUSED", "state")
	} else if s != ch.State {
		ch.State, ch.StateReason = s, ""
	}
	patch("state_reason", &ch.StateReason, o.String)
	if o.Given("allowed_senders") {
		ch.AllowedSenders = o.Strings("allowed_senders")
	}
	if o.Given("default") {
		ch.Default = o.Bool("default")
	}
	if o.Given("price") {
		ch.Price = 0
		if p := price(o, "price"); p != nil {
			ch.Price = *p
		}
	}
	if o.Given("price_media") {
		ch.PriceMedia = price(o, "price_media")
	}
	if o.Given("rate_per_second") {
		ch.RatePerSecond = 0
		if r := o.Number("rate_per_second"); r != nil {
			ch.RatePerSecond = *r
		}
	}
	for name, v := range o.Values("credentials") {
		if v != "" {
			ch.Credentials[name] = seal.NewSecret(v)
		} else {
			delete(ch.Credentials, name)
		}
	}
	o.Close()
}

// requireCredentials rejects a new base_url unless the request gives every stored credential again (null counts: it removes
// one). Otherwise a key that may write channels but not read credentials could have them sent to a server of its choice.
func requireCredentials(o *request.Object, ch *channel.Channel) {
	v, _ := o.Raw("base_url")
	if text, _ := v.(string); !o.Given("base_url") || text == ch.BaseURL {
		return
	}
	v, _ = o.Raw("credentials")
	given, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(ch.Credentials)) {
		if _, there := given[name]; !there {
			o.Fail(message.SlugMissing, "a new base_url needs all credentials of the channel in the same request: stored credentials are never sent to another address", "credentials", name)
		}
	}
}

func (s *Server) deleteChannel(c echo.Context) error {
	k, err := channelKey(c)
	if err != nil {
		return err
	}
	unchanged, err := precondition(c, "channel")
	if err != nil {
		return err
	}
	if err := s.deps.Channels.Delete(c.Request().Context(), k, func(version int64) error { return unchanged(tag(version)) }); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
