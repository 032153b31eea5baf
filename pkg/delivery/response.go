package delivery

import (
	"strings"
	"time"
	"unicode/utf8"

	"herald/pkg/message"
)

// Class is what is known after a call to a provider.
type Class int

// The classes.
const (
	Accepted Class = iota + 1 // the provider accepted the message
	NotSent                   // certainly not sent: it can be tried again
	Refused                   // certainly not sent, and trying again is pointless
	Unknown                   // bytes left and no usable answer came back: it may have been sent
)

// attemptOutcome is what a class is called in the record of an attempt.
var attemptOutcome = [...]string{
	Accepted: message.AttemptSent, NotSent: message.AttemptNotSent, Refused: message.AttemptRefused, Unknown: message.AttemptUnknown,
}

// FailureScope is what a NotSent response concerns. It decides whether an attempt is used and what is paused.
type FailureScope int

// The scopes of a failure.
const (
	ScopeNone    FailureScope = iota // the network or the provider as a whole: uses an attempt
	ScopeRate                        // too many calls at once: uses no attempt
	ScopeChannel                     // the account, its credentials or its sender: pauses the channel, uses no attempt
	ScopeMessage                     // this message only: ends it
)

// Response is a provider's answer to one call, classified by its adapter.
type Response struct {
	Class             Class
	Scope             FailureScope // of NotSent
	Reason            message.Reason
	Failure           *message.Failure // the provider's own code and a text without personal data
	HTTPStatus        int              // 0 when no answer came
	ProviderMessageID string
	RetryAfter        time.Duration // as the provider asked, 0 when it did not
	PauseAfter        int           // refusals in a row that pause the channel; 0: maxRefusals
	Detail            string        // for the log only: which part of the call failed, without addresses
}

// signal is what a response says about the health of its channel.
func (r *Response) signal() Signal {
	switch {
	case r.Class == NotSent && r.Scope == ScopeRate:
		return Throttled
	case r.Class == Unknown, r.Class == NotSent && r.Scope == ScopeNone:
		return Failing
	}
	return Answered
}

// refused reports whether the provider refused this message for good, with a code.
func (r *Response) refused() bool {
	return (r.Class == Refused || r.Class == NotSent && r.Scope == ScopeMessage) && r.Failure != nil && r.Failure.Code != ""
}

// Bounds on what a provider writes, in bytes.
const (
	maxProviderID   = 256
	maxProviderCode = 64
	maxProviderText = 2_000
)

// cleaned returns the response with an id, a code and a text that the database accepts: valid UTF-8 without control
// characters, of bounded length.
func (r Response) cleaned() Response {
	r.ProviderMessageID = storable(r.ProviderMessageID, maxProviderID)
	if r.Failure != nil {
		r.Failure = &message.Failure{Code: storable(r.Failure.Code, maxProviderCode), Text: storable(r.Failure.Text, maxProviderText)}
	}
	return r
}

func storable(s string, limit int) string {
	printable := true
	for i := range len(s) {
		printable = printable && s[i] >= 0x20 && s[i] < 0x7f
	}
	if printable && len(s) <= limit {
		return s // the usual case, without a copy
	}
	s = strings.Map(func(r rune) rune {
		if message.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
