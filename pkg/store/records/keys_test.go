package records_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
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
			ID: "0123456789abcdef", Name: "first", Owner: "nightly", Hash: sha256.Sum256([]byte("x")), Scopes: []access.Scope{access.Send, access.Read}, Rate: 2.5,
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
				t.Errorf("an unknown key: %v", err)
			}
		}
	})
}

// Of several processes that make the first key at the same time one makes it. Keys are listed oldest first.
func TestOneFirstAPIKey(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b, now := s, storetest.Another(t, s), store.Stamp(time.Now())
		for round := range 10 {
			var made atomic.Int32
			makes := make([]func() error, 4)
			for i := range makes {
				makes[i] = func() error {
					k := &access.Key{ID: fmt.Sprintf("%d-%d", round, i), Hash: sha256.Sum256([]byte{byte(i)}), Scopes: []access.Scope{access.Read}, CreatedAt: now}
					ok, err := []*storetest.Store{a, b}[i%2].InsertAPIKey(t.Context(), k, true)
					if ok {
						made.Add(1)
					}
					return err
				}
			}
			must(t, errors.Join(storetest.Together(makes...)...))
			if made.Load() != 1 {
				t.Fatalf("%d first keys", made.Load())
			}
			must(t, s.WithContext(t.Context()).Exec("DELETE FROM api_keys").Error)
		}
		for i, age := range []time.Duration{time.Hour, 3 * time.Hour, 2 * time.Hour} {
			_, err := s.InsertAPIKey(t.Context(), &access.Key{ID: fmt.Sprint(i), Hash: sha256.Sum256([]byte{byte(i)}), Scopes: []access.Scope{access.Read}, CreatedAt: now.Add(-age)}, false)
			must(t, err)
		}
		must(t, s.TouchAPIKey(t.Context(), "1"))
		must(t, s.RevokeAPIKey(t.Context(), "2"))
		list, err := s.APIKeys(t.Context())
		must(t, err)
		if len(list) != 3 || list[0].ID != "1" || list[1].ID != "2" || list[2].ID != "0" {
			t.Fatalf("%+v", list)
		}
		for i, k := range list {
			if (k.LastUsedAt != nil) != (i == 0) || (k.RevokedAt != nil) != (i == 1) {
				t.Errorf("%+v", k)
			}
		}
	})
}
