package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/pkg/access"
)

// concrete fills the parameters of an operation's path with the document's own examples.
func (op *operation) concrete(path string) string {
	for _, p := range op.Parameters {
		if p.In == "path" {
			path = strings.ReplaceAll(path, "{"+p.Name+"}", fmt.Sprint(p.Example))
		}
	}
	return path
}

// Every route rejects a missing, revoked or expired key and a key of another scope.
func TestEveryRouteNeedsItsKey(t *testing.T) {
	h := start(t)
	d := the(h)
	past := time.Now().Add(-time.Minute)
	tokens := map[access.Scope]string{}
	for _, s := range access.Scopes {
		_, tokens[s] = h.key(access.Key{Name: string(s), Scopes: []access.Scope{s}})
	}
	_, h.token = h.key(access.Key{Scopes: access.Scopes})
	_, expired := h.key(access.Key{Scopes: access.Scopes, ExpiresAt: &past})
	revokedKey, revoked := h.key(access.Key{Scopes: access.Scopes})
	if err := h.app.Keys.Revoke(t.Context(), revokedKey.ID); err != nil {
		t.Fatal(err)
	}
	all := h.token
	before := h.contents()
	routes, closed := 0, 0
	for path, ops := range d.Paths {
		for method, op := range ops {
			routes++
			method = strings.ToUpper(method)
			path := op.concrete(path)
			try := func(name, authorization string, want ...int) {
				t.Helper()
				h.token = ""
				var headers []string
				if authorization != "" {
					headers = []string{"Authorization", authorization}
				}
				a := h.call(method, path, "", headers...)
				if !slices.Contains(want, a.status) {
					t.Errorf("%s %s, %s: %d %s", method, path, name, a.status, a.raw)
				}
				if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s: 401 does not say how to do better", method, path)
				}
			}
			if len(op.Security) == 0 {
				try("open", "", 200)
				continue
			}
			closed++
			scope := access.Scope(op.Security[0]["apiKey"][0])
			try("no key", "", 401)
			try("a revoked key", "Bearer "+revoked, 401)
			try("an expired key", "Bearer "+expired, 401)
			try("nonsense", "Bearer nonsense", 401)
			try("another scheme", "Basic "+all, 401)
			for _, other := range access.Scopes {
				if other != scope {
					try("a key for "+string(other), "Bearer "+tokens[other], 403)
				}
			}
			h.token = ""
			if a := h.call(method, path, "{", "Authorization", "bearer "+tokens[scope]); a.status == 401 || a.status == 403 {
				t.Errorf("%s %s with a key for %s: %d", method, path, scope, a.status)
			}
		}
	}
	if closed < 20 || routes-closed != 4 {
		t.Errorf("%d of %d routes need a key", closed, routes)
	}
	h.token = all
	if after := h.contents(); after != before {
		t.Errorf("something was written: %s, before %s", after, before)
	}
}

// contents sums up what is stored, for tests that must change nothing.
func (h *herald) contents() string {
	h.t.Helper()
	counts := map[string]int{}
	for _, list := range []string{"messaging/messages", "messaging/bulk", "channels", "leads", "suppressions"} {
		a := h.must(200, "GET", "/api/"+list+"?limit=200", "")
		counts[list] = len(a.body["items"].([]any))
	}
	var out []string
	for _, list := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%d %s", counts[list], list))
	}
	return strings.Join(out, ", ")
}

// Without API keys, the caller's location is the only credential: cross-site requests of a browser and requests through a
// proxy are rejected.
func TestTheLoopbackRule(t *testing.T) {
	h := start(t)
	before := h.contents()
	for name, headers := range map[string][]string{
		"a page of another site":        {"Sec-Fetch-Site", "cross-site"},
		"another origin":                {"Origin", "https://evil.test"},
		"a name that leads here":        {"Host", "evil.test"},
		"a proxy's guest":               {"Host", "api.acme.test:443"},
		"an address of another machine": {"Host", "192.0.2.1"},
	} {
		if a := h.call("POST", "/api/messaging/send", emailExample, headers...); a.status != 403 || a.body["code"] != "forbidden" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	if after := h.contents(); after != before {
		t.Errorf("something was written: %s, before %s", after, before)
	}
	for name, headers := range map[string][]string{
		"localhost": {"Host", "localhost:1"}, "the address bar": {"Sec-Fetch-Site", "none"}, "this page": {"Sec-Fetch-Site", "same-origin"}, "IPv6": {"Host", "[::1]:8080"}, "no port": {"Host", "127.0.0.1"},
	} {
		if a := h.call("POST", "/api/messaging/send", emailExample, headers...); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	_, h.token = h.key(access.Key{Scopes: access.Scopes})
	if a := h.call("GET", "/api/leads", "", "Host", "api.acme.test", "Origin", "https://acme.test"); a.status != 200 {
		t.Errorf("with a key, under a name: %d %s", a.status, a.raw)
	}
}

func TestAKeyHasItsRate(t *testing.T) {
	h := start(t)
	_, fast := h.key(access.Key{Scopes: access.Scopes})
	_, h.token = h.key(access.Key{Scopes: access.Scopes, Rate: 0.1})
	h.send(emailExample)
	a := h.must(429, "POST", "/api/messaging/send", emailExample)
	if a.body["code"] != "throttled" || a.header.Get("Retry-After") == "" || a.header.Get("Retry-After") == "0" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	h.token = fast
	if n := h.written(); n != 1 {
		t.Errorf("%d messages are on record", n)
	}
}

func TestLookingAtOneLead(t *testing.T) {
	h := start(t)
	id := h.lead(`"first_name":"Ann","custom_fields":{"plan":"pro"}`)
	if a := h.must(200, "GET", "/api/leads/"+id, ""); a.body["first_name"] != "Ann" || a.body["email"] != nil {
		t.Error(a.raw)
	}
	h.must(404, "GET", "/api/leads/"+emailChannel, "")
}

// The page needs nothing from elsewhere and may run nothing.
func TestThePageOfTheDocument(t *testing.T) {
	h := start(t)
	a := h.must(200, "GET", "/docs", "")
	if csp := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'unsafe-inline';") {
		t.Errorf("policy %q", csp)
	}
	for _, foreign := range []string{"<script", "src=", "@import", "<link", "url("} {
		if strings.Contains(a.raw, foreign) {
			t.Errorf("the page has %s", foreign)
		}
	}
	page := a.raw
	for path, ops := range the(h).Paths {
		for method, op := range ops {
			if !strings.Contains(page, `id="`+op.OperationID+`"`) || !strings.Contains(page, path) {
				t.Errorf("%s %s is not on the page", method, path)
			}
		}
	}
	if h.must(200, "GET", "/openapi.json", "").body["openapi"] != "3.1.0" {
		t.Error("the document is of another version")
	}
}
