package message

import "slices"

// Status is where a message stands. The open ones come first; the settled ones have a rank, and a settled message
// only moves to a higher one.
type Status string

// The statuses of a message.
const (
	Scheduled Status = "SCHEDULED" // waits for its time
	Pending   Status = "PENDING"   // of a bulk, waits for a worker
	Queued    Status = "QUEUED"    // a single that was handed to the workers
	Sending   Status = "SENDING"   // claimed: bytes may be on their way

	Unknown   Status = "UNKNOWN"   // the bytes left and no answer came back
	Cancelled Status = "CANCELLED" // taken back before it was sent
	Skipped   Status = "SKIPPED"   // never tried: no address, a duplicate, suppressed
	Failed    Status = "FAILED"    // refused, or given up
	Sent      Status = "SENT"      // accepted by the provider
	Delivered Status = "DELIVERED" // a receipt says that it arrived
	Read      Status = "READ"      // a receipt says that it was read
	Bounced   Status = "BOUNCED"   // accepted, and came back later
)

// Settled lists the statuses that a message can end in, lowest rank first.
var Settled = []Status{Unknown, Cancelled, Skipped, Failed, Sent, Delivered, Read, Bounced}

// Open lists the statuses of a message that still has something before it, UNKNOWN with a further attempt aside.
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

// Accepted says whether the provider took the message, whatever became of it later.
func (s Status) Accepted() bool { return s.Rank() >= Sent.Rank() }

// ParseStatus reads a Status in any letter case.
func ParseStatus(v string) (Status, bool) {
	if s, ok := parseEnum(v, Open); ok {
		return s, true
	}
	return parseEnum(v, Settled)
}

// Reason is why a message ended as it did, from a closed list. It is what failure_reasons counts.
type Reason string

// The reasons. SKIPPED messages carry one of the first group or Erased, CANCELLED its own, FAILED the rest. UNKNOWN
// messages carry UnknownOutcome, or the reason why a message that may have been delivered is not sent once more.
const (
	NoReason Reason = ""

	NoRecipient        Reason = "no_recipient"        // the lead has no address of the type
	InvalidRecipient   Reason = "invalid_recipient"   // the lead's address is not one
	DuplicateRecipient Reason = "duplicate_recipient" // another lead of the bulk has the same address
	Unsubscribed       Reason = "unsubscribed"        // the person asked not to be contacted
	SuppressedBounce   Reason = "bounced"             // the address is known to be dead
	Complained         Reason = "complained"          // the person called an earlier message spam
	ManuallySuppressed Reason = "suppressed"          // somebody here put the address on the list

	WasCancelled   Reason = "cancelled"       // the bulk was cancelled before this message left
	UnknownOutcome Reason = "outcome_unknown" // the bytes left and nothing came back

	RecipientRefused    Reason = "recipient_refused"    // the provider does not accept the address
	ConsentRefused      Reason = "consent_refused"      // the provider knows that the person opted out
	ContentRefused      Reason = "content_refused"      // the provider does not accept what it says
	SenderRefused       Reason = "sender_refused"       // the provider does not accept the message's own sender
	OutsideWindow       Reason = "outside_window"       // Instagram: the person wrote too long ago
	ProviderRefused     Reason = "provider_refused"     // refused with a code that Herald does not know
	RenderInvalid       Reason = "render_invalid"       // the rendered text is empty, too long or cannot be rendered
	ChannelCredentials  Reason = "channel_credentials"  // the channel's credentials are dead
	ChannelRefused      Reason = "channel_refused"      // the provider refuses the channel's account or sender
	Unreachable         Reason = "unreachable"          // no connection to the provider, time after time
	ProviderUnavailable Reason = "provider_unavailable" // the provider said "not now", time after time
	Poison              Reason = "poison"               // its attempts ended without an outcome, time after time
	RenderCrashed       Reason = "render_crashed"       // its rendering ended the process twice
	ChannelDeleted      Reason = "channel_deleted"      // its channel no longer exists

	Erased Reason = "erased" // the lead was erased before the message left
)

// reasons numbers the list. A number is stored in counters: entries are only ever added at the end.
var reasons = []Reason{
	NoReason, NoRecipient, InvalidRecipient, DuplicateRecipient, Unsubscribed, SuppressedBounce, Complained,
	ManuallySuppressed, WasCancelled, UnknownOutcome, RecipientRefused, ConsentRefused, ContentRefused, SenderRefused,
	OutsideWindow, ProviderRefused, RenderInvalid, ChannelCredentials, ChannelRefused, Unreachable,
	ProviderUnavailable, Poison, Erased, RenderCrashed, ChannelDeleted,
}

// Reasons lists every reason but NoReason.
func Reasons() []Reason { return slices.Clone(reasons[1:]) }

// ReasonCount is how many numbers reasons can have; it bounds the closed list.
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
