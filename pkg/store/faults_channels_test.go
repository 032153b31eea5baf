package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// Changes of one channel at the same time, from two processes, are all kept: a pause is not undone by a new name.
func TestFaultUpdatesOfOneChannel(t *testing.T) {
	const rounds = 100
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
		ctx := t.Context()
		c := testChannel()
		must(t, a.InsertChannel(ctx, &c))
		version := c.Version
		for i := range rounds {
			want, state := fmt.Sprint(i), channel.Paused
			if i%2 == 1 {
				state = channel.Active
			}
			update := func(s *storetest.Store, change func(*channel.Channel)) func() error {
				return func() error {
					_, err := s.UpdateChannel(ctx, c.Key, func(c *channel.Channel) error {
						change(c)
						return nil
					})
					return err
				}
			}
			must(t, errors.Join(together(
				update(a, func(c *channel.Channel) { c.State = state }),
				update(b, func(c *channel.Channel) { c.Name = want }),
				update(a, func(c *channel.Channel) { c.Credentials["webhook_public_key"] = channel.NewSecret(want) }),
				update(b, func(c *channel.Channel) { c.Price = message.Micros(i) }),
			)...))
			got, err := b.Channel(ctx, c.Key)
			must(t, err)
			if version += 4; got.Version != version {
				t.Fatalf("version %d after %d writes, want %d", got.Version, 4*(i+1), version)
			}
			if got.State != state || got.Name != want || got.Price != message.Micros(i) || got.Credentials["webhook_public_key"].Reveal() != want ||
				got.Credentials["api_key"].Reveal() != "SG.very-secret-value" || !got.CreatedAt.Equal(c.CreatedAt) {
				t.Fatalf("round %d: %+v", i, got)
			}
		}
	})
}

// A pause for a reason that was met with one version does not stop a channel that was changed since, at whatever moment.
func TestFaultAPauseIsOfOneVersion(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
		ctx := t.Context()
		c := testChannel()
		must(t, a.InsertChannel(ctx, &c))
		for i := range 60 {
			seen, err := a.Channel(ctx, c.Key)
			must(t, err)
			name := fmt.Sprint(i)
			must(t, errors.Join(together(
				func() error { return a.PauseChannel(ctx, c.Key, seen.Version, "dead key") },
				func() error {
					_, err := b.UpdateChannel(ctx, c.Key, func(c *channel.Channel) error {
						c.Name, c.State, c.StateReason = name, channel.Active, ""
						return nil
					})
					return err
				},
			)...))
			got, err := a.Channel(ctx, c.Key)
			must(t, err)
			if got.State != channel.Active || got.Name != name {
				t.Fatalf("round %d: %+v", i, got)
			}
		}
		seen, err := a.Channel(ctx, c.Key)
		must(t, err)
		must(t, a.PauseChannel(ctx, c.Key, seen.Version, "dead key"))
		if got, err := a.Channel(ctx, c.Key); err != nil || got.State != channel.Paused || got.Version != seen.Version+1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// A channel that is deleted and made again has a higher version than before, so no process takes what it cached for it.
func TestFaultVersionsOutliveAChannel(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		c := testChannel()
		must(t, s.InsertChannel(t.Context(), &c))
		changed, err := s.UpdateChannel(t.Context(), c.Key, func(c *channel.Channel) error {
			c.Name = "changed"
			return nil
		})
		must(t, err)
		must(t, s.DeleteChannel(t.Context(), c.Key))
		if err := s.DeleteChannel(t.Context(), c.Key); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		if _, err := s.UpdateChannel(t.Context(), c.Key, func(*channel.Channel) error { return nil }); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("a channel that is deleted is changed: %v", err)
		}
		again := testChannel()
		again.Key = c.Key
		must(t, s.InsertChannel(t.Context(), &again))
		if again.Version <= changed.Version {
			t.Errorf("version %d after %d", again.Version, changed.Version)
		}
	})
}

func orderOver(k channel.Key) *bulk.Bulk {
	return &bulk.Bulk{
		ID: newID(), Channel: k, Provider: "sendgrid", MessageType: message.Marketing, Priority: message.Normal, Request: []byte(`{}`),
		Status: bulk.Processing, CreatedAt: micro(time.Now()),
	}
}

// Of a bulk and the deletion of its channel at the same moment one is refused: no open bulk is without its channel.
func TestFaultADeletionBesideABulk(t *testing.T) {
	const rounds = 120
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
		ctx := t.Context()
		deleted := 0
		for i := range rounds {
			c := storetest.Channel(t, a, message.Email)
			order := orderOver(c.Key)
			var key *access.IdempotencyKey
			if i%2 == 1 {
				key = keyed("", order.ID.String(), "")
			}
			insert := func() error { return a.InsertBulk(ctx, order, key) }
			remove := func() error { return b.DeleteChannel(ctx, c.Key) }
			errs := together(insert, remove)
			written, gone := errs[0] == nil, errs[1] == nil
			if written == gone {
				t.Fatalf("round %d: bulk %v, deletion %v", i, errs[0], errs[1])
			}
			if gone {
				deleted++
				if _, err := a.Bulk(ctx, order.ID); !message.IsCode(errs[0], message.CodeNotFound) || !message.IsCode(err, message.CodeNotFound) {
					t.Fatalf("round %d: bulk %v, its row %v", i, errs[0], err)
				}
				if key != nil {
					if _, err := a.Effect(ctx, key); !message.IsCode(err, message.CodeNotFound) {
						t.Fatalf("round %d: a bulk that was refused took its key: %v", i, err)
					}
				}
			} else if !message.IsCode(errs[1], message.CodeConflict) {
				t.Fatalf("round %d: deletion %v", i, errs[1])
			}
		}
		t.Logf("%d of %d channels were deleted", deleted, rounds)
	})
}

// A deletion that waits for a bulk which is being written sees it, and a bulk that waits for a deletion finds no channel.
func TestFaultADeletionThatWaits(t *testing.T) {
	url := testenv.Database(t, testenv.Postgres)
	s, db := open(t, url), raw(t, url)
	ctx := t.Context()
	c := storetest.Channel(t, s, message.Email)

	tx, err := db.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "SELECT 1 FROM channels WHERE id = $1 FOR KEY SHARE", c.ID.String())
	must(t, err)
	_, err = tx.ExecContext(ctx, `
INSERT INTO bulks (id, channel_id, channel_type, provider, message_type, priority, content, criteria, request, status, created_at)
VALUES ($1, $2, 'EMAIL', '', '', '', '{}', '{}', '{}', 'PROCESSING', now())`, newID().String(), c.ID.String())
	must(t, err)
	result := make(chan error)
	go func() { result <- s.DeleteChannel(ctx, c.Key) }()
	awaitLock(t, db)
	must(t, tx.Commit())
	if err := <-result; !message.IsCode(err, message.CodeConflict) {
		t.Errorf("deleted under an open bulk: %v", err)
	}

	other := storetest.Channel(t, s, message.Email)
	tx, err = db.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "DELETE FROM channels WHERE id = $1", other.ID.String())
	must(t, err)
	go func() { result <- s.InsertBulk(ctx, orderOver(other.Key), nil) }()
	awaitLock(t, db)
	must(t, tx.Commit())
	if err := <-result; !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("a bulk over a channel that is gone: %v", err)
	}
}

// A bulk that is being written waits for no change of its channel, and the other way round.
func TestFaultABulkBesideAChange(t *testing.T) {
	url := testenv.Database(t, testenv.Postgres)
	s := open(t, url)
	c := storetest.Channel(t, s, message.Email)
	inside := make(chan struct{})
	written := make(chan error)
	go func() {
		<-inside
		written <- s.InsertBulk(t.Context(), orderOver(c.Key), nil)
	}()
	_, err := s.UpdateChannel(t.Context(), c.Key, func(*channel.Channel) error {
		close(inside)
		return <-written
	})
	must(t, err)
}

// A bulk keeps the version of its channel at the moment that it was written, wherever it is read.
func TestFaultABulkKnowsItsChannelsVersion(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		c := storetest.Channel(t, s, message.Email)
		for range 3 {
			changed, err := s.UpdateChannel(ctx, c.Key, func(c *channel.Channel) error {
				c.Name += "!"
				return nil
			})
			must(t, err)
			order := orderOver(c.Key)
			must(t, s.InsertBulk(ctx, order, nil))
			read, err := s.Bulk(ctx, order.ID)
			must(t, err)
			_, acquired := acquire(t, s, order.ID, time.Minute)
			for name, b := range map[string]*bulk.Bulk{"the caller's": order, "read": read, "acquired": acquired} {
				if b.ChannelVersion != changed.Version {
					t.Errorf("%s: version %d, want %d", name, b.ChannelVersion, changed.Version)
				}
			}
		}
	})
}
