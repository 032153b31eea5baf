package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/contract"
	"herald/pkg/provider/simulator"
)

// The examples of the API's documentation, word for word.
var (
	emailExample     = contract.Example("email")
	smsExample       = contract.Example("sms")
	instagramExample = contract.Example("instagram_dm")
	bulkExample      = contract.Example("bulk_lead_ids")
)

func TestSingleExamples(t *testing.T) {
	h := start(t)
	for name, c := range map[string]struct {
		body, channel, provider string
		cost                    float64
	}{
		"email":     {emailExample, "EMAIL", "sendgrid", 0.001},
		"sms":       {smsExample, "SMS", "twilio", 0.0079},
		"instagram": {instagramExample, "INSTAGRAM_DM", "instagram", 0},
	} {
		a := h.send(c.body)
		want := []string{"channel_used", "cost", "kind", "message_id", "provider_message_id", "provider_used", "sent_at", "status", "success"}
		if got := slices.Sorted(maps.Keys(a.body)); !slices.Equal(got, want) {
			t.Errorf("%s: keys %v", name, got)
		}
		if a.body["success"] != true || a.body["status"] != "SENT" || a.body["kind"] != "single" || a.body["channel_used"] != c.channel || a.body["provider_used"] != c.provider ||
			a.body["cost"] != c.cost || a.body["provider_message_id"] == nil || a.body["sent_at"] == nil {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	if got := h.sim.Accepted("1234567890123456"); len(got) != 2 || got[0].Part != "image" || got[1].Part != "text" {
		t.Errorf("Instagram got %+v: the image, then the text", got)
	}
	if got := h.sim.Accepted("customer@example.com"); len(got) != 1 || got[0].From != "news@acme.test" || got[0].Text != "Thank you for signing up." {
		t.Errorf("SendGrid got %+v", got)
	}
}

func TestASingleIsOnRecord(t *testing.T) {
	h := start(t)
	sent := h.send(smsExample)
	got := h.message(sent.body["message_id"].(string)).body
	for k, want := range map[string]any{
		"channel_type": "SMS", "status": "SENT", "recipient": "+1234567890", "lead_id": "11111111-0001-0001-0001-000000000001", "bulk_id": nil,
		"message_type": "TRANSACTIONAL", "priority": "NORMAL", "reason": nil, "error": nil, "provider_message_id": sent.body["provider_message_id"],
		"metadata": map[string]any{"campaign_id": "spring_promo", "sent_by": "SMS Test"}, "sent_at": sent.body["sent_at"], "cost": 0.0079,
	} {
		if d := cmp.Diff(want, got[k]); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
	attempts := got["attempts"].([]any)
	if len(attempts) != 1 || attempts[0].(map[string]any)["outcome"] != "sent" || attempts[0].(map[string]any)["http_status"] != 201.0 {
		t.Errorf("attempts %v", attempts)
	}
}

func TestSingleOutcomes(t *testing.T) {
	email := func(to string) string {
		return `{"message_data":{"recipient":"` + to + `","subject":"s","content":"c"}}`
	}
	h := start(t)
	for name, c := range map[string]struct{ body, status, code string }{
		"refused recipient": {email("refused@simulator.test"), "FAILED", "recipient_refused"},
		"not known":         {email("500@simulator.test"), "UNKNOWN", "outcome_unknown"},
		"reset":             {email("reset@simulator.test"), "UNKNOWN", "outcome_unknown"},
		"opted out":         {`{"message_data":{"recipient":"+15005550004","content":"c"}}`, "FAILED", "consent_refused"},
		"outside window":    {`{"message_data":{"recipient":"999000000000010","content":"c"}}`, "FAILED", "outside_window"},
		"renders empty":     {`{"message_data":{"recipient":"+14155550100","content":"{{ company }}"}}`, "FAILED", "render_invalid"},
	} {
		a := h.send(c.body)
		e, _ := a.body["error"].(map[string]any)
		if a.body["success"] != false || a.body["status"] != c.status || e["code"] != c.code || e["message"] == "" || a.body["sent_at"] != nil {
			t.Errorf("%s: %s", name, a.raw)
		}
		m := h.message(a.body["message_id"].(string)).body
		if m["status"] != c.status || m["reason"] != c.code {
			t.Errorf("%s is on record as %v, %v", name, m["status"], m["reason"])
		}
	}
}

// A provider that is busy turns a single into a queued one, which a worker delivers, once and without using attempts.
func TestThrottledSingleIsQueuedAndDelivered(t *testing.T) {
	h := start(t)
	h.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle, Times: 2, RetryIn: 1})
	a := h.send(emailExample)
	if a.body["success"] != true || a.body["status"] != "QUEUED" || a.body["sent_at"] != nil {
		t.Fatal(a.raw)
	}
	m := h.waitStatus(a.body["message_id"].(string), "SENT")
	if got := h.sim.Accepted("customer@example.com"); len(got) != 1 {
		t.Errorf("accepted %d times", len(got))
	}
	if n := len(m.body["attempts"].([]any)); n != 3 {
		t.Errorf("%d attempts on record, want the two that were throttled and the one that sent", n)
	}
}

func TestDeadCredentialsPauseTheChannel(t *testing.T) {
	h := start(t)
	h.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Unauthorize})
	a := h.send(emailExample)
	if e, _ := a.body["error"].(map[string]any); a.body["status"] != "FAILED" || e["code"] != "channel_credentials" {
		t.Fatal(a.raw)
	}
	before := h.written()
	if a := h.must(409, "POST", "/api/messaging/send", emailExample); a.body["code"] != "channel_paused" {
		t.Error(a.raw)
	}
	if h.written() != before {
		t.Error("a refused send left something behind")
	}
	ch := h.must(200, "GET", "/api/channels/"+emailChannel+"/EMAIL", "").body
	if ch["state"] != "PAUSED" || ch["state_reason"] == nil {
		t.Errorf("channel %v %v", ch["state"], ch["state_reason"])
	}
	if a := h.send(smsExample); a.body["status"] != "SENT" {
		t.Errorf("another channel is paused too: %s", a.raw)
	}
}

// An Instagram message whose image went and whose text was throttled goes on with the text.
func TestInstagramResumesAtThePart(t *testing.T) {
	h := start(t)
	h.sim.Script(simulator.Rule{Provider: simulator.Instagram, Fault: simulator.None, Times: 1},
		simulator.Rule{Provider: simulator.Instagram, Fault: simulator.Unavailable, Times: 1, RetryIn: 1})
	a := h.send(instagramExample)
	if a.body["status"] != "QUEUED" {
		t.Fatal(a.raw)
	}
	h.waitStatus(a.body["message_id"].(string), "SENT")
	var parts []string
	for _, got := range h.sim.Accepted("1234567890123456") {
		parts = append(parts, got.Part)
	}
	if !slices.Equal(parts, []string{"image", "text"}) {
		t.Errorf("Meta accepted %v", parts)
	}
}

func TestContactFillsRecipientAndTemplate(t *testing.T) {
	h := start(t)
	id := h.lead(`"first_name":"Ann","email":"ann@example.com","custom_fields":{"plan":"gold"}`)
	a := h.send(`{"message_data":{"contact_id":"` + id + `","subject":"Hi {{ first_name }}","content":"Plan {{ custom_fields.plan }}"}}`)
	if a.body["status"] != "SENT" {
		t.Fatal(a.raw)
	}
	if got := h.sim.Accepted("ann@example.com"); len(got) != 1 || got[0].Subject != "Hi Ann" || got[0].Text != "Plan gold" {
		t.Errorf("%+v", got)
	}
}

func TestWhichChannel(t *testing.T) {
	h := start(t)
	for name, c := range map[string]struct{ query, body, want string }{
		"by the recipient, email":      {"", `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, "EMAIL"},
		"by the recipient, sms":        {"", `{"message_data":{"recipient":"+14155550100","content":"c"}}`, "SMS"},
		"by the recipient, instagram":  {"", `{"message_data":{"recipient":"123456789012345","content":"c"}}`, "INSTAGRAM_DM"},
		"by sender_type in any case":   {"", `{"sender_type":"Instagram_DM","message_data":{"recipient":"12345","content":"c"}}`, "INSTAGRAM_DM"},
		"by the query":                 {"?send_identifier=" + emailChannel, `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, "EMAIL"},
		"one id of two types, by form": {"?send_identifier=" + pairChannel, `{"message_data":{"recipient":"+14155550100","content":"c"}}`, "SMS"},
		"same id in both places":       {"?send_identifier=" + strings.ToUpper(emailChannel), `{"sender_identifier":"` + emailChannel + `","message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, "EMAIL"},
		"priority as a number":         {"", `{"priority":3,"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, "EMAIL"},
		"priority as digits":           {"", `{"priority":"5","message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, "EMAIL"},
		"null is the same as absent":   {"", `{"priority":null,"bulk_settings":null,"sender_type":null,"message_data":{"recipient":"a@example.com","subject":"s","content":"c","sender":null}}`, "EMAIL"},
		"a sender that is allowed":     {"", `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c","sender":"CEO@acme.test"}}`, "EMAIL"},
	} {
		a := h.must(200, "POST", "/api/messaging/send"+c.query, c.body)
		if a.body["channel_used"] != c.want || a.body["status"] != "SENT" {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

// Every mistake of a request comes back at once, with its path, and nothing is written.
func TestValidation(t *testing.T) {
	h := start(t)
	before := h.written()
	long := strings.Repeat("x", 999)
	for name, c := range map[string]struct {
		path, body string
		want       map[string]string
	}{
		"everything at once": {"", `{"sender_type":"fax","message_type":"SPAM","priority":"URGENT","sender_identifier":"x","nonsense":1,"message_data":{"contact_id":"y","metadata":[]}}`, map[string]string{
			`["body","sender_type"]`: "enum", `["body","message_type"]`: "enum", `["body","priority"]`: "enum", `["body","sender_identifier"]`: "uuid_parsing",
			`["body","nonsense"]`: "extra_forbidden", `["body","message_data","contact_id"]`: "uuid_parsing", `["body","message_data","metadata"]`: "dict_type",
		}},
		"no message_data":          {"", `{}`, map[string]string{`["body","message_data"]`: "missing"}},
		"message_data null":        {"", `{"message_data":null}`, map[string]string{`["body","message_data"]`: "missing"}},
		"message_data a list":      {"", `{"message_data":[]}`, map[string]string{`["body","message_data"]`: "dict_type"}},
		"body a list":              {"", `[]`, map[string]string{`["body"]`: "dict_type"}},
		"misspelt bulk_settings":   {"", `{"bulk_setings":{},"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["body","bulk_setings"]`: "extra_forbidden"}},
		"wrong types":              {"", `{"sender_type":1,"priority":true,"message_data":{"recipient":1,"subject":[],"content":{},"media_urls":"x"}}`, map[string]string{`["body","sender_type"]`: "enum", `["body","priority"]`: "enum", `["body","message_data","recipient"]`: "string_type", `["body","message_data","subject"]`: "string_type", `["body","message_data","content"]`: "string_type", `["body","message_data","media_urls"]`: "list_type"}},
		"null in a list":           {"", `{"message_data":{"recipient":"+14155550100","content":"c","media_urls":[null]}}`, map[string]string{`["body","message_data","media_urls",0]`: "string_type"}},
		"no type to be seen":       {"", `{"message_data":{"recipient":"hello","content":"c"}}`, map[string]string{`["body","sender_type"]`: "missing"}},
		"no recipient":             {"", `{"sender_type":"email","message_data":{"subject":"s","content":"c"}}`, map[string]string{`["body","message_data","recipient"]`: "missing"}},
		"email without all":        {"", `{"sender_type":"email","message_data":{"recipient":"x"}}`, map[string]string{`["body","message_data","subject"]`: "missing", `["body","message_data","content"]`: "missing", `["body","message_data","recipient"]`: "value_error"}},
		"long subject":             {"", `{"message_data":{"recipient":"a@example.com","subject":"` + long + `","content":"c"}}`, map[string]string{`["body","message_data","subject"]`: "string_too_long"}},
		"header injection":         {"", `{"message_data":{"recipient":"a@example.com","subject":"s\r\nBcc: x","content":"c","sender_name":"a\nb"}}`, map[string]string{`["body","message_data","subject"]`: "value_error", `["body","message_data","sender_name"]`: "value_error"}},
		"recipient with a newline": {"", `{"message_data":{"recipient":"a@example.com\nb@example.com","subject":"s","content":"c"}}`, map[string]string{`["body","message_data","recipient"]`: "value_error"}},
		"fields of other types":    {"", `{"sender_type":"sms","message_data":{"recipient":"+14155550100","content":"c","subject":"s","html_content":"h","image_url":"https://x.test/a"}}`, map[string]string{`["body","message_data","subject"]`: "extra_forbidden", `["body","message_data","html_content"]`: "extra_forbidden", `["body","message_data","image_url"]`: "extra_forbidden"}},
		"sms too long":             {"", `{"message_data":{"recipient":"+14155550100","content":"` + strings.Repeat("x", 1601) + `"}}`, map[string]string{`["body","message_data","content"]`: "string_too_long"}},
		"sms to no number":         {"", `{"sender_type":"sms","message_data":{"recipient":"555","content":"c"}}`, map[string]string{`["body","message_data","recipient"]`: "value_error"}},
		"eleven media":             {"", `{"message_data":{"recipient":"+14155550100","content":"c","media_urls":["` + strings.Repeat(`https://x.test/a","`, 10) + `https://x.test/a"]}}`, map[string]string{`["body","message_data","media_urls"]`: "too_long"}},
		"media of no kind":         {"", `{"message_data":{"recipient":"+14155550100","content":"c","media_urls":["https://x.test/a","ftp://x.test/a"]}}`, map[string]string{`["body","message_data","media_urls",1]`: "value_error"}},
		"instagram over bytes":     {"", `{"sender_type":"instagram_dm","message_data":{"recipient":"12345","content":"` + strings.Repeat("é", 501) + `"}}`, map[string]string{`["body","message_data","content"]`: "string_too_long"}},
		"image over http":          {"", `{"sender_type":"instagram_dm","message_data":{"recipient":"12345","image_url":"http://x.test/a"}}`, map[string]string{`["body","message_data","image_url"]`: "value_error"}},
		"a sender that is not":     {"", `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c","sender":"x@evil.test"}}`, map[string]string{`["body","message_data","sender"]`: "value_error"}},
		"template does not parse":  {"", `{"message_data":{"recipient":"a@example.com","subject":"{{ x","content":"{% for i in (1..9) %}{% endfor %}","html_content":"{% nonsense %}"}}`, map[string]string{`["body","message_data","subject"]`: "value_error", `["body","message_data","content"]`: "value_error", `["body","message_data","html_content"]`: "value_error"}},
		"template explodes":        {"", `{"message_data":{"recipient":"a@example.com","subject":"s","content":"{% assign x = \"0123456789\" %}` + strings.Repeat(`{% assign x = x | append: x %}`, 30) + `"}}`, map[string]string{`["body","message_data","content"]`: "value_error"}},
		"unknown channel":          {"", `{"sender_identifier":"0190a000-0000-7000-8000-00000000dead","message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["body","sender_identifier"]`: "channel_not_found"}},
		"channel of another type":  {"", `{"sender_type":"sms","sender_identifier":"` + emailChannel + `","message_data":{"recipient":"+14155550100","content":"c"}}`, map[string]string{`["body","sender_identifier"]`: "value_error"}},
		"two different channels":   {"?send_identifier=" + pairChannel, `{"sender_identifier":"` + emailChannel + `","message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["query","send_identifier"]`: "value_error"}},
		"unknown parameter":        {"?sender=" + pairChannel, `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["query","sender"]`: "extra_forbidden"}},
		"not built yet":            {"", `{"scheduled_at":"2030-01-01T00:00:00Z","message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["body","scheduled_at"]`: "not_supported_yet"}},
		"metadata too large":       {"", `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c","metadata":{"a":"` + strings.Repeat("x", 9000) + `"}}}`, map[string]string{`["body","message_data","metadata"]`: "string_too_long"}},
		"bulk without criteria":    {"", `{"bulk_settings":{},"message_data":{"subject":"s","content":"c"}}`, map[string]string{`["body","bulk_settings"]`: "missing"}},
		"bulk without ids":         {"", `{"bulk_settings":{"lead_ids":[]},"message_data":{"subject":"s","content":"c"}}`, map[string]string{`["body","bulk_settings","lead_ids"]`: "too_short"}},
		"bulk of things":           {"", `{"bulk_settings":{"lead_ids":["x",null,1,"550e8400-e29b-41d4-a716-446655440001"]},"message_data":{"subject":"s","content":"c"}}`, map[string]string{`["body","bulk_settings","lead_ids",0]`: "uuid_parsing", `["body","bulk_settings","lead_ids",1]`: "uuid_parsing", `["body","bulk_settings","lead_ids",2]`: "uuid_parsing"}},
		"dry run of a single":      {"", `{"dry_run":true,"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`, map[string]string{`["body","dry_run"]`: "value_error"}},
		"bulk with a contact":      {"", `{"bulk_settings":{"lead_ids":["550e8400-e29b-41d4-a716-446655440001"]},"message_data":{"subject":"s","content":"c","contact_id":"550e8400-e29b-41d4-a716-446655440001"}}`, map[string]string{`["body","message_data","contact_id"]`: "extra_forbidden"}},
		"bulk without text":        {"", `{"sender_type":"sms","bulk_settings":{"lead_ids":["550e8400-e29b-41d4-a716-446655440001"]},"message_data":{}}`, map[string]string{`["body","message_data","content"]`: "missing"}},
		"bulk with a wrong sender": {"", `{"bulk_settings":{"lead_ids":["550e8400-e29b-41d4-a716-446655440001"]},"message_data":{"subject":"s","content":"c","sender":"x@evil.test"}}`, map[string]string{`["body","message_data","sender"]`: "value_error"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.call("POST", "/api/messaging/send"+c.path, c.body)
			if a.status != 422 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			if d := cmp.Diff(c.want, a.locs()); d != "" {
				t.Error(d)
			}
		})
	}
	for key, slug := range map[string]string{`"`: "value_error", " ": "value_error", strings.Repeat("x", 256): "string_too_long"} {
		if a := h.must(422, "POST", "/api/messaging/send", emailExample, "Idempotency-Key", key); a.locs()[`["header","Idempotency-Key"]`] != slug {
			t.Errorf("key %q: %s", key, a.raw)
		}
	}
	if after := h.written(); after != before {
		t.Errorf("%d rows were written by refused requests", after-before)
	}
	if rep := h.sim.Report(); rep.Accepted != 0 {
		t.Errorf("%d messages were sent by refused requests", rep.Accepted)
	}
}

// What a lenient decoder would take is refused, and nothing is written.
func TestMalformedBodies(t *testing.T) {
	h := start(t)
	valid := `{"message_data":{"recipient":"a@example.com","subject":"s","content":"c"}}`
	ids := make([]string, 100_001)
	for i := range ids {
		ids[i] = `"` + uuid.Must(uuid.NewV7()).String() + `"`
	}
	for name, c := range map[string]struct {
		body, contentType string
		status            int
	}{
		"empty":              {"", "application/json", 422},
		"spaces":             {"  \n", "application/json", 422},
		"null":               {"null", "application/json", 422},
		"cut short":          {valid[:40], "application/json", 422},
		"trailing garbage":   {valid + "x", "application/json", 422},
		"two documents":      {valid + valid, "application/json", 422},
		"NUL raw":            {strings.Replace(valid, `"s"`, "\"s\x00\"", 1), "application/json", 422},
		"NUL escaped":        {strings.Replace(valid, `"s"`, `"s\u0000"`, 1), "application/json", 422},
		"bad UTF-8":          {strings.Replace(valid, `"s"`, "\"s\xff\"", 1), "application/json", 422},
		"a key twice":        {`{"priority":"LOW","priority":"HIGH",` + valid[1:], "application/json", 422},
		"too deep":           {`{"message_data":{"metadata":` + strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40) + `}}`, "application/json", 422},
		"XML":                {"<a/>", "application/xml", 415},
		"a form":             {"a=b", "application/x-www-form-urlencoded", 415},
		"too large":          {`{"message_data":{"content":"` + strings.Repeat("x", 9<<20) + `"}}`, "application/json", 413},
		"over 100,000 leads": {`{"bulk_settings":{"lead_ids":[` + strings.Join(ids, ",") + `]},"message_data":{"subject":"s","content":"c"}}`, "application/json", 422},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.call("POST", "/api/messaging/send", c.body, "Content-Type", c.contentType)
			if a.status != c.status || a.body["detail"] == nil {
				t.Errorf("%d %.300s, want %d", a.status, a.raw, c.status)
			}
		})
	}
	if n := h.written(); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestBulkExample(t *testing.T) {
	h := start(t)
	for i := 1; i <= 3; i++ {
		h.must(201, "POST", "/api/leads", fmt.Sprintf(`{"id":"550e8400-e29b-41d4-a716-44665544000%d","email":"lead%d@example.com"}`, i, i))
	}
	a := h.send(bulkExample)
	for k, want := range map[string]any{
		"total_leads": 3.0, "messages_sent": 3.0, "messages_failed": 0.0, "success_rate": 100.0, "status": "COMPLETED", "messages_pending": 0.0,
		"leads_not_found": 0.0, "cost": 0.003, "failure_reasons": map[string]any{}, "kind": "bulk",
	} {
		if d := cmp.Diff(want, a.body[k]); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
	if rep := h.sim.Report(); rep.Accepted != 3 || rep.Recipients != 3 {
		t.Errorf("simulator %+v", rep)
	}
	got := h.must(200, "GET", "/api/messaging/bulk/"+a.body["bulk_id"].(string), "").body
	if d := cmp.Diff(3.0, got["request"].(map[string]any)["bulk_settings"].(map[string]any)["lead_ids"]); d != "" {
		t.Errorf("the request is shown with the number of its ids: %s", d)
	}
}

// One message per lead and address. Unreachable leads are counted by reason, and one invalid lead does not stop the bulk.
func TestBulkCountsEveryLead(t *testing.T) {
	h := start(t)
	ids := []string{
		h.lead(`"first_name":"A","email":"same@example.com"`), h.lead(`"first_name":"B","email":"same@EXAMPLE.com "`), h.lead(`"first_name":"C"`),
		h.lead(`"first_name":"D","email":"not an address"`), h.lead(`"first_name":"E","email":"refused@simulator.test"`),
		h.lead(`"first_name":"F","email":"f@example.com"`), uuid.NewString(),
	}
	ids = append(ids, ids[0]) // twice in the request counts once
	body := `{"bulk_settings":{"lead_ids":["` + strings.Join(ids, `","`) + `"]%s},"message_data":{"subject":"Hi {{ first_name }}","content":"c","metadata":{"wave":2}}}`
	a := h.send(fmt.Sprintf(body, ""))
	want := map[string]any{"duplicate_recipient": 1.0, "no_recipient": 1.0, "invalid_recipient": 1.0, "recipient_refused": 1.0}
	if d := cmp.Diff(want, a.body["failure_reasons"]); d != "" || a.body["total_leads"] != 6.0 || a.body["messages_sent"] != 2.0 ||
		a.body["messages_failed"] != 4.0 || a.body["leads_not_found"] != 1.0 || a.body["success_rate"] != 33.33 {
		t.Errorf("%s\n%s", a.raw, d)
	}
	if got := h.sim.Accepted("same@example.com"); len(got) != 1 || got[0].Subject != "Hi A" {
		t.Errorf("the lead with the lowest id keeps the address: %+v", got)
	}
	items := h.must(200, "GET", "/api/messaging/messages?bulk_id="+a.body["bulk_id"].(string), "").body["items"].([]any)
	if len(items) != 6 {
		t.Fatalf("%d rows", len(items))
	}
	if m := items[0].(map[string]any); m["metadata"].(map[string]any)["wave"] != 2.0 || m["bulk_id"] != a.body["bulk_id"] {
		t.Errorf("%v", m)
	}
	again := h.send(fmt.Sprintf(body, `,"allow_duplicate_recipients":true`))
	if again.body["messages_sent"] != 3.0 || len(h.sim.Accepted("same@example.com")) != 3 {
		t.Errorf("with duplicates allowed: %s", again.raw)
	}
}

func TestBulkToPhonesAndInstagram(t *testing.T) {
	h := start(t)
	ids := []string{
		h.lead(`"phone":"(415) 555-0101","instagram_id":"178414000000001"`), h.lead(`"phone":"+1 415 555 0101"`), h.lead(`"phone":"+44 20 7946 0958"`),
		h.lead(`"phone":"letters"`),
	}
	a := h.send(`{"bulk_settings":{"lead_ids":["` + strings.Join(ids, `","`) + `"]},"message_data":{"recipient":"+1234567890","content":"c"}}`)
	if a.body["messages_sent"] != 2.0 || a.body["cost"] != 0.0158 {
		t.Error(a.raw)
	}
	for _, to := range []string{"+14155550101", "+442079460958"} {
		if len(h.sim.Accepted(to)) != 1 {
			t.Errorf("%s got %d", to, len(h.sim.Accepted(to)))
		}
	}
	a = h.send(`{"bulk_settings":{"lead_ids":["` + strings.Join(ids, `","`) + `"]},"message_data":{"image_url":"https://x.test/a.png"}}`)
	if a.body["messages_sent"] != 1.0 || a.body["failure_reasons"].(map[string]any)["no_recipient"] != 3.0 {
		t.Error(a.raw)
	}
}

func TestPrefer(t *testing.T) {
	h := start(t)
	id := h.lead(`"email":"a@example.com"`)
	body := `{"bulk_settings":{"lead_ids":["` + id + `"]},"message_data":{"subject":"s","content":"c"}}`
	a := h.send(body, "Prefer", "respond-async")
	if a.header.Get("Preference-Applied") != "respond-async" || a.body["total_leads"] == nil || a.body["bulk_id"] == nil {
		t.Errorf("%v %s", a.header, a.raw)
	}
	a = h.send(body, "Prefer", "respond-async, wait=90")
	if a.header.Get("Preference-Applied") != "wait=60" || a.body["status"] != "COMPLETED" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	h.sim.Script(simulator.Rule{Fault: simulator.Throttle, RetryIn: 1, Times: 2})
	a = h.send(body, "Prefer", "wait=0")
	if a.body["status"] != "PROCESSING" || a.body["messages_sent"] != 0.0 || a.body["completed_at"] != nil {
		t.Error(a.raw)
	}
}
