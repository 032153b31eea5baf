package records

import (
	"context"
	"crypto/sha256"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/store"
)

// IdempotencyStore implements access.IdempotencyStore. The keys are written by store.TakeIdempotencyKey, in the transaction of the effect. It
// is safe for concurrent use.
type IdempotencyStore struct{ db *store.DB }

// NewIdempotencyStore returns the idempotency keys of a database.
func NewIdempotencyStore(db *store.DB) *IdempotencyStore { return &IdempotencyStore{db} }

// Effect implements access.IdempotencyStore.
func (s *IdempotencyStore) Effect(ctx context.Context, k *access.IdempotencyKey) (access.Effect, error) {
	var row struct {
		Fingerprint []byte
		EffectID    uuid.UUID
		IsBulk      bool
	}
	err := s.db.WithContext(ctx).Table("idempotency_keys").Where("caller = ? AND key_hash = ? AND created_at >= ?", k.Caller, k.Hash[:], s.db.In(-access.KeepEffects)).
		Take(&row).Error
	if err != nil {
		return access.Effect{}, store.WrapError("look for an idempotency key", err)
	}
	return access.Effect{Fingerprint: [sha256.Size]byte(row.Fingerprint), ID: row.EffectID, Bulk: row.IsBulk}, nil
}

// forgetPage bounds the keys that one statement deletes, so that it holds no locks for long.
const forgetPage = 10_000

// ForgetEffects implements access.IdempotencyStore. The outer condition tests the age again when a row is deleted: a key that another
// transaction takes while the statement waits for the row is young by then, and stays.
func (s *IdempotencyStore) ForgetEffects(ctx context.Context) error {
	for {
		res := s.db.WithContext(ctx).Exec(`
DELETE FROM idempotency_keys WHERE created_at < ? AND (caller, key_hash) IN (
    SELECT caller, key_hash FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)`,
			s.db.In(-access.KeepEffects), s.db.In(-access.KeepEffects), forgetPage)
		if res.Error != nil || res.RowsAffected < forgetPage {
			return store.WrapError("forget idempotency keys", res.Error)
		}
	}
}
