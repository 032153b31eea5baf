package message

import (
	"strings"
	"testing"
)

func BenchmarkSegments(b *testing.B) {
	for name, text := range map[string]string{"gsm": strings.Repeat("Hello [you] ", 40), "unicode": strings.Repeat("Grüße 🎉 ", 40)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Segments(text)
			}
		})
	}
}

// The limits are the published ones: 160 and 153 septets, 70 and 67 UTF-16 units, and nothing of two units is split.
func TestSegments(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"empty":                     {"", 0},
		"gsm 160":                   {strings.Repeat("a", 160), 1},
		"gsm 161":                   {strings.Repeat("a", 161), 2},
		"gsm 306":                   {strings.Repeat("a", 306), 2},
		"gsm 307":                   {strings.Repeat("a", 307), 3},
		"euro counts two":           {strings.Repeat("€", 80), 1},
		"81 euros":                  {strings.Repeat("€", 81), 2},
		"escape is not split":       {strings.Repeat("a", 152) + "€" + strings.Repeat("a", 152), 3},
		"escape that fits":          {strings.Repeat("a", 151) + "€" + strings.Repeat("a", 153), 2},
		"greek capitals are gsm":    {strings.Repeat("Ω", 160), 1},
		"cedilla flips to ucs-2":    {strings.Repeat("ç", 70), 1},
		"ucs 71":                    {strings.Repeat("ж", 71), 2},
		"ucs 134":                   {strings.Repeat("ж", 134), 2},
		"ucs 135":                   {strings.Repeat("ж", 135), 3},
		"emoji counts two":          {strings.Repeat("😀", 35), 1},
		"36 emoji":                  {strings.Repeat("😀", 36), 2},
		"surrogates are not split":  {strings.Repeat("ж", 66) + "😀" + strings.Repeat("ж", 66), 3},
		"one curly quote flips all": {strings.Repeat("a", 70) + "’", 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Segments(c.text); got != c.want {
				t.Errorf("Segments = %d, want %d", got, c.want)
			}
		})
	}
}
