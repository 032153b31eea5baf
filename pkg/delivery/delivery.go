// Package delivery is the use case "deliver this message". A delivery first checks everything that can refuse or delay the
// message, then claims its row, calls the provider, and records the outcome. A single message (Sender.Send, inside its
// request) and each message of a bulk (Deliverer.Run, in a worker) go through the same code, Deliverer.process.
//
// The package must not know the queue, the database or a provider's API. The interfaces in this file are its ports; their
// comments are the contracts that pkg/store, pkg/ratelimit, pkg/counters, pkg/queue and the provider adapters fulfil.
//
// The rules that a change must keep:
//   - The claim, a compare-and-set of the row to SENDING, is the last step before the bytes leave.
//   - A call after which the message may have been sent is never repeated within a delivery.
//   - A message that may have been delivered never ends as if it had not been (Row.ended).
//   - The outcome of a call is recorded although the caller or the worker has gone (Deliverer.record).
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

// Limits that the promises depend on.
const (
	MaxAttempts = 8                // claims of one message, so that a message that kills its worker comes to an end
	SendTimeout = 15 * time.Second // one call to a provider, without attachments

	// fileRate is the rate, in bytes of attachments a second, by which a call may take longer. The largest attachments add 20 s.
	fileRate = message.MaxAttachmentBytes / 20
)

// Timing holds the intervals that tests shorten.
type Timing struct {
	Claim       time.Duration // for how long a claim excludes other processes
	Stale       time.Duration // a claim older than this is given up instead of used: the process was frozen
	UnknownHold time.Duration // how long an UNKNOWN message waits for events before it is sent once more
	Watch       time.Duration // how long after its time the sweep looks at a message
	Backoff     time.Duration // after the first failure to reach a provider; it doubles with each further one
	PausedRetry time.Duration // how often a single looks whether its paused channel sends again
}

// DefaultTiming is the Timing of a real deployment. Stale plus the longest call is shorter than Claim, so that a call ends
// before its claim does.
func DefaultTiming() Timing {
	return Timing{
		Claim: 60 * time.Second, Stale: 20 * time.Second, UnknownHold: 5 * time.Minute, Watch: 30 * time.Second,
		Backoff: 2 * time.Second, PausedRetry: 15 * time.Second,
	}
}

// Envelope is what a provider needs for one call.
type Envelope struct {
	MessageID uuid.UUID
	Channel   *channel.Channel
	Recipient string
	Content   render.Rendered
	Files     []message.FileData // of Content.Attachments; shared by calls, and valid until Send returns
	Part      int                // from 0, below Parts
}

// Provider sends over one vendor's API. Parts returns how many calls the content takes. Send makes one of them. It returns
// no error, because every way for a call to end has a class, and it must not repeat the call.
type Provider interface {
	Parts(c *message.Content) int
	Send(ctx context.Context, e Envelope) Response
}

// Loaded is a message as the ledger has it, with the lead that its templates use. Lead is nil when the message names none or
// the lead no longer exists.
type Loaded struct {
	Message      *message.Message
	Lead         *message.Lead  // of a LoadAndClaim perhaps without its times, which are zero then
	ClaimToken   uuid.UUID      // of the last claim, uuid.Nil for none; the claim is in force while the row is SENDING
	ClaimExpired bool           // by the database's clock
	Suppressed   message.Reason // why the recipient must not be contacted, NoReason when it may be
	Held         bool           // its bulk is paused or cancelled, or its channel is paused
	Claimed      bool           // by this LoadAndClaim: Message is SENDING, and its Attempt counts the claim

	// ChannelVersion is the version of the message's channel at the time of the statement, 0 when the channel no longer exists.
	ChannelVersion int64
	// Undecodable is why the content or the lead of the row cannot be read, nil for nearly every row. Message has all fields
	// that could be read.
	Undecodable error
}

// Claim is the exclusive, expiring right to send a message. Its token fences the outcome.
type Claim struct {
	ID    uuid.UUID
	Token uuid.UUID
	TTL   time.Duration
	Most  int // LoadAndClaim does not claim a message that was claimed this often before
}

// Ledger is the table of messages. All methods may be called concurrently, and are faster then, because concurrent calls
// share a statement. All may be repeated when their answer was lost.
//
// Load returns a message.Error not_found for an unknown id. LoadAndClaim is Load, and a claim in the same statement where
// nothing can refuse or delay the message any more: it waits, is of a bulk that runs, has its lead, is not suppressed or
// suspect, and its channel is active and has no rate. Claim returns false when the row is settled or claimed by another
// token. Settle returns a Settled that is not OK when the row is not under the outcome's claim any more; the call is then
// kept as an attempt only. Settle applies the rule of erasure to a row whose lead was erased under the claim: the row ends
// instead of waiting.
type Ledger interface {
	LoadAndClaim(ctx context.Context, c Claim) (Loaded, error)
	Load(ctx context.Context, id uuid.UUID) (Loaded, error)
	Claim(ctx context.Context, c Claim) (bool, error)
	Settle(ctx context.Context, o Outcome) (Settled, error)
}

// Settled is the answer to an outcome.
type Settled struct {
	OK     bool      // the outcome took effect
	At     time.Time // by the database's clock
	Erased bool      // the lead was erased under the claim, so the row may differ from the outcome
}

// Suspicions records the suspicion against messages. EraseMessage applies the rule of erasure to one message whose lead no
// longer exists. Both may be repeated.
type Suspicions interface {
	Suspect(ctx context.Context, id uuid.UUID, s message.Suspect) error
	EraseMessage(ctx context.Context, id uuid.UUID) error
}

// ErrLeadErased says that the lead which a single was made from was erased before the single was written.
var ErrLeadErased = errors.New("the lead was erased")

// Inserter writes a single in one transaction, together with its files, its idempotency key and its claim where the entry has them. The
// claim is not made when the recipient is suppressed. The transaction locks the channel and the lead. Insert writes nothing
// and returns access.ErrKeyTaken when the key is taken, a message.Error not_found when the channel no longer exists, and
// ErrLeadErased when the lead that the message was made from no longer exists. It may be repeated when its answer was lost.
type Inserter interface {
	Insert(ctx context.Context, e Entry) (Inserted, error)
}

// Entry is a single to be written into the ledger.
type Entry struct {
	Message *message.Message
	Files   []message.FileData     // of the message's attachments
	Key     *access.IdempotencyKey // nil: none
	Claim   Claim                  // the zero value: none
	ForLead bool                   // the message was made from its lead, which must still exist
}

// Inserted is how a single was written.
type Inserted struct {
	Suppressed message.Reason // why the recipient must not be contacted, NoReason when it may be
	Claimed    bool           // the claim is in force

	ChannelVersion int64 // of the message's channel, which the transaction has locked
}

// Contents returns the parsed templates of a bulk, which all its messages share. Implementations cache them.
type Contents interface {
	Template(ctx context.Context, bulkID uuid.UUID) (*render.Template, error)
}

// FileStore reads the files of a bulk, or of a single, by its id, in the order of its attachments. Without them, for example after an
// erasure, it returns a message.Error not_found.
type FileStore interface {
	Files(ctx context.Context, owner uuid.UUID) ([]message.FileData, error)
}

// Channels returns channels in at least the given version, or a message.Error not_found. Pause pauses a channel unless it was
// changed since it was returned.
type Channels interface {
	AtLeast(ctx context.Context, k channel.Key, version int64) (*channel.Channel, error)
	Pause(ctx context.Context, c *channel.Channel, reason string) error
}

// Reservation is the limiter's answer. Granted: the calls may be made after Wait. Not granted: ask again after Wait.
type Reservation struct {
	Granted bool
	Wait    time.Duration
}

// Signal is what a call says about the health of its channel.
type Signal string

// The signals.
const (
	Answered  Signal = "answered"  // the provider works
	Throttled Signal = "throttled" // it refused the call because of the rate
	Failing   Signal = "failing"   // it was not reached, or gave no usable answer
)

// Limiter limits the calls over a channel for all processes together. Reserve reserves n calls; those of a single come before
// those of bulks. Report tells the result of a call; alone is how long a throttled provider asked to be left alone.
type Limiter interface {
	Reserve(ctx context.Context, c *channel.Channel, n int, single bool) Reservation
	Report(ctx context.Context, c *channel.Channel, s Signal, alone time.Duration) error
}

// Refusals counts how many different recipients in a row a provider refused with the same code over a channel, for all
// processes together. Refused adds a recipient and reports whether limit is reached. Accepted ends the row, and so does each
// change of the channel, its pause and its resumption among them. Losing the count is harmless: it delays a pause.
type Refusals interface {
	Refused(ctx context.Context, c *channel.Channel, code, recipient string, limit int) (reached bool, err error)
	Accepted(ctx context.Context, k channel.Key) error
}

// Counters counts a bulk's settled messages asynchronously. Counting a state again changes nothing. Count does not wait for
// the result, because the reconciler of the bulk repairs a loss.
type Counters interface {
	Count(bulkID uuid.UUID, m stats.MessageState)
}

// Queue hands a single to the workers after a delay. A message that is in the queue already stays as it is.
type Queue interface {
	Later(ctx context.Context, m *message.Message, delay time.Duration) error
}

// InFlightLimiter limits the messages that a worker has in its own hands. Release is called before a message waits for its
// provider or its channel's rate, and Acquire after the wait. Neither blocks.
type InFlightLimiter interface {
	Release(t message.ChannelType)
	Acquire(t message.ChannelType)
}

// Event is one delivery as the log and the metrics see it: ids and durations, no address and no text.
type Event struct {
	Message  *message.Message
	Provider string // of the channel; empty when the delivery ended before its channel was read
	Class    Class  // 0 when no call was made
	Status   message.Status
	Reason   message.Reason
	Attempt  int
	Again    time.Duration
	Fenced   bool   // the claim was lost before the outcome was written
	Detail   string // of the last call
	Err      error
	Load     time.Duration
	Claim    time.Duration
	Send     time.Duration
	Outcome  time.Duration
	Count    time.Duration
	Duration time.Duration // of the whole delivery
}

// Observer is told of every delivery.
type Observer interface {
	Delivered(ctx context.Context, e Event)
}
