package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// bulkRow is a row of bulks.
type bulkRow struct {
	ID             uuid.UUID
	ChannelID      uuid.UUID
	ChannelType    string
	ChannelVersion int64
	Provider       string
	MessageType    string
	Priority       string
	Content        document
	Criteria       document
	LeadIDs        []byte `gorm:"column:lead_ids"`
	Request        document
	Status         string
	StatusReason   string
	Planned        bool
	PlanCursor     string
	Total          int64
	NotFound       int64
	FeedSeq        int64
	SettledSeq     int64
	Final          document
	CreatedAt      time.Time
	StartedAt      *time.Time
	CompletedAt    *time.Time
}

// TableName implements gorm's Tabler.
func (bulkRow) TableName() string { return "bulks" }

// bulkColumns leaves out the ids of the request: they are large, and only the planner needs them.
const bulkColumns = `id, channel_id, channel_type, channel_version, provider, message_type, priority, content, criteria, request, status, status_reason, planned,
	plan_cursor, total, not_found, feed_seq, settled_seq, final, created_at, started_at, completed_at`

func (r *bulkRow) bulk() (*bulk.Bulk, error) {
	b := &bulk.Bulk{
		ID: r.ID, Channel: channel.Key{ID: r.ChannelID, Type: message.ChannelType(r.ChannelType)}, ChannelVersion: r.ChannelVersion, Provider: r.Provider,
		MessageType: message.MessageType(r.MessageType), Priority: message.Priority(r.Priority), Request: []byte(r.Request),
		Status: bulk.Status(r.Status), StatusReason: r.StatusReason, Planned: r.Planned, PlanCursor: r.PlanCursor, Total: r.Total, NotFound: r.NotFound,
		FeedSeq: r.FeedSeq, SettledSeq: r.SettledSeq, CreatedAt: r.CreatedAt.UTC(), StartedAt: utc(r.StartedAt), CompletedAt: utc(r.CompletedAt),
	}
	if len(r.Final) > 0 {
		b.Final = &stats.Counts{}
	}
	if err := errors.Join(r.Content.decode(&b.Content), r.Criteria.decode(&b.Criteria), r.Final.decode(b.Final)); err != nil {
		return nil, err
	}
	if len(r.LeadIDs) > 0 {
		b.Criteria.LeadIDs = unpackIDs(r.LeadIDs)
	}
	return b, nil
}

// packIDs stores ids as their 16 bytes, one after the other.
func packIDs(ids []uuid.UUID) []byte {
	b := make([]byte, 0, 16*len(ids))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func unpackIDs(b []byte) []uuid.UUID {
	ids := make([]uuid.UUID, len(b)/16)
	for i := range ids {
		copy(ids[i][:], b[16*i:])
	}
	return ids
}

// InsertBulk implements bulk.Store. The lock on the channel makes DeleteChannel wait for this transaction, or this one for
// it.
func (s *Store) InsertBulk(ctx context.Context, b *bulk.Bulk, key *access.IdempotencyKey) error {
	criteria := b.Criteria
	criteria.LeadIDs = nil
	row := bulkRow{
		ID: b.ID, ChannelID: b.Channel.ID, ChannelType: string(b.Channel.Type), Provider: b.Provider, MessageType: string(b.MessageType),
		Priority: string(b.Priority), Content: encode(b.Content), Criteria: encode(criteria), LeadIDs: packIDs(b.Criteria.LeadIDs),
		Request: document(b.Request), Status: string(b.Status), CreatedAt: stamp(b.CreatedAt),
	}
	return repeat(ctx, func() error {
		err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			var c channelRow
			err := atChannel(tx.Select("version").Clauses(lockKey), b.Channel).Take(&c).Error
			if errors.Is(err, gorm.ErrRecordNotFound) {
				return noChannel(b.Channel)
			}
			if err != nil {
				return err
			}
			row.ChannelVersion, b.ChannelVersion = c.Version, c.Version
			ok, err := takeKey(tx, key, access.Effect{ID: b.ID, Bulk: true}, s.now(), s.in(-access.KeepEffects))
			if err == nil && !ok {
				err = access.ErrKeyTaken
			}
			if err != nil {
				return err
			}
			return tx.Clauses(oncePerID).Create(&row).Error
		})
		if errors.Is(err, access.ErrKeyTaken) {
			return err
		}
		return fail("insert the bulk", err)
	})
}

func (s *Store) readBulk(ctx context.Context, columns string, id uuid.UUID) (*bulk.Bulk, error) {
	var row bulkRow
	err := fail("read the bulk", s.db.WithContext(ctx).Select(columns).Where("id = ?", id).Take(&row).Error)
	if message.IsCode(err, message.CodeNotFound) {
		return nil, message.Errorf(message.CodeNotFound, "there is no bulk %s", id)
	}
	if err != nil {
		return nil, err
	}
	return row.bulk()
}

// Bulk implements bulk.Store.
func (s *Store) Bulk(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return s.readBulk(ctx, bulkColumns, id)
}

// BulkWithIDs implements bulk.PreviewStore.
func (s *Store) BulkWithIDs(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return s.readBulk(ctx, "*", id)
}

// Bulks implements bulk.Store.
func (s *Store) Bulks(ctx context.Context, before uuid.UUID, limit int) ([]bulk.Bulk, error) {
	q := s.db.WithContext(ctx).Select(bulkColumns).Order("id DESC").Limit(limit)
	if before != uuid.Nil {
		q = q.Where("id < ?", before)
	}
	var rows []bulkRow
	if err := q.Find(&rows).Error; err != nil {
		return nil, fail("list bulks", err)
	}
	out := make([]bulk.Bulk, 0, len(rows))
	for i := range rows {
		b, err := rows[i].bulk()
		if err != nil {
			return nil, err
		}
		out = append(out, *b)
	}
	return out, nil
}

// Tally implements bulk.Store.
func (s *Store) Tally(ctx context.Context, id uuid.UUID) (stats.Counts, error) {
	counts, err := tally(s.db.WithContext(ctx), id)
	return counts, fail("tally the bulk", err)
}

func tally(db *gorm.DB, id uuid.UUID) (stats.Counts, error) {
	var rows []struct {
		Status  string
		Reason  string
		Waiting bool
		N       int64
		Cost    int64
	}
	err := db.Raw(`
SELECT status, reason, next_attempt_at IS NOT NULL AS waiting, count(*) AS n, sum(cost_micros) AS cost
FROM messages WHERE bulk_id = ? GROUP BY status, reason, next_attempt_at IS NOT NULL`, id).Scan(&rows).Error
	var c stats.Counts
	for _, r := range rows {
		status := message.Status(r.Status)
		c.Add(stats.Mark{
			Status: status, Reason: message.Reason(r.Reason), Waiting: r.Waiting && status == message.Unknown, Cost: message.Micros(r.Cost),
		}, r.N)
	}
	return c, err
}

// inLine is how many free bulks of one channel and kind of work Running lists.
const inLine = 64

// runningSQL reads the bulks that are leased, and the first of those that are free. What a runner keeps of them is
// bounded, however many wait.
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
WHERE NOT free OR n <= ` + strconv.Itoa(inLine)

// Running implements bulk.Leases.
func (s *Store) Running(ctx context.Context, token uuid.UUID) ([]bulk.Running, error) {
	var rows []struct {
		ID, ChannelID                         uuid.UUID
		ChannelType, Priority, Status         string
		Planned, Unfed, Open, Free, Mine, Due bool
		TurnAt                                *time.Time
		CreatedAt                             time.Time
	}
	err := s.db.WithContext(ctx).Raw(runningSQL, s.now(), token, s.now()).Scan(&rows).Error
	running := make([]bulk.Running, len(rows))
	for i, r := range rows {
		running[i] = bulk.Running{
			ID: r.ID, Channel: channel.Key{ID: r.ChannelID, Type: message.ChannelType(r.ChannelType)}, Priority: message.Priority(r.Priority),
			Cancelled: r.Status == string(bulk.Cancelled), Planned: r.Planned, Unfed: r.Unfed, Open: r.Open, Free: r.Free,
			Mine: r.Mine && !r.Free, Due: r.Due, Accepted: r.CreatedAt.UTC(),
		}
		if r.TurnAt != nil {
			running[i].TurnAt = r.TurnAt.UTC()
		}
	}
	return running, fail("look for bulks", err)
}

// Acquire implements bulk.Leases. It is one statement where the database can return what it changed with its types.
func (s *Store) Acquire(ctx context.Context, l bulk.Lease, ttl time.Duration) (*bulk.Bulk, error) {
	const acquire = `
UPDATE bulks SET lease_token = ?, lease_expires_at = ?, started_at = COALESCE(started_at, ?)
WHERE id = ? AND final IS NULL AND status <> 'PAUSED' AND (lease_expires_at IS NULL OR lease_expires_at < ?)`
	const columns = bulkColumns + ", CASE WHEN planned THEN NULL ELSE lead_ids END AS lead_ids"
	args := []any{l.Token, s.in(ttl), s.now(), l.BulkID, s.now()}
	none := message.Errorf(message.CodeConflict, "the bulk is not to be run, or another process runs it")
	if s.pools == nil { // SQLite returns no types with what it changed
		res := s.db.WithContext(ctx).Exec(acquire, args...)
		switch {
		case res.Error != nil:
			return nil, fail("acquire the bulk", res.Error)
		case res.RowsAffected == 0:
			return nil, none
		}
		return s.readBulk(ctx, columns, l.BulkID)
	}
	var rows []bulkRow
	err := s.db.WithContext(ctx).Raw(acquire+" RETURNING "+columns, args...).Scan(&rows).Error
	switch {
	case err != nil:
		return nil, fail("acquire the bulk", err)
	case len(rows) == 0:
		return nil, none
	}
	return rows[0].bulk()
}

// Renew implements bulk.Leases.
func (s *Store) Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error) {
	var rows []struct{ ID uuid.UUID }
	err := s.db.WithContext(ctx).Raw(`
UPDATE bulks SET lease_expires_at = ? WHERE final IS NULL AND lease_token = ? RETURNING id`, s.in(ttl), token).Scan(&rows).Error
	held := make([]uuid.UUID, len(rows))
	for i, r := range rows {
		held[i] = r.ID
	}
	return held, fail("renew the leases", err)
}

// Release implements bulk.Leases.
func (s *Store) Release(ctx context.Context, l bulk.Lease, after time.Duration) error {
	return leased("release the bulk", s.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = NULL, lease_token = NULL, turn_at = ? WHERE id = ? AND lease_token = ?", s.in(after), l.BulkID, l.Token))
}

// ReleaseAll implements bulk.Leases.
func (s *Store) ReleaseAll(ctx context.Context, token uuid.UUID) error {
	return fail("release the bulks", s.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = NULL, lease_token = NULL WHERE final IS NULL AND lease_token = ?", token).Error)
}

// Abandon implements bulk.Plan.
func (s *Store) Abandon(ctx context.Context, l bulk.Lease, why string) error {
	return leased("abandon the bulk", s.db.WithContext(ctx).Exec(`
UPDATE bulks SET status = 'CANCELLED', status_reason = ?, lease_token = NULL, lease_expires_at = NULL, turn_at = NULL
WHERE id = ? AND lease_token = ? AND status = 'PROCESSING' AND NOT planned`, why, l.BulkID, l.Token))
}

func leased(doing string, res *gorm.DB) error {
	if res.Error == nil && res.RowsAffected == 0 {
		return bulk.ErrLeaseLost
	}
	return fail(doing, res.Error)
}

// AddPage implements bulk.Plan.
func (s *Store) AddPage(ctx context.Context, p bulk.PlanPage) error {
	err := s.hot.addMessages(ctx, p)
	if errors.Is(err, bulk.ErrLeaseLost) {
		return err
	}
	return fail("add messages", err)
}

// Walk implements bulk.Feed.
func (s *Store) Walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	rows, err := s.hot.walk(ctx, bulkID, from, limit)
	return rows, fail("walk the bulk", err)
}

// walkSQL reads a part of a bulk; what stands for its arguments differs: now, the bulk, the first seq, how many.
const walkSQL = `
SELECT id, seq, status, reason, cost_micros, generation, next_attempt_at IS NOT NULL AS waiting, COALESCE(claim_expires_at > %s, false) AS claimed
FROM messages WHERE bulk_id = %s AND seq >= %s ORDER BY seq LIMIT %s`

// walkedRow is a row of walkSQL.
type walkedRow struct {
	ID         uuid.UUID
	Seq        int64
	Status     string
	Reason     string
	CostMicros int64
	Generation int
	Waiting    bool
	Claimed    bool
}

func (r *walkedRow) row() bulk.Row {
	status := message.Status(r.Status)
	return bulk.Row{
		ID: r.ID, Generation: r.Generation, Claimed: r.Claimed,
		Mark: stats.Mark{
			Seq: r.Seq, Status: status, Reason: message.Reason(r.Reason), Waiting: status == message.Unknown && r.Waiting,
			Cost: message.Micros(r.CostMicros),
		},
	}
}

// Advance implements bulk.Feed.
func (s *Store) Advance(ctx context.Context, l bulk.Lease, feedSeq, settledSeq int64) error {
	return leased("advance the feed", s.db.WithContext(ctx).Exec(`
UPDATE bulks SET feed_seq = CASE WHEN feed_seq > ? THEN feed_seq ELSE ? END, settled_seq = CASE WHEN settled_seq > ? THEN settled_seq ELSE ? END
WHERE id = ? AND lease_token = ?`, feedSeq, feedSeq, settledSeq, settledSeq, l.BulkID, l.Token))
}

// Cancel implements bulk.Feed.
func (s *Store) Cancel(ctx context.Context, ids []uuid.UUID) error {
	return fail("cancel messages", s.db.WithContext(ctx).Exec(`
UPDATE messages SET
    status = CASE WHEN status = 'UNKNOWN' OR unknowns > 0 OR part > 0 THEN 'UNKNOWN' ELSE 'CANCELLED' END,
    reason = CASE WHEN status = 'UNKNOWN' THEN reason ELSE 'cancelled' END,
    next_attempt_at = NULL, updated_at = ?
WHERE id IN ? AND (status IN ('SCHEDULED', 'PENDING', 'QUEUED') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL))`, s.now(), ids).Error)
}

// Move implements bulk.Lifecycle. It takes the bulk from whoever runs it.
func (s *Store) Move(ctx context.Context, id uuid.UUID, from []bulk.Status, to bulk.Status) error {
	res := s.db.WithContext(ctx).Exec("UPDATE bulks SET status = ?, lease_token = NULL, lease_expires_at = NULL, turn_at = NULL WHERE id = ? AND status IN ?", string(to), id, from)
	if res.Error != nil || res.RowsAffected == 1 {
		return fail("move the bulk", res.Error)
	}
	b, err := s.Bulk(ctx, id)
	if err != nil {
		return err
	}
	return message.Errorf(message.CodeConflict, "the bulk is %s", b.Status)
}

// tallyWhole is up to how many messages a bulk is tallied at once. Of a larger one it is asked first whether one is open,
// which needs only its last rows.
const tallyWhole = 5_000

// openSQL says of a message that it has not come to its end.
const openSQL = "(status IN ('SCHEDULED', 'PENDING', 'QUEUED', 'SENDING') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL))"

// Finish implements bulk.Feed. Nothing is added to a bulk that is planned or cancelled, and a message at its end stays at
// one, so the statements need no transaction; the last one is a compare-and-set on the status.
func (s *Store) Finish(ctx context.Context, bulkID uuid.UUID) (bool, error) {
	db := s.db.WithContext(ctx)
	var row struct {
		Status            string
		Planned, Over     bool
		Total, SettledSeq int64
	}
	err := db.Raw("SELECT status, planned, final IS NOT NULL AS over, total, settled_seq FROM bulks WHERE id = ?", bulkID).Scan(&row).Error
	if err != nil || row.Over {
		return row.Over, fail("finish the bulk", err)
	}
	if row.Status == string(bulk.Paused) || (!row.Planned && row.Status != string(bulk.Cancelled)) {
		return false, nil
	}
	if row.Total > tallyWhole {
		var open bool
		err := db.Raw("SELECT EXISTS (SELECT 1 FROM messages WHERE bulk_id = ? AND seq >= ? AND "+openSQL+")", bulkID, row.SettledSeq).Scan(&open).Error
		if err != nil || open {
			return false, fail("finish the bulk", err)
		}
	}
	counts, err := tally(db, bulkID)
	if err != nil || counts.Settled() < row.Total {
		return false, fail("finish the bulk", err)
	}
	res := db.Exec(`
UPDATE bulks SET status = CASE WHEN status = 'PROCESSING' THEN 'COMPLETED' ELSE status END, final = ?, completed_at = ?,
    lease_token = NULL, lease_expires_at = NULL
WHERE id = ? AND status = ? AND final IS NULL`, encode(counts), s.now(), bulkID, row.Status)
	return res.RowsAffected == 1, fail("finish the bulk", res.Error)
}
