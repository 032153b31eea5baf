package ledger

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/stats"
	"herald/pkg/store"
)

// Runs implements what running a bulk needs: bulk.Leases, bulk.Plan and bulk.Feed. Every write of a run is conditional on its
// lease. It is safe for concurrent use.
type Runs struct {
	db     *store.DB
	driver driver
}

// NewRuns returns the runs of the bulks of a database.
func NewRuns(db *store.DB) *Runs { return &Runs{db, newDriver(db)} }

// Suppressed implements bulk.Plan. It returns the reason for each hash that is suppressed for a channel type and a message type.
func (r *Runs) Suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	out, err := r.driver.suppressed(ctx, t, p, hashes)
	return out, store.WrapError("look up suppressions", err)
}

// maxWaiting is how many free bulks of one channel and kind of work Running lists.
const maxWaiting = 64

// runningSQL reads the leased bulks and, of the free ones, the first maxWaiting per channel and kind of work. That bounds the
// memory of a runner, not the number of bulks. A free bulk that never had a turn sorts apart from those that had one, so neither
// kind starves.
var runningSQL = `
SELECT id, channel_id, channel_type, priority, status, planned, unfed, open, free, mine, due, turn_at, created_at FROM (
    SELECT b.*, row_number() OVER (PARTITION BY channel_id, channel_type, priority, status, planned, unfed, free, turn_at IS NULL
        ORDER BY turn_at, id) AS n
    FROM (
        SELECT id, channel_id, channel_type, priority, status, planned, turn_at, created_at,
            total > feed_seq AS unfed, feed_seq > settled_seq AS open,
            lease_expires_at IS NULL OR lease_expires_at < ? AS free,
            COALESCE(lease_token = ?, false) AS mine, COALESCE(turn_at <= ?, true) AS due
        FROM bulks WHERE final IS NULL AND status <> 'PAUSED') b) b
WHERE NOT free OR n <= ` + strconv.Itoa(maxWaiting)

// Running implements bulk.Leases.
func (r *Runs) Running(ctx context.Context, token uuid.UUID) ([]bulk.Running, error) {
	var rows []struct {
		ID, ChannelID                         uuid.UUID
		ChannelType, Priority, Status         string
		Planned, Unfed, Open, Free, Mine, Due bool
		TurnAt                                *time.Time
		CreatedAt                             time.Time
	}
	err := r.db.WithContext(ctx).Raw(runningSQL, r.db.Now(), token, r.db.Now()).Scan(&rows).Error
	running := make([]bulk.Running, len(rows))
	for i, row := range rows {
		running[i] = bulk.Running{
			ID: row.ID, Channel: channel.Key{ID: row.ChannelID, Type: message.ChannelType(row.ChannelType)}, Priority: message.Priority(row.Priority),
			Cancelled: row.Status == string(bulk.Cancelled), Planned: row.Planned, Unfed: row.Unfed, Open: row.Open, Free: row.Free,
			Mine: row.Mine && !row.Free, Due: row.Due, Accepted: row.CreatedAt.UTC(),
		}
		if row.TurnAt != nil {
			running[i].TurnAt = row.TurnAt.UTC()
		}
	}
	return running, store.WrapError("look for bulks", err)
}

// Acquire implements bulk.Leases. On PostgreSQL it is one statement. SQLite's RETURNING loses the types of the columns, so a second
// statement reads the row; the lease protects it meanwhile.
func (r *Runs) Acquire(ctx context.Context, l bulk.Lease, ttl time.Duration) (*bulk.Bulk, error) {
	const acquire = `
UPDATE bulks SET lease_token = ?, lease_expires_at = ?, started_at = COALESCE(started_at, ?)
WHERE id = ? AND final IS NULL AND status <> 'PAUSED' AND (lease_expires_at IS NULL OR lease_expires_at < ?)`
	columns := store.BulkColumns + ", CASE WHEN planned THEN NULL ELSE lead_ids END AS lead_ids"
	args := []any{l.Token, r.db.In(ttl), r.db.Now(), l.BulkID, r.db.Now()}
	none := message.Errorf(message.CodeConflict, "acquire the bulk: it is paused or finished, or another process holds its lease")
	if !r.db.IsPostgres() {
		res := r.db.WithContext(ctx).Exec(acquire, args...)
		switch {
		case res.Error != nil:
			return nil, store.WrapError("acquire the bulk", res.Error)
		case res.RowsAffected == 0:
			return nil, none
		}
		var row store.BulkRow
		if err := r.db.WithContext(ctx).Select(columns).Where("id = ?", l.BulkID).Take(&row).Error; err != nil {
			return nil, store.WrapError("acquire the bulk", err)
		}
		return row.Bulk()
	}
	var rows []store.BulkRow
	err := r.db.WithContext(ctx).Raw(acquire+" RETURNING "+columns, args...).Scan(&rows).Error
	switch {
	case err != nil:
		return nil, store.WrapError("acquire the bulk", err)
	case len(rows) == 0:
		return nil, none
	}
	return rows[0].Bulk()
}

// Renew implements bulk.Leases.
func (r *Runs) Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error) {
	var rows []struct{ ID uuid.UUID }
	err := r.db.WithContext(ctx).Raw(`
UPDATE bulks SET lease_expires_at = ? WHERE final IS NULL AND lease_token = ? RETURNING id`, r.db.In(ttl), token).Scan(&rows).Error
	held := make([]uuid.UUID, len(rows))
	for i, row := range rows {
		held[i] = row.ID
	}
	return held, store.WrapError("renew the leases", err)
}

// Release implements bulk.Leases.
func (r *Runs) Release(ctx context.Context, l bulk.Lease, after time.Duration) error {
	return underLease("release the bulk", r.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = NULL, lease_token = NULL, turn_at = ? WHERE id = ? AND lease_token = ?", r.db.In(after), l.BulkID, l.Token))
}

// ReleaseAll implements bulk.Leases.
func (r *Runs) ReleaseAll(ctx context.Context, token uuid.UUID) error {
	return store.WrapError("release the bulks", r.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = NULL, lease_token = NULL WHERE final IS NULL AND lease_token = ?", token).Error)
}

// Abandon implements bulk.Plan.
func (r *Runs) Abandon(ctx context.Context, l bulk.Lease, why string) error {
	err := r.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		err := underLease("abandon the bulk", tx.Exec(`
UPDATE bulks SET status = 'CANCELLED', status_reason = ?, lease_token = NULL, lease_expires_at = NULL, turn_at = NULL
WHERE id = ? AND lease_token = ? AND status = 'PROCESSING' AND NOT planned`, why, l.BulkID, l.Token))
		if err != nil {
			return err
		}
		return r.db.Publish(tx, event.BulkCancelled{BulkID: l.BulkID, Reason: why})
	})
	if errors.Is(err, bulk.ErrLeaseLost) {
		return bulk.ErrLeaseLost
	}
	return store.WrapError("abandon the bulk", err)
}

func underLease(doing string, res *gorm.DB) error {
	if res.Error == nil && res.RowsAffected == 0 {
		return bulk.ErrLeaseLost
	}
	return store.WrapError(doing, res.Error)
}

// AddPage implements bulk.Plan.
func (r *Runs) AddPage(ctx context.Context, p bulk.PlanPage) error {
	err := r.driver.addMessages(ctx, p)
	if errors.Is(err, bulk.ErrLeaseLost) {
		return err
	}
	return store.WrapError("add messages", err)
}

// Walk implements bulk.Feed.
func (r *Runs) Walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	rows, err := r.driver.walk(ctx, bulkID, from, limit)
	return rows, store.WrapError("walk the bulk", err)
}

// Advance implements bulk.Feed.
func (r *Runs) Advance(ctx context.Context, l bulk.Lease, feedSeq, settledSeq int64) error {
	return underLease("advance the feed", r.db.WithContext(ctx).Exec(`
UPDATE bulks SET feed_seq = CASE WHEN feed_seq > ? THEN feed_seq ELSE ? END, settled_seq = CASE WHEN settled_seq > ? THEN settled_seq ELSE ? END
WHERE id = ? AND lease_token = ?`, feedSeq, feedSeq, settledSeq, settledSeq, l.BulkID, l.Token))
}

// Cancel implements bulk.Feed.
func (r *Runs) Cancel(ctx context.Context, ids []uuid.UUID) error {
	return store.WrapError("cancel messages", r.db.WithContext(ctx).Exec(`
UPDATE messages SET
    status = CASE WHEN status = 'UNKNOWN' OR unknowns > 0 OR part > 0 THEN 'UNKNOWN' ELSE 'CANCELLED' END,
    reason = CASE WHEN status = 'UNKNOWN' THEN reason ELSE 'cancelled' END,
    next_attempt_at = NULL, updated_at = ?
WHERE id IN ? AND (status IN ('SCHEDULED', 'PENDING', 'QUEUED') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL))`, r.db.Now(), ids).Error)
}

// tallyWhole is the number of messages up to which Finish counts a bulk at once. For a larger bulk it looks for an open message
// first, which reads only the bulk's last rows.
const tallyWhole = 5_000

// openSQL is the condition that a message is not settled.
const openSQL = "(status IN ('SCHEDULED', 'PENDING', 'QUEUED', 'SENDING') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL))"

// Finish implements bulk.Feed. Nothing is added to a bulk that is planned or cancelled, and a message at its end stays at
// one, so the statements need no transaction; the last one is a compare-and-set on the status.
func (r *Runs) Finish(ctx context.Context, bulkID uuid.UUID) (bool, error) {
	db := r.db.WithContext(ctx)
	var row struct {
		Status            string
		Planned, Over     bool
		Total, SettledSeq int64
	}
	err := db.Raw("SELECT status, planned, final IS NOT NULL AS over, total, settled_seq FROM bulks WHERE id = ?", bulkID).Scan(&row).Error
	if err != nil || row.Over {
		return row.Over, store.WrapError("finish the bulk", err)
	}
	if row.Status == string(bulk.Paused) || (!row.Planned && row.Status != string(bulk.Cancelled)) {
		return false, nil
	}
	if row.Total > tallyWhole {
		var open bool
		err := db.Raw("SELECT EXISTS (SELECT 1 FROM messages WHERE bulk_id = ? AND seq >= ? AND "+openSQL+")", bulkID, row.SettledSeq).Scan(&open).Error
		if err != nil || open {
			return false, store.WrapError("finish the bulk", err)
		}
	}
	counts, err := store.TallyBulk(db, bulkID)
	if err != nil || counts.Settled() < row.Total {
		return false, store.WrapError("finish the bulk", err)
	}
	finished := false
	err = db.Transaction(func(tx *gorm.DB) error {
		var err error
		finished, err = r.writeFinal(tx, bulkID, bulk.Status(row.Status), counts, row.Total)
		return err
	})
	return finished && err == nil, store.WrapError("finish the bulk", err)
}

// writeFinal stores the final counts of a bulk that has a status, and its event. It returns false if the status changed or the
// counts are stored already.
func (r *Runs) writeFinal(tx *gorm.DB, bulkID uuid.UUID, status bulk.Status, counts stats.Counts, total int64) (bool, error) {
	final := status
	if status == bulk.Processing {
		final = bulk.Completed
	}
	res := tx.Exec(`
UPDATE bulks SET status = ?, final = ?, completed_at = ?, lease_token = NULL, lease_expires_at = NULL
WHERE id = ? AND status = ? AND final IS NULL`, string(final), store.Encode(counts), r.db.Now(), bulkID, string(status))
	if res.Error != nil || res.RowsAffected == 0 {
		return false, res.Error
	}
	return true, r.db.Publish(tx, event.BulkCompleted{BulkID: bulkID, Status: string(final), Total: total})
}
