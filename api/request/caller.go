package request

import (
	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/message"
)

// ctxAPIKey is the key under which a request's context holds the caller's *access.Key.
const ctxAPIKey = "api_key"

// SetKey stores the authenticated API key of a request in its context.
func SetKey(c echo.Context, k *access.Key) { c.Set(ctxAPIKey, k) }

// Caller returns the id of the request's API key, "" in the keyless mode.
func Caller(c echo.Context) string {
	if k, ok := c.Get(ctxAPIKey).(*access.Key); ok {
		return k.ID
	}
	return ""
}

// Owner returns the owner of the request's API key, "" in the keyless mode.
func Owner(c echo.Context) string {
	if k, ok := c.Get(ctxAPIKey).(*access.Key); ok {
		return k.Owner
	}
	return ""
}

// Author returns the request's API key for display, the zero Author in the keyless mode.
func Author(c echo.Context) access.Author {
	if k, ok := c.Get(ctxAPIKey).(*access.Key); ok {
		return access.Author{ID: k.ID, Name: k.Name}
	}
	return access.Author{}
}

// allowed returns forbidden unless the request has a scope.
func allowed(c echo.Context, scope access.Scope) error {
	if !Allowed(c, scope) {
		return message.Errorf(message.CodeForbidden, "this needs an API key with the scope %s", scope)
	}
	return nil
}

// Allowed reports whether a request has a scope. In the keyless mode every request has every scope.
func Allowed(c echo.Context, scope access.Scope) bool {
	k, ok := c.Get(ctxAPIKey).(*access.Key)
	return !ok || k.Allows(scope)
}
