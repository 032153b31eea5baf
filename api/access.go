package api

import (
	"net"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/message"
)

// keyKey is under what a request carries the API key of its caller.
const keyKey = "key"

// caller is the id of the key that a request came with, empty where there are none.
func caller(c echo.Context) string {
	if k, ok := c.Get(keyKey).(*access.Key); ok {
		return k.ID
	}
	return ""
}

// apiPrefix is what everything that needs a key begins with.
const apiPrefix = "/api/"

// identify finds out who asks, before anything of a request is read. Until the first API key is made, an API that listens
// on a loopback address answers whoever is on this machine.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if !strings.HasPrefix(r.URL.Path, apiPrefix) {
			return next(c)
		}
		inUse, err := s.Keys.InUse(r.Context())
		switch {
		case err != nil:
			return err
		case !inUse && s.Local:
			if err := fromThisMachine(r); err != nil {
				return err
			}
			return next(c)
		}
		scheme, token, _ := strings.Cut(r.Header.Get(echo.HeaderAuthorization), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return message.Errorf(message.CodeUnauthorized, "an API key is needed: Authorization: Bearer hk_…")
		}
		k, err := s.Keys.Authenticate(r.Context(), strings.TrimSpace(token))
		if err != nil {
			return err
		}
		c.Set(keyKey, k)
		return next(c)
	}
}

var crossOrigin = http.NewCrossOriginProtection()

// fromThisMachine refuses what a web page may make the browser of somebody at this machine send, and what a proxy passes
// on from elsewhere: without API keys, being on this machine is all that a caller has to show.
func fromThisMachine(r *http.Request) error {
	if err := crossOrigin.Check(r); err != nil {
		return message.Errorf(message.CodeForbidden, "without API keys no other site's pages may ask")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); !strings.EqualFold(host, "localhost") && (ip == nil || !ip.IsLoopback()) {
		return message.Errorf(message.CodeForbidden, "without API keys the API answers under the names of this machine only, localhost or 127.0.0.1")
	}
	return nil
}

// require lets in whose key has a scope. Where there are no keys, and on routes for everybody, everybody has it.
func require(scope access.Scope, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if k, ok := c.Get(keyKey).(*access.Key); ok && scope != "" && !k.Allows(scope) {
			return message.Errorf(message.CodeForbidden, "this takes an API key with the scope %s", scope)
		}
		return next(c)
	}
}
