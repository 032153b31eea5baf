// Package storetest gives tests a store whose schema is there.
package storetest

import (
	"testing"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/message"
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

// SQLite opens an empty SQLite database for one test, with a random master key.
func SQLite(t testing.TB) *store.Store {
	t.Helper()
	return Open(t, testenv.Database(t, testenv.SQLite), store.Options{Sealer: Sealer(t)})
}

// Sealer makes a sealer with a random master key.
func Sealer(t testing.TB) *channel.Sealer {
	t.Helper()
	key, err := channel.ParseMasterKey(testenv.MasterKey())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := channel.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

// Channel stores a channel that a test's bulks go over, and returns it.
func Channel(t testing.TB, s *store.Store, typ message.ChannelType) *channel.Channel {
	t.Helper()
	provider := map[message.ChannelType]string{message.Email: channel.SendGrid, message.SMS: channel.Twilio, message.InstagramDM: channel.Instagram}
	c := &channel.Channel{
		Key: channel.Key{ID: uuid.New(), Type: typ}, Provider: provider[typ], Name: "test", Sender: "test", Currency: "USD",
		OnUnknown: channel.Hold, State: channel.Active,
	}
	if err := s.InsertChannel(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}
