package message_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"herald/pkg/message"
)

// genNumber draws numbers as JSON writes them, with at most 40 digits before and 40 after the decimal point.
var genNumber = rapid.Custom(func(t *rapid.T) string {
	s := rapid.SampledFrom([]string{"", "-"}).Draw(t, "sign") + rapid.StringMatching(`(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?`).Draw(t, "mantissa")
	if rapid.Bool().Draw(t, "exponent") {
		s += rapid.SampledFrom([]string{"e", "E", "e+", "e-", "E-"}).Draw(t, "e") + fmt.Sprint(rapid.IntRange(0, 22).Draw(t, "n"))
	}
	return s
})

// Sort keys have the order of the numbers, and each form of a number has its value.
func TestFaultValuesDecimalsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []message.Decimal
		var exact []*big.Rat
		for range 2 {
			s := genNumber.Draw(t, "number")
			d, ok := message.ParseDecimal(s)
			r, isNumber := new(big.Rat).SetString(s)
			if !ok || !isNumber {
				t.Fatalf("%s is refused: %v, %v", s, ok, isNumber)
			}
			plain, _ := message.PlainNumber(json.Number(s))
			for _, form := range []string{d.String(), plain.String()} {
				if back, ok := new(big.Rat).SetString(form); !ok || back.Cmp(r) != 0 || strings.ContainsAny(form, "eE") {
					t.Fatalf("%s becomes %s", s, form)
				}
			}
			list, exact = append(list, d), append(exact, r)
		}
		if got, want := strings.Compare(list[0].SortKey(), list[1].SortKey()), exact[0].Cmp(exact[1]); got != want {
			t.Fatalf("%s and %s compare as %d, want %d", list[0], list[1], got, want)
		}
	})
}

func TestFaultValuesNumberBounds(t *testing.T) {
	nines := strings.Repeat("9", message.MaxWhole)
	for s, want := range map[string]string{
		"42": "42", "1.50": "1.50", "-0": "-0", "1e3": "1000", "1.5E+2": "150", "2e-3": "0.002", "9007199254740993": "9007199254740993",
		nines: nines, "-" + nines: "-" + nines, "1e39": "1" + strings.Repeat("0", 39), "1e-40": "0." + strings.Repeat("0", 39) + "1",
		"0e999999999999999999999": "0", "0." + strings.Repeat("0", 500): "0", "1." + strings.Repeat("0", 20_000): "1",
		"1e40": "", nines + "9": "", "1e309": "", "-1e309": "", "1e200000": "", "1e-41": "", "1e-200000": "", "1e-9223372036854775807": "", "1e-9223372036854775808": "", "1e9223372036854775807": "", "1e99999999999999999999": "",
		"0." + strings.Repeat("3", 41): "", "": "", "-": "", ".5": "", "5.": "", "1e": "", "1e+": "", "NaN": "", "Infinity": "", "0x10": "", "1_000": "", "+1": "", "--1": "", "٣": "",
	} {
		n, ok := message.PlainNumber(json.Number(s))
		if ok != (want != "") || (ok && n.String() != want) {
			t.Errorf("%.60s: %s, %v, want %q", s, n, ok, want)
		}
	}
}

func TestFaultValuesTimesBeyondTheirYears(t *testing.T) {
	first, last := time.Time{}, time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	for _, c := range []struct {
		at, clamped time.Time
		valid       bool
	}{
		{first, first, true}, {last, last, true}, {first.Add(-time.Microsecond), first, false}, {last.Add(time.Microsecond), last, false},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600)), last, false}, {time.Date(-290_000, 1, 1, 0, 0, 0, 0, time.UTC), first, false},
		{time.Date(1, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)), first, false},
	} {
		if message.ValidTime(c.at) != c.valid || !message.ClampTime(c.at).Equal(c.clamped) {
			t.Errorf("%s: %v, %s", c.at, message.ValidTime(c.at), message.ClampTime(c.at))
		}
		if _, err := json.Marshal(message.ClampTime(c.at)); err != nil {
			t.Error(err)
		}
	}
}

func TestFaultValuesTemplatesSeeDigits(t *testing.T) {
	l := &message.Lead{CustomFields: map[string]any{
		"id": json.Number("9007199254740993"), "long": json.Number("89014103211118510720"), "half": json.Number("0.5"), "price": json.Number("12.50"),
		"fine": json.Number("0.10000000000000000001"), "k": json.Number("1e3"), "old": json.Number("1e309"), "in": map[string]any{"list": []any{json.Number("7"), "x", nil, true}},
	}}
	got, _ := l.Bindings(map[string]bool{"custom_fields": true})["custom_fields"].(map[string]any)
	for name, want := range map[string]any{
		"id": int64(9007199254740993), "long": "89014103211118510720", "half": 0.5, "price": 12.5, "fine": "0.10000000000000000001", "k": int64(1000), "old": "1e309",
	} {
		if got[name] != want {
			t.Errorf("%s is %T %v, want %T %v", name, got[name], got[name], want, want)
		}
	}
	if s := fmt.Sprintf("%T %v", got["in"].(map[string]any)["list"].([]any)[0], got["in"]); s != "int64 map[list:[7 x <nil> true]]" {
		t.Error(s)
	}
	if l.CustomFields["id"] != json.Number("9007199254740993") {
		t.Error("the lead was changed")
	}
}

// A field with an index is bounded in bytes as stored and folded, because some characters fold to longer ones.
func TestFitsIndex(t *testing.T) {
	half := message.MaxIndexed / 2
	for _, c := range []struct {
		field, value string
		fits         bool
	}{
		{"email", strings.Repeat("a", message.MaxIndexed), true}, {"email", strings.Repeat("a", message.MaxIndexed+1), false},
		{"phone", strings.Repeat("İ", half), false}, {"phone", strings.Repeat("İ", half/2), true}, {"assignee_id", strings.Repeat("İ", half), false},
		{"first_name", strings.Repeat("İ", half), true}, {"first_name", strings.Repeat("a", message.MaxIndexed+1), true},
	} {
		if got := message.FitsIndex(c.field, c.value); got != c.fits {
			t.Errorf("%s of %d bytes: %v", c.field, len(c.value), got)
		}
	}
}

func TestFieldNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"": false, "a": true, strings.Repeat("ö", message.MaxFieldName): true, strings.Repeat("a", message.MaxFieldName+1): false,
	} {
		if got := message.ValidFieldName(name); got != valid {
			t.Errorf("a name of %d bytes: %v", len(name), got)
		}
	}
}

// A complaint or an unsubscribe leaves transactional messages; the other reasons stop all. The caller may change the result.
func TestDefaultMessageTypes(t *testing.T) {
	for reason, transactional := range map[message.Reason]bool{
		message.Unsubscribed: false, message.Complained: false, message.SuppressedBounce: true, message.ManuallySuppressed: true,
	} {
		types := message.DefaultMessageTypes(reason)
		if slices.Contains(types, message.Transactional) != transactional || !slices.Contains(types, message.Marketing) || !slices.Contains(types, message.Notification) {
			t.Errorf("%s stops %v", reason, types)
		}
		types[0] = "CHANGED"
		if slices.Contains(message.DefaultMessageTypes(reason), "CHANGED") || slices.Contains(message.MessageTypes, "CHANGED") {
			t.Errorf("%s: the result is shared", reason)
		}
	}
}

// Addresses that differ in letter case only have one hash.
func TestHashAddress(t *testing.T) {
	if message.HashAddress("Ann@example.com") != message.HashAddress("ann@example.com") || message.HashAddress("ann@example.com") == message.HashAddress("bob@example.com") {
		t.Error("hashes")
	}
}
