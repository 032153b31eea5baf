package twilio

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider/providertest"
	"herald/pkg/testenv"
)

const account = "AC00000000000000000000000000000001"

func twError(status int, code, text string) providertest.Reply {
	return providertest.Reply{Status: status, Body: `{"code":` + code + `,"message":"` + text + `","more_info":"https://www.twilio.com/docs/errors/` + code +
		`","status":` + strconv.Itoa(status) + `}`}
}

var adapter = providertest.Adapter{
	Spec:      Spec,
	Channel:   channel.Channel{Sender: "+15005550006", Credentials: providertest.Credentials("account_sid", account, "auth_token", "top-secret-token")},
	Recipient: "+14155550100",
	Content:   message.Content{Text: "Hello & goodbye"},
	Accept:    providertest.Reply{Status: 201, Body: `{"sid":"SM1","status":"queued"}`},
	ID:        "SM1",
	Quote:     func(text string) providertest.Reply { return twError(400, "21211", text) },
	Failures: map[string]providertest.Failure{
		"recipient":            twError(400, "21211", "bad").Means(providertest.Refused(message.RecipientRefused, "21211")),
		"code not in table":    twError(400, "29999", "bad").Means(providertest.Refused(message.ProviderRefused, "29999")),
		"rate":                 twError(429, "20429", "slow down").Means(providertest.Throttled(time.Second, "20429")),
		"201 without a sid":    providertest.Reply{Status: 201, Body: "{}"}.Means(providertest.Unknown("no_sid")),
		"201 with empty sid":   providertest.Reply{Status: 201, Body: `{"sid":""}`}.Means(providertest.Unknown("no_sid")),
		"201 page":             providertest.Reply{Status: 201, Body: "<html>"}.Means(providertest.Unknown("unreadable")),
		"201 empty":            providertest.Reply{Status: 201}.Means(providertest.Unknown("unreadable")),
		"302":                  providertest.Reply{Status: 302, Header: providertest.Header("Location", "http://127.0.0.1:1/")}.Means(providertest.Unknown("provider_unreachable")),
		"401 without a code":   providertest.Reply{Status: 401}.Means(providertest.ChannelPaused(message.ChannelCredentials, "provider_unreachable")),
		"403 without a code":   providertest.Reply{Status: 403}.Means(providertest.ChannelPaused(message.ChannelCredentials, "provider_unreachable")),
		"499 without a code":   providertest.Reply{Status: 499}.Means(providertest.Refused(message.ProviderRefused, "provider_unreachable")),
		"500":                  providertest.Reply{Status: 500}.Means(providertest.Unknown("provider_unreachable")),
		"502 page":             providertest.Reply{Status: 502, Body: "<html>"}.Means(providertest.Unknown("provider_unreachable")),
		"503":                  providertest.Reply{Status: 503}.Means(providertest.Unknown("provider_unreachable")),
		"code of four digits":  twError(400, "2121", "bad").Means(providertest.Refused(message.ProviderRefused, "provider_unreachable")),
		"no link":              providertest.Reply{Status: 400, Body: `{"code":21211,"message":"bad","status":400}`}.Means(providertest.Refused(message.RecipientRefused, "provider_unreachable")),
		"other status inside":  providertest.Reply{Status: 400, Body: twError(404, "21211", "bad").Body}.Means(providertest.Refused(message.RecipientRefused, "provider_unreachable")),
		"longer wait asked":    providertest.Reply{Status: 429, Header: providertest.Header("Retry-After", "9"), Body: twError(429, "20429", "slow").Body}.Means(providertest.Throttled(9*time.Second, "20429")),
		"503 with Retry-After": providertest.Reply{Status: 503, Header: providertest.Header("Retry-After", "3")}.Means(providertest.Throttled(3*time.Second, "provider_unreachable")),
	},
}

func TestConformance(t *testing.T) { providertest.Run(t, adapter) }

// expected returns the outcome of each code for a message without its own sender. The lists are written by hand from Twilio's
// documentation, not read from the table.
func expected() map[string]providertest.Outcome {
	want := map[string]providertest.Outcome{}
	add := func(outcome func(code string) providertest.Outcome, codes ...string) {
		for _, c := range codes {
			want[c] = outcome(c)
		}
	}
	refused := func(r message.Reason) func(string) providertest.Outcome {
		return func(c string) providertest.Outcome { return providertest.Refused(r, c) }
	}
	paused := func(r message.Reason) func(string) providertest.Outcome {
		return func(c string) providertest.Outcome { return providertest.ChannelPaused(r, c) }
	}
	throttled := func(d time.Duration) func(string) providertest.Outcome {
		return func(c string) providertest.Outcome { return providertest.Throttled(d, c) }
	}
	add(paused(message.ChannelCredentials), "20003", "20005", "20006", "20008", "20403", "30002")
	add(throttled(time.Second), "14107", "20429", "21611", "21730", "30001", "30017", "30022", "63017", "63018")
	add(throttled(30*time.Minute), "30023", "30027", "63038")
	add(providertest.Unknown, "20500", "20503", "30020", "30021", "30410", "63009", "63010", "63012")
	add(refused(message.RecipientRefused), "21211", "21214", "21217", "21401", "21407", "21408", "21608", "21612", "21614", "21635", "30003", "30005",
		"30006", "30011", "63003", "63024")
	add(refused(message.ConsentRefused), "21610", "30004", "63014", "63033")
	add(refused(message.OutsideWindow), "63016")
	add(refused(message.ContentRefused), "21602", "21617", "21618", "21619", "21620", "21623", "30007", "30019", "63005", "63013", "63021")
	add(paused(message.ChannelRefused), append([]string{"20404"}, senderCodes...)...)
	return want
}

var senderCodes = []string{
	"21212", "21601", "21603", "21606", "21607", "21609", "21659", "21660", "21661", "21701", "21703", "21704", "21705", "30018", "30024", "30032", "30034", "63007", "21910",
}

func TestCodes(t *testing.T) {
	adapter.CheckCodes(t, codes, expected(), func(code string) providertest.Reply { return twError(400, code, "bad") })
}

// A message with its own sender must not pause its channel if that sender is refused. Other codes keep their meaning.
func TestOwnSenderRefused(t *testing.T) {
	a := adapter
	a.Content.Sender = "+15005550001"
	want := expected()
	for _, c := range senderCodes {
		want[c] = providertest.Refused(message.SenderRefused, c)
	}
	a.CheckCodes(t, codes, want, func(code string) providertest.Reply { return twError(400, code, "bad") })
}

func form(kv ...string) string {
	v := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v.Encode()
}

func TestRequests(t *testing.T) {
	const path = "/2010-04-01/Accounts/" + account + "/Messages.json"
	const basic = "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTp0b3Atc2VjcmV0LXRva2Vu"
	const service = "MG0123456789abcdef0123456789abcdef"
	plain := form("To", "+14155550100", "From", "+15005550006", "Body", "Hello & goodbye")
	for name, c := range map[string]struct {
		change           func(a *providertest.Adapter)
		path, auth, body string
	}{
		"sms":        {func(*providertest.Adapter) {}, path, basic, plain},
		"own sender": {func(a *providertest.Adapter) { a.Content.Sender = "ACME" }, path, basic, form("To", "+14155550100", "From", "ACME", "Body", "Hello & goodbye")},
		"messaging service": {
			func(a *providertest.Adapter) { a.Channel.Sender = service }, path, basic,
			form("To", "+14155550100", "MessagingServiceSid", service, "Body", "Hello & goodbye"),
		},
		"sender like a service": {
			func(a *providertest.Adapter) { a.Channel.Sender = "MG0123" }, path, basic, form("To", "+14155550100", "From", "MG0123", "Body", "Hello & goodbye"),
		},
		"mms": {
			func(a *providertest.Adapter) {
				a.Content.MediaURLs = []string{"https://x.test/a.png", "https://x.test/b.png"}
			}, path, basic,
			form("To", "+14155550100", "From", "+15005550006", "Body", "Hello & goodbye", "MediaUrl", "https://x.test/a.png", "MediaUrl", "https://x.test/b.png"),
		},
		"api key": {
			func(a *providertest.Adapter) {
				a.Channel.Credentials = providertest.Credentials("account_sid", "AC1", "auth_token", "t", "api_key_sid", "SK1", "api_key_secret", "s")
			}, "/2010-04-01/Accounts/AC1/Messages.json", "Basic U0sxOnM=", plain,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := adapter
			c.change(&a)
			a.CheckRequest(t, providertest.Request{
				Method: http.MethodPost, Path: c.path, Authorization: c.auth, ContentType: "application/x-www-form-urlencoded", Body: c.body,
			})
		})
	}
}

// The SDK reads the host from environment variables. The adapter does not.
func TestEnvironmentDoesNotChangeTheHost(t *testing.T) {
	t.Setenv("TWILIO_REGION", "au1")
	t.Setenv("TWILIO_EDGE", "sydney")
	if r := adapter.Send(t, providertest.Serve(t, adapter.Accept).URL); r.Class != delivery.Accepted {
		t.Errorf("%+v", r)
	}
}

// An SMS is one call, also with media.
func TestParts(t *testing.T) {
	if n := New("http://x", nil).Parts(&message.Content{Text: "a", MediaURLs: []string{"https://x.test/a.png"}}); n != 1 {
		t.Errorf("%d parts", n)
	}
}

// Twilio's magic numbers have these outcomes at the simulator.
func TestSimulator(t *testing.T) {
	sim, u := testenv.Simulator(t)
	adapter.CheckRecipients(t, u, map[string]providertest.Outcome{
		"+15005550001": providertest.Refused(message.RecipientRefused, "21211"),
		"+15005550002": providertest.Refused(message.RecipientRefused, "21612"),
		"+15005550003": providertest.Refused(message.RecipientRefused, "21408"),
		"+15005550004": providertest.Refused(message.ConsentRefused, "21610"),
		"+15005550009": providertest.Refused(message.RecipientRefused, "21614"),
	})
	for sender, want := range map[string]providertest.Outcome{
		"+15005550001": providertest.ChannelPaused(message.ChannelRefused, "21212"),
		"+15005550007": providertest.ChannelPaused(message.ChannelRefused, "21606"),
		"+15005550008": providertest.Throttled(time.Second, "21611"),
	} {
		a := adapter
		a.Channel.Sender = sender
		a.CheckOutcome(t, u, want)
	}
	if r := adapter.Send(t, u); r.Class != delivery.Accepted || r.HTTPStatus != http.StatusCreated {
		t.Errorf("%+v", r)
	}
	if got := sim.Accepted("+14155550100"); len(got) != 1 || got[0].Text != "Hello & goodbye" || got[0].From != "+15005550006" {
		t.Errorf("record %+v", got)
	}
}
