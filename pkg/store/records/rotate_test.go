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

// Replacing a key writes the new one and ends the old one, never later than it would have ended.
func TestIntegrationReplacedKeys(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := store.Stamp(time.Now())
		in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
		key := func(id string, end *time.Time) *access.Key {
			return &access.Key{ID: id, Name: id, Owner: "nightly", Hash: sha256.Sum256([]byte(id)), Scopes: []access.Scope{access.Send}, Rate: access.Unlimited, CreatedAt: now, ExpiresAt: end}
		}
		for _, c := range []struct {
			id   string
			old  *time.Time
			want time.Duration
		}{{"endless", nil, time.Hour}, {"long", in(2 * time.Hour), time.Hour}, {"short", in(time.Minute), time.Minute}} {
			_, err := s.InsertAPIKey(t.Context(), key(c.id, c.old), false)
			must(t, err)
			by := key("new "+c.id, in(5*time.Hour))
			must(t, s.ReplaceAPIKey(t.Context(), c.id, now.Add(time.Hour), by))
			if old, err := s.APIKey(t.Context(), c.id); err != nil || old.ExpiresAt == nil || !old.ExpiresAt.Equal(now.Add(c.want)) {
				t.Errorf("%s: %+v, %v", c.id, old, err)
			}
			got, err := s.APIKey(t.Context(), by.ID)
			must(t, err)
			if d := cmp.Diff(by, got); d != "" {
				t.Error(d)
			}
		}
		_, err := s.InsertAPIKey(t.Context(), key("expired", in(-time.Minute)), false)
		must(t, err)
		_, err = s.InsertAPIKey(t.Context(), key("revoked", nil), false)
		must(t, err)
		must(t, s.RevokeAPIKey(t.Context(), "revoked"))
		for id, code := range map[string]message.Code{"expired": message.CodeConflict, "revoked": message.CodeConflict, "missing": message.CodeNotFound} {
			if err := s.ReplaceAPIKey(t.Context(), id, now.Add(time.Hour), key("never", nil)); !message.IsCode(err, code) {
				t.Errorf("%s: %v, want %s", id, err, code)
			}
		}
		if _, err := s.APIKey(t.Context(), "never"); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("a key was written although none was replaced: %v", err)
		}
	})
}
