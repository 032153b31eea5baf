package store

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"herald/pkg/message"
)

// code is an error as SQLite's driver has them.
type code int

func (code) Error() string { return "an error of SQLite" }
func (c code) Code() int   { return int(c) }

// An SQLite database that another process holds for too long is not available; it is no internal error.
func TestFaultALockedDatabaseIsUnavailable(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?_pragma=busy_timeout(0)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE t (n)"); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	_, busy := db.ExecContext(t.Context(), "INSERT INTO t VALUES (2)")
	for _, err := range []error{busy, code(5), code(5 | 1<<8), errors.Join(errors.New("x"), code(5|2<<8))} {
		if !message.IsCode(WrapError("write", err), message.CodeUnavailable) {
			t.Errorf("%v is not unavailable", err)
		}
	}
	for _, err := range []error{code(1), code(6), code(11), code(1 | 5<<8), errors.New("x")} {
		if message.IsCode(WrapError("write", err), message.CodeUnavailable) {
			t.Errorf("%v is unavailable", err)
		}
	}
}
