package api

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// idempotencyKey reads the Idempotency-Key header. It returns nil without one; an invalid one is added to errs. body is the
// decoded request, so white space and escapes do not change the fingerprint.
func idempotencyKey(c echo.Context, body any, errs *wire.Errors) *access.IdempotencyKey {
	values := c.Request().Header.Values(contract.HeaderIdempotencyKey)
	if len(values) == 0 {
		return nil
	}
	wrong := func(slug, msg string) *access.IdempotencyKey {
		errs.Add(slug, msg, "header", contract.HeaderIdempotencyKey)
		return nil
	}
	if len(values) > 1 {
		return wrong(message.SlugValue, "is given more than once")
	}
	key, err := access.ParseIdempotencyKey(values[0])
	switch {
	case err != nil:
		return wrong(message.SlugValue, err.Error())
	case len(key) > access.MaxIdempotencyKey:
		return wrong(message.SlugTooLong, fmt.Sprintf("must have at most %d characters", access.MaxIdempotencyKey))
	}
	return &access.IdempotencyKey{Caller: request.Owner(c), Hash: sha256.Sum256([]byte(key)), Fingerprint: fingerprint(c.QueryParams(), body)}
}

// fingerprint returns the SHA-256 of the JSON array [query, body]. It is hashed piece by piece, since a body may have
// megabytes. Fingerprints are stored for seven days, so their form must not change.
func fingerprint(query url.Values, body any) (sum [sha256.Size]byte) {
	h := sha256.New()
	params, _ := json.Marshal(query) // strings never fail
	_, _ = fmt.Fprintf(h, "[%s,", params)
	_ = wire.Encode(h, body) // decoded JSON never fails, nor does a hash
	_, _ = h.Write([]byte("]"))
	h.Sum(sum[:0])
	return sum
}

// replay answers a request whose key was used before with the present state of its message or bulk. done is false when the
// key is new; then no answer was written.
func (s *Server) replay(c echo.Context, key *access.IdempotencyKey) (done bool, err error) {
	if key == nil {
		return false, nil
	}
	ctx := c.Request().Context()
	effect, err := s.deps.Effects.Effect(ctx, key)
	switch {
	case message.IsCode(err, message.CodeNotFound):
		return false, nil
	case err != nil:
		return true, err
	case effect.Fingerprint != key.Fingerprint:
		return true, message.InvalidField(message.SlugKeyReused, "was used for another request", "header", contract.HeaderIdempotencyKey)
	case effect.Bulk:
		b, err := s.deps.Bulks.Get(ctx, effect.ID)
		if err != nil {
			return true, err
		}
		c.Response().Header().Set(contract.HeaderReplayed, "true")
		return true, s.answerBulk(c, b.Bulk)
	}
	sent, err := s.deps.Sender.Replay(ctx, effect.ID)
	if err != nil {
		return true, err
	}
	c.Response().Header().Set(contract.HeaderReplayed, "true")
	return true, c.JSON(http.StatusOK, showSent(sent))
}
