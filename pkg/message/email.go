package message

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// Email is the channel type of email.
const Email ChannelType = "EMAIL"

// Limits of emails.
const (
	MaxSubject    = 998 // characters: one line of a mail header (RFC 5322, 2.1.1)
	MaxSenderName = 256 // characters

	// maxEmail is the longest address that a mail path can carry: 256 octets with its angle brackets (RFC 5321, 4.5.3.1.3).
	maxEmail = 254
	maxLocal = 64  // octets before the @ (RFC 5321, 4.5.3.1.1)
	maxName  = 253 // characters of a domain name in text form (RFC 1035, 2.3.4)
	maxLabel = 63  // characters between two dots of a domain name (RFC 1035, 2.3.4)
)

var emailSpec = TypeSpec{
	Type:  Email,
	Label: "Email",
	Address: AddressRule{
		LeadField: "email",
		Form:      "an email address",
		Normalize: NormalizeEmail,
		Recognize: func(s string) bool { return strings.Contains(s, "@") },
		Shown:     "an address with @",
	},
	Sender: SenderRule{Form: "an email address", Valid: func(s string) bool {
		_, ok := plainEmail(strings.TrimSpace(s))
		return ok
	}},
	Content: ContentRule{
		Fields:        []string{"subject", "html_content", "sender", "sender_name", "reply_to", "headers", "attachments"},
		Implies:       []string{"subject", "html_content"},
		Validate:      validateEmail,
		CheckRendered: checkRenderedEmail,
		Rules:         "An email requires content or html_content.",
	},
	Price:       PriceRule{Unit: "an email", Cost: flatPrice},
	Concurrency: 1000,
}

func validateEmail(c *Content) []FieldError {
	v := &validator{}
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
	switch {
	case hasControl(c.SenderName):
		v.add(SlugValue, "a sender name has no control characters", "sender_name")
	case utf8.RuneCountInString(c.SenderName) > MaxSenderName:
		v.add(SlugTooLong, fmt.Sprintf("a sender name has at most %d characters", MaxSenderName), "sender_name")
	}
	v.validateReplyTo(c.ReplyTo)
	v.validateHeaders(c.Headers)
	v.validateAttachments(c)
	return v.errs
}

func checkRenderedEmail(c *Content) error {
	switch {
	case c.Subject == "":
		return errors.New("the subject is empty once rendered")
	case utf8.RuneCountInString(c.Subject) > MaxSubject:
		return fmt.Errorf("the subject has over %d characters once rendered", MaxSubject)
	case utf8.RuneCountInString(c.SenderName) > MaxSenderName:
		return fmt.Errorf("the sender name has over %d characters once rendered", MaxSenderName)
	case blank(c.Text) && blank(c.HTML):
		return errBlank
	}
	return checkRenderedHeaders(c.Headers)
}

// plainEmail returns an address without anything around it, with the domain in lower case. It refuses display names, comments,
// domain literals and non-ASCII characters.
func plainEmail(s string) (string, bool) {
	if len(s) > maxEmail || hasControl(s) || !isASCII(s) || strings.ContainsAny(s, "<>\"()[],;: ") {
		return "", false
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > maxLocal {
		return "", false
	}
	domain := strings.ToLower(s[at+1:])
	if !validDomain(domain) {
		return "", false
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s || a.Name != "" {
		return "", false
	}
	return s[:at+1] + domain, true
}

func validDomain(d string) bool {
	labels := strings.Split(d, ".")
	if len(d) > maxName || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > maxLabel || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			c := l[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
