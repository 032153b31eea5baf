// Package provider is what the adapters share: one tuned HTTP client per provider, the evidence of whether a request
// left, and the rules by which an answer is classified where the vendor's own code says nothing. Adapters never
// repeat a call: a retry is decided by delivery, on the record.
package provider

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/redact"
)

const maxRetry = time.Hour // the longest Retry-After that is obeyed

// NewHTTPClient makes the client of one provider. It follows no redirect, repeats no call, and sets no timeout of its own:
// every call has a context with one.
func NewHTTPClient() *http.Client {
	return &http.Client{
		Transport:     newTransport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Evidence tells whether a request may have reached the provider.
type Evidence struct{ left atomic.Bool }

// Left says whether any of it went out. Until then it is certain that nothing was sent.
func (e *Evidence) Left() bool { return e.left.Load() }

func (e *Evidence) leave() { e.left.Store(true) }

type evidenceKey struct{}

// Trace watches the requests made with the returned context over a client of NewHTTPClient.
func Trace(ctx context.Context) (context.Context, *Evidence) {
	e := &Evidence{}
	return context.WithValue(ctx, evidenceKey{}, e), e
}

// NoAnswer classifies a call that ended in an error instead of an answer.
func NoAnswer(e *Evidence, err error) delivery.Response {
	if e.Left() {
		r := Unknown(0, "no_answer", "the provider's answer did not come")
		r.Detail = kind(err)
		return r
	}
	return delivery.Response{
		Class: delivery.NotSent, Reason: message.Unreachable, Detail: kind(err),
		Failure: &message.Failure{Code: unreachable, Text: "no connection to the provider"},
	}
}

// unreachable is the code that callers are told where it was not the provider that answered, or nothing did. A base URL may
// lead to any server: what one says that is not the provider is nothing for callers, and how it was not reached neither.
const unreachable = "provider_unreachable"

// kind names an error without the addresses that it may carry.
func kind(err error) string {
	msg := err.Error()
	if i := strings.LastIndex(msg, ": "); i >= 0 {
		msg = msg[i+2:]
	}
	return redact.Short(msg)
}

// Unknown is an answer, or the lack of one, after which the message may or may not have been sent.
func Unknown(status int, code, text string) delivery.Response {
	return delivery.Response{
		Class: delivery.Unknown, Reason: message.UnknownOutcome, HTTPStatus: status, Failure: &message.Failure{Code: code, Text: redact.Short(text)},
	}
}

// Answer is a provider's refusal or failure as it came.
type Answer struct {
	Status int
	Header http.Header
	Own    bool   // it has the form that the vendor documents for its errors; only then Code and Text are told to callers
	Code   string // the vendor's own, "" where it gave none
	Text   string
}

// failure returns the answer's words, made safe; of an answer that is not the vendor's, our own.
func (a Answer) failure() *message.Failure {
	if !a.Own {
		return &message.Failure{Code: unreachable, Text: "no answer of the provider's own came (HTTP " + strconv.Itoa(a.Status) + ")"}
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

// Refused is a refusal for good, for a reason.
func (a Answer) Refused(reason message.Reason) delivery.Response {
	return delivery.Response{Class: delivery.Refused, Scope: delivery.ScopeMessage, Reason: reason, HTTPStatus: a.Status, Failure: a.failure()}
}

// NotNow is a refusal that says to come back later, and uses no attempt.
func (a Answer) NotNow(least time.Duration) delivery.Response {
	return delivery.Response{
		Class: delivery.NotSent, Scope: delivery.ScopeRate, Reason: message.ProviderUnavailable, HTTPStatus: a.Status, Failure: a.failure(),
		RetryAfter: max(RetryAfter(a.Header, time.Now()), least),
	}
}

// OfChannel is a refusal of the account, its credentials or its sender: no message of the channel will do better.
func (a Answer) OfChannel(reason message.Reason) delivery.Response {
	return delivery.Response{Class: delivery.NotSent, Scope: delivery.ScopeChannel, Reason: reason, HTTPStatus: a.Status, Failure: a.failure()}
}

// Unknown is an answer after which the message may or may not have been sent.
func (a Answer) Unknown() delivery.Response {
	f := a.failure()
	return delivery.Response{Class: delivery.Unknown, Reason: message.UnknownOutcome, HTTPStatus: a.Status, Failure: f}
}

// ByStatus classifies an answer without a known code by its HTTP status alone.
func (a Answer) ByStatus() delivery.Response {
	switch {
	case a.Status == http.StatusTooManyRequests:
		return a.NotNow(0)
	case a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") != "":
		return a.NotNow(0)
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		return a.OfChannel(message.ChannelCredentials)
	case a.Status >= 400 && a.Status < 500:
		return a.Refused(message.ProviderRefused)
	default:
		return a.Unknown()
	}
}

// RetryAfter reads Retry-After (seconds or a date) or else X-RateLimit-Reset (Unix seconds), 0 when neither says
// anything.
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
	return min(max(wait, 0), maxRetry)
}
