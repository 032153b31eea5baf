package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"herald/pkg/message"
)

// Keys stores API keys. All methods but InsertAPIKey may be repeated.
type Keys interface {
	// InsertAPIKey writes a key. With only it writes nothing, and returns false, when any key exists.
	InsertAPIKey(ctx context.Context, k *Key, only bool) (bool, error)
	// APIKey returns one key, or a message.Error not_found.
	APIKey(ctx context.Context, id string) (*Key, error)
	// APIKeys returns all keys.
	APIKeys(ctx context.Context) ([]Key, error)
	// RevokeAPIKey revokes a key; a missing key is a message.Error not_found.
	RevokeAPIKey(ctx context.Context, id string) error
	// ReplaceAPIKey writes a key and makes the key with an id end at a time, unless that ends earlier, in one transaction. A
	// missing key is a message.Error not_found. It writes nothing and returns a message.Error conflict for a key that is
	// revoked or has ended.
	ReplaceAPIKey(ctx context.Context, id string, end time.Time, by *Key) error
}

// KeyUsage tells whether this deployment has any key, and records when a key was used.
type KeyUsage interface {
	AnyAPIKey(ctx context.Context) (bool, error)
	TouchAPIKey(ctx context.Context, id string) error
}

// Deps are the ports and settings of a Keyring.
type Deps struct {
	Keys      Keys
	Usage     KeyUsage
	Limiter   Limiter
	Checksums Checksums
	Rate      float64                              // requests per second of a key without a rate; 0: unlimited
	Failed    func(ctx context.Context, err error) // receives errors that reject no request
}

// Keyring creates API keys and authenticates tokens. It is safe for concurrent use. Keys are cached for cacheTTL, so every
// process sees a revocation within this time.
//
// A flood of forged tokens costs no queries. Only a token with a valid checksum has its id looked up. For any other token the
// id is searched in a list of the ids of all keys, which is read at most once in listTTL for all such tokens together (in
// forgedTTL for tokens with a wrong checksum: their master key may have been exchanged). The cache holds existing keys only,
// so a flood does not evict them.
type Keyring struct {
	deps Deps
	now  func() time.Time

	queries singleflight.Group // by what they look for
	cache   *lru.Cache[string, *cachedKey]

	mu      sync.Mutex // guards the fields below, and touched of the cached keys
	ids     map[string]bool
	asked   map[string]time.Time // when anyKey and allKeys were asked for last
	anyKeys bool                 // at least one key exists; keys are never deleted, so it stays true
}

// cachedKey is a key as it was read. It is fresh until a time; a stale one still proves that the key exists. Cache entries
// do not expire by themselves, because of this and because the Keyring's clock is injected.
type cachedKey struct {
	key     *Key
	until   time.Time
	touched bool // its use was recorded
}

const (
	cacheTTL      = time.Second
	listTTL       = time.Second
	forgedTTL     = time.Minute
	maxCached     = 10_000
	queryTimeout  = 5 * time.Second // of a query that several requests wait for
	touchInterval = time.Minute
	// MaxName is the maximum length of a key's name, and of its owner's, in characters.
	MaxName = 200
	// MaxGrace is the longest time for which a replaced key stays valid.
	MaxGrace = 365 * 24 * time.Hour
)

// Questions to the store beside single keys, for Keyring.asked.
const (
	anyKey  = "any"
	allKeys = "list"
)

// NewKeyring makes a Keyring.
func NewKeyring(d Deps) *Keyring {
	cache, err := lru.New[string, *cachedKey](maxCached)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Keyring{deps: d, now: time.Now, cache: cache, asked: map[string]time.Time{}}
}

// Create stores a new key with the name, owner, scopes, rate and expiry of k, fills in the other fields and returns the token,
// which cannot be read again. A key without an owner gets its own id as the owner. With only it creates nothing, and returns an
// empty token, when any key exists.
func (r *Keyring) Create(ctx context.Context, k *Key, only bool) (token string, err error) {
	token = r.complete(k)
	made, err := r.deps.Keys.InsertAPIKey(ctx, k, only)
	if err != nil || !made {
		return "", err
	}
	return token, nil
}

// complete gives a key its id, its secret and its time, and returns the token.
func (r *Keyring) complete(k *Key) (token string) {
	token, k.ID, k.Hash = r.deps.Checksums.newToken()
	if k.Owner == "" {
		k.Owner = k.ID
	}
	k.CreatedAt = r.now().UTC().Truncate(time.Second)
	return token
}

// Rotate replaces a key by a new one with the same owner, name, scopes and rate, and returns the new key with its token. The old
// key ends after grace, so that its program can be given the new token meanwhile; a request that was sent with the old key may be
// repeated with the new one under the same idempotency key. The new key ends at a time, nil for: after as long a life as the old
// one had. Errors are message.Errors: not_found, and conflict for a key that is revoked or has ended.
func (r *Keyring) Rotate(ctx context.Context, id string, grace time.Duration, end *time.Time) (*Key, string, error) {
	old, err := r.deps.Keys.APIKey(ctx, id)
	if err != nil {
		return nil, "", err
	}
	k := &Key{Name: old.Name, Owner: old.Owner, Scopes: old.Scopes, Rate: old.Rate, ExpiresAt: end}
	token := r.complete(k)
	if end == nil && old.ExpiresAt != nil {
		same := k.CreatedAt.Add(old.ExpiresAt.Sub(old.CreatedAt))
		k.ExpiresAt = &same
	}
	if err := r.deps.Keys.ReplaceAPIKey(ctx, id, k.CreatedAt.Add(grace), k); err != nil {
		return nil, "", err
	}
	return k, token, nil
}

// List returns all keys, revoked and expired ones included. Their secrets are not stored.
func (r *Keyring) List(ctx context.Context) ([]Key, error) { return r.deps.Keys.APIKeys(ctx) }

// Revoke revokes a key. It takes effect in all processes within cacheTTL and cannot be undone. A missing key is a
// message.Error not_found.
func (r *Keyring) Revoke(ctx context.Context, id string) error {
	return r.deps.Keys.RevokeAPIKey(ctx, id)
}

// InUse reports whether requests need a key: whether any key exists, revoked or not.
func (r *Keyring) InUse(ctx context.Context) (bool, error) {
	r.mu.Lock()
	inUse, fresh := r.anyKeys, r.fresh(anyKey, cacheTTL)
	r.mu.Unlock()
	if inUse || fresh {
		return inUse, nil
	}
	found, err := r.deps.Usage.AnyAPIKey(ctx)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.anyKeys = r.anyKeys || found
	r.asked[anyKey] = r.now()
	return r.anyKeys, nil
}

// fresh reports whether a question was asked within ttl. The caller holds the lock.
func (r *Keyring) fresh(question string, ttl time.Duration) bool {
	at, ok := r.asked[question]
	return ok && r.now().Sub(at) < ttl
}

// Authenticate returns the key of a token and counts the request against the rate of the key. The quota is nil for a key without
// a rate and for a token that is not valid; it is set if the rate rejects the request. Errors are message.Errors: unauthorized,
// throttled, unavailable.
func (r *Keyring) Authenticate(ctx context.Context, text string) (*Key, *Quota, error) {
	t, ok := parseToken(text)
	if !ok {
		return nil, nil, errNoKey
	}
	k, err := r.find(ctx, &t)
	if err != nil {
		return nil, nil, err
	}
	if err := k.check(t.hash, r.now()); err != nil {
		return nil, nil, err
	}
	r.touch(ctx, k)
	rate := k.limit(r.deps.Rate)
	if rate <= 0 {
		return k, nil, nil
	}
	a := r.deps.Limiter.Allow(ctx, k.ID, rate)
	if a.Wait > 0 {
		return nil, quotaOf(rate, a), &message.Error{
			Code: message.CodeThrottled, Message: fmt.Sprintf("this API key is limited to %g requests per second", rate), RetryAfter: a.Wait,
		}
	}
	return k, quotaOf(rate, a), nil
}

// find returns the key that a token names, at most cacheTTL old.
func (r *Keyring) find(ctx context.Context, t *token) (*Key, error) {
	id := t.id
	cached, known := r.cache.Get(id)
	if known && r.now().Before(cached.until) {
		return cached.key, nil
	}
	if !known {
		if err := r.worthAsking(ctx, t); err != nil {
			return nil, err
		}
	}
	v, err := r.query(ctx, "key "+id, func(ctx context.Context) (any, error) {
		// Another query may have ended since this request looked at the cache.
		if c, ok := r.cache.Get(id); ok && r.now().Before(c.until) {
			return c.key, nil
		}
		k, err := r.deps.Keys.APIKey(ctx, id)
		switch {
		case message.IsCode(err, message.CodeNotFound):
			r.cache.Remove(id)
			return nil, errNoKey
		case err != nil:
			return nil, err
		}
		r.cache.Add(id, &cachedKey{key: k, until: r.now().Add(cacheTTL)})
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*Key), nil //nolint:forcetypeassert // made above
}

// worthAsking rejects a token that must not cost a query: its checksum does not prove it, and no key has its id.
func (r *Keyring) worthAsking(ctx context.Context, t *token) error {
	trust := r.deps.Checksums.trustOf(t)
	if trust == proven {
		return nil
	}
	known, err := r.exists(ctx, t.id, trust)
	if err == nil && !known {
		return errNoKey
	}
	return err
}

// exists reports whether the list of all keys, read a moment ago, has an id.
func (r *Keyring) exists(ctx context.Context, id string, t trust) (bool, error) {
	ttl := listTTL
	if t == forged {
		ttl = forgedTTL
	}
	r.mu.Lock()
	known, fresh := r.ids[id], r.fresh(allKeys, ttl)
	r.mu.Unlock()
	if known || fresh {
		return known, nil
	}
	_, err := r.query(ctx, allKeys, func(ctx context.Context) (any, error) {
		keys, err := r.deps.Keys.APIKeys(ctx)
		if err != nil {
			return nil, err
		}
		ids := make(map[string]bool, len(keys))
		for i := range keys {
			ids[keys[i].ID] = true
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids, r.asked[allKeys] = ids, r.now()
		return nil, nil //nolint:nilnil // the list is kept
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id], err
}

// query runs a query once for all requests that wait for it (singleflight). It does not end with the request that started it.
func (r *Keyring) query(ctx context.Context, what string, run func(ctx context.Context) (any, error)) (any, error) {
	done := r.queries.DoChan(what, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		defer cancel()
		return run(ctx)
	})
	select {
	case res := <-done:
		return res.Val, res.Err
	case <-ctx.Done():
		return nil, message.Unavailable("the store of API keys", ctx.Err())
	}
}

// touch records that a key is used, at most once in touchInterval. Only one of the requests that share a cached key does.
func (r *Keyring) touch(ctx context.Context, k *Key) {
	if k.LastUsedAt != nil && r.now().Sub(*k.LastUsedAt) <= touchInterval {
		return
	}
	cached, ok := r.cache.Peek(k.ID)
	if !ok {
		return
	}
	r.mu.Lock()
	due := cached.key == k && !cached.touched
	cached.touched = cached.touched || due
	r.mu.Unlock()
	if !due {
		return
	}
	if err := r.deps.Usage.TouchAPIKey(ctx, k.ID); err != nil {
		r.deps.Failed(ctx, err)
	}
}
