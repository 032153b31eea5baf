package access

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/message"
)

// shelf is a store of keys that counts what it is asked.
type shelf struct {
	mu                     sync.Mutex
	keys                   map[string]*Key
	single, lists, touches int
	hold                   chan struct{} // queries wait for it where it is set
	none                   bool          // AnyAPIKey finds no key
	anyAsked               int
	touchErr               error
}

func (s *shelf) InsertAPIKey(_ context.Context, k *Key, _ bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.ID] = k
	return true, nil
}

func (s *shelf) APIKey(ctx context.Context, id string) (*Key, error) {
	s.mu.Lock()
	hold := s.hold
	s.single++
	k := s.keys[id]
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if k == nil {
		return nil, message.Errorf(message.CodeNotFound, "not found")
	}
	found := *k
	return &found, nil
}

func (s *shelf) APIKeys(context.Context) ([]Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	var all []Key
	for _, k := range s.keys {
		all = append(all, *k)
	}
	return all, nil
}

func (s *shelf) ReplaceAPIKey(_ context.Context, id string, end time.Time, by *Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended, made := *s.keys[id], *by
	ended.ExpiresAt = &end
	s.keys[id], s.keys[by.ID] = &ended, &made
	return nil
}

func (s *shelf) RevokeAPIKey(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	revoked := *s.keys[id]
	revoked.RevokedAt = &now
	s.keys[id] = &revoked
	return nil
}

func (s *shelf) AnyAPIKey(context.Context) (bool, error) {
	s.anyAsked++
	return !s.none, nil
}

func (s *shelf) TouchAPIKey(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touches++
	return s.touchErr
}

func (s *shelf) queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.single + s.lists
}

func (s *shelf) wants(t *testing.T, what string, single, lists int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.single != single || s.lists != lists {
		t.Errorf("%s: %d look-ups and %d lists, want %d and %d", what, s.single, s.lists, single, lists)
	}
}

var (
	masterA = []byte(strings.Repeat("a", 32))
	masterB = []byte(strings.Repeat("b", 32))
)

// ring makes a Keyring on a shelf, with a clock that the test moves.
func ring(s *shelf, sums Checksums) (*Keyring, *time.Time) {
	if s.keys == nil {
		s.keys = map[string]*Key{}
	}
	now := time.Now()
	r := NewKeyring(Deps{Keys: s, Usage: s, Checksums: sums, Failed: func(context.Context, error) {}})
	r.now = func() time.Time { return now }
	return r, &now
}

func mint(t *testing.T, r *Keyring) (*Key, string) {
	t.Helper()
	k := &Key{Scopes: Scopes}
	token, err := r.Create(t.Context(), k, false)
	if err != nil {
		t.Fatal(err)
	}
	return k, token
}

// forge makes a token of the right form: with a checksum that is none, or without, as those of before.
func forge(bytes int) string {
	b := make([]byte, idBytes+bytes)
	_, _ = rand.Read(b)
	return tokenPrefix + hex.EncodeToString(b[:idBytes]) + "_" + base64.RawURLEncoding.EncodeToString(b[idBytes:])
}

func refused(t *testing.T, r *Keyring, what, token string) {
	t.Helper()
	if k, _, err := r.Authenticate(t.Context(), token); k != nil || !message.IsCode(err, message.CodeUnauthorized) {
		t.Errorf("%s: %v, %v", what, k, err)
	}
}

func taken(t *testing.T, r *Keyring, what, token string) {
	t.Helper()
	if _, _, err := r.Authenticate(t.Context(), token); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// A flood of forged tokens costs no queries and evicts nothing from the cache.
func TestFaultForgedKeysCostNoQueries(t *testing.T) {
	for name, form := range map[string]int{"with a checksum": secretBytes + checksumBytes, "of before": secretBytes} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{}
			r, now := ring(s, NewChecksums(masterA))
			_, token := mint(t, r)
			taken(t, r, "the real one", token)
			s.wants(t, "the real one", 1, 0)
			for range 3 * maxCached {
				refused(t, r, "forged", forge(form))
			}
			s.wants(t, "a flood", 1, 1)
			taken(t, r, "the real one, after the flood", token)
			s.wants(t, "the cache after the flood", 1, 1)
			// The flood lasts ten seconds.
			for range 100 {
				*now = now.Add(100 * time.Millisecond)
				for range 50 {
					refused(t, r, "forged", forge(form))
				}
			}
			lists := 1 // those with a checksum: one a minute
			if form == secretBytes {
				lists = 11 // the others: one a second
			}
			s.wants(t, "ten seconds of it", 1, lists)
		})
	}
}

// Tokens of which one part is real cost no more.
func TestFaultHalfForgedKeys(t *testing.T) {
	s := &shelf{}
	r, _ := ring(s, NewChecksums(masterA))
	k, token := mint(t, r)
	taken(t, r, "the real one", token)
	secret := strings.TrimPrefix(token, tokenPrefix+k.ID+"_")
	raw, _ := base64.RawURLEncoding.DecodeString(secret)
	for what, bad := range map[string]string{
		"the id with another secret":       tokenPrefix + k.ID + forge(secretBytes + checksumBytes)[len(tokenPrefix)+2*idBytes:],
		"the id with a secret of before":   tokenPrefix + k.ID + forge(secretBytes)[len(tokenPrefix)+2*idBytes:],
		"the secret under another id":      forge(secretBytes + checksumBytes)[:len(tokenPrefix)+2*idBytes+1] + secret,
		"the checksum cut off":             tokenPrefix + k.ID + "_" + base64.RawURLEncoding.EncodeToString(raw[:secretBytes]),
		"the checksum cut short":           tokenPrefix + k.ID + "_" + base64.RawURLEncoding.EncodeToString(raw[:secretBytes+checksumBytes-1]),
		"one more byte":                    tokenPrefix + k.ID + "_" + base64.RawURLEncoding.EncodeToString(append(raw[:len(raw):len(raw)], 0)),
		"the checksum of another master":   func() string { b, _ := ring(&shelf{}, NewChecksums(masterB)); _, tok := mint(t, b); return tok }(),
		"nothing but the prefix":           tokenPrefix,
		"the id in capitals":               tokenPrefix + strings.ToUpper(k.ID) + "_" + secret,
		"another prefix, the rest is real": "hq_" + k.ID + "_" + secret,
	} {
		refused(t, r, what, bad)
	}
	s.wants(t, "all of them", 1, 1)
	if s.touches != 1 {
		t.Errorf("the key counts as used %d times; a forgery is no use", s.touches)
	}
}

// Keys go on working over the exchange of the master key, and those of before the checksums for ever.
func TestFaultKeysOutliveTheMasterKey(t *testing.T) {
	s := &shelf{}
	before, _ := ring(s, Checksums{})
	_, old := mint(t, before)
	first, _ := ring(s, NewChecksums(masterA))
	_, marked := mint(t, first)
	if len(old) == len(marked) {
		t.Fatal("the forms are the same")
	}
	for name, sums := range map[string]Checksums{
		"as it was": NewChecksums(masterA), "exchanged, the old one at hand": NewChecksums(masterB, masterA), "the old one dropped": NewChecksums(masterB),
	} {
		s.single, s.lists = 0, 0
		r, now := ring(s, sums)
		taken(t, r, name+", a key of before", old)
		taken(t, r, name+", a key with a checksum", marked)
		s.wants(t, name, 2, 1)
		*now = now.Add(cacheTTL)
		refused(t, r, name, forge(secretBytes))
		taken(t, r, name+", later", old)
		taken(t, r, name+", later", marked)
	}
	// With the previous key configured, the checksum alone proves the token, and the store is asked.
	s.single, s.lists = 0, 0
	r, _ := ring(s, NewChecksums(masterB, masterA))
	taken(t, r, "exchanged", marked)
	s.wants(t, "a checksum of the previous master key", 1, 0)
}

// A key with a checksum that is made during a flood works at once. A key without one works within a second.
func TestFaultNewKeysDuringAFlood(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	refused(t, r, "forged", forge(secretBytes))
	_, marked := mint(t, r)
	taken(t, r, "a new key", marked)
	other, _ := ring(s, Checksums{})
	_, old := mint(t, other)
	refused(t, r, "a key of the old form, before the list is read again", old)
	*now = now.Add(listTTL)
	taken(t, r, "a second later", old)
}

// Requests that need the same query share it. It does not end with the request that began it.
func TestFaultOneQueryForAll(t *testing.T) {
	s := &shelf{hold: make(chan struct{})}
	r, _ := ring(s, NewChecksums(masterA))
	_, token := mint(t, r)
	gone, hangUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, _, err := r.Authenticate(gone, token)
		first <- err
	}()
	for s.queries() == 0 {
		runtime.Gosched()
	}
	hangUp()
	if err := <-first; !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("the one that hung up: %v", err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 50)
	for range 50 {
		wg.Go(func() {
			_, _, err := r.Authenticate(t.Context(), token)
			errs <- err
		})
	}
	close(s.hold)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	// Those that came after the first query's end found it in the cache.
	s.wants(t, "51 requests", 1, 0)
}

// The steps of time decide to the moment how long a key is trusted after it was read.
func TestKeysAreReadAgain(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	k, token := mint(t, r)
	taken(t, r, "at once", token)
	*now = now.Add(cacheTTL - 1)
	taken(t, r, "while it is fresh", token)
	s.wants(t, "while it is fresh", 1, 0)
	if err := s.RevokeAPIKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	taken(t, r, "revoked, while it is fresh", token)
	*now = now.Add(1)
	refused(t, r, "revoked", token)
	s.wants(t, "revoked", 2, 0)
	s.mu.Lock()
	delete(s.keys, k.ID)
	s.mu.Unlock()
	*now = now.Add(cacheTTL)
	refused(t, r, "gone", token)
	if r.cache.Len() != 0 {
		t.Error("a key that is gone stays in the cache")
	}
}

func TestKeysExpire(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	k, token := mint(t, r)
	expires := now.Add(time.Hour)
	s.keys[k.ID].ExpiresAt = &expires
	*now = expires.Add(-1)
	taken(t, r, "a moment before it expires", token)
	*now = expires
	refused(t, r, "expired", token)
}

// The use of a key is recorded once a minute, by one of the requests that share its cached copy. A failure is reported and
// rejects nothing.
func TestUseIsRecorded(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	k, token := mint(t, r)
	for range 3 {
		taken(t, r, "a request", token)
	}
	if s.touches != 1 {
		t.Errorf("recorded %d times, want once", s.touches)
	}
	used := *now
	s.keys[k.ID].LastUsedAt = &used
	*now = now.Add(touchInterval)
	taken(t, r, "a minute later", token)
	if s.touches != 1 {
		t.Errorf("recorded %d times within a minute", s.touches)
	}
	*now = now.Add(cacheTTL)
	var failed error
	r.deps.Failed = func(_ context.Context, err error) { failed = err }
	s.touchErr = errors.New("disk full")
	taken(t, r, "after a minute, though it cannot be recorded", token)
	if s.touches != 2 || !errors.Is(failed, s.touchErr) {
		t.Errorf("recorded %d times, reported %v", s.touches, failed)
	}
}

// limits is a Limiter that notes what it is asked.
type limits struct {
	wait time.Duration
	id   string
	rate float64
}

func (l *limits) Allow(_ context.Context, id string, rate float64) Allowance {
	l.id, l.rate = id, rate
	return Allowance{Wait: l.wait}
}

func TestRateOfAKey(t *testing.T) {
	for name, c := range map[string]struct{ own, deployment, want float64 }{
		"its own": {7, 3, 7}, "the deployment's": {0, 3, 3}, "its own alone": {7, 0, 7}, "its own below one": {0.5, 3, 0.5}, "none": {0, 0, 0},
		"no limit of its own": {Unlimited, 3, 0},
	} {
		s, l := &shelf{}, &limits{wait: 2 * time.Second}
		r, _ := ring(s, NewChecksums(masterA))
		k, token := mint(t, r)
		r.deps.Limiter, r.deps.Rate, s.keys[k.ID].Rate = l, c.deployment, c.own
		_, _, err := r.Authenticate(t.Context(), token)
		if c.want == 0 {
			if err != nil || l.id != "" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var e *message.Error
		if !errors.As(err, &e) || e.Code != message.CodeThrottled || e.RetryAfter != l.wait || l.rate != c.want || l.id != k.ID || !strings.Contains(e.Message, fmt.Sprint(c.want)) {
			t.Errorf("%s: %v, asked for %v of %s", name, err, l.rate, l.id)
		}
		l.wait = 0
		taken(t, r, name+", allowed", token)
	}
}

// InUse asks the store at most once in cacheTTL, and never again once a key exists.
func TestInUse(t *testing.T) {
	s := &shelf{none: true}
	r, now := ring(s, Checksums{})
	for _, c := range []struct {
		after time.Duration
		none  bool
		want  bool
		asked int
	}{{0, true, false, 1}, {cacheTTL - 1, false, false, 1}, {1, false, true, 2}, {time.Hour, true, true, 2}} {
		*now = now.Add(c.after)
		s.none = c.none
		if used, err := r.InUse(t.Context()); used != c.want || err != nil || s.anyAsked != c.asked {
			t.Errorf("after %s: %t, %v, asked %d times, want %t and %d", c.after, used, err, s.anyAsked, c.want, c.asked)
		}
	}
}

// A full cache evicts the key that was used longest ago, and keeps the others.
func TestTheCacheIsBounded(t *testing.T) {
	s := &shelf{}
	r, _ := ring(s, NewChecksums(masterA))
	_, first := mint(t, r)
	_, second := mint(t, r)
	taken(t, r, "the first", first)
	taken(t, r, "the second", second)
	for i := range maxCached - 1 {
		r.cache.Add(fmt.Sprint(i), &cachedKey{})
	}
	s.wants(t, "before", 2, 0)
	taken(t, r, "the second, kept", second)
	s.wants(t, "kept", 2, 0)
	taken(t, r, "the first, read again", first)
	s.wants(t, "evicted", 3, 0)
}

func BenchmarkForged(b *testing.B) {
	for _, form := range []int{secretBytes, secretBytes + checksumBytes} {
		b.Run(fmt.Sprint(form, " bytes"), func(b *testing.B) {
			r, _ := ring(&shelf{}, NewChecksums(masterA, masterB))
			token := forge(form)
			for b.Loop() {
				_, _, _ = r.Authenticate(b.Context(), token)
			}
		})
	}
}

// A request that waits for a query gets its result even if the request that started the query has ended.
func TestAQueryOutlivesItsFirstCaller(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	_, token := mint(t, r)
	*now = now.Add(cacheTTL)
	s.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, _, err := r.Authenticate(ctx, token)
		first <- err
	}()
	for s.queries() == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-first; !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("the first caller: %v, want unavailable", err)
	}
	second := make(chan error, 1)
	go func() {
		_, _, err := r.Authenticate(t.Context(), token)
		second <- err
	}()
	close(s.hold)
	if err := <-second; err != nil {
		t.Errorf("the second caller: %v", err)
	}
	s.wants(t, "both callers", 1, 0)
}

// New tokens get the checksum of the current master key, so that they are still proven when the previous key is removed.
func TestNewTokensUseTheCurrentMasterKey(t *testing.T) {
	token, _, _ := NewChecksums(masterB, masterA).newToken()
	parsed, ok := parseToken(token)
	if !ok || NewChecksums(masterB).trustOf(&parsed) != proven || NewChecksums(masterA).trustOf(&parsed) != forged {
		t.Errorf("parsed %v, by the current key %v, by the previous one %v", ok, NewChecksums(masterB).trustOf(&parsed), NewChecksums(masterA).trustOf(&parsed))
	}
}

// A token has one spelling: unused bits of its last character must be zero, upper case ids and padding are refused.
func TestATokenHasOneSpelling(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for name, sums := range map[string]Checksums{"with checksum": NewChecksums(masterA), "without": {}} {
		token, _, _ := sums.newToken()
		if _, ok := parseToken(token); !ok {
			t.Fatalf("%s: %s is refused", name, token)
		}
		last := strings.IndexByte(alphabet, token[len(token)-1])
		for what, other := range map[string]string{
			"unused bits": token[:len(token)-1] + string(alphabet[last|1]), "padding": token + "=",
			"upper case": tokenPrefix + strings.ToUpper(token[len(tokenPrefix):len(tokenPrefix)+2*idBytes]) + token[len(tokenPrefix)+2*idBytes:],
		} {
			if what == "upper case" && other == token { // an id without letters
				continue
			}
			if _, ok := parseToken(other); ok {
				t.Errorf("%s: %s: %s is accepted beside %s", name, what, other, token)
			}
		}
	}
}
