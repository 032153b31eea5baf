package message

import (
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Fold returns the form of a text that is compared and searched: NFC, full Unicode case folding, and NFC again, because folding can
// leave characters that compose. It is idempotent. Both databases compare folded columns with folded values byte by byte, so their
// collations have no influence.
func Fold(s string) string {
	ascii := true
	upper := false
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 {
			ascii = false
			break
		}
		upper = upper || ('A' <= c && c <= 'Z')
	}
	if ascii {
		if !upper {
			return s
		}
		return strings.ToLower(s)
	}
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(s)))
}
