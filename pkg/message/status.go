package message

import "slices"

// Status is the state of a message. A settled status has a rank, and a settled message moves to a higher rank only.
type Status string

// The statuses of a message.
const (
	Scheduled Status = "SCHEDULED" // waits for its scheduled time
	Pending   Status = "PENDING"   // a bulk's message that waits for a worker
	Queued    Status = "QUEUED"    // a single that waits for a worker
	Sending   Status = "SENDING"   // claimed: bytes may have been sent

	Unknown   Status = "UNKNOWN"   // bytes were sent and no usable answer came
	Cancelled Status = "CANCELLED" // its bulk was cancelled before it was sent
	Skipped   Status = "SKIPPED"   // never attempted: no address, a duplicate, suppressed
	Failed    Status = "FAILED"    // refused, or its attempts are used up
	Sent      Status = "SENT"      // accepted by the provider
	Delivered Status = "DELIVERED" // a receipt reports the delivery
	Read      Status = "READ"      // a receipt reports that it was read
	Bounced   Status = "BOUNCED"   // accepted and returned later
)

// Settled lists the final statuses, lowest rank first.
var Settled = []Status{Unknown, Cancelled, Skipped, Failed, Sent, Delivered, Read, Bounced}

// Open lists the statuses that are not final. An UNKNOWN message that will be sent once more is not among them.
var Open = []Status{Scheduled, Pending, Queued, Sending}

// Rank returns 1 for UNKNOWN up to 8 for BOUNCED, and 0 for an open status.
func (s Status) Rank() int {
	for i, e := range Settled {
		if e == s {
			return i + 1
		}
	}
	return 0
}

// Accepted reports whether the provider accepted the message.
func (s Status) Accepted() bool { return s.Rank() >= Sent.Rank() }

// ParseStatus parses a Status in any letter case.
func ParseStatus(v string) (Status, bool) {
	if s, ok := parseEnum(v, Open); ok {
		return s, true
	}
	return parseEnum(v, Settled)
}

// Reason is the cause of a message's status, from a closed list. failure_reasons counts them.
type Reason string

// The reasons. SKIPPED messages have one of the first group or Erased, CANCELLED messages WasCancelled, FAILED messages the others.
// UNKNOWN messages have UnknownOutcome, or the reason that prevents a second send.
const (
	NoReason Reason = ""

	NoRecipient        Reason = "no_recipient"        // the lead has no address of the type
	InvalidRecipient   Reason = "invalid_recipient"   // the lead's address is invalid
	DuplicateRecipient Reason = "duplicate_recipient" // an earlier lead of the bulk has the same address
	Unsubscribed       Reason = "unsubscribed"        // the recipient unsubscribed
	SuppressedBounce   Reason = "bounced"             // the address bounced before
	Complained         Reason = "complained"          // the recipient reported an earlier message as spam
	ManuallySuppressed Reason = "suppressed"          // an operator suppressed the address

	WasCancelled   Reason = "cancelled"       // the bulk was cancelled before the message was sent
	UnknownOutcome Reason = "outcome_unknown" // bytes were sent and no usable answer came

	RecipientRefused    Reason = "recipient_refused"    // the provider refuses the address
	ConsentRefused      Reason = "consent_refused"      // the provider reports that the recipient opted out
	ContentRefused      Reason = "content_refused"      // the provider refuses the content
	SenderRefused       Reason = "sender_refused"       // the provider refuses the message's own sender
	OutsideWindow       Reason = "outside_window"       // Instagram: the recipient's last message is too old
	ProviderRefused     Reason = "provider_refused"     // the provider refuses it with a code that is not in its table
	RenderInvalid       Reason = "render_invalid"       // the rendered text is empty, too long or cannot be rendered
	ChannelCredentials  Reason = "channel_credentials"  // the provider refuses the channel's credentials
	ChannelRefused      Reason = "channel_refused"      // the provider refuses the channel's account or sender
	Unreachable         Reason = "unreachable"          // no connection to the provider in any attempt
	ProviderUnavailable Reason = "provider_unavailable" // the provider refused for load in every attempt
	Poison              Reason = "poison"               // its attempts ended without an outcome repeatedly
	RenderCrashed       Reason = "render_crashed"       // its rendering ended the process twice
	ChannelDeleted      Reason = "channel_deleted"      // its channel no longer exists

	Erased Reason = "erased" // the lead was erased before the message was sent
)

// reasons numbers the reasons. Counters store the numbers, so entries are added at the end only.
var reasons = []Reason{
	NoReason, NoRecipient, InvalidRecipient, DuplicateRecipient, Unsubscribed, SuppressedBounce, Complained,
	ManuallySuppressed, WasCancelled, UnknownOutcome, RecipientRefused, ConsentRefused, ContentRefused, SenderRefused,
	OutsideWindow, ProviderRefused, RenderInvalid, ChannelCredentials, ChannelRefused, Unreachable,
	ProviderUnavailable, Poison, Erased, RenderCrashed, ChannelDeleted,
}

// Reasons lists every reason but NoReason.
func Reasons() []Reason { return slices.Clone(reasons[1:]) }

// ParseReason parses a Reason in any letter case.
func ParseReason(v string) (Reason, bool) { return parseEnum(v, reasons[1:]) }

// ReasonCount is the number of reasons for which the state code has room.
const ReasonCount = 28

var reasonNumber = func() map[Reason]int {
	m := make(map[Reason]int, len(reasons))
	for i, r := range reasons {
		m[r] = i
	}
	return m
}()

// Number returns the reason's place in the closed list, 0 for NoReason or one that is not in it.
func (r Reason) Number() int { return reasonNumber[r] }

// ReasonByNumber is the inverse of Number; a number outside the list gives NoReason.
func ReasonByNumber(n int) Reason {
	if n < 0 || n >= len(reasons) {
		return NoReason
	}
	return reasons[n]
}
