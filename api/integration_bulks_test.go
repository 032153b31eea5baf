package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"herald/pkg/access"
)

// ids returns the values of a field of the items of a list.
func (h *herald) ids(path, field string) string {
	h.t.Helper()
	var out []string
	items, _ := h.must(200, "GET", path, "").body["items"].([]any)
	for _, item := range items {
		fields, _ := item.(map[string]any)
		out = append(out, fmt.Sprint(fields[field]))
	}
	return strings.Join(out, " ")
}

// A finished bulk shows what it was sent with, in the view and in the list, also when its channel was deleted.
func TestIntegrationAFinishedBulkKeepsItsSettings(t *testing.T) {
	h := start(t)
	lead := h.lead(`"email":"ann@example.com"`)
	k, token := h.key(access.Key{Name: "nightly", Scopes: access.Scopes})
	h = h.as(token)
	a := h.must(200, "POST", "/api/messaging/send?send_identifier="+emailChannel, `{"priority":"low","message_data":{"subject":"s","content":"t","metadata":{"campaign":"spring"}},
		"bulk_settings":{"name":"  Wave 1  ","lead_ids":["`+lead+`"]}}`, "Prefer", "wait=30")
	if a.body["status"] != "COMPLETED" || a.body["planned_at"] == nil {
		t.Fatal(a.raw)
	}
	h.must(204, "DELETE", "/api/channels/"+emailChannel+"/EMAIL", "")
	view := h.must(200, "GET", "/api/messaging/bulk/"+a.body["bulk_id"].(string), "").body
	list, _ := h.must(200, "GET", "/api/messaging/bulk", "").body["items"].([]any)
	item, _ := list[0].(map[string]any)
	for where, body := range map[string]map[string]any{"answer": a.body, "view": view, "list": item} {
		for field, want := range map[string]any{
			"channel_id": emailChannel, "channel_type": "EMAIL", "currency": "USD", "message_type": "MARKETING", "priority": "LOW", "name": "Wave 1",
			"metadata": `{"campaign":"spring"}`, "created_by": `{"key_id":"` + k.ID + `","name":"nightly"}`,
		} {
			got := body[field]
			if object, ok := got.(map[string]any); ok {
				b, _ := json.Marshal(object)
				got = string(b)
			}
			if got != want {
				t.Errorf("%s: %s is %v, want %v", where, field, got, want)
			}
		}
	}
	if view["planned_at"] == nil || view["channel"] != nil {
		t.Errorf("%v", view)
	}
}

// A key without the scope read gets no text of other keys from a write.
func TestIntegrationABulkIsNotReadByWriting(t *testing.T) {
	h := start(t)
	h.must(200, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t","metadata":{"a":1}},"bulk_settings":{"name":"secret","all_leads":true}}`)
	_, token := h.key(access.Key{Scopes: []access.Scope{access.Send}})
	a := h.as(token).must(200, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t","metadata":{"a":1}},"bulk_settings":{"name":"secret","all_leads":true}}`)
	if a.body["name"] != nil || a.body["metadata"] != nil || a.body["created_by"] != nil || a.body["channel_id"] != emailChannel {
		t.Error(a.raw)
	}
}

func TestIntegrationBulksAreFoundByName(t *testing.T) {
	h := start(t)
	bulkNamed := func(typ, name string) string {
		a := h.must(200, "POST", "/api/messaging/send", `{"sender_type":"`+typ+`","message_data":{`+map[string]string{"email": `"subject":"s",`}[typ]+`"content":"t"},
			"bulk_settings":{"name":`+name+`,"all_leads":true}}`, "Prefer", "wait=30")
		return a.body["bulk_id"].(string)
	}
	one, two, none := bulkNamed("email", `"Größe & Co."`), bulkNamed("sms", `"Größe & Co."`), bulkNamed("email", "null")
	name := url.QueryEscape("Größe & Co.")
	for query, want := range map[string]string{
		"":                                     none + " " + two + " " + one,
		"?name=" + name:                        two + " " + one,
		"?name=" + name + "&channel_type=sms":  two,
		"?status=completed&channel_type=EMAIL": none + " " + one,
		"?status=paused":                       "",
		"?created_after=2100-01-01T00:00:00Z":  "",
		"?created_before=2100-01-01T00:00:00Z&limit=1": none,
		"?created_by=unknown":                          "",
	} {
		if got := h.ids("/api/messaging/bulk"+query, "bulk_id"); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, at := range map[string]string{
		"?status=SENT": "status", "?name=": "name", "?name=" + strings.Repeat("x", 201): "name", "?created_after=today": "created_after", "?channel_type=fax": "channel_type", "?name=%FF": "name",
	} {
		h.says(h.must(422, "GET", "/api/messaging/bulk"+query, ""), `["query","`+at+`"]`, "")
	}
	for _, wrong := range []string{`"` + strings.Repeat("x", 201) + `"`, `7`, `"a\nb"`} {
		a := h.must(422, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t"},"bulk_settings":{"name":`+wrong+`,"all_leads":true}}`)
		h.says(a, `["body","bulk_settings","name"]`, "must")
	}
	h.must(200, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t"},"bulk_settings":{"name":"`+strings.Repeat("ü", 200)+`","all_leads":true}}`)
}

// One request tells what failed and why. A message without a recipient has null.
func TestIntegrationMessagesThatFailed(t *testing.T) {
	h := start(t)
	leads := h.lead(`"email":"ann@example.com"`) + `","` + h.lead(`"phone":"+14155550101"`) + `","` + h.lead(`"email":"out@example.com"`)
	h.must(201, "POST", "/api/suppressions", `{"type":"email","address":"out@example.com","reason":"unsubscribed"}`)
	a := h.must(200, "POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"subject":"s","content":"t"},"bulk_settings":{"lead_ids":["`+leads+`"]}}`, "Prefer", "wait=30")
	if a.body["messages_failed"] != 2.0 {
		t.Fatal(a.raw)
	}
	const all = "/api/messaging/messages"
	for query, want := range map[string]string{
		"?failed=true":                                            "unsubscribed no_recipient",
		"?failed=false":                                           "unsubscribed no_recipient <nil>",
		"?status=FAILED,skipped":                                  "unsubscribed no_recipient",
		"?status=sent":                                            "<nil>",
		"?status=sent&failed=true":                                "",
		"?reason=No_recipient":                                    "no_recipient",
		"?reason=no_recipient,unsubscribed":                       "unsubscribed no_recipient",
		"?reason=unsubscribed&status=FAILED":                      "",
		"?updated_after=2100-01-01T00:00:00Z":                     "",
		"?updated_after=2000-01-01T00:00:00Z&reason=no_recipient": "no_recipient",
	} {
		if got := h.ids(all+query, "reason"); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if got := h.ids(all+"?reason=no_recipient", "recipient"); got != "<nil>" {
		t.Errorf("recipient %q", got)
	}
	for query, name := range map[string]string{
		"?status=SENT,": "status", "?status=SENT,x": "status", "?reason=x": "reason", "?reason=": "reason", "?failed=1": "failed", "?updated_after=x": "updated_after",
	} {
		h.says(h.must(422, "GET", all+query, ""), `["query","`+name+`"]`, "")
	}
}

// The default channel of a type is exchanged by one request, without a moment in which there is none or two.
func TestIntegrationTheDefaultChannelIsExchanged(t *testing.T) {
	h := start(t)
	defaults := func() string {
		t.Helper()
		var out []string
		items, _ := h.must(200, "GET", "/api/channels", "").body["items"].([]any)
		for _, item := range items {
			c, _ := item.(map[string]any)
			if c["default"] == true && c["type"] == "EMAIL" {
				out = append(out, fmt.Sprint(c["id"]))
			}
		}
		return strings.Join(out, " ")
	}
	const first = "/api/channels/" + emailChannel + "/EMAIL"
	h.must(200, "GET", first, "") // cached
	other, _ := h.must(201, "POST", "/api/channels", `{"type":"EMAIL","name":"x","sender":"b@acme.test","credentials":{"api_key":"k"},"default":true}`).body["id"].(string)
	if got := defaults(); got != other {
		t.Errorf("created: %s, want %s", got, other)
	}
	if a := h.must(200, "GET", first, ""); a.body["default"] != false {
		t.Error(a.raw)
	}
	h.must(200, "PATCH", first, `{"default":true}`)
	if got := defaults(); got != emailChannel {
		t.Errorf("changed: %s, want %s", got, emailChannel)
	}
	if a := h.must(200, "GET", "/api/channels/"+pairChannel+"/SMS", ""); a.body["default"] != true {
		t.Errorf("another type: %s", a.raw)
	}
	// A request that fails changes no default.
	h.must(409, "POST", "/api/channels", `{"id":"`+other+`","type":"EMAIL","name":"x","sender":"b@acme.test","credentials":{"api_key":"k"},"default":true}`)
	h.must(422, "PATCH", "/api/channels/"+other+"/EMAIL", `{"default":true,"sender":"x"}`)
	if got := defaults(); got != emailChannel {
		t.Errorf("after failures: %s", got)
	}
}

func TestIntegrationSuppressionsAreFiltered(t *testing.T) {
	h := start(t)
	for address, reason := range map[string]string{"ann@example.com": "bounced", "bob@example.com": "unsubscribed"} {
		h.must(201, "POST", "/api/suppressions", `{"type":"email","address":"`+address+`","reason":"`+reason+`"}`)
	}
	for query, want := range map[string]string{
		"?reason=BOUNCED": "ann@example.com", "?reason=unsubscribed&type=email": "bob@example.com", "?reason=complained": "",
		"?created_after=2100-01-01T00:00:00Z": "", "?created_after=2000-01-01T00:00:00Z&reason=bounced": "ann@example.com",
	} {
		if got := h.ids("/api/suppressions"+query, "address"); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, name := range map[string]string{"?reason=no_recipient": "reason", "?reason=": "reason", "?created_after=x": "created_after"} {
		h.says(h.must(422, "GET", "/api/suppressions"+query, ""), `["query","`+name+`"]`, "")
	}
}
