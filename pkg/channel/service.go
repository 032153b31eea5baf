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
// PauseChannel changes nothing when the channel has another version than the one that the caller has seen it with.
type Store interface {
	InsertChannel(ctx context.Context, c *Channel) error
	Channel(ctx context.Context, k Key) (*Channel, error)
	Channels(ctx context.Context, after Key, limit int) ([]Channel, error)
	PauseChannel(ctx context.Context, k Key, seen int64, reason string) error
}

// Editor changes channels. UpdateChannel locks one, has change change it, and writes the fields that differ, in one
// transaction; an error of change is returned and nothing is written; change may be called more than once, each time with
// the channel as it is stored then. DeleteChannel refuses, as a conflict, while a bulk or a message that is open goes over
// the channel. Both return a message.Error not_found.
type Editor interface {
	UpdateChannel(ctx context.Context, k Key, change func(*Channel) error) (*Channel, error)
	DeleteChannel(ctx context.Context, k Key) error
}

// DefaultStore finds the default channel of a type; not_found when no channel of the type is marked as default.
type DefaultStore interface {
	DefaultChannel(ctx context.Context, t message.ChannelType) (*Channel, error)
}

// Registry is how the rest of Herald gets at channels. Lookups are cached for a moment, so a change reaches every
// process within cacheTTL and cacheReread.
type Registry struct {
	store     Store
	defaults  DefaultStore
	editor    Editor
	providers Providers
	mu        sync.Mutex
	cache     map[Key]cached // a default stands under its type alone
	changes   int            // made through this registry; what was read before one is not cached after it
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

// NewRegistry makes a Registry over a store. Channels may use the providers.
func NewRegistry(store Store, defaults DefaultStore, editor Editor, providers Providers) *Registry {
	return &Registry{store: store, defaults: defaults, editor: editor, providers: providers, cache: map[Key]cached{}}
}

// Get returns a channel, at most a moment old. The result is shared: it must not be changed.
func (r *Registry) Get(ctx context.Context, k Key) (*Channel, error) {
	return r.recent(k, 0, func() (*Channel, error) { return r.store.Channel(ctx, k) })
}

// AtLeast is Get for a caller that knows of a version: a cached channel that is older is read again.
func (r *Registry) AtLeast(ctx context.Context, k Key, version int64) (*Channel, error) {
	return r.recent(k, version, func() (*Channel, error) { return r.store.Channel(ctx, k) })
}

// recent returns what is cached under a key, unless it is below a version, or what read says.
func (r *Registry) recent(k Key, version int64, read func() (*Channel, error)) (*Channel, error) {
	now := time.Now()
	r.mu.Lock()
	c, ok := r.cache[k]
	fresh := ok && now.Before(c.until) && c.channel.Version >= version
	if ok && !fresh { // one caller reads it again, and the others go on with what they had, or each second would begin with a rush
		r.cache[k] = cached{c.channel, now.Add(cacheReread)}
	}
	changes := r.changes
	r.mu.Unlock()
	if fresh {
		return c.channel, nil
	}
	ch, err := read()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if r.cache[k].channel == c.channel {
			delete(r.cache, k) // it is gone, or may have changed: the next caller reads it
		}
		return nil, err
	}
	r.keep(k, ch, changes)
	return ch, nil
}

// keep caches a channel, unless it changed or was read at a higher version since it was asked for. r.mu is held.
func (r *Registry) keep(k Key, ch *Channel, changes int) {
	if c, ok := r.cache[k]; r.changes != changes || ok && c.channel.Key == ch.Key && c.channel.Version > ch.Version {
		return
	}
	if len(r.cache) >= cacheMax {
		clear(r.cache)
	}
	r.cache[k] = cached{ch, time.Now().Add(cacheTTL)}
}

// Default returns the default channel of a type, at most a moment old. The result is shared: it must not be changed.
func (r *Registry) Default(ctx context.Context, t message.ChannelType) (*Channel, error) {
	return r.recent(Key{Type: t}, 0, func() (*Channel, error) { return r.defaults.DefaultChannel(ctx, t) })
}

// Find returns the channels that one id names, one per type at most.
func (r *Registry) Find(ctx context.Context, id uuid.UUID) ([]*Channel, error) {
	var found []*Channel
	for _, t := range message.ChannelTypes {
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
	return r.store.PauseChannel(ctx, c.Key, c.Version, reason)
}

func (r *Registry) forget(k Key) {
	r.mu.Lock()
	delete(r.cache, k)
	delete(r.cache, Key{Type: k.Type})
	r.changes++
	r.mu.Unlock()
}

// Update changes a channel, checks it and returns it as it is then. Updates of one channel take effect one after the other;
// change may be called more than once. The error is change's, or a message.Error with fields by their names on the wire.
func (r *Registry) Update(ctx context.Context, k Key, change func(*Channel) error) (*Channel, error) {
	defer r.forget(k)
	return r.editor.UpdateChannel(ctx, k, func(c *Channel) error {
		if err := change(c); err != nil {
			return err
		}
		return message.Invalid(r.prepare(c))
	})
}

// Delete removes a channel that nothing open goes over.
func (r *Registry) Delete(ctx context.Context, k Key) error {
	defer r.forget(k)
	return r.editor.DeleteChannel(ctx, k)
}

// Create checks a new channel, fills what was left open with the provider's defaults, and stores it. Wrong fields
// come back together, by their names on the wire.
func (r *Registry) Create(ctx context.Context, c *Channel) error {
	if errs := r.prepare(c); len(errs) > 0 {
		return message.Invalid(errs)
	}
	defer r.forget(c.Key)
	return r.store.InsertChannel(ctx, c)
}

// prepare fills what a channel leaves open with the defaults of its provider, and returns what is wrong with it.
func (r *Registry) prepare(c *Channel) []message.FieldError {
	names := r.providers.For(c.Type)
	if c.Provider == "" && len(names) > 0 {
		c.Provider = names[0]
	}
	var errs []message.FieldError
	fail := func(slug, msg string, loc ...any) {
		errs = append(errs, message.FieldError{Loc: loc, Msg: msg, Type: slug})
	}
	spec, _ := r.providers.Named(c.Provider)
	if !slices.Contains(names, c.Provider) {
		fail(message.SlugEnum, fmt.Sprintf("the provider of %s must be one of %s", c.Type, strings.Join(names, ", ")), "provider")
		spec = r.fallback(names)
	}
	fill(c, spec)
	if rule := c.Type.Spec().Sender; !rule.Valid(c.Sender) {
		fail(message.SlugValue, "must be "+rule.Form, "sender")
	}
	if !c.OnUnknown.valid() {
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
	return append(errs, spec.checkCredentials(c.Credentials)...)
}

// fallback returns the spec by which the rest of a channel is checked whose provider does not send its type: that of the
// type's default provider, or one without credentials where no provider sends the type.
func (r *Registry) fallback(names []string) *ProviderSpec {
	if len(names) == 0 {
		return &ProviderSpec{Name: "no provider", OnUnknown: Hold}
	}
	spec, _ := r.providers.Named(names[0])
	return spec
}

func fill(c *Channel, p *ProviderSpec) {
	if c.ID == uuid.Nil {
		c.ID = uuid.Must(uuid.NewV7())
	}
	if c.OnUnknown == "" {
		c.OnUnknown = p.OnUnknown
	}
	if c.Currency == "" {
		c.Currency = "USD"
	}
	if c.State == "" {
		c.State = Active
	}
	c.Currency, c.Region = strings.ToUpper(c.Currency), strings.ToUpper(c.Region)
}
