// Package bulk runs bulk sends. A bulk is accepted (one row), planned (its audience is resolved and frozen into message
// rows), fed (a bounded window of tasks is kept in the queue) and finished. Any process that holds the bulk's lease can do
// each step. The database is the source of truth; the queue and the counters may be lost at any moment.
//
// Service accepts, pauses, resumes and cancels bulks and returns their figures. Runner plans and feeds them in worker
// processes; bulkRun is one leased execution. Previewer performs dry runs and explains decisions. The package knows no SQL
// and no queue: it declares ports, which pkg/store, pkg/queue, pkg/counters and pkg/ratelimit implement.
package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// Status is a state of a bulk's life. COMPLETED and CANCELLED are final.
type Status string

// The statuses of a bulk.
const (
	Processing Status = "PROCESSING"
	Paused     Status = "PAUSED"
	Completed  Status = "COMPLETED"
	Cancelled  Status = "CANCELLED"
)

// Statuses lists every Status.
var Statuses = []Status{Processing, Paused, Completed, Cancelled}

// Bulk is one accepted bulk send.
type Bulk struct {
	ID             uuid.UUID
	Channel        channel.Key
	ChannelVersion int64 // of the channel when the bulk was accepted; the plan reads that version or a later one
	Provider       string
	Name           string        // chosen by the caller, for display and look-up
	Currency       string        // of the channel when the bulk was accepted; empty if an earlier version accepted it and the channel is gone
	Author         access.Author // of the request
	MessageType    message.MessageType
	Priority       message.Priority
	Content        message.Content
	Files          []message.FileData // of Content.Attachments, for InsertBulk; a bulk that is read has none
	Criteria       audience.Criteria
	Request        json.RawMessage // for display: the number of lead ids in place of the ids

	Status       Status
	StatusReason string        // why Herald cancelled the bulk; empty when a request did
	Planned      bool          // every lead has its message row
	PlanCursor   string        // the Resolver's cursor after the last planned page
	Total        int64         // message rows so far; the size of the audience once Planned
	NotFound     int64         // lead ids in the request without a lead
	FeedSeq      int64         // messages with a lower number were enqueued, or were settled before
	SettledSeq   int64         // messages with a lower number are settled and counted
	Final        *stats.Counts // nil until the last message is settled
	CreatedAt    time.Time
	StartedAt    *time.Time
	PlannedAt    *time.Time // nil until Planned
	CompletedAt  *time.Time
}

// Filter selects bulks. Zero fields select everything; the times are exclusive.
type Filter struct {
	Status        Status
	Name          string
	ChannelType   message.ChannelType
	KeyID         string // of the author
	CreatedAfter  *time.Time
	CreatedBefore *time.Time
}

// ParseStatus reads a status in any letter case.
func ParseStatus(s string) (Status, bool) {
	for _, known := range Statuses {
		if strings.EqualFold(s, string(known)) {
			return known, true
		}
	}
	return "", false
}

// ErrLeaseLost means that another process may hold the bulk's lease. The caller must stop working on the bulk.
var ErrLeaseLost = errors.New("renew lease of bulk: lease lost")

// Store keeps the rows of bulks. All methods may be repeated, except InsertBulk without a key.
//
// InsertBulk locks the bulk's channel, sets ChannelVersion and Currency, and inserts the files and the idempotency key (nil: none) in
// the same transaction.
// It writes nothing and returns a message.Error not_found when the channel was deleted, and access.ErrKeyTaken when the key is
// taken. Bulk returns a message.Error not_found. Bulks lists bulks that match a filter with a smaller id than before, newest first
// (keyset pagination; uuid.Nil starts at the newest). Tally counts the rows of a bulk's messages, in time proportional to their number.
type Store interface {
	InsertBulk(ctx context.Context, b *Bulk, key *access.IdempotencyKey) error
	Bulk(ctx context.Context, id uuid.UUID) (*Bulk, error)
	Bulks(ctx context.Context, f Filter, before uuid.UUID, limit int) ([]Bulk, error)
	Tally(ctx context.Context, id uuid.UUID) (stats.Counts, error)
}

// Lifecycle changes the status of a bulk. Move also ends the bulk's lease: the holder stops, and any process may acquire the
// bulk again. A bulk whose status is not in from is a message.Error conflict that names the status.
type Lifecycle interface {
	Move(ctx context.Context, id uuid.UUID, from []Status, to Status) error
}

// Lease is the exclusive, expiring right of one process to run a bulk. Its token fences the writes of earlier holders.
type Lease struct {
	BulkID uuid.UUID
	Token  uuid.UUID
}

// Running is a bulk that is PROCESSING or CANCELLED and has no final counts, as Leases.Running lists it.
type Running struct {
	ID        uuid.UUID
	Channel   channel.Key
	Priority  message.Priority
	Cancelled bool
	Planned   bool
	Unfed     bool      // planned messages are not enqueued yet
	Open      bool      // enqueued messages are not known to be settled
	Free      bool      // no process holds its lease
	Mine      bool      // the asking process holds its lease
	Due       bool      // TurnAt is not in the future
	TurnAt    time.Time // when its last run ended, plus the delay that this run asked for; zero before the first run
	Accepted  time.Time
}

// Leases grants the leases of bulks. A process uses one token for all its leases.
//
// Running lists every leased bulk and, per channel and kind of work, the first free bulks by TurnAt. Acquire returns a
// message.Error conflict when another process holds the lease, or the bulk is paused or has ended; the bulk has the lead ids of
// its request only until it is planned. Renew extends all leases of a token with one statement and returns the bulks that are
// still held. Release ends a lease and sets TurnAt to the present plus after; it returns ErrLeaseLost when another token holds
// the lease. ReleaseAll ends all leases of a token.
type Leases interface {
	Running(ctx context.Context, token uuid.UUID) ([]Running, error)
	Acquire(ctx context.Context, l Lease, ttl time.Duration) (*Bulk, error)
	Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error)
	Release(ctx context.Context, l Lease, after time.Duration) error
	ReleaseAll(ctx context.Context, token uuid.UUID) error
}

// PlannedRow is one message row to be written. Status is PENDING, or SKIPPED with a reason. With Dedupe no other row of the
// bulk may have the same Hash. With FirstSeen no row of an earlier page has it, so Plan skips the look-up.
type PlannedRow struct {
	ID        uuid.UUID
	LeadID    uuid.UUID
	Recipient string
	Hash      message.Hash
	Dedupe    bool
	FirstSeen bool
	Status    message.Status
	Reason    message.Reason
}

// PlanPage is one page of a plan. Its rows are numbered from Base.
type PlanPage struct {
	Lease    Lease
	Bulk     *Bulk
	Base     int64
	Rows     []PlannedRow
	Cursor   string
	NotFound int64
	Done     bool
}

// Plan writes the frozen audience. Suppressed returns the hashes that must not receive a message of this channel type and
// message type, with the reason of each. AddPage writes rows and cursor in one transaction. It writes nothing and returns
// ErrLeaseLost when another token holds the lease or Base is not the number of the bulk's rows. It writes a Dedupe row as
// SKIPPED (duplicate_recipient) when an earlier row of the bulk has its hash. Abandon cancels a bulk that cannot be planned; why
// is shown to users.
type Plan interface {
	Suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error)
	AddPage(ctx context.Context, p PlanPage) error
	Abandon(ctx context.Context, l Lease, why string) error
}

// Row is what feeding and reconciling read of a message.
type Row struct {
	ID         uuid.UUID
	Generation int
	Claimed    bool // SENDING under a claim that has not expired
	State      stats.MessageState
}

// Feed reads and moves a bulk's messages. Walk returns rows in the order of their numbers, starting with from. Advance moves both
// cursors, forward only; it returns ErrLeaseLost when another token holds the lease. Cancel settles those of the messages that
// are not being sent: PENDING becomes CANCELLED, and an UNKNOWN message is not resent. Finish stores the final counts and ends
// the bulk if it is planned or cancelled and has no open message; it reports whether the bulk has ended. All may be repeated.
type Feed interface {
	Walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]Row, error)
	Advance(ctx context.Context, l Lease, feedSeq, settledSeq int64) error
	Cancel(ctx context.Context, ids []uuid.UUID) error
	Finish(ctx context.Context, bulkID uuid.UUID) (bool, error)
}

// Reader reads a bulk, or returns a message.Error not_found.
type Reader interface {
	Bulk(ctx context.Context, id uuid.UUID) (*Bulk, error)
}

// Task asks a worker to deliver one message. The queue drops a second task with the same message and generation.
type Task struct {
	MessageID  uuid.UUID
	Generation int
}

// Queue carries tasks to the workers. Enqueue is idempotent while a task is in the queue. Wake asks one worker process to look
// for bulks; a lost request costs at most Timing.Poll. Workers returns the number of running worker processes.
type Queue interface {
	Enqueue(ctx context.Context, t message.ChannelType, p message.Priority, tasks []Task) error
	Wake(ctx context.Context, bulkID uuid.UUID) error
	Workers(ctx context.Context) (int, error)
}

// ChannelHealth returns the state of a channel's provider (ACTIVE, THROTTLED or DOWN) and the calls per second that the channel
// allows now (0: no limit).
type ChannelHealth interface {
	State(ctx context.Context, k channel.Key) channel.State
	Rate(ctx context.Context, c *channel.Channel) float64
}

// Counters hold the counts of running bulks. They expire some time after the last Keep. Begin creates the counters of a bulk
// without counted messages. Read returns false while they are missing or rebuilt. Follow is Read for callers that poll:
// concurrent calls share a round trip, which continues when the context of one caller ends. CountAll may be repeated and
// reordered, because a state code only moves up. A rebuild is CountAll for every row between BeginRebuild and EndRebuild.
type Counters interface {
	Begin(ctx context.Context, bulkID uuid.UUID) error
	Read(ctx context.Context, bulkID uuid.UUID) (c stats.Counts, ok bool, err error)
	Follow(ctx context.Context, bulkID uuid.UUID) (c stats.Counts, ok bool, err error)
	CountAll(ctx context.Context, bulkID uuid.UUID, marks []stats.MessageState) error
	BeginRebuild(ctx context.Context, bulkID uuid.UUID) error
	EndRebuild(ctx context.Context, bulkID uuid.UUID) error
	Keep(ctx context.Context, bulkID uuid.UUID) error
}

// Rescuer settles a suspect: a message whose claim expired before its outcome was written.
type Rescuer interface {
	Rescue(ctx context.Context, id uuid.UUID) error
}

// Observer receives events, failures and stage durations for the log and the metrics. Its methods do not block.
type Observer interface {
	BulkEvent(ctx context.Context, event string, bulkID uuid.UUID, args ...any)
	BulkError(ctx context.Context, during string, bulkID uuid.UUID, err error)
	Step(step string, messages int, took time.Duration)
}
