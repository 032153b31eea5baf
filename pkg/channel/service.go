package channel

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"herald/pkg/message"
)

// Store keeps channels. Channel returns a message.Error with code not_found for an unknown key; InsertChannel returns conflict for a
// used key. Credentials pass in the clear; the store seals them. All methods except InsertChannel may be repeated. PauseChannel
// changes nothing if the channel's version is not seen, the version that the caller read.
type Store interface {
	InsertChannel(ctx context.Context, c *Channel) error
	Channel(ctx context.Context, k Key) (*Channel, error)
	Channels(ctx context.Context, after Key, limit int) ([]Channel, error)
	PauseChannel(ctx context.Context, k Key, seen int64, reason string) error
}

// Editor changes channels. UpdateChannel locks the channel, calls change, and writes the changed fields, in one transaction. It
// returns the error of change and then writes nothing. It may call change more than once, each time with the stored channel.
// DeleteChannel returns conflict while an open bulk or message uses the channel. Both return not_found for an unknown key.
type Editor interface {
	UpdateChannel(ctx context.Context, k Key, change func(*Channel) error) (*Channel, error)
	// The conditions get the version of the channel, under its lock; the error of one is returned and nothing is deleted.
	DeleteChannel(ctx context.Context, k Key, conditions ...func(version int64) error) error
}

// DefaultStore finds the default channel of a type. It returns not_found if no channel of the type is marked as default.
type DefaultStore interface {
	DefaultChannel(ctx context.Context, t message.ChannelType) (*Channel, error)
}

// Registry gives the rest of Herald access to channels. It caches reads, so a change reaches every process within cacheTTL plus
// rereadTime. It is safe for concurrent use.
type Registry struct {
	store     Store
	defaults  DefaultStore
	editor    Editor
	providers Providers
	mu        sync.Mutex
	cache     *simplelru.LRU[Key, cached] // a default channel is cached under a key with its type only
	changes   int                         // made through this registry; a read that began before a change is not cached after it
}

type cached struct {
	channel *Channel
	until   time.Time
}

const (
	cacheTTL   = time.Second            // age at which a cached channel is read again
	rereadTime = 100 * time.Millisecond // while one caller reads, the others use the old entry for this long
	maxCached  = 10_000                 // channels; the least recently used one is dropped beyond it
)

// NewRegistry returns a Registry over a store. Channels may use the given providers.
func NewRegistry(store Store, defaults DefaultStore, editor Editor, providers Providers) *Registry {
	cache, err := simplelru.NewLRU[Key, cached](maxCached, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Registry{store: store, defaults: defaults, editor: editor, providers: providers, cache: cache}
}

// Get returns a channel that is at most cacheTTL plus rereadTime old. The result is shared and read only.
func (r *Registry) Get(ctx context.Context, k Key) (*Channel, error) {
	return r.recent(k, 0, func() (*Channel, error) { return r.store.Channel(ctx, k) })
}

// AtLeast is Get for a caller that knows a version of the channel. It reads an older cached channel again.
func (r *Registry) AtLeast(ctx context.Context, k Key, version int64) (*Channel, error) {
	return r.recent(k, version, func() (*Channel, error) { return r.store.Channel(ctx, k) })
}

// recent returns the cached channel of a key if it is fresh and has at least the version, else the result of read.
func (r *Registry) recent(k Key, version int64, read func() (*Channel, error)) (*Channel, error) {
	now := time.Now()
	r.mu.Lock()
	c, ok := r.cache.Get(k)
	fresh := ok && now.Before(c.until) && c.channel.Version >= version
	if ok && !fresh {
		// One caller reads; the others use the old entry meanwhile. Without this, all callers would read at once every second.
		r.cache.Add(k, cached{c.channel, now.Add(rereadTime)})
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
		// The channel was deleted or may have changed, so the next caller reads again.
		if current, _ := r.cache.Peek(k); current.channel == c.channel {
			r.cache.Remove(k)
		}
		return nil, err
	}
	r.keep(k, ch, changes)
	return ch, nil
}

// keep caches a channel, unless it was changed or read at a higher version since the read began. r.mu is held.
func (r *Registry) keep(k Key, ch *Channel, changes int) {
	if c, ok := r.cache.Peek(k); r.changes != changes || ok && c.channel.Key == ch.Key && c.channel.Version > ch.Version {
		return
	}
	r.cache.Add(k, cached{ch, time.Now().Add(cacheTTL)})
}

// Default returns the default channel of a type, as old as Get's at most. The result is shared and read only.
func (r *Registry) Default(ctx context.Context, t message.ChannelType) (*Channel, error) {
	return r.recent(Key{Type: t}, 0, func() (*Channel, error) { return r.defaults.DefaultChannel(ctx, t) })
}

// Find returns the channels with an id: at most one per type.
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

// List returns up to limit channels in the order of their keys, from the first after a key (keyset pagination).
func (r *Registry) List(ctx context.Context, after Key, limit int) ([]Channel, error) {
	return r.store.Channels(ctx, after, limit)
}

// Pause pauses a channel with a reason for its operator. It changes nothing if the stored channel has another version than c: a
// refusal of old credentials says nothing of new ones.
func (r *Registry) Pause(ctx context.Context, c *Channel, reason string) error {
	defer r.forget(c.Key)
	return r.store.PauseChannel(ctx, c.Key, c.Version, reason)
}

func (r *Registry) forget(k Key) {
	r.mu.Lock()
	r.cache.Remove(k)
	for _, other := range r.cache.Keys() { // the change may have ended that another channel is the default of the type
		if e, ok := r.cache.Peek(other); ok && other.Type == k.Type && e.channel != nil && e.channel.Default {
			r.cache.Remove(other)
		}
	}
	r.cache.Remove(Key{Type: k.Type})
	r.changes++
	r.mu.Unlock()
}

// Update changes a channel, validates it and returns the result. Updates of one channel are serialised. It may call change more than
// once. The error is that of change, or a message.Error with the invalid fields by their names on the wire.
func (r *Registry) Update(ctx context.Context, k Key, change func(*Channel) error) (*Channel, error) {
	defer r.forget(k)
	return r.editor.UpdateChannel(ctx, k, func(c *Channel) error {
		if err := change(c); err != nil {
			return err
		}
		return message.Invalid(r.prepare(c))
	})
}

// Delete removes a channel. It returns conflict while an open bulk or message uses the channel.
func (r *Registry) Delete(ctx context.Context, k Key, conditions ...func(version int64) error) error {
	defer r.forget(k)
	return r.editor.DeleteChannel(ctx, k, conditions...)
}

// Create fills the empty fields of a new channel with the provider's defaults, validates it and stores it. The error lists all invalid
// fields by their names on the wire, or is conflict.
func (r *Registry) Create(ctx context.Context, c *Channel) error {
	if errs := r.prepare(c); len(errs) > 0 {
		return message.Invalid(errs)
	}
	defer r.forget(c.Key)
	return r.store.InsertChannel(ctx, c)
}

// prepare fills the empty fields of a channel with its provider's defaults, and returns the invalid fields.
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
	if c.Region != "" && !message.ValidRegion(c.Region) {
		fail(message.SlugValue, "must be a country with phone numbers, as two letters (ISO 3166-1 alpha-2)", "region")
	}
	return append(errs, spec.checkCredentials(c.Credentials)...)
}

// fallback returns the spec that validates the other fields of a channel whose provider does not send its type: that of the first of
// names, or one without credentials if names is empty.
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
