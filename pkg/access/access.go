// Package access authenticates the callers of the API and recognises repeated requests. API keys carry scopes and a rate
// (Keyring); idempotency keys make a repeated request take effect once (IdempotencyStore). It knows no HTTP and no database.
package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"herald/pkg/message"
)

// Scope is a permission of an API key. No scope includes another.
type Scope string

// The scopes.
const (
	Send  Scope = "send"  // send, control bulks, write leads and suppressions
	Read  Scope = "read"  // read everything
	Admin Scope = "admin" // manage channels; irreversible actions: erase leads, remove suppressions
)

// Scopes lists every Scope.
var Scopes = []Scope{Send, Read, Admin}

// ParseScopes reads scope names separated by commas, in any letter case. A name given twice counts once.
func ParseScopes(s string) ([]Scope, error) {
	var out []Scope
	for _, name := range strings.Split(s, ",") {
		scope := Scope(strings.ToLower(strings.TrimSpace(name)))
		if !slices.Contains(Scopes, scope) {
			return nil, fmt.Errorf("%q is not a scope: use send, read or admin", name)
		}
		if !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out, nil
}

// Unlimited is the rate of a key without a limit.
const Unlimited = -1

// Key is an API key as it is stored. Hash is the SHA-256 of its secret, including the checksum where the token has one; the
// secret itself is not stored.
type Key struct {
	ID         string
	Name       string // for people
	Owner      string // the program that uses the key: all keys of one owner share their idempotency keys
	Hash       [sha256.Size]byte
	Scopes     []Scope
	Rate       float64 // requests per second; 0: the rate of the deployment; Unlimited
	CreatedAt  time.Time
	ExpiresAt  *time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time // with the precision of touchInterval
}

// Author is the API key of a request, as what the request made keeps it after the key is gone. It is zero without keys.
type Author struct {
	ID   string
	Name string
}

// Allows reports whether the key has a scope.
func (k *Key) Allows(s Scope) bool { return slices.Contains(k.Scopes, s) }

// limit returns the requests per second of a key whose deployment has a rate, 0 for no limit.
func (k *Key) limit(deployment float64) float64 {
	switch {
	case k.Rate < 0:
		return 0
	case k.Rate == 0:
		return deployment
	}
	return k.Rate
}

// check returns why a secret with this hash does not authenticate, nil when it does. Hashes are compared in constant time.
func (k *Key) check(hash [sha256.Size]byte, now time.Time) error {
	switch {
	case subtle.ConstantTimeCompare(hash[:], k.Hash[:]) != 1:
		return errNoKey
	case k.RevokedAt != nil:
		return message.Errorf(message.CodeUnauthorized, "the API key is revoked")
	case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
		return message.Errorf(message.CodeUnauthorized, "the API key has expired")
	}
	return nil
}

var errNoKey = message.Errorf(message.CodeUnauthorized, "unknown API key")
