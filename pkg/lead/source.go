package lead

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"herald/pkg/contactfile"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// maxLine bounds one NDJSON line in bytes. A decoded line takes up to twenty times its length, and the largest lead fits.
const maxLine = 256 << 10

// row is one row of a file.
type row struct {
	lead     *message.Lead
	line     int
	warnings []Warning
}

// rowSource yields the rows of a file, one after another. The error is a *rowError for an invalid row, after which reading
// continues, io.EOF at the end of the file, and any other error when reading failed.
type rowSource interface {
	next() (row, error)
	// describe adds to a report what the source found out about the file.
	describe(rep *Report)
}

func newRowSource(o ImportOptions, r io.Reader) (rowSource, error) {
	if o.Format == CSV {
		return newCSVSource(o, r)
	}
	return newNDJSONSource(o, r)
}

// rowError says what is wrong with one row of the file.
type rowError struct{ msg string }

// Error implements error.
func (e *rowError) Error() string { return e.msg }

func badRow(format string, args ...any) error { return &rowError{fmt.Sprintf(format, args...)} }

// csvSource reads a file whose first row names the columns.
type csvSource struct {
	r       *contactfile.Reader
	columns []csvColumn
	cells   cellReader
	first   *firstRow // read ahead
}

// csvColumn is one column of the file. field is nil for a custom field; a column without a field and a custom name is left
// out.
type csvColumn struct {
	Column
	field  *field
	custom string
}

type firstRow struct {
	contactfile.Row
	err error
}

func newCSVSource(o ImportOptions, r io.Reader) (*csvSource, error) {
	file, err := contactfile.NewReader(r, contactfile.Options{Charset: o.Charset, Delimiter: o.Delimiter})
	if err != nil {
		return nil, readError(err)
	}
	s := &csvSource{r: file, cells: o.cellReader()}
	s.first = &firstRow{}
	s.first.Row, s.first.err = file.Next()
	header, chosen := file.Columns(), o.Columns
	if name, ok := foreignID(header, chosen, s.first.Cells); ok {
		chosen = withChoice(chosen, name, customPrefix+name)
	}
	columns, err := mapColumns(header, chosen, 1)
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		column := csvColumn{Column: c}
		if custom, ok := strings.CutPrefix(c.Field, customPrefix); ok {
			column.custom = custom
		} else if c.Field != "" {
			column.field = cellField(c.Field)
		}
		s.columns = append(s.columns, column)
	}
	return s, nil
}

// next implements rowSource.
func (s *csvSource) next() (row, error) {
	read, err := s.read()
	out := row{line: read.Line}
	if err != nil {
		return out, readError(err)
	}
	cells := read.Cells
	for len(cells) > len(s.columns) && strings.TrimSpace(cells[len(cells)-1]) == "" {
		cells = cells[:len(cells)-1]
	}
	if len(cells) > len(s.columns) {
		return out, badRow("the row has %d cells, the header has %d", len(cells), len(s.columns))
	}
	s.cells.begin()
	out.lead = &message.Lead{}
	for i, cell := range cells {
		if err := s.set(out.lead, &s.columns[i], strings.TrimSpace(cell)); err != nil {
			return out, err
		}
	}
	s.cells.finish(out.lead)
	out.warnings = s.cells.warnings
	return out, validateRow(out.lead)
}

func (s *csvSource) read() (contactfile.Row, error) {
	if first := s.first; first != nil {
		s.first = nil
		return first.Row, first.err
	}
	return s.r.Next()
}

// set puts a cell into a lead. An empty cell sets nothing.
func (s *csvSource) set(l *message.Lead, c *csvColumn, cell string) error {
	switch {
	case cell == "" || c.Field == "":
		return nil
	case !isText(cell):
		return badRow("%s: not valid text", c.Name)
	case c.field != nil:
		err := c.field.parseCell(&s.cells, l, cell)
		var lost *cellError
		if errors.As(err, &lost) {
			s.cells.warn(c.Name, lost.code, lost.msg)
			return nil
		}
		return err
	}
	if l.CustomFields == nil {
		l.CustomFields = map[string]any{}
	}
	l.CustomFields[c.custom] = cell
	return nil
}

// describe implements rowSource.
func (s *csvSource) describe(rep *Report) {
	rep.Charset, rep.Delimiter = s.r.Charset(), string(s.r.Delimiter())
	for _, c := range s.columns {
		rep.Columns = append(rep.Columns, c.Column)
	}
}

// isText reports whether s can be stored as text: PostgreSQL accepts neither invalid UTF-8 nor NUL.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// ndjsonSource reads a JSON object per line; empty lines are skipped.
type ndjsonSource struct {
	lines *contactfile.Lines
	cells cellReader
}

func newNDJSONSource(o ImportOptions, r io.Reader) (*ndjsonSource, error) {
	lines, err := contactfile.NewLines(r, o.Charset)
	if err != nil {
		return nil, readError(err)
	}
	lines.Bound(maxLine)
	return &ndjsonSource{lines: lines, cells: o.cellReader()}, nil
}

// next implements rowSource.
func (s *ndjsonSource) next() (row, error) {
	line, err := s.lines.NextFilled()
	out := row{line: line.Number}
	if err != nil {
		return out, readError(err)
	}
	s.cells.begin()
	if out.lead, err = s.parse([]byte(line.Text)); err == nil {
		s.cells.finish(out.lead)
		out.warnings = s.cells.warnings
		err = validateRow(out.lead)
	}
	return out, err
}

// describe implements rowSource.
func (s *ndjsonSource) describe(rep *Report) { rep.Charset = s.lines.Charset() }

// timeMembers are the members of a row that may hold a date in any form.
var timeMembers = []string{"created_at", "updated_at", "last_contacted_at"}

// parse reads one line. Only the first mistake of a row is reported.
func (s *ndjsonSource) parse(b []byte) (*message.Lead, error) {
	v, err := wire.Decode(b)
	if err != nil {
		var e *message.Error
		if errors.As(err, &e) && len(e.Fields) > 0 {
			return nil, badRow("%s", e.Fields[0].Msg)
		}
		return nil, err
	}
	if m, ok := v.(map[string]any); ok {
		s.readDates(m)
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
	return l, nil
}

// readDates brings the dates of a row into the form that Parse reads, and leaves out what is no date.
func (s *ndjsonSource) readDates(m map[string]any) {
	for _, name := range timeMembers {
		text, ok := m[name].(string)
		if !ok {
			continue
		}
		t, err := s.cells.time(text)
		var lost *cellError
		if errors.As(err, &lost) {
			s.cells.warn(name, lost.code, lost.msg)
			delete(m, name)
			continue
		}
		m[name] = t.Format("2006-01-02T15:04:05.999999Z07:00")
	}
}

// readError translates an error of the file's reader. A *rowError and io.EOF are for the caller; a message.Error of the
// upload, which says that the body is too large or broke off, is returned as it is.
func readError(err error) error {
	var row *contactfile.RowError
	var file *contactfile.FileError
	var known *message.Error
	switch {
	case errors.As(err, &row):
		return badRow("%s", row.Msg)
	case errors.As(err, &file):
		return fileError(file)
	case errors.As(err, &known), errors.Is(err, io.EOF):
		return err
	}
	return fmt.Errorf("read the import: %w", err)
}

func fileError(e *contactfile.FileError) error {
	switch {
	case e.Media:
		return message.Errorf(message.CodeMediaType, "%s", e.Msg)
	case e.Empty:
		return message.InvalidField(message.SlugMissing, e.Msg, "body")
	case e.Wide:
		return message.InvalidField(message.SlugListLong, e.Msg, "body", e.Line)
	case e.Option != "":
		return message.InvalidField(message.SlugValue, e.Msg, "query", e.Option)
	case e.Line > 0:
		return message.InvalidField(message.SlugValue, e.Msg, "body", e.Line)
	}
	return message.InvalidField(message.SlugValue, e.Msg, "body")
}
