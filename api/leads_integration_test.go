package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"herald/pkg/config"
	"herald/pkg/testenv"
)

// eachHerald starts Herald on both databases.
func eachHerald(t *testing.T, test func(t *testing.T, h *herald)) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		test(t, launch(t, func(c *config.Config) { c.DatabaseURL = url }))
	})
}

// found returns the ids of a list, read page by page.
func (h *herald) found(query string) []string {
	h.t.Helper()
	ids := []string{}
	for cursor := ""; ; {
		a := h.must(200, "GET", "/api/leads?limit=2"+query+cursor, "")
		for _, item := range a.body["items"].([]any) {
			ids = append(ids, item.(map[string]any)["id"].(string))
		}
		next, more := a.body["next_cursor"].(string)
		if !more {
			return ids
		}
		cursor = "&cursor=" + next
	}
}

func TestIntegrationLeadsAreFound(t *testing.T) {
	eachHerald(t, func(t *testing.T, h *herald) {
		ann := h.lead(`"first_name":"José","email":"Ann@Example.com","phone":"+1 (415) 555-0101","tags":["VIP ","import"],"status":"Qualified","assignee_id":"user-1","created_at":"2024-01-31T10:00:00Z"`)
		bob := h.lead(`"first_name":"Bob","email":"Bob B <bob@example.com>","phone":"+14155550102","instagram_id":"17841400","tags":["import"],"status":"new","assignee_id":"User-1","created_at":"2024-02-29T10:00:00.000001Z"`)
		cat := h.lead(`"first_name":"Cat","last_name":"José","phone":"030 901820","tags":["import"],"created_at":"2024-03-31T10:00:00Z"`)
		dan := h.lead(`"first_name":"Dan","email":"not an address"`)
		for query, want := range map[string][]string{
			"": {ann, bob, cat, dan}, "&email=ann@example.com": {ann}, "&email=ANN@example.COM": {ann}, "&email=bob@example.com": {bob}, "&email=" + url.QueryEscape("X <bob@example.com>"): {bob},
			"&email=not+an+ADDRESS": {dan}, "&email=ann": {}, "&phone=%2B14155550101": {ann}, "&phone=+14155550101": {ann}, "&phone=" + url.QueryEscape("+1 415-555-0102"): {bob},
			"&phone=030+901820": {cat}, "&instagram_id=17841400": {bob}, "&instagram_id=1784140": {}, "&assignee_id=user-1": {ann}, "&assignee_id=User-1": {bob},
			"&tag=vip": {ann}, "&tag=IMPORT": {ann, bob, cat}, "&tag=vi": {}, "&status=QUALIFIED": {ann}, "&status=qual": {},
			"&search=jose": {ann, cat}, "&search=JOS%C3%89+901": {cat}, "&search=415+555": {ann, bob}, "&search=josefa": {},
			"&created_after=2024-02-29T10:00:00Z": {bob, cat, dan}, "&created_after=2024-02-29T10:00:00.000001Z": {cat, dan}, "&created_before=2024-02-29T10:00:00.000001Z": {ann},
			"&created_after=2024-02-01T00:00:00Z&created_before=2024-03-01T00:00:00%2B01:00": {bob}, "&updated_after=2024-12-31T00:00:00Z": {ann, bob, cat, dan}, "&updated_after=9999-01-01T00:00:00Z": {},
			"&tag=import&search=jose": {ann, cat}, "&tag=import&search=jose&assignee_id=user-1&status=qualified&email=ann@example.com": {ann}, "&email=ann@example.com&status=new": {},
		} {
			if got := h.found(query); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
		}
		next := h.must(200, "GET", "/api/leads?limit=1&tag=import", "").body["next_cursor"].(string)
		h.says(h.must(422, "GET", "/api/leads?limit=1&tag=vip&cursor="+next, ""), `["query","cursor"]`, "is not a cursor of this list")
	})
}

func TestIntegrationWrongFiltersOfLeads(t *testing.T) {
	h := start(t)
	for query, want := range map[string][2]string{
		"email=": {"email", "must not be empty"}, "phone=%00": {"phone", "NUL"}, "tag=%ff": {"tag", "UTF-8"}, "tag=" + strings.Repeat("é", 201): {"tag", "at most 200 characters"},
		"search=" + strings.Repeat("x", 201): {"search", "at most 200 characters"}, "search=%22,%22": {"search", "at least one word"}, "created_after=today": {"created_after", ""},
		"status=a&status=b": {"status", "more than once"}, "updated_after=2024": {"updated_after", ""}, "name=x": {"name", "unknown parameter"},
	} {
		h.says(h.must(422, "GET", "/api/leads?"+query, ""), `["query","`+want[0]+`"]`, want[1])
	}
	for _, query := range []string{"tag=" + strings.Repeat("é", 200), "email=" + strings.Repeat("x", 1000), "search=" + strings.Repeat("a+", 99) + "b"} {
		h.must(200, "GET", "/api/leads?"+query, "")
	}
}

// A patch changes some custom fields and some tags; what it does not name stays.
func TestIntegrationLeadsAreChangedInPart(t *testing.T) {
	eachHerald(t, func(t *testing.T, h *herald) {
		path := "/api/leads/" + h.lead(`"first_name":"Ann","tags":["VIP","old"],"custom_fields":{"plan":"pro","seats":3,"address":{"city":"Oslo","zip":"0150"},"list":[1,2]}`)
		for _, step := range []struct{ patch, tags, custom string }{
			{`{"custom_fields":{"plan":null,"seats":4,"address":{"zip":null,"street":"Kirkegata"},"list":[3],"new":{"a":null,"b":1}}}`, `["VIP","old"]`, `{"address":{"city":"Oslo","street":"Kirkegata"},"list":[3],"new":{"b":1},"seats":4}`},
			{`{"custom_fields":{"address":"none","new":null,"absent":null}}`, `["VIP","old"]`, `{"address":"none","list":[3],"seats":4}`},
			{`{"custom_fields":{}}`, `["VIP","old"]`, `{"address":"none","list":[3],"seats":4}`},
			{`{"add_tags":["vip"," new ","new"],"remove_tags":["OLD","absent"]}`, `["VIP","new"]`, `{"address":"none","list":[3],"seats":4}`},
			{`{"add_tags":null,"remove_tags":[]}`, `["VIP","new"]`, `{"address":"none","list":[3],"seats":4}`},
			{`{"tags":["only"],"custom_fields":null}`, `["only"]`, `{}`},
			{`{"custom_fields":{"a":1},"tags":null,"first_name":"Bea"}`, `[]`, `{"a":1}`},
		} {
			h.must(200, "PATCH", path, step.patch)
			a := h.must(200, "GET", path, "")
			tags, _ := json.Marshal(a.body["tags"])
			custom, _ := json.Marshal(a.body["custom_fields"])
			if string(tags) != step.tags || string(custom) != step.custom {
				t.Errorf("%s: %s and %s, want %s and %s", step.patch, tags, custom, step.tags, step.custom)
			}
		}
		before := h.must(200, "GET", path, "").raw
		for patch, want := range map[string][2]string{
			`{"tags":["a"],"add_tags":["b"]}`:                                  {`["body","add_tags"]`, "not be given together with tags"},
			`{"tags":null,"remove_tags":["b"]}`:                                {`["body","remove_tags"]`, "not be given together with tags"},
			`{"add_tags":["a"," Vip"],"remove_tags":["x","vIP "]}`:             {`["body","remove_tags",1]`, "is among add_tags too"},
			`{"add_tags":["a",""]}`:                                            {`["body","add_tags",1]`, "must not be empty"},
			`{"remove_tags":["` + strings.Repeat("x", 201) + `"]}`:             {`["body","remove_tags",0]`, "at most 200 characters"},
			`{"custom_fields":{"b":"` + strings.Repeat("x", 64<<10-12) + `"}}`: {`["body","custom_fields"]`, "together with those of the lead"},
			`{"custom_fields":{"` + strings.Repeat("x", 201) + `":1}}`:         {`["body","custom_fields","` + strings.Repeat("x", 100) + `…"]`, "1 to 200 characters"},
			`{"custom_fields":[]}`:                                             {`["body","custom_fields"]`, ""},
		} {
			h.says(h.must(422, "PATCH", path, patch), want[0], want[1])
		}
		if after := h.must(200, "GET", path, "").raw; after != before {
			t.Errorf("a refused patch changed %s to %s", before, after)
		}
		many := make([]string, 200)
		for i := range many {
			many[i] = fmt.Sprintf("%q", fmt.Sprint("t", i))
		}
		h.must(200, "PATCH", path, `{"add_tags":[`+strings.Join(many, ",")+`]}`)
		h.says(h.must(422, "PATCH", path, `{"add_tags":["more"]}`), `["body","add_tags"]`, "at most 200 together with those of the lead")
		h.must(200, "PATCH", path, `{"add_tags":["more"],"remove_tags":["T0"]}`)
	})
}

// Concurrent patches of different custom fields and tags are all kept.
func TestIntegrationConcurrentPatchesAreMerged(t *testing.T) {
	eachHerald(t, func(t *testing.T, h *herald) {
		path := "/api/leads/" + h.lead(`"first_name":"Ann"`)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if a := h.call("PATCH", path, fmt.Sprintf(`{"add_tags":["t%d"],"custom_fields":{"c%d":%d}}`, i, i, i)); a.status != 200 {
					t.Errorf("%d %s", a.status, a.raw)
				}
			})
		}
		wg.Wait()
		a := h.must(200, "GET", path, "")
		if len(a.body["tags"].([]any)) != 20 || len(a.body["custom_fields"].(map[string]any)) != 20 {
			t.Errorf("%s", a.raw)
		}
	})
}
