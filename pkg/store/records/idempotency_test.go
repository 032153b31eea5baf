package records_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func TestOldKeysAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		age := func(effect uuid.UUID, d time.Duration) {
			t.Helper()
			query := "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id = $2"
			res, err := db.ExecContext(t.Context(), query, store.Stamp(time.Now().Add(-d)), effect.String())
			must(t, err)
			if n, _ := res.RowsAffected(); n != 1 {
				t.Fatalf("%d keys were aged", n)
			}
		}
		for _, asBulk := range []bool{false, true} {
			old, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", "old", ""), asBulk)
			must(t, err)
			age(old, access.KeepEffects+time.Minute)
			if _, err := s.Effect(t.Context(), storetest.IdempotencyKey("", "old", "")); !message.IsCode(err, message.CodeNotFound) {
				t.Errorf("the effect of an expired key: %v", err)
			}
			young, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", "young", ""), asBulk)
			must(t, err)
			age(young, access.KeepEffects-time.Minute)
			again, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", "old", "another"), asBulk)
			must(t, err)
			if e, err := s.Effect(t.Context(), storetest.IdempotencyKey("", "old", "")); err != nil || e.ID != again {
				t.Errorf("an expired key is not free: %v", err)
			}
			age(again, access.KeepEffects+time.Minute)
			must(t, s.ForgetEffects(t.Context()))
			if e, err := s.Effect(t.Context(), storetest.IdempotencyKey("", "young", "")); err != nil || e.ID != young {
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

// A key that is taken again while it is deleted for its age stays.
func TestFaultAKeyTakenAgainIsNotForgotten(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	ctx := t.Context()
	for _, asBulk := range []bool{false, true} {
		name := fmt.Sprint("taken ", asBulk)
		old, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", name, "first"), asBulk)
		must(t, err)
		other, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", name+" other", ""), asBulk)
		must(t, err)
		age := store.Stamp(time.Now().Add(-access.KeepEffects - time.Minute))
		_, err = db.ExecContext(ctx, "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id IN ($2, $3)", age, old.String(), other.String())
		must(t, err)
		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		defer tx.Rollback()
		again := newID()
		_, err = tx.ExecContext(ctx, "UPDATE idempotency_keys SET effect_id = $1, created_at = now() WHERE effect_id = $2", again.String(), old.String())
		must(t, err)
		forgotten := make(chan error)
		go func() { forgotten <- s.ForgetEffects(ctx) }()
		storetest.AwaitLock(t, db)
		must(t, tx.Commit())
		must(t, <-forgotten)
		if e, err := s.Effect(ctx, storetest.IdempotencyKey("", name, "first")); err != nil || e.ID != again {
			t.Errorf("the key that was taken again: %+v, %v", e, err)
		}
		if _, err := s.Effect(ctx, storetest.IdempotencyKey("", name+" other", "")); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("the old key beside it: %v", err)
		}
		if _, err := storetest.InsertUnder(t, s, storetest.IdempotencyKey("", name, "first"), asBulk); !errors.Is(err, access.ErrKeyTaken) {
			t.Errorf("the same request is done again: %v", err)
		}
	}
}

// Old keys are deleted in pages, until none is left. The key of one caller is free for another.
func TestManyOldKeysAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx, old := t.Context(), store.Stamp(time.Now().Add(-access.KeepEffects-time.Hour))
		db := storetest.Raw(t, s.URL)
		key, id := "CAST(printf('%032d', i) AS blob)", "printf('%08x-0000-7000-8000-000000000000', i)"
		if s.IsPostgres() {
			key, id = "decode(lpad(i::text, 64, '0'), 'hex')", "(lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid"
		}
		_, err := db.ExecContext(ctx, `
INSERT INTO idempotency_keys (caller, key_hash, fingerprint, effect_id, is_bulk, created_at)
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 20001)
SELECT 'caller', `+key+`, `+key+`, `+id+`, false, $1 FROM numbers`, old)
		must(t, err)
		k := storetest.IdempotencyKey("caller", "young", "x")
		young, err := storetest.InsertUnder(t, s, k, false)
		must(t, err)
		must(t, s.ForgetEffects(ctx))
		var left int
		must(t, db.QueryRowContext(ctx, "SELECT count(*) FROM idempotency_keys").Scan(&left))
		if e, err := s.Effect(ctx, k); left != 1 || err != nil || e.ID != young {
			t.Errorf("%d keys are left, the young one: %+v, %v", left, e, err)
		}
		other := *k
		other.Caller = "another"
		if _, err := s.Effect(ctx, &other); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("the effect of another caller: %v", err)
		}
	})
}
