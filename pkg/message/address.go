package message

import (
	"net/mail"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/net/idna"
)

// cleanAddress removes what copying and spreadsheets add to an address invisibly: white space around it, format
// characters (Unicode category Cf: direction marks, zero-width spaces, byte order marks), and the apostrophe by which a
// spreadsheet marks text.
func cleanAddress(s string) string {
	if !isASCII(s) {
		s = strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Cf, r) {
				return -1
			}
			return r
		}, s)
	}
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "'"))
}

// cutScheme removes a URI scheme in any letter case, with the parameters that may follow the address.
func cutScheme(s, scheme string) string {
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return s
	}
	s = s[len(scheme):]
	if i := strings.IndexAny(s, "?;"); i >= 0 {
		s = s[:i]
	}
	return s
}

// phoneSeparators are the characters between the digits of a phone number as people write it.
const phoneSeparators = " -.()/\t\u00a0\u2007\u2009\u2010\u2011\u2012\u2013\u202f"

// NormalizePhone returns a number with a country code in the form of E.164: +14155552671 for "+1 (415) 555-2671",
// "tel:+1-415-555-2671" or "001 415 555 2671". It refuses numbers without a country code, whose meaning depends on a region,
// and numbers that no country has.
func NormalizePhone(s string) (string, bool) {
	s = cleanAddress(s)
	if IsE164(s) {
		return s, true
	}
	number, ok := international(cutScheme(s, "tel:"))
	if !ok {
		return "", false
	}
	n, err := phonenumbers.Parse(number, "")
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return "", false
	}
	number = phonenumbers.Format(n, phonenumbers.E164)
	return number, IsE164(number)
}

// NationalPhone returns a number as NormalizePhone does. A number without a country code is one of a region (ISO 3166-1
// alpha-2); without a region it is refused.
func NationalPhone(s, region string) (string, bool) {
	if number, ok := NormalizePhone(s); ok {
		return number, true
	}
	s = cutScheme(cleanAddress(s), "tel:")
	if _, hasCode := international(s); hasCode || region == "" {
		return "", false
	}
	n, err := phonenumbers.Parse(s, region)
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return "", false
	}
	number := phonenumbers.Format(n, phonenumbers.E164)
	return number, IsE164(number)
}

// international reduces a number with a country code to + and digits. 00 is the prefix of an international call in most
// countries, and (0) the digit that is left out after a country code.
func international(s string) (string, bool) {
	s = strings.Replace(s, "(0)", "", 1)
	if rest, ok := strings.CutPrefix(s, "00"); ok {
		s = "+" + rest
	}
	if !strings.HasPrefix(s, "+") {
		return "", false
	}
	var b strings.Builder
	b.WriteByte('+')
	for _, r := range s[1:] {
		switch {
		case '0' <= r && r <= '9':
			b.WriteRune(r)
		case !strings.ContainsRune(phoneSeparators, r):
			return "", false
		}
	}
	return b.String(), true
}

// NormalizeEmail returns the form of an address that is sent to and compared: without surrounding space, display name and
// mailto:, with the domain in lower case and in ASCII (IDNA 2008, RFC 5891). It refuses comments, domain literals and
// non-ASCII characters before the @.
func NormalizeEmail(s string) (string, bool) {
	s = cleanAddress(s)
	if address, ok := plainEmail(s); ok { // nearly every address
		return address, true
	}
	s = cutScheme(s, "mailto:")
	if strings.HasSuffix(s, ">") && len(s) <= maxNamed {
		if a, err := mail.ParseAddress(s); err == nil {
			s = a.Address
		}
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || len(s) > maxNamed {
		return "", false
	}
	if domain := s[at+1:]; !isASCII(domain) {
		ascii, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			return "", false
		}
		s = s[:at+1] + ascii
	}
	return plainEmail(s)
}

// maxNamed bounds an address with a display name in bytes.
const maxNamed = 1_000
