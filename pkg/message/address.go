package message

import (
	"net/mail"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxEmail is the longest address a mail path can carry: 256 octets with its angle brackets (RFC 5321, 4.5.3.1.3).
const maxEmail = 254

var (
	e164Form      = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	instagramForm = regexp.MustCompile(`^[0-9]{1,32}$`)
	senderForm    = regexp.MustCompile(`^(\+[1-9][0-9]{1,14}|[0-9]{3,8}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 &_+-]{1,11})$`)
)

// NormalizeEmail returns the address as it is sent to and compared by: surrounding space off, the domain in lower
// case. Display names, comments, domain literals and non-ASCII characters are not addresses here.
func NormalizeEmail(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if len(s) > maxEmail || hasControl(s) || !isASCII(s) || strings.ContainsAny(s, "<>\"()[],;: ") {
		return "", false
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 {
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
	if len(d) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
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

// IsE164 says whether s has the form of an E.164 number: a plus and 7 to 15 digits, the first not 0. Whether the
// number is assigned is the provider's to say.
func IsE164(s string) bool { return e164Form.MatchString(s) }

// IsInstagramID says whether s has the form of an Instagram-scoped id: digits only.
func IsInstagramID(s string) bool { return instagramForm.MatchString(s) }

// IsSMSSender says whether s can be a sender of SMS: an E.164 number, a short code, an alphanumeric id of up to 11
// characters, or the id of a messaging service.
func IsSMSSender(s string) bool { return senderForm.MatchString(s) && strings.TrimSpace(s) == s }

// ValidRecipient returns the normalised form of an address that a caller gave for a type.
func ValidRecipient(t ChannelType, s string) (string, bool) {
	switch t {
	case Email:
		return NormalizeEmail(s)
	case SMS:
		s = strings.TrimSpace(s)
		return s, IsE164(s)
	default:
		s = strings.TrimSpace(s)
		return s, IsInstagramID(s)
	}
}

// TypeOfRecipient guesses the type from the form of an address: an @ is EMAIL, a plus and digits is SMS, 15 to 17
// digits are INSTAGRAM_DM.
func TypeOfRecipient(s string) (ChannelType, bool) {
	s = strings.TrimSpace(s)
	switch {
	case strings.Contains(s, "@"):
		return Email, true
	case IsE164(s):
		return SMS, true
	case IsInstagramID(s) && len(s) >= 15 && len(s) <= 17:
		return InstagramDM, true
	}
	return "", false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// IsControl says whether a character must never reach a header: the C0 and C1 control characters, among them CR, LF and
// NUL, and the line and paragraph separators.
func IsControl(r rune) bool {
	return r < 0x20 || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029
}

func hasControl(s string) bool { return strings.ContainsFunc(s, IsControl) }
