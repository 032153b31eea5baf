package store

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/message"
)

// apiKeyRow is a row of api_keys.
type apiKeyRow struct {
	ID         string
	Name       string
	Hash       []byte
	Scopes     string
	Rate       float64
	CreatedAt  time.Time
	ExpiresAt  *time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time
}

// TableName implements gorm's Tabler.
func (apiKeyRow) TableName() string { return "api_keys" }

func (r *apiKeyRow) key() (*access.Key, error) {
	scopes, err := access.ParseScopes(r.Scopes)
	return &access.Key{
		ID: r.ID, Name: r.Name, Hash: [sha256.Size]byte(r.Hash), Scopes: scopes, Rate: r.Rate, CreatedAt: r.CreatedAt.UTC(),
		ExpiresAt: utc(r.ExpiresAt), RevokedAt: utc(r.RevokedAt), LastUsedAt: utc(r.LastUsedAt),
	}, err
}

// InsertAPIKey implements access.Keys.
func (s *Store) InsertAPIKey(ctx context.Context, k *access.Key, only bool) (bool, error) {
	names := make([]string, len(k.Scopes))
	for i, scope := range k.Scopes {
		names[i] = string(scope)
	}
	row := apiKeyRow{ID: k.ID, Name: k.Name, Hash: k.Hash[:], Scopes: strings.Join(names, ","), Rate: k.Rate, CreatedAt: stamp(k.CreatedAt), ExpiresAt: utc(k.ExpiresAt)}
	made := true
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if only {
			// Of several that look for a first key at once, one makes it.
			if s.pools != nil {
				if err := tx.Exec("LOCK TABLE api_keys IN EXCLUSIVE MODE").Error; err != nil {
					return err
				}
			}
			any, err := anyAPIKey(tx)
			if made = !any; err != nil || any {
				return err
			}
		}
		return tx.Create(&row).Error
	})
	return made, fail("insert the API key", err)
}

// APIKey implements access.Keys.
func (s *Store) APIKey(ctx context.Context, id string) (*access.Key, error) {
	var row apiKeyRow
	if err := s.db.WithContext(ctx).Where("id = ?", id).Take(&row).Error; err != nil {
		return nil, noAPIKey(fail("read the API key", err), id)
	}
	return row.key()
}

func noAPIKey(err error, id string) error {
	if message.IsCode(err, message.CodeNotFound) {
		return message.Errorf(message.CodeNotFound, "there is no API key %s", id)
	}
	return err
}

// APIKeys implements access.Keys.
func (s *Store) APIKeys(ctx context.Context) ([]access.Key, error) {
	var rows []apiKeyRow
	if err := s.db.WithContext(ctx).Order("created_at, id").Find(&rows).Error; err != nil {
		return nil, fail("list the API keys", err)
	}
	keys := make([]access.Key, 0, len(rows))
	for i := range rows {
		k, err := rows[i].key()
		if err != nil {
			return nil, err
		}
		keys = append(keys, *k)
	}
	return keys, nil
}

// RevokeAPIKey implements access.Keys. A key that is revoked already keeps its time.
func (s *Store) RevokeAPIKey(ctx context.Context, id string) error {
	res := s.db.WithContext(ctx).Exec("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?", s.now(), id)
	if res.Error == nil && res.RowsAffected == 0 {
		res.Error = gorm.ErrRecordNotFound
	}
	return noAPIKey(fail("revoke the API key", res.Error), id)
}

// AnyAPIKey implements access.Uses.
func (s *Store) AnyAPIKey(ctx context.Context) (bool, error) {
	any, err := anyAPIKey(s.db.WithContext(ctx))
	return any, fail("look for API keys", err)
}

func anyAPIKey(db *gorm.DB) (any bool, err error) {
	err = db.Raw("SELECT EXISTS (SELECT 1 FROM api_keys)").Scan(&any).Error
	return any, err
}

// TouchAPIKey implements access.Uses.
func (s *Store) TouchAPIKey(ctx context.Context, id string) error {
	return fail("note that an API key is used", s.db.WithContext(ctx).Exec("UPDATE api_keys SET last_used_at = ? WHERE id = ?", s.now(), id).Error)
}

// takeKey notes, in the effect's own transaction, what is done under an idempotency key at a time. It says false when
// something else was done under it since the time called oldest. Doing so twice for one effect changes nothing. Without a
// key there is nothing to take.
func takeKey(tx *gorm.DB, k *access.IdempotencyKey, e access.Effect, at, oldest any) (bool, error) {
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

// Effect implements access.Effects.
func (s *Store) Effect(ctx context.Context, k *access.IdempotencyKey) (access.Effect, error) {
	var row struct {
		Fingerprint []byte
		EffectID    uuid.UUID
		IsBulk      bool
	}
	err := s.db.WithContext(ctx).Table("idempotency_keys").Where("caller = ? AND key_hash = ? AND created_at >= ?", k.Caller, k.Hash[:], s.in(-access.KeepEffects)).
		Take(&row).Error
	if err != nil {
		return access.Effect{}, fail("look for an idempotency key", err)
	}
	return access.Effect{Fingerprint: [sha256.Size]byte(row.Fingerprint), ID: row.EffectID, Bulk: row.IsBulk}, nil
}

// forgetPage bounds how many keys one statement removes, so that it holds nobody up.
const forgetPage = 10_000

// ForgetEffects implements access.Effects. The age is asked of each row again as it is deleted: a key that is taken again
// while the statement waits for its row is young then, and stays.
func (s *Store) ForgetEffects(ctx context.Context) error {
	for {
		res := s.db.WithContext(ctx).Exec(`
DELETE FROM idempotency_keys WHERE created_at < ? AND (caller, key_hash) IN (
    SELECT caller, key_hash FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)`,
			s.in(-access.KeepEffects), s.in(-access.KeepEffects), forgetPage)
		if res.Error != nil || res.RowsAffected < forgetPage {
			return fail("forget idempotency keys", res.Error)
		}
	}
}
