package channel

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Store keeps channels. Get and Default return a message.Error not_found when there is none; Insert returns conflict
// when the key is taken. Credentials come and go in the clear; the store seals them. All but Insert may be repeated.
// PauseChannel changes nothing when the channel was updated after the time that the caller has seen it with.
type Store interface {
	InsertChannel(ctx context.Context, c *Channel) error
	Channel(ctx context.Context, k Key) (*Channel, error)
	Channels(ctx context.Context, after Key, limit int) ([]Channel, error)
	PauseChannel(ctx context.Context, k Key, seen time.Time, reason string) error
}

// Editor changes channels. UpdateChannel writes one over the one with its key. DeleteChannel refuses, as a conflict,
// while a bulk or a message that is open goes over the channel. Both return a message.Error not_found.
type Editor interface {
	UpdateChannel(ctx context.Context, c *Channel) error
	DeleteChannel(ctx context.Context, k Key) error
}

// DefaultStore finds the default channel of a type; not_found when no channel of the type is marked as default.
type DefaultStore interface {
	DefaultChannel(ctx context.Context, t message.Type) (*Channel, error)
}

// Registry is how the rest of Herald gets at channels. Lookups are cached for a moment, so a change reaches every
// process within cacheTTL and cacheReread.
type Registry struct {
	store    Store
	defaults DefaultStore
	editor   Editor
	mu       sync.Mutex
	cache    map[Key]cached // a default stands under its type alone
}

type cached struct {
	channel *Channel
	until   time.Time
}

const (
	cacheTTL    = time.Second
	cacheReread = 100 * time.Millisecond
	cacheMax    = 10_000
)

// NewRegistry makes a Registry over a store.
func NewRegistry(store Store, defaults DefaultStore, editor Editor) *Registry {
	return &Registry{store: store, defaults: defaults, editor: editor, cache: map[Key]cached{}}
}

// Get returns a channel, at most a moment old. The result is shared: it must not be changed.
func (r *Registry) Get(ctx context.Context, k Key) (*Channel, error) {
	return r.recent(k, func() (*Channel, error) { return r.store.Channel(ctx, k) })
}

// recent returns what is cached under a key, or what read says.
func (r *Registry) recent(k Key, read func() (*Channel, error)) (*Channel, error) {
	now := time.Now()
	r.mu.Lock()
	c, ok := r.cache[k]
	old := ok && !now.Before(c.until)
	if old { // one caller reads it anew, and the others go on with what they had, or each second would begin with a rush
		r.cache[k] = cached{c.channel, now.Add(cacheReread)}
	}
	r.mu.Unlock()
	if ok && !old {
		return c.channel, nil
	}
	ch, err := read()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(r.cache) >= cacheMax {
		clear(r.cache)
	}
	r.cache[k] = cached{ch, time.Now().Add(cacheTTL)}
	r.mu.Unlock()
	return ch, nil
}

// Default returns the default channel of a type, at most a moment old. The result is shared: it must not be changed.
func (r *Registry) Default(ctx context.Context, t message.Type) (*Channel, error) {
	return r.recent(Key{Type: t}, func() (*Channel, error) { return r.defaults.DefaultChannel(ctx, t) })
}

// Find returns the channels that one id names, one per type at most.
func (r *Registry) Find(ctx context.Context, id uuid.UUID) ([]*Channel, error) {
	var found []*Channel
	for _, t := range message.Types {
		c, err := r.Get(ctx, Key{id, t})
		switch {
		case err == nil:
			found = append(found, c)
		case !message.IsCode(err, message.CodeNotFound):
			return nil, err
		}
	}
	return found, nil
}

// List returns channels in the order of their keys, beginning after one.
func (r *Registry) List(ctx context.Context, after Key, limit int) ([]Channel, error) {
	return r.store.Channels(ctx, after, limit)
}

// Pause stops a channel with a reason that a person will read. What was found out with a channel as it was before
// somebody changed it, its credentials for example, does not stop it as it is now.
func (r *Registry) Pause(ctx context.Context, c *Channel, reason string) error {
	defer r.forget(c.Key)
	return r.store.PauseChannel(ctx, c.Key, c.UpdatedAt, reason)
}

func (r *Registry) forget(k Key) {
	r.mu.Lock()
	delete(r.cache, k)
	delete(r.cache, Key{Type: k.Type})
	r.mu.Unlock()
}

// Fresh returns a channel as it is stored now, for the caller to change.
func (r *Registry) Fresh(ctx context.Context, k Key) (*Channel, error) {
	return r.store.Channel(ctx, k)
}

// Update checks a changed channel and stores it.
func (r *Registry) Update(ctx context.Context, c *Channel) error {
	if errs := prepare(c); len(errs) > 0 {
		return message.Invalid(errs)
	}
	defer r.forget(c.Key)
	return r.editor.UpdateChannel(ctx, c)
}

// Delete removes a channel that nothing open goes over.
func (r *Registry) Delete(ctx context.Context, k Key) error {
	defer r.forget(k)
	return r.editor.DeleteChannel(ctx, k)
}

// Create checks a new channel, fills what was left open with the provider's defaults, and stores it. Wrong fields
// come back together, by their names on the wire.
func (r *Registry) Create(ctx context.Context, c *Channel) error {
	if errs := prepare(c); len(errs) > 0 {
		return message.Invalid(errs)
	}
	defer r.forget(c.Key)
	return r.store.InsertChannel(ctx, c)
}

func prepare(c *Channel) []message.FieldError {
	p := providerOf(c.Type)
	fill(c, p)
	var errs []message.FieldError
	fail := func(slug, msg string, loc ...any) {
		errs = append(errs, message.FieldError{Loc: loc, Msg: msg, Type: slug})
	}
	if c.Provider != p.name {
		fail(message.SlugEnum, fmt.Sprintf("the provider of %s is %s", c.Type, p.name), "provider")
	}
	if !validSender(c.Type, c.Sender) {
		fail(message.SlugValue, senderHint(c.Type), "sender")
	}
	if c.OnUnknown != Hold && c.OnUnknown != ResendOnce {
		fail(message.SlugEnum, "must be hold or resend_once", "on_unknown")
	}
	if c.BaseURL != "" {
		if err := CheckBaseURL(c.BaseURL); err != nil {
			fail(message.SlugValue, err.Error(), "base_url")
		}
	}
	if len(c.Currency) != 3 {
		fail(message.SlugValue, "must be a three-letter currency", "currency")
	}
	if c.Region != "" && len(c.Region) != 2 {
		fail(message.SlugValue, "must be a two-letter country", "region")
	}
	for _, name := range p.required {
		if c.Credentials[name].Empty() {
			fail(message.SlugMissing, "field required", "credentials", name)
		}
	}
	for name, s := range c.Credentials {
		if !slices.Contains(p.required, name) && !slices.Contains(p.optional, name) {
			fail(message.SlugExtra, fmt.Sprintf("%s has no credential %s", p.name, name), "credentials", name)
		} else if strings.ContainsAny(s.Reveal(), "\r\n") {
			fail(message.SlugValue, "must be one line", "credentials", name)
		}
	}
	return errs
}

func fill(c *Channel, p provider) {
	if c.ID == uuid.Nil {
		c.ID = uuid.Must(uuid.NewV7())
	}
	if c.Provider == "" {
		c.Provider = p.name
	}
	if c.OnUnknown == "" {
		c.OnUnknown = p.policy
	}
	if c.Currency == "" {
		c.Currency = "USD"
	}
	if c.State == "" {
		c.State = Active
	}
	c.Currency, c.Region = strings.ToUpper(c.Currency), strings.ToUpper(c.Region)
}

func validSender(t message.Type, s string) bool {
	switch t {
	case message.Email:
		_, ok := message.NormalizeEmail(s)
		return ok
	case message.SMS:
		return message.IsSMSSender(s)
	default:
		return message.IsInstagramID(s)
	}
}

func senderHint(t message.Type) string {
	switch t {
	case message.Email:
		return "must be an email address"
	case message.SMS:
		return "must be an E.164 number, a short code, an alphanumeric id or a messaging service (MG…)"
	default:
		return "must be the Instagram account's id"
	}
}
