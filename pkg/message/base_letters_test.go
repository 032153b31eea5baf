package message

import (
	"strings"
	"testing"
)

func TestCaseBaseLetters(t *testing.T) {
	for in, want := range map[string]string{
		"José": "jose", "Jose\u0301": "jose", "Müller": "muller", "İstanbul": "istanbul", "Straße": "strasse", "O’Neil": "o'neil", "O`Neil": "o'neil",
		"Łódź": "lodz", "Ørsted": "orsted", "ısı": "isi", "Æsir": "aesir", "Þór": "thor", "ﬁne": "fine", "Ａcme™": "acmetm", "Jean–Luc": "jean-luc", "„Acme“": `"acme"`,
		"Σίσυφος": "σισυφοσ", "Йошкар": "иошкар", "が": "が", "한국": "한국", "नमस्ते": "नमस्ते", "日本": "日本", "": "", "plain text": "plain text",
	} {
		if got := BaseLetters(Fold(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A preselection by search_text relies on it: the base letters of a part of a text are a part of the base letters of the text.
func FuzzBaseLetters(f *testing.F) {
	f.Add("Łukasz Müller’s", 2, 7)
	f.Fuzz(func(t *testing.T, s string, from, to int) {
		folded := []rune(Fold(strings.ToValidUTF8(s, "")))
		if from < 0 || to > len(folded) || from > to {
			return
		}
		part := string(folded[from:to])
		if whole := BaseLetters(string(folded)); !strings.Contains(whole, BaseLetters(part)) {
			t.Fatalf("%q of %q: %q is not in %q", part, string(folded), BaseLetters(part), whole)
		}
	})
}
