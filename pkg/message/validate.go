package message

import (
	"fmt"
	"net/url"
	"slices"
	"unicode/utf8"
)

// Limits of content, in characters unless they say bytes.
const (
	MaxSubject        = 998  // one line of a mail header (RFC 5322, 2.1.1)
	MaxSMS            = 1600 // Twilio refuses more (error 21617)
	MaxInstagramBytes = 1000 // Meta's limit for a text
	MaxMediaURLs      = 10
	MaxMetadataBytes  = 8 << 10
	MaxURL            = 2048
	MaxSenderName     = 256
)

// contentField describes one field of Content to validation: what the wire calls it, whether it is filled, and the
// types that have it.
type contentField struct {
	name   string
	filled bool
	types  []ChannelType
}

func (c *Content) fields() []contentField {
	return []contentField{
		{"subject", c.Subject != "", []ChannelType{Email}},
		{"html_content", c.HTML != "", []ChannelType{Email}},
		{"sender_name", c.SenderName != "", []ChannelType{Email}},
		{"sender", c.Sender != "", []ChannelType{Email, SMS}},
		{"media_urls", len(c.MediaURLs) > 0, []ChannelType{SMS}},
		{"image_url", c.ImageURL != "", []ChannelType{InstagramDM}},
	}
}

// ValidateContent checks templates and fields against the rules of a type and returns everything that is wrong, with
// the field's name as the path. Rendered text is checked again before it is sent.
func ValidateContent(t ChannelType, c *Content) []FieldError {
	v := &validator{}
	for _, f := range c.fields() {
		if f.filled && !slices.Contains(f.types, t) {
			v.add(SlugExtra, fmt.Sprintf("%s has no field %s", t, f.name), f.name)
		}
	}
	switch t {
	case Email:
		v.email(c)
	case SMS:
		v.sms(c)
	case InstagramDM:
		v.instagram(c)
	}
	return v.errs
}

type validator struct{ errs []FieldError }

func (v *validator) add(slug, msg string, loc ...any) {
	v.errs = append(v.errs, FieldError{Loc: loc, Msg: msg, Type: slug})
}

func (v *validator) email(c *Content) {
	switch {
	case c.Subject == "":
		v.add(SlugMissing, "an email needs a subject", "subject")
	case utf8.RuneCountInString(c.Subject) > MaxSubject:
		v.add(SlugTooLong, fmt.Sprintf("a subject has at most %d characters", MaxSubject), "subject")
	case hasControl(c.Subject):
		v.add(SlugValue, "a subject has no control characters", "subject")
	}
	if c.Text == "" && c.HTML == "" {
		v.add(SlugMissing, "an email needs content or html_content", "content")
	}
	if c.Sender != "" {
		if _, ok := NormalizeEmail(c.Sender); !ok {
			v.add(SlugValue, "sender is not an email address", "sender")
		}
	}
	switch {
	case hasControl(c.SenderName):
		v.add(SlugValue, "a sender name has no control characters", "sender_name")
	case utf8.RuneCountInString(c.SenderName) > MaxSenderName:
		v.add(SlugTooLong, fmt.Sprintf("a sender name has at most %d characters", MaxSenderName), "sender_name")
	}
}

func (v *validator) sms(c *Content) {
	switch {
	case c.Text == "":
		v.add(SlugMissing, "an SMS needs content", "content")
	case utf8.RuneCountInString(c.Text) > MaxSMS:
		v.add(SlugTooLong, fmt.Sprintf("an SMS has at most %d characters", MaxSMS), "content")
	}
	if c.Sender != "" && !IsSMSSender(c.Sender) {
		v.add(SlugValue, "sender is no number, short code, alphanumeric id or messaging service", "sender")
	}
	if len(c.MediaURLs) > MaxMediaURLs {
		v.add(SlugListLong, fmt.Sprintf("at most %d media_urls", MaxMediaURLs), "media_urls")
	}
	for i, u := range c.MediaURLs {
		if !validURL(u, "http", "https") {
			v.add(SlugValue, "not an http or https URL", "media_urls", i)
		}
	}
}

func (v *validator) instagram(c *Content) {
	if c.Text == "" && c.ImageURL == "" {
		v.add(SlugMissing, "an Instagram message needs content or image_url", "content")
	}
	if len(c.Text) > MaxInstagramBytes {
		v.add(SlugTooLong, fmt.Sprintf("an Instagram text has at most %d bytes", MaxInstagramBytes), "content")
	}
	if c.ImageURL != "" && !validURL(c.ImageURL, "https") {
		v.add(SlugValue, "not an https URL", "image_url")
	}
}

func validURL(s string, schemes ...string) bool {
	if len(s) > MaxURL || hasControl(s) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.User == nil && slices.Contains(schemes, u.Scheme)
}
