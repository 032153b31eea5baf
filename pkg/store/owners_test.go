package store_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// A key of an earlier version owns itself, so the idempotency keys that were used with it stay valid. So does one that a process of
// the earlier version writes while this version runs already.
func TestIntegrationIdempotencyKeysOutliveTheMigration(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		db := storetest.Raw(t, url)
		s := storetest.Connect(t, url, storetest.Options{})
		before, err := s.MigrationStatus(t.Context())
		must(t, err)
		owners := slices.IndexFunc(before, func(m store.Migration) bool { return strings.HasSuffix(m.Name, "_key_owners.sql") })
		migrateTo(t, db, s.Dialect(), int64(owners)) // the numbers begin with 1
		hash, used := strings.Repeat("ab", 32), storetest.IdempotencyKey("k1", "order-17", "request")
		literal := func(hex string) string {
			return map[string]string{"postgres": `'\x` + hex + `'`, "sqlite": `x'` + hex + `'`}[s.Dialect()]
		}
		execute := func(sql string, args ...any) {
			t.Helper()
			_, err := db.ExecContext(t.Context(), sql, args...)
			must(t, err)
		}
		insert := func(id string) {
			t.Helper()
			execute("INSERT INTO api_keys (id, name, hash, scopes, created_at) VALUES ('" + id + "', 'first', " + literal(hash) + ", 'send', '2025-01-02 03:04:05+00:00')")
		}
		insert("k1")
		effect := uuid.Must(uuid.NewV7())
		execute("INSERT INTO idempotency_keys (caller, key_hash, fingerprint, effect_id, is_bulk, created_at) VALUES ('k1', $1, $2, $3, false, '2999-01-01 00:00:00+00:00')",
			used.Hash[:], used.Fingerprint[:], effect.String())
		_, err = s.Migrate(t.Context())
		must(t, err)
		var owner string
		if err := db.QueryRowContext(t.Context(), "SELECT owner FROM api_keys").Scan(&owner); err != nil || owner != "k1" {
			t.Errorf("the migration wrote the owner %q, %v", owner, err)
		}
		insert("k2")
		for _, id := range []string{"k1", "k2"} {
			k, err := s.APIKey(t.Context(), id)
			must(t, err)
			if k.Owner != id {
				t.Errorf("%s belongs to %q", id, k.Owner)
			}
		}
		found, err := s.Effect(t.Context(), used)
		if err != nil || found.ID != effect || found.Fingerprint != used.Fingerprint {
			t.Errorf("%+v, %v", found, err)
		}
		if _, err := s.Effect(t.Context(), &access.IdempotencyKey{Caller: "k2", Hash: used.Hash}); err == nil {
			t.Error("another owner has the key")
		}
	})
}
