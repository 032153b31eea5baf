package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/config"
)

// A retry sends nothing twice although the key was rotated since the first try. Keys of another owner are independent.
func TestIntegrationARetryUnderARotatedKeySendsNothing(t *testing.T) {
	h := start(t)
	old, token := h.key(access.Key{Name: "nightly", Owner: "nightly", Scopes: access.Scopes})
	h.token = token
	const body, key = `{"message_data":{"recipient":"rotated@example.com","subject":"s","content":"c"}}`, "order-17"
	first := h.send(body, "Idempotency-Key", key)
	bulk := `{"bulk_settings":{"lead_ids":["` + h.lead(`"email":"rotated.lead@example.com"`) + `"]},"message_data":{"subject":"s","content":"c"}}`
	many := h.send(bulk, "Idempotency-Key", "bulk-17", "Prefer", "wait=30")
	_, rotated, err := h.app.Keys.Rotate(t.Context(), old.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, same := h.key(access.Key{Name: "second program", Owner: "nightly", Scopes: access.Scopes})
	for what, token := range map[string]string{"the old key": token, "the new key": rotated, "another key of the owner": same} {
		h.token = token
		if again := h.send(body, "Idempotency-Key", key); again.body["message_id"] != first.body["message_id"] || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %s", what, again.raw)
		}
		if again := h.send(bulk, "Idempotency-Key", "bulk-17"); again.body["bulk_id"] != many.body["bulk_id"] || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %s", what, again.raw)
		}
	}
	if n := len(h.sim.Accepted("rotated@example.com")) + len(h.sim.Accepted("rotated.lead@example.com")); n != 2 {
		t.Errorf("%d messages", n)
	}
	_, h.token = h.key(access.Key{Name: "nightly", Owner: "weekly", Scopes: access.Scopes})
	if other := h.send(body, "Idempotency-Key", key); other.body["message_id"] == first.body["message_id"] || other.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("another owner: %s", other.raw)
	}
}

// Answers to a key with a rate tell its quota, also errors and the answer that rejects it.
func TestIntegrationTheQuotaIsInTheHeaders(t *testing.T) {
	h := startWith(t, func(c *config.Config) { c.KeyRate = 1000 })
	for name, c := range map[string]struct {
		rate   float64
		policy string
	}{
		"its own rate": {3, `"key";q=3;w=1`}, "a fraction": {0.2, `"key";q=1;w=5`}, "the deployment's": {0, `"key";q=1000;w=1`}, "none": {access.Unlimited, ""},
	} {
		_, token := h.key(access.Key{Name: name, Scopes: []access.Scope{access.Read}, Rate: c.rate})
		h := &herald{t: t, base: h.base, app: h.app, sim: h.sim, token: token}
		for _, path := range []string{"/api/leads", "/api/leads/" + emailChannel} {
			a := h.call("GET", path, "")
			if got := a.header.Get("RateLimit-Policy"); got != c.policy || (a.header.Get("RateLimit") == "") != (c.policy == "") {
				t.Errorf("%s: %s %d: %q, %q", name, path, a.status, got, a.header.Get("RateLimit"))
			}
		}
		if c.rate != 0.2 {
			continue
		}
		a := h.must(http.StatusTooManyRequests, "GET", "/api/leads", "")
		var r, reset, retry int
		if n, err := fmt.Sscanf(a.header.Get("RateLimit"), `"key";r=%d;t=%d`, &r, &reset); n != 2 || err != nil || r != 0 || reset < 1 || reset > 5 {
			t.Errorf("%s: %q, %v", name, a.header.Get("RateLimit"), err)
		}
		if _, err := fmt.Sscan(a.header.Get("Retry-After"), &retry); err != nil || retry > reset || !strings.Contains(a.raw, "0.2 requests per second") {
			t.Errorf("%s: Retry-After %d, reset %d, %v: %s", name, retry, reset, err, a.raw)
		}
	}
	unknown := &herald{t: t, base: h.base, app: h.app, sim: h.sim, token: "hk_0000000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
	if a := unknown.must(http.StatusUnauthorized, "GET", "/api/leads", ""); a.header.Get("RateLimit") != "" {
		t.Errorf("an unknown key has a quota: %v", a.header)
	}
}
