// Package storetest opens databases for tests, with the current schema and everything that the subpackages of store keep.
package storetest

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/store/ledger"
	"herald/pkg/store/records"
	"herald/pkg/store/search"
	"herald/pkg/testenv"
)

// Store is one database with all its aggregates. A test calls their methods directly on it; it passes the Store itself, or one
// aggregate of it, where a domain package needs a port.
type Store struct {
	URL     string // of the database
	options Options
	*store.DB
	*ledger.Ledger
	*ledger.Runs
	*search.Resolver
	*records.BulkStore
	*records.ChannelStore
	*records.IdempotencyStore
	*records.KeyStore
	*records.LeadStore
	*records.MessageStore
	*records.PreviewStore
	*records.SuppressionStore
}

// Close closes the database.
func (s *Store) Close() {
	s.Ledger.Close()
	s.DB.Close()
}

// Options of Open. The zero value opens a store that cannot read or write channels.
type Options struct {
	Sealer   *seal.Sealer
	PageTime time.Duration // bounds a page of an audience on SQLite; 0: store.SearchTimeout
}

// Open opens a database, applies the migrations, and closes it when the test ends.
func Open(t testing.TB, databaseURL string, o Options) *Store {
	t.Helper()
	migrated := copySQLite(t, databaseURL)
	s := Connect(t, databaseURL, o)
	if !migrated {
		_, err := s.Migrate(t.Context())
		Must(t, err)
	}
	return s
}

// Another opens the database of a store once more, as another process does.
func Another(t testing.TB, s *Store) *Store {
	t.Helper()
	return Connect(t, s.URL, s.options)
}

// Connect is Open without the migrations.
func Connect(t testing.TB, databaseURL string, o Options) *Store {
	t.Helper()
	db, err := store.Open(t.Context(), databaseURL, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{
		URL: databaseURL, options: o, DB: db, Ledger: ledger.New(db), Runs: ledger.NewRuns(db), Resolver: search.NewResolver(db, o.PageTime),
		BulkStore: records.NewBulkStore(db), ChannelStore: records.NewChannelStore(db, o.Sealer), IdempotencyStore: records.NewIdempotencyStore(db),
		KeyStore: records.NewKeyStore(db), LeadStore: records.NewLeadStore(db), MessageStore: records.NewMessageStore(db),
		PreviewStore: records.NewPreviewStore(db), SuppressionStore: records.NewSuppressionStore(db),
	}
	t.Cleanup(s.Close)
	return s
}

// SQLite opens an empty SQLite database for one test, with a random master key.
func SQLite(t testing.TB) *Store {
	t.Helper()
	return New(t, testenv.SQLite)
}

// Sealer returns a sealer with a random master key.
func Sealer(t testing.TB) *seal.Sealer {
	t.Helper()
	key, err := seal.ParseMasterKey(testenv.MasterKey())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

// Channel stores a channel and returns it.
func Channel(t testing.TB, s *Store, typ message.ChannelType) *channel.Channel {
	t.Helper()
	c := &channel.Channel{
		Key: channel.Key{ID: uuid.New(), Type: typ}, Provider: vendors.All.Providers().For(typ)[0], Name: "test", Sender: "test", Currency: "USD",
		OnUnknown: channel.Hold, State: channel.Active,
	}
	if err := s.InsertChannel(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}
