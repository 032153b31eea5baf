package render

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
