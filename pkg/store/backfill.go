package store

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Backfill is a data migration that fills or rewrites rows in batches while servers run. Use one where a statement in a
// migration would lock a large table for long. The schema migration comes first, and the code reads both forms until the
// backfill is done in every deployment.
type Backfill struct {
	Name string // in the table backfills; must not change
	// Batch processes the next rows after a cursor ("" at the beginning), at most BackfillRows, in a transaction that also stores
	// its result. It may be repeated after a rollback, so it must have no effect outside the transaction.
	Batch func(tx *gorm.DB, cursor string) (BatchResult, error)
}

// BatchResult is what one batch of a backfill did.
type BatchResult struct {
	Cursor string // where the next batch begins
	Rows   int    // rows that the batch processed
	Done   bool   // no rows are left
}

const (
	// BackfillRows bounds the rows of one batch, and with them the time for which it holds locks.
	BackfillRows = 500
	// backfillPause is the time between two batches. It leaves the database to the servers for most of the time.
	backfillPause = 100 * time.Millisecond
)

// backfillRow is a row of backfills.
type backfillRow struct {
	Name      string `gorm:"primaryKey"`
	Cursor    string
	Done      bool
	RowsDone  int64
	UpdatedAt time.Time `gorm:"autoUpdateTime:false"`
}

// TableName implements schema.Tabler.
func (backfillRow) TableName() string { return "backfills" }

// RunBackfills executes backfills one after the other until all are done or the context ends. Any number of processes may call
// it: a batch locks the backfill's row, so batches run one at a time. A process that stops in the middle of a batch leaves the
// cursor of the batch before, and another process continues from there.
func (db *DB) RunBackfills(ctx context.Context, backfills []Backfill) error {
	for _, b := range backfills {
		for done := false; !done; {
			var err error
			if done, err = db.runBatch(ctx, b); err != nil {
				return err
			}
			if done {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("run backfill %s: %w", b.Name, ctx.Err())
			case <-time.After(backfillPause):
			}
		}
	}
	return nil
}

// runBatch executes one batch, and returns true when the backfill is done.
func (db *DB) runBatch(ctx context.Context, b Backfill) (done bool, err error) {
	err = db.Transact(ctx, "run backfill "+b.Name, func(tx *gorm.DB) error {
		row := backfillRow{Name: b.Name, UpdatedAt: Stamp(time.Now())}
		if err := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&row).Error; err != nil {
			return err
		}
		if err := tx.Clauses(LockUpdate).Where("name = ?", b.Name).Take(&row).Error; err != nil {
			return err
		}
		if done = row.Done; done {
			return nil
		}
		result, err := b.Batch(tx, row.Cursor)
		if err != nil {
			return err
		}
		done = result.Done
		return tx.Exec("UPDATE backfills SET cursor = ?, done = ?, rows_done = rows_done + ?, updated_at = ? WHERE name = ?",
			result.Cursor, result.Done, result.Rows, db.Now(), b.Name).Error
	})
	return done && err == nil, err
}

// States of a backfill.
const (
	BackfillPending = "pending" // no batch was executed
	BackfillRunning = "running" // at least one batch was executed, more are left
	BackfillDone    = "done"
)

// BackfillStatus is the progress of one backfill.
type BackfillStatus struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	RowsDone int64  `json:"rows_done"`
}

// BackfillStatus returns the progress of backfills, in their order. On a schema that is behind this version all are pending.
func (db *DB) BackfillStatus(ctx context.Context, backfills []Backfill) ([]BackfillStatus, error) {
	behind, err := db.schemaIsBehind(ctx)
	if err != nil {
		return nil, err
	}
	var rows []backfillRow
	if !behind {
		if err := db.WithContext(ctx).Find(&rows).Error; err != nil {
			return nil, WrapError("read backfills", err)
		}
	}
	byName := make(map[string]backfillRow, len(rows))
	for _, r := range rows {
		byName[r.Name] = r
	}
	status := make([]BackfillStatus, len(backfills))
	for i, b := range backfills {
		status[i] = BackfillStatus{Name: b.Name, State: BackfillPending}
		if r, started := byName[b.Name]; started {
			status[i].RowsDone = r.RowsDone
			if status[i].State = BackfillRunning; r.Done {
				status[i].State = BackfillDone
			}
		}
	}
	return status, nil
}

// PendingBackfills returns the names of the backfills that are not done.
func (db *DB) PendingBackfills(ctx context.Context, backfills []Backfill) ([]string, error) {
	status, err := db.BackfillStatus(ctx, backfills)
	if err != nil {
		return nil, err
	}
	var pending []string
	for _, b := range status {
		if b.State != BackfillDone {
			pending = append(pending, b.Name)
		}
	}
	return pending, nil
}
