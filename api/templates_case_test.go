package api_test

import (
	"testing"

	"herald/pkg/config"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// The messages of bulks and singles have the times of their leads, also those that a worker renders.
func TestCaseTimesOfLeadsInTemplates(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		ann := h.lead(`"email":"ann@example.com","created_at":"2024-01-31T10:30:00Z","last_contacted_at":"2024-02-29T23:59:59Z"`)
		bob := h.lead(`"email":"bob@example.com","created_at":"2023-12-31T00:00:00Z"`)
		const message = `"message_data":{"subject":"s","content":"{{ created_at }}, {{ updated_at | date: '%Y' }}, {{ last_contacted_at | date: '%d %b %Y' | default: 'never' }}"}`
		const annsText, bobsText = "2024-01-31T10:30:00Z, ", "2023-12-31T00:00:00Z, "
		year := h.must(200, "GET", "/api/leads/"+ann, "").body["updated_at"].(string)[:4]
		want := map[string]string{"ann@example.com": annsText + year + ", 29 Feb 2024", "bob@example.com": bobsText + year + ", never"}
		check := func(how string) {
			t.Helper()
			for to, text := range want {
				if got := h.sim.Accepted(to); len(got) != 1 || got[0].Text != text {
					t.Errorf("%s: %+v, want %q", how, got, text)
				}
			}
			h.sim.Reset()
		}
		bulk := `{"sender_type":"email","bulk_settings":{"lead_ids":["` + ann + `","` + bob + `"]},` + message
		dry := h.send(bulk + `,"dry_run":true}`)
		for i, text := range []string{want["ann@example.com"], want["bob@example.com"]} {
			if sample, _ := dry.body["samples"].([]any)[i].(map[string]any); sample["content"] != text {
				t.Errorf("a sample: %v, want %q", sample, text)
			}
		}
		h.send(bulk + "}")
		check("a bulk")
		single := func(id string) string {
			return `{"sender_type":"email","message_data":{"contact_id":"` + id + `",` + message[len(`"message_data":{`):] + `}`
		}
		h.send(single(ann))
		h.send(single(bob))
		check("singles")
		h.sim.Script(simulator.Rule{Fault: simulator.Throttle, Times: 2, RetryIn: 1})
		for _, id := range []string{h.send(single(ann)).body["message_id"].(string), h.send(single(bob)).body["message_id"].(string)} {
			h.waitStatus(id, "SENT")
		}
		check("singles that a worker sends")
	})
}
