package delivery

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

const (
	// maxFiles bounds the attachments in the memory of a worker process, in bytes: three of the largest bulks or singles. Workers have
	// hundreds of messages in progress, which must not have a copy each.
	maxFiles = 64 << 20
	// fileWait bounds how long a message waits for room. It is below Timing.Stale, so that a claim outlives it.
	fileWait = 5 * time.Second
	// fileRead bounds the reading of the files of one owner.
	fileRead = 30 * time.Second
)

// errNoRoom says that other messages used all memory for attachments while a message waited.
var errNoRoom = errors.New("no room for attachments")

// FileCache holds the attachments of the messages in progress, and those of the bulks that were used last. The messages of a bulk share
// them. It is safe for concurrent use.
type FileCache struct {
	store FileStore
	limit int64
	wait  time.Duration

	mu     sync.Mutex
	owners map[uuid.UUID]*cachedFiles
	unused list.List     // of *cachedFiles, in the order of their last use
	bytes  int64         // of all owners, also of those that are being read
	freed  chan struct{} // closed when an owner has no more users
}

// cachedFiles are the files of one owner. The fields below read are set when it is closed.
type cachedFiles struct {
	owner  uuid.UUID
	size   int64
	users  int
	unused *list.Element // nil while it has users

	read  chan struct{}
	files []message.FileData
	err   error
}

// NewFileCache makes an empty cache over a store.
func NewFileCache(store FileStore) *FileCache {
	return &FileCache{store: store, limit: maxFiles, wait: fileWait, owners: map[uuid.UUID]*cachedFiles{}, freed: make(chan struct{})}
}

// acquire returns the files of an owner, which have size bytes, and reads them unless they are in memory. The caller must call release;
// with keep they then stay for other messages. It returns errNoRoom, or the error of the store.
func (c *FileCache) acquire(ctx context.Context, owner uuid.UUID, size int64, keep bool) (files []message.FileData, release func(), err error) {
	f, mine, err := c.enter(ctx, owner, size)
	if err != nil {
		return nil, nil, err
	}
	release = func() { c.leave(f, keep) }
	if mine {
		c.fill(ctx, f)
	}
	select {
	case <-f.read:
	case <-ctx.Done():
		release()
		return nil, nil, ctx.Err()
	}
	if f.err != nil {
		c.leave(f, false)
		return nil, nil, f.err
	}
	return f.files, release, nil
}

// fill reads the files of an owner. The reading does not end with the message that began it: others may wait for it.
func (c *FileCache) fill(ctx context.Context, f *cachedFiles) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fileRead)
	defer cancel()
	defer close(f.read)
	f.err = errNoRoom // of those that wait, if the store panics
	f.files, f.err = c.store.Files(ctx, f.owner)
}

// enter makes the caller a user of an owner's files. mine says that the caller must read them.
func (c *FileCache) enter(ctx context.Context, owner uuid.UUID, size int64) (f *cachedFiles, mine bool, err error) {
	timeout := time.NewTimer(c.wait)
	defer timeout.Stop()
	for {
		f, mine, freed := c.tryEnter(owner, size)
		if f != nil {
			return f, mine, nil
		}
		select {
		case <-freed:
		case <-timeout.C:
			return nil, false, errNoRoom
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// tryEnter is enter without waiting. Where there is no room it returns what will be closed when an owner has no more users.
func (c *FileCache) tryEnter(owner uuid.UUID, size int64) (f *cachedFiles, mine bool, freed chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.owners[owner]; f != nil {
		f.users++
		if f.unused != nil {
			c.unused.Remove(f.unused)
			f.unused = nil
		}
		return f, false, nil
	}
	for c.bytes+size > c.limit && c.unused.Len() > 0 {
		c.drop(c.unused.Front().Value.(*cachedFiles)) //nolint:forcetypeassert // the list holds nothing else
	}
	if c.bytes+size > c.limit && c.bytes > 0 {
		return nil, false, c.freed
	}
	f = &cachedFiles{owner: owner, size: size, users: 1, read: make(chan struct{})}
	c.owners[owner] = f
	c.bytes += size
	return f, true, nil
}

// leave ends one use. Files that are not kept, for example because they could not be read, are read again for the next message.
func (c *FileCache) leave(f *cachedFiles, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.users--; f.users > 0 {
		return
	}
	if f.unused = c.unused.PushBack(f); !keep {
		c.drop(f)
	}
	close(c.freed)
	c.freed = make(chan struct{})
}

// drop forgets files that have no users.
func (c *FileCache) drop(f *cachedFiles) {
	c.unused.Remove(f.unused)
	delete(c.owners, f.owner)
	c.bytes -= f.size
}

// sendStored sends a message whose attachments are in the store: those of its bulk, or of a single that a worker delivers.
func (d *Deliverer) sendStored(ctx context.Context, w *work, e Envelope) (Result, error) {
	owner := w.BulkID
	if w.single() {
		owner = w.ID
	}
	files, release, err := d.acquireFiles(ctx, w, owner, e.Content.AttachmentBytes())
	switch {
	case message.IsCode(err, message.CodeNotFound):
		return d.settle(ctx, w, w.row().Rejected(message.RenderInvalid, "the attachments no longer exist"))
	case errors.Is(err, errNoRoom):
		return d.postpone(ctx, w, retryPause)
	case err != nil:
		return Result{}, err
	}
	defer release()
	e.Files = files
	return d.send(ctx, w, e)
}

// acquireFiles waits for files outside the limit of the messages in a worker's hands.
func (d *Deliverer) acquireFiles(ctx context.Context, w *work, owner uuid.UUID, size int64) ([]message.FileData, func(), error) {
	d.leaveInFlight(w)
	defer d.enterInFlight(w)
	return d.deps.Files.acquire(ctx, owner, size, !w.single())
}
