package message

import (
	"slices"
	"testing"
)

func TestCasePhonesAsPeopleWriteThem(t *testing.T) {
	for in, want := range map[string]string{
		"+14155552671": "+14155552671", "+1 (415) 555-2671": "+14155552671", "tel:+1-415-555-2671": "+14155552671", "TEL:+14155552671;ext=5": "+14155552671",
		"001 415 555 2671": "+14155552671", "0044 7911 123456": "+447911123456", "+44 (0)7911 123456": "+447911123456", "+44 20 7946 0018": "+442079460018",
		"+49\u00a0170\u2011123\u202f4567": "+491701234567", "\u202a+14155550101\u202c": "+14155550101", "'+14155550101": "+14155550101", " +1.415.555.2671 ": "+14155552671",
	} {
		if got, ok := NormalizePhone(in); !ok || got != want {
			t.Errorf("%q: %q, %t, want %q", in, got, ok, want)
		}
		if got, ok := NationalPhone(in, "US"); !ok || got != want {
			t.Errorf("%q in the US: %q, %t, want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "4155552671", "(415) 555-2671", "+1 415", "00", "+", "call +14155552671", "+1 415 555 2671 2671 2671", "4.47911E+11", "+1-415-CALL-NOW", "00999 123 456"} {
		if got, ok := NormalizePhone(in); ok {
			t.Errorf("%q: %q", in, got)
		}
	}
	for in, region := range map[string]string{"4155552671": "US", "(415) 555-2671": "US", "1-415-555-2671": "US"} {
		if got, ok := NationalPhone(in, region); !ok || got != "+14155552671" {
			t.Errorf("%q in %s: %q, %t", in, region, got, ok)
		}
	}
	for _, in := range []string{"123", "00999 123 456", "+1 415", "41555526712671"} {
		if got, ok := NationalPhone(in, "US"); ok {
			t.Errorf("%q in the US: %q", in, got)
		}
	}
}

// The forms of a number that reach one subscriber are one address.
func TestCaseOneFormForEachSubscriber(t *testing.T) {
	for in, want := range map[string]string{
		"+4407911123456": "+447911123456", "+44 07911 123456": "+447911123456", "+49 0170 1234567": "+491701234567", "+390612345678": "+390612345678",
		"+5215512345678": "+525512345678", "+52 1 55 1234 5678": "+525512345678", "+525512345678": "+525512345678", "+5210123456789": "+5210123456789",
		"+551187654321": "+5511987654321", "+55 11 8765-4321": "+5511987654321", "+5511987654321": "+5511987654321", "+551131234567": "+551131234567",
		"+55 0 11 8765 4321": "+5511987654321",
	} {
		if got, ok := NormalizePhone(in); !ok || got != want {
			t.Errorf("%q: %q, %t, want %q", in, got, ok, want)
		}
	}
	for in, want := range map[string][]string{
		"+525512345678": {"+525512345678", "+5215512345678"}, "+5511987654321": {"+5511987654321", "+551187654321"},
		"+551131234567": {"+551131234567"}, "+447911123456": {"+447911123456"}, "ann@x.test": {"ann@x.test"},
	} {
		var hashes []Hash
		for _, form := range want {
			hashes = append(hashes, HashAddress(form))
		}
		if got := AddressHashes(in); !slices.Equal(got, hashes) {
			t.Errorf("%q has %d hashes, want those of %v", in, len(got), want)
		}
	}
}

func TestCaseKeysOfAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"+44 20 7946 0018": "+442079460018", "+442079460018": "+442079460018", "(415) 555-0101": "4155550101", "tel:415.555.0101": "4155550101",
		"'+1 415 555 0101": "+14155550101", "": "", "N/A": "n/a", "-": "-", "4.47911E+11": "4.47911e+11", "+12": "+12",
	} {
		if got := PhoneKey(in); got != want {
			t.Errorf("phone %q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"Ann@X.test": "ann@x.test", "Ann <Ann@x.test>": "ann@x.test", "mailto:ann@x.test": "ann@x.test", "ann@M\u00fcnchen.test": "ann@m\u00fcnchen.test",
		"ann@xn--mnchen-3ya.test": "ann@m\u00fcnchen.test", "": "", "none": "none", "None Given": "none given", "ann\u200b@x.test": "ann@x.test",
		"ann@stra\u00dfe.test": "ann@xn--strae-oqa.test", "ann@strasse.test": "ann@strasse.test", // two domains
	} {
		if got := EmailKey(in); got != want {
			t.Errorf("email %q: %q, want %q", in, got, want)
		}
	}
	for field, want := range map[string]string{"email": "ann@x.test", "phone": "+14155550101", "company": "+1 (415) 555-0101"} {
		in := "+1 (415) 555-0101"
		if field == "email" {
			in = "Ann <ann@x.test>"
		}
		if got := FoldField(field, in); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}

func TestCaseEmailsAsPeopleWriteThem(t *testing.T) {
	for in, want := range map[string]string{
		"ann@X.test": "ann@x.test", "Ann <ann@x.test>": "ann@x.test", "\"Lee, Ann\" <ann@x.test>": "ann@x.test", "<ann@x.test>": "ann@x.test", "mailto:ann@x.test": "ann@x.test",
		"MAILTO:ann@x.test?subject=Hi": "ann@x.test", "ann\u200b@x.test": "ann@x.test", "\ufeff ann@x.test\u00a0": "ann@x.test", "'ann@x.test": "ann@x.test",
		"ann@m\u00fcnchen.test": "ann@xn--mnchen-3ya.test", "ann@M\u00dcNCHEN.test": "ann@xn--mnchen-3ya.test", "Ann <ann@m\u00fcnchen.test>": "ann@xn--mnchen-3ya.test",
	} {
		if got, ok := NormalizeEmail(in); !ok || got != want {
			t.Errorf("%q: %q, %t, want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "ann@", "none", "a@b.c;d@e.f", "a@b.c, d@e.f", "j\u00fcrgen@x.test", "Ann <ann@x.test> Lee", "ann@[127.0.0.1]", "ann@-x.test", "ann@x", "ann @x.test", "<ann@x.test", "ann@\u2603\ufe0f.-"} {
		if got, ok := NormalizeEmail(in); ok {
			t.Errorf("%q: %q", in, got)
		}
	}
	for in, want := range map[string]bool{"news@acme.test": true, "News <news@acme.test>": false, "mailto:news@acme.test": false} {
		if got := Email.Spec().Sender.Valid(in); got != want {
			t.Errorf("%q as a sender: %t", in, got)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{"+1 (415) 555-2671", "tel:0044 7911", "Ann <ann@m\u00fcnchen.test>", "mailto:a@b.c?x", "'\u202a+44 (0)20"} {
		f.Add(seed, "US")
	}
	f.Fuzz(func(t *testing.T, s, region string) {
		for _, typ := range ChannelTypes {
			address, ok := ValidRecipient(typ, s)
			if !ok {
				continue
			}
			if again, ok := ValidRecipient(typ, address); !ok || again != address {
				t.Fatalf("%q as %s: %q, then %q, %t", s, typ, address, again, ok)
			}
			if !isASCII(address) || hasControl(address) {
				t.Fatalf("%q as %s: %q", s, typ, address)
			}
		}
		if number, ok := NationalPhone(s, region); ok && !IsE164(number) {
			t.Fatalf("%q in %q: %q", s, region, number)
		}
		for name, key := range map[string]func(string) string{"phone": PhoneKey, "email": EmailKey} {
			if again := key(key(s)); again != key(s) {
				t.Fatalf("%q as a key of %s: %q, then %q", s, name, key(s), again)
			}
		}
	})
}
