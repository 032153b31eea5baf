// Package redact removes personal data and secrets from text that other programs produced: responses of providers, errors of
// drivers. It depends on no other package of Herald.
package redact

import (
	"log/slog"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Max is the maximum length of a text that Short returns, in characters.
const Max = 300

// shapes matches ids of Herald, which are kept, and what may be an email address, a phone number, an Instagram id, a credential
// of a provider, an API key or a password in a URL.
var shapes = regexp.MustCompile(`\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b` +
	`|://[^\s/@]+@` +
	`|[^\s"'<>(),;:=]+@[^\s"'<>(),;]+` +
	`|\bhk_[0-9a-f]{8,}_[A-Za-z0-9_-]{8,}` +
	`|\b(?:SG\.|Bearer |Basic )[A-Za-z0-9._~+/=-]{8,}|\b(?:EAA|IG)[A-Za-z0-9]{20,}|\b(?:AC|SK)[0-9a-fA-F]{32}` +
	`|\+?[0-9][0-9 ()-]{5,}[0-9]`)

const uuidLength = 36

// Text replaces everything that looks like personal data or a secret by ***. It prefers false matches to missed ones.
func Text(s string) string {
	return shapes.ReplaceAllStringFunc(s, func(found string) string {
		switch {
		case len(found) == uuidLength && found[8] == '-' && found[13] == '-':
			return found
		case strings.HasPrefix(found, "://"):
			return "://***@"
		}
		return "***"
	})
}

// Short is Text on one line of valid UTF-8 of at most Max characters, for text that is stored and shown.
func Short(s string) string {
	s = strings.TrimSpace(Text(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r // an invalid byte becomes U+FFFD
	}, s)))
	if utf8.RuneCountInString(s) > Max {
		s = string([]rune(s)[:Max]) + "…"
	}
	return s
}

// Attr is a ReplaceAttr function for slog. It redacts errors and the messages that libraries log.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case error:
		return slog.String(a.Key, Text(v.Error()))
	case string:
		if a.Key == "error" || a.Key == "msg" || a.Key == "reason" {
			return slog.String(a.Key, Text(v))
		}
	}
	return a
}
