package message

import (
	"slices"
	"strings"
	"testing"
)

// Mailboxes as people write them.
func TestCaseMailboxes(t *testing.T) {
	for in, want := range map[string]Mailbox{
		"help@acme.test":                         {Email: "help@acme.test"},
		" Help@ACME.test ":                       {Email: "Help@acme.test"},
		"Acme Help <help@acme.test>":             {Email: "help@acme.test", Name: "Acme Help"},
		`"Help, Acme" <help@acme.test>`:          {Email: "help@acme.test", Name: "Help, Acme"},
		"<help@acme.test>":                       {Email: "help@acme.test"},
		"mailto:help@acme.test":                  {Email: "help@acme.test"},
		"=?utf-8?q?K=C3=B6ln?= <help@acme.test>": {Email: "help@acme.test", Name: "Köln"},
		"Kundendienst Köln <help@münchen.test>":  {Email: "help@xn--mnchen-3ya.test", Name: "Kundendienst Köln"},
		"":                         {},
		"Acme Help":                {},
		"help@acme":                {},
		"a@acme.test, b@acme.test": {},
		"Acme <a@acme.test>, Other <b@acme.test>":   {},
		"help@acme.test\r\nBcc: other@acme.test":    {},
		"Acme\r\nBcc: x@acme.test <help@acme.test>": {},
	} {
		if got, ok := ParseMailbox(in); got != want || ok != (want.Email != "") {
			t.Errorf("%q: %+v, %v", in, got, ok)
		}
	}
}

// Callers add headers of their own and change no other; each mistake names its header.
func TestCaseHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		value, slug string
	}{
		"X-Campaign":                   {"spring", ""},
		"x-campaign-2":                 {"a: b; c, d", ""},
		"X-" + strings.Repeat("a", 98): {"v", ""},
		"X-" + strings.Repeat("a", 99): {"v", SlugTooLong},
		"X-Long":                       {strings.Repeat("ö", 1000), ""},
		"X-Longer":                     {strings.Repeat("ö", 1001), SlugTooLong},
		"X-Template":                   {"{{ id }}", ""},
		"X-Empty":                      {"", SlugTooShort},
		"X-Blank":                      {" ", SlugTooShort},
		"X-Lines":                      {"a\r\nBcc: x@y.test", SlugValue},
		"X-NUL":                        {"a\x00", SlugValue},
		"X-":                           {"v", SlugValue},
		"":                             {"v", SlugValue},
		"Bcc":                          {"x@y.test", SlugValue},
		"Reply-To":                     {"x@y.test", SlugValue},
		"List-Unsubscribe":             {"<https://x.test>", SlugValue},
		"X-A: b\r\nBcc":                {"x@y.test", SlugValue},
		"X-Ünder":                      {"v", SlugValue},
		"X-A_B":                        {"v", SlugValue},
		"X A":                          {"v", SlugValue},
		"X-SG-ID":                      {"v", SlugValue},
		"x-smtpapi":                    {"{}", SlugValue},
	} {
		errs := ValidateContent(Email, &Content{Subject: "s", Text: "t", Headers: []Header{{"X-Before", "v"}, {name, c.value}}})
		if c.slug == "" && len(errs) == 0 {
			continue
		}
		if len(errs) != 1 || errs[0].Type != c.slug || !slices.Equal(errs[0].Loc, []any{"headers", name}) {
			t.Errorf("%q: %+v, want %s", name, errs, c.slug)
		}
	}
	twice := []Header{{"X-A", "1"}, {"x-a", "2"}, {"X-B", "3"}}
	if got := mistakes(ValidateContent(Email, &Content{Subject: "s", Text: "t", Headers: twice})); !slices.Equal(got, []string{"headers x-a value_error"}) {
		t.Errorf("one header twice: %q", got)
	}
}
