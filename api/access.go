package api

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// identify authenticates a request before its body is read. While no API key exists, an API in open mode (Deps.Local)
// answers processes of this machine without a key.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if !s.takesKey(c) {
			return next(c)
		}
		inUse, err := s.deps.Keys.InUse(r.Context())
		switch {
		case err != nil:
			return err
		case !inUse && s.deps.Local:
			if err := fromThisMachine(r); err != nil {
				return err
			}
			return next(c)
		}
		scheme, token, _ := strings.Cut(r.Header.Get(echo.HeaderAuthorization), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return message.Errorf(message.CodeUnauthorized, "an API key is required: send the header Authorization: Bearer hk_…")
		}
		k, quota, err := s.deps.Keys.Authenticate(r.Context(), strings.TrimSpace(token))
		if quota != nil {
			tellQuota(c.Response().Header(), quota)
		}
		if err != nil {
			return err
		}
		request.SetKey(c, k)
		return next(c)
	}
}

// policy is the name of the one quota policy of an API key.
const policy = `"key"`

// tellQuota writes the quota of a request's key into the headers of its answer (draft-ietf-httpapi-ratelimit-headers-10).
func tellQuota(h http.Header, q *access.Quota) {
	h.Set(contract.HeaderRateLimitPolicy, fmt.Sprintf("%s;q=%d;w=%d", policy, q.Limit, int(q.Window.Seconds())))
	h.Set(contract.HeaderRateLimit, fmt.Sprintf("%s;r=%d;t=%d", policy, q.Remaining, int(math.Ceil(q.Reset.Seconds()))))
}

// apiPrefix begins the paths that need an API key even if they have no route, so a caller without a key cannot find out
// which routes exist.
const apiPrefix = "/api/"

// takesKey reports whether a request needs an API key. The route's Access decides; without a route the path does.
func (s *Server) takesKey(c echo.Context) bool {
	if r := s.routeOf(c); r != nil {
		return r.Access == contract.Keyed
	}
	return strings.HasPrefix(c.Request().URL.Path, apiPrefix)
}

var crossOrigin = http.NewCrossOriginProtection()

// relayed are headers that proxies add. Forwarded is RFC 7239, Via RFC 9110; the others are conventions of proxies and
// content networks.
var relayed = []string{"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Original-Host", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip"}

// relayedPrefix begins the headers X-Forwarded-For, -Host, -Proto and similar.
const relayedPrefix = "X-Forwarded"

// fromThisMachine rejects cross-site requests of browsers on this machine and requests that a proxy forwarded. Without API
// keys the caller's location is the only credential, and both would let remote callers borrow it.
func fromThisMachine(r *http.Request) error {
	if err := crossOrigin.Check(r); err != nil {
		return message.Errorf(message.CodeForbidden, "cross-site requests are rejected while no API key exists")
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return message.Errorf(message.CodeForbidden, "cross-site requests are rejected while no API key exists")
	}
	for name := range r.Header {
		if strings.HasPrefix(name, relayedPrefix) || slices.Contains(relayed, name) {
			return message.Errorf(message.CodeForbidden, "requests through a proxy (%s) are rejected while no API key exists; create a key with `herald keys create`", name)
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); !strings.EqualFold(host, "localhost") && (ip == nil || !ip.IsLoopback()) {
		return message.Errorf(message.CodeForbidden, "while no API key exists, the API answers only under localhost or a loopback address")
	}
	return nil
}
