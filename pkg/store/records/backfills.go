package records

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
	"herald/pkg/store"
)

// Backfills are the data migrations of this version, in their order.
func Backfills() []store.Backfill {
	return []store.Backfill{
		{Name: "leads.custom_number.sort_keys", Batch: sortKeysOfNumbers},
		{Name: "leads.compared_forms", Batch: comparedForms},
		{Name: "leads.custom_date", Batch: customDates},
	}
}

// comparedColumns are the columns whose form changed: normalised addresses, tags without surrounding space, and the keyword's text
// in base letters.
var comparedColumns = []string{"email_fold", "phone_fold", "search_text", "tags_fold"}

// comparedForms writes comparedColumns of leads as this version does. It updates only the leads in which they differ: those with
// an address or a tag in another spelling, or with a letter outside ASCII.
func comparedForms(tx *gorm.DB, cursor string) (store.BatchResult, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return store.BatchResult{}, err
	}
	var stored []comparedRow
	err = tx.Clauses(store.LockUpdate).Table("leads").Select(append([]string{"id"}, comparedColumns...)).
		Where("id > ?", after).Order("id").Limit(store.BackfillRows).Find(&stored).Error
	if err != nil || len(stored) == 0 {
		return store.BatchResult{Cursor: cursor, Done: true}, err
	}
	byID := make(map[uuid.UUID]comparedRow, len(stored))
	ids := make([]uuid.UUID, len(stored))
	for i, row := range stored {
		ids[i], byID[row.ID] = row.ID, row
	}
	changed := map[uuid.UUID]map[string]any{}
	err = store.EachLead(tx.Where("id IN ?", ids), func(l *message.Lead, undecodable error) {
		row := store.RowOfLead(l)
		if is := row.Columns(comparedColumns...); undecodable == nil && !byID[l.ID].equals(is) {
			changed[l.ID] = is
		}
	})
	if err != nil {
		return store.BatchResult{}, err
	}
	for id, columns := range changed {
		if err := tx.Table("leads").Where("id = ?", id).Updates(columns).Error; err != nil {
			return store.BatchResult{}, err
		}
	}
	last := stored[len(stored)-1].ID.String()
	return store.BatchResult{Cursor: last, Rows: len(stored), Done: len(stored) < store.BackfillRows}, nil
}

// comparedRow is a lead as it is stored.
type comparedRow struct {
	ID                               uuid.UUID
	EmailFold, PhoneFold, SearchText string
	TagsFold                         store.Document
}

// equals reports whether the row has the values of columns. PostgreSQL writes a JSON array with spaces, so tags are compared decoded.
func (r comparedRow) equals(columns map[string]any) bool {
	tags, _ := columns["tags_fold"].(store.Document)
	var was, is []string
	if r.TagsFold.Decode(&was) != nil || tags.Decode(&is) != nil {
		return false
	}
	return r.EmailFold == columns["email_fold"] && r.PhoneFold == columns["phone_fold"] && r.SearchText == columns["search_text"] && slices.Equal(was, is)
}

// parseCursor returns the id after which a batch begins.
func parseCursor(cursor string) (uuid.UUID, error) {
	if cursor == "" {
		return uuid.Nil, nil
	}
	after, err := uuid.Parse(cursor)
	if err != nil {
		return uuid.Nil, fmt.Errorf("parse the cursor: %w", err)
	}
	return after, nil
}

// sortKeysOfNumbers rewrites custom_number of leads. Earlier versions stored JSON numbers; filters compare sort keys
// (message.Decimal), which are exact for every number and cannot fail.
func sortKeysOfNumbers(tx *gorm.DB, cursor string) (store.BatchResult, error) {
	return eachLead(tx, cursor, "custom_number IS NOT NULL", func(row *store.LeadRow) error {
		keys := row.Columns("custom_number")["custom_number"]
		return tx.Exec("UPDATE leads SET custom_number = ? WHERE id = ? AND custom_number <> ?", keys, row.ID, keys).Error
	})
}

// customDates writes custom_date of leads that earlier versions wrote. Filters on dates find these leads only then. It compares
// all leads, because an API process of an earlier version, running beside this one, changes custom fields and not their dates.
func customDates(tx *gorm.DB, cursor string) (store.BatchResult, error) {
	return eachLead(tx, cursor, "custom_fields IS NOT NULL", func(row *store.LeadRow) error {
		keys := row.Columns("custom_date")["custom_date"]
		return tx.Exec("UPDATE leads SET custom_date = ? WHERE id = ? AND custom_date IS DISTINCT FROM ?", keys, row.ID, keys).Error
	})
}

// eachLead is one batch of a backfill of leads: it locks the next leads that meet a condition and calls update with each as a
// row. A lead whose custom fields cannot be decoded is left as it is. Rows counts the leads read, also those that need no change.
func eachLead(tx *gorm.DB, cursor, condition string, update func(row *store.LeadRow) error) (store.BatchResult, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return store.BatchResult{}, err
	}
	type lead struct {
		message.Lead
		undecodable error
	}
	var leads []lead
	err = store.EachLead(tx.Clauses(store.LockUpdate).Where("id > ? AND "+condition, after).Order("id").Limit(store.BackfillRows),
		func(l *message.Lead, undecodable error) { leads = append(leads, lead{*l, undecodable}) })
	if err != nil || len(leads) == 0 {
		return store.BatchResult{Cursor: cursor, Done: true}, err
	}
	for i := range leads {
		if leads[i].undecodable != nil {
			continue
		}
		row := store.RowOfLead(&leads[i].Lead)
		if err := update(&row); err != nil {
			return store.BatchResult{}, err
		}
	}
	return store.BatchResult{Cursor: leads[len(leads)-1].ID.String(), Rows: len(leads), Done: len(leads) < store.BackfillRows}, nil
}
