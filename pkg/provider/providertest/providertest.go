// Package providertest is the conformance suite of provider adapters, and the helpers that their tests share. Every adapter's tests
// call Run with a description of the adapter. The suite asserts what delivery relies on: each failure has the right scope, an
// outcome is Unknown exactly if bytes were sent and no usable answer came, and no response contains personal data or credentials.
package providertest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/transport"
	"herald/pkg/render"
	"herald/pkg/seal"
	"herald/pkg/testenv"
)

// MessageID is the id of every message of Envelope.
const MessageID = "0190a000-0000-7000-8000-0000000000aa"

// Adapter describes an adapter under test.
type Adapter struct {
	Spec      provider.Spec
	Channel   channel.Channel // every credential's value contains "top-secret"
	Recipient string
	Content   message.Content
	Part      int // of the content that Send sends, from 0

	Accept   Reply // the vendor's acceptance
	ID       string
	Failures map[string]Failure

	// Quote returns the vendor's documented refusal of a recipient, in which the text is the vendor's.
	Quote func(text string) Reply
}

// Failure is an answer of the vendor and the outcome that the adapter must make of it.
type Failure struct {
	Reply
	Want Outcome
}

// Reply is one answer of a vendor.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// ServeHTTP implements http.Handler.
func (r Reply) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	for k, v := range r.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, r.Body)
}

// Means returns the failure of which the adapter must make an outcome.
func (r Reply) Means(want Outcome) Failure { return Failure{r, want} }

// Header returns a header of names and values in turn.
func Header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Set(kv[i], kv[i+1])
	}
	return h
}

// Credentials returns credentials of names and values in turn.
func Credentials(kv ...string) map[string]seal.Secret {
	m := map[string]seal.Secret{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = seal.NewSecret(kv[i+1])
	}
	return m
}

// Outcome is the part of a response that decides what follows.
type Outcome struct {
	Class      delivery.Class
	Scope      delivery.FailureScope
	Reason     message.Reason
	Code       string
	ID         string
	RetryAfter time.Duration
}

// OutcomeOf returns the outcome of a response.
func OutcomeOf(r delivery.Response) Outcome {
	o := Outcome{Class: r.Class, Scope: r.Scope, Reason: r.Reason, ID: r.ProviderMessageID, RetryAfter: r.RetryAfter}
	if r.Failure != nil {
		o.Code = r.Failure.Code
	}
	return o
}

// Refused is the outcome of a refusal of the message.
func Refused(reason message.Reason, code string) Outcome {
	return Outcome{Class: delivery.Refused, Scope: delivery.ScopeMessage, Reason: reason, Code: code}
}

// ChannelPaused is the outcome of a refusal of the channel.
func ChannelPaused(reason message.Reason, code string) Outcome {
	return Outcome{Class: delivery.NotSent, Scope: delivery.ScopeChannel, Reason: reason, Code: code}
}

// Throttled is the outcome of a refusal for load.
func Throttled(wait time.Duration, code string) Outcome {
	return Outcome{Class: delivery.NotSent, Scope: delivery.ScopeRate, Reason: message.ProviderUnavailable, Code: code, RetryAfter: wait}
}

// Retried is the outcome of an answer that says "not now" of one message.
func Retried(code string) Outcome {
	return Outcome{Class: delivery.NotSent, Scope: delivery.ScopeNone, Reason: message.ProviderUnavailable, Code: code}
}

// Unknown is the outcome of an answer after which the message may have been sent.
func Unknown(code string) Outcome {
	return Outcome{Class: delivery.Unknown, Reason: message.UnknownOutcome, Code: code}
}

var notReached = Outcome{Class: delivery.NotSent, Scope: delivery.ScopeNone, Reason: message.Unreachable, Code: "provider_unreachable"}

// Request is a request as the vendor received it.
type Request struct {
	Method, Path, Authorization, ContentType, Body string
	IdempotencyKey                                 string
}

// Vendor is a server in place of a vendor. It records the last request and the number of requests.
type Vendor struct {
	URL string

	mu    sync.Mutex
	last  Request
	count int
	conns map[string]bool
}

// Serve starts a Vendor that answers with a handler.
func Serve(t *testing.T, answer http.Handler) *Vendor {
	t.Helper()
	v := &Vendor{conns: map[string]bool{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		v.mu.Lock()
		v.last = Request{r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(b), r.Header.Get("Idempotency-Key")}
		v.count++
		v.conns[r.RemoteAddr] = true
		v.mu.Unlock()
		answer.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	v.URL = srv.URL
	return v
}

// Last returns the last request and the number of requests.
func (v *Vendor) Last() (Request, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last, v.count
}

func (v *Vendor) connections() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.conns)
}

// Envelope returns the message of the description.
func (a Adapter) Envelope() delivery.Envelope {
	ch := a.Channel
	ch.Type = a.Spec.Types[0]
	return delivery.Envelope{MessageID: uuid.MustParse(MessageID), Channel: &ch, Recipient: a.Recipient, Content: render.Rendered{Content: a.Content}, Part: a.Part}
}

// New returns the adapter with a base URL. Its idle connections end with the test.
func (a Adapter) New(t *testing.T, baseURL string) delivery.Provider {
	t.Helper()
	c := transport.NewClient()
	t.Cleanup(c.CloseIdleConnections)
	return a.Spec.New(baseURL, c)
}

// Send sends the message of the description to a base URL.
func (a Adapter) Send(t *testing.T, baseURL string) delivery.Response {
	t.Helper()
	return a.New(t, baseURL).Send(t.Context(), a.Envelope())
}

// CheckRequest sends the message of the description and asserts what the vendor receives. The base URL ends with a slash, which
// must change nothing.
func (a Adapter) CheckRequest(t *testing.T, want Request) {
	t.Helper()
	v := Serve(t, a.Accept)
	a.Send(t, v.URL+"/")
	got, _ := v.Last()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// CheckOutcome sends the message of the description to a base URL and asserts the outcome.
func (a Adapter) CheckOutcome(t *testing.T, baseURL string, want Outcome) {
	t.Helper()
	if d := cmp.Diff(want, OutcomeOf(a.Send(t, baseURL))); d != "" {
		t.Errorf("from %s to %s: %s", a.Channel.Sender, a.Recipient, d)
	}
}

// CheckRecipients is CheckOutcome for messages to other recipients.
func (a Adapter) CheckRecipients(t *testing.T, baseURL string, want map[string]Outcome) {
	t.Helper()
	for recipient, outcome := range want {
		a.Recipient = recipient
		a.CheckOutcome(t, baseURL, outcome)
	}
}

// CheckSafe asserts that a response contains neither recipient nor credentials.
func (a Adapter) CheckSafe(t *testing.T, r delivery.Response) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{a.Recipient, strings.TrimPrefix(a.Recipient, "+"), "top-secret"} {
		if strings.Contains(string(b), s) {
			t.Errorf("the response contains %q: %s", s, b)
		}
	}
}

// CheckCodes asserts that an adapter maps each code of a table to the outcome that want names, and that want names all codes. reply
// returns the vendor's answer with a code.
func (a Adapter) CheckCodes(t *testing.T, table provider.Codes, want map[string]Outcome, reply func(code string) Reply) {
	t.Helper()
	for code := range table {
		if _, ok := want[code]; !ok {
			t.Errorf("code %s has no expectation", code)
		}
	}
	var mu sync.Mutex
	var next Reply
	v := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		next.ServeHTTP(w, r)
	}))
	p := a.New(t, v.URL)
	for code, outcome := range want {
		mu.Lock()
		next = reply(code)
		mu.Unlock()
		if d := cmp.Diff(outcome, OutcomeOf(p.Send(t.Context(), a.Envelope()))); d != "" {
			t.Errorf("code %s: %s", code, d)
		}
		if _, ok := table[code]; !ok {
			t.Errorf("code %s is not in the table", code)
		}
	}
}

// Run runs the suite.
func Run(t *testing.T, a Adapter) {
	t.Run("accepted", a.accepted)
	t.Run("failures", a.failures)
	t.Run("quotes are redacted", a.quotes)
	t.Run("not sent", a.notSent)
	t.Run("sent without an answer", a.lostAnswers)
	t.Run("malformed answers", a.malformed)
	t.Run("connections are reused", a.reuse)
	t.Run("base URL of the channel", a.channelURL)
}

func (a Adapter) accepted(t *testing.T) {
	v := Serve(t, a.Accept)
	r := a.Send(t, v.URL)
	if d := cmp.Diff(Outcome{Class: delivery.Accepted, ID: a.ID}, OutcomeOf(r)); d != "" || r.HTTPStatus != a.Accept.Status || r.Failure != nil {
		t.Errorf("%s status %d", d, r.HTTPStatus)
	}
	if req, n := v.Last(); n != 1 || req.Method != http.MethodPost || req.IdempotencyKey != "" {
		t.Errorf("%d requests, the last %+v", n, req)
	}
}

func (a Adapter) failures(t *testing.T) {
	scopes := map[Outcome]bool{}
	for name, f := range a.Failures {
		t.Run(name, func(t *testing.T) {
			v := Serve(t, f.Reply)
			r := a.Send(t, v.URL)
			if d := cmp.Diff(f.Want, OutcomeOf(r)); d != "" {
				t.Error(d)
			}
			if r.HTTPStatus != f.Status {
				t.Errorf("HTTP status %d, want %d", r.HTTPStatus, f.Status)
			}
			if _, n := v.Last(); n != 1 {
				t.Errorf("%d requests for one send", n)
			}
			a.CheckSafe(t, r)
		})
		scopes[Outcome{Class: f.Want.Class, Scope: f.Want.Scope}] = true
	}
	for _, o := range []Outcome{
		{Class: delivery.Refused, Scope: delivery.ScopeMessage}, {Class: delivery.NotSent, Scope: delivery.ScopeChannel},
		{Class: delivery.NotSent, Scope: delivery.ScopeRate}, {Class: delivery.Unknown},
	} {
		if !scopes[o] {
			t.Errorf("the description has no failure with class %d and scope %d", o.Class, o.Scope)
		}
	}
}

func (a Adapter) quotes(t *testing.T) {
	text := "The address " + a.Recipient + " was refused"
	for _, c := range a.Channel.Credentials {
		text += " for Bearer " + c.Reveal()
	}
	r := a.Send(t, Serve(t, a.Quote(text)).URL)
	a.CheckSafe(t, r)
	if r.Class != delivery.Refused || r.Failure == nil || !strings.HasPrefix(r.Failure.Text, "The address *** was refused") {
		t.Errorf("%+v, %+v", r, r.Failure)
	}
}

// transportWords are parts of the causes of failed connections. Callers do not see them, because a base URL can lead anywhere.
var transportWords = []string{"refused", "dial", "127.0.0.1", "intranet", "SSH", "lookup", "EOF", "tls", "reset", "malformed", "zz", "invalid"}

func checkHidden(t *testing.T, r delivery.Response) {
	t.Helper()
	if r.Failure == nil || r.Detail == "" {
		t.Fatalf("%+v", r)
	}
	for _, word := range transportWords {
		if strings.Contains(r.Failure.Text+r.Failure.Code, word) {
			t.Errorf("callers see %q: %+v", word, r.Failure)
		}
	}
}

func (a Adapter) notSent(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = nil
	t.Cleanup(secure.Close)
	plain := Serve(t, a.Accept)
	for name, u := range map[string]string{
		"connection refused":    "http://" + testenv.RefusedAddress(t),
		"host does not exist":   "http://intranet.invalid",
		"certificate untrusted": secure.URL,
		"base URL is no URL":    "http://127.0.0.1/%zz",
		"server without TLS":    strings.Replace(plain.URL, "http:", "https:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := a.Send(t, u)
			if d := cmp.Diff(notReached, OutcomeOf(r)); d != "" || r.HTTPStatus != 0 {
				t.Errorf("%s status %d", d, r.HTTPStatus)
			}
			a.CheckSafe(t, r)
			checkHidden(t, r)
		})
	}
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := a.New(t, plain.URL).Send(ctx, a.Envelope())
		if d := cmp.Diff(notReached, OutcomeOf(r)); d != "" {
			t.Error(d)
		}
		if _, n := plain.Last(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

func (a Adapter) lostAnswers(t *testing.T) {
	for name, answer := range map[string]func(cancel func(), w http.ResponseWriter, r *http.Request){
		"reset after the request": func(func(), http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cancelled before the answer": func(cancel func(), _ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		},
		"another protocol": func(_ func(), w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2 intranet\r\n"))
				_ = conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			v := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(cancel, w, r) }))
			r := a.New(t, v.URL).Send(ctx, a.Envelope())
			if d := cmp.Diff(Unknown("no_answer"), OutcomeOf(r)); d != "" || r.HTTPStatus != 0 {
				t.Errorf("%s status %d", d, r.HTTPStatus)
			}
			if _, n := v.Last(); n != 1 {
				t.Errorf("%d requests for one send", n)
			}
			a.CheckSafe(t, r)
			checkHidden(t, r)
		})
	}
	// A deadline that passes before the request arrives proves nothing, so the test extends it until one arrives.
	t.Run("deadline", func(t *testing.T) {
		for timeout := 50 * time.Millisecond; ; timeout *= 2 {
			v := Serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			r := a.New(t, v.URL).Send(ctx, a.Envelope())
			cancel()
			if _, n := v.Last(); n == 0 {
				continue
			}
			if d := cmp.Diff(Unknown("no_answer"), OutcomeOf(r)); d != "" {
				t.Error(d)
			}
			return
		}
	})
}

// malformed asserts that a status of 2xx alone is no acceptance.
func (a Adapter) malformed(t *testing.T) {
	for name, c := range map[string]Reply{
		"page": {a.Accept.Status, Header("Content-Type", "text/html"), "<html>hello</html>"},
		"cut":  {a.Accept.Status, Header("Content-Length", "100"), "{"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := a.Send(t, Serve(t, c).URL); r.Class != delivery.Unknown || r.Reason != message.UnknownOutcome || r.ProviderMessageID != "" || r.Failure == nil {
				t.Errorf("%+v", r)
			}
		})
	}
}

func (a Adapter) reuse(t *testing.T) {
	v := Serve(t, a.Accept)
	p := a.New(t, v.URL)
	for range 10 {
		p.Send(t.Context(), a.Envelope())
	}
	if n := v.connections(); n != 1 {
		t.Errorf("%d connections for 10 sends", n)
	}
}

func (a Adapter) channelURL(t *testing.T) {
	v := Serve(t, a.Accept)
	e := a.Envelope()
	e.Channel.BaseURL = v.URL
	if r := a.New(t, "http://"+testenv.RefusedAddress(t)).Send(t.Context(), e); r.Class != delivery.Accepted {
		t.Errorf("%+v", r)
	}
}
