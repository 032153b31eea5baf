package records

import (
	"fmt"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
	"herald/pkg/store"
)

// Backfills are the data migrations of this version, in their order.
func Backfills() []store.Backfill {
	return []store.Backfill{{Name: "leads.custom_number.sort_keys", Batch: sortKeysOfNumbers}}
}

// sortKeysOfNumbers rewrites custom_number of leads. Earlier versions stored JSON numbers; filters compare sort keys
// (message.Decimal), which are exact for every number and cannot fail. A lead whose custom fields cannot be decoded keeps its
// value. Rows counts the leads read, also those that need no change.
func sortKeysOfNumbers(tx *gorm.DB, cursor string) (store.BatchResult, error) {
	after := uuid.Nil
	if cursor != "" {
		var err error
		if after, err = uuid.Parse(cursor); err != nil {
			return store.BatchResult{}, fmt.Errorf("parse the cursor: %w", err)
		}
	}
	type lead struct {
		message.Lead
		undecodable error
	}
	var leads []lead
	err := store.EachLead(tx.Clauses(store.LockUpdate).Where("id > ? AND custom_number IS NOT NULL", after).Order("id").Limit(store.BackfillRows),
		func(l *message.Lead, undecodable error) { leads = append(leads, lead{*l, undecodable}) })
	if err != nil || len(leads) == 0 {
		return store.BatchResult{Cursor: cursor, Done: true}, err
	}
	for i := range leads {
		if leads[i].undecodable != nil {
			continue
		}
		row := store.RowOfLead(&leads[i].Lead)
		keys := row.CustomNumber()
		if err := tx.Exec("UPDATE leads SET custom_number = ? WHERE id = ? AND custom_number <> ?", keys, row.ID, keys).Error; err != nil {
			return store.BatchResult{}, err
		}
	}
	return store.BatchResult{Cursor: leads[len(leads)-1].ID.String(), Rows: len(leads), Done: len(leads) < store.BackfillRows}, nil
}
