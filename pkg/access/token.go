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
// HMAC-SHA256(K, ID bytes || secret) with K = HMAC-SHA256(master key, checksumLabel). It shows that a token was made with
// the master key at hand, without a look into the store. Tokens of before have no checksum: 43 characters.
const (
	tokenPrefix   = "hk_"
	idBytes       = 8
	secretBytes   = 32
	checksumBytes = 12 // a forgery passes with a chance of 2^-96, and is then one query
	checksumLabel = "herald api key checksum v1"
)

// Checksums makes and checks the checksums of tokens. Its zero value knows no key: every token is one without.
type Checksums struct{ keys [][]byte }

// NewChecksums derives the keys of checksums from the master key, which makes them, and from others, which only check, so
// that the master key can be exchanged while Herald runs.
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

// check says whether a checksum is that of an id and a secret.
func (c Checksums) check(id, secret, sum []byte) bool {
	for _, key := range c.keys {
		if hmac.Equal(mac(key, id, secret)[:checksumBytes], sum) {
			return true
		}
	}
	return false
}

// newToken makes a token and what is kept of it.
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

// trust is what a token shows by itself.
type trust int

const (
	malformed trust = iota // newToken cannot have made it
	unproven               // it has no checksum, as those of before
	forged                 // its checksum is not of a master key at hand
	proven                 // it was made with a master key at hand
)

// parse takes a token apart. hash is of everything after the id, so that a token whose checksum was cut off is another.
func (c Checksums) parse(s string) (id string, hash [sha256.Size]byte, t trust) {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return "", hash, malformed
	}
	id, text, ok := strings.Cut(rest, "_")
	raw, err := hex.DecodeString(id)
	if !ok || err != nil || len(raw) != idBytes || strings.ToLower(id) != id {
		return "", hash, malformed
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", hash, malformed
	}
	switch len(secret) {
	case secretBytes:
		t = unproven
	case secretBytes + checksumBytes:
		t = forged
		if c.check(raw, secret[:secretBytes], secret[secretBytes:]) {
			t = proven
		}
	default:
		return "", hash, malformed
	}
	return id, sha256.Sum256(secret), t
}
