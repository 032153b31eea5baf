package provider_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/instagram"
	"herald/pkg/provider/sendgrid"
	"herald/pkg/provider/twilio"
	"herald/pkg/render"
	"herald/pkg/testenv"
)

var messageID = uuid.MustParse("0190a000-0000-7000-8000-0000000000aa")

// adapter is one provider under test with a channel and a message that suit it.
type adapter struct {
	name      string
	make      func(url string) delivery.Provider
	channel   channel.Channel
	recipient string
	content   message.Content
}

func secrets(kv ...string) map[string]channel.Secret {
	m := map[string]channel.Secret{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = channel.NewSecret(kv[i+1])
	}
	return m
}

var adapters = map[string]adapter{
	"sendgrid": {
		name: "sendgrid", make: func(u string) delivery.Provider { return sendgrid.New(u, provider.NewHTTPClient()) },
		channel: channel.Channel{
			Key: channel.Key{Type: message.Email}, Sender: "news@acme.test", SenderName: "Acme", Credentials: secrets("api_key", "SG.top-secret-key"),
		},
		recipient: "ann@example.com", content: message.Content{Subject: "Hi", Text: "Hello", HTML: "<p>Hello</p>"},
	},
	"twilio": {
		name: "twilio", make: func(u string) delivery.Provider { return twilio.New(u, provider.NewHTTPClient()) },
		channel: channel.Channel{
			Key: channel.Key{Type: message.SMS}, Sender: "+15005550006", Credentials: secrets("account_sid", "AC00000000000000000000000000000001", "auth_token", "top-secret-token"),
		},
		recipient: "+14155550100", content: message.Content{Text: "Hello & goodbye"},
	},
	"instagram": {
		name: "instagram", make: func(u string) delivery.Provider { return instagram.New(u, provider.NewHTTPClient()) },
		channel: channel.Channel{
			Key: channel.Key{Type: message.InstagramDM}, Sender: "17841400000000000", Credentials: secrets("access_token", "top-secret-token"),
		},
		recipient: "1234567890123456", content: message.Content{Text: "Hello"},
	},
}

func (a adapter) envelope() delivery.Envelope {
	ch := a.channel
	return delivery.Envelope{MessageID: messageID, Channel: &ch, Recipient: a.recipient, Content: render.Rendered{Content: a.content}}
}

// seen is a request as the vendor got it.
type seen struct {
	Method, Path, Auth, ContentType, Body string
	Idempotency                           string
}

// vendor answers every request in one way and records the last.
func vendor(t *testing.T, answer http.HandlerFunc) (string, *seen) {
	t.Helper()
	got := &seen{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		*got = seen{r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(b), r.Header.Get("Idempotency-Key")}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, got
}

func reply(status int, header http.Header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestExactRequests(t *testing.T) {
	sg, tw, ig := adapters["sendgrid"], adapters["twilio"], adapters["instagram"]
	ownSender, html, service, media, key, image := sg, sg, tw, tw, tw, ig
	ownSender.content.Sender, ownSender.content.SenderName = "ceo@acme.test", "The CEO"
	html.content.Text = " "
	service.channel.Sender = "MG0123456789abcdef0123456789abcdef"
	media.content.MediaURLs = []string{"https://x.test/a.png", "https://x.test/b.png"}
	key.channel.Credentials = secrets("account_sid", "AC1", "auth_token", "t", "api_key_sid", "SK1", "api_key_secret", "s")
	image.content = message.Content{ImageURL: "https://x.test/a.png", Text: "Hello"}

	const json1 = `{"from":{"name":"Acme","email":"news@acme.test"},"subject":"Hi","personalizations":[{"to":[{"email":"ann@example.com"}],` +
		`"custom_args":{"herald_message_id":"0190a000-0000-7000-8000-0000000000aa"}}],"content":[{"type":"text/plain","value":"Hello"},{"type":"text/html","value":"\u003cp\u003eHello\u003c/p\u003e"}]}`
	form := func(kv ...string) string {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		return v.Encode()
	}
	const messages = "/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json"
	const basic = "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTp0b3Atc2VjcmV0LXRva2Vu"
	const formType = "application/x-www-form-urlencoded"
	for name, c := range map[string]struct {
		adapter
		part int
		want seen
	}{
		"email": {sg, 0, seen{"POST", "/v3/mail/send", "Bearer SG.top-secret-key", "application/json", json1, ""}},
		"email with its own sender": {ownSender, 0, seen{
			"POST", "/v3/mail/send", "Bearer SG.top-secret-key", "application/json",
			strings.Replace(json1, `{"name":"Acme","email":"news@acme.test"}`, `{"name":"The CEO","email":"ceo@acme.test"}`, 1), "",
		}},
		"html only": {html, 0, seen{
			"POST", "/v3/mail/send", "Bearer SG.top-secret-key", "application/json", strings.Replace(json1, `{"type":"text/plain","value":"Hello"},`, "", 1), "",
		}},
		"sms": {tw, 0, seen{"POST", messages, basic, formType, form("To", "+14155550100", "From", "+15005550006", "Body", "Hello & goodbye"), ""}},
		"sms by a service": {service, 0, seen{
			"POST", messages, basic, formType,
			form("To", "+14155550100", "MessagingServiceSid", "MG0123456789abcdef0123456789abcdef", "Body", "Hello & goodbye"), "",
		}},
		"mms": {media, 0, seen{
			"POST", messages, basic, formType,
			form("To", "+14155550100", "From", "+15005550006", "Body", "Hello & goodbye", "MediaUrl", "https://x.test/a.png", "MediaUrl", "https://x.test/b.png"), "",
		}},
		"sms with an api key": {key, 0, seen{
			"POST", "/2010-04-01/Accounts/AC1/Messages.json", "Basic U0sxOnM=", formType,
			form("To", "+14155550100", "From", "+15005550006", "Body", "Hello & goodbye"), "",
		}},
		"instagram text": {ig, 0, seen{
			"POST", "/v26.0/17841400000000000/messages", "Bearer top-secret-token", "application/json",
			`{"recipient":{"id":"1234567890123456"},"message":{"text":"Hello"}}`, "",
		}},
		"instagram image first": {image, 0, seen{
			"POST", "/v26.0/17841400000000000/messages", "Bearer top-secret-token", "application/json",
			`{"recipient":{"id":"1234567890123456"},"message":{"attachment":{"type":"image","payload":{"url":"https://x.test/a.png"}}}}`, "",
		}},
		"instagram text second": {image, 1, seen{
			"POST", "/v26.0/17841400000000000/messages", "Bearer top-secret-token", "application/json",
			`{"recipient":{"id":"1234567890123456"},"message":{"text":"Hello"}}`, "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			u, got := vendor(t, reply(500, nil, ""))
			e := c.envelope()
			e.Part = c.part
			c.make(u).Send(t.Context(), e)
			if d := cmp.Diff(c.want, *got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParts(t *testing.T) {
	both := &message.Content{Text: "a", ImageURL: "https://x.test/a.png"}
	for name, c := range map[string]struct {
		adapter string
		content *message.Content
		want    int
	}{
		"email": {"sendgrid", both, 1}, "sms": {"twilio", both, 1}, "text and image": {"instagram", both, 2},
		"image": {"instagram", &message.Content{ImageURL: "https://x.test/a.png", Text: " "}, 1}, "text": {"instagram", &message.Content{Text: "a"}, 1},
	} {
		if got := adapters[c.adapter].make("http://x").Parts(c.content); got != c.want {
			t.Errorf("%s: %d parts, want %d", name, got, c.want)
		}
	}
}

// verdict is the part of a classification that decides what follows.
type verdict struct {
	Class  delivery.Class
	Fault  delivery.FailureScope
	Reason message.Reason
	Code   string
	ID     string
	Retry  time.Duration
}

func verdictOf(r delivery.Response) verdict {
	v := verdict{Class: r.Class, Fault: r.Scope, Reason: r.Reason, ID: r.ProviderMessageID, Retry: r.RetryAfter}
	if r.Failure != nil {
		v.Code = r.Failure.Code
	}
	return v
}

func twilioBody(status, code string) (string, string) {
	return "", `{"code":` + code + `,"message":"told about +14155550100 by ann@example.com","more_info":"https://www.twilio.com/docs/errors/` + code + `","status":` + status + `}`
}

func metaBody(code, subcode string) string {
	return `{"error":{"message":"told about ann@example.com","type":"OAuthException","code":` + code + `,"error_subcode":` + subcode + `,"fbtrace_id":"A1"}}`
}

func TestClassification(t *testing.T) {
	accepted := func(id string) verdict { return verdict{Class: delivery.Accepted, ID: id} }
	refused := func(reason message.Reason, code string) verdict {
		return verdict{Class: delivery.Refused, Fault: delivery.ScopeMessage, Reason: reason, Code: code}
	}
	later := func(code string, retry time.Duration) verdict {
		return verdict{Class: delivery.NotSent, Fault: delivery.ScopeRate, Reason: message.ProviderUnavailable, Code: code, Retry: retry}
	}
	pause := func(reason message.Reason, code string) verdict {
		return verdict{Class: delivery.NotSent, Fault: delivery.ScopeChannel, Reason: reason, Code: code}
	}
	unknown := func(code string) verdict {
		return verdict{Class: delivery.Unknown, Reason: message.UnknownOutcome, Code: code}
	}
	header := func(kv ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			h.Set(kv[i], kv[i+1])
		}
		return h
	}
	type answer struct {
		status int
		header http.Header
		body   string
		want   verdict
	}
	cases := map[string]map[string]answer{
		"sendgrid": {
			"202":                  {202, header("X-Message-Id", "abc"), "", accepted("abc")},
			"200 of the sandbox":   {200, header("X-Message-Id", "abc"), "", accepted("abc")},
			"200 page":             {200, header("Content-Type", "text/html"), "<html>hello</html>", unknown("not_sendgrid")},
			"400 recipient":        {400, nil, `{"errors":[{"message":"bad","field":"personalizations.0.to.0.email"}]}`, refused(message.RecipientRefused, "http_400")},
			"400 content":          {400, nil, `{"errors":[{"message":"bad","field":"content"}]}`, refused(message.ContentRefused, "http_400")},
			"400 without a field":  {400, nil, `{"errors":[{"message":"bad","field":null}]}`, refused(message.ContentRefused, "http_400")},
			"401":                  {401, nil, `{"errors":[{"message":"revoked","field":null}]}`, pause(message.ChannelCredentials, "http_401")},
			"403":                  {403, nil, `{"errors":[{"message":"from","field":"from"}]}`, pause(message.ChannelRefused, "http_403")},
			"404":                  {404, nil, "", pause(message.ChannelRefused, "provider_unreachable")},
			"413 page of a proxy":  {413, header("Content-Type", "text/html"), "<html>", refused(message.ContentRefused, "provider_unreachable")},
			"415":                  {415, nil, "", refused(message.ProviderRefused, "provider_unreachable")},
			"429":                  {429, nil, `{"errors":[{"message":"too many requests","field":null}]}`, later("http_429", 0)},
			"429 with Retry-After": {429, header("Retry-After", "7"), "", later("provider_unreachable", 7*time.Second)},
			"500":                  {500, nil, "", unknown("provider_unreachable")},
			"502 page":             {502, nil, "<html>", unknown("provider_unreachable")},
			"503":                  {503, nil, "", unknown("provider_unreachable")},
			"503 with Retry-After": {503, header("Retry-After", "3"), "", later("provider_unreachable", 3*time.Second)},
			"504":                  {504, nil, "", unknown("provider_unreachable")},
			"302":                  {302, header("Location", "http://127.0.0.1:1/"), "", unknown("provider_unreachable")},
		},
		"instagram": {
			"200":                  {200, nil, `{"recipient_id":"1","message_id":"mid.1"}`, accepted("mid.1")},
			"200 without an id":    {200, nil, `{"recipient_id":"1"}`, unknown("no_message_id")},
			"200 empty":            {200, nil, "", unknown("no_message_id")},
			"200 page":             {200, nil, "<html>", unknown("no_message_id")},
			"1/1357046 was sent":   {400, nil, metaBody("1", "1357046"), unknown("1/1357046")},
			"outside the window":   {400, nil, metaBody("10", "2534022"), refused(message.OutsideWindow, "10/2534022")},
			"restricted":           {400, nil, metaBody("10", "1893063"), pause(message.ChannelRefused, "10/1893063")},
			"no permission":        {403, nil, metaBody("200", "0"), pause(message.ChannelRefused, "200")},
			"no such user":         {400, nil, metaBody("100", "2534014"), refused(message.RecipientRefused, "100/2534014")},
			"invalid parameter":    {400, nil, metaBody("100", "0"), refused(message.ContentRefused, "100")},
			"token dead":           {401, nil, metaBody("190", "463"), pause(message.ChannelCredentials, "190/463")},
			"not available":        {400, nil, metaBody("551", "1545041"), refused(message.RecipientRefused, "551/1545041")},
			"rate":                 {400, nil, metaBody("613", "0"), later("613", time.Minute)},
			"blocked for a policy": {400, nil, metaBody("368", "0"), later("368", 10*time.Minute)},
			"down, 400":            {400, nil, metaBody("2", "0"), later("2", time.Minute)},
			"down, 500":            {500, nil, metaBody("2", "0"), unknown("2")},
			"unknown code":         {400, nil, metaBody("99999", "0"), refused(message.ProviderRefused, "99999")},
			"500 without a code":   {500, nil, "", unknown("provider_unreachable")},
			"502 page":             {502, nil, "<html>", unknown("provider_unreachable")},
			"429 without a code":   {429, nil, "", later("provider_unreachable", 0)},
			"401 without a code":   {401, nil, "", pause(message.ChannelCredentials, "provider_unreachable")},
			"404 without a code":   {404, nil, "", refused(message.ProviderRefused, "provider_unreachable")},
		},
		"twilio": {
			"201":                  {201, nil, `{"sid":"SM1","status":"queued"}`, accepted("SM1")},
			"201 without a sid":    {201, nil, `{}`, unknown("no_sid")},
			"201 page":             {201, nil, "<html>", unknown("unreadable")},
			"201 empty":            {201, nil, "", unknown("unreadable")},
			"502 page":             {502, nil, "<html>", unknown("provider_unreachable")},
			"500":                  {500, nil, "", unknown("provider_unreachable")},
			"503":                  {503, nil, "", unknown("provider_unreachable")},
			"503 with Retry-After": {503, header("Retry-After", "3"), "", later("provider_unreachable", 3*time.Second)},
			"401 without a code":   {401, nil, "", pause(message.ChannelCredentials, "provider_unreachable")},
		},
	}
	for code, want := range map[string]func(code string) verdict{
		"20003": func(c string) verdict { return pause(message.ChannelCredentials, c) },
		"20005": func(c string) verdict { return pause(message.ChannelCredentials, c) },
		"21606": func(c string) verdict { return pause(message.ChannelRefused, c) },
		"21212": func(c string) verdict { return pause(message.ChannelRefused, c) },
		"20429": func(c string) verdict { return later(c, time.Second) },
		"21611": func(c string) verdict { return later(c, time.Second) },
		"63038": func(c string) verdict { return later(c, 30*time.Minute) },
		"20503": unknown,
		"21211": func(c string) verdict { return refused(message.RecipientRefused, c) },
		"21612": func(c string) verdict { return refused(message.RecipientRefused, c) },
		"21614": func(c string) verdict { return refused(message.RecipientRefused, c) },
		"21408": func(c string) verdict { return refused(message.RecipientRefused, c) },
		"21610": func(c string) verdict { return refused(message.ConsentRefused, c) },
		"21617": func(c string) verdict { return refused(message.ContentRefused, c) },
		"63016": func(c string) verdict { return refused(message.OutsideWindow, c) },
		"29999": func(c string) verdict { return refused(message.ProviderRefused, c) },
	} {
		_, body := twilioBody("400", code)
		cases["twilio"]["code "+code] = answer{400, nil, body, want(code)}
	}
	for name, answers := range cases {
		for what, c := range answers {
			t.Run(name+"/"+what, func(t *testing.T) {
				u, got := vendor(t, reply(c.status, c.header, c.body))
				r := adapters[name].make(u).Send(t.Context(), adapters[name].envelope())
				if d := cmp.Diff(c.want, verdictOf(r)); d != "" {
					t.Error(d)
				}
				if c.status != r.HTTPStatus {
					t.Errorf("HTTP status %d, want %d", r.HTTPStatus, c.status)
				}
				if got.Idempotency != "" {
					t.Error("an Idempotency-Key makes Go's transport resend by itself")
				}
				noPersonalData(t, r)
			})
		}
	}
}

func noPersonalData(t *testing.T, r delivery.Response) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"example.com", "4155550100", "top-secret", "1234567890123456"} {
		if strings.Contains(string(b), s) {
			t.Errorf("the response holds %q: %s", s, b)
		}
	}
}

// A message that names a sender of its own must not take its channel down when that sender is refused.
func TestOwnSenderRefused(t *testing.T) {
	_, bad := twilioBody("400", "21606")
	for name, c := range map[string]struct {
		sender, body string
		status       int
	}{"sendgrid": {"x@acme.test", `{"errors":[{"message":"from","field":"from"}]}`, 403}, "twilio": {"+15005550001", bad, 400}} {
		u, _ := vendor(t, reply(c.status, nil, c.body))
		e := adapters[name].envelope()
		e.Content.Sender = c.sender
		if r := adapters[name].make(u).Send(t.Context(), e); r.Class != delivery.Refused || r.Reason != message.SenderRefused {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Until headers went out it is certain that nothing was sent; afterwards nothing is, without an answer.
func TestNoAnswer(t *testing.T) {
	for name, a := range adapters {
		t.Run(name+"/nobody listens", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			u := "http://" + l.Addr().String()
			_ = l.Close()
			r := a.make(u).Send(t.Context(), a.envelope())
			if r.Class != delivery.NotSent || r.Scope != delivery.ScopeNone || r.Reason != message.Unreachable {
				t.Errorf("%+v", r)
			}
			noPersonalData(t, r)
		})
		t.Run(name+"/no such host", func(t *testing.T) {
			if r := a.make("http://nowhere.invalid").Send(t.Context(), a.envelope()); r.Class != delivery.NotSent {
				t.Errorf("%+v", r)
			}
		})
		t.Run(name+"/TLS fails", func(t *testing.T) {
			srv := httptest.NewTLSServer(http.NotFoundHandler())
			srv.Config.ErrorLog = nil
			defer srv.Close()
			if r := a.make(srv.URL).Send(t.Context(), a.envelope()); r.Class != delivery.NotSent {
				t.Errorf("%+v", r)
			}
		})
		t.Run(name+"/cancelled before", func(t *testing.T) {
			u, _ := vendor(t, reply(202, nil, ""))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if r := a.make(u).Send(ctx, a.envelope()); r.Class != delivery.NotSent {
				t.Errorf("%+v", r)
			}
		})
		t.Run(name+"/reset after the request", func(t *testing.T) {
			u, _ := vendor(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			if r := a.make(u).Send(t.Context(), a.envelope()); r.Class != delivery.Unknown {
				t.Errorf("%+v", r)
			}
		})
		t.Run(name+"/no answer in time", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			u, _ := vendor(t, func(_ http.ResponseWriter, r *http.Request) {
				cancel()
				<-r.Context().Done()
			})
			r := a.make(u).Send(ctx, a.envelope())
			if r.Class != delivery.Unknown {
				t.Errorf("%+v", r)
			}
			noPersonalData(t, r)
		})
		t.Run(name+"/answer cut short", func(t *testing.T) {
			u, _ := vendor(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, "{")
			})
			if r := a.make(u).Send(t.Context(), a.envelope()); r.Class != delivery.Unknown {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Every adapter gets along with the simulator, whose own magic recipients stand for the vendors' refusals.
func TestSimulatorMagic(t *testing.T) {
	sim, u := testenv.Simulator(t)
	for name, c := range map[string]struct {
		adapter, recipient string
		class              delivery.Class
		reason             message.Reason
	}{
		"email":                {"sendgrid", "ann@example.com", delivery.Accepted, ""},
		"email refused":        {"sendgrid", "refused+1@simulator.test", delivery.Refused, message.RecipientRefused},
		"email throttled":      {"sendgrid", "throttle@simulator.test", delivery.NotSent, message.ProviderUnavailable},
		"email 500":            {"sendgrid", "500@simulator.test", delivery.Unknown, message.UnknownOutcome},
		"email unauthorized":   {"sendgrid", "unauthorized@simulator.test", delivery.NotSent, message.ChannelCredentials},
		"sms":                  {"twilio", "+14155550100", delivery.Accepted, ""},
		"sms invalid":          {"twilio", "+15005550001", delivery.Refused, message.RecipientRefused},
		"sms opted out":        {"twilio", "+15005550004", delivery.Refused, message.ConsentRefused},
		"instagram":            {"instagram", "1234567890123456", delivery.Accepted, ""},
		"instagram window":     {"instagram", "999000000000010", delivery.Refused, message.OutsideWindow},
		"instagram token dead": {"instagram", "999000000000190", delivery.NotSent, message.ChannelCredentials},
		"instagram 1357046":    {"instagram", "999000000001001", delivery.Unknown, message.UnknownOutcome},
	} {
		e := adapters[c.adapter].envelope()
		e.Recipient = c.recipient
		r := adapters[c.adapter].make(u).Send(t.Context(), e)
		if r.Class != c.class || r.Reason != c.reason {
			t.Errorf("%s: %+v", name, r)
		}
	}
	got := sim.Accepted("ann@example.com")
	if len(got) != 1 || got[0].MessageID != messageID.String() || got[0].Subject != "Hi" {
		t.Errorf("record %+v", got)
	}
	if rep := sim.Report(); rep.Accepted != 3 || len(rep.Repeated) != 0 {
		t.Errorf("report %+v", rep)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	conns := map[string]bool{}
	u, _ := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true
		reply(400, nil, metaBody("100", "0"))(w, r)
	})
	for name, a := range adapters {
		clear(conns)
		p := a.make(u)
		for range 10 {
			p.Send(t.Context(), a.envelope())
		}
		if len(conns) != 1 {
			t.Errorf("%s: %d connections for 10 sends", name, len(conns))
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		key, value string
		want       time.Duration
	}{
		"seconds": {"Retry-After", "12", 12 * time.Second}, "date": {"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		"past": {"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0}, "nonsense": {"Retry-After", "soon", 0},
		"too long": {"Retry-After", "999999", time.Hour}, "reset": {"X-RateLimit-Reset", "1767323075", 30 * time.Second}, "none": {"X", "1", 0},
	} {
		h := http.Header{}
		h.Set(c.key, c.value)
		if got := provider.RetryAfter(h, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
