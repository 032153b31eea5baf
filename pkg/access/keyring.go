package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

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
	Allow(ctx context.Context, keyID string, perSecond float64) time.Duration
}

// KeyringDeps is what a Keyring works with.
type KeyringDeps struct {
	Keys      Keys
	Uses      Uses
	Limiter   Limiter
	Checksums Checksums
	Rate      float64                              // requests a second of a key that has no rate of its own, 0: as many as come
	Failed    func(ctx context.Context, err error) // told of errors that refuse no request
}

// Keyring makes API keys and recognises them. Lookups are cached for a moment, so a revocation reaches every process
// within cacheTTL.
//
// A flood of forged tokens costs no queries. Only a token whose checksum is right may have its id looked up. Any other is
// looked for among the ids of all keys, which are listed at most once in listTTL for all such tokens together (for those
// with a wrong checksum, in forgedTTL: the master key that they were made with may be gone). The cache holds keys that
// exist and nothing else, so a flood does not empty it either.
type Keyring struct {
	KeyringDeps
	now func() time.Time

	group singleflight.Group // of queries, by what they look for
	mu    sync.Mutex
	cache map[string]cached
	known map[string]bool // the ids of all keys, as they were listed
	asked map[string]time.Time
	inUse bool // there is a key; keys are never deleted, so this stays
}

type cached struct {
	key     *Key
	until   time.Time
	touched bool // its use was noted
}

const (
	cacheTTL   = time.Second
	listTTL    = time.Second
	forgedTTL  = time.Minute
	cacheMax   = 10_000
	lookUpTime = 5 * time.Second // for a query that several requests wait for
	touchEach  = time.Minute
	// MaxName is the longest name of a key, in characters.
	MaxName = 200
)

// What was asked of the store lately, beside single keys.
const (
	askedAny  = "any"
	askedList = "list"
)

// NewKeyring makes a Keyring.
func NewKeyring(d KeyringDeps) *Keyring {
	return &Keyring{KeyringDeps: d, now: time.Now, cache: map[string]cached{}, asked: map[string]time.Time{}}
}

// Create makes a key of the name, scopes, rate and expiry that k has, fills in the rest and returns its token, which is
// shown this once. With only, it makes none, and returns an empty token, where there is a key already.
func (r *Keyring) Create(ctx context.Context, k *Key, only bool) (token string, err error) {
	token, k.ID, k.Hash = r.Checksums.newToken()
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
	known, fresh := r.inUse, r.fresh(askedAny, cacheTTL)
	r.mu.Unlock()
	if known || fresh {
		return known, nil
	}
	any, err := r.Uses.AnyAPIKey(ctx)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inUse = r.inUse || any
	r.asked[askedAny] = r.now()
	return r.inUse, nil
}

// fresh says whether something was asked of the store within a time. The caller holds the lock.
func (r *Keyring) fresh(what string, ttl time.Duration) bool {
	at, ok := r.asked[what]
	return ok && r.now().Sub(at) < ttl
}

// Authenticate returns the key of a token. Errors are message.Errors: unauthorized, throttled, unavailable.
func (r *Keyring) Authenticate(ctx context.Context, text string) (*Key, error) {
	t, ok := parseToken(text)
	if !ok {
		return nil, errNoKey
	}
	k, err := r.find(ctx, &t)
	if err != nil {
		return nil, err
	}
	if err := k.judge(t.hash, r.now()); err != nil {
		return nil, err
	}
	r.touch(ctx, k)
	rate := k.Rate
	if rate == 0 {
		rate = r.Rate
	}
	if rate > 0 {
		if wait := r.Limiter.Allow(ctx, k.ID, rate); wait > 0 {
			return nil, &message.Error{
				Code: message.CodeThrottled, Message: fmt.Sprintf("this API key has %g requests a second", rate), RetryAfter: wait,
			}
		}
	}
	return k, nil
}

// find returns the key that a token names, at most a moment old.
func (r *Keyring) find(ctx context.Context, t *token) (*Key, error) {
	id := t.id
	if k := r.cachedKey(id); k != nil {
		return k, nil
	}
	if !r.remembers(id) {
		if err := r.worthAsking(ctx, t); err != nil {
			return nil, err
		}
	}
	v, err := r.once(ctx, "key "+id, func(ctx context.Context) (any, error) {
		if k := r.cachedKey(id); k != nil { // another query ended between this request's look at the cache and this one
			return k, nil
		}
		k, err := r.Keys.APIKey(ctx, id)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			if message.IsCode(err, message.CodeNotFound) {
				delete(r.cache, id)
				err = errNoKey
			}
			return nil, err
		}
		if len(r.cache) >= cacheMax {
			clear(r.cache)
		}
		r.cache[id] = cached{key: k, until: r.now().Add(cacheTTL)}
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*Key), nil //nolint:forcetypeassert // made above
}

// cachedKey returns a key that was read a moment ago, nil when it must be read.
func (r *Keyring) cachedKey(id string) *Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.cache[id]; ok && r.now().Before(c.until) {
		return c.key
	}
	return nil
}

// remembers says whether a key is in the cache, however old: it exists, so reading it again is no forger's query.
func (r *Keyring) remembers(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.cache[id]
	return ok
}

// worthAsking refuses a token that is not worth a query: it was not made here, and its key is not among those that exist.
func (r *Keyring) worthAsking(ctx context.Context, t *token) error {
	trust := r.Checksums.judge(t)
	if trust == proven {
		return nil
	}
	known, err := r.exists(ctx, t.id, trust)
	if err == nil && !known {
		return errNoKey
	}
	return err
}

// exists says whether a key is among all keys, as they were listed a moment ago.
func (r *Keyring) exists(ctx context.Context, id string, t trust) (bool, error) {
	ttl := listTTL
	if t == forged {
		ttl = forgedTTL
	}
	r.mu.Lock()
	known, fresh := r.known[id], r.fresh(askedList, ttl)
	r.mu.Unlock()
	if known || fresh {
		return known, nil
	}
	_, err := r.once(ctx, askedList, func(ctx context.Context) (any, error) {
		keys, err := r.Keys.APIKeys(ctx)
		if err != nil {
			return nil, err
		}
		ids := make(map[string]bool, len(keys))
		for i := range keys {
			ids[keys[i].ID] = true
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.known, r.asked[askedList] = ids, r.now()
		return nil, nil //nolint:nilnil // the list is kept
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[id], err
}

// once makes a query for all requests that wait for it (singleflight). It does not end with the request that began it.
func (r *Keyring) once(ctx context.Context, what string, query func(ctx context.Context) (any, error)) (any, error) {
	done := r.group.DoChan(what, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookUpTime)
		defer cancel()
		return query(ctx)
	})
	select {
	case res := <-done:
		return res.Val, res.Err
	case <-ctx.Done():
		return nil, message.Unavailable("the store of API keys", ctx.Err())
	}
}

// touch notes that a key is used, once a minute.
func (r *Keyring) touch(ctx context.Context, k *Key) {
	if k.LastUsedAt != nil && r.now().Sub(*k.LastUsedAt) <= touchEach {
		return
	}
	r.mu.Lock()
	c := r.cache[k.ID]
	due := c.key == k && !c.touched // else another request has done it, or the key was read again
	if due {
		c.touched = true
		r.cache[k.ID] = c
	}
	r.mu.Unlock()
	if due {
		if err := r.Uses.TouchAPIKey(ctx, k.ID); err != nil {
			r.Failed(ctx, err)
		}
	}
}
