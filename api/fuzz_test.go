package api_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"herald/pkg/config"
	"herald/pkg/contract"
)

// FuzzSend sends random bodies and headers. Every answer conforms to the document, and none is an internal error.
func FuzzSend(f *testing.F) {
	for _, name := range []string{"email", "sms", "instagram_dm", "bulk_lead_ids", "bulk_search_keyword", "bulk_filters", "bulk_assignees"} {
		f.Add(contract.Example(name), "key", "respond-async")
	}
	f.Add(`{"bulk_settings":{"all_leads":true,"match":"any","exclude_tags":["x"]},"message_data":{"subject":"{{ first_name | default: 'x' }}","content":"{% for t in tags %}{{ t }}{% endfor %}"},"dry_run":true}`, `"a\"b"`, "wait=0")
	f.Add(`{"bulk_settings":{"filters":{"logic":"OR","conditions":[{"field":"created_at","operator":"within_last_days","value":3},{"field":"custom_fields.a","operator":"between","value":[1,2]}]}},"message_data":{"content":"c"},"sender_type":"sms"}`, "", "wait=1e9")
	h := launch(f, func(c *config.Config) { c.BulkWait = 0 })
	d := the(h)
	f.Fuzz(func(t *testing.T, body, key, prefer string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.base+"/api/messaging/send", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Prefer", "wait=0")
		for name, v := range map[string]string{"Idempotency-Key": key, "Prefer": prefer} {
			// What the client cannot send, the server cannot get; and a wait would only take time.
			if v != "" && !strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r > 0x7e }) && !strings.Contains(strings.ToLower(v), "wait") {
				req.Header.Set(name, v)
			}
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode >= 500 && res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%d %s for %q", res.StatusCode, b, body)
		}
		d.holds(t, exchange{http.MethodPost, "/api/messaging/send", body, req.Header, res.StatusCode, res.Header, b})
	})
}
