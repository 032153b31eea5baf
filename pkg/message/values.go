package message

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of values that callers choose. Every database stores values within them, and every route reads, compares and encodes them.
const (
	MaxWhole     = 40    // digits of a number before its decimal point, written without an exponent
	MaxFraction  = 40    // digits after it
	MaxFieldName = 200   // characters of a custom field's name
	MaxIndexed   = 2_000 // bytes of a text with a B-tree index: PostgreSQL refuses index rows over 2,704 bytes
)

// NumberBound describes the valid numbers.
var NumberBound = fmt.Sprintf("must be a number of at most %d digits before and %d after the decimal point", MaxWhole, MaxFraction)

// TimeBound describes the valid times. RFC 3339 has no other years.
const TimeBound = "must be in the years 1 to 9999 in UTC"

// ValidTime reports whether a time is within TimeBound.
func ValidTime(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}

// ClampTime returns the time in UTC, or the nearest time within TimeBound.
func ClampTime(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Year() < 1:
		return time.Time{}
	case t.Year() > 9999:
		return time.Date(9999, time.December, 31, 23, 59, 59, 999_999_000, time.UTC)
	}
	return t
}

// FitsIndex reports whether a value fits a lead's text field. A field with an index is bounded in bytes, as stored and folded.
func FitsIndex(field, value string) bool {
	switch field {
	case "email", "phone", "assignee_id":
		return len(value) <= MaxIndexed && len(Fold(value)) <= MaxIndexed
	}
	return true
}

// FieldNameBound describes the valid names of custom fields.
var FieldNameBound = fmt.Sprintf("the name of a custom field must have 1 to %d characters", MaxFieldName)

// ValidFieldName reports whether a name is valid for a custom field.
func ValidFieldName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= MaxFieldName
}

// Decimal is an exact number: 0.digits × 10^exp. Zero has no digits.
type Decimal struct {
	negative bool
	digits   string // neither the first nor the last is 0
	exp      int
}

// maxExponent keeps the sum of an exponent and a number of digits within an int. Numbers beyond it exceed the bounds too.
const maxExponent = 1 << 30

// ParseDecimal parses a number in JSON syntax. It returns false for other texts and for numbers beyond MaxWhole and MaxFraction.
func ParseDecimal(s string) (Decimal, bool) {
	var d Decimal
	s, d.negative = strings.CutPrefix(s, "-")
	mantissa, exponent := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if mantissa, exponent = s[:i], s[i+1:]; exponent == "" {
			return Decimal{}, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if !isDigits(whole) || (fraction == "" && strings.HasSuffix(mantissa, ".")) || !isDigits(fraction+"0") {
		return Decimal{}, false
	}
	all := strings.TrimLeft(whole+fraction, "0")
	d.exp = len(whole) - (len(whole) + len(fraction) - len(all))
	if d.digits = strings.TrimRight(all, "0"); d.digits == "" {
		return Decimal{}, isExponent(exponent)
	}
	if exponent != "" {
		n, err := strconv.Atoi(exponent)
		if err != nil || n > maxExponent || n < -maxExponent {
			return Decimal{}, false
		}
		d.exp += n
	}
	return d, d.exp <= MaxWhole && len(d.digits)-d.exp <= MaxFraction
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isExponent(s string) bool {
	return s == "" || isDigits(strings.TrimLeft(s[:1], "+-")+s[1:])
}

// String writes the number without an exponent.
func (d Decimal) String() string {
	sign := ""
	if d.negative {
		sign = "-"
	}
	switch n := len(d.digits); {
	case n == 0:
		return "0"
	case d.exp <= 0:
		return sign + "0." + strings.Repeat("0", -d.exp) + d.digits
	case d.exp >= n:
		return sign + d.digits + strings.Repeat("0", d.exp-n)
	default:
		return sign + d.digits[:d.exp] + "." + d.digits[d.exp:]
	}
}

// SortKey returns a text whose byte order is exactly the order of the numbers, so that databases with and without decimals compare alike.
// Its parts are sign, exponent and digits. Negative numbers have the complements of both, and an end that sorts after every digit.
func (d Decimal) SortKey() string {
	const middle, maxExponentKey = 500, 999
	switch {
	case d.digits == "":
		return "1"
	case !d.negative:
		return "2" + fmt.Sprintf("%03d", middle+d.exp) + d.digits
	}
	complement := []byte(d.digits)
	for i, c := range complement {
		complement[i] = '0' + '9' - c
	}
	return "0" + fmt.Sprintf("%03d", maxExponentKey-middle-d.exp) + string(complement) + "~"
}

// maxPlain is the maximum length of a number within the bounds, with its sign and point.
const maxPlain = MaxWhole + MaxFraction + 2

// PlainNumber returns a number within the bounds with its digits as given and without an exponent, and false for other numbers.
// Databases expand exponents, each in its own way, so a short text could become a long one.
func PlainNumber(n json.Number) (json.Number, bool) {
	s := n.String()
	d, ok := ParseDecimal(s)
	if ok && (len(s) > maxPlain || strings.ContainsAny(s, "eE")) {
		n = json.Number(d.String())
	}
	return n, ok
}

// bindable returns the value of a custom field for templates. Whole numbers are int64, others float64 if it has the same digits, so that
// templates can compare and calculate. Other numbers are text, which prints every digit.
func bindable(v any) any {
	switch v := v.(type) {
	case json.Number:
		return bindableNumber(v.String())
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = bindable(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = bindable(e)
		}
		return out
	}
	return v
}

func bindableNumber(s string) any {
	d, ok := ParseDecimal(s)
	if !ok {
		return s
	}
	plain := d.String()
	if i, err := strconv.ParseInt(plain, 10, 64); err == nil {
		return i
	}
	if f, err := strconv.ParseFloat(plain, 64); err == nil && strconv.FormatFloat(f, 'f', -1, 64) == plain {
		return f
	}
	return plain
}
