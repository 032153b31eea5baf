package ledger

import (
	"context"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/access"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
)

// sqliteDriver executes a group row by row in one transaction: the database is in this process, so a group costs one commit
// and no round trips. The conditions are the same as PostgreSQL's.
type sqliteDriver struct{ db *store.DB }

// insert writes singles in one transaction, which fails as a whole.
func (d *sqliteDriver) insert(ctx context.Context, singles []single) ([]insertResult, error) {
	out := make([]insertResult, len(singles))
	return out, d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		for i := range singles {
			var err error
			if out[i], err = d.insertOne(tx, &singles[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// insertWithFiles writes the files in the transaction of their single, unless the single is not written.
func (d *sqliteDriver) insertWithFiles(ctx context.Context, s *single, files []message.FileData) (ins insertResult, err error) {
	err = d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if ins, err = d.insertOne(tx, s); err != nil || !ins.written {
			return err
		}
		return store.InsertFiles(tx, s.ID, files)
	})
	return ins, err
}

// references looks up the channel and the lead that a single refers to.
func (d *sqliteDriver) references(tx *gorm.DB, n *single) (ins insertResult, err error) {
	if ins.ChannelVersion, err = d.channelVersion(tx, &n.MessageRow); err != nil || !n.forLead {
		return ins, err
	}
	err = tx.Raw("SELECT NOT EXISTS (SELECT 1 FROM leads WHERE id = ?)", n.LeadID).Scan(&ins.noLead).Error
	return ins, err
}

// insertOne writes a single unless its channel, its lead or its key forbids it. The checks hold until the commit, because a
// transaction has the write lock from its begin.
func (d *sqliteDriver) insertOne(tx *gorm.DB, n *single) (ins insertResult, err error) {
	now := store.Stamp(time.Now())
	if ins, err = d.references(tx, n); err != nil || ins.missing() != nil {
		return ins, err
	}
	ins.written, err = store.TakeIdempotencyKey(tx, n.key, access.Effect{ID: n.ID}, now, now.Add(-access.KeepEffects))
	if err != nil || !ins.written {
		return ins, err
	}
	if ins.Suppressed, err = d.reasonOf(tx, &n.MessageRow); err != nil {
		return ins, err
	}
	row := n.MessageRow
	if n.claim.Token != uuid.Nil && ins.Suppressed == message.NoReason {
		until := now.Add(n.claim.TTL)
		row.Status, row.Attempt, row.ClaimToken, row.ClaimedAt, row.ClaimExpiresAt = string(message.Sending), 1, &n.claim.Token, &now, &until
	}
	if err := tx.Clauses(store.IgnoreKnownID).Create(&row).Error; err != nil || row.ClaimToken == nil {
		return ins, err
	}
	// The row exists from an earlier try if the answer to it was lost.
	return ins, tx.Raw("SELECT EXISTS (SELECT 1 FROM messages WHERE id = ? AND claim_token = ?)", n.ID, n.claim.Token).Scan(&ins.Claimed).Error
}

// load is read outside a transaction.
func (d *sqliteDriver) load(ctx context.Context, ids []uuid.UUID) ([]delivery.Loaded, error) {
	return d.read(d.db.WithContext(ctx), ids)
}

// read returns one result per id, in order; a message that does not exist is the zero value.
func (d *sqliteDriver) read(db *gorm.DB, ids []uuid.UUID) ([]delivery.Loaded, error) {
	var rows []store.MessageRow
	if err := db.Where("id IN ?", ids).Find(&rows).Error; err != nil {
		return nil, err
	}
	found := make(map[uuid.UUID]delivery.Loaded, len(rows))
	for i := range rows {
		l, err := d.loaded(db, &rows[i])
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

// loaded adds to a row what a delivery needs to decide: suppression, pauses, the version of the channel, and the lead. A row or a
// lead that cannot be decoded is reported in the result, because the other messages of the group must not fail for it.
func (d *sqliteDriver) loaded(db *gorm.DB, r *store.MessageRow) (l delivery.Loaded, err error) {
	l.Message, l.Undecodable = r.Message()
	l.ClaimToken = store.OrNil(r.ClaimToken)
	l.ClaimExpired = r.ClaimExpiresAt != nil && r.ClaimExpiresAt.Before(store.Stamp(time.Now()))
	if l.Suppressed, err = d.reasonOf(db, r); err != nil {
		return l, err
	}
	if l.Held, err = d.held(db, r); err != nil {
		return l, err
	}
	if l.ChannelVersion, err = d.channelVersion(db, r); err != nil || r.LeadID == nil {
		return l, err
	}
	lead, undecodable, err := d.lead(db, *r.LeadID)
	if err == nil && l.Undecodable == nil {
		l.Lead, l.Undecodable = lead, undecodable
	}
	return l, err
}

// lead returns a lead, nil if it does not exist. undecodable says why the lead lacks values.
func (d *sqliteDriver) lead(db *gorm.DB, id uuid.UUID) (l *message.Lead, undecodable, err error) {
	err = store.EachLead(db.Where("id = ?", id), func(found *message.Lead, err error) { l, undecodable = found, err })
	return l, undecodable, err
}

// channelVersion returns the version of a message's channel, 0 if the channel no longer exists.
func (d *sqliteDriver) channelVersion(db *gorm.DB, r *store.MessageRow) (version int64, err error) {
	err = db.Raw("SELECT COALESCE((SELECT version FROM channels WHERE id = ? AND type = ?), 0)", r.ChannelID, r.ChannelType).Scan(&version).Error
	return version, err
}

// held reports whether the bulk or the channel of a message is paused or ended.
func (d *sqliteDriver) held(db *gorm.DB, m *store.MessageRow) (held bool, err error) {
	err = db.Raw("SELECT "+heldSQL+` FROM messages m LEFT JOIN bulks b ON b.id = m.bulk_id
    LEFT JOIN channels c ON c.id = m.channel_id AND c.type = m.channel_type WHERE m.id = ?`, m.ID).Scan(&held).Error
	return held, err
}

// sendable reports whether a message of a bulk can be claimed as it is loaded: it has its lead, and nothing forbids or delays
// it.
func (d *sqliteDriver) sendable(db *gorm.DB, id uuid.UUID) (ok bool, err error) {
	err = db.Raw(`SELECT EXISTS (SELECT 1 FROM messages m JOIN bulks b ON b.id = m.bulk_id JOIN leads l ON l.id = m.lead_id
    JOIN channels c ON c.id = m.channel_id AND c.type = m.channel_type WHERE m.id = ? AND `+sendableSQL+")", id).Scan(&ok).Error
	return ok, err
}

// reasonOf returns why the recipient of a message must not be contacted, NoReason if it may. The message need not be stored.
func (d *sqliteDriver) reasonOf(db *gorm.DB, m *store.MessageRow) (reason message.Reason, err error) {
	err = db.Raw("SELECT COALESCE(("+suppressedSQL+` ORDER BY s.reason DESC LIMIT 1), '')
FROM (SELECT ? AS channel_type, ? AS address_hash, ? AS message_type) m`, m.ChannelType, m.AddressHash, m.MessageType).Scan(&reason).Error
	return reason, err
}

// commitBatch records outcomes before it claims, as on PostgreSQL: a released message can be claimed in the same group.
func (d *sqliteDriver) commitBatch(ctx context.Context, outcomes []*delivery.Outcome, claims []*delivery.Claim) (settled []delivery.Settled, loaded []delivery.Loaded, err error) {
	err = d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
		if settled, err = settleRows(tx, outcomes); err == nil && len(claims) > 0 {
			loaded, err = d.take(tx, claims)
		}
		return err
	})
	return settled, loaded, err
}

// take loads messages, and claims those of bulks that nothing forbids or delays, under the same conditions as takeSQL.
func (d *sqliteDriver) take(tx *gorm.DB, claims []*delivery.Claim) (out []delivery.Loaded, err error) {
	if out, err = d.read(tx, valuesOf(claims, func(c **delivery.Claim) uuid.UUID { return (*c).ID })); err != nil {
		return nil, err
	}
	for i, c := range claims {
		l := &out[i]
		if l.Message == nil || l.Lead == nil || l.Message.BulkID == uuid.Nil || l.Undecodable != nil {
			continue
		}
		sendable, err := d.sendable(tx, c.ID)
		if err != nil {
			return nil, err
		}
		mine := l.Message.Status == message.Sending && l.ClaimToken == c.Token
		if !mine && (!sendable || l.Message.Attempt >= c.Most) {
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

// claim claims messages in one transaction.
func (d *sqliteDriver) claim(ctx context.Context, claims []*delivery.Claim) ([]bool, error) {
	out := make([]bool, len(claims))
	return out, d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
		for i, c := range claims {
			if out[i], err = claimRow(tx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimRow is postgres.go's claimSQL for one message: a compare-and-set that a repeated claim passes too.
func claimRow(tx *gorm.DB, c *delivery.Claim) (bool, error) {
	now := store.Stamp(time.Now())
	until := now.Add(c.TTL)
	res := tx.Exec(`
UPDATE messages SET status = 'SENDING', attempt = attempt + CASE WHEN status = 'SENDING' THEN 0 ELSE 1 END, claim_token = ?, claimed_at = ?, claim_expires_at = ?,
    next_attempt_at = CASE WHEN next_attempt_at IS NOT NULL THEN ? END, updated_at = ?
WHERE id = ? AND (status IN ('PENDING', 'QUEUED') OR (status = 'SENDING' AND claim_token = ?))`, c.Token, now, until, until, now, c.ID, c.Token)
	return res.RowsAffected == 1, res.Error
}

// settleRows is settleStatement, one outcome after the other. RowsAffected tells whether the compare-and-set matched. Attempts are
// inserted after the loop, because an attempt whose outcome did not match is marked late.
func settleRows(tx *gorm.DB, outcomes []*delivery.Outcome) ([]delivery.Settled, error) {
	out := make([]delivery.Settled, len(outcomes))
	now := store.Stamp(time.Now())
	for i, o := range outcomes {
		var failure store.Document
		if o.Failure() != nil {
			failure = store.Encode(o.Failure())
		}
		var again *time.Time
		if o.DueAfter() > 0 {
			t := now.Add(o.DueAfter())
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
			"status": string(o.Status()), "reason": string(o.Reason()), "failure": failure, "http": o.HTTPStatus(), "cost": int64(o.Cost()),
			"part": o.Part(), "pid": o.ProviderMessageID(), "back": o.RefundsAttempt(), "keep": o.ExtendsClaim() > 0, "until": now.Add(o.ExtendsClaim()), "now": now,
			"again": again, "id": o.ID(), "token": store.NullID(o.Token()), "continues": o.Status().Rank() == 0,
		})
		if res.Error != nil {
			return nil, res.Error
		}
		out[i] = delivery.Settled{OK: res.RowsAffected == 1, At: now}
		if out[i].OK {
			if err := tx.Raw("SELECT recipient = '' FROM messages WHERE id = ?", o.ID()).Scan(&out[i].Erased).Error; err != nil {
				return nil, err
			}
		}
	}
	if rows := attemptsOf(outcomes, out); len(rows) > 0 {
		return out, tx.CreateInBatches(rows, store.BatchRows).Error
	}
	return out, nil
}
