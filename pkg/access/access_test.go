package access_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/message"
	"herald/pkg/ratelimit"
	"herald/pkg/redisconn"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// keyring makes a Keyring on a new database and a new Redis.
func keyring(t *testing.T, rate float64) *access.Keyring {
	t.Helper()
	s := storetest.SQLite(t)
	rdb, err := redisconn.Connect(testenv.Redis(t, testenv.MiniRedis), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return access.NewKeyring(access.Deps{
		Keys: s, Usage: s, Limiter: ratelimit.NewKeyLimiter(rdb), Rate: rate, Checksums: access.NewChecksums(make([]byte, 32)),
		Failed: func(_ context.Context, err error) { t.Error(err) },
	})
}

func create(t *testing.T, r *access.Keyring, k access.Key) (*access.Key, string) {
	t.Helper()
	token, err := r.Create(t.Context(), &k, false)
	if err != nil {
		t.Fatal(err)
	}
	return &k, token
}

func TestAuthenticate(t *testing.T) {
	r := keyring(t, 0)
	if used, err := r.InUse(t.Context()); used || err != nil {
		t.Fatalf("keys are in use before one exists: %v, %v", used, err)
	}
	past := time.Now().Add(-time.Second)
	valid, token := create(t, r, access.Key{Name: "valid", Scopes: []access.Scope{access.Read}})
	_, expired := create(t, r, access.Key{Scopes: access.Scopes, ExpiresAt: &past})
	revokedKey, revoked := create(t, r, access.Key{Scopes: access.Scopes})
	if err := r.Revoke(t.Context(), revokedKey.ID); err != nil {
		t.Fatal(err)
	}
	got, _, err := r.Authenticate(t.Context(), token)
	if err != nil || got.ID != valid.ID || !got.Allows(access.Read) || got.Allows(access.Send) || got.Allows(access.Admin) {
		t.Fatalf("%+v, %v", got, err)
	}
	all, err := r.List(t.Context())
	at := slices.IndexFunc(all, func(k access.Key) bool { return k.ID == valid.ID })
	if err != nil || len(all) != 3 || at < 0 || all[at].LastUsedAt == nil {
		t.Errorf("its use is not recorded: %v, %v", all, err)
	}
	stranger := "hk_0000000000000000_" + base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for name, bad := range map[string]string{
		"expired": expired, "revoked": revoked, "an unknown id": stranger, "no token": "", "something else": "Bearer",
		"another secret":   token[:len("hk_0123456789abcdef_")] + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
		"another's secret": token[:len("hk_0123456789abcdef_")] + revoked[len("hk_0123456789abcdef_"):],
		"cut short":        token[:len(token)-1], "with more": token + "A", "in capitals": strings.ToUpper(token),
	} {
		if _, _, err := r.Authenticate(t.Context(), bad); !message.IsCode(err, message.CodeUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// That no key exists is remembered for a moment only.
	testenv.Eventually(t, 5*time.Second, "the keyring sees that keys exist", func() bool {
		used, err := r.InUse(t.Context())
		return used && err == nil
	})
	if err := r.Revoke(t.Context(), valid.ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 5*time.Second, "the revocation takes effect", func() bool {
		_, _, err := r.Authenticate(t.Context(), token)
		return message.IsCode(err, message.CodeUnauthorized)
	})
}

func TestRates(t *testing.T) {
	r := keyring(t, 3)
	_, usual := create(t, r, access.Key{Scopes: access.Scopes})
	_, slow := create(t, r, access.Key{Scopes: access.Scopes, Rate: 0.5})
	for name, c := range map[string]struct {
		token string
		burst int
	}{"the deployment's rate": {usual, 3}, "the rate of the key": {slow, 1}} {
		taken := 0
		var wait *message.Error
		for range 20 {
			_, _, err := r.Authenticate(t.Context(), c.token)
			if err == nil {
				taken++
			} else if !errors.As(err, &wait) || wait.Code != message.CodeThrottled || wait.RetryAfter <= 0 {
				t.Fatalf("%s: %v", name, err)
			}
		}
		// Time passes meanwhile: on a slow machine one more may have become free.
		if taken < c.burst || taken > c.burst+2 || wait == nil {
			t.Errorf("%s: %d of 20 requests at once", name, taken)
		}
	}
}

func TestScopes(t *testing.T) {
	got, err := access.ParseScopes(" Send,read,send")
	if err != nil || len(got) != 2 || got[0] != access.Send || got[1] != access.Read {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "write", "send,", "send read"} {
		if _, err := access.ParseScopes(bad); err == nil {
			t.Errorf("%q is taken for scopes", bad)
		}
	}
}

func TestParseIdempotencyKey(t *testing.T) {
	for in, want := range map[string]string{
		"8e03978e-40d5-43dd-bc93-6894a57f9324": "8e03978e-40d5-43dd-bc93-6894a57f9324", `"8e03978e"`: "8e03978e", ` x `: "x", `"a \"b\" \\ c"`: `a "b" \ c`,
		`a"b`: `a"b`, `"`: "", `"a`: "", `""`: "", "": "", `"a"b"`: "", `"a\n"`: "", "\x00": "", "\x1f": "", "\x7f": "", "a\x7fb": "", "~ ~": "~ ~", "é": "", `"a\`: "",
	} {
		got, err := access.ParseIdempotencyKey(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseIdempotencyKey(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{`"a\"b"`, "bare", `"`, "\xff", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		key, err := access.ParseIdempotencyKey(v)
		if (err == nil) == (key == "") {
			t.Errorf("%q: %q, %v", v, key, err)
		}
	})
}

// A token of an unknown key is rejected as unauthorized in any form.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "hk_", "hk_0123456789abcdef_", "hk_0123456789abcdef_" + strings.Repeat("A", 43), "hk_zz_zz", "hk_0123456789ABCDEF_" + strings.Repeat("A", 43)} {
		f.Add(s)
	}
	r := access.NewKeyring(access.Deps{Keys: empty{}})
	f.Fuzz(func(t *testing.T, token string) {
		if k, _, err := r.Authenticate(context.Background(), token); k != nil || !message.IsCode(err, message.CodeUnauthorized) {
			t.Errorf("%q: %v, %v", token, k, err)
		}
	})
}

// empty is a store without keys.
type empty struct{ access.Keys }

func (empty) APIKeys(context.Context) ([]access.Key, error) { return nil, nil }

func (empty) APIKey(context.Context, string) (*access.Key, error) {
	return nil, message.Errorf(message.CodeNotFound, "not found")
}
