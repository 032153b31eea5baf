package provider

import (
	"fmt"
	"time"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// Verdict says what follows from an answer that is not an acceptance. Its constructors return the valid combinations.
type Verdict struct {
	Class   delivery.Class
	Scope   delivery.FailureScope
	Reason  message.Reason
	MinWait time.Duration // of ScopeRate: the wait if the answer asks for none or less

	pauseAfter     int // see delivery.Response.PauseAfter
	ofSender       bool
	unknownFrom500 bool
}

// MaybeSent is the verdict on an error after which the message may have been sent.
var MaybeSent = Verdict{Class: delivery.Unknown, Reason: message.UnknownOutcome}

// Refuse ends the message with a reason. A retry would fail too.
func Refuse(reason message.Reason) Verdict {
	return Verdict{Class: delivery.Refused, Scope: delivery.ScopeMessage, Reason: reason}
}

// RefuseThenPause is Refuse for codes that may concern one recipient or the channel: after n different recipients in a row the
// channel is paused.
func RefuseThenPause(reason message.Reason, n int) Verdict {
	v := Refuse(reason)
	v.pauseAfter = n
	return v
}

// PauseChannel pauses the channel and keeps the message: the account, its credentials or its sender is refused, so every message of
// the channel would fail.
func PauseChannel(reason message.Reason) Verdict {
	return Verdict{Class: delivery.NotSent, Scope: delivery.ScopeChannel, Reason: reason}
}

// Throttle slows the channel down and retries the message after minWait or longer. It uses no attempt.
func Throttle(minWait time.Duration) Verdict {
	return Verdict{Class: delivery.NotSent, Scope: delivery.ScopeRate, Reason: message.ProviderUnavailable, MinWait: minWait}
}

// RetryLater tries the message again later, which uses an attempt. It does not slow the channel down: the vendor says "not now"
// of this call, and other messages may pass.
func RetryLater() Verdict {
	return Verdict{Class: delivery.NotSent, Scope: delivery.ScopeNone, Reason: message.ProviderUnavailable}
}

// RetryLaterUnless500 is RetryLater for codes that vendors send before and after they accept a message. With a status of 5xx it is
// MaybeSent.
func RetryLaterUnless500() Verdict {
	v := RetryLater()
	v.unknownFrom500 = true
	return v
}

// RefuseSender refuses the sender: it ends a message that names its own sender, and else pauses the channel, whose sender it is.
func RefuseSender() Verdict {
	v := PauseChannel(message.ChannelRefused)
	v.ofSender = true
	return v
}

// Code is one entry of a vendor's table of error codes.
type Code struct {
	Code    string // as the vendor writes it
	Verdict Verdict
	Meaning string // in the vendor's documentation
}

// Row returns an entry of a table.
func Row(code string, verdict Verdict, meaning string) Code { return Code{code, verdict, meaning} }

// Codes is a vendor's table of error codes by code. It is read only.
type Codes map[string]Code

// NewCodes returns the table of the rows. It panics on an incomplete or repeated row: tables are package variables.
func NewCodes(rows ...Code) Codes {
	table := make(Codes, len(rows))
	for _, r := range rows {
		if _, repeated := table[r.Code]; repeated || r.Code == "" || r.Meaning == "" || r.Verdict.Class == 0 {
			panic(fmt.Sprintf("error code %q is repeated or incomplete", r.Code))
		}
		table[r.Code] = r
	}
	return table
}
