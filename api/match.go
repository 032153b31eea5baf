package api

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// tag writes a version as a strong entity tag (RFC 9110, section 8.8.3).
func tag(version int64) string { return `"` + strconv.FormatInt(version, 36) + `"` }

// leadTag returns the tag of a lead that was updated at a time. Every update of a lead has another time.
func leadTag(updated time.Time) string { return tag(updated.UnixMicro()) }

func setTag(c echo.Context, tag string) { c.Response().Header().Set(contract.HeaderETag, tag) }

var (
	oneTag  = regexp.MustCompile(`(?:W/)?"[^"]*"`)
	tagList = regexp.MustCompile(`^(?:[ \t]*(?:W/)?"[^"]*"[ \t]*(?:,|$))+$`)
)

// precondition reads If-Match (RFC 9110, section 13.1.1) and returns the check of an object's tag. what names the object. Weak tags
// never match.
func precondition(c echo.Context, what string) (func(tag string) error, error) {
	values := c.Request().Header.Values(contract.HeaderIfMatch)
	given := strings.TrimSpace(strings.Join(values, ","))
	if len(values) == 0 || given == "*" {
		return func(string) error { return nil }, nil
	}
	if !tagList.MatchString(given) {
		return nil, message.InvalidField(message.SlugValue, `must be * or ETags in quotes, separated by commas`, "header", contract.HeaderIfMatch)
	}
	tags := oneTag.FindAllString(given, -1)
	return func(tag string) error {
		if !slices.Contains(tags, tag) {
			return message.Errorf(message.CodePrecondition, "the %s has changed since it was read: read it again", what)
		}
		return nil
	}, nil
}
