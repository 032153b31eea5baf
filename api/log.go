package api

import (
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/message"
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

// clearedPath returns a request's path for the log, without its query. Ids, channel types and the words of routes are kept. Another
// value of a route's parameter is replaced by the parameter's name, and another segment of a path without a route is hidden: a caller
// may have written a name or an address there.
func (s *Server) clearedPath(c echo.Context) string {
	segments, pattern := strings.Split(c.Request().URL.Path, "/"), strings.Split(c.Path(), "/")
	if len(segments) > maxSegments {
		segments = append(segments[:maxSegments:maxSegments], hidden)
	}
	for i, segment := range segments {
		switch {
		case isID(segment):
		case len(pattern) == len(segments) && strings.HasPrefix(pattern[i], ":"):
			if _, isType := message.ParseChannelType(segment); !isType {
				segments[i] = pattern[i]
			}
		case !s.words[segment]:
			segments[i] = hidden
		}
	}
	return strings.Join(segments, "/")
}

func isID(s string) bool {
	_, err := uuid.Parse(s)
	return err == nil && len(s) == len(uuid.Nil.String())
}
