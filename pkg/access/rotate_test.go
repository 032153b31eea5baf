package access

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/message"
)

// A rotated key has another id and secret, and everything else of the old key, which ends after the grace.
func TestIntegrationARotatedKeyKeepsItsOwner(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	r.deps.Limiter = &limits{}
	old := &Key{Name: "nightly", Owner: "scheduler", Scopes: []Scope{Send}, Rate: 7}
	before, err := r.Create(t.Context(), old, false)
	if err != nil {
		t.Fatal(err)
	}
	taken(t, r, "the old key", before)
	k, after, err := r.Rotate(t.Context(), old.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Key{Name: "nightly", Owner: "scheduler", Scopes: []Scope{Send}, Rate: 7, ID: k.ID, Hash: k.Hash, CreatedAt: k.CreatedAt}
	if d := cmp.Diff(want, k); d != "" || k.ID == old.ID || k.Hash == old.Hash {
		t.Error(d)
	}
	for what, c := range map[string]struct {
		after  time.Duration
		oldKey bool
	}{"at once": {0, true}, "before the end of the grace": {time.Hour - time.Minute, true}, "after it": {time.Hour, false}} {
		begin := *now
		*now = now.Add(c.after + cacheTTL)
		taken(t, r, "the new key "+what, after)
		if c.oldKey {
			taken(t, r, "the old key "+what, before)
		} else {
			refused(t, r, "the old key "+what, before)
		}
		*now = begin
	}
}

// A key that ends is replaced by one with as long a life, unless the caller says when it ends.
func TestIntegrationTheLifeOfARotatedKey(t *testing.T) {
	s := &shelf{}
	r, now := ring(s, NewChecksums(masterA))
	end := now.Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
	old := &Key{Scopes: Scopes, ExpiresAt: &end}
	if _, err := r.Create(t.Context(), old, false); err != nil {
		t.Fatal(err)
	}
	if old.Owner != old.ID {
		t.Errorf("a key without an owner belongs to %q", old.Owner)
	}
	*now = now.Add(60 * 24 * time.Hour)
	k, _, err := r.Rotate(t.Context(), old.ID, 0, nil)
	if err != nil || k.ExpiresAt == nil || !k.ExpiresAt.Equal(end.Add(60*24*time.Hour)) || k.Owner != old.ID {
		t.Errorf("%+v, %v", k, err)
	}
	other := now.Add(time.Hour)
	if k, _, err = r.Rotate(t.Context(), k.ID, 0, &other); err != nil || !k.ExpiresAt.Equal(other) {
		t.Errorf("%+v, %v", k, err)
	}
	if _, _, err := r.Rotate(t.Context(), "0000000000000000", 0, nil); !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("an unknown key: %v", err)
	}
}

// The quota tells no more than the limiter allows: whole requests within whole seconds.
func TestIntegrationTheQuotaOfAKey(t *testing.T) {
	for _, c := range []struct {
		rate float64
		a    Allowance
		want Quota
	}{
		{5, Allowance{Remaining: 4, Reset: 200 * time.Millisecond}, Quota{5, time.Second, 4, 200 * time.Millisecond}},
		{2.5, Allowance{Remaining: 1, Reset: 400 * time.Millisecond}, Quota{2, time.Second, 1, 400 * time.Millisecond}},
		{0.5, Allowance{Wait: 2 * time.Second, Reset: time.Second}, Quota{1, 2 * time.Second, 0, 2 * time.Second}},
		{0.3, Allowance{}, Quota{1, 4 * time.Second, 0, 0}},
		{1000, Allowance{Remaining: 2000}, Quota{1000, time.Second, 1000, 0}},
	} {
		if got := *quotaOf(c.rate, c.a); got != c.want {
			t.Errorf("%g a second, %+v: %+v, want %+v", c.rate, c.a, got, c.want)
		}
		if q := quotaOf(c.rate, c.a); float64(q.Limit)/q.Window.Seconds() > c.rate {
			t.Errorf("%g a second: %+v promises more", c.rate, q)
		}
	}
	s, l := &shelf{}, &limits{}
	r, _ := ring(s, NewChecksums(masterA))
	k, token := mint(t, r)
	r.deps.Limiter, r.deps.Rate = l, 10
	if _, q, err := r.Authenticate(t.Context(), token); err != nil || q == nil || q.Limit != 10 {
		t.Errorf("%+v, %v", q, err)
	}
	l.wait = time.Second
	if _, q, err := r.Authenticate(t.Context(), token); err == nil || q == nil || q.Remaining != 0 || q.Reset != time.Second {
		t.Errorf("a request beyond the rate: %+v, %v", q, err)
	}
	if _, q, _ := r.Authenticate(t.Context(), forge(secretBytes)); q != nil {
		t.Errorf("a forged token is told a quota: %+v", q)
	}
	s.keys[k.ID].Rate = Unlimited
	r.cache.Purge()
	if _, q, err := r.Authenticate(t.Context(), token); err != nil || q != nil {
		t.Errorf("a key without a rate: %+v, %v", q, err)
	}
}
