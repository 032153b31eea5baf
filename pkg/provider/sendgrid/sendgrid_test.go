package sendgrid

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider/providertest"
	"herald/pkg/testenv"
)

func sgError(status int, text, field string) providertest.Reply {
	return providertest.Reply{Status: status, Body: `{"errors":[{"message":"` + text + `","field":` + field + `}]}`}
}

var adapter = providertest.Adapter{
	Spec: Spec,
	Channel: channel.Channel{
		Sender: "news@acme.test", SenderName: "Acme", Credentials: providertest.Credentials("api_key", "SG.top-secret-key"),
	},
	Recipient: "ann@example.com",
	Content:   message.Content{Subject: "Hi", Text: "Hello", HTML: "<p>Hello</p>"},
	Accept:    providertest.Reply{Status: 202, Header: providertest.Header("X-Message-Id", "abc")},
	ID:        "abc",
	Quote: func(text string) providertest.Reply {
		return sgError(400, text, `"personalizations.0.to.0.email"`)
	},
	Failures: map[string]providertest.Failure{
		"400 recipient":        sgError(400, "bad", `"personalizations.0.to.0.email"`).Means(providertest.Refused(message.RecipientRefused, "http_400")),
		"400 sender":           sgError(400, "bad", `"from.email"`).Means(providertest.ChannelPaused(message.ChannelRefused, "http_400")),
		"400 content":          sgError(400, "bad", `"content"`).Means(providertest.Refused(message.ContentRefused, "http_400")),
		"400 attachment":       sgError(400, "bad", `"attachments.0.content"`).Means(providertest.Refused(message.ContentRefused, "http_400")),
		"400 reply_to":         sgError(400, "bad", `"reply_to.email"`).Means(providertest.Refused(message.ContentRefused, "http_400")),
		"400 without a field":  sgError(400, "bad", "null").Means(providertest.Refused(message.ContentRefused, "http_400")),
		"401":                  sgError(401, "revoked", "null").Means(providertest.ChannelPaused(message.ChannelCredentials, "http_401")),
		"403":                  sgError(403, "from", `"from"`).Means(providertest.ChannelPaused(message.ChannelRefused, "http_403")),
		"404":                  providertest.Reply{Status: 404}.Means(providertest.ChannelPaused(message.ChannelRefused, "provider_unreachable")),
		"405":                  providertest.Reply{Status: 405}.Means(providertest.ChannelPaused(message.ChannelRefused, "provider_unreachable")),
		"413 page of a proxy":  providertest.Reply{Status: 413, Body: "<html>"}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"415":                  providertest.Reply{Status: 415}.Means(providertest.Refused(message.ProviderRefused, "provider_unreachable")),
		"429":                  sgError(429, "too many requests", "null").Means(providertest.Throttled(0, "http_429")),
		"429 with Retry-After": providertest.Reply{Status: 429, Header: providertest.Header("Retry-After", "7")}.Means(providertest.Throttled(7*time.Second, "provider_unreachable")),
		"500":                  providertest.Reply{Status: 500}.Means(providertest.Unknown("provider_unreachable")),
		"502 page":             providertest.Reply{Status: 502, Body: "<html>"}.Means(providertest.Unknown("provider_unreachable")),
		"503":                  providertest.Reply{Status: 503}.Means(providertest.Unknown("provider_unreachable")),
		"503 vendor":           sgError(503, "down", "null").Means(providertest.Unknown("http_503")),
		"504":                  providertest.Reply{Status: 504}.Means(providertest.Unknown("provider_unreachable")),
		"302":                  providertest.Reply{Status: 302, Header: providertest.Header("Location", "http://127.0.0.1:1/")}.Means(providertest.Unknown("provider_unreachable")),
		"other error":          providertest.Reply{Status: 400, Body: `{"errors":["bad"]}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"no field":             providertest.Reply{Status: 400, Body: `{"errors":[{"message":"bad"}]}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"no text":              providertest.Reply{Status: 400, Body: `{"errors":[{"message":"","field":null}]}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"more members":         providertest.Reply{Status: 400, Body: `{"errors":[{"message":"bad","field":null,"path":"/x"}]}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"503 with Retry-After": providertest.Reply{Status: 503, Header: providertest.Header("Retry-After", "3")}.Means(providertest.Throttled(3*time.Second, "provider_unreachable")),
	},
}

func TestConformance(t *testing.T) { providertest.Run(t, adapter) }

func TestStatuses(t *testing.T) {
	want := map[string]providertest.Outcome{
		"400":                  providertest.Refused(message.ContentRefused, "http_400"),
		"400 personalizations": providertest.Refused(message.RecipientRefused, "http_400"),
		"400 from":             providertest.ChannelPaused(message.ChannelRefused, "http_400"),
		"403":                  providertest.ChannelPaused(message.ChannelRefused, "http_403"),
		"404":                  providertest.ChannelPaused(message.ChannelRefused, "http_404"),
		"405":                  providertest.ChannelPaused(message.ChannelRefused, "http_405"),
		"413":                  providertest.Refused(message.ContentRefused, "http_413"),
	}
	status := map[string]int{"400": 400, "400 personalizations": 400, "400 from": 400, "403": 403, "404": 404, "405": 405, "413": 413}
	adapter.CheckCodes(t, statuses, want, func(code string) providertest.Reply {
		field := "null"
		if _, name, ok := strings.Cut(code, " "); ok {
			field = `"` + name + `"`
		}
		return sgError(status[code], "bad", field)
	})
}

func TestRequests(t *testing.T) {
	const body = `{"from":{"name":"Acme","email":"news@acme.test"},"subject":"Hi","personalizations":[{"to":[{"email":"ann@example.com"}],` +
		`"custom_args":{"herald_message_id":"` + providertest.MessageID + `"}}],` +
		`"content":[{"type":"text/plain","value":"Hello"},{"type":"text/html","value":"\u003cp\u003eHello\u003c/p\u003e"}]}`
	for name, c := range map[string]struct {
		change func(a *providertest.Adapter)
		body   string
	}{
		"email": {func(*providertest.Adapter) {}, body},
		"own sender": {
			func(a *providertest.Adapter) { a.Content.Sender, a.Content.SenderName = "ceo@acme.test", "The CEO" },
			strings.Replace(body, `{"name":"Acme","email":"news@acme.test"}`, `{"name":"The CEO","email":"ceo@acme.test"}`, 1),
		},
		"html only": {func(a *providertest.Adapter) { a.Content.Text = " " }, strings.Replace(body, `{"type":"text/plain","value":"Hello"},`, "", 1)},
		"reply to and headers": {
			func(a *providertest.Adapter) {
				a.Content.ReplyTo = &message.Mailbox{Email: "help@acme.test", Name: "Acme Hilfe ä"}
				a.Content.Headers = []message.Header{{Name: "X-Wave", Value: "2, spring"}, {Name: "x-city", Value: "Köln"}}
			},
			strings.TrimSuffix(body, "}") + `,"headers":{"X-Wave":"2, spring","x-city":"=?utf-8?q?K=C3=B6ln?="},"reply_to":{"name":"Acme Hilfe ä","email":"help@acme.test"}}`,
		},
		"reply to without a name": {
			func(a *providertest.Adapter) { a.Content.ReplyTo = &message.Mailbox{Email: "help@acme.test"} },
			strings.TrimSuffix(body, "}") + `,"reply_to":{"email":"help@acme.test"}}`,
		},
		"text only": {
			func(a *providertest.Adapter) { a.Content.HTML = " " }, strings.Replace(body, `,{"type":"text/html","value":"\u003cp\u003eHello\u003c/p\u003e"}`, "", 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := adapter
			c.change(&a)
			a.CheckRequest(t, providertest.Request{
				Method: http.MethodPost, Path: "/v3/mail/send", Authorization: "Bearer SG.top-secret-key", ContentType: "application/json", Body: c.body,
			})
		})
	}
}

// Attachments follow the other members of a request, in the standard alphabet with padding, whatever their pieces are.
func TestCaseAttachments(t *testing.T) {
	const mib = 1 << 20
	long := make([]byte, mib+1)
	for i := range long {
		long[i] = byte(i * i >> 3)
	}
	var pieces message.FileData
	for rest, n := long, 1; len(rest) > 0; n = n*3 + 1 {
		n = min(n, len(rest))
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	for name, files := range map[string][]message.FileData{
		"one byte": {{[]byte("A")}}, "two bytes": {{[]byte("AB")}}, "three": {{[]byte("ABC")}}, "two files": {{[]byte{0xfb, 0xff}}, {[]byte("x"), []byte("yz0")}},
		"empty pieces": {{nil, []byte("a"), nil, []byte("b"), nil}}, "many pieces": {pieces, {[]byte("b")}},
	} {
		a := adapter
		for i := range files {
			a.Content.Attachments = append(a.Content.Attachments, message.Attachment{Name: fmt.Sprintf(`"%d" ä.pdf`, i), Type: "application/pdf", Size: files[i].Size()})
		}
		e := a.Envelope()
		e.Files = files
		v := providertest.Serve(t, a.Accept)
		if r := a.New(t, v.URL).Send(t.Context(), e); r.Class != delivery.Accepted || r.ProviderMessageID != "abc" {
			t.Errorf("%s: %+v", name, r)
		}
		got, n := v.Last()
		var doc struct {
			Subject     string
			Content     []any
			Attachments []map[string]string
		}
		if err := json.Unmarshal([]byte(got.Body), &doc); err != nil || n != 1 || doc.Subject != "Hi" || len(doc.Content) != 2 || len(doc.Attachments) != len(files) {
			t.Fatalf("%s: %v in %.300s", name, err, got.Body)
		}
		for i := range files {
			want := map[string]string{
				"content": base64.StdEncoding.EncodeToString(bytes.Join(files[i], nil)), "type": "application/pdf", "filename": fmt.Sprintf(`"%d" ä.pdf`, i), "disposition": "attachment",
			}
			if d := cmp.Diff(want, doc.Attachments[i]); d != "" {
				t.Errorf("%s, file %d: %.300s", name, i, d)
			}
		}
		if got.ContentType != "application/json" || got.Authorization != "Bearer SG.top-secret-key" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A call with attachments goes over a kept connection that the server has closed meanwhile: its body is read again.
func TestAttachmentsAreReadAgain(t *testing.T) {
	a := adapter
	a.Content.Attachments = []message.Attachment{{Name: "a", Type: "text/plain", Size: 2}}
	e := a.Envelope()
	e.Files = []message.FileData{{[]byte("hi")}}
	b := newBody([]byte(`{"a":1}`), e.Content.Attachments, e.Files)
	var first []byte
	for range 2 {
		got, err := io.ReadAll(b.reader())
		if err != nil || int64(len(got)) != b.size || first != nil && !bytes.Equal(first, got) {
			t.Errorf("%s, %v", got, err)
		}
		first = got
	}
	if want := `{"a":1,"attachments":[{"content":"aGk=","type":"text/plain","filename":"a","disposition":"attachment"}]}`; string(first) != want {
		t.Errorf("%s", first)
	}
}

// Calls hold no copies of their attachments: sending a large one allocates a fraction of it.
func TestAttachmentsAreNotCopied(t *testing.T) {
	const pieces = 40
	a := adapter
	a.Content.Attachments = []message.Attachment{{Name: "a", Type: "text/plain", Size: pieces * message.FilePiece}}
	e := a.Envelope()
	e.Files = []message.FileData{slices.Repeat(message.FileData{make([]byte, message.FilePiece)}, pieces)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		a.Accept.ServeHTTP(w, r)
	}))
	defer srv.Close()
	p := a.New(t, srv.URL)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if r := p.Send(t.Context(), e); r.Class != delivery.Accepted {
		t.Fatalf("%+v", r)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > message.FilePiece*pieces/10 {
		t.Errorf("%d bytes are allocated for a file of %d", after.TotalAlloc-before.TotalAlloc, message.FilePiece*pieces)
	}
}

// An email is one call, also with fields of other types.
func TestParts(t *testing.T) {
	if n := New("http://x", nil).Parts(&message.Content{Text: "a", ImageURL: "https://x.test/a.png"}); n != 1 {
		t.Errorf("%d parts", n)
	}
}

// In sandbox mode SendGrid accepts with 200. An empty body without an id is an acceptance too; an HTML page is not.
func TestAcceptances(t *testing.T) {
	for name, c := range map[string]struct {
		reply providertest.Reply
		want  providertest.Outcome
	}{
		"sandbox":         {providertest.Reply{Status: 200, Header: providertest.Header("X-Message-Id", "abc")}, providertest.Outcome{Class: delivery.Accepted, ID: "abc"}},
		"without an id":   {providertest.Reply{Status: 202}, providertest.Outcome{Class: delivery.Accepted}},
		"page":            {providertest.Reply{Status: 200, Body: " \n<html>"}, providertest.Unknown("not_sendgrid")},
		"page with an id": {providertest.Reply{Status: 202, Header: providertest.Header("X-Message-Id", "abc"), Body: "<html>"}, providertest.Outcome{Class: delivery.Accepted, ID: "abc"}},
	} {
		t.Run(name, func(t *testing.T) { adapter.CheckOutcome(t, providertest.Serve(t, c.reply).URL, c.want) })
	}
}

// A message with its own sender must not pause its channel if that sender is refused.
func TestOwnSenderRefused(t *testing.T) {
	a := adapter
	a.Content.Sender = "x@acme.test"
	a.CheckOutcome(t, providertest.Serve(t, sgError(403, "from", `"from"`)).URL, providertest.Refused(message.SenderRefused, "http_403"))
}

// The simulator's recipients that stand for outcomes have these outcomes.
func TestSimulator(t *testing.T) {
	sim, u := testenv.Simulator(t)
	adapter.CheckRecipients(t, u, map[string]providertest.Outcome{
		"refused+1@simulator.test":    providertest.Refused(message.RecipientRefused, "http_400"),
		"throttle@simulator.test":     providertest.Throttled(0, "http_429"),
		"unavailable@simulator.test":  providertest.Throttled(time.Second, "provider_unreachable"),
		"500@simulator.test":          providertest.Unknown("provider_unreachable"),
		"html@simulator.test":         providertest.Unknown("provider_unreachable"),
		"reset@simulator.test":        providertest.Unknown("no_answer"),
		"unauthorized@simulator.test": providertest.ChannelPaused(message.ChannelCredentials, "http_401"),
		"forbidden@simulator.test":    providertest.ChannelPaused(message.ChannelRefused, "http_403"),
	})
	if r := adapter.Send(t, u); r.Class != delivery.Accepted {
		t.Errorf("%+v", r)
	}
	if got := sim.Accepted("ann@example.com"); len(got) != 1 || got[0].MessageID != providertest.MessageID || got[0].Subject != "Hi" {
		t.Errorf("record %+v", got)
	}
}
