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
	ChannelVersion int64 // the channel's when the bulk was written; it is planned over that or a later one
	Provider       string
	MessageType    message.MessageType
	Priority       message.Priority
	Content        message.Content
	Criteria       audience.Criteria
	Request        json.RawMessage // the request as it is shown, with the number of its lead ids instead of the ids

	Status       Status
	StatusReason string        // the reason of a bulk that Herald itself cancelled
	Planned      bool          // every lead has its message row
	PlanCursor   string        // where planning goes on
	Total        int64         // message rows so far: the audience, once Planned
	NotFound     int64         // ids in the request that are no lead's
	FeedSeq      int64         // messages below it have been handed to the queue, or were settled already
	SettledSeq   int64         // messages below it are settled and counted
	Final        *stats.Counts // nil until nothing more can happen to the bulk
	CreatedAt    time.Time
	StartedAt    *time.Time
	CompletedAt  *time.Time
}

// ErrLeaseLost means that another process may have taken over the bulk. The caller must stop working on it.
var ErrLeaseLost = errors.New("the lease on the bulk is lost")

// Store keeps bulks. InsertBulk locks the bulk's channel and sets ChannelVersion; it returns a message.Error not_found when
// the channel was deleted. It takes an idempotency key, if there is one, in the same transaction; when it is taken it
// writes nothing and returns access.ErrKeyTaken. Bulk returns a message.Error not_found. Bulks lists them newest first, beginning before an id
// (uuid.Nil: at the newest). Tally counts a bulk's messages in the database, which takes time in proportion to them.
type Store interface {
	InsertBulk(ctx context.Context, b *Bulk, key *access.IdempotencyKey) error
	Bulk(ctx context.Context, id uuid.UUID) (*Bulk, error)
	Bulks(ctx context.Context, before uuid.UUID, limit int) ([]Bulk, error)
	Tally(ctx context.Context, id uuid.UUID) (stats.Counts, error)
}

// Lifecycle moves a bulk from one of some statuses to another and ends the lease on it, so that the process
// that runs it stops and every process may acquire it again. A bulk in another status is a message.Error conflict that names
// the status.
type Lifecycle interface {
	Move(ctx context.Context, id uuid.UUID, from []Status, to Status) error
}

// Lease names a bulk and the token of the process that runs it.
type Lease struct {
	BulkID uuid.UUID
	Token  uuid.UUID
}

// Running is a bulk that is not paused and not over, as a runner finds it.
type Running struct {
	ID        uuid.UUID
	Channel   channel.Key
	Priority  message.Priority
	Cancelled bool
	Planned   bool
	Unfed     bool      // messages wait to be handed to the queue
	Open      bool      // messages that were handed to the queue are not known to be settled
	Free      bool      // no process holds its lease
	Mine      bool      // the asking process holds its lease
	Due       bool      // it is time to look at it
	TurnAt    time.Time // when it had its last turn, or comes back; zero: it has had none
	Accepted  time.Time
}

// Leases gives one process at a time the right to run a bulk: one that is not paused and not over. A process has one
// token for all its leases. Running lists bulks: all that have a lease, and of those that are free, for each channel and
// kind of work, the first few in line. Acquire returns a message.Error conflict when another process holds the bulk; the
// bulk comes with the ids of its request only while it is not planned. Renew renews every lease of a token in one
// statement and returns the bulks that are still held. Release ends a lease and says after how long the bulk is looked at
// again, or returns ErrLeaseLost when the lease is another's by now. ReleaseAll ends every lease of a token.
type Leases interface {
	Running(ctx context.Context, token uuid.UUID) ([]Running, error)
	Acquire(ctx context.Context, l Lease, ttl time.Duration) (*Bulk, error)
	Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error)
	Release(ctx context.Context, l Lease, after time.Duration) error
	ReleaseAll(ctx context.Context, token uuid.UUID) error
}

// PlannedRow is one message row to be written. Status is PENDING or SKIPPED with a reason. Dedupe says that no other row of
// the bulk may have the same Hash, FirstSeen that no row of an earlier page has it, which need not be looked for.
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

// PlanPage is one step of a plan: its rows get the sequence numbers from Base on.
type PlanPage struct {
	Lease    Lease
	Bulk     *Bulk
	Base     int64
	Rows     []PlannedRow
	Cursor   string
	NotFound int64
	Done     bool
}

// Plan writes the frozen audience. Suppressed gives the reason for each hash that must not get a message of this type
// and message type. AddPage writes rows and cursor in one transaction, or nothing: ErrLeaseLost when the lease or the base is
// not the bulk's any more. A Dedupe row whose hash a message of the bulk has already is written as SKIPPED
// (duplicate_recipient) instead. Abandon cancels a bulk that cannot be planned, for a reason that its view shows.
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

// Feed walks a bulk's messages in their order. Walk returns those from a sequence number on. Advance moves both
// cursors forward, never back, or returns ErrLeaseLost. Cancel takes back those of the messages that wait: they become
// CANCELLED, or stay UNKNOWN for good. Finish ends the bulk with its final counts if it is planned or cancelled and no
// message is open, and says whether it is over now.
type Feed interface {
	Walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]Row, error)
	Advance(ctx context.Context, l Lease, feedSeq, settledSeq int64) error
	Cancel(ctx context.Context, ids []uuid.UUID) error
	Finish(ctx context.Context, bulkID uuid.UUID) (bool, error)
}

// Task asks a worker to deliver one message. Tasks of different generations of a message are different tasks.
type Task struct {
	MessageID  uuid.UUID
	Generation int
}

// Queue carries tasks to the workers. Enqueue is idempotent while a task is in the queue. Wake asks one worker to look for
// bulks to run; the request may be lost. Workers returns the number of running worker processes.
type Queue interface {
	Enqueue(ctx context.Context, t message.ChannelType, p message.Priority, tasks []Task) error
	Wake(ctx context.Context, bulkID uuid.UUID) error
	Workers(ctx context.Context) (int, error)
}

// ChannelHealth tells how a channel's provider behaves at the moment (ACTIVE, THROTTLED or DOWN), and how many calls a second
// go over the channel, 0 for as many as there are.
type ChannelHealth interface {
	State(ctx context.Context, k channel.Key) channel.State
	Rate(ctx context.Context, c *channel.Channel) float64
}

// Counters hold a bulk's counts while it runs, and for a time after Keep was called last. Begin makes those of a bulk of
// which nothing has been counted. Read says false when they are missing or being rebuilt. Follow is Read for callers that
// ask again and again: concurrent calls share a round trip, which the end of a context does not cut short. Between
// BeginRebuild and EndRebuild each count is added to what is stored, which changes nothing where it was
// counted already. CountAll may be repeated and reordered.
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
