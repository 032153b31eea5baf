package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// What is done under a key and the key itself are written together, once.
func TestOneEffectPerKey(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for _, asBulk := range []bool{false, true} {
			k := storetest.IdempotencyKey("caller", "key", "request")
			if asBulk {
				k.Hash[0]++
			}
			if _, err := s.Effect(t.Context(), k); !message.IsCode(err, message.CodeNotFound) {
				t.Fatalf("an effect of a free key: %v", err)
			}
			id, err := storetest.InsertUnder(t, s, k, asBulk)
			must(t, err)
			effect, err := s.Effect(t.Context(), k)
			must(t, err)
			if want := (access.Effect{Fingerprint: k.Fingerprint, ID: id, Bulk: asBulk}); effect != want {
				t.Errorf("effect %+v, want %+v", effect, want)
			}
			for _, other := range []bool{false, true} {
				lost, err := storetest.InsertUnder(t, s, k, other)
				if !errors.Is(err, access.ErrKeyTaken) || storetest.Exists(t, s, lost) {
					t.Errorf("a second effect: %v", err)
				}
			}
			elsewhere := *k
			elsewhere.Caller = "another caller"
			if _, err := storetest.InsertUnder(t, s, &elsewhere, asBulk); err != nil {
				t.Errorf("another caller's key is taken: %v", err)
			}
		}
		free, err := storetest.InsertUnder(t, s, nil, false)
		if err != nil || !storetest.Exists(t, s, free) {
			t.Errorf("without a key: %v", err)
		}
	})
}

// A key whose answer was lost is still its effect's.
func TestAnInsertUnderAKeyMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := store.Stamp(time.Now())
		m := &message.Message{ID: newID(), Recipient: "+15550001111", ChannelType: message.SMS, MessageType: message.Marketing, Keyed: true, Status: message.Queued, CreatedAt: now, UpdatedAt: now}
		b := &bulk.Bulk{ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: now}
		for range 2 {
			storetest.Insert(t, s, delivery.Entry{Message: m, Key: storetest.IdempotencyKey("", "single", "")})
			must(t, s.InsertBulk(t.Context(), b, storetest.IdempotencyKey("", "bulk", "")))
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if !l.Message.Keyed || !l.Message.CreatedAt.Equal(now) || !l.Message.UpdatedAt.Equal(now) {
			t.Errorf("loaded %+v", l.Message)
		}
	})
}

// Of concurrent requests under one key, in any grouping, one takes effect.
func TestOneOfManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const keys, tries = 20, 8
		var won [keys]atomic.Int32
		var wg sync.WaitGroup
		for try := range tries {
			for i := range keys {
				wg.Go(func() {
					_, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", strings.Repeat("k", i+1), ""), try%4 == 3)
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

// A key is valid for seven days. At 6 days and 23 hours it refuses another effect and is not forgotten; at 7 days and an hour it is
// free. That holds for singles and bulks, in both orders.
func TestFaultAKeyStandsForSevenDays(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		for _, before := range []bool{false, true} {
			for _, after := range []bool{false, true} {
				for _, c := range []struct {
					age   time.Duration
					taken bool
				}{{6*24*time.Hour + 23*time.Hour, true}, {7*24*time.Hour + time.Hour, false}, {10 * time.Minute, true}, {11 * time.Minute, true}} {
					name := fmt.Sprint(before, after, c.age)
					first, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", name, ""), before)
					must(t, err)
					_, err = db.ExecContext(t.Context(), "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id = $2", store.Stamp(time.Now().Add(-c.age)), first.String())
					must(t, err)
					if c.taken {
						must(t, s.ForgetEffects(t.Context()))
					}
					second, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", name, ""), after)
					if errors.Is(err, access.ErrKeyTaken) != c.taken || (err == nil) == c.taken {
						t.Errorf("%s: %v", name, err)
					}
					want := first
					if !c.taken {
						want = second
					}
					if e, err := s.Effect(t.Context(), storetest.IdempotencyKey("", name, "")); err != nil || e.ID != want || e.Bulk != (want == first && before || want == second && after) {
						t.Errorf("%s: effect %+v, %v", name, e, err)
					}
				}
			}
		}
	})
}
