package instagram

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider/providertest"
	"herald/pkg/testenv"
)

func igError(status int, code, subcode, text string) providertest.Reply {
	return providertest.Reply{Status: status, Body: `{"error":{"message":"` + text + `","type":"OAuthException","code":` + code + `,"error_subcode":` + subcode +
		`,"fbtrace_id":"A1"}}`}
}

var adapter = providertest.Adapter{
	Spec:      Spec,
	Channel:   channel.Channel{Sender: "17841400000000000", Credentials: providertest.Credentials("access_token", "top-secret-token")},
	Recipient: "1234567890123456",
	Content:   message.Content{Text: "Hello"},
	Accept:    providertest.Reply{Status: 200, Body: `{"recipient_id":"1","message_id":"mid.1"}`},
	ID:        "mid.1",
	Quote:     func(text string) providertest.Reply { return igError(400, "100", "0", text) },
	Failures: map[string]providertest.Failure{
		"200 without an id":   providertest.Reply{Status: 200, Body: `{"recipient_id":"1"}`}.Means(providertest.Unknown("no_message_id")),
		"200 empty":           providertest.Reply{Status: 200}.Means(providertest.Unknown("no_message_id")),
		"200 page":            providertest.Reply{Status: 200, Body: "<html>"}.Means(providertest.Unknown("no_message_id")),
		"302":                 providertest.Reply{Status: 302, Header: providertest.Header("Location", "http://127.0.0.1:1/")}.Means(providertest.Unknown("provider_unreachable")),
		"subcode first":       igError(400, "10", "2534022", "x").Means(providertest.Refused(message.OutsideWindow, "10/2534022")),
		"was sent":            igError(400, "1", "1357046", "x").Means(providertest.Unknown("1/1357046")),
		"no permission":       igError(403, "10", "0", "x").Means(providertest.ChannelPaused(message.ChannelRefused, "10")),
		"blocked the account": igError(400, "10", "2018108", "x").Means(providertest.Refused(message.RecipientRefused, "10/2018108")),
		"not available":       igError(400, "200", "1545041", "x").Means(providertest.Refused(message.RecipientRefused, "200/1545041")),
		"a new subcode":       igError(400, "10", "99", "x").Means(providertest.Refused(message.ProviderRefused, "10/99")),
		"a new one of 200":    igError(400, "230", "99", "x").Means(providertest.Refused(message.ProviderRefused, "230/99")),
		"other subcode":       igError(401, "190", "463", "x").Means(providertest.ChannelPaused(message.ChannelCredentials, "190/463")),
		"down, 400":           igError(400, "2", "0", "x").Means(providertest.Retried("2")),
		"down, 499":           igError(499, "1", "0", "x").Means(providertest.Retried("1")),
		"down, 500":           igError(500, "2", "0", "x").Means(providertest.Unknown("2")),
		"down, 503":           igError(503, "1", "0", "x").Means(providertest.Unknown("1")),
		"last permission":     igError(400, "299", "0", "x").Means(providertest.ChannelPaused(message.ChannelRefused, "299")),
		"below permissions":   igError(400, "199", "0", "x").Means(providertest.Refused(message.ProviderRefused, "199")),
		"above permissions":   igError(400, "300", "0", "x").Means(providertest.Refused(message.ProviderRefused, "300")),
		"code not in table":   igError(400, "99999", "0", "x").Means(providertest.Refused(message.ProviderRefused, "99999")),
		"the same, 500":       igError(500, "99999", "0", "x").Means(providertest.Unknown("99999")),
		"the same, 429":       igError(429, "99999", "0", "x").Means(providertest.Throttled(time.Minute, "99999")),
		"transient":           providertest.Reply{Status: 400, Body: `{"error":{"type":"t","code":5,"fbtrace_id":"A","is_transient":true}}`}.Means(providertest.Retried("5")),
		"no type":             providertest.Reply{Status: 400, Body: `{"error":{"code":100,"fbtrace_id":"A"}}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"no trace":            providertest.Reply{Status: 400, Body: `{"error":{"code":100,"type":"t"}}`}.Means(providertest.Refused(message.ContentRefused, "provider_unreachable")),
		"no code":             providertest.Reply{Status: 400, Body: `{"error":{"type":"t","fbtrace_id":"A"}}`}.Means(providertest.Refused(message.ProviderRefused, "provider_unreachable")),
		"longer wait asked":   providertest.Reply{Status: 400, Header: providertest.Header("Retry-After", "90"), Body: igError(400, "4", "0", "x").Body}.Means(providertest.Throttled(90*time.Second, "4")),
		"500 without a code":  providertest.Reply{Status: 500}.Means(providertest.Unknown("provider_unreachable")),
		"502 page":            providertest.Reply{Status: 502, Body: "<html>"}.Means(providertest.Unknown("provider_unreachable")),
		"429 without a code":  providertest.Reply{Status: 429}.Means(providertest.Throttled(0, "provider_unreachable")),
		"401 without a code":  providertest.Reply{Status: 401}.Means(providertest.ChannelPaused(message.ChannelCredentials, "provider_unreachable")),
		"404 without a code":  providertest.Reply{Status: 404}.Means(providertest.Refused(message.ProviderRefused, "provider_unreachable")),
	},
}

func TestConformance(t *testing.T) { providertest.Run(t, adapter) }

func TestCodes(t *testing.T) {
	want := map[string]providertest.Outcome{"368": providertest.Throttled(10*time.Minute, "368")}
	for _, c := range []string{"1", "2"} {
		want[c] = providertest.Retried(c)
	}
	for _, c := range []string{"4", "17", "32", "341", "613", "80002", "80006"} {
		want[c] = providertest.Throttled(time.Minute, c)
	}
	for _, c := range []string{"3", "10", "200"} {
		want[c] = providertest.ChannelPaused(message.ChannelRefused, c)
	}
	want["190"] = providertest.ChannelPaused(message.ChannelCredentials, "190")
	want["100"] = providertest.Refused(message.ContentRefused, "100")
	want["551"] = providertest.Refused(message.RecipientRefused, "551")
	adapter.CheckCodes(t, codes, want, func(code string) providertest.Reply { return igError(400, code, "0", "x") })
}

// A subcode decides before its code.
func TestSubcodes(t *testing.T) {
	want := map[string]providertest.Outcome{"1357046": providertest.Unknown("100/1357046")}
	for _, c := range []string{"2018278", "2534022"} {
		want[c] = providertest.Refused(message.OutsideWindow, "100/"+c)
	}
	for _, c := range []string{"1893063", "2018276", "2534029", "2534041"} {
		want[c] = providertest.ChannelPaused(message.ChannelRefused, "100/"+c)
	}
	for _, c := range []string{"1545041", "2018001", "2018108", "2534014"} {
		want[c] = providertest.Refused(message.RecipientRefused, "100/"+c)
	}
	adapter.CheckCodes(t, subcodes, want, func(code string) providertest.Reply { return igError(400, "100", code, "x") })
}

func TestRequests(t *testing.T) {
	const text = `{"recipient":{"id":"1234567890123456"},"message":{"text":"Hello"}}`
	const image = `{"recipient":{"id":"1234567890123456"},"message":{"attachment":{"type":"image","payload":{"url":"https://x.test/a.png"}}}}`
	both := message.Content{ImageURL: "https://x.test/a.png", Text: "Hello"}
	for name, c := range map[string]struct {
		content message.Content
		part    int
		body    string
	}{
		"text": {adapter.Content, 0, text}, "image first": {both, 0, image}, "text second": {both, 1, text},
		"image alone": {message.Content{ImageURL: "https://x.test/a.png"}, 0, image},
	} {
		t.Run(name, func(t *testing.T) {
			a := adapter
			a.Content, a.Part = c.content, c.part
			a.CheckRequest(t, providertest.Request{
				Method: http.MethodPost, Path: "/v26.0/17841400000000000/messages", Authorization: "Bearer top-secret-token", ContentType: "application/json", Body: c.body,
			})
		})
	}
}

func TestParts(t *testing.T) {
	p := New("http://x", nil)
	for i, c := range []struct {
		content message.Content
		want    int
	}{
		{message.Content{Text: "a", ImageURL: "https://x.test/a.png"}, 2}, {message.Content{Text: "a"}, 1},
		{message.Content{ImageURL: "https://x.test/a.png", Text: " "}, 1}, {message.Content{ImageURL: "https://x.test/a.png"}, 1},
	} {
		if got := p.Parts(&c.content); got != c.want {
			t.Errorf("%s: %d parts, want %d", strconv.Itoa(i), got, c.want)
		}
	}
}

// The simulator's recipients that stand for outcomes have these outcomes.
func TestSimulator(t *testing.T) {
	sim, u := testenv.Simulator(t)
	adapter.CheckRecipients(t, u, map[string]providertest.Outcome{
		"999000000000010": providertest.Refused(message.OutsideWindow, "10/2534022"),
		"999000000000100": providertest.Refused(message.RecipientRefused, "100/2534014"),
		"999000000000551": providertest.Refused(message.RecipientRefused, "551/1545041"),
		"999000000000190": providertest.ChannelPaused(message.ChannelCredentials, "190"),
		"999000000001001": providertest.Unknown("1/1357046"),
	})
	if r := adapter.Send(t, u); r.Class != delivery.Accepted {
		t.Errorf("%+v", r)
	}
	if got := sim.Accepted("1234567890123456"); len(got) != 1 || got[0].Text != "Hello" || got[0].Part != "text" {
		t.Errorf("record %+v", got)
	}
}
