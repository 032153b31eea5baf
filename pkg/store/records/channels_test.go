package records_test

import (
	gocmp "cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/store/records"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func testChannel() channel.Channel {
	return channel.Channel{
		Key: channel.Key{ID: newID(), Type: message.Email}, Provider: "sendgrid", Name: "Mail", Sender: "a@acme.test", SenderName: "Acme",
		AllowedSenders: []string{"*@acme.test"}, Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("SG.very-secret-value")},
		Price: 1000, PriceMedia: new(message.Micros(2000)), Currency: "USD", RatePerSecond: 2.5, Default: true, OnUnknown: channel.ResendOnce, Region: "NO", State: channel.Active,
	}
}

func TestChannels(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		c := testChannel()
		must(t, s.InsertChannel(ctx, &c))
		got, err := s.Channel(ctx, c.Key)
		must(t, err)
		if d := cmp.Diff(&c, got, cmp.Comparer(func(a, b seal.Secret) bool { return a.Reveal() == b.Reveal() })); d != "" {
			t.Error(d)
		}
		if err := s.InsertChannel(ctx, &c); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("the same key again: %v", err)
		}
		sms := c
		sms.Type = message.SMS
		must(t, s.InsertChannel(ctx, &sms)) // one id, another type
		if _, err := s.DefaultChannel(ctx, message.InstagramDM); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("no default: %v", err)
		}
		def, err := s.DefaultChannel(ctx, message.SMS)
		must(t, err)
		if def.Key != sms.Key {
			t.Errorf("default is %v", def.Key)
		}
		must(t, s.PauseChannel(ctx, c.Key, got.Version-1, "an older key"))
		if got, err := s.Channel(ctx, c.Key); err != nil || got.State != channel.Active {
			t.Errorf("paused for what was true before its change: %v, %v", got, err)
		}
		must(t, s.PauseChannel(ctx, c.Key, got.Version, "dead key"))
		got, err = s.Channel(ctx, c.Key)
		must(t, err)
		if got.State != channel.Paused || got.StateReason != "dead key" {
			t.Errorf("state %s %q", got.State, got.StateReason)
		}
		first, err := s.Channels(ctx, channel.Key{}, 1)
		must(t, err)
		rest, err := s.Channels(ctx, first[0].Key, 10)
		must(t, err)
		if len(first) != 1 || len(rest) != 1 || rest[0].Type != message.SMS {
			t.Errorf("pages: %v %v", first, rest)
		}
	})
}

// Credentials do not open with another master key.
func TestCredentialsAreSealed(t *testing.T) {
	t.Parallel()
	c := testChannel()
	s := storetest.New(t, testenv.SQLite)
	must(t, s.InsertChannel(t.Context(), &c))
	other := storetest.Open(t, s.URL, storetest.Options{Sealer: storetest.Sealer(t)}) // another master key
	if _, err := other.Channel(t.Context(), c.Key); err == nil {
		t.Error("opened with another key")
	}
}

// Changes of one channel at the same time, from two processes, are all kept: a pause is not undone by a new name.
func TestFaultUpdatesOfOneChannel(t *testing.T) {
	const rounds = 100
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
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
			must(t, errors.Join(storetest.Together(
				update(a, func(c *channel.Channel) { c.State = state }),
				update(b, func(c *channel.Channel) { c.Name = want }),
				update(a, func(c *channel.Channel) { c.Credentials["webhook_public_key"] = seal.NewSecret(want) }),
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

// A pause for a reason that concerns one version does not stop a channel that was changed since, at any interleaving.
func TestFaultAPauseIsOfOneVersion(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
		ctx := t.Context()
		c := testChannel()
		must(t, a.InsertChannel(ctx, &c))
		for i := range 60 {
			seen, err := a.Channel(ctx, c.Key)
			must(t, err)
			name := fmt.Sprint(i)
			must(t, errors.Join(storetest.Together(
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
		Status: bulk.Processing, CreatedAt: store.Stamp(time.Now()),
	}
}

// Of a bulk and the deletion of its channel at the same moment one is refused: no open bulk is without its channel.
func TestFaultADeletionBesideABulk(t *testing.T) {
	const rounds = 120
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
		ctx := t.Context()
		deleted := 0
		for i := range rounds {
			c := storetest.Channel(t, a, message.Email)
			order := orderOver(c.Key)
			var key *access.IdempotencyKey
			if i%2 == 1 {
				key = storetest.IdempotencyKey("", order.ID.String(), "")
			}
			insert := func() error { return a.InsertBulk(ctx, order, key) }
			remove := func() error { return b.DeleteChannel(ctx, c.Key) }
			errs := storetest.Together(insert, remove)
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
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
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
	storetest.AwaitLock(t, db)
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
	storetest.AwaitLock(t, db)
	must(t, tx.Commit())
	if err := <-result; !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("a bulk over a channel that is gone: %v", err)
	}
}

// A bulk that is being written waits for no change of its channel, and the other way round.
func TestFaultABulkBesideAChange(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
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
			_, acquired := storetest.Acquire(t, s, order.ID, time.Minute)
			for name, b := range map[string]*bulk.Bulk{"the caller's": order, "read": read, "acquired": acquired} {
				if b.ChannelVersion != changed.Version {
					t.Errorf("%s: version %d, want %d", name, b.ChannelVersion, changed.Version)
				}
			}
		}
	})
}

// Channels that become the default at the same time do so one after the other: each change succeeds, and one default is left.
func TestIntegrationDefaultsAreExchangedConcurrently(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		keys := make([]channel.Key, 6)
		for i := range keys {
			c := testChannel()
			keys[i] = c.Key
			must(t, s.InsertChannel(ctx, &c)) // each is the default when it is inserted
		}
		errs := make(chan error)
		for range 5 {
			for _, k := range keys {
				go func() {
					_, err := s.UpdateChannel(ctx, k, func(c *channel.Channel) error {
						c.Default = true
						return nil
					})
					errs <- err
				}()
			}
			for range keys {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			defaults := 0
			for _, k := range keys {
				c, err := s.Channel(ctx, k)
				must(t, err)
				if c.Default {
					defaults++
				}
			}
			if defaults != 1 {
				t.Errorf("%d defaults", defaults)
			}
		}
	})
}

// The default channel of a type is the one that is marked. Pages continue between the types of one id.
func TestDefaultsAndPagesOfChannels(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		plain := storetest.Channel(t, s, message.Email)
		if _, err := s.DefaultChannel(ctx, message.Email); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("without a default: %v", err)
		}
		want := []channel.Key{plain.Key}
		marked := testChannel()
		for _, typ := range []message.ChannelType{message.Email, message.InstagramDM, message.SMS} {
			c := marked
			c.Type = typ
			must(t, s.InsertChannel(ctx, &c))
			want = append(want, c.Key)
		}
		if got, err := s.DefaultChannel(ctx, message.Email); err != nil || got.Key != (channel.Key{ID: marked.ID, Type: message.Email}) {
			t.Errorf("%+v, %v", got, err)
		}
		slices.SortFunc(want, func(a, b channel.Key) int {
			return gocmp.Or(slices.Compare(a.ID[:], b.ID[:]), strings.Compare(string(a.Type), string(b.Type)))
		})
		var got []channel.Key
		for after := (channel.Key{}); ; after = got[len(got)-1] {
			page, err := s.Channels(ctx, after, 1)
			must(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page[0].Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// A channel cannot be deleted while a bulk or a message over it is open. Messages over the other types of its id do not count.
func TestOpenMessagesKeepTheirChannel(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		sms, b := storetest.Channel(t, s, message.SMS), storetest.InsertBulk(t, s, nil)
		email := channel.Key{ID: sms.ID, Type: message.Email}
		storetest.EnsureChannel(t, s, email)
		m := storetest.InsertSingle(t, s, func(m *message.Message) { m.ChannelID = sms.ID })
		refused := func(k channel.Key, want bool) {
			t.Helper()
			if err := s.DeleteChannel(ctx, k); message.IsCode(err, message.CodeConflict) != want || (err == nil) == want {
				t.Errorf("%+v: %v", k, err)
			}
		}
		refused(sms.Key, true)
		refused(email, false)
		token, _ := storetest.Claim(t, s, m.ID, time.Minute)
		storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token}.Sent(0))
		refused(sms.Key, false)
		refused(b.Channel, true)
		must(t, s.Move(ctx, b.ID, []bulk.Status{bulk.Processing}, bulk.Cancelled))
		refused(b.Channel, true)
		if done, err := s.Finish(ctx, b.ID); !done || err != nil {
			t.Fatalf("%t, %v", done, err)
		}
		refused(b.Channel, false)
	})
}

// A pause takes effect once, on an active channel of the version that its caller has seen, and makes a new version.
func TestAPauseMakesAVersion(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		c := storetest.Channel(t, s, message.Email)
		must(t, s.PauseChannel(ctx, c.Key, c.Version, "first"))
		paused, err := s.Channel(ctx, c.Key)
		must(t, err)
		if paused.State != channel.Paused || paused.Version != c.Version+1 {
			t.Errorf("%+v", paused)
		}
		must(t, s.PauseChannel(ctx, c.Key, paused.Version, "second"))
		if got, err := s.Channel(ctx, c.Key); err != nil || got.StateReason != "first" || got.Version != paused.Version {
			t.Errorf("paused twice: %+v, %v", got, err)
		}
	})
}

// Credentials are sealed again with the present master key, in a new version of their channel. A write of the channel meanwhile
// wins. Without the former key the check of the seals fails.
func TestCredentialsAreSealedAgain(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		c := testChannel()
		former, present := make([]byte, 32), append(make([]byte, 31), 1)
		sealer := func(key []byte, others ...[]byte) *seal.Sealer {
			t.Helper()
			sealer, err := seal.NewSealer(key, others...)
			must(t, err)
			return sealer
		}
		must(t, records.NewChannelStore(s.DB, sealer(former)).InsertChannel(ctx, &c))
		both, alone := records.NewChannelStore(s.DB, sealer(present, former)), records.NewChannelStore(s.DB, sealer(present))
		if err := alone.CheckSeals(ctx); err == nil || !strings.Contains(err.Error(), c.ID.String()) {
			t.Errorf("without the former key: %v", err)
		}
		must(t, both.CheckSeals(ctx))
		for _, want := range []int{1, 0} {
			if n, err := both.Reseal(ctx); n != want || err != nil {
				t.Errorf("%d channels, %v, want %d", n, err, want)
			}
		}
		must(t, alone.CheckSeals(ctx))
		got, err := alone.Channel(ctx, c.Key)
		must(t, err)
		if got.Version != c.Version+1 || got.Credentials["api_key"].Reveal() != c.Credentials["api_key"].Reveal() {
			t.Errorf("version %d after %d", got.Version, c.Version)
		}
	})
}

// An update that changes no credential leaves the sealed values as they are.
func TestUnchangedCredentialsAreNotSealedAgain(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		c := testChannel()
		must(t, s.InsertChannel(t.Context(), &c))
		sealed := func() (text string) {
			t.Helper()
			must(t, s.WithContext(t.Context()).Raw("SELECT CAST(credentials AS text) FROM channels WHERE id = ?", c.ID).Scan(&text).Error)
			return text
		}
		before := sealed()
		update := func(secret string) {
			t.Helper()
			_, err := s.UpdateChannel(t.Context(), c.Key, func(c *channel.Channel) error {
				c.Name, c.Credentials["api_key"] = c.Name+"!", seal.NewSecret(secret)
				return nil
			})
			must(t, err)
		}
		if update("SG.very-secret-value"); sealed() != before {
			t.Error("the same secret was sealed again")
		}
		if update("SG.another"); sealed() == before {
			t.Error("another secret was not sealed")
		}
	})
}
