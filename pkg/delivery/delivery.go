// Package delivery is the use case "deliver this message": everything that can wait or refuse, then the claim, then
// the provider, then the outcome. A single message and each message of a bulk go through the same code. It knows no
// queue, database or provider's API; its ports say what it needs of them.
package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/render"
	"herald/pkg/stats"
)

// Limits that the promises rest on.
const (
	MaxAttempts = 8                // claims of one message, so that a message that kills its worker comes to an end
	SendTimeout = 15 * time.Second // one call to a provider
)

// Timing is how long things take that tests shorten.
type Timing struct {
	Claim       time.Duration // how long a claim excludes others
	Stale       time.Duration // a claim older than this is given back instead of used: the process was frozen
	UnknownHold time.Duration // how long an UNKNOWN message waits for events before it is sent once more
	Watch       time.Duration // how long after it was due a message is looked at again by the sweep
	Backoff     time.Duration // after the first failure to reach a provider; it doubles with each
	PausedRetry time.Duration // how often a single looks whether its paused channel sends again
}

// DefaultTiming is the Timing of a real deployment.
func DefaultTiming() Timing {
	return Timing{
		Claim: 60 * time.Second, Stale: 20 * time.Second, UnknownHold: 5 * time.Minute, Watch: 30 * time.Second,
		Backoff: 2 * time.Second, PausedRetry: 15 * time.Second,
	}
}

// Class is what is known after a call to a provider.
type Class int

// The classes, from RFC-like certainty to none.
const (
	Accepted Class = iota + 1 // the provider took the message
	NotSent                   // certain that nothing was sent: try again later
	Refused                   // certain that nothing was sent and never will be
	Unknown                   // bytes left and no usable answer came back
)

// FailureScope says whom a NotSent concerns.
type FailureScope int

// The faults.
const (
	ScopeNone    FailureScope = iota // the network or the provider as a whole
	ScopeRate                        // too much at once: uses no attempt
	ScopeChannel                     // the account, its credentials or its sender: pauses the channel
	ScopeMessage                     // this message alone
)

// Response is one call to a provider, classified.
type Response struct {
	Class             Class
	Scope             FailureScope
	Reason            message.Reason
	Failure           *message.Failure // the provider's own code and safe words
	HTTPStatus        int              // 0 when no answer came
	ProviderMessageID string
	RetryAfter        time.Duration // as the provider asked, 0 when it did not
	Detail            string        // for the log alone: what failed on the way, without addresses
}

// Envelope is what a provider needs for one call.
type Envelope struct {
	MessageID uuid.UUID
	Channel   *channel.Channel
	Recipient string
	Content   render.Rendered
	Part      int // 0-based, below Parts
}

// Provider sends over one vendor's API. Parts says how many calls the content takes. Send makes one of them; it
// never returns an error, since every outcome is a class. It must not repeat a call by itself.
type Provider interface {
	Parts(c *message.Content) int
	Send(ctx context.Context, e Envelope) Response
}

// Loaded is a message with the lead that its templates speak of. Lead is nil when there is none (any more).
type Loaded struct {
	Message      *message.Message
	Lead         *message.Lead
	ClaimToken   uuid.UUID      // of the last claim, uuid.Nil for none; it is in force while the row is SENDING
	ClaimExpired bool           // by the database's clock
	Suppressed   message.Reason // why the recipient must not be contacted, NoReason when nothing says so
	Held         bool           // its bulk is paused or cancelled, or its channel is paused: not now
	Claimed      bool           // by this Take: Message is SENDING, and its Attempt counts the claim

	// ChannelVersion is the version of the message's channel at the time of the statement, 0 when the channel no longer exists.
	ChannelVersion int64
	// Undecodable says why the content or the lead of the row cannot be read; nil for nearly every row. The message is
	// complete but for what could not be read.
	Undecodable error
}

// Claim is the exclusive, expiring right to send a message.
type Claim struct {
	ID    uuid.UUID
	Token uuid.UUID
	TTL   time.Duration
	Most  int // Take claims no message that was claimed so often before
}

// Outcome is what a message's row says next. With a Token it is a compare-and-set on that claim; without one it only
// settles a row that is open and not claimed.
type Outcome struct {
	ID                uuid.UUID
	Token             uuid.UUID
	Status            message.Status
	Reason            message.Reason
	Failure           *message.Failure
	ProviderMessageID string
	HTTPStatus        int
	Cost              message.Micros
	Part              int
	Keep              time.Duration // the claim goes on for this long: another part follows; 0: it ends
	GiveBack          bool          // the attempt does not count
	Again             time.Duration // look at the row again after this; 0: nothing is left to do
	Attempt           *message.Attempt
}

// Ledger is the table of messages. All four may be called by many goroutines at once, and are faster then, since
// concurrent calls share a statement. All may be repeated when their answer was lost. Load returns a message.Error
// not_found. Take is Load, and a claim with it where nothing can refuse or delay the message any more: it is of a bulk and
// has its lead, it waits, it is not held, suppressed or suspect, and its channel has no rate. Claim says false when the row is
// not there to be claimed: settled, or claimed by another. Settle is not OK when the row is not under the claim any more (the
// outcome is then kept as evidence in attempts only). Settle applies the rule of erasure to a row whose lead was erased under
// the claim: the row ends instead of waiting.
type Ledger interface {
	LoadAndClaim(ctx context.Context, c Claim) (Loaded, error)
	Load(ctx context.Context, id uuid.UUID) (Loaded, error)
	Claim(ctx context.Context, c Claim) (bool, error)
	Settle(ctx context.Context, o Outcome) (Settled, error)
}

// Suspicions keeps the suspicion against messages. Erase applies the rule of erasure to one message whose lead no longer
// exists. Both may be repeated.
type Suspicions interface {
	Suspect(ctx context.Context, id uuid.UUID, s message.Suspect) error
	EraseMessage(ctx context.Context, id uuid.UUID) error
}

// ErrLeadErased says that the lead which a single was made for was erased before the single was written.
var ErrLeadErased = errors.New("the lead was erased")

// Inserter writes a single, with its idempotency key, if there is one, in the same transaction, and with a claim on it,
// if there is one and its recipient is not suppressed. The transaction locks the channel and the lead. When the key is taken
// it writes nothing and returns access.ErrKeyTaken; when the channel no longer exists, a message.Error not_found; when the
// entry was made for a lead that no longer exists, ErrLeadErased. It may be repeated when its answer was lost.
type Inserter interface {
	Insert(ctx context.Context, e Entry) (Inserted, error)
}

// Entry is a single to be written into the ledger.
type Entry struct {
	Message *message.Message
	Key     *access.IdempotencyKey // nil: none
	Claim   Claim                  // the zero value: none
	ForLead bool                   // the message was made from its lead, which must exist still
}

// Inserted is how a single was written.
type Inserted struct {
	Suppressed message.Reason // why the recipient must not be contacted, NoReason when nothing says so
	Claimed    bool           // the claim is in force

	ChannelVersion int64 // of the message's channel, as the transaction has locked it
}

// Settled is the answer to an outcome: whether it took effect, and when by the database's clock. Erased says that the lead
// was erased under the claim, so that the row may stand otherwise than the outcome says.
type Settled struct {
	OK     bool
	At     time.Time
	Erased bool
}

// Contents gives the parsed templates of a bulk; they are shared by all its messages and cached.
type Contents interface {
	Template(ctx context.Context, bulkID uuid.UUID) (*render.Template, error)
}

// Channels gives channels in a version at least as new as the one named, and pauses one, unless it was changed since it was
// given. AtLeast returns a message.Error not_found.
type Channels interface {
	AtLeast(ctx context.Context, k channel.Key, version int64) (*channel.Channel, error)
	Pause(ctx context.Context, c *channel.Channel, reason string) error
}

// Reservation is the answer to who asks when to call: after Wait, when it was Given, else ask again after Wait.
type Reservation struct {
	Granted bool
	Wait    time.Duration
}

// Signal is what a call tells of its channel's health.
type Signal string

// The signals.
const (
	Answered  Signal = "answered"  // the provider does its work
	Throttled Signal = "throttled" // it refused the call as one too many
	Failing   Signal = "failing"   // it was not reached, or gave no usable answer
)

// Limiter paces the calls over a channel for all processes together. Take asks for the turn of n calls; a single's comes
// before those of bulks. Report tells what a call met; alone is how long a throttled channel must be left alone.
type Limiter interface {
	Reserve(ctx context.Context, c *channel.Channel, n int, single bool) Reservation
	Report(ctx context.Context, c *channel.Channel, s Signal, alone time.Duration) error
}

// Counters count a bulk's settled messages, a moment after they are told. Counting the same mark again changes nothing. A
// loss is repaired by the reconciler, so nobody waits for the count.
type Counters interface {
	Count(bulkID uuid.UUID, m stats.MessageState)
}

// Queue hands a single message to the workers after a delay. A message that is queued already stays as it is.
type Queue interface {
	Later(ctx context.Context, m *message.Message, delay time.Duration) error
}

// Event is one delivery as the log and the metrics see it: ids and figures, no address and no text.
type Event struct {
	Message  *message.Message
	Class    Class // 0 when no call was made
	Status   message.Status
	Reason   message.Reason
	Attempt  int
	Again    time.Duration
	Fenced   bool
	Detail   string // of the last call, for the log
	Err      error
	Load     time.Duration
	Claim    time.Duration
	Send     time.Duration
	Outcome  time.Duration
	Count    time.Duration
	Duration time.Duration
}

// InFlightLimiter limits the messages that a worker has in its own hands. Release is called before a message waits for its
// provider or its channel's rate, and Acquire after the wait. Neither blocks.
type InFlightLimiter interface {
	Release(t message.ChannelType)
	Acquire(t message.ChannelType)
}

// Observer is told of every delivery.
type Observer interface {
	Delivered(ctx context.Context, e Event)
}
