// Package storetest gives tests a store whose schema is there.
package storetest

import (
	"testing"

	"herald/pkg/store"
	"herald/pkg/testenv"
)

// Open opens a database that is up to date, and closes it when the test ends.
func Open(t testing.TB, databaseURL string, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), databaseURL, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// SQLite opens an empty SQLite database of the test's own.
func SQLite(t testing.TB) *store.Store {
	t.Helper()
	return Open(t, testenv.Database(t, testenv.SQLite), store.Options{})
}
