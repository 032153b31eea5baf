package lead

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bits-and-blooms/bloom/v3"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/message"
)

const (
	maxBatch      = 2_000 // rows that are matched and written in one transaction
	maxWriters    = 3     // batches of one import in flight
	maxAllWriters = 6     // batches of all imports in flight: about half of the connections that requests share
)

// batch is a number of rows with their lines in the file.
type batch struct {
	leads []message.Lead
	lines []int
	first bool // of its file
}

func newBatch(size int) batch {
	return batch{leads: make([]message.Lead, 0, size), lines: make([]int, 0, size)}
}

func (b *batch) add(l *message.Lead, line int) {
	b.leads, b.lines = append(b.leads, *l), append(b.lines, line)
}

// importer is what all imports of a process share. Batches are written concurrently unless they have a key in common: a
// batch waits while another one in flight has one of its ids, email addresses or phones. So the rows of a file take effect
// in the file's order, and two files never create the same new lead twice. The store excludes batches of other processes,
// which have other ids.
type importer struct {
	id        uuid.UUID
	batchSize int
	slots     chan struct{} // a semaphore of maxAllWriters

	mu       sync.Mutex
	released *sync.Cond
	locked   map[string]bool // keys of the batches in flight
}

func newImporter() *importer {
	i := &importer{id: uuid.New(), batchSize: maxBatch, slots: make(chan struct{}, maxAllWriters), locked: map[string]bool{}}
	i.released = sync.NewCond(&i.mu)
	return i
}

// lock waits until no batch in flight has one of the keys, and locks them. It returns false when ctx ends first; ctx is
// checked each time a batch unlocks its keys.
func (i *importer) lock(ctx context.Context, keys []string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for slices.ContainsFunc(keys, func(key string) bool { return i.locked[key] }) {
		if ctx.Err() != nil {
			return false
		}
		i.released.Wait()
	}
	for _, key := range keys {
		i.locked[key] = true
	}
	return true
}

func (i *importer) unlock(keys []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, key := range keys {
		delete(i.locked, key)
	}
	i.released.Broadcast()
}

// writer writes the batches of one import.
type writer struct {
	store  Store
	shared *importer
	group  *errgroup.Group
	ctx    context.Context //nolint:containedctx // the writer lives as long as one import
	stop   context.CancelCauseFunc

	began bool // a batch was written

	mu      sync.Mutex // guards the fields below
	rep     Report
	planned *bloom.BloomFilter // of a dry run: the keys of the leads that it would have created
}

// newWriter makes a writer. Its context outlives ctx, because rows that were read are kept; it ends with the first batch
// that fails.
func newWriter(ctx context.Context, store Store, shared *importer, dryRun bool) *writer {
	w := &writer{store: store, shared: shared}
	if dryRun {
		w.planned = bloom.NewWithEstimates(plannedKeys, plannedError)
	}
	w.ctx, w.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	w.group = new(errgroup.Group)
	w.group.SetLimit(maxWriters)
	return w
}

// wait waits for the batches in flight and returns the first error. Other batches may have failed because of it.
func (w *writer) wait() error {
	defer w.stop(nil)
	if w.group.Wait() == nil {
		return nil
	}
	return context.Cause(w.ctx)
}

// write starts to write a batch. It blocks while too many batches are in flight or one of them shares a key with it.
func (w *writer) write(b batch) {
	if len(b.leads) == 0 {
		return
	}
	b.first, w.began = !w.began, true
	k := keysOf(b.leads)
	if !w.shared.lock(w.ctx, k.all) {
		return
	}
	w.group.Go(func() (err error) {
		defer func() {
			if err != nil {
				w.stop(err) // before the keys are unlocked, so that a waiting batch of this import sees the failure
			}
			w.shared.unlock(k.all)
		}()
		select {
		case w.shared.slots <- struct{}{}:
			defer func() { <-w.shared.slots }()
			return w.merge(b, k)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	})
}

// keys are the values by which the rows of a batch find stored leads. all contains them in one namespace, for lock.
type keys struct {
	ids            []uuid.UUID
	emails, phones []string
	all            []string
}

func keysOf(batch []message.Lead) keys {
	var k keys
	for i := range batch {
		l := &batch[i]
		if l.ID != uuid.Nil {
			k.ids = append(k.ids, l.ID)
			k.all = append(k.all, "id "+string(l.ID[:]))
		}
		if l.Email != "" {
			key := message.EmailKey(l.Email)
			k.emails = append(k.emails, storedForms(key, l.Email)...)
			k.all = append(k.all, "email "+key)
		}
		if l.Phone != "" {
			key := message.PhoneKey(l.Phone)
			k.phones = append(k.phones, storedForms(key, l.Phone)...)
			k.all = append(k.all, "phone "+key)
		}
	}
	return k
}

// storedForms returns the forms in which the column of an address may hold it: its key, and the folded text that earlier versions
// stored.
func storedForms(key, text string) []string {
	if folded := message.Fold(text); folded != key {
		return []string{key, folded}
	}
	return []string{key}
}

// A dry run remembers the leads that it would have created in a Bloom filter, since a set of them would take memory in
// proportion to the file. A file of 100 MB has at most about 4 million keys, for which the filter takes 14 MB.
const (
	plannedKeys  = 4_000_000
	plannedError = 1e-6 // rows that are counted as updates although they would create a lead
)

// reject reports a row that is not imported. Concurrent batches report out of order, so twice as many rows as a report
// describes are collected before the last ones of the file are dropped.
func (w *writer) reject(line int, msg string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rep.Rejected++
	w.rep.Errors = append(w.rep.Errors, Rejected{line, msg})
	if len(w.rep.Errors) >= 2*maxErrors {
		w.rep.Errors = firstRejected(w.rep.Errors)
	}
}

func firstRejected(list []Rejected) []Rejected {
	slices.SortFunc(list, func(a, b Rejected) int { return a.Line - b.Line })
	return list[:min(len(list), maxErrors)]
}

// warn reports the warnings of a row. Rows are read in the file's order.
func (w *writer) warn(r row) {
	if len(r.warnings) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, warning := range r.warnings {
		w.rep.Warned++
		if len(w.rep.Warnings) < maxErrors {
			warning.Line = r.line
			w.rep.Warnings = append(w.rep.Warnings, warning)
		}
	}
}

// report returns the result so far. No batch may be in flight.
func (w *writer) report() Report {
	w.rep.Errors = firstRejected(w.rep.Errors)
	w.rep.Rows = w.rep.Imported + w.rep.Updated + w.rep.Unchanged + w.rep.Rejected
	return w.rep
}

// merge writes a batch. Rows of a batch that mean the same lead are merged with each other too. The store may call Merge
// several times, so the result is that of the last call.
func (w *writer) merge(b batch, k keys) error {
	now := time.Now()
	var m *merger
	var did []outcome
	var rejected []Rejected
	err := w.store.MergeLeads(w.ctx, Batch{
		Importer: w.shared.id, IDs: k.ids, Emails: k.emails, Phones: k.phones,
		Merge: func(stored []message.Lead) (insert, update []message.Lead) {
			m, did, rejected = newMerger(stored), make([]outcome, len(b.leads)), nil
			for i := range b.leads {
				var err error
				if did[i], err = m.merge(&b.leads[i], now); err != nil {
					did[i] = refused
					rejected = append(rejected, Rejected{b.lines[i], err.Error()})
				}
			}
			if w.planned != nil {
				return nil, nil
			}
			return m.changes()
		},
	})
	if err != nil {
		return w.bisect(b, err)
	}
	for _, r := range rejected {
		w.reject(r.Line, r.Msg)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.planned != nil {
		w.plan(b, m, did)
	}
	for _, o := range did {
		switch o {
		case created:
			w.rep.Imported++
		case updated:
			w.rep.Updated++
		case unchanged:
			w.rep.Unchanged++
		case refused: // reject has counted it
		}
	}
	return nil
}

// plan corrects the outcomes of a dry run's batch: a row that means a lead of an earlier batch, which was not written, would
// update it. It keeps the first leads as they would be stored.
func (w *writer) plan(b batch, m *merger, did []outcome) {
	for i := range b.leads {
		if did[i] != created {
			continue
		}
		for _, key := range keysOf(b.leads[i : i+1]).all {
			if w.planned.TestOrAddString(key) {
				did[i] = updated
			}
		}
	}
	if !b.first {
		return
	}
	shown := map[*message.Lead]bool{}
	for i := range b.leads {
		l := m.find(&b.leads[i])
		if l == nil && did[i] != refused { // a row without id, email and phone is a lead alone
			l = &b.leads[i]
		}
		if l != nil && !shown[l] && len(w.rep.Sample) < maxSample {
			shown[l] = true
			w.rep.Sample = append(w.rep.Sample, *l)
		}
	}
}

// bisect handles the error of a batch. A batch that the database refuses for one of its values is written in halves, one
// after the other, until the row with the value is alone and rejected. Validation should let no such row pass; this is the
// second line of defence. Other errors are returned.
func (w *writer) bisect(b batch, err error) error {
	if !message.IsCode(err, message.CodeInvalid) {
		return err
	}
	n := len(b.leads)
	if n == 1 {
		w.reject(b.lines[0], "the database refuses a value of this row")
		return nil
	}
	for _, half := range []batch{{b.leads[:n/2], b.lines[:n/2], b.first}, {b.leads[n/2:], b.lines[n/2:], false}} {
		if err := w.merge(half, keysOf(half.leads)); err != nil {
			return err
		}
	}
	return nil
}
