package delivery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// files is a store of files: one byte for each owner that it has. It counts what is read.
type files struct {
	mu     sync.Mutex
	reads  int
	fails  error
	during func(ctx context.Context)
}

func (f *files) Files(ctx context.Context, owner uuid.UUID) ([]message.FileData, error) {
	f.mu.Lock()
	f.reads++
	fails := f.fails
	f.mu.Unlock()
	if f.during != nil {
		f.during(ctx)
	}
	return []message.FileData{{owner[:1]}}, fails
}

func (f *files) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

func owner(n byte) uuid.UUID { return uuid.UUID{n, 1} }

// use acquires files and checks whose they are.
func use(t *testing.T, c *FileCache, n byte, size int64, keep bool) (release func()) {
	t.Helper()
	got, release, err := c.acquire(t.Context(), owner(n), size, keep)
	if err != nil || len(got) != 1 || got[0][0][0] != n {
		t.Fatalf("files of %d: %v, %v", n, got, err)
	}
	return release
}

// The messages of a bulk share one reading of its files, also after a pause; those of a single are forgotten after it.
func TestFilesAreReadOnce(t *testing.T) {
	store := &files{}
	c := NewFileCache(store)
	first, second := use(t, c, 1, 10, true), use(t, c, 1, 10, true)
	first()
	second()
	use(t, c, 1, 10, true)()
	if store.count() != 1 || c.bytes != 10 {
		t.Errorf("a bulk: %d reads, %d bytes", store.count(), c.bytes)
	}
	use(t, c, 2, 5, false)()
	use(t, c, 2, 5, false)()
	if store.count() != 3 || c.bytes != 10 || len(c.owners) != 1 {
		t.Errorf("a single: %d reads, %d bytes, %d owners", store.count(), c.bytes, len(c.owners))
	}
}

// Messages that begin together wait for one reading, which does not end with the message that began it.
func TestFilesAreReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &files{during: func(ctx context.Context) {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				t.Error("the reading ended with a message")
			}
		}}
		c := NewFileCache(store)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := c.acquire(ctx, owner(1), 10, true); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		for range 5 {
			wg.Go(func() { use(t, c, 1, 10, true) })
		}
		wg.Wait()
		if store.count() != 1 {
			t.Errorf("%d reads", store.count())
		}
	})
}

// Files that are not in use make room, the longest unused first. Those in use are waited for, and a message that waits too long gives up.
func TestFilesHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &files{}
		c := NewFileCache(store)
		c.limit = 30
		use(t, c, 1, 10, true)()
		use(t, c, 2, 10, true)()
		use(t, c, 1, 10, true)()
		third := use(t, c, 3, 20, true) // 2 goes
		use(t, c, 1, 10, true)()
		if store.count() != 3 || c.bytes != 30 {
			t.Errorf("%d reads, %d bytes", store.count(), c.bytes)
		}
		began := time.Now()
		if _, _, err := c.acquire(t.Context(), owner(4), 20, true); !errors.Is(err, errNoRoom) || time.Since(began) != fileWait {
			t.Errorf("without room: %v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := c.acquire(ctx, owner(4), 20, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a message that ends: %v", err)
		}
		time.AfterFunc(time.Second, third)
		began = time.Now()
		fourth := use(t, c, 4, 20, false)
		if time.Since(began) != time.Second || c.bytes != 20 || len(c.owners) != 1 {
			t.Errorf("after %s, %d bytes of %d owners", time.Since(began), c.bytes, len(c.owners))
		}
		fourth()
		use(t, c, 5, 1000, false)() // more than the bound, alone
		if c.bytes != 0 || c.unused.Len() != 0 || len(c.owners) != 0 {
			t.Errorf("in the end %d bytes, %d owners", c.bytes, len(c.owners))
		}
	})
}

// Files that could not be read are read again for the next message.
func TestFilesThatCannotBeRead(t *testing.T) {
	gone := message.Errorf(message.CodeNotFound, "gone")
	store := &files{fails: gone}
	c := NewFileCache(store)
	for range 2 {
		if _, _, err := c.acquire(t.Context(), owner(1), 10, true); !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
	}
	store.fails = nil
	use(t, c, 1, 10, true)()
	if store.count() != 3 || c.bytes != 10 {
		t.Errorf("%d reads, %d bytes", store.count(), c.bytes)
	}
}
