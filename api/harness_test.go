package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/app"
	"herald/pkg/app/apptest"
	"herald/pkg/config"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// herald is one whole Herald, embedded, answering on a loopback address.
type herald struct {
	t    testing.TB
	base string
	app  *app.Embedded
	sim  *simulator.Simulator

	token string // of the API key that calls are made with; empty for none
}

const (
	emailChannel = "0190a000-0000-7000-8000-000000000001"
	pairChannel  = "825b8057-c85f-44a9-9e9f-6e7d7389ecfc"
)

func start(t *testing.T) *herald {
	t.Helper()
	return startWith(t, func(*config.Config) {})
}

func startWith(t *testing.T, change func(*config.Config)) *herald {
	t.Helper()
	t.Parallel()
	return launch(t, change)
}

func launch(t testing.TB, change func(*config.Config)) *herald {
	t.Helper()
	e, base := apptest.Start(t, change)
	h := &herald{t: t, base: base, app: e, sim: e.Simulator}
	h.must(201, "POST", "/api/channels", `{"id":"`+emailChannel+`","type":"EMAIL","name":"Mail","sender":"news@acme.test","sender_name":"Acme",
		"allowed_senders":["*@acme.test"],"credentials":{"api_key":"SG.secret-of-the-test"},"price":0.001,"default":true}`)
	h.must(201, "POST", "/api/channels", `{"id":"`+pairChannel+`","type":"sms","name":"SMS","sender":"+15005550006","price":0.0079,"price_media":0.02,
		"credentials":{"account_sid":"AC00000000000000000000000000000000","auth_token":"secret-of-the-test"},"default":true,"region":"US"}`)
	h.must(201, "POST", "/api/channels", `{"id":"`+pairChannel+`","type":"instagram_dm","name":"IG","sender":"17841400000000000",
		"credentials":{"access_token":"secret-of-the-test"},"default":true}`)
	return h
}

// answer is a response, its body decoded.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (h *herald) call(method, path, body string, headers ...string) answer {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	said := exchange{method, path, body, req.Header, res.StatusCode, res.Header, b}
	route, query, _ := strings.Cut(path, "?")
	if said.path = strings.TrimSuffix(route, "/"); query != "" { // a slash at the end changes nothing
		said.path += "?" + query
	}
	if req.Header.Get("Content-Encoding") != "" {
		said.body = inflated(body)
	}
	the(h).holds(h.t, said)
	a := answer{status: res.StatusCode, header: res.Header, raw: string(b)}
	if !strings.Contains(res.Header.Get("Content-Type"), "json") { // holds has compared the media type with the document
		return a
	}
	if err := json.Unmarshal(b, &a.body); err != nil {
		h.t.Fatalf("%s %s: %d, not JSON: %q", method, path, res.StatusCode, b)
	}
	return a
}

func (h *herald) must(status int, method, path, body string, headers ...string) answer {
	h.t.Helper()
	a := h.call(method, path, body, headers...)
	if a.status != status {
		h.t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.raw, status)
	}
	return a
}

func (h *herald) send(body string, headers ...string) answer {
	h.t.Helper()
	return h.must(200, "POST", "/api/messaging/send", body, headers...)
}

func (h *herald) message(id string) answer {
	h.t.Helper()
	return h.must(200, "GET", "/api/messaging/messages/"+id, "")
}

// lead stores a lead and returns its id.
func (h *herald) lead(fields string) string {
	h.t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	h.must(201, "POST", "/api/leads", `{"id":"`+id+`",`+fields+`}`)
	return id
}

// waitStatus waits until a message has a status.
func (h *herald) waitStatus(id, status string) answer {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		a := h.message(id)
		if a.body["status"] == status {
			return a
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("message %s is not %s: %s", id, status, a.raw)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// written counts what the ledger holds.
func (h *herald) written() int {
	h.t.Helper()
	messages := h.must(200, "GET", "/api/messaging/messages?limit=200", "").body["items"].([]any)
	bulks := h.must(200, "GET", "/api/messaging/bulk?limit=200", "").body["items"].([]any)
	return len(messages) + len(bulks)
}

// locs returns the paths of a 422's mistakes as JSON, with their types.
func (a answer) locs() map[string]string {
	out := map[string]string{}
	list, _ := a.body["detail"].([]any)
	for _, d := range list {
		f, _ := d.(map[string]any)
		var b bytes.Buffer
		_ = json.NewEncoder(&b).Encode(f["loc"])
		slug, _ := f["type"].(string)
		out[strings.TrimSpace(b.String())] = slug
	}
	return out
}

// status makes a request whose answer has no body.
func (h *herald) status(method, path string) int {
	h.t.Helper()
	return h.call(method, path, "").status
}

// key makes an API key and waits until the API asks for one.
func (h *herald) key(k access.Key) (*access.Key, string) {
	h.t.Helper()
	token, err := h.app.Keys.Create(h.t.Context(), &k, false)
	if err != nil {
		h.t.Fatal(err)
	}
	testenv.Eventually(h.t, 10*time.Second, "the API asks for a key", func() bool {
		res, err := http.Get(h.base + "/api/leads")
		if err != nil {
			h.t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusUnauthorized
	})
	return &k, token
}
