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
// field), so a sealed value copied elsewhere does not open.
type Sealer struct {
	id   string
	aead cipher.AEAD
}

// NewSealer makes a Sealer of a 32-byte master key.
func NewSealer(key []byte) (*Sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	sum := sha256.Sum256(key)
	return &Sealer{id: hex.EncodeToString(sum[:4]), aead: aead}, nil
}

// Seal encrypts a secret for a context. The result names the key, so that keys can be exchanged.
func (s *Sealer) Seal(secret Secret, context string) (string, error) {
	nonce := make([]byte, s.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	box := s.aead.Seal(nonce, nonce, []byte(secret.value), []byte(context))
	return "v1." + s.id + "." + base64.RawStdEncoding.EncodeToString(box), nil
}

// Open decrypts what Seal made for the same context.
func (s *Sealer) Open(sealed, context string) (Secret, error) {
	parts := strings.SplitN(sealed, ".", 3)
	if len(parts) != 3 || parts[0] != "v1" {
		return Secret{}, errors.New("open: not a sealed value")
	}
	if parts[1] != s.id {
		return Secret{}, fmt.Errorf("open: sealed with master key %s, this is %s", parts[1], s.id)
	}
	box, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil || len(box) < s.aead.NonceSize() {
		return Secret{}, errors.New("open: not a sealed value")
	}
	plain, err := s.aead.Open(nil, box[:s.aead.NonceSize()], box[s.aead.NonceSize():], []byte(context))
	if err != nil {
		return Secret{}, errors.New("open: sealed for another place, or altered")
	}
	return Secret{string(plain)}, nil
}
