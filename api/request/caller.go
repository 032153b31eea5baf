package request

import (
	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/message"
)

// ctxAPIKey is the key of the echo context under which a request carries the API key of its caller.
const ctxAPIKey = "key"

// SetKey notes the API key that a request came with.
func SetKey(c echo.Context, k *access.Key) { c.Set(ctxAPIKey, k) }

// Caller returns the id of the key that a request came with, empty where there are none.
func Caller(c echo.Context) string {
	if k, ok := c.Get(ctxAPIKey).(*access.Key); ok {
		return k.ID
	}
	return ""
}

// allowed refuses a request whose key does not have a scope. Without keys every request has it.
func allowed(c echo.Context, scope access.Scope) error {
	if !Allowed(c, scope) {
		return message.Errorf(message.CodeForbidden, "this takes an API key with the scope %s", scope)
	}
	return nil
}

// Allowed reports whether a request may do what a scope allows.
func Allowed(c echo.Context, scope access.Scope) bool {
	k, ok := c.Get(ctxAPIKey).(*access.Key)
	return !ok || k.Allows(scope)
}
