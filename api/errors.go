package api

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/telemetry"
	"herald/pkg/wire"
)

// statuses maps error codes to HTTP statuses. A code that is missing here is a 500 without details.
var statuses = map[message.Code]int{
	message.CodeInvalid:     http.StatusUnprocessableEntity,
	message.CodeNotFound:    http.StatusNotFound,
	message.CodeConflict:    http.StatusConflict,
	message.CodePaused:      http.StatusConflict,
	message.CodeTooLarge:    http.StatusRequestEntityTooLarge,
	message.CodeMediaType:   http.StatusUnsupportedMediaType,
	message.CodeThrottled:   http.StatusTooManyRequests,
	message.CodeUnavailable: http.StatusServiceUnavailable,

	message.CodeUnauthorized: http.StatusUnauthorized,
	message.CodeForbidden:    http.StatusForbidden,
	message.CodeInProgress:   http.StatusConflict,
	message.CodeTooSlow:      http.StatusRequestTimeout,
	message.CodePrecondition: http.StatusPreconditionFailed,
}

// fail answers with an error. It is also Echo's error handler, so it gets the framework's own errors.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	request.Abandon(c, err)
	status, body := s.problem(err, c)
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, message.IsCode(err, message.CodeInProgress):
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(retryAfter(err)))
	case status == http.StatusUnauthorized:
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="herald"`)
	}
	if werr := c.JSON(status, body); werr != nil {
		s.deps.Telemetry.Failure(c.Request().Context(), "answer", werr)
	}
}

var noSuchPath = contract.Problem{Detail: "no route has this path", Code: "not_found"}

// pathExists reports whether a route with any method has the path. Echo's 405 is not enough: its parameter at the end of a
// route matches the rest of the path with its slashes.
func (s *Server) pathExists(path string) bool {
	have := strings.Split(path, "/")
	for _, r := range s.table {
		want := strings.Split(r.Path, "/")
		if slices.EqualFunc(want, have, func(w, h string) bool { return w == h || strings.HasPrefix(w, ":") }) {
			return true
		}
	}
	return false
}

// problem maps an error to the status and body of its answer.
func (s *Server) problem(err error, c echo.Context) (int, any) {
	var e *message.Error
	var he *echo.HTTPError
	switch {
	case errors.As(err, &e) && e.Code == message.CodeInvalid:
		fields := e.Fields
		if len(fields) == 0 {
			fields = []message.FieldError{{Loc: []any{"body"}, Msg: e.Message, Type: message.SlugValue}}
		}
		return http.StatusUnprocessableEntity, contract.ValidationError{Code: string(message.CodeInvalid), Detail: wireErrors(wire.Bounded(fields))}
	case errors.As(err, &e):
		if status, ok := statuses[e.Code]; ok {
			return status, contract.Problem{Detail: e.Message, Code: string(e.Code)}
		}
	case errors.As(err, &he) && he.Code == http.StatusNotFound:
		return http.StatusNotFound, noSuchPath
	case errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed && !s.pathExists(c.Request().URL.Path):
		return http.StatusNotFound, noSuchPath
	case errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed:
		return http.StatusMethodNotAllowed, contract.Problem{Detail: "this path does not allow the method " + c.Request().Method, Code: contract.CodeMethod}
	}
	return http.StatusInternalServerError, contract.Problem{
		Detail: "internal error; the server's log has the details under the request id", Code: contract.CodeInternal, RequestID: requestID(c),
	}
}

func wireErrors(fields []message.FieldError) []contract.FieldError {
	out := make([]contract.FieldError, len(fields))
	for i, f := range fields {
		out[i] = contract.FieldError(f)
	}
	return out
}

// retryAfter returns the seconds of a Retry-After header, rounded up; 5 when the error does not say.
func retryAfter(err error) int {
	var e *message.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return int(math.Ceil(e.RetryAfter.Seconds()))
	}
	return 5
}

// requestID returns the id that observe gave the request.
func requestID(c echo.Context) string { return c.Response().Header().Get(contract.HeaderRequestID) }

// observe gives every request an id and security headers, recovers panics, and reports the request to log and metrics.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := time.Now()
		id := c.Request().Header.Get(contract.HeaderRequestID)
		if !plainID(id) {
			id = uuid.NewString()
		}
		h := c.Response().Header()
		h.Set(contract.HeaderRequestID, id)
		for name, v := range securityHeaders {
			h.Set(name, v)
		}
		defer func() {
			if p := recover(); p != nil {
				if e, ok := p.(error); ok && errors.Is(e, http.ErrAbortHandler) {
					panic(p)
				}
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			cut := err != nil && c.Response().Committed
			if err != nil {
				s.fail(err, c)
			}
			s.deps.Telemetry.Request(c.Request().Context(), telemetry.Request{
				Method: methodLabel(c.Request().Method), Route: routeLabel(c), Path: s.clearedPath(c), Remote: c.RealIP(), Probe: isProbe(c),
				Status: c.Response().Status, Duration: time.Since(start), ID: id, Caller: request.Caller(c),
				Shed: request.Shed(err) || message.IsCode(err, message.CodeThrottled), Err: err,
			})
			if r := s.routeOf(c); cut && r != nil && r.Admission == contract.AdmitDownload {
				s.deps.Telemetry.Failure(c.Request().Context(), "answer", err)
				panic(http.ErrAbortHandler) // cut the connection, or the client would take the part for the whole answer
			}
		}()
		return next(c)
	}
}

// securityHeaders protect browsers that open an API URL: answers are not executed, framed, sniffed or cached.
var securityHeaders = map[string]string{
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
}

// noRoute is the metric label of requests that match no route.
const noRoute = "unmatched"

// routeLabel returns the route's path pattern. The path itself is never a label: its values are unbounded.
func routeLabel(c echo.Context) string {
	if p := c.Path(); p != "" {
		return p
	}
	return noRoute
}

// methodLabel maps unknown methods to one label, since clients can invent any number of them.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// plainID reports whether a caller's request id is safe in headers and logs: 1 to 128 letters, digits and -_.:
func plainID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}
