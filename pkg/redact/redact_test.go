package redact_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"herald/pkg/redact"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"The 'To' number +1 (415) 555-0100 is bad":                             "The 'To' number *** is bad",
		"mail to <ann@example.com>, please":                                    "mail to <***>, please",
		"to=ann@example.com;":                                                  "to=***;",
		"key SG.abcdefghijk is dead":                                           "key *** is dead",
		"Authorization: Bearer hk_0123456789abcdef_" + strings.Repeat("A", 43): "Authorization: ***",
		"hk_0123456789abcdef_" + strings.Repeat("A-_", 14):                     "***",
		"AC" + strings.Repeat("0f", 16) + " and ACKNOWLEDGED, IGNORED":         "*** and ACKNOWLEDGED, IGNORED",
		"IGQVJ" + strings.Repeat("x", 30) + " EAA" + strings.Repeat("B", 30):   "*** ***",
		"postgres://herald:secret@db:5432/x?sslmode=disable":                   "postgres://***@db:5432/x?sslmode=disable",
		"there is no message 01a20960-62a9-7aff-9ba4-ab08429b828e":             "there is no message 01a20960-62a9-7aff-9ba4-ab08429b828e",
		"recipient 17841400000000001 wrote too long ago":                       "recipient *** wrote too long ago",
		"call 12345678-" + strings.Repeat("1", 27) + " now":                    "call *** now", // as long as an id
		"status 503, 8 attempts, port 8080":                                    "status 503, 8 attempts, port 8080",
	} {
		if got := redact.Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		" a\r\nb\x00":            "a  b",
		strings.Repeat("x", 400): strings.Repeat("x", redact.Max) + "…",
		"bad \xff byte":          "bad \ufffd byte",
	} {
		if got := redact.Short(in); got != want {
			t.Errorf("Short(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLogsAreRedacted(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: redact.Attr}))
	log.Info("odd value ann@example.com", "error", errors.New("+14155550100 is no number"), "reason", "Bearer abcdefghijkl",
		"message_id", "01a20960-62a9-7aff-9ba4-ab08429b828e", "count", 12345678)
	for _, secret := range []string{"ann@", "4155550100", "abcdefghijkl"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s is in the log: %s", secret, b.String())
		}
	}
	for _, kept := range []string{"01a20960-62a9-7aff-9ba4-ab08429b828e", "12345678"} {
		if !strings.Contains(b.String(), kept) {
			t.Errorf("%s is lost: %s", kept, b.String())
		}
	}
}
