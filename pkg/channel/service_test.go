package channel

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// slowStore returns a channel after the test provides it.
type slowStore struct {
	Store
	reads chan chan *Channel
}

func (s *slowStore) Channel(context.Context, Key) (*Channel, error) {
	answer := make(chan *Channel)
	s.reads <- answer
	return <-answer, nil
}

// When a cached channel is too old, one caller reads it again, and concurrent callers get the old one without waiting.
func TestOneCallerReadsAgain(t *testing.T) {
	s := &slowStore{reads: make(chan chan *Channel, 10)}
	r := NewRegistry(s, nil, nil, nil)
	k := Key{ID: uuid.New(), Type: message.Email}
	was, is := &Channel{Key: k, Name: "was"}, &Channel{Key: k, Name: "is"}
	r.cache.Add(k, cached{was, time.Now().Add(-time.Second)})
	got := make(chan *Channel)
	get := func() {
		ch, _ := r.Get(t.Context(), k)
		got <- ch
	}
	go get()
	answer := <-s.reads
	for range 3 {
		go get()
		if ch := <-got; ch != was {
			t.Errorf("meanwhile: %+v", ch)
		}
	}
	answer <- is
	if ch := <-got; ch != is {
		t.Errorf("the caller that read: %+v", ch)
	}
	go get()
	if ch := <-got; ch != is || len(s.reads) != 0 {
		t.Errorf("afterwards: %+v, %d more reads", ch, len(s.reads))
	}
}

// While the read of one caller hangs, the others use the old entry for rereadTime. Then one of them reads.
func TestAnotherCallerReadsWhenTheFirstHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStore{reads: make(chan chan *Channel, 10)}
		r := NewRegistry(s, nil, nil, nil)
		k := Key{ID: uuid.New(), Type: message.Email}
		r.cache.Add(k, cached{&Channel{Key: k, Name: "was"}, time.Now().Add(-time.Second)})
		get := func() { _, _ = r.Get(t.Context(), k) }
		go get()
		first := <-s.reads
		time.Sleep(rereadTime)
		go get()
		synctest.Wait()
		if len(s.reads) != 1 {
			t.Fatalf("%d further reads, want 1", len(s.reads))
		}
		first <- &Channel{Key: k}
		<-s.reads <- &Channel{Key: k}
	})
}

// countingStore has every channel, and counts reads.
type countingStore struct {
	Store
	reads int
}

func (s *countingStore) Channel(_ context.Context, k Key) (*Channel, error) {
	s.reads++
	return &Channel{Key: k}, nil
}

// The cache is bounded: a new channel displaces the one that was used least recently, and no other.
func TestCacheIsBounded(t *testing.T) {
	s := &countingStore{}
	r := NewRegistry(s, nil, nil, nil)
	get := func(n int) bool {
		before := s.reads
		k := Key{ID: uuid.UUID{14: byte(n >> 8), 15: byte(n)}, Type: message.SMS}
		if c, err := r.Get(t.Context(), k); err != nil || c.Key != k {
			t.Fatal(c, err)
		}
		// The entries must not expire while a slow machine fills the cache.
		if e, ok := r.cache.Peek(k); ok {
			r.cache.Add(k, cached{e.channel, time.Now().Add(time.Hour)})
		}
		return s.reads == before
	}
	for n := range maxCached {
		get(n)
	}
	if !get(0) || r.cache.Len() != maxCached {
		t.Fatalf("%d channels are cached", r.cache.Len())
	}
	get(maxCached)
	if r.cache.Len() != maxCached {
		t.Errorf("%d channels are cached", r.cache.Len())
	}
	if !get(0) || !get(maxCached) || !get(2) {
		t.Error("a recently used channel was dropped")
	}
	if get(1) {
		t.Error("the least recently used channel is still cached")
	}
}

// typedStore has channels of some types, and fails for one.
type typedStore struct {
	Store
	has   map[message.ChannelType]bool
	fails map[message.ChannelType]error
}

func (s *typedStore) Channel(_ context.Context, k Key) (*Channel, error) {
	if err := s.fails[k.Type]; err != nil {
		return nil, err
	}
	if !s.has[k.Type] {
		return nil, message.Errorf(message.CodeNotFound, "channel not found")
	}
	return &Channel{Key: k}, nil
}

// Find returns the channels of all types that share an id. An error other than not_found is not taken for absence.
func TestFind(t *testing.T) {
	id, down := uuid.New(), errors.New("the database does not answer")
	s := &typedStore{has: map[message.ChannelType]bool{message.Email: true, message.InstagramDM: true}}
	r := NewRegistry(s, nil, nil, nil)
	found, err := r.Find(t.Context(), id)
	if err != nil || len(found) != 2 || found[0].Key != (Key{id, message.Email}) || found[1].Key != (Key{id, message.InstagramDM}) {
		t.Errorf("%v, %v", found, err)
	}
	s.has = nil
	if found, err := NewRegistry(s, nil, nil, nil).Find(t.Context(), id); err != nil || len(found) != 0 {
		t.Errorf("an unknown id: %v, %v", found, err)
	}
	s.fails = map[message.ChannelType]error{message.SMS: down}
	if found, err := NewRegistry(s, nil, nil, nil).Find(t.Context(), id); !errors.Is(err, down) || found != nil {
		t.Errorf("a failing store: %v, %v", found, err)
	}
}
