package records

import (
	"cmp"
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/message"
	"herald/pkg/store"
)

// KeyStore implements access.Keys and access.KeyUsage. It is safe for concurrent use.
type KeyStore struct{ db *store.DB }

// NewKeyStore returns the API keys of a database.
func NewKeyStore(db *store.DB) *KeyStore { return &KeyStore{db} }

// apiKeyRow is a row of api_keys.
type apiKeyRow struct {
	ID         string
	Name       string
	Owner      string // empty in a row that an earlier version wrote during an upgrade: its own id
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

// key returns the row as a key. It fails on a scope that this version does not know.
func (r *apiKeyRow) key() (*access.Key, error) {
	scopes, err := access.ParseScopes(r.Scopes)
	return &access.Key{
		ID: r.ID, Name: r.Name, Owner: cmp.Or(r.Owner, r.ID), Hash: [sha256.Size]byte(r.Hash), Scopes: scopes, Rate: r.Rate, CreatedAt: r.CreatedAt.UTC(),
		ExpiresAt: store.UTC(r.ExpiresAt), RevokedAt: store.UTC(r.RevokedAt), LastUsedAt: store.UTC(r.LastUsedAt),
	}, err
}

// apiKeyRowOf returns the row of a new key.
func apiKeyRowOf(k *access.Key) *apiKeyRow {
	names := make([]string, len(k.Scopes))
	for i, scope := range k.Scopes {
		names[i] = string(scope)
	}
	return &apiKeyRow{
		ID: k.ID, Name: k.Name, Owner: k.Owner, Hash: k.Hash[:], Scopes: strings.Join(names, ","), Rate: k.Rate, CreatedAt: store.Stamp(k.CreatedAt),
		ExpiresAt: store.UTC(k.ExpiresAt),
	}
}

// InsertAPIKey implements access.Keys. With only it inserts nothing and returns false if a key exists, also a revoked one.
func (s *KeyStore) InsertAPIKey(ctx context.Context, k *access.Key, only bool) (bool, error) {
	made := true
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if only {
			// The lock makes concurrent calls wait, so that one of them inserts the first key. SQLite's transactions exclude each other.
			if s.db.IsPostgres() {
				if err := tx.Exec("LOCK TABLE api_keys IN EXCLUSIVE MODE").Error; err != nil {
					return err
				}
			}
			any, err := anyAPIKey(tx)
			if made = !any; err != nil || any {
				return err
			}
		}
		return tx.Create(apiKeyRowOf(k)).Error
	})
	return made, store.WrapError("insert the API key", err)
}

// ReplaceAPIKey implements access.Keys. The update locks the old key's row, so a revocation at the same time comes before it, and
// nothing is written, or after it.
func (s *KeyStore) ReplaceAPIKey(ctx context.Context, id string, end time.Time, by *access.Key) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		res := tx.Exec(`
UPDATE api_keys SET expires_at = CASE WHEN expires_at < ? THEN expires_at ELSE ? END
WHERE id = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)`, store.Stamp(end), store.Stamp(end), id, store.Stamp(by.CreatedAt))
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected == 0 {
			return cannotReplace(tx, id)
		}
		return tx.Create(apiKeyRowOf(by)).Error
	})
	return noAPIKey(store.WrapError("replace the API key", err), id)
}

// cannotReplace returns why a key cannot be replaced.
func cannotReplace(tx *gorm.DB, id string) error {
	var row apiKeyRow
	if err := tx.Where("id = ?", id).Take(&row).Error; err != nil {
		return err
	}
	state := "has expired"
	if row.RevokedAt != nil {
		state = "is revoked"
	}
	return message.Errorf(message.CodeConflict, "API key %s %s: create a key of the owner %s instead", id, state, cmp.Or(row.Owner, row.ID))
}

// APIKey implements access.Keys.
func (s *KeyStore) APIKey(ctx context.Context, id string) (*access.Key, error) {
	var row apiKeyRow
	if err := s.db.WithContext(ctx).Where("id = ?", id).Take(&row).Error; err != nil {
		return nil, noAPIKey(store.WrapError("read the API key", err), id)
	}
	return row.key()
}

// noAPIKey names the key in a not_found error.
func noAPIKey(err error, id string) error {
	if message.IsCode(err, message.CodeNotFound) {
		return message.Errorf(message.CodeNotFound, "API key %s not found", id)
	}
	return err
}

// APIKeys implements access.Keys.
func (s *KeyStore) APIKeys(ctx context.Context) ([]access.Key, error) {
	var rows []apiKeyRow
	if err := s.db.WithContext(ctx).Order("created_at, id").Find(&rows).Error; err != nil {
		return nil, store.WrapError("list the API keys", err)
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
func (s *KeyStore) RevokeAPIKey(ctx context.Context, id string) error {
	res := s.db.WithContext(ctx).Exec("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?", s.db.Now(), id)
	if res.Error == nil && res.RowsAffected == 0 {
		res.Error = gorm.ErrRecordNotFound
	}
	return noAPIKey(store.WrapError("revoke the API key", res.Error), id)
}

// AnyAPIKey implements access.KeyUsage.
func (s *KeyStore) AnyAPIKey(ctx context.Context) (bool, error) {
	any, err := anyAPIKey(s.db.WithContext(ctx))
	return any, store.WrapError("look for API keys", err)
}

func anyAPIKey(db *gorm.DB) (any bool, err error) {
	err = db.Raw("SELECT EXISTS (SELECT 1 FROM api_keys)").Scan(&any).Error
	return any, err
}

// TouchAPIKey implements access.KeyUsage.
func (s *KeyStore) TouchAPIKey(ctx context.Context, id string) error {
	return store.WrapError("touch the API key", s.db.WithContext(ctx).Exec("UPDATE api_keys SET last_used_at = ? WHERE id = ?", s.db.Now(), id).Error)
}
