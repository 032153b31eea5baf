package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A parameter without a value is a mistake: a program whose variable is unset must not see every message, and must not send over the
// default channel.
func TestIntegrationEmptyParameters(t *testing.T) {
	h := start(t)
	for _, c := range []struct{ method, path, name string }{
		{"GET", "/api/messaging/messages?bulk_id=", "bulk_id"}, {"GET", "/api/messaging/messages?status=", "status"}, {"GET", "/api/messaging/messages?recipient=", "recipient"},
		{"GET", "/api/messaging/messages?created_after=", "created_after"}, {"GET", "/api/messaging/messages?limit=", "limit"}, {"GET", "/api/messaging/messages?cursor=", "cursor"},
		{"GET", "/api/leads?limit=", "limit"}, {"GET", "/api/suppressions?type=", "type"}, {"GET", "/api/suppressions?address=", "address"},
		{"POST", "/api/messaging/send?send_identifier=", "send_identifier"},
	} {
		a := h.must(422, c.method, c.path, map[string]string{"POST": `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"t"}}`}[c.method])
		h.says(a, fmt.Sprintf(`["query","%s"]`, c.name), "must not be empty")
	}
	if sent := h.sim.Accepted("ann@example.com"); len(sent) != 0 {
		t.Errorf("%d messages were sent", len(sent))
	}
}

// What is sent is measured: escapes that a JSON encoder adds for HTML do not count.
func TestIntegrationMetadataIsMeasuredAsItIsSent(t *testing.T) {
	h := start(t)
	send := func(status, n int) {
		h.must(status, "POST", "/api/messaging/send", `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"t","metadata":{"m":"`+strings.Repeat("<&>", n)+`"}}}`)
	}
	send(200, (8<<10-8)/3)
	send(422, (8<<10-8)/3+1)
	h.must(201, "POST", "/api/leads", `{"email":"ann@example.com","custom_fields":{"html":"`+strings.Repeat("<", 64<<10-11)+`"}}`)
	h.must(422, "POST", "/api/leads", `{"email":"ann@example.com","custom_fields":{"html":"`+strings.Repeat("<", 64<<10-10)+`"}}`)
}

func TestIntegrationSpellingsOfNumbersAndIDs(t *testing.T) {
	h := start(t)
	for _, priority := range []string{"1.0", "3e0", "1", `"1"`, `"low"`} {
		h.must(200, "POST", "/api/messaging/send", `{"priority":`+priority+`,"message_data":{"recipient":"ann@example.com","subject":"s","content":"t"}}`)
	}
	for _, priority := range []string{"1.5", "0", "6", "-1", "1e1"} {
		h.must(422, "POST", "/api/messaging/send", `{"priority":`+priority+`,"message_data":{"recipient":"ann@example.com","subject":"s","content":"t"}}`)
	}
	const none = "00000000-0000-0000-0000-000000000000"
	h.must(200, "POST", "/api/messaging/send", `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"t","contact_id":"`+none+`"}}`)
	a := h.must(200, "POST", "/api/messaging/send", `{"dry_run":true,"sender_type":"email","message_data":{"subject":"s","content":"t"},"bulk_settings":{"lead_ids":["`+none+`"]}}`)
	if a.body["leads_not_found"] != 1.0 || a.body["total_leads"] != 0.0 {
		t.Errorf("%s", a.raw)
	}
	// In a bulk the recipient is a placeholder.
	h.must(200, "POST", "/api/messaging/send", `{"dry_run":true,"message_data":{"recipient":"`+strings.Repeat("x", 400)+`@example.com","subject":"s","content":"t"},"sender_type":"email","bulk_settings":{"all_leads":true}}`)
	h.must(422, "POST", "/api/messaging/send", `{"message_data":{"recipient":"`+strings.Repeat("x", 400)+`@example.com","subject":"s","content":"t"},"sender_type":"email"}`)
}

// says checks that an answer names a place and says something about it.
func (h *herald) says(a answer, loc, msg string) {
	h.t.Helper()
	list, _ := a.body["detail"].([]any)
	for _, item := range list {
		field, _ := item.(map[string]any)
		at, _ := json.Marshal(field["loc"])
		if string(at) == loc && strings.Contains(fmt.Sprint(field["msg"]), msg) {
			return
		}
	}
	h.t.Errorf("%s does not say %q of %s", a.raw, msg, loc)
}

func TestIntegrationAnEmptyListOfMessageTypes(t *testing.T) {
	h := start(t)
	a := h.must(422, "POST", "/api/suppressions", `{"type":"EMAIL","address":"ann@example.com","message_types":[]}`)
	h.says(a, `["body","message_types"]`, "must have at least 1 element")
	a = h.must(201, "POST", "/api/suppressions", `{"type":"EMAIL","address":"ann@example.com"}`)
	if types, _ := a.body["message_types"].([]any); len(types) != 3 {
		t.Errorf("%s", a.raw)
	}
}

func TestIntegrationChannelsAreCheckedWhenTheyAreWritten(t *testing.T) {
	h := start(t)
	path := "/api/channels/" + pairChannel + "/SMS"
	for field, body := range map[string]string{
		"price": `{"price":0.0000001}`, "price_media": `{"price_media":0.0000004}`, "region": `{"region":"XX"}`, "name": `{"name":" "}`,
	} {
		h.says(h.must(422, "PATCH", path, body), `["body","`+field+`"]`, "must")
	}
	for body, want := range map[string]any{`{"price_media":0}`: 0.0, `{"price_media":null}`: nil, `{"price_media":0.000001}`: 0.000001} {
		h.must(200, "PATCH", path, body)
		if a := h.must(200, "GET", path, ""); a.body["price_media"] != want {
			t.Errorf("%s: %v", body, a.body["price_media"])
		}
	}
	if a := h.must(200, "GET", "/api/channels/"+emailChannel+"/EMAIL", ""); a.body["price_media"] != nil {
		t.Errorf("without a price: %v", a.body["price_media"])
	}
	// A message with media over a channel on which media are free costs nothing.
	send := `{"sender_type":"sms","message_data":{"recipient":"+14155550101","content":"hi","media_urls":["https://acme.test/a.jpg"]}}`
	for body, want := range map[string]float64{`{"price":0.01,"price_media":0}`: 0, `{"price":0.01,"price_media":null}`: 0.01, `{"price":0.01,"price_media":0.05}`: 0.05} {
		h.must(200, "PATCH", path, body)
		if a := h.must(200, "POST", "/api/messaging/send", send); a.body["cost"] != want {
			t.Errorf("%s: cost %v, want %v", body, a.body["cost"], want)
		}
	}
}

// A dry run counts the messages that cannot be rendered.
func TestIntegrationADryRunWarnsOfMessagesThatFail(t *testing.T) {
	h := start(t)
	for _, name := range []string{"Ann", "", "Bob"} {
		h.must(201, "POST", "/api/leads", `{"email":"`+name+`x@example.com","first_name":"`+name+`"}`)
	}
	dry := func(content string) []any {
		a := h.must(200, "POST", "/api/messaging/send", `{"dry_run":true,"sender_type":"email","message_data":{"subject":"s","content":"`+content+`"},"bulk_settings":{"all_leads":true}}`)
		warnings, _ := a.body["warnings"].([]any)
		return warnings
	}
	warnings := dry("{{ first_name }}")
	if len(warnings) != 1 {
		t.Fatalf("%v", warnings)
	}
	if w, _ := warnings[0].(map[string]any); w["code"] != "render_failed" || !strings.HasPrefix(fmt.Sprint(w["message"]), "1 of the 3 messages that were rendered would end as FAILED: ") {
		t.Errorf("%v", w)
	}
	if warnings := dry("Hello {{ first_name }}"); len(warnings) != 0 {
		t.Errorf("%v", warnings)
	}
}

// A client that reads only after it has written its whole body reads the answer to a body that is too large.
func TestIntegrationABodyThatIsTooLargeIsAnswered(t *testing.T) {
	h := start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	const size = 33 << 20
	fmt.Fprintf(conn, "POST /api/messaging/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
	block := make([]byte, 1<<20)
	for i := range size / len(block) {
		if _, err := conn.Write(block); err != nil {
			t.Fatalf("after %d MB: %v", i, err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(res.Status)
	}
}

// One answer names every mistake: missing, wrong, unknown and contradictory fields, in body and query, and what the type of the channel
// requires.
func TestIntegrationEveryMistakeAtOnce(t *testing.T) {
	h := start(t)
	places := func(path, body string) []string {
		t.Helper()
		a := h.must(422, "POST", "/api/messaging/send"+path, body)
		list, _ := a.body["detail"].([]any)
		var out []string
		for _, item := range list {
			field, _ := item.(map[string]any)
			loc, _ := json.Marshal(field["loc"])
			out = append(out, string(loc)+" "+fmt.Sprint(field["type"]))
		}
		slices.Sort(out)
		return out
	}
	for name, c := range map[string]struct {
		path, body string
		want       []string
	}{
		"form and content": {
			"?x=1", `{"sender_type":"email","priority":"soon","colour":"red","message_data":{"recipient":"none","content":5,"media_urls":["https://acme.test/a.jpg"],"size":1}}`,
			[]string{
				`["body","colour"] extra_forbidden`, `["body","message_data","content"] string_type`, `["body","message_data","media_urls"] extra_forbidden`,
				`["body","message_data","recipient"] value_error`, `["body","message_data","size"] extra_forbidden`, `["body","message_data","subject"] missing`,
				`["body","priority"] enum`, `["query","x"] extra_forbidden`,
			},
		},
		"no type": {
			"", `{"priority":"soon","message_data":{"content":"t"}}`,
			[]string{`["body","priority"] enum`, `["body","sender_type"] missing`},
		},
		"a wrong type": {"", `{"sender_type":"fax","message_data":{"content":"t","x":1}}`, []string{`["body","message_data","x"] extra_forbidden`, `["body","sender_type"] enum`}},
		"a bulk": {
			"", `{"sender_type":"sms","message_data":{"subject":"s","content":"{{ nope","contact_id":"x"},"bulk_settings":{"all_leads":"yes"}}`,
			[]string{
				`["body","bulk_settings","all_leads"] bool_type`, `["body","message_data","contact_id"] extra_forbidden`, `["body","message_data","contact_id"] uuid_parsing`,
				`["body","message_data","content"] value_error`, `["body","message_data","subject"] extra_forbidden`,
			},
		},
		"no content":             {"", `{"sender_type":"email","dry_run":true}`, []string{`["body","dry_run"] value_error`, `["body","message_data"] missing`}},
		"empty, of another type": {"", `{"sender_type":"sms","message_data":{"recipient":"+14155550101","content":"t","subject":"","media_urls":[]}}`, []string{`["body","message_data","subject"] extra_forbidden`}},
	} {
		if got := places(c.path, c.body); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
	h.must(200, "POST", "/api/messaging/send", `{"sender_type":"sms","message_data":{"recipient":"+14155550101","content":"t","media_urls":[],"sender":""}}`)
}

// What a request created has a path, which HEAD answers too. An invalid request has a code, and the kinds of mistakes that a program must
// tell apart have their own types.
func TestIntegrationLocationsHeadsAndKinds(t *testing.T) {
	h := start(t)
	lead := h.must(201, "POST", "/api/leads", `{"email":"ann@example.com"}`)
	ch := h.must(201, "POST", "/api/channels", `{"type":"sms","name":"x","sender":"+15005550007","credentials":{"account_sid":"AC00000000000000000000000000000000","auth_token":"secret-of-the-test"}}`)
	bulk := h.must(200, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t"},"bulk_settings":{"all_leads":true}}`, "Prefer", "respond-async")
	if bulk.header.Get("Preference-Applied") != "respond-async" {
		t.Error(bulk.header)
	}
	for _, a := range []answer{lead, ch, bulk} {
		at := a.header.Get("Location")
		id := fmt.Sprint(a.body["id"])
		if a.body["bulk_id"] != nil {
			id = fmt.Sprint(a.body["bulk_id"])
		}
		if at == "" || !strings.Contains(at, id) {
			t.Fatalf("%q is the path of %s", at, a.raw)
		}
		h.must(200, "GET", at, "")
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, h.base+at, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
			t.Errorf("HEAD %s: %s", at, res.Status)
		}
	}
	single := `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"t"}}`
	h.must(200, "POST", "/api/messaging/send", single, "Idempotency-Key", "k1")
	const none = "0190a000-0000-7000-8000-00000000ffff"
	h.must(200, "PATCH", "/api/channels/"+emailChannel+"/EMAIL", `{"default":false}`)
	for name, c := range map[string]struct {
		a         answer
		loc, kind string
	}{
		"a key used again":    {h.must(422, "POST", "/api/messaging/send", strings.Replace(single, `"t"`, `"u"`, 1), "Idempotency-Key", "k1"), `["header","Idempotency-Key"]`, "idempotency_key_reused"},
		"no default":          {h.must(422, "POST", "/api/messaging/send", single), `["body","sender_identifier"]`, "no_default_channel"},
		"an unknown channel":  {h.must(422, "POST", "/api/messaging/send?send_identifier="+none, single), `["query","send_identifier"]`, "channel_not_found"},
		"the same, in a body": {h.must(422, "POST", "/api/messaging/send", `{"sender_identifier":"`+none+`",`+single[1:]), `["body","sender_identifier"]`, "channel_not_found"},
	} {
		list, _ := c.a.body["detail"].([]any)
		field, _ := list[0].(map[string]any)
		if loc, _ := json.Marshal(field["loc"]); c.a.body["code"] != "invalid" || string(loc) != c.loc || field["type"] != c.kind {
			t.Errorf("%s: %s", name, c.a.raw)
		}
	}
}
