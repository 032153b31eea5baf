package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/testenv"
)

// stuck resolves nothing until it is released.
type stuck struct {
	audience.Resolver
	under   atomic.Int64
	release chan struct{}
}

func (s *stuck) Resolve(ctx context.Context, c *audience.Criteria, t message.ChannelType, after string, limit int) (audience.Page, error) {
	s.under.Add(1)
	defer s.under.Add(-1)
	select {
	case <-s.release:
		return s.Resolver.Resolve(ctx, c, t, after, limit)
	case <-ctx.Done():
		return audience.Page{}, ctx.Err()
	}
}

const dryRun = `{"dry_run":true,"bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`

// An API key has at most two dry runs in progress, and all keys together fewer than the audience pool has connections. Dry runs
// beyond that are rejected with Retry-After, and other requests are not affected.
func TestFaultDryRunsAreFew(t *testing.T) {
	h := start(t)
	resolver := &stuck{Resolver: h.app.Stores.Audiences, release: make(chan struct{})}
	h.previewWith(resolver, 0)
	_, first := h.key(access.Key{Scopes: access.Scopes})
	_, second := h.key(access.Key{Scopes: access.Scopes})
	var wg sync.WaitGroup
	try := func(token string) {
		before := resolver.under.Load()
		wg.Go(func() {
			if a := h.as(token).call(http.MethodPost, "/api/messaging/send", dryRun); a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.raw)
			}
		})
		testenv.Eventually(t, 10*time.Second, "it is under way", func() bool { return resolver.under.Load() > before })
	}
	try(first)
	try(first)
	refused := func(token string, status int, says string) {
		t.Helper()
		a := h.as(token).call(http.MethodPost, "/api/messaging/send", dryRun)
		if a.status != status || a.header.Get("Retry-After") != "5" || !strings.Contains(a.raw, says) {
			t.Errorf("%d, Retry-After %q: %s", a.status, a.header.Get("Retry-After"), a.raw)
		}
	}
	refused(first, http.StatusTooManyRequests, "at most 2 dry runs")
	try(second)
	refused(second, http.StatusServiceUnavailable, "too many dry runs")
	refused(first, http.StatusTooManyRequests, "at most 2 dry runs")
	if a := h.as(first).call(http.MethodGet, "/api/leads", ""); a.status != http.StatusOK {
		t.Errorf("another request: %d", a.status)
	}
	close(resolver.release)
	wg.Wait()
	for range 4 { // every place is free again
		if a := h.as(first).call(http.MethodPost, "/api/messaging/send", dryRun); a.status != http.StatusOK {
			t.Errorf("afterwards: %d %s", a.status, a.raw)
		}
	}
}

// A dry run that takes too long is refused with its bound, gives its place back, and is no sign of a caller that left.
func TestFaultADryRunHasABound(t *testing.T) {
	h := start(t)
	resolver := &stuck{Resolver: h.app.Stores.Audiences, release: make(chan struct{})}
	h.previewWith(resolver, 20*time.Millisecond)
	for range 5 {
		a := h.call(http.MethodPost, "/api/messaging/send", dryRun)
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.raw, "10 s") || !strings.Contains(a.raw, `["body","dry_run"]`) {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	h.previewWith(tooSlow{resolver.Resolver}, 20*time.Millisecond) // the database gave it up by itself
	if a := h.call(http.MethodPost, "/api/messaging/send", dryRun); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.raw, `["body","dry_run"]`) {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// previewWith makes the server's dry runs resolve audiences with another resolver; a timeout of 0 is the default.
func (h *herald) previewWith(r audience.Resolver, timeout time.Duration) {
	stores := h.app.Stores
	*h.app.Preview = *bulk.NewPreviewer(bulk.PreviewDeps{Resolver: r, Plan: stores.Runs, Store: stores.Previews, Queue: h.app.Queue, Timeout: timeout})
}

// as is the herald with another key.
func (h *herald) as(token string) *herald {
	other := *h
	other.token = token
	return &other
}

type tooSlow struct{ audience.Resolver }

func (tooSlow) Resolve(context.Context, *audience.Criteria, message.ChannelType, string, int) (audience.Page, error) {
	return audience.Page{}, audience.ErrTooSlow
}

// Criteria that would make too many comparisons for each lead are refused by name, as a bulk and as a dry run, and nothing is
// written; the largest that are allowed are accepted.
func TestFaultExpensiveCriteriaAreRefused(t *testing.T) {
	h := start(t)
	list := func(n int) []string {
		values := make([]string, n)
		for i := range values {
			values[i] = "v" + strings.Repeat("x", i%7) + string(rune('a'+i%26))
		}
		return values
	}
	cond := func(field, op string, value any) map[string]any {
		return map[string]any{"field": field, "operator": op, "value": value}
	}
	repeat := func(n int, c map[string]any) (all []any) {
		for range n {
			all = append(all, c)
		}
		return all
	}
	filter := func(conditions ...any) map[string]any {
		return map[string]any{"filters": map[string]any{"conditions": conditions}}
	}
	for name, c := range map[string]struct {
		settings map[string]any
		refused  string
	}{
		"48 conditions of 200 values":      {filter(repeat(48, cond("city", "not_contains", list(200)))...), "9600"},
		"ends_with behind a group":         {filter(map[string]any{"logic": "OR", "conditions": repeat(3, cond("email", "ends_with", "x"))}, cond("company", "contains", list(998))), "1001"},
		"custom fields":                    {filter(append(repeat(400, cond("custom_fields.n", "gt", 1)), cond("title", "starts_with", "x"), cond("custom_fields.t", "contains", list(600)))...), "1001"},
		"tags":                             {filter(repeat(4, cond("tags", "not_contains", list(999)))...), "1332"},
		"tags that are excluded, and text": {merge(filter(cond("city", "contains", list(700))), "exclude_tags", list(904)), "1002"},
		"words, and text":                  {merge(filter(cond("city", "contains", list(999))), "search_keyword", "two words"), "1001"},
		"a list of 1000 domains":           {filter(cond("email", "not_contains", list(1000))), ""},
		"lists of values that are equal":   {filter(repeat(10, cond("email", "in", list(1000)))...), ""},
		"and that are not":                 {filter(repeat(10, cond("company", "not_in", list(1000)))...), ""},
		"1000 tags that are excluded":      {map[string]any{"all_leads": true, "exclude_tags": list(1000)}, ""},
		"500 plain conditions":             {filter(repeat(500, cond("status", "equals", "open"))...), ""},
	} {
		body := map[string]any{"bulk_settings": c.settings, "message_data": map[string]any{"subject": "s", "content": "c"}}
		for _, dry := range []bool{false, true} {
			body["dry_run"] = dry
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			a := h.call(http.MethodPost, "/api/messaging/send", string(b))
			switch {
			case c.refused == "" && a.status != http.StatusOK:
				t.Errorf("%s, dry run %v: %d %.300s", name, dry, a.status, a.raw)
			case c.refused != "" && (a.status != http.StatusUnprocessableEntity || !strings.Contains(a.raw, "at most 1000 comparisons") ||
				!strings.Contains(a.raw, c.refused) || !strings.Contains(a.raw, `["body","bulk_settings"]`)):
				t.Errorf("%s, dry run %v: %d %.300s", name, dry, a.status, a.raw)
			}
		}
	}
	if n := len(h.must(200, http.MethodGet, "/api/messaging/bulk?limit=200", "").body["items"].([]any)); n != 5 {
		t.Errorf("%d bulks were written, 5 were accepted", n)
	}
}

func merge(m map[string]any, name string, v any) map[string]any {
	m[name] = v
	return m
}
