package message

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Limits of the headers that a caller adds to an email.
const (
	MaxHeaders     = 20
	MaxHeaderName  = 100   // characters
	MaxHeaderValue = 1_000 // characters
)

// Mailbox is an email address with an optional display name.
type Mailbox struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
}

// ParseMailbox parses an address with or without a display name, such as "Acme <help@acme.test>". The address is normalised as
// NormalizeEmail does.
func ParseMailbox(s string) (Mailbox, bool) {
	email, ok := NormalizeEmail(s)
	if !ok {
		return Mailbox{}, false
	}
	box := Mailbox{Email: email}
	if a, err := mail.ParseAddress(cleanAddress(s)); err == nil {
		box.Name = a.Name
	}
	return box, true
}

// Header is a header that the caller adds to an email. Value is a template until it is rendered.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// headerName is the form of the headers that callers may add. All others are written by Herald and the provider: a caller that
// could set them could, for example, add recipients.
var headerName = regexp.MustCompile(`^[Xx]-[A-Za-z0-9-]+$`)

// reservedHeaders are the beginnings, in lower case, of names that providers keep for themselves. SendGrid refuses the first and
// reads instructions from the second.
// https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
var reservedHeaders = []string{"x-sg-", "x-smtpapi"}

func isReservedHeader(name string) bool {
	name = strings.ToLower(name)
	for _, reserved := range reservedHeaders {
		if strings.HasPrefix(name, reserved) {
			return true
		}
	}
	return false
}

// validateReplyTo checks the mailbox to which replies go. It is not a template: one address receives the replies of all recipients.
func (v *validator) validateReplyTo(b *Mailbox) {
	if b == nil {
		return
	}
	if _, ok := plainEmail(b.Email); !ok || IsTemplate(b.Email) {
		v.add(SlugValue, "must be an email address, and not a template", "reply_to", "email")
	}
	switch {
	case utf8.RuneCountInString(b.Name) > MaxSenderName:
		v.add(SlugTooLong, fmt.Sprintf("a name has at most %d characters", MaxSenderName), "reply_to", "name")
	case hasControl(b.Name) || IsTemplate(b.Name):
		v.add(SlugValue, "a name is one line of text, and not a template", "reply_to", "name")
	}
}

// validateHeaders checks the headers that a caller adds. Names are compared as mail does, without regard to letter case.
func (v *validator) validateHeaders(headers []Header) {
	if len(headers) > MaxHeaders {
		v.add(SlugListLong, fmt.Sprintf("must have at most %d headers", MaxHeaders), "headers")
		return
	}
	seen := make(map[string]bool, len(headers))
	for _, h := range headers {
		folded := strings.ToLower(h.Name)
		switch {
		case len(h.Name) > MaxHeaderName:
			v.add(SlugTooLong, fmt.Sprintf("the name of a header has at most %d characters", MaxHeaderName), "headers", h.Name)
		case !headerName.MatchString(h.Name):
			v.add(SlugValue, "the name of a header must be X- and letters, digits and hyphens", "headers", h.Name)
		case isReservedHeader(h.Name):
			v.add(SlugValue, "this name is reserved by the provider", "headers", h.Name)
		case seen[folded]:
			v.add(SlugValue, "the header is given twice, in another letter case", "headers", h.Name)
		case blank(h.Value):
			v.add(SlugTooShort, "the value of a header must not be empty", "headers", h.Name)
		case utf8.RuneCountInString(h.Value) > MaxHeaderValue:
			v.add(SlugTooLong, fmt.Sprintf("the value of a header has at most %d characters", MaxHeaderValue), "headers", h.Name)
		case hasControl(h.Value):
			v.add(SlugValue, "the value of a header must be one line, without control characters", "headers", h.Name)
		}
		seen[folded] = true
	}
}

// checkRenderedHeaders returns an error for a rendered header that is too long.
func checkRenderedHeaders(headers []Header) error {
	for _, h := range headers {
		if utf8.RuneCountInString(h.Value) > MaxHeaderValue {
			return fmt.Errorf("a header has over %d characters once rendered", MaxHeaderValue)
		}
	}
	return nil
}
