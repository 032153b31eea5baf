// Package provider is what the adapters of vendors share: the registry of providers, tables of vendors' error codes, and the
// classification of answers and of missing answers. The calls themselves go over package transport.
//
// Adapters never repeat a call. Delivery decides about retries, because each attempt is recorded.
package provider

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider/transport"
	"herald/pkg/redact"
)

const maxRetryAfter = time.Hour // the longest wait that a provider can impose

// codeUnreachable is the code that callers see if something other than the provider answered, or if the provider was not reached.
// A base URL can lead to any server, so the answer of that server and the cause of a failed connection are shown in the log only.
const codeUnreachable = "provider_unreachable"

// NoAnswer classifies a call that ended in an error instead of an answer: NotSent without attribution if no byte was sent, else
// Unknown.
func NoAnswer(ev *transport.Evidence, err error) delivery.Response {
	if ev.BytesSent() {
		r := Unknown(0, "no_answer", "the provider's answer did not come")
		r.Detail = lastCause(err)
		return r
	}
	return delivery.Response{
		Class: delivery.NotSent, Reason: message.Unreachable, Detail: lastCause(err),
		Failure: &message.Failure{Code: codeUnreachable, Text: "no connection to the provider"},
	}
}

// lastCause returns the last part of an error's text. The parts before it name addresses.
func lastCause(err error) string {
	msg := err.Error()
	if i := strings.LastIndex(msg, ": "); i >= 0 {
		msg = msg[i+2:]
	}
	return redact.Short(msg)
}

// Unknown returns the response to an answer of 2xx that does not say what became of the message, or to a missing answer (status 0).
func Unknown(status int, code, text string) delivery.Response {
	return delivery.Response{
		Class: delivery.Unknown, Reason: message.UnknownOutcome, HTTPStatus: status, Failure: &message.Failure{Code: code, Text: redact.Short(text)},
	}
}

// Answer is an answer of a provider that is not an acceptance.
type Answer struct {
	Status int
	Header http.Header

	Own  bool   // it has the form that the vendor documents for its errors; callers see Code and Text only then
	Code string // the vendor's code, "" if it gave none
	Text string

	OwnSender bool // the message names its own sender instead of the channel's
}

// failure returns code and text for the caller, without personal data.
func (a Answer) failure() *message.Failure {
	if !a.Own {
		return &message.Failure{Code: codeUnreachable, Text: "the answer is not the provider's (HTTP " + strconv.Itoa(a.Status) + ")"}
	}
	code := a.Code
	if code == "" {
		code = "http_" + strconv.Itoa(a.Status)
	}
	text := redact.Short(a.Text)
	if text == "" {
		text = http.StatusText(a.Status)
	}
	return &message.Failure{Code: code, Text: text}
}

// As returns the response that a verdict makes of the answer.
func (a Answer) As(v Verdict) delivery.Response {
	switch {
	case v.ofSender && a.OwnSender:
		v = Refuse(message.SenderRefused)
	case v.unknownFrom500 && a.Status >= http.StatusInternalServerError:
		v = MaybeSent
	}
	r := delivery.Response{Class: v.Class, Scope: v.Scope, Reason: v.Reason, HTTPStatus: a.Status, Failure: a.failure(), PauseAfter: v.pauseAfter}
	if v.Scope == delivery.ScopeRate {
		r.RetryAfter = max(RetryAfter(a.Header, time.Now()), v.MinWait)
	}
	return r
}

// ByStatus classifies an answer without a known code by its HTTP status. A status of 5xx leaves open whether the vendor accepted
// the message before it failed; 503 with Retry-After is a documented refusal.
func (a Answer) ByStatus() delivery.Response {
	switch {
	case a.Status == http.StatusTooManyRequests, a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") != "":
		return a.As(Throttle(0))
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		return a.As(PauseChannel(message.ChannelCredentials))
	case a.Status >= 400 && a.Status < 500:
		return a.As(Refuse(message.ProviderRefused))
	default:
		return a.As(MaybeSent)
	}
}

// RetryAfter returns the wait that an answer asks for: Retry-After in seconds or as a date (RFC 9110, 10.2.3), else
// X-RateLimit-Reset in Unix seconds. It is 0 if neither is valid, and an hour at most.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	wait := time.Duration(0)
	if v := h.Get("Retry-After"); v != "" {
		if s, err := strconv.Atoi(v); err == nil {
			wait = time.Duration(s) * time.Second
		} else if t, err := http.ParseTime(v); err == nil {
			wait = t.Sub(now)
		}
	} else if s, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
		wait = time.Unix(s, 0).Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
