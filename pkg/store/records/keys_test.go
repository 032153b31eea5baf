package records_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/access"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

func TestAPIKeys(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		if any, err := s.AnyAPIKey(t.Context()); any || err != nil {
			t.Fatalf("a key in an empty store: %v, %v", any, err)
		}
		expires := store.Stamp(time.Now().Add(time.Hour))
		k := &access.Key{
			ID: "0123456789abcdef", Name: "first", Hash: sha256.Sum256([]byte("x")), Scopes: []access.Scope{access.Send, access.Read}, Rate: 2.5,
			CreatedAt: store.Stamp(time.Now()), ExpiresAt: &expires,
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
