package channel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// slowStore reads one channel, when it is let.
type slowStore struct {
	Store
	reads chan chan *Channel
}

func (s *slowStore) Channel(context.Context, Key) (*Channel, error) {
	answer := make(chan *Channel)
	s.reads <- answer
	return <-answer, nil
}

// When what is cached is too old one caller reads it anew, and whoever comes meanwhile does not wait for it.
func TestOneCallerReadsAnew(t *testing.T) {
	s := &slowStore{reads: make(chan chan *Channel, 10)}
	r := NewRegistry(s, nil, nil, nil)
	k := Key{ID: uuid.New(), Type: message.Email}
	was, is := &Channel{Key: k, Name: "was"}, &Channel{Key: k, Name: "is"}
	r.cache[k] = cached{was, time.Now().Add(-time.Second)}
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
		t.Errorf("the one who read: %+v", ch)
	}
	go get()
	if ch := <-got; ch != is || len(s.reads) != 0 {
		t.Errorf("afterwards: %+v, %d more reads", ch, len(s.reads))
	}
}

// While one caller's read hangs the others use the old entry for cacheReread, and then one of them reads again.
func TestAnotherCallerReadsWhenTheFirstHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStore{reads: make(chan chan *Channel, 10)}
		r := NewRegistry(s, nil, nil, nil)
		k := Key{ID: uuid.New(), Type: message.Email}
		r.cache[k] = cached{&Channel{Key: k, Name: "was"}, time.Now().Add(-time.Second)}
		get := func() { _, _ = r.Get(t.Context(), k) }
		go get()
		first := <-s.reads
		time.Sleep(cacheReread)
		go get()
		synctest.Wait()
		if len(s.reads) != 1 {
			t.Fatalf("%d further reads, want 1", len(s.reads))
		}
		first <- &Channel{Key: k}
		<-s.reads <- &Channel{Key: k}
	})
}
