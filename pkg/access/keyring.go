package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"herald/pkg/message"
)

// Keys keeps API keys. InsertAPIKey says false, and writes nothing, when only is set and there is a key already. APIKey
// and RevokeAPIKey return a message.Error not_found. All but InsertAPIKey may be repeated.
type Keys interface {
	InsertAPIKey(ctx context.Context, k *Key, only bool) (bool, error)
	APIKey(ctx context.Context, id string) (*Key, error)
	APIKeys(ctx context.Context) ([]Key, error)
	RevokeAPIKey(ctx context.Context, id string) error
}

// Uses tells whether keys are in use here at all, and when one was used last.
type Uses interface {
	AnyAPIKey(ctx context.Context) (bool, error)
	TouchAPIKey(ctx context.Context, id string) error
}

// Limiter says for how long a key's holder must wait before the next request, 0 when it may come. perSecond is above 0.
type Limiter interface {
	Take(ctx context.Context, keyID string, perSecond float64) time.Duration
}

// KeyringDeps is what a Keyring works with.
type KeyringDeps struct {
	Keys    Keys
	Uses    Uses
	Limiter Limiter
	Rate    float64                              // requests a second of a key that has no rate of its own, 0: as many as come
	Failed  func(ctx context.Context, err error) // told what went wrong and stops nobody
}

// Keyring makes API keys and recognises them. Lookups are cached for a moment, so a revocation reaches every process
// within cacheTTL.
type Keyring struct {
	KeyringDeps
	mu    sync.Mutex
	cache map[string]cached
	inUse bool // there is a key; keys are never deleted, so this stays
}

type cached struct {
	key   *Key // nil: there is none
	until time.Time
}

const (
	cacheTTL  = time.Second
	cacheMax  = 10_000
	touchEach = time.Minute
	// MaxName is the longest name of a key, in characters.
	MaxName = 200
)

// NewKeyring makes a Keyring.
func NewKeyring(d KeyringDeps) *Keyring {
	return &Keyring{KeyringDeps: d, cache: map[string]cached{}}
}

// Create makes a key of the name, scopes, rate and expiry that k has, fills in the rest and returns its token, which is
// shown this once. With only, it makes none, and returns an empty token, where there is a key already.
func (r *Keyring) Create(ctx context.Context, k *Key, only bool) (token string, err error) {
	token, k.ID, k.Hash = newToken()
	k.CreatedAt = time.Now().UTC().Truncate(time.Second)
	made, err := r.Keys.InsertAPIKey(ctx, k, only)
	if err != nil || !made {
		return "", err
	}
	return token, nil
}

// InUse says whether requests need a key: there is one in the store, revoked or not.
func (r *Keyring) InUse(ctx context.Context) (bool, error) {
	r.mu.Lock()
	known := r.inUse
	c, asked := r.cache[""]
	r.mu.Unlock()
	if known || (asked && time.Now().Before(c.until)) {
		return known, nil
	}
	any, err := r.Uses.AnyAPIKey(ctx)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inUse = any
	r.remember("", nil)
	return any, nil
}

// Authenticate returns the key of a token. Errors are message.Errors: unauthorized, throttled, unavailable.
func (r *Keyring) Authenticate(ctx context.Context, token string) (*Key, error) {
	id, hash, ok := parseToken(token)
	if !ok {
		return nil, errNoKey
	}
	k, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := k.judge(hash, time.Now()); err != nil {
		return nil, err
	}
	rate := k.Rate
	if rate == 0 {
		rate = r.Rate
	}
	if rate > 0 {
		if wait := r.Limiter.Take(ctx, k.ID, rate); wait > 0 {
			return nil, &message.Error{
				Code: message.CodeThrottled, Message: fmt.Sprintf("this API key has %g requests a second", rate), RetryAfter: wait,
			}
		}
	}
	return k, nil
}

// find returns a key, at most a moment old, and notes that it is used.
func (r *Keyring) find(ctx context.Context, id string) (*Key, error) {
	r.mu.Lock()
	c, ok := r.cache[id]
	r.mu.Unlock()
	if !ok || time.Now().After(c.until) {
		k, err := r.Keys.APIKey(ctx, id)
		if err != nil && !message.IsCode(err, message.CodeNotFound) {
			return nil, err
		}
		c.key = k
		r.mu.Lock()
		r.remember(id, k)
		r.mu.Unlock()
		if k != nil && (k.LastUsedAt == nil || time.Since(*k.LastUsedAt) > touchEach) {
			if err := r.Uses.TouchAPIKey(ctx, id); err != nil {
				r.Failed(ctx, err)
			}
		}
	}
	if c.key == nil {
		return nil, errNoKey
	}
	return c.key, nil
}

// remember keeps what was found under an id. The caller holds the lock.
func (r *Keyring) remember(id string, k *Key) {
	if len(r.cache) >= cacheMax {
		clear(r.cache)
	}
	r.cache[id] = cached{k, time.Now().Add(cacheTTL)}
}
