package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// sqliteHot runs the hot statements row by row within one transaction: the database is in this process, so a group
// costs one commit and no round trips. The conditions are those of PostgreSQL, word for word.
type sqliteHot struct{ db *gorm.DB }

// batchRows bounds the parameters of one insert.
const batchRows = 200

func (h *sqliteHot) insert(ctx context.Context, singles []single) ([]inserted, error) {
	out := make([]inserted, len(singles))
	return out, h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		for i := range singles {
			var err error
			if out[i], err = h.insertOne(tx, &singles[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// references looks for the channel and the lead that a single refers to.
func (h *sqliteHot) references(tx *gorm.DB, n *single) (ins inserted, err error) {
	if ins.ChannelVersion, err = h.channelVersion(tx, &n.messageRow); err != nil || !n.forLead {
		return ins, err
	}
	err = tx.Raw("SELECT NOT EXISTS (SELECT 1 FROM leads WHERE id = ?)", n.LeadID).Scan(&ins.noLead).Error
	return ins, err
}

func (h *sqliteHot) insertOne(tx *gorm.DB, n *single) (ins inserted, err error) {
	now := stamp(time.Now())
	if ins, err = h.references(tx, n); err != nil || ins.missing() != nil {
		return ins, err
	}
	ins.written, err = takeKey(tx, n.key, access.Effect{ID: n.ID}, now, now.Add(-access.KeepEffects))
	if err != nil || !ins.written {
		return ins, err
	}
	if ins.Suppressed, err = h.suppressed(tx, &n.messageRow); err != nil {
		return ins, err
	}
	row := n.messageRow
	if n.claim.Token != uuid.Nil && ins.Suppressed == message.NoReason {
		until := now.Add(n.claim.TTL)
		row.Status, row.Attempt, row.ClaimToken, row.ClaimedAt, row.ClaimExpiresAt = string(message.Sending), 1, &n.claim.Token, &now, &until
	}
	if err := tx.Clauses(oncePerID).Create(&row).Error; err != nil || row.ClaimToken == nil {
		return ins, err
	}
	// The row may be there from before, when the answer was lost.
	return ins, tx.Raw("SELECT EXISTS (SELECT 1 FROM messages WHERE id = ? AND claim_token = ?)", n.ID, n.claim.Token).Scan(&ins.Claimed).Error
}

func (h *sqliteHot) load(ctx context.Context, ids []uuid.UUID) ([]delivery.Loaded, error) {
	return h.read(h.db.WithContext(ctx), ids)
}

func (h *sqliteHot) read(db *gorm.DB, ids []uuid.UUID) ([]delivery.Loaded, error) {
	var rows []messageRow
	if err := db.Where("id IN ?", ids).Find(&rows).Error; err != nil {
		return nil, err
	}
	found := make(map[uuid.UUID]delivery.Loaded, len(rows))
	for i := range rows {
		l, err := h.loaded(db, &rows[i])
		if err != nil {
			return nil, err
		}
		found[rows[i].ID] = l
	}
	out := make([]delivery.Loaded, len(ids))
	for i, id := range ids {
		out[i] = found[id]
	}
	return out, nil
}

func (h *sqliteHot) loaded(db *gorm.DB, r *messageRow) (l delivery.Loaded, err error) {
	l.Message, l.Undecodable = r.message()
	l.ClaimToken = orNil(r.ClaimToken)
	l.ClaimExpired = r.ClaimExpiresAt != nil && r.ClaimExpiresAt.Before(stamp(time.Now()))
	if l.Suppressed, err = h.suppressed(db, r); err != nil {
		return l, err
	}
	if l.Held, err = h.held(db, r); err != nil {
		return l, err
	}
	if l.ChannelVersion, err = h.channelVersion(db, r); err != nil || r.LeadID == nil {
		return l, err
	}
	var leads []leadRow
	if err := db.Where("id = ?", *r.LeadID).Find(&leads).Error; err != nil {
		return l, err
	}
	if len(leads) > 0 && l.Undecodable == nil {
		l.Lead, l.Undecodable = leads[0].lead()
	}
	return l, nil
}

// channelVersion is the version of a message's channel, 0 when it no longer exists.
func (h *sqliteHot) channelVersion(db *gorm.DB, r *messageRow) (version int64, err error) {
	err = db.Raw("SELECT COALESCE((SELECT version FROM channels WHERE id = ? AND type = ?), 0)", r.ChannelID, r.ChannelType).Scan(&version).Error
	return version, err
}

// held says whether a message's bulk or channel sends nothing now.
func (h *sqliteHot) held(db *gorm.DB, m *messageRow) (bool, error) {
	var held bool
	err := db.Raw(`
SELECT EXISTS (SELECT 1 FROM bulks WHERE id = ? AND status <> 'PROCESSING')
    OR EXISTS (SELECT 1 FROM channels WHERE id = ? AND type = ? AND state = 'PAUSED')`, m.BulkID, m.ChannelID, m.ChannelType).Scan(&held).Error
	return held, err
}

// suppressed returns why a message's recipient must not be contacted.
func (h *sqliteHot) suppressed(db *gorm.DB, m *messageRow) (message.Reason, error) {
	var reasons []string
	err := db.Table("suppressions").Where("type = ? AND address_hash = ? AND "+messageTypeColumn[message.MessageType(m.MessageType)], m.ChannelType, m.AddressHash).
		Order("reason DESC").Limit(1).Pluck("reason", &reasons).Error
	if err != nil || len(reasons) == 0 {
		return message.NoReason, err
	}
	return message.Reason(reasons[0]), nil
}

func (h *sqliteHot) turn(ctx context.Context, outcomes []*delivery.Outcome, claims []*delivery.Claim) (settled []delivery.Settled, loaded []delivery.Loaded, err error) {
	err = h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
		if settled, err = settleRows(tx, outcomes); err == nil && len(claims) > 0 {
			loaded, err = h.take(tx, claims)
		}
		return err
	})
	return settled, loaded, err
}

// take claims what nothing refuses or delays, as it finds it.
func (h *sqliteHot) take(tx *gorm.DB, claims []*delivery.Claim) (out []delivery.Loaded, err error) {
	if out, err = h.read(tx, values(claims, func(c **delivery.Claim) uuid.UUID { return (*c).ID })); err != nil {
		return nil, err
	}
	for i, c := range claims {
		l := &out[i]
		if l.Message == nil || l.Lead == nil || l.Message.BulkID == uuid.Nil || l.Held || l.Suppressed != message.NoReason ||
			l.Message.Suspect != message.NotSuspect || l.Undecodable != nil {
			continue
		}
		var free bool
		if err := tx.Raw("SELECT EXISTS (SELECT 1 FROM channels WHERE id = ? AND type = ? AND state = 'ACTIVE' AND rate_per_second = 0)",
			l.Message.ChannelID, string(l.Message.ChannelType)).Scan(&free).Error; err != nil {
			return nil, err
		}
		mine := l.Message.Status == message.Sending && l.ClaimToken == c.Token
		if !mine && (!free || l.Message.Attempt >= c.Most) {
			continue
		}
		if l.Claimed, err = claimRow(tx, c); err != nil {
			return nil, err
		}
		if l.Claimed && !mine {
			l.ClaimToken, l.Message.Status = c.Token, message.Sending
			l.Message.Attempt++
		}
	}
	return out, nil
}

func (h *sqliteHot) claim(ctx context.Context, claims []*delivery.Claim) ([]bool, error) {
	out := make([]bool, len(claims))
	return out, h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
		for i, c := range claims {
			if out[i], err = claimRow(tx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func claimRow(tx *gorm.DB, c *delivery.Claim) (bool, error) {
	now := stamp(time.Now())
	until := now.Add(c.TTL)
	res := tx.Exec(`
UPDATE messages SET status = 'SENDING', attempt = attempt + CASE WHEN status = 'SENDING' THEN 0 ELSE 1 END, claim_token = ?, claimed_at = ?, claim_expires_at = ?,
    next_attempt_at = CASE WHEN next_attempt_at IS NOT NULL THEN ? END, updated_at = ?
WHERE id = ? AND (status IN ('PENDING', 'QUEUED') OR (status = 'SENDING' AND claim_token = ?))`, c.Token, now, until, until, now, c.ID, c.Token)
	return res.RowsAffected == 1, res.Error
}

func settleRows(tx *gorm.DB, outcomes []*delivery.Outcome) ([]delivery.Settled, error) {
	out := make([]delivery.Settled, len(outcomes))
	now := stamp(time.Now())
	for i, o := range outcomes {
		var failure document
		if o.Failure != nil {
			failure = encode(o.Failure)
		}
		var again *time.Time
		if o.Again > 0 {
			t := now.Add(o.Again)
			again = &t
		}
		res := tx.Exec(`
UPDATE messages SET
    status = CASE WHEN NOT (recipient = '' AND @continues) THEN @status WHEN unknowns > 0 OR @part > 0 THEN 'UNKNOWN' ELSE 'SKIPPED' END,
    reason = CASE WHEN recipient = '' AND @continues THEN 'erased' ELSE @reason END, failure = @failure, http_status = @http, cost_micros = @cost, part = @part,
    provider_message_id = CASE WHEN @pid = '' THEN provider_message_id ELSE @pid END,
    attempt = attempt - CASE WHEN @back THEN 1 ELSE 0 END,
    unknowns = unknowns + CASE WHEN @status = 'UNKNOWN' AND @reason = 'outcome_unknown' THEN 1 ELSE 0 END,
    claim_expires_at = CASE WHEN @keep THEN @until END,
    claimed_at = CASE WHEN @keep THEN @now ELSE claimed_at END,
    next_attempt_at = CASE WHEN recipient = '' THEN NULL WHEN @keep THEN next_attempt_at ELSE @again END,
    sent_at = CASE WHEN @status = 'SENT' THEN @now ELSE sent_at END,
    updated_at = @now
WHERE id = @id AND CASE WHEN @token IS NULL THEN status IN ('SCHEDULED', 'PENDING', 'QUEUED') ELSE status = 'SENDING' AND claim_token = @token END`, map[string]any{
			"status": string(o.Status), "reason": string(o.Reason), "failure": failure, "http": o.HTTPStatus, "cost": int64(o.Cost),
			"part": o.Part, "pid": o.ProviderMessageID, "back": o.GiveBack, "keep": o.Keep > 0, "until": now.Add(o.Keep), "now": now,
			"again": again, "id": o.ID, "token": nullID(o.Token), "continues": o.Status.Rank() == 0,
		})
		if res.Error != nil {
			return nil, res.Error
		}
		out[i] = delivery.Settled{OK: res.RowsAffected == 1, At: now}
		if out[i].OK {
			if err := tx.Raw("SELECT recipient = '' FROM messages WHERE id = ?", o.ID).Scan(&out[i].Erased).Error; err != nil {
				return nil, err
			}
		}
	}
	if rows := evidence(outcomes, out); len(rows) > 0 {
		return out, tx.CreateInBatches(rows, batchRows).Error
	}
	return out, nil
}

func (h *sqliteHot) addMessages(ctx context.Context, p bulk.PlanPage) error {
	return h.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		res := tx.Exec(`
UPDATE bulks SET total = total + ?, plan_cursor = ?, not_found = not_found + ?, planned = ?
WHERE id = ? AND lease_token = ? AND total = ? AND NOT planned`,
			len(p.Rows), p.Cursor, p.NotFound, p.Done, p.Lease.BulkID, p.Lease.Token, p.Base)
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return bulk.ErrLeaseLost
		}
		if err := skipAllErased(tx, &p); err != nil {
			return err
		}
		if hashes := doubtful(&p); len(hashes) > 0 {
			var found [][]byte
			if err := tx.Table("messages").Where("bulk_id = ? AND copy = 0 AND address_hash IN ?", p.Bulk.ID, hashes).Pluck("address_hash", &found).Error; err != nil {
				return err
			}
			skipTaken(&p, found)
		}
		now := stamp(time.Now())
		b := p.Bulk
		rows := make([]messageRow, len(p.Rows))
		for i := range p.Rows {
			r := &p.Rows[i]
			seq := p.Base + int64(i)
			rows[i] = messageRow{
				ID: r.ID, BulkID: &b.ID, Seq: seq, LeadID: &r.LeadID, ChannelID: b.Channel.ID, ChannelType: string(b.Channel.Type),
				Provider: b.Provider, Recipient: r.Recipient, AddressHash: hashBytes(r), Copy: copyNumber(r, seq),
				MessageType: string(b.MessageType), Priority: string(b.Priority), Status: string(r.Status), Reason: string(r.Reason),
				CreatedAt: now, UpdatedAt: now,
			}
		}
		if len(rows) == 0 {
			return nil
		}
		return tx.CreateInBatches(rows, batchRows).Error
	})
}

// skipAllErased finds the rows whose lead was erased after it was read.
func skipAllErased(tx *gorm.DB, p *bulk.PlanPage) error {
	ids := make([]uuid.UUID, len(p.Rows))
	for i := range p.Rows {
		ids[i] = p.Rows[i].LeadID
	}
	var found []uuid.UUID
	if err := tx.Table("leads").Where("id IN ?", ids).Pluck("id", &found).Error; err != nil {
		return err
	}
	exists := make(map[uuid.UUID]bool, len(found))
	for _, id := range found {
		exists[id] = true
	}
	for i := range p.Rows {
		if !exists[p.Rows[i].LeadID] {
			skipErased(&p.Rows[i])
		}
	}
	return nil
}

func (h *sqliteHot) walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	var rows []walkedRow
	err := h.db.WithContext(ctx).Raw(fmt.Sprintf(walkSQL, "?", "?", "?", "?"), stamp(time.Now()), bulkID, from, limit).Scan(&rows).Error
	out := make([]bulk.Row, len(rows))
	for i := range rows {
		out[i] = rows[i].row()
	}
	return out, err
}
