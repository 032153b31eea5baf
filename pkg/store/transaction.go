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
	// LockReference prevents the deletion of a row. It does not wait for updates.
	LockReference = clause.Locking{Strength: "KEY SHARE"}
	// LockUpdate excludes other updates and the deletion of a row. It is compatible with LockReference.
	LockUpdate = clause.Locking{Strength: "NO KEY UPDATE"}
	// LockDelete excludes every other lock.
	LockDelete = clause.Locking{Strength: "UPDATE"}
)

// IgnoreKnownID makes an insert of a row whose id exists change nothing, so that the insert may be repeated.
var IgnoreKnownID = clause.OnConflict{Columns: []clause.Column{{Name: "id"}}, DoNothing: true}

// Transact runs a transaction, and repeats it when the database ends it, for example after a deadlock. Effects of do outside
// the transaction must be such that a second run replaces them. The error has a code where do's or the database's error has
// one.
func (db *DB) Transact(ctx context.Context, doing string, do func(tx *gorm.DB) error) error {
	return Retry(ctx, func() error {
		return WrapError(doing, db.WithContext(ctx).Transaction(do))
	})
}

// WriteChanged updates the columns of a locked row in which after differs from before; both point to rows of one type. query
// selects the row.
func WriteChanged(query *gorm.DB, before, after any) error {
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

// IsDuplicate reports whether a unique key rejected a row.
func IsDuplicate(err error) bool {
	return errors.Is(err, gorm.ErrDuplicatedKey) || SQLState(err) == pgerrcode.UniqueViolation
}

// ErasureLock is the key of the advisory lock of PostgreSQL that an erasure holds exclusively and that pages of plans share.
const ErasureLock = 0x4845524c // "HERL"

// DefaultLock is the key of the advisory lock of PostgreSQL that the change of a default channel holds.
const DefaultLock = 0x48455244 // "HERD"
