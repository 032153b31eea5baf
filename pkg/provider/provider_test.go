package provider_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
	"herald/pkg/provider/providertest"
	"herald/pkg/provider/transport"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		key, value string
		want       time.Duration
	}{
		"seconds": {"Retry-After", "12", 12 * time.Second}, "date": {"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		"past": {"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0}, "negative": {"Retry-After", "-5", 0}, "nonsense": {"Retry-After", "soon", 0},
		"an hour": {"Retry-After", "3600", time.Hour}, "too long": {"Retry-After", "999999", time.Hour},
		"reset": {"X-RateLimit-Reset", "1767323075", 30 * time.Second}, "reset in the past": {"X-RateLimit-Reset", "1", 0}, "none": {"X", "1", 0},
	} {
		if got := provider.RetryAfter(providertest.Header(c.key, c.value), now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := provider.RetryAfter(providertest.Header("Retry-After", "1", "X-RateLimit-Reset", "1767323075"), now); got != time.Second {
		t.Errorf("both headers: %v", got)
	}
}

func TestByStatus(t *testing.T) {
	for status, want := range map[int]providertest.Outcome{
		100: providertest.Unknown("c"), 302: providertest.Unknown("c"), 399: providertest.Unknown("c"), 400: providertest.Refused(message.ProviderRefused, "c"),
		401: providertest.ChannelPaused(message.ChannelCredentials, "c"), 403: providertest.ChannelPaused(message.ChannelCredentials, "c"),
		404: providertest.Refused(message.ProviderRefused, "c"), 429: providertest.Throttled(0, "c"), 499: providertest.Refused(message.ProviderRefused, "c"),
		500: providertest.Unknown("c"), 503: providertest.Unknown("c"), 599: providertest.Unknown("c"),
	} {
		r := provider.Answer{Status: status, Own: true, Code: "c"}.ByStatus()
		if d := cmp.Diff(want, providertest.OutcomeOf(r)); d != "" || r.HTTPStatus != status {
			t.Errorf("%d: %s", status, d)
		}
	}
	for status, want := range map[int]providertest.Outcome{
		429: providertest.Throttled(2*time.Second, "c"), 503: providertest.Throttled(2*time.Second, "c"), 500: providertest.Unknown("c"), 400: providertest.Refused(message.ProviderRefused, "c"),
	} {
		r := provider.Answer{Status: status, Header: providertest.Header("Retry-After", "2"), Own: true, Code: "c"}.ByStatus()
		if d := cmp.Diff(want, providertest.OutcomeOf(r)); d != "" {
			t.Errorf("%d with Retry-After: %s", status, d)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		verdict provider.Verdict
		answer  provider.Answer
		want    providertest.Outcome
	}{
		"sender of the channel":   {provider.RefuseSender(), provider.Answer{Status: 400}, providertest.ChannelPaused(message.ChannelRefused, "c")},
		"sender of the message":   {provider.RefuseSender(), provider.Answer{Status: 400, OwnSender: true}, providertest.Refused(message.SenderRefused, "c")},
		"channel, own sender":     {provider.PauseChannel(message.ChannelRefused), provider.Answer{OwnSender: true}, providertest.ChannelPaused(message.ChannelRefused, "c")},
		"throttle":                {provider.Throttle(time.Second), provider.Answer{Status: 500}, providertest.Throttled(time.Second, "c")},
		"retry below 500":         {provider.RetryLaterUnless500(), provider.Answer{Status: 499}, providertest.Retried("c")},
		"unknown from 500":        {provider.RetryLaterUnless500(), provider.Answer{Status: 500}, providertest.Unknown("c")},
		"longer wait":             {provider.Throttle(time.Second), provider.Answer{Header: providertest.Header("Retry-After", "5")}, providertest.Throttled(5*time.Second, "c")},
		"shorter wait":            {provider.Throttle(time.Minute), provider.Answer{Header: providertest.Header("Retry-After", "5")}, providertest.Throttled(time.Minute, "c")},
		"no wait without a limit": {provider.Refuse(message.ContentRefused), provider.Answer{Header: providertest.Header("Retry-After", "5")}, providertest.Refused(message.ContentRefused, "c")},
	} {
		c.answer.Own, c.answer.Code = true, "c"
		if d := cmp.Diff(c.want, providertest.OutcomeOf(c.answer.As(c.verdict))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Callers see the vendor's code and text if the answer is the vendor's, without personal data, and nothing of other servers.
func TestFailureTexts(t *testing.T) {
	for name, c := range map[string]struct {
		answer provider.Answer
		want   message.Failure
	}{
		"code and text": {provider.Answer{Status: 400, Own: true, Code: "7", Text: "no ann@example.com"}, message.Failure{Code: "7", Text: "no ***"}},
		"neither":       {provider.Answer{Status: 404, Own: true}, message.Failure{Code: "http_404", Text: "Not Found"}},
		"other server":  {provider.Answer{Status: 404, Code: "7", Text: "intranet"}, message.Failure{Code: "provider_unreachable", Text: "the answer is not the provider's (HTTP 404)"}},
	} {
		if d := cmp.Diff(&c.want, c.answer.As(provider.MaybeSent).Failure); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// The log gets the last cause of an error, which holds no address.
func TestNoAnswerDetail(t *testing.T) {
	r := provider.NoAnswer(&transport.Evidence{}, errors.New("dial tcp 10.0.0.1:443: connect: connection refused"))
	if r.Detail != "connection refused" || r.Class != delivery.NotSent || r.Reason != message.Unreachable {
		t.Errorf("%+v", r)
	}
	if r := provider.NoAnswer(&transport.Evidence{}, errors.New("canceled by ann@example.com")); r.Detail != "canceled by ***" {
		t.Errorf("%+v", r)
	}
}

func TestTablesRefuseMistakes(t *testing.T) {
	good := provider.Row("1", provider.MaybeSent, "meaning")
	for name, rows := range map[string][]provider.Code{
		"repeated": {good, good}, "without a code": {provider.Row("", provider.MaybeSent, "meaning")},
		"without a meaning": {provider.Row("1", provider.MaybeSent, "")}, "without a verdict": {provider.Row("1", provider.Verdict{}, "meaning")},
	} {
		func() {
			defer func() {
				if got := recover(); got == nil || !strings.Contains(got.(string), "repeated or incomplete") {
					t.Errorf("%s: %v", name, got)
				}
			}()
			provider.NewCodes(rows...)
		}()
	}
	if table := provider.NewCodes(good); len(table) != 1 || table["1"].Meaning != "meaning" {
		t.Errorf("%+v", table)
	}
}
