package store

import (
	"context"
	"errors"
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
const bulkColumns = `id, channel_id, channel_type, channel_version, provider, message_type, priority, content, criteria, request, status, planned,
	plan_cursor, total, not_found, feed_seq, settled_seq, final, created_at, started_at, completed_at`

func (r *bulkRow) bulk() (*bulk.Bulk, error) {
	b := &bulk.Bulk{
		ID: r.ID, Channel: channel.Key{ID: r.ChannelID, Type: message.Type(r.ChannelType)}, ChannelVersion: r.ChannelVersion, Provider: r.Provider,
		Purpose: message.Purpose(r.MessageType), Priority: message.Priority(r.Priority), Request: []byte(r.Request),
		Status: bulk.Status(r.Status), Planned: r.Planned, PlanCursor: r.PlanCursor, Total: r.Total, NotFound: r.NotFound,
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

// InsertBulk implements bulk.Rows. The lock on the channel makes DeleteChannel wait for this transaction, or this one for
// it.
func (s *Store) InsertBulk(ctx context.Context, b *bulk.Bulk, key *access.IdempotencyKey) error {
	criteria := b.Criteria
	criteria.LeadIDs = nil
	row := bulkRow{
		ID: b.ID, ChannelID: b.Channel.ID, ChannelType: string(b.Channel.Type), Provider: b.Provider, MessageType: string(b.Purpose),
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

// Bulk implements bulk.Rows.
func (s *Store) Bulk(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return s.readBulk(ctx, bulkColumns, id)
}

// BulkWithIDs implements bulk.Inspection.
func (s *Store) BulkWithIDs(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	return s.readBulk(ctx, "*", id)
}

// Bulks implements bulk.Rows.
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

// Tally implements bulk.Rows.
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

// Running implements bulk.Leases.
func (s *Store) Running(ctx context.Context) ([]bulk.Running, error) {
	var rows []struct {
		ID          uuid.UUID
		ChannelID   uuid.UUID
		ChannelType string
		Free        bool
	}
	err := s.db.WithContext(ctx).Raw(`
SELECT id, channel_id, channel_type, lease_expires_at IS NULL OR lease_expires_at < ? AS free
FROM bulks WHERE final IS NULL AND status <> 'PAUSED' ORDER BY id`, s.now()).Scan(&rows).Error
	running := make([]bulk.Running, len(rows))
	for i, r := range rows {
		running[i] = bulk.Running{ID: r.ID, Channel: channel.Key{ID: r.ChannelID, Type: message.Type(r.ChannelType)}, Free: r.Free}
	}
	return running, fail("look for bulks", err)
}

// Acquire implements bulk.Leases.
func (s *Store) Acquire(ctx context.Context, l bulk.Lease, ttl time.Duration) (*bulk.Bulk, error) {
	res := s.db.WithContext(ctx).Exec(`
UPDATE bulks SET lease_token = ?, lease_expires_at = ?, started_at = COALESCE(started_at, ?)
WHERE id = ? AND final IS NULL AND status <> 'PAUSED' AND (lease_expires_at IS NULL OR lease_expires_at < ?)`,
		l.Token, s.in(ttl), s.now(), l.BulkID, s.now())
	if res.Error != nil {
		return nil, fail("acquire the bulk", res.Error)
	}
	if res.RowsAffected == 0 {
		return nil, message.Errorf(message.CodeConflict, "the bulk is not to be run, or another process runs it")
	}
	return s.readBulk(ctx, "*", l.BulkID)
}

// Renew implements bulk.Leases.
func (s *Store) Renew(ctx context.Context, l bulk.Lease, ttl time.Duration) error {
	return leased("renew the lease", s.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = ? WHERE id = ? AND lease_token = ?", s.in(ttl), l.BulkID, l.Token))
}

// Release implements bulk.Leases.
func (s *Store) Release(ctx context.Context, l bulk.Lease) error {
	return leased("release the bulk", s.db.WithContext(ctx).Exec(
		"UPDATE bulks SET lease_expires_at = NULL, lease_token = NULL WHERE id = ? AND lease_token = ?", l.BulkID, l.Token))
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
	res := s.db.WithContext(ctx).Exec("UPDATE bulks SET status = ?, lease_token = NULL, lease_expires_at = NULL WHERE id = ? AND status IN ?", string(to), id, from)
	if res.Error != nil || res.RowsAffected == 1 {
		return fail("move the bulk", res.Error)
	}
	b, err := s.Bulk(ctx, id)
	if err != nil {
		return err
	}
	return message.Errorf(message.CodeConflict, "the bulk is %s", b.Status)
}

// Finish implements bulk.Feed.
func (s *Store) Finish(ctx context.Context, bulkID uuid.UUID) (bool, error) {
	done := false
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var row bulkRow
		if err := tx.Select(bulkColumns).Where("id = ?", bulkID).Take(&row).Error; err != nil {
			return err
		}
		if done = len(row.Final) > 0; done || row.Status == string(bulk.Paused) || (!row.Planned && row.Status != string(bulk.Cancelled)) {
			return nil
		}
		var open bool
		err := tx.Raw(`
SELECT EXISTS (SELECT 1 FROM messages WHERE bulk_id = ? AND seq >= ? AND
    (status IN ('SCHEDULED', 'PENDING', 'QUEUED', 'SENDING') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL)))`,
			bulkID, row.SettledSeq).Scan(&open).Error
		if err != nil || open {
			return err
		}
		counts, err := tally(tx, bulkID)
		if err != nil {
			return err
		}
		res := tx.Exec(`
UPDATE bulks SET status = CASE WHEN status = 'PROCESSING' THEN 'COMPLETED' ELSE status END, final = ?, completed_at = ?
WHERE id = ? AND status = ? AND final IS NULL`, encode(counts), s.now(), bulkID, row.Status)
		done = res.RowsAffected == 1
		return res.Error
	})
	return done, fail("finish the bulk", err)
}
