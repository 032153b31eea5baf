package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/bulk"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store"
)

// addMessages writes a page in one transaction. Moving the bulk on comes first: without the lease, or at another position, nothing
// is written. Erased leads are looked up before duplicates, because a row of an erased lead does not claim its address. PostgreSQL
// needs an advisory lock against erasures; here transactions run one after the other.
func (d *sqliteDriver) addMessages(ctx context.Context, p bulk.PlanPage) error {
	return d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		res := tx.Exec(`
UPDATE bulks SET total = total + ?, plan_cursor = ?, not_found = not_found + ?, planned = ?, planned_at = CASE WHEN ? THEN ? END
WHERE id = ? AND lease_token = ? AND total = ? AND NOT planned`,
			len(p.Rows), p.Cursor, p.NotFound, p.Done, p.Done, store.Stamp(time.Now()), p.Lease.BulkID, p.Lease.Token, p.Base)
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return bulk.ErrLeaseLost
		}
		if err := skipAllErased(tx, &p); err != nil {
			return err
		}
		if hashes := needsDuplicateCheck(&p); len(hashes) > 0 {
			var found [][]byte
			if err := tx.Table("messages").Where("bulk_id = ? AND copy = 0 AND address_hash IN ?", p.Bulk.ID, hashes).Pluck("address_hash", &found).Error; err != nil {
				return err
			}
			skipDuplicates(&p, found)
		}
		now := store.Stamp(time.Now())
		b := p.Bulk
		rows := make([]store.MessageRow, len(p.Rows))
		for i := range p.Rows {
			r := &p.Rows[i]
			seq := p.Base + int64(i)
			rows[i] = store.MessageRow{
				ID: r.ID, BulkID: &b.ID, Seq: seq, LeadID: &r.LeadID, ChannelID: b.Channel.ID, ChannelType: string(b.Channel.Type),
				Provider: b.Provider, Recipient: r.Recipient, AddressHash: hashBytes(r), Copy: copyNumber(r, seq),
				MessageType: string(b.MessageType), Priority: string(b.Priority), Status: string(r.Status), Reason: string(r.Reason),
				CreatedAt: now, UpdatedAt: now,
			}
		}
		if len(rows) > 0 {
			if err := tx.CreateInBatches(rows, store.BatchRows).Error; err != nil {
				return err
			}
		}
		return d.publishPlanned(tx, &p)
	})
}

// publishPlanned publishes event.BulkPlanned with the last page.
func (d *sqliteDriver) publishPlanned(tx *gorm.DB, p *bulk.PlanPage) error {
	if !p.Done {
		return nil
	}
	var b struct{ Total, NotFound int64 }
	if err := tx.Raw("SELECT total, not_found FROM bulks WHERE id = ?", p.Lease.BulkID).Scan(&b).Error; err != nil {
		return err
	}
	return d.db.Publish(tx, event.BulkPlanned{BulkID: p.Lease.BulkID, Total: b.Total, NotFound: b.NotFound})
}

// skipAllErased removes the addresses from the rows whose lead was erased after it was read.
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

// suppressed returns the greatest reason of a hash: rows are read in the order of reasons, and later ones overwrite.
func (d *sqliteDriver) suppressed(ctx context.Context, t message.ChannelType, p message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	var rows []struct {
		AddressHash []byte
		Reason      string
	}
	err := d.db.WithContext(ctx).Table("suppressions").Select("address_hash, reason").
		Where("type = ? AND address_hash IN ? AND "+messageTypeColumn[p], string(t), hashList(hashes)).Order("reason").Find(&rows).Error
	out := map[message.Hash]message.Reason{}
	for _, r := range rows {
		out[message.Hash(r.AddressHash)] = message.Reason(r.Reason)
	}
	return out, err
}

// walk reads a range of a bulk's messages by seq.
func (d *sqliteDriver) walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	var rows []walkedRow
	err := d.db.WithContext(ctx).Raw(fmt.Sprintf(walkSQL, "?", "?", "?", "?"), store.Stamp(time.Now()), bulkID, from, limit).Scan(&rows).Error
	out := make([]bulk.Row, len(rows))
	for i := range rows {
		out[i] = rows[i].row()
	}
	return out, err
}
