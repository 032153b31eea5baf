package channel

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

const redacted = "[redacted]"

// Secret is a credential. Every way of printing or encoding it gives [redacted]; only Reveal gives the value.
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(v string) Secret { return Secret{v} }

// Reveal returns the value, for the provider's request and nothing else.
func (s Secret) Reveal() string { return s.value }

// Empty says whether there is no value.
func (s Secret) Empty() bool { return s.value == "" }

// Hint returns the last four characters of a secret long enough to lose them, for a person to recognise it.
func (s Secret) Hint() string {
	if len(s.value) < 12 {
		return "****"
	}
	return "****" + s.value[len(s.value)-4:]
}

// Format hides the value from fmt, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String hides the value from whoever asks for a Stringer.
func (Secret) String() string { return redacted }

// MarshalText hides the value from JSON and every other text encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the value from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// ParseMasterKey reads the key that seals credentials: base64 of 32 bytes.
func ParseMasterKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, errors.New("is not base64")
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("is %d bytes long, not 32", len(key))
	}
	return key, nil
}

// Sealer encrypts credentials at rest with AES-256-GCM. What it seals is bound to a context (the channel and the
// field), so a sealed value copied elsewhere does not open. It seals with one key and opens with that and others, so that
// a master key can be exchanged while Herald runs.
type Sealer struct {
	id   string // of the key that seals
	keys map[string]cipher.AEAD
}

// NewSealer makes a Sealer of the 32-byte master key that seals and of others that only open.
func NewSealer(key []byte, others ...[]byte) (*Sealer, error) {
	s := &Sealer{id: keyID(key), keys: make(map[string]cipher.AEAD, 1+len(others))}
	for _, k := range append([][]byte{key}, others...) {
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
		if s.keys[keyID(k)], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
	}
	return s, nil
}

// keyID names a key without telling anything of it.
func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

const sealVersion = "v1"

// Seal encrypts a secret for a context. The result names the key, so that keys can be exchanged.
func (s *Sealer) Seal(secret Secret, context string) (string, error) {
	aead := s.keys[s.id]
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	box := aead.Seal(nonce, nonce, []byte(secret.value), []byte(context))
	return sealVersion + "." + s.id + "." + base64.RawStdEncoding.EncodeToString(box), nil
}

// take splits a sealed value into the id of its key, which it may not have, and what is sealed.
func (s *Sealer) take(sealed string) (id, box string, ok bool) {
	parts := strings.SplitN(sealed, ".", 3)
	if len(parts) != 3 || parts[0] != sealVersion {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// Current says whether a value is sealed with the key that seals now.
func (s *Sealer) Current(sealed string) bool {
	id, _, ok := s.take(sealed)
	return ok && id == s.id
}

// CheckKey fails when a value is sealed with a key that is not at hand.
func (s *Sealer) CheckKey(sealed string) error {
	id, _, _ := s.take(sealed)
	if _, ok := s.keys[id]; id != "" && !ok {
		return fmt.Errorf("sealed with master key %s, which is not at hand; this is %s", id, s.id)
	}
	return nil
}

// Open decrypts what Seal made for the same context.
func (s *Sealer) Open(sealed, context string) (Secret, error) {
	id, text, ok := s.take(sealed)
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
		return Secret{}, errors.New("open: sealed for another place, or altered")
	}
	return Secret{string(plain)}, nil
}
