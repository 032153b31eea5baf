package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"herald/pkg/access"
	"herald/pkg/config"
	"herald/pkg/provider/simulator"
)

// A stored credential goes to no address that came later than it did.
func TestFaultANewBaseURLTakesCredentials(t *testing.T) {
	h := start(t)
	caught := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caught <- r.Header.Get("Authorization")
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	mailAt, smsAt := "/api/channels/"+emailChannel+"/email", "/api/channels/"+pairChannel+"/sms"
	h.must(200, "PATCH", smsAt, `{"credentials":{"api_key_sid":"SK1","api_key_secret":"secret"}}`)
	for what, c := range map[string][3]string{
		"without":              {mailAt, `{"base_url":"` + srv.URL + `"}`, `["body","credentials","api_key"]`},
		"with another field":   {mailAt, `{"base_url":"` + srv.URL + `","state":"ACTIVE"}`, `["body","credentials","api_key"]`},
		"with none":            {mailAt, `{"base_url":"` + srv.URL + `","credentials":{}}`, `["body","credentials","api_key"]`},
		"with another":         {mailAt, `{"base_url":"` + srv.URL + `","credentials":{"webhook_public_key":"x"}}`, `["body","credentials","api_key"]`},
		"one of two":           {smsAt, `{"base_url":"` + srv.URL + `","credentials":{"account_sid":"AC1","auth_token":"x","api_key_sid":"SK2"}}`, `["body","credentials","api_key_secret"]`},
		"the required alone":   {smsAt, `{"base_url":"` + srv.URL + `","credentials":{"account_sid":"AC1","auth_token":"x"}}`, `["body","credentials","api_key_sid"]`},
		"null for the only":    {mailAt, `{"base_url":"` + srv.URL + `","credentials":{"api_key":null}}`, `["body","credentials","api_key"]`},
		"a link-local address": {mailAt, `{"base_url":"https://169.254.169.254","credentials":{"api_key":"SG.other"}}`, `["body","base_url"]`},
		"http elsewhere":       {mailAt, `{"base_url":"http://api.acme.test","credentials":{"api_key":"SG.other"}}`, `["body","base_url"]`},
	} {
		a := h.must(422, "PATCH", c[0], c[1])
		if a.locs()[c[2]] == "" {
			t.Errorf("%s: %s", what, a.raw)
		}
	}
	h.send(emailExample)
	if n := len(caught); n > 0 {
		t.Fatalf("%d credentials went to the new address", n)
	}
	h.must(200, "PATCH", mailAt, `{"base_url":"`+srv.URL+`","credentials":{"api_key":"SG.given-for-it"}}`)
	h.must(200, "PATCH", mailAt, `{"base_url":"`+srv.URL+`","name":"the same address"}`)
	h.must(422, "PATCH", mailAt, `{"base_url":null}`)
	h.must(200, "PATCH", smsAt, `{"base_url":"`+srv.URL+`","credentials":{"account_sid":"AC1","auth_token":"x","api_key_sid":null,"api_key_secret":null}}`)
	for _, bad := range []string{"https://u:p@x.test", "https://x.test/?q", "http://x.test"} {
		h.must(422, "POST", "/api/channels", `{"type":"EMAIL","name":"x","sender":"x@acme.test","credentials":{"api_key":"SG.x"},"base_url":"`+bad+`"}`)
	}
}

// keysOf returns an object's members that are not null.
func keysOf(v any) string {
	m, _ := v.(map[string]any)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != nil {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// A key without the scope read gets only ids and figures from every write.
func TestFaultWritesTellNoMoreThanTheScope(t *testing.T) {
	h := start(t)
	id := h.lead(`"first_name":"Stella","email":"stella@example.com","phone":"+15005551001"`)
	h.must(201, "POST", "/api/suppressions", `{"type":"email","address":"other@example.com","note":"a secret note"}`)
	h.must(200, "PATCH", "/api/channels/"+emailChannel+"/email", `{"state":"PAUSED","state_reason":"words of somebody"}`)
	_, send := h.key(access.Key{Scopes: []access.Scope{access.Send}})
	_, both := h.key(access.Key{Scopes: []access.Scope{access.Send, access.Read}})
	_, admin := h.key(access.Key{Scopes: []access.Scope{access.Admin}})
	_, adminReads := h.key(access.Key{Scopes: []access.Scope{access.Admin, access.Read}})
	dry := `{"sender_type":"email","dry_run":true,"bulk_settings":{"all_leads":true},"message_data":{"subject":"Hi {{ first_name }}","content":"to {{ phone }}"}}`
	for what, c := range map[string]struct {
		status                   int
		method, path, body, tell string // tell: what a key without read is told
		token, reader            string
	}{
		"a patch of nothing":    {200, "PATCH", "/api/leads/" + id, `{}`, "id", send, both},
		"a patch":               {200, "PATCH", "/api/leads/" + id, `{"title":"CTO"}`, "id", send, both},
		"a new lead":            {201, "POST", "/api/leads", `{"email":"new@example.com"}`, "id", send, both},
		"a suppression":         {201, "POST", "/api/suppressions", `{"type":"email","address":"other@example.com"}`, "id", send, both},
		"a dry run":             {200, "POST", "/api/messaging/send", dry, "attachment_bytes estimated_cost estimated_seconds kind leads_not_found reachable samples skipped total_leads warnings", send, both},
		"a channel's patch":     {200, "PATCH", "/api/channels/" + pairChannel + "/sms", `{}`, "id type", admin, adminReads},
		"a channel of the type": {201, "POST", "/api/channels", `{"type":"SMS","name":"x","sender":"+15005550007","credentials":{"account_sid":"AC1","auth_token":"secret-of-the-test"}}`, "id type", admin, adminReads},
	} {
		h.token = c.token
		a := h.must(c.status, c.method, c.path, c.body)
		if got := keysOf(a.body); got != c.tell {
			t.Errorf("%s tells %s: %s", what, got, a.raw)
		}
		for _, secret := range []string{"stella", "Stella", "5005551001", "secret note", "other@example.com", "5005550006"} {
			if strings.Contains(a.raw, secret) {
				t.Errorf("%s tells %s: %s", what, secret, a.raw)
			}
		}
		samples, _ := a.body["samples"].([]any)
		for _, s := range samples {
			if got := keysOf(s); got != "lead_id" {
				t.Errorf("a sample tells %s", got)
			}
		}
		h.token = c.reader
		if full := h.must(c.status, c.method, c.path, c.body); len(full.raw) < len(a.raw)+20 {
			t.Errorf("%s, with the scope read: %s", what, full.raw)
		}
	}
	bulk := `{"sender_type":"email","bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`
	for _, token := range []string{send, both} {
		h.token = token
		a := h.send(bulk, "Prefer", "respond-async")
		paused := h.must(200, "POST", "/api/messaging/bulk/"+a.body["bulk_id"].(string)+"/pause", "")
		for _, a := range []answer{a, paused} {
			if tells := strings.Contains(a.raw, "words of somebody"); tells != (token == both) {
				t.Errorf("the reason of a pause is told: %v: %s", tells, a.raw)
			}
		}
	}
}

// Without keys, every request through a proxy is rejected, also when a header claims that it is local.
func TestFaultTheOpenModeAnswersNoProxy(t *testing.T) {
	h := start(t)
	before := h.contents()
	for _, name := range []string{
		"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-port", "X-Forwarded", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP",
	} {
		for _, path := range []string{"/api/messaging/send", "/api/leads"} {
			if a := h.call("POST", path, emailExample, name, "127.0.0.1"); a.status != 403 || a.body["code"] != "forbidden" {
				t.Errorf("%s with %s: %d %s", path, name, a.status, a.raw)
			}
		}
		h.must(403, "GET", "/api/leads", "", name, "")
	}
	for _, site := range []string{"cross-site", "same-site"} {
		h.must(403, "GET", "/api/leads", "", "Sec-Fetch-Site", site)
	}
	if after := h.contents(); after != before {
		t.Errorf("something was written: %s, before %s", after, before)
	}
	_, h.token = h.key(access.Key{Scopes: access.Scopes})
	h.must(200, "GET", "/api/leads", "", "X-Forwarded-For", "192.0.2.1", "Via", "1.1 proxy")
}

// What a server says that is not the provider is told to no caller.
func TestFaultInnerServersAreNotQuoted(t *testing.T) {
	h := start(t)
	status, body := 404, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer srv.Close()
	move := func(url string) {
		h.must(200, "PATCH", "/api/channels/"+emailChannel+"/email", `{"base_url":"`+url+`","state":"ACTIVE","credentials":{"api_key":"SG.x"}}`)
		h.must(200, "PATCH", "/api/channels/"+pairChannel+"/sms", `{"base_url":"`+url+`","state":"ACTIVE","credentials":{"account_sid":"AC1","auth_token":"x"}}`)
	}
	move(srv.URL)
	for what, c := range map[string]struct {
		status int
		body   string
	}{
		"a page":         {404, "<html>intranet</html>"},
		"GraphQL":        {400, `{"errors":[{"message":"intranet","locations":[],"extensions":{}}]}`},
		"Kubernetes":     {422, `{"kind":"Status","message":"intranet","reason":"Invalid","code":422}`},
		"a plain error":  {400, `{"code":12345,"message":"intranet"}`},
		"another status": {400, `{"code":21211,"message":"intranet","more_info":"https://intranet/","status":400}`},
		"plain text":     {500, "intranet"},
	} {
		status, body = c.status, c.body
		for _, request := range []string{emailExample, smsExample} {
			a := h.call("POST", "/api/messaging/send", request)
			m := a.raw
			if id, ok := a.body["message_id"].(string); ok {
				m += h.message(id).raw
			}
			m += h.must(200, "GET", "/api/channels", "").raw
			if strings.Contains(m, "intranet") || (a.status == 200 && !strings.Contains(m, "provider_unreachable")) {
				t.Errorf("%s: %d %.2000s", what, a.status, m)
			}
			move(srv.URL)
		}
	}
	srv.Close() // nothing listens there any more
	a := h.call("POST", "/api/messaging/send", smsExample)
	if strings.Contains(a.raw, "refused") || strings.Contains(a.raw, "127.0.0.1") || strings.Contains(a.raw, "dial") {
		t.Errorf("%s", a.raw)
	}
	// The provider's own words are told.
	h.must(200, "PATCH", "/api/channels/"+pairChannel+"/sms", `{"base_url":null,"state":"ACTIVE","credentials":{"account_sid":"AC00000000000000000000000000000000","auth_token":"x"}}`)
	h.sim.Script(simulator.Rule{Provider: simulator.Twilio, Fault: simulator.Refuse, Times: 1})
	if a := h.send(smsExample); !strings.Contains(a.raw, "Invalid 'To' Phone Number") || !strings.Contains(h.message(a.body["message_id"].(string)).raw, `"21211"`) {
		t.Errorf("%s", a.raw)
	}
}

// A page has as many items as were asked for, all but the last.
func TestFaultPageSizes(t *testing.T) {
	h := startWith(t, func(*config.Config) {})
	for i := range 5 {
		h.lead(fmt.Sprintf(`"email":"p%d@example.com"`, i))
		h.must(201, "POST", "/api/suppressions", fmt.Sprintf(`{"type":"sms","address":"+1500555200%d"}`, i))
		h.send(text(i))
	}
	for _, list := range []string{"/api/leads", "/api/suppressions", "/api/messaging/messages"} {
		for limit, want := range map[int][]int{1: {1, 1, 1, 1, 1}, 2: {2, 2, 1}, 4: {4, 1}, 5: {5}, 6: {5}} {
			var got []int
			for cursor := ""; ; {
				a := h.must(200, "GET", fmt.Sprintf("%s?limit=%d%s", list, limit, cursor), "")
				got = append(got, len(a.body["items"].([]any)))
				next, more := a.body["next_cursor"].(string)
				if !more {
					break
				}
				cursor = "&cursor=" + next
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: %v, want %v", list, limit, got, want)
			}
		}
	}
	if a := h.must(200, "GET", "/api/channels?limit=1", ""); len(a.body["items"].([]any)) != 1 || a.body["next_cursor"] == nil {
		b, _ := json.Marshal(a.body)
		t.Errorf("%s", b)
	}
}
