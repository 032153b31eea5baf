package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// The bulk examples of the API's documentation, word for word.
const (
	keywordExample = `{
"bulk_settings": {
"search_keyword": "enterprise customers"
},
"message_data": {
"recipient": "+1234567890",
"content": "Exclusive enterprise plan now available!"
},
"message_type": "MARKETING"
}`
	filterExample = `{
"bulk_settings": {
"filters": {
"conditions": [
{
"id": "group-1",
"conditions": [
{
"id": "cond-1",
"field": "first_name",
"operator": "contains",
"value": "st"
},
{
"id": "1759891068581-u3gsnk8f7",
"field": "tags",
"operator": "contains",
"value": ["Import 10/05/25"]
}
]
}
]
}
},
"message_data": {
"recipient": "placeholder@example.com",
"subject": "VIP Notification",
"content": "Important update for VIP customers"
},
"message_type": "NOTIFICATION",
"priority": "3"
}`
	assigneesExample = `{
"bulk_settings": {
"assignees": ["user-uuid-1", "user-uuid-2"]
},
"message_data": {
"recipient": "placeholder@example.com",
"subject": "Team Update",
"content": "Check your assigned leads"
},
"message_type": "NOTIFICATION"
}`
)

// crowd stores the leads that the examples speak of, and others.
func crowd(h *herald) (stella, august, kim string) {
	stella = h.lead(`"first_name":"Stella","email":"stella@example.com","phone":"+14155550101","company":"Enterprise Ltd","last_name":"Customers","tags":["import 10/05/25"],"assignee_id":"user-uuid-1"`)
	august = h.lead(`"first_name":"AUGUSTIN","email":"august@example.com","company":"Small Customers Ltd","tags":["Import 10/05/25","x"],"custom_fields":{"score":"42","plan":"Gold"}`)
	kim = h.lead(`"first_name":"Kim","email":"kim@example.com","phone":"+14155550102","company":"ENTERPRISE customers","assignee_id":"user-uuid-2"`)
	h.lead(`"first_name":"Stan","email":"stan@example.com","assignee_id":"user-uuid-3"`)
	return stella, august, kim
}

func TestBulkExamplesFindTheirLeads(t *testing.T) {
	h := start(t)
	crowd(h)
	for name, c := range map[string]struct {
		body string
		to   []string
	}{
		"keyword":   {keywordExample, []string{"+14155550101", "+14155550102"}},
		"filter":    {filterExample, []string{"stella@example.com", "august@example.com"}},
		"assignees": {assigneesExample, []string{"stella@example.com", "kim@example.com"}},
	} {
		h.sim.Reset()
		a := h.send(c.body)
		if a.body["total_leads"] != float64(len(c.to)) || a.body["messages_sent"] != float64(len(c.to)) || a.body["status"] != "COMPLETED" {
			t.Errorf("%s: %s", name, a.raw)
		}
		for _, to := range c.to {
			if len(h.sim.Accepted(to)) != 1 {
				t.Errorf("%s: %s got %d", name, to, len(h.sim.Accepted(to)))
			}
		}
	}
}

func TestCriteriaCombine(t *testing.T) {
	h := start(t)
	stella, august, kim := crowd(h)
	for name, c := range map[string]struct {
		settings string
		want     float64
	}{
		"all leads":          {`{"all_leads":true}`, 4},
		"all of them":        {`{"lead_ids":["` + stella + `","` + kim + `"],"search_keyword":"enterprise","assignees":["user-uuid-2"]}`, 1},
		"any of them":        {`{"match":"any","lead_ids":["` + august + `"],"assignees":["user-uuid-3"]}`, 2},
		"but not these":      {`{"all_leads":true,"exclude_lead_ids":["` + kim + `"],"exclude_tags":["IMPORT 10/05/25"]}`, 1},
		"a custom number":    {`{"filters":{"conditions":[{"field":"custom_fields.score","operator":"between","value":[40,42]}]}}`, 1},
		"a custom text":      {`{"filters":{"conditions":[{"field":"custom_fields.plan","operator":"equals","value":"gold"}]}}`, 1},
		"no lead":            {`{"search_keyword":"nobody like this"}`, 0},
		"per cent":           {`{"search_keyword":"%"}`, 0},
		"or":                 {`{"filters":{"logic":"or","conditions":[{"field":"first_name","operator":"equals","value":"kim"},{"field":"first_name","operator":"starts_with","value":"sta"}]}}`, 2},
		"null value for one": {`{"filters":{"conditions":[{"field":"phone","operator":"is_empty","value":null}]}}`, 2},
	} {
		a := h.send(`{"dry_run":true,"bulk_settings":` + c.settings + `,"message_data":{"subject":"s","content":"c"}}`)
		if a.body["total_leads"] != c.want {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

func TestDryRun(t *testing.T) {
	h := start(t)
	crowd(h)
	h.lead(`"first_name":"No phone"`)
	h.lead(`"first_name":"Twin","phone":"+1 415 555 0101"`)
	h.must(201, "POST", "/api/suppressions", `{"type":"sms","address":"+14155550102","reason":"unsubscribed"}`)
	before := h.written()
	a := h.send(`{"dry_run":true,"bulk_settings":{"all_leads":true},"message_data":{"recipient":"+1234567890","content":"Hi {{ first_name }}"}}`)
	if d := cmp.Diff(map[string]any{
		"total_leads": 6.0, "reachable": 1.0, "leads_not_found": 0.0, "skipped": map[string]any{"no_recipient": 3.0, "unsubscribed": 1.0, "duplicate_recipient": 1.0},
		"estimated_cost": 0.0079, "estimated_seconds": 0.1, "kind": "preview", "attachment_bytes": 0.0, "warnings": []any{},
	}, a.body, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == `["samples"]` }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	samples := a.body["samples"].([]any)
	if len(samples) != 1 || samples[0].(map[string]any)["content"] != "Hi Stella" || samples[0].(map[string]any)["segments"] != 1.0 {
		t.Errorf("%v", samples)
	}
	if h.written() != before || h.sim.Report().Accepted != 0 {
		t.Error("a dry run wrote or sent something")
	}
}

func TestFilterValidation(t *testing.T) {
	h := start(t)
	deep := `{"field":"city","operator":"is_empty"}`
	for range 11 {
		deep = `{"conditions":[` + deep + `]}`
	}
	many := strings.TrimSuffix(strings.Repeat(`{"field":"city","operator":"is_empty"},`, 501), ",")
	cond := func(c string) string { return `{"filters":{"conditions":[` + c + `]}}` }
	const at = `"body","bulk_settings","filters","conditions",0`
	for name, c := range map[string]struct {
		settings string
		want     map[string]string
	}{
		"unknown field":        {cond(`{"id":"c1","field":"password","operator":"equals","value":"x"}`), map[string]string{`[` + at + `,"field"]`: "enum"}},
		"unknown operator":     {cond(`{"id":"c1","field":"city","operator":"regex","value":"x"}`), map[string]string{`[` + at + `,"operator"]`: "enum"}},
		"operator of others":   {cond(`{"field":"tags","operator":"starts_with","value":"x"}`), map[string]string{`[` + at + `,"operator"]`: "enum"}},
		"no value":             {cond(`{"field":"city","operator":"equals"}`), map[string]string{`[` + at + `,"value"]`: "missing"}},
		"empty value":          {cond(`{"field":"city","operator":"equals","value":""}`), map[string]string{`[` + at + `,"value"]`: "string_too_short"}},
		"a list where one is":  {cond(`{"field":"city","operator":"equals","value":["x"]}`), map[string]string{`[` + at + `,"value"]`: "string_type"}},
		"one where a list is":  {cond(`{"field":"city","operator":"in","value":"x"}`), map[string]string{`[` + at + `,"value"]`: "list_type"}},
		"an object":            {cond(`{"field":"city","operator":"equals","value":{"a":1}}`), map[string]string{`[` + at + `,"value"]`: "string_type"}},
		"null in a list":       {cond(`{"field":"tags","operator":"contains","value":["x",null]}`), map[string]string{`[` + at + `,"value",1]`: "string_type"}},
		"an empty list":        {cond(`{"field":"tags","operator":"contains","value":[]}`), map[string]string{`[` + at + `,"value"]`: "too_short"}},
		"a value too many":     {cond(`{"field":"city","operator":"is_empty","value":"x"}`), map[string]string{`[` + at + `,"value"]`: "extra_forbidden"}},
		"a time that is none":  {cond(`{"field":"created_at","operator":"before","value":"yesterday"}`), map[string]string{`[` + at + `,"value"]`: "datetime_parsing"}},
		"half a between":       {cond(`{"field":"created_at","operator":"between","value":["2025-01-01"]}`), map[string]string{`[` + at + `,"value"]`: "too_long"}},
		"days that are none":   {cond(`{"field":"created_at","operator":"within_last_days","value":0}`), map[string]string{`[` + at + `,"value"]`: "int_type"}},
		"a number that is not": {cond(`{"field":"custom_fields.x","operator":"gt","value":"ten"}`), map[string]string{`[` + at + `,"value"]`: "float_type"}},
		"no custom key":        {cond(`{"field":"custom_fields.","operator":"equals","value":"x"}`), map[string]string{`[` + at + `,"field"]`: "enum"}},
		"unknown key":          {cond(`{"field":"city","operator":"is_empty","negate":true}`), map[string]string{`[` + at + `,"negate"]`: "extra_forbidden"}},
		"an empty group":       {`{"filters":{"conditions":[{"id":"g","conditions":[]}]}}`, map[string]string{`[` + at + `,"conditions"]`: "too_short"}},
		"no conditions":        {`{"filters":{}}`, map[string]string{`["body","bulk_settings","filters","conditions"]`: "missing"}},
		"strange logic":        {`{"filters":{"logic":"XOR","conditions":[{"field":"city","operator":"is_empty"}]}}`, map[string]string{`["body","bulk_settings","filters","logic"]`: "enum"}},
		"not an object":        {cond(`"x"`), map[string]string{`[` + at + `]`: "dict_type"}},
		"eleven deep":          {`{"filters":` + deep + `}`, map[string]string{`["body","bulk_settings","filters",` + strings.Repeat(`"conditions",0,`, 10) + `"conditions"]`: "too_long"}},
		"501 conditions":       {cond(many), map[string]string{`["body","bulk_settings","filters","conditions"]`: "too_long"}},
		"keyword of spaces":    {`{"search_keyword":" \t "}`, map[string]string{`["body","bulk_settings","search_keyword"]`: "string_too_short"}},
		"keyword too long":     {`{"search_keyword":"` + strings.Repeat("x", 201) + `"}`, map[string]string{`["body","bulk_settings","search_keyword"]`: "string_too_long"}},
		"empty assignee":       {`{"assignees":["a",""]}`, map[string]string{`["body","bulk_settings","assignees",1]`: "string_too_short"}},
		"no assignees":         {`{"assignees":[]}`, map[string]string{`["body","bulk_settings","assignees"]`: "too_short"}},
		"strange match":        {`{"match":"some","all_leads":true}`, map[string]string{`["body","bulk_settings","match"]`: "enum"}},
		"all leads, but not":   {`{"all_leads":false}`, map[string]string{`["body","bulk_settings"]`: "missing"}},
		"only an exclusion":    {`{"exclude_tags":["x"]}`, map[string]string{`["body","bulk_settings"]`: "missing"}},
	} {
		a := h.must(422, "POST", "/api/messaging/send", `{"bulk_settings":`+c.settings+`,"message_data":{"subject":"s","content":"c"}}`)
		if d := cmp.Diff(c.want, a.locs()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if strings.Contains(c.settings, `"id":"c1"`) && !strings.Contains(a.raw, `c1`) {
			t.Errorf("%s: does not echo the id: %s", name, a.raw)
		}
	}
	// SQL, expressions and wildcards in a value are text like any other.
	for _, v := range []string{`'; DROP TABLE leads; --`, `(a|b)*`, `%`, `_`, `$1`, `\\`} {
		b, _ := json.Marshal(v)
		h.send(`{"dry_run":true,"bulk_settings":{"filters":{"conditions":[{"field":"city","operator":"contains","value":` + string(b) + `}]}},"message_data":{"subject":"s","content":"c"}}`)
	}
}

func TestSuppressions(t *testing.T) {
	h := start(t)
	stella, august, kim := crowd(h)
	put := func(body string) map[string]any { return h.must(201, "POST", "/api/suppressions", body).body }
	first := put(`{"type":"email","address":"STELLA@example.com","reason":"unsubscribed","note":"by phone"}`)
	if d := cmp.Diff([]any{"MARKETING", "NOTIFICATION"}, first["message_types"]); d != "" {
		t.Error(d)
	}
	if again := put(`{"type":"EMAIL","address":"stella@example.com","reason":"UNSUBSCRIBED"}`); again["id"] != first["id"] {
		t.Errorf("the same suppression twice: %v", again)
	}
	put(`{"type":"email","address":"august@example.com","reason":"bounced"}`)
	body := `{"message_type":"%s","bulk_settings":{"lead_ids":["` + stella + `","` + august + `","` + kim + `"]},"message_data":{"subject":"s","content":"c"}}`
	a := h.send(fmt.Sprintf(body, "MARKETING"))
	if d := cmp.Diff(map[string]any{"unsubscribed": 1.0, "bounced": 1.0}, a.body["failure_reasons"]); d != "" || a.body["messages_sent"] != 1.0 {
		t.Errorf("%s %s", a.raw, d)
	}
	if a := h.send(fmt.Sprintf(body, "TRANSACTIONAL")); a.body["messages_sent"] != 2.0 {
		t.Errorf("an unsubscribed lead still gets transactional messages: %s", a.raw)
	}
	single := h.send(`{"message_type":"MARKETING","message_data":{"recipient":"Stella@example.com","subject":"s","content":"c"}}`)
	if single.body["success"] != false || single.body["status"] != "SKIPPED" || single.body["error"].(map[string]any)["code"] != "unsubscribed" {
		t.Error(single.raw)
	}
	list := h.must(200, "GET", "/api/suppressions?type=email&address=stella@example.com", "").body["items"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["address"] != "stella@example.com" {
		t.Errorf("%v", list)
	}
	path := "/api/suppressions/" + first["id"].(string)
	if status := h.status("DELETE", path); status != 204 {
		t.Errorf("lifted: %d", status)
	}
	h.must(404, "DELETE", path, "")
	if a := h.send(fmt.Sprintf(body, "MARKETING")); a.body["messages_sent"] != 2.0 {
		t.Errorf("after it was lifted: %s", a.raw)
	}
	for name, c := range map[string]struct {
		body string
		n    int
	}{"nothing": {`{}`, 2}, "much": {`{"type":"fax","address":1,"reason":"mood","message_types":["SPAM"],"x":1}`, 5}, "no address": {`{"type":"sms","address":"x"}`, 1}} {
		if a := h.must(422, "POST", "/api/suppressions", c.body); len(a.locs()) != c.n {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

func TestExplainLead(t *testing.T) {
	h := start(t)
	stella, _, kim := crowd(h)
	a := h.send(filterExample)
	path := "/api/messaging/bulk/" + a.body["bulk_id"].(string) + "/leads/"
	in := h.must(200, "GET", path+stella, "").body
	if in["in_audience"] != true || in["matches_now"] != true || in["message"].(map[string]any)["status"] != "SENT" {
		t.Errorf("%v", in)
	}
	out := h.must(200, "GET", path+kim, "").body
	if out["in_audience"] != false || out["matches_now"] != false || out["message"] != nil {
		t.Errorf("%v", out)
	}
	group := out["criteria"].([]any)[0].(map[string]any)["conditions"].([]any)[0].(map[string]any)
	if group["id"] != "group-1" || group["matched"] != false {
		t.Errorf("%v", group)
	}
	for i, id := range []string{"cond-1", "1759891068581-u3gsnk8f7"} {
		c := group["conditions"].([]any)[i].(map[string]any)
		if c["id"] != id || c["matched"] != false || c["value"] == nil {
			t.Errorf("%v", c)
		}
	}
	h.must(404, "GET", path+uuid.NewString(), "")
	h.must(404, "GET", "/api/messaging/bulk/"+uuid.NewString()+"/leads/"+kim, "")
	h.must(422, "GET", path+"x", "")
}

func TestPatchAndEraseLeads(t *testing.T) {
	h := start(t)
	id := h.lead(`"first_name":"Ann","email":"ann@example.com","tags":["a"],"custom_fields":{"x":1}`)
	h.must(201, "POST", "/api/suppressions", `{"type":"email","address":"ann@example.com"}`)
	got := h.must(200, "PATCH", "/api/leads/"+id, `{"first_name":"Anna","company":"Acme","custom_fields":null}`, "Content-Type", "application/json").body
	if got["first_name"] != "Anna" || got["company"] != "Acme" || got["email"] != "ann@example.com" || len(got["custom_fields"].(map[string]any)) != 0 || len(got["tags"].([]any)) != 1 {
		t.Errorf("%v", got)
	}
	h.must(422, "PATCH", "/api/leads/"+id, `{"id":"x","first_name":1}`, "Content-Type", "application/json")
	sent := h.send(`{"message_type":"TRANSACTIONAL","message_data":{"recipient":"+14155550100","content":"secret text","contact_id":"` + id + `"}}`)
	if status := h.status("DELETE", "/api/leads/"+id); status != 204 {
		t.Errorf("erased: %d", status)
	}
	h.must(404, "GET", "/api/leads/"+id, "")
	h.must(404, "DELETE", "/api/leads/"+id, "")
	m := h.message(sent.body["message_id"].(string)).body
	if m["recipient"] != nil || m["status"] != "SENT" {
		t.Errorf("%v", m)
	}
	items := h.must(200, "GET", "/api/suppressions", "").body["items"].([]any)
	if len(items) != 1 || items[0].(map[string]any)["address"] != nil {
		t.Errorf("the suppression stays, the address goes: %v", items)
	}
	if a := h.send(`{"message_data":{"recipient":"ann@example.com","subject":"s","content":"c"}}`); a.body["status"] != "SKIPPED" {
		t.Errorf("and it stays in force: %s", a.raw)
	}
}

func TestPatchAndDeleteChannels(t *testing.T) {
	h := start(t)
	path := "/api/channels/" + emailChannel + "/email"
	patch := func(status int, body string) answer {
		return h.must(status, "PATCH", path, body, "Content-Type", "application/json")
	}
	got := patch(200, `{"name":"New","state":"PAUSED","state_reason":"holidays","rate_per_second":5,"price":0.5,"credentials":{"webhook_public_key":"abcdefghijklmnop"}}`).body
	if got["name"] != "New" || got["state"] != "PAUSED" || got["rate_per_second"] != 5.0 || len(got["credentials"].(map[string]any)) != 2 || got["sender"] != "news@acme.test" {
		t.Errorf("%v", got)
	}
	h.must(409, "POST", "/api/messaging/send", emailExample)
	got = patch(200, `{"state":"ACTIVE","rate_per_second":null,"credentials":{"webhook_public_key":null}}`).body
	if got["state_reason"] != nil || got["rate_per_second"] != nil || len(got["credentials"].(map[string]any)) != 1 {
		t.Errorf("%v", got)
	}
	h.send(emailExample)
	for _, body := range []string{`{"type":"sms"}`, `{"id":"` + pairChannel + `"}`, `{"credentials":{"api_key":null}}`, `{"sender":"x"}`, `{"state":"GONE"}`, `{"price":-1}`} {
		if a := patch(422, body); len(a.locs()) != 1 {
			t.Errorf("%s: %s", body, a.raw)
		}
	}
	if status := h.status("DELETE", path); status != 204 {
		t.Errorf("deleted: %d", status)
	}
	h.must(404, "DELETE", path, "")
	h.must(422, "POST", "/api/messaging/send", emailExample)
}
