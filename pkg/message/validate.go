package message

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Limits of content that do not depend on the type. Those that do are declared beside the type's spec.
const (
	MaxMetadataBytes = 8 << 10
	MaxURL           = 2048 // characters
)

// errBlank is the error of content that is empty after rendering.
var errBlank = errors.New("the content is empty once rendered")

// contentField is one field of Content except the text: its name on the wire, and whether it is filled.
type contentField struct {
	name   string
	filled bool
}

func (c *Content) fields() []contentField {
	return []contentField{
		{"subject", c.Subject != ""},
		{"html_content", c.HTML != ""},
		{"sender_name", c.SenderName != ""},
		{"sender", c.Sender != ""},
		{"media_urls", len(c.MediaURLs) > 0},
		{"image_url", c.ImageURL != ""},
		{"reply_to", c.ReplyTo != nil},
		{"headers", len(c.Headers) > 0},
		{"attachments", len(c.Attachments) > 0},
	}
}

// ContentFields returns the names on the wire of the fields of Content besides the text.
func ContentFields() []string {
	fields := (&Content{}).fields()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// ValidateContent returns the mistakes of content under the rules of a type, with the field's name as the path. The texts are templates;
// the type's CheckRendered checks the rendered content before it is sent.
func ValidateContent(t ChannelType, c *Content) []FieldError {
	spec := t.Spec()
	v := &validator{}
	for _, f := range c.fields() {
		if f.filled && !slices.Contains(spec.Content.Fields, f.name) {
			v.add(SlugExtra, fmt.Sprintf("%s has no field %s", t, f.name), f.name)
		}
	}
	v.errs = append(v.errs, spec.Content.Validate(c)...)
	if c.Sender != "" && slices.Contains(spec.Content.Fields, "sender") && !spec.Sender.Valid(c.Sender) {
		v.add(SlugValue, "must be "+spec.Sender.Form, "sender")
	}
	return v.errs
}

type validator struct{ errs []FieldError }

func (v *validator) add(slug, msg string, loc ...any) {
	v.errs = append(v.errs, FieldError{Loc: loc, Msg: msg, Type: slug})
}

// IsTemplate reports whether a text has the syntax of a template. Then its result is checked instead of it.
func IsTemplate(s string) bool { return strings.Contains(s, "{{") || strings.Contains(s, "{%") }

func validURL(s string, schemes ...string) bool {
	if len(s) > MaxURL || hasControl(s) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.User == nil && slices.Contains(schemes, u.Scheme)
}

// IsControl reports whether a character must not reach a header: the C0 and C1 control characters (with CR, LF and NUL), and the line
// and paragraph separators.
func IsControl(r rune) bool {
	return r < 0x20 || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029
}

func hasControl(s string) bool { return strings.ContainsFunc(s, IsControl) }

func blank(s string) bool { return strings.TrimSpace(s) == "" }
