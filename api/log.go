package api

import (
	"regexp"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/redact"
)

// isProbe reports whether a request is a health probe.
func isProbe(c echo.Context) bool {
	return c.Path() == contract.RouteAlive.Path || c.Path() == contract.RouteReady.Path
}

// Bounds of a path in the log: what is longer holds nothing that helps.
const (
	maxSegments = 12
	hidden      = "***"
)

// plainSegment is a segment of a path that no caller fills with a name or an address: a word of a route, or a misspelt one.
var plainSegment = regexp.MustCompile(`^[A-Za-z0-9._~:-]{0,64}$`)

// clearedPath returns a request's path for the log, without its query. Ids and channel types are kept. The other values of a
// route's parameters are replaced by the names of the parameters: they may be addresses. In a path without a route, whatever is
// neither an id nor a plain word is hidden.
func clearedPath(c echo.Context) string {
	segments, pattern := strings.Split(c.Request().URL.Path, "/"), strings.Split(c.Path(), "/")
	if len(segments) > maxSegments {
		segments = append(segments[:maxSegments:maxSegments], hidden)
	}
	for i, s := range segments {
		switch {
		case isID(s):
		case len(pattern) == len(segments) && strings.HasPrefix(pattern[i], ":"):
			if _, isType := message.ParseChannelType(s); !isType {
				segments[i] = pattern[i]
			}
		case !plainSegment.MatchString(s), redact.Text(s) != s:
			segments[i] = hidden
		}
	}
	return strings.Join(segments, "/")
}

func isID(s string) bool {
	_, err := uuid.Parse(s)
	return err == nil && len(s) == len(uuid.Nil.String())
}
