package store

import (
	"gorm.io/gorm"

	"herald/pkg/access"
)

// TakeIdempotencyKey records, in the transaction of an effect, that the effect was caused under an idempotency key at a time.
// It returns false when another effect was caused under the key since oldest. Repeating it for one effect changes nothing.
// A nil key is always free.
func TakeIdempotencyKey(tx *gorm.DB, k *access.IdempotencyKey, e access.Effect, at, oldest any) (bool, error) {
	if k == nil {
		return true, nil
	}
	res := tx.Exec(`
INSERT INTO idempotency_keys (caller, key_hash, fingerprint, effect_id, is_bulk, created_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (caller, key_hash) DO UPDATE SET
    fingerprint = excluded.fingerprint, effect_id = excluded.effect_id, is_bulk = excluded.is_bulk, created_at = excluded.created_at
WHERE idempotency_keys.effect_id = excluded.effect_id OR idempotency_keys.created_at < ?`,
		k.Caller, k.Hash[:], k.Fingerprint[:], e.ID, e.Bulk, at, oldest)
	return res.RowsAffected == 1, res.Error
}
