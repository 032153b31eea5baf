package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestPathsAndMethods(t *testing.T) {
	h := start(t)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"unknown path":      {"GET", "/api/nothing", "", 404, "not_found"},
		"unknown method":    {"DELETE", "/api/messaging/send", "", 405, "method_not_allowed"},
		"unknown message":   {"GET", "/api/messaging/messages/" + uuid.NewString(), "", 404, "not_found"},
		"unknown bulk":      {"GET", "/api/messaging/bulk/" + uuid.NewString(), "", 404, "not_found"},
		"unknown lead":      {"GET", "/api/leads/" + uuid.NewString(), "", 404, "not_found"},
		"unknown channel":   {"GET", "/api/channels/" + uuid.NewString() + "/sms", "", 404, "not_found"},
		"route of later":    {"POST", "/api/messaging/bulk/" + uuid.NewString() + "/pause", "{}", 404, "not_found"},
		"a channel twice":   {"POST", "/api/channels", `{"id":"` + emailChannel + `","type":"EMAIL","name":"x","sender":"a@acme.test","credentials":{"api_key":"k"}}`, 409, "conflict"},
		"import of nothing": {"POST", "/api/leads/import", "x", 415, "unsupported_media_type"},
	} {
		a := h.must(c.status, c.method, c.path, c.body)
		if a.body["code"] != c.code || a.body["detail"] == "" {
			t.Errorf("%s: %s", name, a.raw)
		}
		if a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no request id", name)
		}
	}
	for _, path := range []string{"/api/messaging/messages/x", "/api/messaging/bulk/x", "/api/leads/x", "/api/channels/x/sms", "/api/channels/" + emailChannel + "/fax",
		"/api/leads?limit=0", "/api/leads?limit=201", "/api/leads?cursor=!", "/api/leads?cursor=eA", "/api/leads?offset=1", "/api/leads?limit=1&limit=2",
		"/api/messaging/messages?status=LOST", "/api/messaging/messages?bulk_id=x", "/api/messaging/messages?created_after=now", "/api/messaging/messages?channel_type=fax",
		"/api/channels?cursor=eA", "/api/messaging/bulk?cursor=eA"} {
		if a := h.call("GET", path, ""); a.status != 422 || len(a.locs()) != 1 {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
}

func TestRequestID(t *testing.T) {
	h := start(t)
	if a := h.must(200, "GET", "/healthz", "", "X-Request-ID", "abc-1"); a.header.Get("X-Request-Id") != "abc-1" {
		t.Errorf("not echoed: %v", a.header)
	}
	if a := h.must(200, "GET", "/readyz", "", "X-Request-ID", "a b\tc"); a.header.Get("X-Request-Id") == "a b\tc" || a.body["status"] != "ok" {
		t.Errorf("%v %s", a.header, a.raw)
	}
}

func TestChannelsNeverShowTheirSecrets(t *testing.T) {
	h := start(t)
	a := h.must(200, "GET", "/api/channels", "")
	if items := a.body["items"].([]any); len(items) != 3 {
		t.Fatalf("%d channels", len(items))
	}
	if strings.Contains(a.raw, "secret-of-the") {
		t.Error("a secret is shown")
	}
	got := h.must(200, "GET", "/api/channels/"+emailChannel+"/email", "").body
	if d := cmp.Diff(map[string]any{"api_key": "****test"}, got["credentials"]); d != "" {
		t.Error(d)
	}
	for k, want := range map[string]any{"provider": "sendgrid", "on_unknown": "resend_once", "currency": "USD", "price": 0.001, "state": "ACTIVE", "rate_per_second": nil} {
		if got[k] != want {
			t.Errorf("%s is %v, want %v", k, got[k], want)
		}
	}
}

func TestChannelValidation(t *testing.T) {
	h := start(t)
	for name, c := range map[string]struct {
		body string
		want map[string]string
	}{
		"nothing": {`{}`, map[string]string{`["body","type"]`: "missing", `["body","name"]`: "missing", `["body","sender"]`: "missing", `["body","credentials"]`: "missing"}},
		"much":    {`{"type":"fax","name":1,"sender":"x","credentials":[],"price":-1,"rate_per_second":0,"state":"GONE","id":"x","extra":1,"default":"yes"}`, map[string]string{`["body","type"]`: "enum", `["body","name"]`: "string_type", `["body","credentials"]`: "dict_type", `["body","price"]`: "float_type", `["body","rate_per_second"]`: "float_type", `["body","state"]`: "enum", `["body","id"]`: "uuid_parsing", `["body","extra"]`: "extra_forbidden", `["body","default"]`: "bool_type"}},
		"meaning": {`{"type":"email","provider":"twilio","name":"x","sender":"+1","credentials":{"auth_token":"x"},"on_unknown":"pray","base_url":"x","currency":"EURO","region":"NOR"}`, map[string]string{`["body","currency"]`: "string_too_long", `["body","region"]`: "string_too_long"}},
		"rest":    {`{"type":"email","provider":"twilio","name":"x","sender":"+1","credentials":{"auth_token":"x"},"on_unknown":"pray","base_url":"x"}`, map[string]string{`["body","provider"]`: "enum", `["body","sender"]`: "value_error", `["body","on_unknown"]`: "enum", `["body","base_url"]`: "value_error", `["body","credentials","api_key"]`: "missing", `["body","credentials","auth_token"]`: "extra_forbidden"}},
		"newline": {`{"type":"email","name":"x","sender":"a@acme.test","credentials":{"api_key":"a\nb"}}`, map[string]string{`["body","credentials","api_key"]`: "value_error"}},
	} {
		a := h.must(422, "POST", "/api/channels", c.body)
		if d := cmp.Diff(c.want, a.locs()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestLeadsArePaged(t *testing.T) {
	h := start(t)
	want := map[string]bool{}
	for i := range 5 {
		want[h.lead(fmt.Sprintf(`"first_name":"L%d","tags":["a","b"],"custom_fields":{"n":%d}`, i, i))] = true
	}
	got := map[string]bool{}
	for path := "/api/leads?limit=2"; path != ""; {
		a := h.must(200, "GET", path, "")
		for _, it := range a.body["items"].([]any) {
			got[it.(map[string]any)["id"].(string)] = true
		}
		path = ""
		if next, ok := a.body["next_cursor"].(string); ok {
			path = "/api/leads?limit=2&cursor=" + next
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if a := h.call("POST", "/api/leads", `{"first_name":1,"tags":[""],"custom_fields":[],"x":1,"created_at":"yesterday"}`); len(a.locs()) != 5 {
		t.Errorf("%d %s", a.status, a.raw)
	}
	id := h.lead(`"first_name":"X"`)
	h.must(409, "POST", "/api/leads", `{"id":"`+id+`"}`)
}

func TestImport(t *testing.T) {
	h := start(t)
	csv := "\ufefffirst_name,email,phone,tags,plan,id\r\n" +
		"Ann,ann@example.com,+14155550101,a; b,gold,\r\n" +
		"\"Bo, \"\"B\"\"\",bo@example.com,,,,\r\n" +
		"Bad id,x@example.com,,,,nonsense\r\n" +
		"too,few\r\n" +
		",,,,,\r\n" +
		"Ann Again,ANN@example.com,,c,,\r\n" +
		"By phone,,+14155550101,,silver,\r\n"
	a := h.must(200, "POST", "/api/leads/import", csv, "Content-Type", "text/csv; charset=utf-8")
	if a.body["rows"] != 7.0 || a.body["imported"] != 3.0 || a.body["updated"] != 2.0 || a.body["rejected"] != 2.0 || a.body["unchanged"] != 0.0 {
		t.Error(a.raw)
	}
	want := []any{map[string]any{"line": 4.0, "msg": "id: must be a UUID"}, map[string]any{"line": 6.0, "msg": "the row is empty"}}
	if d := cmp.Diff(want, a.body["errors"]); d != "" {
		t.Error(d)
	}
	warning := map[string]any{"line": 5.0, "column": "email", "code": "invalid_email", "msg": "is not an email address"}
	if d := cmp.Diff([]any{warning}, a.body["warnings"]); d != "" {
		t.Error(d)
	}
	leads := map[string]map[string]any{}
	for _, it := range h.must(200, "GET", "/api/leads", "").body["items"].([]any) {
		l := it.(map[string]any)
		leads[l["email"].(string)] = l
	}
	ann := leads["ANN@example.com"]
	if ann == nil || ann["first_name"] != "By phone" || ann["phone"] != "+14155550101" || len(ann["tags"].([]any)) != 3 ||
		ann["custom_fields"].(map[string]any)["plan"] != "silver" {
		t.Errorf("Ann: %v", ann)
	}
	if bo := leads["bo@example.com"]; bo == nil || bo["first_name"] != `Bo, "B"` {
		t.Errorf("Bo: %v", bo)
	}

	nd := `{"email":"bo@example.com","company":"Acme"}` + "\n\n" + `{"email":"new@example.com","custom_fields":{"n":1}}` + "\n" + `{"nonsense":1}` + "\n" + `not json`
	a = h.must(200, "POST", "/api/leads/import", nd, "Content-Type", "application/x-ndjson")
	if a.body["imported"] != 1.0 || a.body["updated"] != 1.0 || a.body["rejected"] != 2.0 {
		t.Error(a.raw)
	}
	for name, body := range map[string]string{"empty": "", "no address": "first_name\n", "not UTF-8": "email\n\xff\n"} {
		if a := h.call("POST", "/api/leads/import", body, "Content-Type", "text/csv"); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}
