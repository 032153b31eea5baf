// Package access says who may do what over the API, and that a request which comes again is the same request: API keys
// with scopes, and idempotency keys. It knows no HTTP and no database.
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

// Scope is something that an API key allows. No scope contains another.
type Scope string

// The scopes.
const (
	Send  Scope = "send"  // sending, what steers a bulk, and whom to reach: leads and suppressions
	Read  Scope = "read"  // looking at anything
	Admin Scope = "admin" // channels, and what cannot be taken back: erasing leads, lifting suppressions
)

// Scopes lists every Scope.
var Scopes = []Scope{Send, Read, Admin}

// ParseScopes reads names separated by commas, in any letter case, each once.
func ParseScopes(s string) ([]Scope, error) {
	var out []Scope
	for _, name := range strings.Split(s, ",") {
		scope := Scope(strings.ToLower(strings.TrimSpace(name)))
		if !slices.Contains(Scopes, scope) {
			return nil, fmt.Errorf("%q is no scope: there are send, read and admin", name)
		}
		if !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out, nil
}

// Key is an API key. Its secret is known to its holder alone; Hash is the SHA-256 of it, with its checksum where it has one.
type Key struct {
	ID         string
	Name       string // for people: who holds it
	Hash       [sha256.Size]byte
	Scopes     []Scope
	Rate       float64 // requests a second, 0: the deployment's own
	CreatedAt  time.Time
	ExpiresAt  *time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time // to the minute
}

// Allows says whether the key has a scope.
func (k *Key) Allows(s Scope) bool { return slices.Contains(k.Scopes, s) }

// judge says whether the holder of a secret with this hash may use the key now.
func (k *Key) judge(hash [sha256.Size]byte, now time.Time) error {
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

var errNoKey = message.Errorf(message.CodeUnauthorized, "there is no such API key")
