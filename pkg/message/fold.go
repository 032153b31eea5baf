package message

import (
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Fold brings text to the one form in which it is compared and searched everywhere: NFC, then full Unicode case
// folding, then NFC again, since folding can leave parts that compose. Both databases compare folded columns with
// folded values byte by byte, so their locales play no part.
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
