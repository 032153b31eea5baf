package message

import (
	"strings"
	"unicode/utf8"

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

// baseLetters are letters and marks without a decomposition in Unicode that people replace when they type, folded.
var baseLetters = map[rune]string{
	'ø': "o", 'ł': "l", 'đ': "d", 'ħ': "h", 'ŧ': "t", 'ı': "i", 'æ': "ae", 'œ': "oe", 'ð': "d", 'þ': "th", 'ŋ': "n",
	'’': "'", '‘': "'", '‛': "'", 'ʼ': "'", '′': "'", '´': "'", '`': "'", '“': `"`, '”': `"`, '„': `"`, '«': `"`, '»': `"`,
	'‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '−': "-",
}

// BaseLetters returns a folded text in the form that a keyword is compared with: accents removed, ø, ł and similar letters
// replaced by their Latin base, quotes and dashes by those of ASCII. Each character is replaced alone, so that the result of a
// part of a text is a part of the result of the text.
func BaseLetters(folded string) string {
	if isASCII(folded) {
		return strings.ReplaceAll(folded, "`", "'")
	}
	var b strings.Builder
	b.Grow(len(folded))
	for _, r := range folded {
		if r == '`' || r >= utf8.RuneSelf {
			b.WriteString(baseOf(r))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// baseOf returns the base letters of a character, "" for a combining mark of Latin, Greek and Cyrillic. Marks of other scripts
// are vowels or make another letter, and stay.
func baseOf(r rune) string {
	if base, ok := baseLetters[r]; ok {
		return base
	}
	whole := norm.NFKD.String(string(r))
	base := strings.Map(func(r rune) rune {
		if 0x0300 <= r && r <= 0x036f {
			return -1
		}
		return r
	}, whole)
	if len(base) == len(whole) && !isASCII(whole) {
		return string(r)
	}
	return strings.ToLower(base) // the parts of ™ are capitals
}
