package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
)

// KeepEffects is how long an idempotency key stands for what was done under it.
const KeepEffects = 7 * 24 * time.Hour

// MaxIdempotencyKey is the longest idempotency key, in characters.
const MaxIdempotencyKey = 255

// IdempotencyKey says that a request may come again and is to take effect once. It belongs to its caller: two callers
// may use the same key. Only hashes of what the caller sent are kept, since a caller may make a key of an address.
type IdempotencyKey struct {
	Caller      string            // the id of the API key, empty where there are none
	Hash        [sha256.Size]byte // of the key
	Fingerprint [sha256.Size]byte // of the request: another request under the same key is a mistake
}

// Effect is what was done under an idempotency key: a message or a bulk was written.
type Effect struct {
	Fingerprint [sha256.Size]byte
	ID          uuid.UUID
	Bulk        bool
}

// Effects finds what was done under a key; a message.Error not_found when nothing was, or too long ago. ForgetEffects
// removes those older than KeepEffects.
type Effects interface {
	Effect(ctx context.Context, k *IdempotencyKey) (Effect, error)
	ForgetEffects(ctx context.Context) error
}

// ErrKeyTaken says that something was done under an idempotency key already, so that nothing was done now.
var ErrKeyTaken = errors.New("something was done under this idempotency key already")

// ParseIdempotencyKey reads the value of the header: bare, or quoted as a string of HTTP's structured fields (RFC 9651,
// 3.3.3). It returns the key as it is meant, 1 to MaxIdempotencyKey printable ASCII characters.
func ParseIdempotencyKey(v string) (string, error) {
	v = strings.TrimSpace(v)
	if strings.HasPrefix(v, `"`) {
		var ok bool
		if v, ok = unquote(v); !ok {
			return "", errors.New("is not a quoted string: quotes and backslashes within it need a backslash")
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
