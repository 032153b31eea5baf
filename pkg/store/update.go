package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgerrcode"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Row locks. SQLite has none: its transactions run one after the other.
var (
	// lockKey keeps a row from being deleted. It does not wait for updates.
	lockKey = clause.Locking{Strength: "KEY SHARE"}
	// lockUpdate excludes other updates and the deletion of a row, and lets lockKey pass.
	lockUpdate = clause.Locking{Strength: "NO KEY UPDATE"}
	// lockDelete excludes every other lock.
	lockDelete = clause.Locking{Strength: "UPDATE"}
)

// transact runs a transaction, and repeats it when the database ends it: after a deadlock, for example. do must have no
// effect outside the transaction that a second run does not replace. The error is a message.Error where one of do's or of
// the database's is.
func (s *Store) transact(ctx context.Context, doing string, do func(tx *gorm.DB) error) error {
	return repeat(ctx, func() error {
		return fail(doing, s.db.WithContext(ctx).Transaction(do))
	})
}

// writeChanged writes those columns of a locked row in which after differs from before, which are pointers to rows of the
// same type. query names the row.
func writeChanged(query *gorm.DB, before, after any) error {
	stmt := &gorm.Statement{DB: query}
	if err := stmt.Parse(after); err != nil {
		return fmt.Errorf("parse %T: %w", after, err)
	}
	ctx := query.Statement.Context
	was, is := reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem()
	var columns []string
	for _, f := range stmt.Schema.Fields {
		old, _ := f.ValueOf(ctx, was)
		now, _ := f.ValueOf(ctx, is)
		if !reflect.DeepEqual(old, now) {
			columns = append(columns, f.DBName)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	return query.Model(after).Select(columns).Updates(after).Error
}

// isTaken says whether a unique key refused a row.
func isTaken(err error) bool {
	return errors.Is(err, gorm.ErrDuplicatedKey) || pgCode(err) == pgerrcode.UniqueViolation
}
