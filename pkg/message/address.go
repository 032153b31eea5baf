package message

import (
	"net/mail"
	"strconv"
	"strings"
	"sync"
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
// and numbers that no country has. Numbers of one subscriber have one form: see currentPlan.
func NormalizePhone(s string) (string, bool) {
	s = cleanAddress(s)
	if IsE164(s) {
		return currentPlan(s), true
	}
	number, ok := international(cutScheme(s, "tel:"))
	if !ok {
		return "", false
	}
	if IsE164(number) {
		number = currentPlan(number)
	}
	n, err := phonenumbers.Parse(number, "")
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return "", false
	}
	number = phonenumbers.Format(n, phonenumbers.E164)
	return currentPlan(number), IsE164(number)
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
	return currentPlan(number), IsE164(number)
}

// currentPlan returns an E.164 number as today's numbering plan of its country writes it:
//
//   - without the trunk prefix 0 after the country code, which is dialled only within the country: +447911123456 for +4407911123456.
//     Countries whose numbers keep the zero, such as Italy, keep it;
//   - Mexico without the 1 that preceded mobile numbers until 2019;
//   - Brazil with the ninth digit that mobile numbers have since 2016.
//
// The older form reaches the same subscriber, so that both are one recipient.
func currentPlan(number string) string {
	for strings.HasPrefix(nationalPart(number), "0") {
		n, err := phonenumbers.Parse(number, "")
		if err != nil || !phonenumbers.IsPossibleNumber(n) {
			break
		}
		shorter := phonenumbers.Format(n, phonenumbers.E164)
		if len(shorter) >= len(number) {
			break
		}
		number = shorter
	}
	switch {
	case strings.HasPrefix(number, "+521") && len(number) == len("+5215512345678") && number[4] >= '2':
		return "+52" + number[len("+521"):]
	case strings.HasPrefix(number, "+55") && len(number) == len("+551187654321") && number[3] != '0' && number[5] >= '6':
		return number[:5] + "9" + number[5:]
	}
	return number
}

// earlierForm returns the number that currentPlan makes this one of, and false for a number without an earlier form.
func earlierForm(number string) (string, bool) {
	switch {
	case strings.HasPrefix(number, "+52") && len(number) == len("+525512345678") && number[3] >= '2':
		return "+521" + number[len("+52"):], true
	case strings.HasPrefix(number, "+55") && len(number) == len("+5511987654321") && number[5] == '9' && number[6] >= '6':
		return number[:5] + number[6:], true
	}
	return "", false
}

// countryCodes are the calling codes of all countries.
var countryCodes = sync.OnceValue(phonenumbers.GetSupportedCallingCodes)

// nationalPart returns the digits after the country code of an E.164 number, "" for a code that no country has. No code is
// the beginning of another one.
func nationalPart(number string) string {
	for digits := 1; digits <= 3; digits++ {
		if code, err := strconv.Atoi(number[1 : 1+digits]); err == nil && countryCodes()[code] {
			return number[1+digits:]
		}
	}
	return ""
}

// regions are the countries with a numbering plan (ISO 3166-1 alpha-2).
var regions = sync.OnceValue(phonenumbers.GetSupportedRegions)

// ValidRegion reports whether national phone numbers of a country can be read.
func ValidRegion(country string) bool { return regions()[country] }

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

// PhoneKey returns the form in which phone numbers of leads are compared and searched: E.164 where the number has a country
// code, the digits alone where it has none, and the folded text where it is no number.
func PhoneKey(s string) string {
	if number, ok := NormalizePhone(s); ok {
		return number
	}
	if digits, ok := phoneDigits(cutScheme(cleanAddress(s), "tel:")); ok {
		return digits
	}
	return Fold(s)
}

// phoneDigits removes the separators of a number or a part of one. It returns false for a text with other characters than
// digits, separators and a plus in front, and for a text without digits.
func phoneDigits(s string) (string, bool) {
	var b strings.Builder
	for i, r := range s {
		switch {
		case '0' <= r && r <= '9', r == '+' && i == 0:
			b.WriteRune(r)
		case !strings.ContainsRune(phoneSeparators, r):
			return "", false
		}
	}
	digits := b.String()
	return digits, strings.TrimPrefix(digits, "+") != ""
}

// PhonePart returns a part of a phone number as PhoneKey writes it, and false for a text that is no such part.
func PhonePart(s string) (string, bool) { return phoneDigits(strings.TrimSpace(s)) }

// EmailKey returns the form in which email addresses of leads are compared and searched: folded, without display name and
// mailto:, with the domain in Unicode. A text that is no address is folded only.
func EmailKey(s string) string {
	if isASCII(s) && !strings.ContainsAny(s, " '<:\t") && !strings.Contains(s, "xn--") { // nearly every address
		return Fold(s)
	}
	address, ok := NormalizeEmail(s)
	if !ok {
		return Fold(s)
	}
	local, domain, _ := strings.Cut(address, "@")
	if shown, err := idna.Display.ToUnicode(domain); err == nil && Fold(shown) == shown { // folding would make another domain of it
		domain = shown
	}
	return Fold(local + "@" + domain)
}

// FoldField returns the form in which the text field of a lead is compared.
func FoldField(field, value string) string {
	switch field {
	case "email":
		return EmailKey(value)
	case "phone":
		return PhoneKey(value)
	}
	return Fold(value)
}
