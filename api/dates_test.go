package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/config"
	"herald/pkg/testenv"
)

// A bulk by the dates of custom fields is planned in the time zone of its request. The explanation of a lead evaluates the same.
func TestCaseBulksByDatesOfCustomFields(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		ids := map[string]string{}
		for name, renewal := range map[string]string{
			"day": `"2025-01-31"`, "clock": `"31.01.2025 00:30"`, "moment": `"2025-01-30T23:30:00Z"`, "before": `"2025-01-30"`, "ambiguous": `"1/2/2025"`, "text": `"soon"`, "amount": `"1,234.50"`,
		} {
			ids[name] = h.lead(`"email":"` + name + `@example.com","custom_fields":{"renewal":` + renewal + `}`)
		}
		condition := `"filters":{"conditions":[{"field":"custom_fields.renewal","operator":"between","value":["2025-01-31","31.01.2025"]}]}`
		body := func(settings string) string {
			return `{"sender_type":"email","bulk_settings":{` + settings + `},"message_data":{"subject":"s","content":"c"}`
		}
		for zone, want := range map[string]float64{"": 2, `"timezone":"Europe/Berlin",`: 3, `"timezone":"America/New_York",`: 2} {
			if a := h.send(body(zone+condition) + `,"dry_run":true}`); a.body["total_leads"] != want {
				t.Errorf("%s: %v leads, want %v", zone, a.body["total_leads"], want)
			}
		}
		a := h.send(body(`"timezone":"Europe/Berlin",`+condition) + "}")
		if a.body["messages_sent"] != 3.0 || len(h.sim.Accepted("moment@example.com")) != 1 || len(h.sim.Accepted("before@example.com")) != 0 {
			t.Fatalf("%s", a.raw)
		}
		of := "/api/messaging/bulk/" + a.body["bulk_id"].(string)
		if shown := h.must(200, "GET", of, ""); !strings.Contains(shown.raw, `"timezone":"Europe/Berlin"`) {
			t.Errorf("the request is shown without its time zone: %s", shown.raw)
		}
		for name, note := range map[string]any{
			"moment": nil, "before": nil, "text": "is not a date", "amount": "is not a date", "ambiguous": "is not a date: it can be read as day/month and as month/day",
		} {
			e := h.must(200, "GET", of+"/leads/"+ids[name], "")
			verdict, _ := e.body["criteria"].([]any)[0].(map[string]any)["conditions"].([]any)[0].(map[string]any)
			if verdict["note"] != note || verdict["matched"] != (name == "moment") || e.body["matches_now"] != (name == "moment") {
				t.Errorf("%s: %s", name, e.raw)
			}
		}
	})
}

// within_last_days and within_next_days on fields of a lead that are times.
func TestCaseDaysFromNow(t *testing.T) {
	h := start(t)
	at := func(days int) string {
		return `"last_contacted_at":"` + time.Now().AddDate(0, 0, days).UTC().Format(time.RFC3339) + `"`
	}
	h.lead(`"email":"a@example.com",` + at(-3))
	h.lead(`"email":"b@example.com",` + at(3))
	for condition, want := range map[string]float64{
		`"within_next_days","value":4`: 1, `"within_next_days","value":2`: 0, `"within_last_days","value":4`: 1, `"within_last_days","value":2`: 0,
	} {
		if got := h.matching(`"last_contacted_at","operator":` + condition); got != want {
			t.Errorf("%s: %v leads, want %v", condition, got, want)
		}
	}
}

func TestCaseTimezonesThatDoNotExist(t *testing.T) {
	h := start(t)
	h.lead(`"email":"a@example.com"`)
	for _, zone := range []string{`"Mars/Phobos"`, `"Local"`, `"+02:00"`, `"CEST "`} {
		a := h.must(422, "POST", "/api/messaging/send", `{"bulk_settings":{"all_leads":true,"timezone":`+zone+`},"message_data":{"subject":"s","content":"c"}}`)
		if d := cmp.Diff(map[string]string{`["body","bulk_settings","timezone"]`: "value_error"}, a.locs()); d != "" {
			t.Errorf("%s: %s", zone, d)
		}
	}
	if h.sim.Report().Accepted != 0 {
		t.Error("a message was sent")
	}
}
