package lead

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"herald/pkg/message"
	"herald/pkg/wire"
)

const (
	maxLine    = 256 << 10 // bytes of one NDJSON line
	maxColumns = 500       // of a CSV file
	csvBuffer  = 64 << 10
)

// rowSource yields the rows of a file, one after another. The error is a *rowError for an invalid row, after which reading
// continues, io.EOF at the end of the file, and any other error when reading failed.
type rowSource interface {
	next() (l *message.Lead, line int, err error)
}

func newRowSource(format Format, r io.Reader) (rowSource, error) {
	if format == CSV {
		return newCSVSource(r)
	}
	return newNDJSONSource(r), nil
}

// rowError says what is wrong with one row of the file.
type rowError struct{ msg string }

// Error implements error.
func (e *rowError) Error() string { return e.msg }

func badRow(format string, args ...any) error { return &rowError{fmt.Sprintf(format, args...)} }

// csvSource reads CSV (RFC 4180) whose first row names the columns.
type csvSource struct {
	r       *csv.Reader
	columns []csvColumn
}

// csvColumn is one column of the file; without a field it is a custom field.
type csvColumn struct {
	name  string
	field *field
}

// newCSVSource reads the header. A byte order mark before it, which spreadsheets write, is skipped.
func newCSVSource(r io.Reader) (*csvSource, error) {
	br := bufio.NewReaderSize(r, csvBuffer)
	if bom, err := br.Peek(3); err == nil && string(bom) == "\ufeff" {
		_, _ = br.Discard(3)
	}
	c := csv.NewReader(br)
	c.ReuseRecord = true   // of the slice; the strings of each row are new
	c.FieldsPerRecord = -1 // next compares the number of cells itself and goes on after a mistake
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, message.InvalidField(message.SlugMissing, "the file is empty: its first row must name the columns", "body")
	}
	if err != nil {
		return nil, readError(err)
	}
	columns, err := parseHeader(header)
	return &csvSource{c, columns}, err
}

func parseHeader(header []string) ([]csvColumn, error) {
	invalid := func(slug, format string, args ...any) error {
		return message.InvalidField(slug, fmt.Sprintf(format, args...), "body", 1)
	}
	if len(header) > maxColumns {
		return nil, invalid(message.SlugListLong, "a file has at most %d columns", maxColumns)
	}
	columns := make([]csvColumn, 0, len(header))
	seen := map[string]bool{}
	for _, h := range header {
		name := strings.TrimSpace(h)
		switch {
		case name == "" || !isText(name):
			return nil, invalid(message.SlugValue, "every column needs a name")
		case utf8.RuneCountInString(name) > message.MaxFieldName:
			return nil, invalid(message.SlugTooLong, "the name of a column has at most %d characters", message.MaxFieldName)
		case seen[name]:
			return nil, invalid(message.SlugValue, "two columns have the name %q", name)
		}
		seen[name] = true
		columns = append(columns, csvColumn{name, cellField(name)})
	}
	return columns, nil
}

// isText reports whether s can be stored as text: PostgreSQL accepts neither invalid UTF-8 nor NUL.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// next implements rowSource.
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
		return nil, line, badRow("the row has %d cells, the header has %d", len(record), len(s.columns))
	}
	l := &message.Lead{}
	for i, cell := range record {
		if err := s.columns[i].set(l, strings.TrimSpace(cell)); err != nil {
			return nil, line, err
		}
	}
	return l, line, validateRow(l)
}

// set puts a cell into a lead. An empty cell sets nothing.
func (c *csvColumn) set(l *message.Lead, cell string) error {
	if cell == "" {
		return nil
	}
	if !isText(cell) {
		return badRow("%s: not valid text", c.name)
	}
	if c.field != nil {
		return c.field.parseCell(l, cell)
	}
	if l.CustomFields == nil {
		l.CustomFields = map[string]any{}
	}
	l.CustomFields[c.name] = cell
	return nil
}

// ndjsonSource reads a JSON object per line; empty lines are skipped.
type ndjsonSource struct {
	r    *bufio.Reader
	line int
}

func newNDJSONSource(r io.Reader) *ndjsonSource {
	return &ndjsonSource{r: bufio.NewReaderSize(r, maxLine)}
}

// next implements rowSource.
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

// skipLine reads to the end of a line that is too long and returns the error of that row.
func (s *ndjsonSource) skipLine() error {
	for {
		_, err := s.r.ReadSlice('\n')
		switch {
		case err == nil || errors.Is(err, io.EOF):
			return badRow("a line has at most %d bytes", maxLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return readError(err)
		}
	}
}

// parseLine reads one line. Only the first mistake of a row is reported.
func parseLine(b []byte) (*message.Lead, error) {
	v, err := wire.Decode(b)
	if err != nil {
		var e *message.Error
		if errors.As(err, &e) && len(e.Fields) > 0 {
			return nil, badRow("%s", e.Fields[0].Msg)
		}
		return nil, err
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
	return l, validateRow(l)
}

// readError describes why the file cannot be read any further. A message.Error of the reader, which says that the body is
// too large or broke off, is returned as it is.
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
