package api_test

import (
	"net/url"
	"slices"
	"strings"
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
