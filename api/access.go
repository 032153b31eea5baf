package api

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// identify finds the key of a request, before anything of its body is read. Until the first API key is made, an open API
// answers the processes of this machine without one.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if !s.takesKey(c) {
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
		request.SetKey(c, k)
		return next(c)
	}
}

// apiPrefix begins the paths that take an API key whether or not they have a route, so that a caller without one cannot
// tell which of them exist.
const apiPrefix = "/api/"

// takesKey reports whether a request needs an API key: as its route says, and without a route by its path.
func (s *Server) takesKey(c echo.Context) bool {
	if r := s.routeOf(c); r != nil {
		return r.Access == contract.Keyed
	}
	return strings.HasPrefix(c.Request().URL.Path, apiPrefix)
}

var crossOrigin = http.NewCrossOriginProtection()

// relayed are the headers of requests that a proxy passes on. Forwarded is RFC 7239, Via RFC 9110; the others are customs
// of proxies and content networks.
var relayed = []string{"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Original-Host", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip"}

// relayedPrefix begins the headers X-Forwarded-For, -Host, -Proto and their kin.
const relayedPrefix = "X-Forwarded"

// fromThisMachine refuses what a web page may make a browser on this machine send, and what a proxy passes on from
// elsewhere: without API keys, being on this machine is all that a caller has to show.
func fromThisMachine(r *http.Request) error {
	if err := crossOrigin.Check(r); err != nil {
		return message.Errorf(message.CodeForbidden, "without API keys no other site's pages may ask")
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return message.Errorf(message.CodeForbidden, "without API keys no other site's pages may ask")
	}
	for name := range r.Header {
		if strings.HasPrefix(name, relayedPrefix) || slices.Contains(relayed, name) {
			return message.Errorf(message.CodeForbidden, "without API keys no request is answered that came through a proxy (%s); make a key with `herald keys create`", name)
		}
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
