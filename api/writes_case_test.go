package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/config"
	"herald/pkg/testenv"
)

// Concurrent writes of leads with one address leave what the same requests leave one after the other: every POST makes its lead,
// the imports make one together at most, and no change of a field is lost.
func TestCaseConcurrentWritesOfOneAddress(t *testing.T) {
	t.Parallel()
	const each, rounds = 8, 3
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		stored := 0
		for round := range rounds {
			address := fmt.Sprintf("p%d@example.com", round)
			var mu sync.Mutex
			imported := 0
			var writes []func()
			for i := range each {
				writes = append(writes, func() {
					h.insist(201, "POST", "/api/leads", fmt.Sprintf(`{"email":%q,"first_name":"F%d"}`, address, i))
				}, func() {
					n, _ := h.insist(200, "POST", "/api/leads/import", "email,company\n"+address+",Acme\n", "Content-Type", "text/csv").body["imported"].(float64)
					mu.Lock()
					defer mu.Unlock()
					imported += int(n)
				})
			}
			atOnce(writes...)
			leads := h.must(200, "GET", "/api/leads?limit=200", "").body["items"].([]any)
			if len(leads)-stored != each+imported || imported > 1 {
				t.Errorf("%d leads with one address after %d POST and %d imports, which made %d", len(leads)-stored, each, each, imported)
			}
			stored = len(leads)
		}
		id := h.lead(`"email":"patched@example.com"`)
		fields := []string{"first_name", "last_name", "company", "title", "city", "state", "country", "source"}
		var writes []func()
		for i, name := range fields {
			writes = append(writes, func() {
				h.insist(200, "PATCH", "/api/leads/"+id, fmt.Sprintf(`{%q:"patched"}`, name), "Content-Type", "application/json")
			}, func() {
				h.insist(200, "POST", "/api/leads/import", fmt.Sprintf("email,tags,n%d\nPatched@example.com,t%d,imported\n", i, i), "Content-Type", "text/csv")
			})
		}
		atOnce(writes...)
		l := h.must(200, "GET", "/api/leads/"+id, "").body
		for i, name := range fields {
			if custom := l["custom_fields"].(map[string]any); l[name] != "patched" || custom[fmt.Sprintf("n%d", i)] != "imported" || len(l["tags"].([]any)) != len(fields) {
				t.Errorf("%s: a write is lost: %v", name, l)
			}
		}
		if a := h.call(http.MethodGet, "/api/leads?limit=200", ""); strings.Count(a.raw, "atched@example.com") != 1 {
			t.Errorf("%s", a.raw)
		}
	})
}

// insist makes a request, and again while the API has no place for it.
func (h *herald) insist(status int, method, path, body string, headers ...string) answer {
	h.t.Helper()
	for {
		a := h.call(method, path, body, headers...)
		if a.status != http.StatusServiceUnavailable {
			if a.status != status {
				h.t.Errorf("%s %s: %d %s, want %d", method, path, a.status, a.raw, status)
			}
			return a
		}
		<-time.After(5 * time.Millisecond)
	}
}

// atOnce runs functions at the same time and waits for them.
func atOnce(all ...func()) {
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for _, do := range all {
		wg.Go(func() {
			<-begin
			do()
		})
	}
	close(begin)
	wg.Wait()
}
