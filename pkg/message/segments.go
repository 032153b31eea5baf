package message

import (
	"strings"
	"unicode/utf16"
)

// Sizes of an SMS segment: alone, and as one of several with a user data header (3GPP TS 23.040, 9.2.3.24).
const (
	gsmAlone, gsmPart = 160, 153 // septets of the GSM 7-bit alphabet
	ucsAlone, ucsPart = 70, 67   // UTF-16 code units
)

// The GSM 7-bit default alphabet and its extension table, 3GPP TS 23.038. Characters of the extension take an escape
// and so two septets.
const (
	gsmBasic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	gsmExtended = "\f^{}\\[~]|€"
)

// Segments returns the number of segments of an SMS text: in GSM 7-bit if the alphabet has every character, else in UCS-2. A character
// of two units is not split between segments. An empty text has none.
func Segments(text string) int {
	if text == "" {
		return 0
	}
	alone, part, size := gsmAlone, gsmPart, gsmSize
	for _, r := range text {
		if gsmSize(r) == 0 {
			alone, part, size = ucsAlone, ucsPart, utf16.RuneLen
			break
		}
	}
	total, parts, used := 0, 1, 0
	for _, r := range text {
		n := size(r)
		if n < 1 {
			n = 1 // RuneLen is -1 for surrogates only, which valid UTF-8 does not contain
		}
		total += n
		if used+n > part {
			parts++
			used = 0
		}
		used += n
	}
	if total <= alone {
		return 1
	}
	return parts
}

// gsmSize returns the septets of a character in the GSM alphabet, or 0 if it is not in it.
func gsmSize(r rune) int {
	switch {
	case r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == ' '):
		return 1
	case strings.ContainsRune(gsmBasic, r):
		return 1
	case strings.ContainsRune(gsmExtended, r):
		return 2
	}
	return 0
}
