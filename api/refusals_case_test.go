package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// A refusal of the account or its sender pauses the channel with the provider's text, and fails no message.
func TestCaseRefusalsOfTheSenderPauseTheChannel(t *testing.T) {
	h := start(t)
	const leads = 10
	var ids []string
	for i := range leads {
		ids = append(ids, h.lead(fmt.Sprintf(`"phone":"+1415555%04d","email":"p%d@example.com"`, i, i)))
	}
	list := `["` + strings.Join(ids, `","`) + `"]`
	refusals := map[string]simulator.Rule{
		"SendGrid's field from":       {Provider: simulator.SendGrid, Refusal: &simulator.Refusal{Field: "from", Text: "not a verified sender"}},
		"SendGrid's field from.email": {Provider: simulator.SendGrid, Refusal: &simulator.Refusal{Field: "from.email", Text: "not a verified sender"}},
	}
	for _, code := range []int{21659, 21660, 21661, 21910, 20404, 21601, 21606} {
		refusals[fmt.Sprintf("Twilio's %d", code)] = simulator.Rule{Provider: simulator.Twilio, Refusal: &simulator.Refusal{Code: code, Text: fmt.Sprintf("refused with %d", code)}}
	}
	for name, rule := range refusals {
		path, data := "/api/channels/"+emailChannel+"/email", `{"subject":"s","content":"c"}`
		typ := "email"
		if rule.Provider == simulator.Twilio {
			path, data, typ = "/api/channels/"+pairChannel+"/sms", `{"content":"c"}`, "sms"
		}
		h.sim.Script(rule)
		id := h.send(`{"sender_type":"`+typ+`","bulk_settings":{"lead_ids":`+list+`},"message_data":`+data+`}`, "Prefer", "respond-async").body["bulk_id"].(string)
		var ch answer
		testenv.Eventually(t, 30*time.Second, name+" pauses the channel", func() bool {
			ch = h.must(200, "GET", path, "")
			return ch.body["state"] == "PAUSED"
		})
		if ch.body["state_reason"] != rule.Refusal.Text {
			t.Errorf("%s: %s", name, ch.raw)
		}
		bulk := h.must(200, "POST", "/api/messaging/bulk/"+id+"/cancel", "")
		if bulk.body["messages_sent"] != 0.0 || len(bulk.body["failure_reasons"].(map[string]any)) != 0 {
			t.Errorf("%s: %s", name, bulk.raw)
		}
		testenv.Eventually(t, 30*time.Second, name+": the bulk is over", func() bool {
			bulk = h.must(200, "GET", "/api/messaging/bulk/"+id, "")
			return bulk.body["completed_at"] != nil
		})
		reasons, _ := bulk.body["failure_reasons"].(map[string]any)
		if reasons["cancelled"] != float64(leads) || len(reasons) != 1 {
			t.Errorf("%s: %s", name, bulk.raw)
		}
		h.sim.Script()
		h.must(200, "PATCH", path, `{"state":"ACTIVE"}`)
	}
}

// Refusals of one recipient fail its message with the reason that they have.
func TestCaseRefusalsOfOneRecipient(t *testing.T) {
	h := start(t)
	for code, reason := range map[int]string{21635: "recipient_refused", 21211: "recipient_refused", 21610: "consent_refused", 29999: "provider_refused"} {
		h.sim.Script(simulator.Rule{Refusal: &simulator.Refusal{Code: code, Text: "no"}})
		a := h.send(`{"message_data":{"recipient":"+14155550100","content":"c"}}`)
		e, _ := a.body["error"].(map[string]any)
		if a.body["status"] != "FAILED" || e["code"] != reason {
			t.Errorf("%d: %s", code, a.raw)
		}
		if ch := h.must(200, "GET", "/api/channels/"+pairChannel+"/sms", ""); ch.body["state"] != "ACTIVE" {
			t.Errorf("%d: %s", code, ch.raw)
		}
	}
}
