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

// token is one that was taken apart.
type token struct {
	id   string
	hash [sha256.Size]byte // of everything after the id, so that a token whose checksum was cut off is another
	raw  [idBytes + secretBytes + checksumBytes]byte
	sum  bool // it has a checksum
}

// parseToken says false for whatever newToken cannot have made.
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

// trust is what a token shows by itself.
type trust int

const (
	unproven trust = iota // it has no checksum, as those of before
	forged                // its checksum is not of a master key at hand
	proven                // it was made with a master key at hand
)

// judge says what a token shows.
func (c Checksums) judge(t *token) trust {
	switch {
	case !t.sum:
		return unproven
	case c.check(t.raw[:idBytes], t.raw[idBytes:idBytes+secretBytes], t.raw[idBytes+secretBytes:]):
		return proven
	}
	return forged
}
