package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// The form of a token: hk_ID_SECRET, with an id of 16 hex digits (8 random bytes) and, in URL-safe base64 without padding,
// a secret of 32 random bytes followed by a checksum of 12: 59 characters. The checksum is the beginning of
// HMAC-SHA256(K, ID bytes || secret) with K = HMAC-SHA256(master key, checksumLabel). It proves without a query that a token
// was made with this master key. Tokens of earlier versions have no checksum: 43 characters.
const (
	tokenPrefix   = "hk_"
	idBytes       = 8
	secretBytes   = 32
	checksumBytes = 12 // a forgery passes with probability 2^-96, and then costs one query
	checksumLabel = "herald api key checksum v1"
)

// Checksums makes and verifies the checksums of tokens. The zero value has no key: new tokens have no checksum, and every
// checksum counts as forged.
type Checksums struct{ keys [][]byte }

// NewChecksums derives the key that makes checksums from the master key, and keys that only verify from previous master keys,
// so that the master key can be exchanged while Herald runs.
func NewChecksums(master []byte, others ...[]byte) Checksums {
	var c Checksums
	for _, key := range append([][]byte{master}, others...) {
		c.keys = append(c.keys, mac(key, []byte(checksumLabel)))
	}
	return c
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	return h.Sum(nil)
}

// verify reports whether a checksum belongs to an id and a secret.
func (c Checksums) verify(id, secret, sum []byte) bool {
	for _, key := range c.keys {
		if hmac.Equal(mac(key, id, secret)[:checksumBytes], sum) {
			return true
		}
	}
	return false
}

// newToken makes a token, and the id and hash that are stored.
func (c Checksums) newToken() (token, id string, hash [sha256.Size]byte) {
	var b [idBytes + secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	secret := b[idBytes:]
	if len(c.keys) > 0 {
		secret = append(secret, mac(c.keys[0], b[:])[:checksumBytes]...)
	}
	id = hex.EncodeToString(b[:idBytes])
	return tokenPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret), id, sha256.Sum256(secret)
}

// token is a parsed token.
type token struct {
	id   string
	hash [sha256.Size]byte // of everything after the id: a token without its checksum is a different one
	raw  [idBytes + secretBytes + checksumBytes]byte
	sum  bool // the token has a checksum
}

// parseToken returns false for a text that newToken cannot have made.
func parseToken(s string) (t token, ok bool) {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return t, false
	}
	id, text, ok := strings.Cut(rest, "_")
	if !ok || len(id) != 2*idBytes || strings.ToLower(id) != id || base64.RawURLEncoding.DecodedLen(len(text)) > len(t.raw)-idBytes {
		return t, false
	}
	if _, err := hex.Decode(t.raw[:idBytes], []byte(id)); err != nil {
		return t, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(t.raw[idBytes:], []byte(text))
	if err != nil || (n != secretBytes && n != secretBytes+checksumBytes) {
		return t, false
	}
	t.id, t.hash, t.sum = id, sha256.Sum256(t.raw[idBytes:idBytes+n]), n > secretBytes
	return t, true
}

// trust is what a token proves by itself.
type trust int

const (
	unproven trust = iota // no checksum: a token of an earlier version
	forged                // its checksum does not match a configured master key
	proven                // made with a configured master key
)

// trustOf returns what a token proves.
func (c Checksums) trustOf(t *token) trust {
	switch {
	case !t.sum:
		return unproven
	case c.verify(t.raw[:idBytes], t.raw[idBytes:idBytes+secretBytes], t.raw[idBytes+secretBytes:]):
		return proven
	}
	return forged
}
