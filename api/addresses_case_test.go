package api_test

import (
	"testing"

	"herald/pkg/provider/simulator"
)

// An address is understood as people write it wherever a request names one: as the recipient of a single, as the address of
// its lead, in a suppression, and in a look-up.
func TestCaseAddressesInRequests(t *testing.T) {
	h := start(t)
	single := func(to string) string {
		return `{"message_data":{"recipient":"` + to + `","subject":"s","content":"c"}}`
	}
	text := func(to string) string {
		return `{"sender_type":"sms","message_data":{"recipient":"` + to + `","content":"c"}}`
	}
	for name, c := range map[string]struct{ body, to string }{
		"separators":                  {text("+1 (415) 555-2671"), "+14155552671"},
		"a tel URL":                   {text("tel:+1-415-555-2672"), "+14155552672"},
		"the prefix of a call abroad": {text("0044 7911 123456"), "+447911123456"},
		"a number of the region":      {text("(415) 555-2673"), "+14155552673"},
		"direction marks":             {text(`\u202a+14155550104\u202c`), "+14155550104"},
		"a spreadsheet's apostrophe":  {text(`'+14155550105`), "+14155550105"},
		"a zero-width space":          {single(`ann\u200b@x.test`), "ann@x.test"},
		"a display name":              {single("Bob <bob@x.test>"), "bob@x.test"},
		"a mailto URL":                {single("mailto:cy@x.test"), "cy@x.test"},
		"an international domain":     {single("dee@münchen.test"), "dee@xn--mnchen-3ya.test"},
		"a lead's phone":              {`{"sender_type":"sms","message_data":{"contact_id":"` + h.lead(`"phone":"+1 (415) 555-0101"`) + `","content":"c"}}`, "+14155550101"},
		"a lead's national phone":     {`{"sender_type":"sms","message_data":{"contact_id":"` + h.lead(`"phone":"415-555-0102"`) + `","content":"c"}}`, "+14155550102"},
		"a lead's email":              {`{"sender_type":"email","message_data":{"contact_id":"` + h.lead(`"email":"Eve <eve@x.test>"`) + `","subject":"s","content":"c"}}`, "eve@x.test"},
	} {
		if a := h.call("POST", "/api/messaging/send", c.body); a.status != 200 || a.body["status"] != "SENT" || len(h.sim.Accepted(c.to)) != 1 {
			t.Errorf("%s: %d %s, %d to %s", name, a.status, a.raw, len(h.sim.Accepted(c.to)), c.to)
		}
	}
	for name, body := range map[string]string{
		"not ASCII before the @": single("jürgen@x.test"), "a second address": single("a@x.test, b@x.test"), "a number of no country": text("00999 123 456"),
	} {
		if a := h.call("POST", "/api/messaging/send", body); a.status != 422 || len(a.locs()) == 0 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	h.must(201, "POST", "/api/suppressions", `{"type":"sms","address":"tel:+1-415-555-0199","message_types":["TRANSACTIONAL","MARKETING"]}`)
	if a := h.send(text("+1 415 555 0199")); a.body["status"] != "SKIPPED" {
		t.Errorf("to a suppressed number: %s", a.raw)
	}
	for _, path := range []string{
		"/api/suppressions?address=+14155550199", "/api/suppressions?address=%2B14155550199", "/api/suppressions?address=+1-415-555-0199", "/api/suppressions?address=tel:%2B14155550199",
		"/api/messaging/messages?recipient=+14155552671", "/api/messaging/messages?recipient=%2B1%20(415)%20555-2671", "/api/messaging/messages?recipient=Bob%20%3Cbob@x.test%3E",
	} {
		if items := h.must(200, "GET", path, "").body["items"].([]any); len(items) != 1 {
			t.Errorf("%s: %v", path, items)
		}
	}
	// A lead is shown as it was given.
	id := h.lead(`"email":"gus@münchen.test"`)
	if l := h.must(200, "GET", "/api/leads/"+id, ""); l.body["email"] != "gus@münchen.test" {
		t.Errorf("%s", l.raw)
	}
	if n := h.sim.Report().ByProvider[simulator.Twilio]; n != 8 {
		t.Errorf("%d text messages", n)
	}
}
