package delivery

import (
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Row names the ledger row that an outcome is for, and what the row already says of the message. Its methods are the only
// constructors of an Outcome.
type Row struct {
	ID       uuid.UUID
	Token    uuid.UUID // of the claim that the outcome ends; uuid.Nil when the row is open and not claimed
	Single   bool      // it waits as QUEUED; a message of a bulk waits as PENDING
	Attempt  int       // the number of the attempt, from 1
	Part     int       // parts that the provider has accepted
	Unknowns int       // earlier attempts with an unknown outcome
}

// Outcome is what a message's row says after an attempt. With a token it is a compare-and-set on that claim; without one it
// settles only a row that is open and not claimed. The zero value is no outcome; the methods of Row make one.
type Outcome struct {
	row               Row
	status            message.Status
	reason            message.Reason
	failure           *message.Failure
	providerMessageID string
	httpStatus        int
	cost              message.Micros
	extendsClaim      time.Duration
	refundsAttempt    bool
	dueAfter          time.Duration
	attempt           message.Attempt // the zero value: no call was made
}

// Sent is the end of a message whose last part the provider accepted.
func (r Row) Sent(cost message.Micros) Outcome {
	r.Part++
	return Outcome{row: r, status: message.Sent, cost: cost}
}

// NextPart records an accepted part that others follow. The claim lasts for a further time, so that a worker's death
// between two parts resumes at the next part.
func (r Row) NextPart(extend time.Duration) Outcome {
	r.Part++
	return Outcome{row: r, status: message.Sending, extendsClaim: extend}
}

// Failed is the end of a message that the provider refused, or that has no attempts left. The attempt counts.
func (r Row) Failed(reason message.Reason, failure *message.Failure) Outcome {
	return r.ended(message.Failed, reason, failure)
}

// Rejected is the end of a message that failed before a call. A claim under which it was found out uses no attempt.
func (r Row) Rejected(reason message.Reason, text string) Outcome {
	return r.endedBeforeCall(message.Failed, reason, text)
}

// Skipped is the end of a message that must not be sent. A claim under which it was found out uses no attempt.
func (r Row) Skipped(reason message.Reason, text string) Outcome {
	return r.endedBeforeCall(message.Skipped, reason, text)
}

func (r Row) endedBeforeCall(status message.Status, reason message.Reason, text string) Outcome {
	o := r.ended(status, reason, &message.Failure{Code: string(reason), Text: text})
	o.refundsAttempt = r.Token != uuid.Nil
	return o
}

// ended applies the rule that a message which may have been delivered never ends as if it had not been: after an attempt
// with an unknown outcome, or with an accepted part, it ends UNKNOWN with the reason of that end.
func (r Row) ended(status message.Status, reason message.Reason, failure *message.Failure) Outcome {
	if r.Unknowns > 0 || r.Part > 0 {
		status = message.Unknown
	}
	return Outcome{row: r, status: status, reason: reason, failure: failure}
}

// Unknown is the outcome of a call after which the message may or may not have been sent. After resendAfter it is sent once
// more unless an event of the provider settles it first; 0: it is never sent again.
func (r Row) Unknown(resendAfter time.Duration) Outcome {
	return Outcome{row: r, status: message.Unknown, reason: message.UnknownOutcome, dueAfter: resendAfter}
}

// Abandoned is Unknown for a claim that expired: its worker died or froze after it claimed the message at a time, and may
// have called the provider.
func (r Row) Abandoned(resendAfter time.Duration, providerMessageID string, claimedAt time.Time) Outcome {
	o := r.Unknown(resendAfter)
	o.providerMessageID = providerMessageID
	o.attempt = r.attemptAt(claimedAt)
	o.attempt.Outcome, o.attempt.Code = message.AttemptUnknown, "worker_died"
	return o
}

// Retry puts a message back to wait and counts the attempt. The queue runs it again after a time; 0: the runner of its bulk
// enqueues it.
func (r Row) Retry(reason message.Reason, after time.Duration) Outcome {
	return Outcome{row: r, status: r.waiting(), reason: reason, dueAfter: after}
}

// Release is Retry without a used attempt: a claim is given up as if it had not been made.
func (r Row) Release(reason message.Reason, after time.Duration) Outcome {
	o := r.Retry(reason, after)
	o.refundsAttempt = r.Token != uuid.Nil
	return o
}

// waiting is the status of a message that waits for a worker.
func (r Row) waiting() message.Status {
	if r.Single {
		return message.Queued
	}
	return message.Pending
}

// WithCall adds a provider's response to the outcome, as the row's last answer and as the record of an attempt.
func (o Outcome) WithCall(r Response, started time.Time) Outcome {
	o.failure, o.httpStatus, o.providerMessageID = r.Failure, r.HTTPStatus, r.ProviderMessageID
	called := o.row
	if o.status == message.Sent || o.status == message.Sending {
		called.Part-- // the part that was just accepted
	}
	o.attempt = called.attemptAt(started)
	o.attempt.Outcome, o.attempt.HTTPStatus = attemptOutcome[r.Class], r.HTTPStatus
	if r.Failure != nil {
		o.attempt.Code = r.Failure.Code
	}
	return o
}

func (r Row) attemptAt(started time.Time) message.Attempt {
	return message.Attempt{MessageID: r.ID, N: r.Attempt, Part: r.Part, StartedAt: started.UTC(), EndedAt: time.Now().UTC()}
}

// withoutWords returns the outcome without the words of the provider, for a database that refuses them.
func (o Outcome) withoutWords() Outcome {
	o.providerMessageID, o.failure, o.attempt.Code = "", nil, ""
	return o
}

// ID returns the id of the message.
func (o *Outcome) ID() uuid.UUID { return o.row.ID }

// Token returns the token of the claim that the outcome ends or extends, uuid.Nil for an unclaimed row.
func (o *Outcome) Token() uuid.UUID { return o.row.Token }

// Status returns the message's new status.
func (o *Outcome) Status() message.Status { return o.status }

// Reason returns the reason of the status.
func (o *Outcome) Reason() message.Reason { return o.reason }

// Failure returns what refused the message, nil when nothing did.
func (o *Outcome) Failure() *message.Failure { return o.failure }

// ProviderMessageID returns the provider's id of the message; "" leaves the row's as it is.
func (o *Outcome) ProviderMessageID() string { return o.providerMessageID }

// HTTPStatus returns the status of the provider's answer, 0 without one.
func (o *Outcome) HTTPStatus() int { return o.httpStatus }

// Cost returns what the channel charges for the message.
func (o *Outcome) Cost() message.Micros { return o.cost }

// Part returns how many parts the provider has accepted.
func (o *Outcome) Part() int { return o.row.Part }

// ExtendsClaim returns for how long the claim is extended because another part follows, 0 when the claim ends.
func (o *Outcome) ExtendsClaim() time.Duration { return o.extendsClaim }

// RefundsAttempt says whether the attempt of the claim does not count.
func (o *Outcome) RefundsAttempt() bool { return o.refundsAttempt }

// DueAfter returns the delay until the row is due for the sweep, 0 for a row that is not.
func (o *Outcome) DueAfter() time.Duration { return o.dueAfter }

// Attempt returns the record of the call, nil when none was made. The caller must not change it.
func (o *Outcome) Attempt() *message.Attempt {
	if o.attempt.Outcome == "" {
		return nil
	}
	return &o.attempt
}
