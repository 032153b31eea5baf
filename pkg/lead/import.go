package lead

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"herald/pkg/message"
	"herald/pkg/wire"
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

// rowSource yields one row after another: a *Rejected error for a row that is no lead, io.EOF at the end.
type rowSource interface {
	next() (l *message.Lead, line int, err error)
}

// Import reads leads from a file and writes them as it goes, in memory that does not grow with the file. A row
// updates the lead with its id, else the oldest with its email address, else the oldest with its phone; an empty cell
// leaves what is stored, tags and custom fields are added. Rows that are no lead are reported and the rest goes on.
// An error means that the file could not be read on or that the store failed; rows before it stay imported.
func (s *Service) Import(ctx context.Context, format Format, r io.Reader) (Report, error) {
	rep := Report{Errors: []Rejected{}}
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
		return rep, err
	}
	w := newWriter(ctx, s.store)
	batch := make([]message.Lead, 0, importBatch)
	for {
		l, line, err := src.next()
		var bad *rowError
		switch {
		case errors.As(err, &bad):
			rep.Rejected++
			if len(rep.Errors) < maxErrors {
				rep.Errors = append(rep.Errors, Rejected{line, bad.msg})
			}
			continue
		case err != nil:
			if errors.Is(err, io.EOF) {
				w.write(batch)
				err = nil
			}
			werr := w.wait()
			rep.Imported, rep.Updated = w.imported, w.updated
			if werr != nil {
				return rep, werr
			}
			return rep, err
		}
		if batch = append(batch, *l); len(batch) == importBatch {
			w.write(batch)
			batch = make([]message.Lead, 0, importBatch)
		}
	}
}

// writers is how many batches of one import are written at once.
const writers = 3

// writer writes batches beside each other, as long as they speak of different leads; a batch that names an id, an email
// address or a phone of one under way waits for it, so that rows take effect in the file's order.
type writer struct {
	store Store
	group *errgroup.Group
	ctx   context.Context //nolint:containedctx // of the one import that this writer is for

	mu                sync.Mutex
	free              *sync.Cond
	busy              map[string]int
	imported, updated int
}

func newWriter(ctx context.Context, store Store) *writer {
	w := &writer{store: store, busy: map[string]int{}}
	w.group, w.ctx = errgroup.WithContext(ctx)
	w.group.SetLimit(writers)
	w.free = sync.NewCond(&w.mu)
	return w
}

func (w *writer) wait() error { return w.group.Wait() }

// write begins to write a batch; it blocks while too many are under way.
func (w *writer) write(batch []message.Lead) {
	if len(batch) == 0 {
		return
	}
	k := keysOf(batch)
	w.mu.Lock()
	for slices.ContainsFunc(k.all, func(key string) bool { return w.busy[key] > 0 }) {
		w.free.Wait()
	}
	for _, key := range k.all {
		w.busy[key]++
	}
	w.mu.Unlock()
	w.group.Go(func() error {
		defer w.release(k)
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		return w.merge(batch, k)
	})
}

func (w *writer) release(k keys) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range k.all {
		if w.busy[key]--; w.busy[key] == 0 {
			delete(w.busy, key)
		}
	}
	w.free.Broadcast()
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

// merge puts a batch's rows into what is stored. Rows of one batch that mean the same lead are merged with each other
// too.
func (w *writer) merge(batch []message.Lead, k keys) error {
	stored, err := w.store.MatchLeads(w.ctx, k.ids, k.emails, k.phones)
	if err != nil {
		return err
	}
	m := newMerger(stored)
	now := time.Now()
	imported := 0
	for i := range batch {
		if m.merge(&batch[i], now) {
			imported++
		}
	}
	created, updated := m.changed()
	if err := w.store.SaveLeads(w.ctx, created, updated); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.imported += imported
	w.updated += len(batch) - imported
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

// merge applies a row and says whether it made a new lead.
func (m *merger) merge(row *message.Lead, now time.Time) (created bool) {
	l := m.find(row)
	if created = l == nil; created {
		made := *row
		l = &made
		stamp(l, now)
		m.fresh[l.ID] = true
	} else {
		apply(l, row)
		stamp(l, now)
	}
	m.index(l)
	if !m.dirty[l.ID] {
		m.dirty[l.ID] = true
		m.touched = append(m.touched, l)
	}
	return created
}

func apply(l, row *message.Lead) {
	to := l.TextFields()
	for i, f := range row.TextFields() {
		if *f.Value != "" {
			*to[i].Value = *f.Value
		}
	}
	for _, t := range row.Tags {
		if !slices.Contains(l.Tags, t) {
			l.Tags = append(l.Tags, t)
		}
	}
	if len(row.CustomFields) > 0 && l.CustomFields == nil {
		l.CustomFields = map[string]any{}
	}
	for k, v := range row.CustomFields {
		l.CustomFields[k] = v
	}
	if row.LastContactedAt != nil {
		l.LastContactedAt = row.LastContactedAt
	}
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

// rowError is what is wrong with one row of the file.
type rowError struct{ msg string }

func (e *rowError) Error() string { return e.msg }

func badRow(format string, args ...any) error { return &rowError{fmt.Sprintf(format, args...)} }

type csvSource struct {
	r       *csv.Reader
	columns []string
}

func newCSVSource(r io.Reader) (*csvSource, error) {
	br := bufio.NewReaderSize(r, bulkOverhead)
	if bom, err := br.Peek(3); err == nil && string(bom) == "\ufeff" {
		_, _ = br.Discard(3)
	}
	c := csv.NewReader(br)
	c.ReuseRecord = true
	c.FieldsPerRecord = -1
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, message.InvalidField(message.SlugMissing, "the file is empty; its first row names the columns", "body")
	}
	if err != nil {
		return nil, readError(err)
	}
	s := &csvSource{r: c}
	seen := map[string]bool{}
	for _, h := range header {
		name := strings.TrimSpace(h)
		switch {
		case name == "" || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0:
			return nil, message.InvalidField(message.SlugValue, "every column needs a name", "body", 1)
		case seen[name]:
			return nil, message.InvalidField(message.SlugValue, fmt.Sprintf("the column %q is there twice", name), "body", 1)
		case len(header) > maxColumns:
			return nil, message.InvalidField(message.SlugListLong, fmt.Sprintf("at most %d columns", maxColumns), "body", 1)
		}
		seen[name] = true
		s.columns = append(s.columns, name)
	}
	return s, nil
}

func (s *csvSource) next() (*message.Lead, int, error) {
	record, err := s.r.Read()
	var perr *csv.ParseError
	switch {
	case errors.As(err, &perr):
		return nil, perr.StartLine, badRow("not valid CSV: %v", perr.Err)
	case errors.Is(err, io.EOF):
		return nil, 0, io.EOF
	case err != nil:
		return nil, 0, readError(err)
	}
	line, _ := s.r.FieldPos(0)
	if len(record) != len(s.columns) {
		return nil, line, badRow("has %d cells, the header has %d", len(record), len(s.columns))
	}
	l := &message.Lead{}
	fields := l.TextFields()
	for i, cell := range record {
		if err := setCell(l, fields, s.columns[i], strings.TrimSpace(cell)); err != nil {
			return nil, line, err
		}
	}
	return l, line, usable(l)
}

// setCell puts one cell of a CSV file into a lead. The cell's text is copied, since the reader reuses its memory.
func setCell(l *message.Lead, fields []message.TextField, column, cell string) error {
	if cell == "" {
		return nil
	}
	if !utf8.ValidString(cell) || strings.IndexByte(cell, 0) >= 0 {
		return badRow("%s: not valid text", column)
	}
	cell = strings.Clone(cell)
	for _, f := range fields {
		if f.Name == column {
			if utf8.RuneCountInString(cell) > MaxText {
				return badRow("%s: over %d characters", column, MaxText)
			}
			*f.Value = cell
			return nil
		}
	}
	switch column {
	case "id":
		id, ok := wire.ParseUUID(cell)
		if !ok {
			return badRow("id: not a UUID")
		}
		l.ID = id
	case "tags":
		for _, t := range strings.Split(cell, ";") {
			if t = strings.TrimSpace(t); t != "" && !slices.Contains(l.Tags, t) {
				l.Tags = append(l.Tags, t)
			}
		}
	case "created_at", "last_contacted_at":
		t, err := time.Parse(time.RFC3339, cell)
		if err != nil {
			return badRow("%s: not an RFC 3339 time", column)
		}
		if t = t.UTC(); column == "created_at" {
			l.CreatedAt = t
		} else {
			l.LastContactedAt = &t
		}
	case "updated_at", "full_name":
	default:
		if l.CustomFields == nil {
			l.CustomFields = map[string]any{}
		}
		l.CustomFields[column] = cell
	}
	return nil
}

// usable refuses rows that could never be found again or that are too large.
func usable(l *message.Lead) error {
	if len(l.Tags) > MaxTags || slices.ContainsFunc(l.Tags, func(t string) bool { return utf8.RuneCountInString(t) > MaxTag }) {
		return badRow("tags: at most %d of %d characters", MaxTags, MaxTag)
	}
	if len(l.CustomFields) > 0 {
		if b, err := json.Marshal(l.CustomFields); err != nil || len(b) > MaxCustomBytes {
			return badRow("custom fields: over %d bytes", MaxCustomBytes)
		}
	}
	empty := l.ID == uuid.Nil && len(l.Tags) == 0 && len(l.CustomFields) == 0
	for _, f := range l.TextFields() {
		empty = empty && *f.Value == ""
	}
	if empty {
		return badRow("the row is empty")
	}
	return nil
}

type ndjsonSource struct {
	r    *bufio.Reader
	line int
}

func newNDJSONSource(r io.Reader) *ndjsonSource {
	return &ndjsonSource{r: bufio.NewReaderSize(r, maxLine)}
}

func (s *ndjsonSource) next() (*message.Lead, int, error) {
	for {
		s.line++
		b, err := s.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, s.line, s.skipLine()
		case err != nil && !errors.Is(err, io.EOF):
			return nil, s.line, readError(err)
		}
		if len(strings.TrimSpace(string(b))) == 0 {
			if err != nil {
				return nil, s.line, io.EOF
			}
			continue
		}
		l, perr := parseLine(b)
		return l, s.line, perr
	}
}

// skipLine reads to the end of a line that is too long and reports it.
func (s *ndjsonSource) skipLine() error {
	for {
		_, err := s.r.ReadSlice('\n')
		switch {
		case err == nil || errors.Is(err, io.EOF):
			return badRow("the line is over %d bytes long", maxLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return readError(err)
		}
	}
}

func parseLine(b []byte) (*message.Lead, error) {
	v, err := wire.Decode(b)
	if err != nil {
		return nil, asRowError(err)
	}
	var errs wire.Errors
	o := wire.NewObject(&errs, v)
	if o == nil {
		return nil, badRow("must be an object")
	}
	l := Parse(o)
	if list := errs.List(); len(list) > 0 {
		return nil, badRow("%v: %s", list[0].Loc, list[0].Msg)
	}
	return l, usable(l)
}

func asRowError(err error) error {
	var e *message.Error
	if errors.As(err, &e) && len(e.Fields) > 0 {
		return badRow("%s", e.Fields[0].Msg)
	}
	return err
}

// readError says that the upload broke off or was cut. Errors that already speak to the caller pass.
func readError(err error) error {
	var e *message.Error
	if errors.As(err, &e) {
		return err
	}
	var perr *csv.ParseError
	if errors.As(err, &perr) {
		return message.InvalidField(message.SlugValue, "not valid CSV: "+perr.Err.Error(), "body", perr.StartLine)
	}
	return fmt.Errorf("read the import: %w", err)
}
