package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
)

// KeepEffects is how long an idempotency key is remembered.
const KeepEffects = 7 * 24 * time.Hour

// MaxIdempotencyKey is the maximum length of an idempotency key, in characters. The API enforces it.
const MaxIdempotencyKey = 255

// IdempotencyKey marks a request that may be repeated and must take effect once. Keys of different owners are independent. They
// belong to the owner and not to the API key, so that a retry under a rotated API key takes no second effect.
// Only hashes are stored, because a caller may build a key from an address.
type IdempotencyKey struct {
	Caller      string            // owner of the API key, empty in keyless mode
	Hash        [sha256.Size]byte // of the key
	Fingerprint [sha256.Size]byte // of the request: a different request under the same key is rejected
}

// Effect is the result of the first request under an idempotency key: the message or bulk that it wrote.
type Effect struct {
	Fingerprint [sha256.Size]byte
	ID          uuid.UUID
	Bulk        bool
}

// IdempotencyStore keeps the effects of idempotency keys. Sends write them in the transaction of their effect.
type IdempotencyStore interface {
	// Effect returns the effect under a key, or a message.Error not_found when the key is unknown or older than KeepEffects.
	Effect(ctx context.Context, k *IdempotencyKey) (Effect, error)
	// ForgetEffects removes keys older than KeepEffects.
	ForgetEffects(ctx context.Context) error
}

// ErrKeyTaken is the error of a write that changed nothing because an earlier request used its idempotency key.
var ErrKeyTaken = errors.New("the idempotency key is in use")

// ParseIdempotencyKey reads the value of the Idempotency-Key header, bare or quoted as a string of HTTP's structured fields
// (RFC 9651, section 3.3.3), and returns the key without quotes. A key is printable ASCII and not empty; the caller bounds
// its length.
func ParseIdempotencyKey(v string) (string, error) {
	v = strings.TrimSpace(v)
	if strings.HasPrefix(v, `"`) {
		var ok bool
		if v, ok = unquote(v); !ok {
			return "", errors.New("is not a quoted string: escape quotes and backslashes within it by a backslash")
		}
	}
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return "", errors.New("must be printable ASCII")
		}
	}
	if v == "" {
		return "", errors.New("must not be empty")
	}
	return v, nil
}

// unquote returns the content of a quoted string, false for one that is malformed.
func unquote(v string) (string, bool) {
	if len(v) < 2 || v[len(v)-1] != '"' {
		return "", false
	}
	var b strings.Builder
	inner := v[1 : len(v)-1]
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(inner) || (inner[i] != '"' && inner[i] != '\\') {
				return "", false
			}
		}
		b.WriteByte(inner[i])
	}
	return b.String(), true
}
