package api_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"herald/pkg/config"
	"herald/pkg/testenv"
)

// The values are JSON as it is written, so that they may be what no encoder writes.
var (
	numberTexts = []string{
		"0", "-0", "0.0", "1", "-1", "1.50", "1e3", "1E+3", "9007199254740992", "9007199254740993", "-9007199254740993", "17841400000000123", "9223372036854775807",
		"9223372036854775808", "18446744073709551616", "0.1", "0.10000000000000000001", "1e39", "9.99e39", "1e40", "1e-40", "1e-41", "5e-324", "1e300", "1.7976931348623157e308",
		"1.7976931348623159e308", "1e309", "-1e309", "1e200000", "1e-200000", "0e200000", "1e2147483648", "1e99999999999999999999", "01", "+1", ".5", "5.", "1e", "NaN", "Infinity", "-Infinity", "0x1p3",
		strings.Repeat("9", 40), strings.Repeat("9", 41), strings.Repeat("9", 400), "0." + strings.Repeat("3", 40), "0." + strings.Repeat("3", 41), "1." + strings.Repeat("0", 20_000), "0." + strings.Repeat("0", 17_000) + "1",
	}
	timeTexts = []string{
		"2025-01-31T10:30:00Z", "2025-01-31T10:30:00.123456789+05:30", "2025-01-31", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00+00:01", "0000-01-01T00:00:00Z",
		"0000-01-01", "-0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59-00:01", "9999-12-31", "10000-01-01T00:00:00Z",
		"292277026596-12-04T15:30:07Z", "2025-02-30T00:00:00Z", "2025-01-31T23:59:60Z", "infinity", "-infinity", "epoch", "now", "", "1738319400",
	}
	runes = []string{"x", "é", "ß", "\u0958", "\u0390", "日", "\u202e", "\ufffd", "\U0001D11E", "\U000E0001", `\u0000`, `\u0001`, `\ud800`, `\udc00`, `\ud834\udd1e`, `\"`, `\\`, "%", "_", "'", "{{", "{%", "\u0301"}
	sizes = []int{0, 1, 2, 125, 199, 200, 201, 498, 500, 501, 667, 999, 1_000, 1_001, 2_001}
)

func genText(t *rapid.T) string {
	n, one := rapid.SampledFrom(sizes).Draw(t, "size"), rapid.SampledFrom(runes).Draw(t, "rune")
	if rapid.Bool().Draw(t, "varied") { // repeated characters are compressed away before a database looks at the size
		var b strings.Builder
		for i := range n {
			b.WriteRune(rune(0x10400 + (i*7919)%0x5000))
		}
		return `"` + b.String() + `"`
	}
	return `"` + strings.Repeat(one, n) + `"`
}

func genNumber(t *rapid.T) string {
	if rapid.IntRange(0, 3).Draw(t, "any number") == 0 {
		return rapid.StringMatching(`-?(0|[1-9][0-9]{0,45})(\.[0-9]{1,45})?([eE][+-]?[0-9]{1,4})?`).Draw(t, "number")
	}
	return rapid.SampledFrom(numberTexts).Draw(t, "number")
}

func genTime(t *rapid.T) string { return `"` + rapid.SampledFrom(timeTexts).Draw(t, "time") + `"` }

func genValue(t *rapid.T, depth int) string {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1, 2:
		return genNumber(t)
	case 3:
		return genText(t)
	case 4:
		return genTime(t)
	case 5:
		return rapid.SampledFrom([]string{"true", "false", "null", "{}", "[]"}).Draw(t, "literal")
	case 6:
		n := rapid.SampledFrom([]int{1, 28, 29, 30, 31, 32, 100}).Draw(t, "depth")
		return strings.Repeat("[", n) + genNumber(t) + strings.Repeat("]", n)
	case 7:
		return "[" + strings.Repeat(genNumber(t)+",", rapid.SampledFrom([]int{1, 50, 9_000}).Draw(t, "elements")) + "0]"
	}
	if depth > 3 {
		return "1"
	}
	return genObject(t, depth+1)
}

func genObject(t *rapid.T, depth int) string {
	var parts []string
	for i := range rapid.IntRange(0, 3).Draw(t, "fields") {
		key := fmt.Sprintf(`"k%d"`, i)
		if rapid.IntRange(0, 4).Draw(t, "odd key") == 0 {
			key = genText(t)
		}
		parts = append(parts, key+":"+genValue(t, depth))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// genFields draws some of a lead's fields, each with a comma after it. At most one has an odd value, so that what is
// accepted is not all plain and what is refused is refused for one reason.
func genFields(t *rapid.T) string {
	type field struct {
		name, plain string
		odd         func(*rapid.T) string
	}
	var fields []field
	for _, name := range []string{"first_name", "company", "email", "phone", "instagram_id", "assignee_id"} {
		fields = append(fields, field{name, `"ann"`, genText})
	}
	fields = append(fields, field{"tags", `["a"]`, func(t *rapid.T) string { return "[" + genText(t) + "," + genText(t) + "]" }},
		field{"created_at", `"2025-01-31T10:30:00Z"`, genTime}, field{"last_contacted_at", `"2025-01-31T10:30:00Z"`, genTime},
		field{"custom_fields", `{"k0":9007199254740993}`, func(t *rapid.T) string { return genObject(t, 0) }},
		field{"custom_fields", `{"k0":1.50}`, func(t *rapid.T) string { return `{"k0":` + genNumber(t) + `}` }})
	odd := rapid.IntRange(0, len(fields)).Draw(t, "odd")
	var b strings.Builder
	for i, f := range fields {
		switch {
		case i == odd:
			b.WriteString(`"` + f.name + `":` + f.odd(t) + ",")
		case f.name == "custom_fields": // only once, and not beside an odd one
		case rapid.IntRange(0, 2).Draw(t, f.name) == 0:
			b.WriteString(`"` + f.name + `":` + f.plain + ",")
		}
	}
	return b.String()
}

func genCondition(t *rapid.T) string {
	switch rapid.IntRange(0, 5).Draw(t, "condition") {
	case 0:
		return `{"field":"custom_fields.k0","operator":"` + rapid.SampledFrom([]string{"gt", "gte", "lt", "lte", "equals", "in", "contains", "not_equals"}).Draw(t, "op") + `","value":` + genNumber(t) + `}`
	case 1:
		return `{"field":"custom_fields.k0","operator":"between","value":[` + genNumber(t) + "," + genNumber(t) + `]}`
	case 2:
		return `{"field":"` + rapid.SampledFrom([]string{"created_at", "updated_at", "last_contacted_at"}).Draw(t, "field") + `","operator":"` +
			rapid.SampledFrom([]string{"before", "after"}).Draw(t, "op") + `","value":` + genTime(t) + `}`
	case 3:
		return `{"field":"created_at","operator":"between","value":[` + genTime(t) + "," + genTime(t) + `]}`
	case 4:
		op := rapid.SampledFrom([]string{"before", "after"}).Draw(t, "op")
		return `{"field":"custom_fields.k0","operator":"` + op + `","value":` + genTime(t) + `}`
	}
	field := `"` + rapid.SampledFrom([]string{"email", "phone", "assignee_id", "first_name", "tags", "custom_fields.k0"}).Draw(t, "field") + `"`
	if rapid.Bool().Draw(t, "odd field") {
		field = `"custom_fields.` + genText(t)[1:]
	}
	return `{"field":` + field + `,"operator":"contains","value":` + genText(t) + `}`
}

// prober uses the routes of a Herald with what it is told, and takes no 5xx for an answer.
type prober struct {
	*herald
	rt *rapid.T
}

func (p prober) ask(method, path, body string, headers ...string) answer {
	a := p.call(method, path, body, headers...)
	if a.status >= 500 {
		p.rt.Fatalf("%s %.300s: %d %s for %.2000s", method, path, a.status, a.raw, body)
	}
	return a
}

// want asks and takes one answer only.
func (p prober) want(status int, method, path, body string, headers ...string) answer {
	a := p.ask(method, path, body, headers...)
	if a.status != status {
		p.rt.Fatalf("%s %.300s: %d %.2000s, want %d, for %.2000s", method, path, a.status, a.raw, status, body)
	}
	return a
}

// What can be written can be read, changed, sent, filtered, imported over and deleted; what is refused wrote nothing; and
// nothing answers 5xx.
func TestFaultValuesEveryRouteTakesWhatWasAccepted(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		bulk := h.send(`{"sender_type":"email","bulk_settings":{"filters":{"conditions":[{"field":"custom_fields.k0","operator":"gte","value":9007199254740993}]}},
			"message_data":{"subject":"s","content":"c"}}`).body["bulk_id"].(string)
		rapid.Check(t, func(rt *rapid.T) {
			p := prober{h, rt}
			id := uuid.Must(uuid.NewV7()).String()
			stored := p.create(id)
			stored = p.importOver(id, stored)
			if stored {
				p.use(id, bulk)
			}
			p.filter()
			if stored {
				p.want(204, "DELETE", "/api/leads/"+id, "")
			}
			p.want(404, "GET", "/api/leads/"+id, "")
		})
		for _, list := range []string{"/api/leads", "/api/messaging/messages", "/api/messaging/bulk", "/api/channels"} {
			h.must(200, "GET", list+"?limit=200", "")
		}
	})
}

func (p prober) create(id string) bool {
	path := "/api/leads/" + id
	if a := p.ask("POST", "/api/leads", `{"id":"`+id+`",`+genFields(p.rt)+`"title":"x"}`); a.status != 201 {
		p.want(404, "GET", path, "")
		return false
	}
	before := p.want(200, "GET", path, "")
	if a := p.ask("PATCH", path, "{"+genFields(p.rt)+`"title":"y"}`); a.status != 200 {
		if after := p.want(200, "GET", path, ""); after.raw != before.raw {
			p.rt.Fatalf("a change that was refused was made: %.1000s", after.raw)
		}
	}
	return true
}

// importOver imports a lead, new or stored, between two others, which must be stored in any case.
func (p prober) importOver(id string, stored bool) bool {
	first, last := uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	file := `{"id":"` + first + `","title":"first"}` + "\n" + `{"id":"` + id + `",` + genFields(p.rt) + `"title":"x"}` + "\n" + `{"id":"` + last + `","title":"last"}` + "\n"
	a := p.want(200, "POST", "/api/leads/import", file, "Content-Type", "application/x-ndjson")
	if rejected := a.body["rejected"] == 1.0; rejected {
		e, _ := a.body["errors"].([]any)[0].(map[string]any)
		if e["line"] != 2.0 || a.body["imported"] != 2.0 {
			p.rt.Fatalf("%s for %.2000s", a.raw, file)
		}
	} else {
		stored = true
	}
	for _, id := range []string{first, last} {
		p.want(200, "GET", "/api/leads/"+id, "")
		p.want(204, "DELETE", "/api/leads/"+id, "")
	}
	return stored
}

// use does with a lead what can be done with one.
func (p prober) use(id, bulk string) {
	p.want(200, "GET", "/api/leads?limit=200", "")
	p.want(200, "GET", "/api/messaging/bulk/"+bulk+"/leads/"+id, "")
	metadata := genObject(p.rt, 0)
	sent := 0
	a := p.ask("POST", "/api/messaging/send", `{"sender_type":"email","message_data":{"recipient":"x@example.com","subject":"s","content":"{{ custom_fields.k0 }} {{ custom_fields.k0 | plus: 1 }}.",
		"contact_id":"`+id+`","metadata":`+metadata+`}}`)
	if a.status == 200 {
		sent = 1
	}
	list, _ := p.want(200, "GET", "/api/messaging/messages?lead_id="+id, "").body["items"].([]any)
	if len(list) != sent {
		p.rt.Fatalf("%d messages, want %d, for the metadata %.1000s", len(list), sent, metadata)
	}
	lead := `{"sender_type":"email","bulk_settings":{"lead_ids":["` + id + `"]},"message_data":{"subject":"s","content":"{{ custom_fields.k0 }}."}`
	p.want(200, "POST", "/api/messaging/send", lead+`,"dry_run":true}`)
	if rapid.IntRange(0, 4).Draw(p.rt, "bulk") > 0 {
		return
	}
	done := p.want(200, "POST", "/api/messaging/send", lead+`}`, "Prefer", "wait=30")
	if done.body["status"] != "COMPLETED" {
		p.rt.Fatalf("a bulk to the lead: %s", done.raw)
	}
	p.want(200, "GET", "/api/messaging/bulk/"+done.body["bulk_id"].(string)+"/leads/"+id, "")
}

// filter tries what compares and what narrows lists down.
func (p prober) filter() {
	settings := `{"filters":{"conditions":[` + genCondition(p.rt) + "," + genCondition(p.rt) + `]}}`
	p.ask("POST", "/api/messaging/send", `{"sender_type":"email","bulk_settings":`+settings+`,"message_data":{"subject":"s","content":"c"},"dry_run":true}`)
	at := rapid.SampledFrom(timeTexts).Draw(p.rt, "created_after")
	p.ask("GET", "/api/messaging/messages?created_after="+url.QueryEscape(at)+"&created_before="+url.QueryEscape(at), "")
	p.ask("GET", "/api/channels?cursor="+url.QueryEscape(rapid.StringMatching(`[A-Za-z0-9_-]{0,80}`).Draw(p.rt, "cursor")), "")
	if rapid.Bool().Draw(p.rt, "channel") {
		p.channel()
	}
}

// channel makes a channel, changes it, sends over it, and takes it away.
func (p prober) channel() {
	id := uuid.NewString()
	a := p.ask("POST", "/api/channels", `{"id":"`+id+`","type":"EMAIL","name":"n","sender":"a@acme.test","credentials":{"api_key":"SG.a-key-of-a-test"},"price":`+genNumber(p.rt)+`,"rate_per_second":`+
		rapid.SampledFrom([]string{"null", "1e12", "0.01", "1e300", "5000", genNumber(p.rt)}).Draw(p.rt, "rate")+`}`)
	if a.status != 201 {
		p.want(404, "GET", "/api/channels/"+id+"/EMAIL", "")
		return
	}
	p.want(200, "GET", "/api/channels?limit=200", "")
	p.ask("PATCH", "/api/channels/"+id+"/EMAIL", `{"price":`+genNumber(p.rt)+`,"price_media":`+genNumber(p.rt)+`}`)
	p.ask("POST", "/api/messaging/send", `{"sender_identifier":"`+id+`","message_data":{"recipient":"x@example.com","subject":"s","content":"c"}}`)
	if a := p.ask("DELETE", "/api/channels/"+id+"/EMAIL", ""); a.status != 204 && a.status != 409 {
		p.rt.Fatalf("delete a channel: %d %s", a.status, a.raw)
	}
}

// Every digit of a number counts, wherever it is shown or compared.
func TestCaseNumbersKeepTheirDigits(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		id := h.lead(`"email":"a@example.com","custom_fields":{"n":9007199254740993,"in":{"list":[17841400000000123,0.10000000000000000001]},"sim":89014103211118510720,"price":12.50}`)
		h.lead(`"email":"b@example.com","custom_fields":{"n":9007199254740992,"sim":89014103211118510721}`)
		h.must(200, "POST", "/api/leads/import", "email,n\nc@example.com,9007199254740994\n", "Content-Type", "text/csv")
		h.must(200, "PATCH", "/api/leads/"+id, `{"city":"Oslo"}`)
		h.must(200, "POST", "/api/leads/import", `{"id":"`+id+`","custom_fields":{"k":1e3}}`, "Content-Type", "application/x-ndjson")
		for _, digits := range []string{"9007199254740993", "17841400000000123", "0.10000000000000000001", "89014103211118510720", "12.50", "1000"} {
			if a := h.must(200, "GET", "/api/leads/"+id, ""); !strings.Contains(a.raw, ":"+digits) && !strings.Contains(a.raw, "["+digits) && !strings.Contains(a.raw, ","+digits) {
				t.Errorf("%s is not in %s", digits, a.raw)
			}
		}
		for condition, want := range map[string]float64{
			`n","operator":"equals","value":9007199254740993`: 1, `n","operator":"equals","value":"9007199254740994"`: 1, `n","operator":"in","value":[9007199254740992,9007199254740993]`: 2,
			`n","operator":"gt","value":9007199254740992`: 2, `n","operator":"gt","value":9007199254740993`: 1, `n","operator":"lte","value":9007199254740992`: 1,
			`n","operator":"between","value":[9007199254740993,9007199254740993]`: 1, `n","operator":"lt","value":9007199254740992.0000000001`: 1,
			`sim","operator":"gt","value":89014103211118510720`: 1, `sim","operator":"not_equals","value":89014103211118510720`: 2, `price","operator":"equals","value":12.5`: 1, `k","operator":"equals","value":1000`: 1,
		} {
			if got := h.matching(`"custom_fields.` + condition); got != want {
				t.Errorf("%s finds %v, want %v", condition, got, want)
			}
		}
		a := h.send(`{"sender_type":"email","bulk_settings":{"lead_ids":["` + id + `"]},"message_data":{"subject":"s","content":"{{ custom_fields.n }} {{ custom_fields.n | plus: 1 }} {{ custom_fields.sim }} {{ custom_fields.price | times: 2 }}{% if custom_fields.price > 12 %} dear{% endif %}"},"dry_run":true}`)
		sample, _ := a.body["samples"].([]any)[0].(map[string]any)
		if sample["content"] != "9007199254740993 9007199254740994 89014103211118510720 25 dear" {
			t.Errorf("rendered: %v", sample["content"])
		}
		explained := h.send(`{"sender_type":"email","bulk_settings":{"filters":{"conditions":[{"field":"custom_fields.n","operator":"gte","value":9007199254740993}]}},"message_data":{"subject":"s","content":"c"}}`)
		if a := h.must(200, "GET", "/api/messaging/bulk/"+explained.body["bulk_id"].(string)+"/leads/"+id, ""); !strings.Contains(a.raw, `"value":[9007199254740993]`) || !strings.Contains(a.raw, `"actual":"9007199254740993"`) {
			t.Errorf("explained: %s", a.raw)
		}
	})
}

// Values that some part cannot carry are refused at every way in, with their place and the bound, and nothing is written.
func TestFaultValuesAreRefusedAtEveryWayIn(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		id := h.lead(`"email":"a@example.com"`)
		before := h.contents() + h.must(200, "GET", "/api/leads/"+id, "").raw + h.must(200, "GET", "/api/channels/"+emailChannel+"/EMAIL", "").raw
		single := func(metadata string) string {
			return `{"message_data":{"recipient":"x@example.com","subject":"s","content":"c","metadata":` + metadata + `}}`
		}
		filter := func(condition string) string {
			return `{"sender_type":"email","bulk_settings":{"filters":{"conditions":[{"field":` + condition + `}]}},"message_data":{"subject":"s","content":"c"}}`
		}
		const patched, channel, value = "/api/leads/", "/api/channels/" + emailChannel + "/EMAIL", `["body","bulk_settings","filters","conditions",0,"value"`
		for _, c := range []struct{ method, path, body, loc, bound string }{
			{"POST", "/api/leads", `{"custom_fields":{"n":1e309}}`, `["body","custom_fields","n"]`, "40 digits"},
			{"POST", "/api/leads", `{"custom_fields":{"a":[{"b":-1e200000}]}}`, `["body","custom_fields","a",0,"b"]`, "40 digits"},
			{"POST", "/api/leads", `{"custom_fields":{"n":1e-5000}}`, `["body","custom_fields","n"]`, "40 digits"},
			{"POST", "/api/leads", `{"custom_fields":{"":1}}`, `["body","custom_fields",""]`, "200 characters"},
			{"POST", "/api/leads", `{"email":"` + strings.Repeat("\u65e5", 1_000) + `"}`, `["body","email"]`, "2000 bytes"},
			{"POST", "/api/leads", `{"created_at":"9999-12-31T23:59:59-23:59"}`, `["body","created_at"]`, "years 1 to 9999"},
			{"POST", "/api/leads", `{"last_contacted_at":"0001-01-01T00:00:00+14:00"}`, `["body","last_contacted_at"]`, "years 1 to 9999"},
			{"PATCH", patched + id, `{"custom_fields":{"n":1e309}}`, `["body","custom_fields","n"]`, "40 digits"},
			{"PATCH", patched + id, `{"last_contacted_at":"0000-06-01T00:00:00Z"}`, `["body","last_contacted_at"]`, "years 1 to 9999"},
			{"POST", "/api/messaging/send", single(`{"n":[1e309]}`), `["body","message_data","metadata","n",0]`, "40 digits"},
			{"POST", "/api/messaging/send", strings.Replace(filter(`"email","operator":"is_empty"`), `"content":"c"`, `"content":"c","metadata":{"n":1e41}`, 1), `["body","message_data","metadata","n"]`, "40 digits"},
			{"POST", "/api/messaging/send", filter(`"custom_fields.n","operator":"gt","value":1e309`), value + `]`, "40 digits"},
			{"POST", "/api/messaging/send", filter(`"custom_fields.n","operator":"between","value":[1,1e41]`), value + `,1]`, "40 digits"},
			{"POST", "/api/messaging/send", filter(`"custom_fields.n","operator":"in","value":["a",1e-200000]`), value + `,1]`, "40 digits"},
			{"POST", "/api/messaging/send", filter(`"created_at","operator":"before","value":"9999-12-31T23:59:59-01:00"`), value + `]`, "years 1 to 9999"},
			{"POST", "/api/messaging/send", filter(`"created_at","operator":"after","value":"0000-01-01"`), value + `]`, "years 1 to 9999"},
			{"GET", "/api/messaging/messages?created_after=9999-12-31T23:59:59-01:00", "", `["query","created_after"]`, "years 1 to 9999"},
			{"GET", "/api/messaging/messages?created_before=0000-12-31T23:59:59Z", "", `["query","created_before"]`, "years 1 to 9999"},
			{"PATCH", channel, `{"price":1e12}`, `["body","price"]`, "0 to 100000"},
			{"PATCH", channel, `{"price_media":1e309}`, `["body","price_media"]`, "0 to 100000"},
			{"PATCH", channel, `{"rate_per_second":1e300}`, `["body","rate_per_second"]`, "1e+12"},
			{"GET", "/api/channels?cursor=" + base64.RawURLEncoding.EncodeToString([]byte(emailChannel+"\x00\xff")), "", `["query","cursor"]`, "cursor"},
		} {
			a := h.must(422, c.method, c.path, c.body)
			if _, named := a.locs()[c.loc]; !named || len(a.locs()) != 1 || !strings.Contains(a.raw, c.bound) {
				t.Errorf("%s %.200s: %s, want %s at %s", c.method, c.body, a.raw, c.bound, c.loc)
			}
		}
		if after := h.contents() + h.must(200, "GET", "/api/leads/"+id, "").raw + h.must(200, "GET", channel, "").raw; after != before {
			t.Errorf("something was written: %s", after)
		}
	})
}

// A write whose answer fails has written nothing.
func TestFaultValuesAFailedWriteWroteNothing(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		// The row cannot be read back.
		if strings.HasPrefix(url, "sqlite") {
			tamper(t, url, "CREATE TRIGGER hide AFTER INSERT ON suppressions BEGIN UPDATE suppressions SET reason = 'hidden' WHERE id = NEW.id; END")
		} else {
			tamper(t, url, "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.reason := ''hidden''; RETURN NEW; END'")
			tamper(t, url, "CREATE TRIGGER hide BEFORE INSERT ON suppressions FOR EACH ROW EXECUTE FUNCTION hide()")
		}
		if a := h.call("POST", "/api/suppressions", `{"type":"EMAIL","address":"a@example.com"}`); a.status != 500 {
			t.Fatalf("%s", a.raw)
		}
		if a := h.must(200, "GET", "/api/suppressions", ""); len(a.body["items"].([]any)) != 0 {
			t.Errorf("it was written: %s", a.raw)
		}
	})
}
