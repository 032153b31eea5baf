// Package seal encrypts secrets at rest and keeps them out of logs. It knows nothing of what the secrets are for: the caller passes a
// context, such as a row and a field, to which the sealed value is bound.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	redacted  = "[redacted]"
	minHinted = 12 // bytes; four of fewer would give away too much
	keyBytes  = 32 // of a master key: AES-256
	idBytes   = 4  // of the hash that names a key
)

// Secret is a credential in memory. Printing or encoding it yields [redacted]; only Reveal returns the value.
type Secret struct{ value string }

// NewSecret returns a Secret with a value.
func NewSecret(v string) Secret { return Secret{v} }

// Reveal returns the value, for the request that needs it.
func (s Secret) Reveal() string { return s.value }

// Empty reports whether the value is empty.
func (s Secret) Empty() bool { return s.value == "" }

// Hint returns a text by which a person recognises the secret: its last four bytes, or none of a secret below minHinted bytes.
func (s Secret) Hint() string {
	if len(s.value) < minHinted {
		return "****"
	}
	return "****" + s.value[len(s.value)-4:]
}

// Format implements fmt.Formatter: no verb shows the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer and returns [redacted].
func (Secret) String() string { return redacted }

// MarshalText implements encoding.TextMarshaler and returns [redacted], in JSON too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer and returns [redacted].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// ParseMasterKey decodes a master key: base64 of 32 bytes.
func ParseMasterKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, errors.New("is not base64")
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("is %d bytes long, not %d", len(key), keyBytes)
	}
	return key, nil
}

// Sealer encrypts secrets with AES-256-GCM and random nonces. The context is authenticated (additional data), so a sealed value that
// is copied to another place does not open. It seals with one key and opens with that key and others, so that a master key can be
// rotated while processes run. A Sealer is read only and safe for concurrent use.
type Sealer struct {
	id   string // of the key that seals
	keys map[string]cipher.AEAD
}

// NewSealer returns a Sealer that seals with key, and opens with key and others. Keys have 32 bytes.
func NewSealer(key []byte, others ...[]byte) (*Sealer, error) {
	s := &Sealer{id: keyID(key), keys: make(map[string]cipher.AEAD, 1+len(others))}
	for _, k := range append([][]byte{key}, others...) {
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, fmt.Errorf("use master key: %w", err)
		}
		if s.keys[keyID(k)], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("use master key: %w", err)
		}
	}
	return s, nil
}

// keyID names a key by the start of its SHA-256 hash, which reveals nothing of the key.
func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:idBytes])
}

const sealVersion = "v1"

// Seal encrypts a secret for a context. The result has the form v1.KEYID.BOX, where the box is base64 of nonce and ciphertext.
func (s *Sealer) Seal(secret Secret, context string) (string, error) {
	aead := s.keys[s.id]
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	box := aead.Seal(nonce, nonce, []byte(secret.value), []byte(context))
	return sealVersion + "." + s.id + "." + base64.RawStdEncoding.EncodeToString(box), nil
}

// split returns the parts of a sealed value. The Sealer need not have the key.
func split(sealed string) (id, box string, ok bool) {
	parts := strings.SplitN(sealed, ".", 3)
	if len(parts) != 3 || parts[0] != sealVersion {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// Current reports whether a value is sealed with the key that seals.
func (s *Sealer) Current(sealed string) bool {
	id, _, ok := split(sealed)
	return ok && id == s.id
}

// CheckKey returns an error if a value is sealed with a key that the Sealer does not have.
func (s *Sealer) CheckKey(sealed string) error {
	id, _, _ := split(sealed)
	if _, ok := s.keys[id]; id != "" && !ok {
		return fmt.Errorf("sealed with master key %s, which is not configured; the current key is %s", id, s.id)
	}
	return nil
}

// Open decrypts a value that was sealed for the same context. It fails for another context, a changed value and a missing key.
func (s *Sealer) Open(sealed, context string) (Secret, error) {
	id, text, ok := split(sealed)
	if !ok {
		return Secret{}, errors.New("open: not a sealed value")
	}
	if err := s.CheckKey(sealed); err != nil {
		return Secret{}, fmt.Errorf("open: %w", err)
	}
	aead := s.keys[id]
	box, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(box) < aead.NonceSize() {
		return Secret{}, errors.New("open: not a sealed value")
	}
	plain, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], []byte(context))
	if err != nil {
		return Secret{}, errors.New("open: sealed for another context, or altered")
	}
	return Secret{string(plain)}, nil
}
