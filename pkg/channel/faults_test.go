package channel

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// shelf is a store with one channel or none.
type shelf struct {
	Store
	mu    sync.Mutex
	ch    *Channel
	err   error // instead of the channel
	reads int
	slow  chan struct{} // delays the next read after it took its result
}

func (s *shelf) put(ch *Channel, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ch, s.err = ch, err
}

func (s *shelf) Channel(context.Context, Key) (*Channel, error) {
	s.mu.Lock()
	s.reads++
	ch, err, slow := s.ch, s.err, s.slow
	s.slow = nil
	s.mu.Unlock()
	if slow != nil {
		<-slow
	}
	return ch, err
}

func (s *shelf) DefaultChannel(ctx context.Context, _ message.ChannelType) (*Channel, error) {
	return s.Channel(ctx, Key{})
}

func (s *shelf) UpdateChannel(_ context.Context, _ Key, change func(*Channel) error) (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *s.ch
	if err := change(&c); err != nil {
		return nil, err
	}
	c.Version++
	s.ch = &c
	return &c, nil
}

func (s *shelf) DeleteChannel(context.Context, Key, ...func(int64) error) error {
	s.put(nil, message.Errorf(message.CodeNotFound, "gone"))
	return nil
}

func (s *shelf) PauseChannel(_ context.Context, _ Key, seen int64, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch.Version == seen {
		c := *s.ch
		c.State = Paused
		s.ch = &c
	}
	return nil
}

func aChannel(version int64) *Channel {
	return &Channel{
		Key: Key{ID: uuid.New(), Type: message.Email}, Provider: "sendgrid", Sender: "a@acme.test", Currency: "USD", OnUnknown: Hold, State: Active,
		Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("x")}, Version: version,
	}
}

// After a failed read, the next caller reads again and gets the stored channel.
func TestFaultAFailedReadKeepsNothingOld(t *testing.T) {
	for name, get := range map[string]func(*Registry, context.Context, *Channel) (*Channel, error){
		"by its key":      func(r *Registry, ctx context.Context, c *Channel) (*Channel, error) { return r.Get(ctx, c.Key) },
		"as the default":  func(r *Registry, ctx context.Context, c *Channel) (*Channel, error) { return r.Default(ctx, c.Type) },
		"with no version": func(r *Registry, ctx context.Context, c *Channel) (*Channel, error) { return r.AtLeast(ctx, c.Key, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				was := aChannel(1)
				s := &shelf{ch: was}
				r := NewRegistry(s, s, s, testProviders)
				ask := func() (*Channel, error) { return get(r, t.Context(), was) }
				if ch, err := ask(); ch != was || err != nil {
					t.Fatalf("%v, %v", ch, err)
				}
				is := *was
				is.Version, is.State = 2, Paused
				down := errors.New("the database does not answer")
				s.put(nil, down)
				time.Sleep(cacheTTL)
				for range 3 {
					if ch, err := ask(); !errors.Is(err, down) {
						t.Fatalf("while the database is down: %v, %v", ch, err)
					}
				}
				s.put(&is, nil)
				if ch, err := ask(); ch != &is || err != nil {
					t.Errorf("after it is back: %v, %v", ch, err)
				}
				if ch, err := ask(); ch != &is || err != nil || s.reads != 5 {
					t.Errorf("cached: %v, %v after %d reads", ch, err, s.reads)
				}
			})
		})
	}
}

// A channel that another process deleted is not found after cacheTTL, by any caller.
func TestFaultADeletedChannelIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		was := aChannel(1)
		s := &shelf{ch: was}
		r := NewRegistry(s, s, s, testProviders)
		if _, err := r.Get(t.Context(), was.Key); err != nil {
			t.Fatal(err)
		}
		s.put(nil, message.Errorf(message.CodeNotFound, "gone"))
		if ch, err := r.Get(t.Context(), was.Key); ch != was || err != nil {
			t.Errorf("within a moment: %v, %v", ch, err)
		}
		time.Sleep(cacheTTL)
		for range 3 {
			if ch, err := r.Get(t.Context(), was.Key); !message.IsCode(err, message.CodeNotFound) {
				t.Errorf("after it: %v, %v", ch, err)
			}
		}
		if ch, err := r.AtLeast(t.Context(), was.Key, 1); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("at least: %v, %v", ch, err)
		}
	})
}

// A caller that knows a version gets that version or a later one, although an older one is cached. So do later callers.
func TestFaultAtLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		was := aChannel(3)
		s := &shelf{ch: was}
		r := NewRegistry(s, s, s, testProviders)
		k := was.Key
		for version, want := range map[int64]bool{0: true, 2: true, 3: true} {
			if ch, err := r.AtLeast(t.Context(), k, version); (ch == was) != want || err != nil || s.reads != 1 {
				t.Errorf("%d: %v, %v after %d reads", version, ch, err, s.reads)
			}
		}
		is := *was
		is.Version, is.Region = 5, "NO"
		s.put(&is, nil)
		if ch, err := r.AtLeast(t.Context(), k, 3); ch != was || err != nil {
			t.Errorf("what is cached is new enough: %v, %v", ch, err)
		}
		if ch, err := r.AtLeast(t.Context(), k, 4); ch != &is || err != nil {
			t.Errorf("what is cached is too old: %v, %v", ch, err)
		}
		if ch, err := r.Get(t.Context(), k); ch != &is || err != nil || s.reads != 2 {
			t.Errorf("afterwards: %v, %v after %d reads", ch, err, s.reads)
		}
		// A version that does not exist, for example of a replaced channel, causes one read and no wait.
		if ch, err := r.AtLeast(t.Context(), k, 9); ch != &is || err != nil || s.reads != 3 {
			t.Errorf("a version that is not there: %v, %v after %d reads", ch, err, s.reads)
		}
	})
}

// A slow read does not cache a channel that was changed, by this process or by another, since the read began.
func TestFaultASlowReadIsNotCached(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, r *Registry, s *shelf, k Key){
		"changed here": func(t *testing.T, r *Registry, _ *shelf, k Key) {
			if _, err := r.Update(t.Context(), k, func(c *Channel) error {
				c.Name = "new"
				return nil
			}); err != nil {
				t.Error(err)
			}
		},
		"read at a higher version": func(t *testing.T, r *Registry, s *shelf, k Key) {
			is := *s.ch
			is.Version, is.Name = 2, "new"
			s.put(&is, nil)
			if ch, err := r.AtLeast(t.Context(), k, 2); ch != &is || err != nil {
				t.Errorf("%v, %v", ch, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := make(chan struct{})
				s := &shelf{ch: aChannel(1), slow: slow}
				k := s.ch.Key
				r := NewRegistry(s, s, s, testProviders)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = r.Get(t.Context(), k) // both versions are valid for this caller
				}()
				synctest.Wait()
				meanwhile(t, r, s, k)
				close(slow)
				<-done
				if ch, err := r.Get(t.Context(), k); err != nil || ch.Name != "new" {
					t.Errorf("%+v, %v", ch, err)
				}
			})
		})
	}
}

// A process sees its own changes immediately, by key and as the default.
func TestFaultOwnChangesAreSeenAtOnce(t *testing.T) {
	was := aChannel(1)
	s := &shelf{ch: was}
	r := NewRegistry(s, s, s, testProviders)
	see := func(what string, want State, err error) {
		t.Helper()
		for range 2 {
			byKey, kerr := r.Get(t.Context(), was.Key)
			def, derr := r.Default(t.Context(), was.Type)
			if err != nil {
				if !message.IsCode(kerr, message.CodeNotFound) || !message.IsCode(derr, message.CodeNotFound) {
					t.Errorf("%s: %v, %v", what, kerr, derr)
				}
				continue
			}
			if kerr != nil || derr != nil || byKey.State != want || def.State != want {
				t.Errorf("%s: %+v, %+v, %v, %v", what, byKey, def, kerr, derr)
			}
		}
	}
	see("at first", Active, nil)
	old := *was
	old.Version--
	if err := r.Pause(t.Context(), &old, "an older key"); err != nil {
		t.Error(err)
	}
	see("paused for another version", Active, nil)
	if err := r.Pause(t.Context(), was, "dead key"); err != nil {
		t.Error(err)
	}
	see("paused", Paused, nil)
	refused := errors.New("refused")
	if _, err := r.Update(t.Context(), was.Key, func(*Channel) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if _, err := r.Update(t.Context(), was.Key, func(c *Channel) error {
		c.Sender = "not an address"
		return nil
	}); !message.IsCode(err, message.CodeInvalid) {
		t.Errorf("an invalid sender: %v", err)
	}
	see("changes that are refused", Paused, nil)
	got, err := r.Update(t.Context(), was.Key, func(c *Channel) error {
		c.State = Active
		return nil
	})
	if err != nil || got.State != Active {
		t.Errorf("%+v, %v", got, err)
	}
	see("changed", Active, nil)
	if err := r.Delete(t.Context(), was.Key); err != nil {
		t.Error(err)
	}
	see("deleted", "", message.Errorf(message.CodeNotFound, "gone"))
}
