package message

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestNormalizeEmail(t *testing.T) {
	for in, want := range map[string]string{
		"ann@example.com": "ann@example.com", " Ann@EXAMPLE.Com ": "Ann@example.com", "a+b.c_d@sub.example.co": "a+b.c_d@sub.example.co",
		strings.Repeat("a", 64) + "@example.com": strings.Repeat("a", 64) + "@example.com",
		"":                                       "", "a": "", "a@": "", "@b.com": "", "a@b": "", "a b@example.com": "", "a@example.com\n": "a@example.com", "a\n@example.com": "",
		"Ann <ann@example.com>": "ann@example.com", "a@@example.com": "", "a@exa_mple.com": "", "a@[127.0.0.1]": "", "å@example.com": "", "a@.com": "", "a@-x.com": "",
		`"a b"@example.com`: "", "a@example.com,b@example.com": "", "a..b@example.com": "", ".a@example.com": "",
		strings.Repeat("a", 65) + "@example.com": "", "a@" + strings.Repeat("b", 64) + ".com": "", "a@" + strings.Repeat("bb.", 90) + "com": "",
	} {
		got, ok := NormalizeEmail(in)
		if got != want || ok != (want != "") {
			t.Errorf("NormalizeEmail(%q) = %q, %v, want %q", in, got, ok, want)
		}
	}
}

func TestParsePriority(t *testing.T) {
	for in, want := range map[string]Priority{"HIGH": High, "high": High, "1": High, "2": High, "3": Normal, "4": Low, "5": Low, "Low": Low, "normal": Normal, "0": "", "6": "", "": "", "urgent": "", "1.0": ""} {
		if got, ok := ParsePriority(in); got != want || ok != (want != "") {
			t.Errorf("ParsePriority(%q) = %q, %v", in, got, ok)
		}
	}
}

func TestFold(t *testing.T) {
	for _, pair := range [][2]string{
		{"Straße", "STRASSE"}, {"ANN", "ann"}, {"é", "e\u0301"}, {"Σίσυφος", "ΣΊΣΥΦΟΣ"}, {"ﬁne", "FINE"}, {"Å", "\u212b"}, {"ǅ", "ǆ"},
	} {
		if a, b := Fold(pair[0]), Fold(pair[1]); a != b {
			t.Errorf("Fold(%q) = %q, Fold(%q) = %q", pair[0], a, pair[1], b)
		}
	}
	for _, s := range []string{"İstanbul", "e\u0301\u0323", "ß", "ᾳ\u0301", "plain"} {
		if once := Fold(s); Fold(once) != once {
			t.Errorf("Fold(%q) is not stable: %q, %q", s, once, Fold(once))
		}
	}
}

// Counters store these numbers, so they never change.
func TestReasonNumbersAreStable(t *testing.T) {
	for reason, want := range map[Reason]int{NoReason: 0, NoRecipient: 1, DuplicateRecipient: 3, UnknownOutcome: 9, RecipientRefused: 10, Poison: 21} {
		if got := reason.Number(); got != want {
			t.Errorf("%s has number %d, want %d", reason, got, want)
		}
		if ReasonByNumber(want) != reason {
			t.Errorf("number %d is %s, want %s", want, ReasonByNumber(want), reason)
		}
	}
	if len(reasons) > ReasonCount {
		t.Errorf("%d reasons, there is room for %d", len(reasons), ReasonCount)
	}
	if ReasonByNumber(-1) != NoReason || ReasonByNumber(99) != NoReason {
		t.Error("a number outside the list is a reason")
	}
}

func TestRanks(t *testing.T) {
	for i, s := range Settled {
		if s.Rank() != i+1 {
			t.Errorf("%s has rank %d", s, s.Rank())
		}
	}
	for _, s := range Open {
		if s.Rank() != 0 || s.Accepted() {
			t.Errorf("%s has a rank", s)
		}
	}
	if !Bounced.Accepted() || Failed.Accepted() {
		t.Error("BOUNCED is accepted, FAILED is not")
	}
}

func TestMicros(t *testing.T) {
	for amount, want := range map[float64]Micros{0.001: 1000, 0.0079: 7900, 1e-6: 1, 4e-7: 0, 12.5: 12_500_000, -0.0079: -7900, 1.6e-6: 2, -1.6e-6: -2, -1.4e-6: -1} {
		if got := MicrosOf(amount); got != want {
			t.Errorf("MicrosOf(%v) = %d", amount, got)
		}
	}
	if got := Micros(7900).Amount(); got != 0.0079 {
		t.Errorf("Amount = %v", got)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	err := Unavailable("the database", cause)
	if !IsCode(err, CodeUnavailable) || !errors.Is(err, cause) || err.RetryAfter <= 0 || IsCode(cause, CodeUnavailable) {
		t.Errorf("%v", err)
	}
	if Invalid(nil) != nil {
		t.Error("no invalid field is an error")
	}
	if got := InvalidField(SlugMissing, "field required", "body", "x", 1).Error(); got != "field required ([body x 1])" {
		t.Errorf("%q", got)
	}
}

func TestBindings(t *testing.T) {
	l := &Lead{ID: uuid.New(), FirstName: "Ann", Tags: []string{"a"}}
	all := map[string]bool{}
	for _, name := range BindingNames() {
		all[name] = true
	}
	b := l.Bindings(all)
	if b["first_name"] != "Ann" || b["full_name"] != "Ann" || b["id"] != l.ID.String() {
		t.Errorf("%v", b)
	}
	if _, there := b["company"]; there {
		t.Error("an empty field must be missing, so that a template's default applies")
	}
	if _, there := b["last_contacted_at"]; there || b["created_at"] != nil {
		t.Errorf("times that the lead does not have: %v", b)
	}
	created := time.Date(2024, 1, 31, 12, 30, 0, 999_999_000, time.FixedZone("", 2*3600))
	l.CreatedAt, l.UpdatedAt, l.LastContactedAt = created, created.Add(time.Hour), &created
	b = l.Bindings(all)
	if b["created_at"] != "2024-01-31T10:30:00Z" || b["updated_at"] != "2024-01-31T11:30:00Z" || b["last_contacted_at"] != "2024-01-31T10:30:00Z" {
		t.Errorf("%v", b)
	}
	if b := l.Bindings(map[string]bool{"id": true}); len(b) != 1 || b["id"] != l.ID.String() {
		t.Errorf("only the id is used: %v", b)
	}
	if b := (*Lead)(nil).Bindings(all); len(b) != 2 || b["tags"] == nil || b["custom_fields"] == nil {
		t.Errorf("without a lead: %v", b)
	}
}
