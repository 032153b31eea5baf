package store_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func TestAPIKeys(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		if any, err := s.AnyAPIKey(t.Context()); any || err != nil {
			t.Fatalf("a key in an empty store: %v, %v", any, err)
		}
		expires := micro(time.Now().Add(time.Hour))
		k := &access.Key{
			ID: "0123456789abcdef", Name: "first", Hash: sha256.Sum256([]byte("x")), Scopes: []access.Scope{access.Send, access.Read}, Rate: 2.5,
			CreatedAt: micro(time.Now()), ExpiresAt: &expires,
		}
		made, err := s.InsertAPIKey(t.Context(), k, true)
		must(t, err)
		if again, err := s.InsertAPIKey(t.Context(), &access.Key{ID: "1", Scopes: k.Scopes, CreatedAt: k.CreatedAt}, true); !made || again || err != nil {
			t.Errorf("the only key: %v, another: %v, %v", made, again, err)
		}
		got, err := s.APIKey(t.Context(), k.ID)
		must(t, err)
		if d := cmp.Diff(k, got); d != "" {
			t.Error(d)
		}
		must(t, s.TouchAPIKey(t.Context(), k.ID))
		must(t, s.RevokeAPIKey(t.Context(), k.ID))
		list, err := s.APIKeys(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].RevokedAt == nil || list[0].LastUsedAt == nil {
			t.Fatalf("%+v", list)
		}
		must(t, s.RevokeAPIKey(t.Context(), k.ID))
		if again, err := s.APIKey(t.Context(), k.ID); err != nil || !again.RevokedAt.Equal(*list[0].RevokedAt) {
			t.Errorf("revoked again, at another time: %v, %v", again, err)
		}
		if any, err := s.AnyAPIKey(t.Context()); !any || err != nil {
			t.Errorf("a revoked key is none: %v, %v", any, err)
		}
		for _, err := range []error{s.RevokeAPIKey(t.Context(), "nobody"), func() error { _, err := s.APIKey(t.Context(), "nobody"); return err }()} {
			if !message.IsCode(err, message.CodeNotFound) {
				t.Errorf("a key that is not there: %v", err)
			}
		}
	})
}

func keyed(caller, key, request string) *access.IdempotencyKey {
	return &access.IdempotencyKey{Caller: caller, Hash: sha256.Sum256([]byte(key)), Fingerprint: sha256.Sum256([]byte(request))}
}

// insertUnder writes a single, or a bulk, under a key, and returns its id.
func insertUnder(t *testing.T, s *storetest.Store, k *access.IdempotencyKey, asBulk bool) (uuid.UUID, error) {
	t.Helper()
	id, now := newID(), micro(time.Now())
	if asBulk {
		return id, s.InsertBulk(t.Context(), &bulk.Bulk{ID: id, Channel: storetest.Channel(t, s, message.Email).Key, Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: now}, k)
	}
	m := &message.Message{ID: id, Recipient: "+15550001111", ChannelType: message.SMS, MessageType: message.Transactional, Keyed: k != nil, Status: message.Queued, CreatedAt: now, UpdatedAt: now}
	ensureChannel(t, s, channel.Key{ID: m.ChannelID, Type: m.ChannelType})
	_, err := s.Insert(t.Context(), delivery.Entry{Message: m, Key: k})
	return id, err
}

// written counts what an id stands for.
func written(t *testing.T, s *storetest.Store, id uuid.UUID) int {
	t.Helper()
	n := 0
	if _, _, err := s.Message(t.Context(), id); err == nil {
		n++
	}
	if _, err := s.Bulk(t.Context(), id); err == nil {
		n++
	}
	return n
}

// What is done under a key and the key itself are written together, once.
func TestOneEffectPerKey(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for _, asBulk := range []bool{false, true} {
			k := keyed("caller", "key", "request")
			if asBulk {
				k.Hash[0]++
			}
			if _, err := s.Effect(t.Context(), k); !message.IsCode(err, message.CodeNotFound) {
				t.Fatalf("an effect before there was one: %v", err)
			}
			id, err := insertUnder(t, s, k, asBulk)
			must(t, err)
			effect, err := s.Effect(t.Context(), k)
			must(t, err)
			if want := (access.Effect{Fingerprint: k.Fingerprint, ID: id, Bulk: asBulk}); effect != want {
				t.Errorf("effect %+v, want %+v", effect, want)
			}
			for _, other := range []bool{false, true} {
				lost, err := insertUnder(t, s, k, other)
				if !errors.Is(err, access.ErrKeyTaken) || written(t, s, lost) != 0 {
					t.Errorf("a second effect: %v, %d rows", err, written(t, s, lost))
				}
			}
			elsewhere := *k
			elsewhere.Caller = "somebody else"
			if _, err := insertUnder(t, s, &elsewhere, asBulk); err != nil {
				t.Errorf("another caller's key is taken: %v", err)
			}
		}
		free, err := insertUnder(t, s, nil, false)
		if err != nil || written(t, s, free) != 1 {
			t.Errorf("without a key: %v", err)
		}
	})
}

// A key whose answer was lost is still its effect's.
func TestAnInsertUnderAKeyMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := micro(time.Now())
		m := &message.Message{ID: newID(), Recipient: "+15550001111", ChannelType: message.SMS, MessageType: message.Marketing, Keyed: true, Status: message.Queued, CreatedAt: now, UpdatedAt: now}
		b := &bulk.Bulk{ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: now}
		for range 2 {
			insert(t, s, delivery.Entry{Message: m, Key: keyed("", "single", "")})
			must(t, s.InsertBulk(t.Context(), b, keyed("", "bulk", "")))
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if !l.Message.Keyed || !l.Message.CreatedAt.Equal(now) || !l.Message.UpdatedAt.Equal(now) {
			t.Errorf("loaded %+v", l.Message)
		}
	})
}

// However many come at once, in whatever groups, one of each key takes effect.
func TestOneOfManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const keys, tries = 20, 8
		var won [keys]atomic.Int32
		var wg sync.WaitGroup
		for try := range tries {
			for i := range keys {
				wg.Go(func() {
					_, err := insertUnder(t, s, keyed("", strings.Repeat("k", i+1), ""), try%4 == 3)
					switch {
					case err == nil:
						won[i].Add(1)
					case !errors.Is(err, access.ErrKeyTaken):
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for i := range won {
			if n := won[i].Load(); n != 1 {
				t.Errorf("key %d took effect %d times", i, n)
			}
		}
	})
}

func TestOldKeysAreForgotten(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s := open(t, url)
		db := raw(t, url)
		age := func(effect uuid.UUID, d time.Duration) {
			t.Helper()
			query := "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id = $2"
			res, err := db.ExecContext(t.Context(), query, micro(time.Now().Add(-d)), effect.String())
			must(t, err)
			if n, _ := res.RowsAffected(); n != 1 {
				t.Fatalf("%d keys were aged", n)
			}
		}
		for _, asBulk := range []bool{false, true} {
			old, err := insertUnder(t, s, keyed("", "old", ""), asBulk)
			must(t, err)
			age(old, access.KeepEffects+time.Minute)
			if _, err := s.Effect(t.Context(), keyed("", "old", "")); !message.IsCode(err, message.CodeNotFound) {
				t.Errorf("a key that is too old still stands: %v", err)
			}
			young, err := insertUnder(t, s, keyed("", "young", ""), asBulk)
			must(t, err)
			age(young, access.KeepEffects-time.Minute)
			again, err := insertUnder(t, s, keyed("", "old", "another"), asBulk)
			must(t, err)
			if e, err := s.Effect(t.Context(), keyed("", "old", "")); err != nil || e.ID != again {
				t.Errorf("a key that was too old is not taken anew: %v", err)
			}
			age(again, access.KeepEffects+time.Minute)
			must(t, s.ForgetEffects(t.Context()))
			if e, err := s.Effect(t.Context(), keyed("", "young", "")); err != nil || e.ID != young {
				t.Errorf("a young key was forgotten: %v", err)
			}
			var left int
			must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM idempotency_keys").Scan(&left))
			if left != 1 {
				t.Errorf("%d keys are left, want the young one", left)
			}
			age(young, access.KeepEffects+time.Minute)
		}
	})
}
