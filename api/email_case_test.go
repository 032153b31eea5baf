package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/provider/simulator"
)

// mailTo is the body of a single with further fields of message_data.
func mailTo(to, more string) string {
	return `{"message_data":{"recipient":"` + to + `","subject":"s","content":"c",` + more + `}}`
}

// A reply goes where reply_to says, as text or as an object.
func TestCaseReplyTo(t *testing.T) {
	h := start(t)
	for given, want := range map[string]string{
		`"help@acme.test"`:                           "help@acme.test",
		`"Acme Help <Help@ACME.test>"`:               `"Acme Help" <Help@acme.test>`,
		`{"email":"help@acme.test"}`:                 "help@acme.test",
		`{"email":" help@ACME.test ","name":"Köln"}`: "=?utf-8?q?K=C3=B6ln?= <help@acme.test>",
		`{"email":"help@acme.test","name":null}`:     "help@acme.test",
		`null`:                                       "",
	} {
		h.sim.Reset()
		if a := h.send(mailTo("ann@example.com", `"reply_to":`+given)); a.body["status"] != "SENT" {
			t.Errorf("%s: %s", given, a.raw)
		}
		if got := h.sim.Accepted("ann@example.com"); len(got) != 1 || got[0].ReplyTo != want {
			t.Errorf("%s: %+v", given, got)
		}
	}
	h.sim.Reset()
	const at = `["body","message_data","reply_to"`
	for given, want := range map[string]map[string]string{
		`"help"`:                        {at + `]`: "value_error"},
		`""`:                            {at + `]`: "value_error"},
		`"{{ assignee_id }}@acme.test"`: {at + `]`: "value_error"},
		`"a@acme.test, b@acme.test"`:    {at + `]`: "value_error"},
		`"` + strings.Repeat("x", 700) + ` <a@acme.test>"`: {at + `]`: "value_error"},
		`7`:                                    {at + `]`: "value_error"},
		`["a@acme.test"]`:                      {at + `]`: "value_error"},
		`{"name":"A"}`:                         {at + `,"email"]`: "missing"},
		`{"email":"help","name":"A\nB","x":1}`: {at + `,"x"]`: "extra_forbidden", at + `,"email"]`: "value_error", at + `,"name"]`: "value_error"},
		`{"email":"help","name":"A\nB"}`:       {at + `,"email"]`: "value_error", at + `,"name"]`: "value_error"},
		`{"email":7,"name":"` + strings.Repeat("x", 257) + `"}`: {at + `,"email"]`: "string_type", at + `,"name"]`: "string_too_long"},
	} {
		a := h.must(422, "POST", "/api/messaging/send", mailTo("ann@example.com", `"reply_to":`+given))
		if d := cmp.Diff(want, a.locs()); d != "" {
			t.Errorf("%s: %s", given, d)
		}
	}
	if n := len(h.sim.Accepted("")); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// Headers are added to singles and bulks, rendered for each lead; what could change the mail itself is refused by its name.
func TestCaseHeaders(t *testing.T) {
	h := start(t)
	id := h.lead(`"email":"ann@example.com","company":"Ängström"`)
	other := h.lead(`"email":"ben@example.com"`)
	const headers = `"reply_to":"help@acme.test","headers":{"X-Campaign":"spring, {{ company }}","x-company":"{{ company }}"}`
	a := h.send(`{"bulk_settings":{"lead_ids":["` + id + `","` + other + `"]},"message_data":{"subject":"s","content":"c",` + headers + `}}`)
	if a.body["messages_sent"] != 2.0 {
		t.Fatal(a.raw)
	}
	for to, want := range map[string]map[string]string{
		"ann@example.com": {"X-Campaign": "=?utf-8?q?spring,_=C3=84ngstr=C3=B6m?=", "x-company": "=?utf-8?q?=C3=84ngstr=C3=B6m?="},
		"ben@example.com": {"X-Campaign": "spring,"},
	} {
		if got := h.sim.Accepted(to); len(got) != 1 || got[0].ReplyTo != "help@acme.test" || !maps.Equal(got[0].Headers, want) {
			t.Errorf("%s got %+v, want %v", to, got, want)
		}
	}
	h.sim.Reset()
	// A single that workers deliver later has them too.
	h.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle, Times: 1, RetryIn: 1})
	later := h.send(mailTo("cat@example.com", headers))
	h.waitStatus(later.body["message_id"].(string), "SENT")
	if got := h.sim.Accepted("cat@example.com"); len(got) != 1 || got[0].ReplyTo != "help@acme.test" || got[0].Headers["X-Campaign"] != "spring," {
		t.Errorf("%+v", got)
	}
	before := h.written()
	for given, want := range map[string]string{
		`"headers":{"Bcc":"x@y.test"}`:                          `["body","message_data","headers","Bcc"] value_error`,
		`"headers":{"X-A":"a\r\nBcc: x@y.test"}`:                `["body","message_data","headers","X-A"] value_error`,
		`"headers":{"X-A":null}`:                                `["body","message_data","headers","X-A"] string_too_short`,
		`"headers":{"X-A":7}`:                                   `["body","message_data","headers","X-A"] string_type`,
		`"headers":{"X-A":"` + strings.Repeat("x", 1001) + `"}`: `["body","message_data","headers","X-A"] string_too_long`,
		`"headers":{"X-A":"{{ nope"}`:                           `["body","message_data","headers","X-A"] value_error`,
		`"headers":["X-A: b"]`:                                  `["body","message_data","headers"] dict_type`,
		`"cc":["x@y.test"]`:                                     `["body","message_data","cc"] extra_forbidden`,
		`"bcc":["x@y.test"]`:                                    `["body","message_data","bcc"] extra_forbidden`,
	} {
		locs := h.must(422, "POST", "/api/messaging/send", mailTo("ann@example.com", given)).locs()
		var got []string
		for loc, slug := range locs {
			got = append(got, loc+" "+slug)
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v, want %s", given, got, want)
		}
	}
	for _, recipient := range []string{"+14155550100", "123456789012345"} {
		locs := h.must(422, "POST", "/api/messaging/send", `{"message_data":{"recipient":"`+recipient+`","content":"c",`+headers+`}}`).locs()
		want := map[string]string{`["body","message_data","reply_to"]`: "extra_forbidden", `["body","message_data","headers"]`: "extra_forbidden"}
		if d := cmp.Diff(want, locs); d != "" {
			t.Errorf("to %s: %s", recipient, d)
		}
	}
	if n := h.written(); n != before {
		t.Errorf("%d rows were written by refused requests", n-before)
	}
}
