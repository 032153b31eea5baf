package lead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/message"
)

// Format is a file format that can be imported.
type Format string

// The formats of an import.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

const (
	importBatch  = 2_000     // rows that are matched and written together
	maxLine      = 256 << 10 // bytes of one NDJSON line
	maxErrors    = 100       // rejected rows that the report names; the rest is only counted
	maxColumns   = 500
	bulkOverhead = 1 << 16
)

// Rejected is one row that was not imported, and why.
type Rejected struct {
	Line int    `json:"line"`
	Msg  string `json:"msg"`
}

// Report says what an import did. Errors names the first hundred rejected rows.
type Report struct {
	Imported int        `json:"imported"`
	Updated  int        `json:"updated"`
	Rejected int        `json:"rejected"`
	Errors   []Rejected `json:"errors"`
}

// Import reads leads from a file and writes them as it goes, in memory that does not grow with the file. A row
// updates the lead with its id, else the oldest with its email address, else the oldest with its phone; an empty cell
// leaves what is stored, tags and custom fields are added. Rows that are no lead are reported and the rest goes on.
// An error means that the file could not be read on or that the store failed; rows that were read before it are kept, and it
// says how many.
func (s *Service) Import(ctx context.Context, format Format, r io.Reader) (Report, error) {
	var (
		src rowSource
		err error
	)
	if format == CSV {
		src, err = newCSVSource(r)
	} else {
		src = newNDJSONSource(r)
	}
	if err != nil {
		return Report{Errors: []Rejected{}}, err
	}
	w := newWriter(ctx, s.store, s.imports)
	rows := newBatch()
	for {
		l, line, err := src.next()
		var bad *rowError
		switch {
		case errors.As(err, &bad):
			w.reject(line, bad.msg)
			continue
		case err == nil:
			if rows.add(l, line); len(rows.leads) < importBatch {
				continue
			}
		}
		w.write(rows)
		if err == nil && w.goesOn(ctx) {
			rows = newBatch()
			continue
		}
		werr := w.wait()
		rep := w.report()
		switch {
		case werr != nil:
			err = werr
		case errors.Is(err, io.EOF):
			return rep, nil
		case err == nil:
			err = ctx.Err()
		}
		return rep, WithKept(err, rep)
	}
}

// WithKept adds to an error that ended an import how many rows the import wrote before it. Errors that are not a
// message.Error are internal and pass unchanged.
func WithKept(err error, rep Report) error {
	var e *message.Error
	if rep.Imported+rep.Updated == 0 || !errors.As(err, &e) {
		return err
	}
	say := func(msg string) string {
		return fmt.Sprintf("%s; rows that were read before are kept: %d imported, %d updated", msg, rep.Imported, rep.Updated)
	}
	out := *e
	out.Message = say(e.Message)
	if out.Fields = slices.Clone(e.Fields); len(out.Fields) > 0 {
		out.Fields[0].Msg = say(out.Fields[0].Msg)
	}
	return &out
}

// batch is rows of the file with their lines.
type batch struct {
	leads []message.Lead
	lines []int
}

func newBatch() batch {
	return batch{make([]message.Lead, 0, importBatch), make([]int, 0, importBatch)}
}

func (b *batch) add(l *message.Lead, line int) {
	b.leads, b.lines = append(b.leads, *l), append(b.lines, line)
}

const (
	writers    = 3 // batches of one import that are written at once
	allWriters = 6 // batches of all imports: about half of the connections that requests share
)

// imports is what the imports of a process share. Batches are written beside each other, as long as they speak of different
// leads; a batch that names an id, an email address or a phone of one under way waits for it. So rows of one file take
// effect in its order, and several files never make one new lead twice. The store keeps batches of several processes, which
// have different ids, apart.
type imports struct {
	id     uuid.UUID
	places chan struct{}

	mu   sync.Mutex
	free *sync.Cond
	busy map[string]bool
}

func newImports() *imports {
	i := &imports{id: uuid.New(), places: make(chan struct{}, allWriters), busy: map[string]bool{}}
	i.free = sync.NewCond(&i.mu)
	return i
}

// enter waits until no batch under way has one of the keys, and takes them. It says false when the context ends before, which
// is looked at whenever a batch leaves.
func (i *imports) enter(ctx context.Context, keys []string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for slices.ContainsFunc(keys, func(key string) bool { return i.busy[key] }) {
		if ctx.Err() != nil {
			return false
		}
		i.free.Wait()
	}
	for _, key := range keys {
		i.busy[key] = true
	}
	return true
}

func (i *imports) leave(keys []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, key := range keys {
		delete(i.busy, key)
	}
	i.free.Broadcast()
}

// writer writes the batches of one import.
type writer struct {
	store  Store
	shared *imports
	group  *errgroup.Group
	ctx    context.Context //nolint:containedctx // of the one import that this writer is for
	stop   context.CancelCauseFunc

	mu                sync.Mutex
	imported, updated int
	rejected          int
	errors            []Rejected
}

// newWriter makes a writer. It goes on when ctx ends, since rows that were read are kept; a batch that fails ends it.
func newWriter(ctx context.Context, store Store, shared *imports) *writer {
	w := &writer{store: store, shared: shared}
	w.ctx, w.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	w.group = new(errgroup.Group)
	w.group.SetLimit(writers)
	return w
}

// wait waits for the batches under way and returns the first error.
func (w *writer) wait() error {
	defer w.stop(nil)
	if w.group.Wait() == nil {
		return nil
	}
	return context.Cause(w.ctx) // others may have failed because of it
}

// goesOn says whether another batch can be written, for a caller that still wants it.
func (w *writer) goesOn(ctx context.Context) bool { return ctx.Err() == nil && w.ctx.Err() == nil }

// write begins to write a batch; it blocks while too many are under way.
func (w *writer) write(b batch) {
	if len(b.leads) == 0 {
		return
	}
	k := keysOf(b.leads)
	if !w.shared.enter(w.ctx, k.all) {
		return
	}
	w.group.Go(func() (err error) {
		defer func() {
			if err != nil {
				w.stop(err) // before it leaves, so that a batch of this import that waits sees it
			}
			w.shared.leave(k.all)
		}()
		select {
		case w.shared.places <- struct{}{}:
			defer func() { <-w.shared.places }()
			return w.merge(b, k)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	})
}

// keys are what the rows of a batch are recognised by.
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
			k.emails = append(k.emails, message.Fold(l.Email))
			k.all = append(k.all, "email "+k.emails[len(k.emails)-1])
		}
		if l.Phone != "" {
			k.phones = append(k.phones, l.Phone)
			k.all = append(k.all, "phone "+l.Phone)
		}
	}
	return k
}

// reject reports a row that is not imported.
func (w *writer) reject(line int, msg string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rejected++
	w.errors = append(w.errors, Rejected{line, msg})
	if len(w.errors) >= 2*maxErrors { // batches are written beside each other, so a lower line may come later
		w.errors = firstRejected(w.errors)
	}
}

func firstRejected(list []Rejected) []Rejected {
	slices.SortFunc(list, func(a, b Rejected) int { return a.Line - b.Line })
	return list[:min(len(list), maxErrors)]
}

// report says what was done so far. Nothing may be under way.
func (w *writer) report() Report {
	return Report{Imported: w.imported, Updated: w.updated, Rejected: w.rejected, Errors: append([]Rejected{}, firstRejected(w.errors)...)}
}

// merge puts a batch's rows into what is stored. Rows of one batch that mean the same lead are merged with each other
// too. A batch that the database refuses for a value in it is written in halves, so that the row with the value is
// rejected alone: validation should let none pass, and this is the second wall.
func (w *writer) merge(b batch, k keys) error {
	var (
		now               = time.Now()
		imported, updated int
		misfits           []Rejected
	)
	err := w.store.MergeLeads(w.ctx, Batch{
		Importer: w.shared.id, IDs: k.ids, Emails: k.emails, Phones: k.phones,
		Merge: func(stored []message.Lead) ([]message.Lead, []message.Lead) {
			m := newMerger(stored)
			imported, updated, misfits = 0, 0, nil
			for i := range b.leads {
				created, err := m.merge(&b.leads[i], now)
				switch {
				case err != nil:
					misfits = append(misfits, Rejected{b.lines[i], err.Error()})
				case created:
					imported++
				default:
					updated++
				}
			}
			return m.changed()
		},
	})
	if err != nil {
		return w.halve(b, err)
	}
	for _, r := range misfits {
		w.reject(r.Line, r.Msg)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.imported += imported
	w.updated += updated
	return nil
}

// halve writes a refused batch in halves, one after the other, and rejects a row that is refused alone. Other errors pass.
func (w *writer) halve(b batch, err error) error {
	if !message.IsCode(err, message.CodeInvalid) {
		return err
	}
	n := len(b.leads)
	if n == 1 {
		w.reject(b.lines[0], "the database refuses a value of this row")
		return nil
	}
	for _, part := range []batch{{b.leads[:n/2], b.lines[:n/2]}, {b.leads[n/2:], b.lines[n/2:]}} {
		if err := w.merge(part, keysOf(part.leads)); err != nil {
			return err
		}
	}
	return nil
}

// merger finds the lead that a row means among those already there and those of the same batch.
type merger struct {
	byID           map[uuid.UUID]*message.Lead
	byEmail, byTel map[string]*message.Lead
	touched        []*message.Lead
	dirty          map[uuid.UUID]bool
	fresh          map[uuid.UUID]bool
}

func newMerger(stored []message.Lead) *merger {
	m := &merger{
		byID: map[uuid.UUID]*message.Lead{}, byEmail: map[string]*message.Lead{}, byTel: map[string]*message.Lead{},
		dirty: map[uuid.UUID]bool{}, fresh: map[uuid.UUID]bool{},
	}
	slices.SortFunc(stored, func(a, b message.Lead) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	for i := range stored {
		m.index(&stored[i])
	}
	return m
}

// index enters a lead under its keys; an older one keeps the key.
func (m *merger) index(l *message.Lead) {
	m.byID[l.ID] = l
	if k := message.Fold(l.Email); k != "" && m.byEmail[k] == nil {
		m.byEmail[k] = l
	}
	if l.Phone != "" && m.byTel[l.Phone] == nil {
		m.byTel[l.Phone] = l
	}
}

func (m *merger) find(row *message.Lead) *message.Lead {
	if row.ID != uuid.Nil {
		return m.byID[row.ID]
	}
	if row.Email != "" {
		if l := m.byEmail[message.Fold(row.Email)]; l != nil {
			return l
		}
	}
	if row.Phone != "" {
		return m.byTel[row.Phone]
	}
	return nil
}

// merge applies a row and says whether it made a new lead. An error means that the lead would be too large with it.
func (m *merger) merge(row *message.Lead, now time.Time) (created bool, err error) {
	l := m.find(row)
	if created = l == nil; created {
		made := *row
		l = &made
		stamp(l, now)
		m.fresh[l.ID] = true
	} else {
		if err := apply(l, row); err != nil {
			return false, err
		}
		stamp(l, now)
	}
	m.index(l)
	if !m.dirty[l.ID] {
		m.dirty[l.ID] = true
		m.touched = append(m.touched, l)
	}
	return created, nil
}

// apply puts what a row says into a lead, or nothing when the lead would be too large with it. It changes neither the
// row nor what the lead shares with another row, which may have to be applied again.
func apply(l, row *message.Lead) error {
	tags := slices.Clone(l.Tags)
	for _, t := range row.Tags {
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	if len(tags) > max(MaxTags, len(l.Tags)) {
		return badRow("tags: over %d together with those of the lead", MaxTags)
	}
	if len(row.CustomFields) > 0 {
		custom := maps.Clone(l.CustomFields)
		if custom == nil {
			custom = make(map[string]any, len(row.CustomFields))
		}
		maps.Copy(custom, row.CustomFields)
		if !fitsCustom(custom) {
			return badRow("custom fields: over %d bytes together with those of the lead", MaxCustomBytes)
		}
		l.CustomFields = custom
	}
	l.Tags = tags
	to := l.TextFields()
	for i, f := range row.TextFields() {
		if *f.Value != "" {
			*to[i].Value = *f.Value
		}
	}
	if row.LastContactedAt != nil {
		l.LastContactedAt = row.LastContactedAt
	}
	return nil
}

// changed returns what is to be written: leads that are new, and leads that were there.
func (m *merger) changed() (created, updated []message.Lead) {
	for _, l := range m.touched {
		if m.fresh[l.ID] {
			created = append(created, *l)
		} else {
			updated = append(updated, *l)
		}
	}
	return created, updated
}
