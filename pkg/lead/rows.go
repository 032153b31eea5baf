package lead

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// rowSource yields one row after another: a *Rejected error for a row that is no lead, io.EOF at the end.
type rowSource interface {
	next() (l *message.Lead, line int, err error)
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
		case utf8.RuneCountInString(name) > message.MaxFieldName:
			return nil, message.InvalidField(message.SlugTooLong, fmt.Sprintf("the name of a column has at most %d characters", message.MaxFieldName), "body", 1)
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
			if !message.FitsIndex(column, cell) {
				return badRow("%s: %s", column, indexedBound)
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
		t, wrong := wire.ParseTime(cell)
		if wrong != "" {
			return badRow("%s: %s", column, wrong)
		}
		if column == "created_at" {
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
	if !fitsCustom(l.CustomFields) {
		return badRow("custom fields: over %d bytes", MaxCustomBytes)
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

func fitsCustom(m map[string]any) bool {
	if len(m) == 0 {
		return true
	}
	b, err := json.Marshal(m)
	return err == nil && len(b) <= MaxCustomBytes
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
