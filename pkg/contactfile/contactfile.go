// Package contactfile reads the rows of contact files as spreadsheets and address books export them: any usual delimiter,
// any line end, UTF-8 or UTF-16 by their marks, other encodings by name. It finds out what a file is and refuses what it
// cannot read with an error that says so; it never guesses an encoding.
//
// It knows neither leads nor HTTP: columns and cells are text.
package contactfile

import (
	"errors"
	"fmt"
	"io"
)

// Bounds of a file. They keep the memory of a reader constant.
const (
	MaxRow     = 1 << 20 // bytes of a row in UTF-8, line ends inside cells included
	MaxColumns = 500     // columns of a file
	MaxCell    = 1_000   // lines of a quoted cell
)

// Options override what a reader finds out itself.
type Options struct {
	// Charset is the IANA name of the encoding, in any letter case. "": the file's byte order mark says it, and without a
	// mark it must be UTF-8.
	Charset string
	// Delimiter separates cells. 0: the header line decides among comma, semicolon, tab and vertical bar.
	Delimiter rune
}

// FileError says why a file cannot be read at all, or not beyond the row in which it was found.
type FileError struct {
	// Option is the option that would help, "charset" or "delimiter", or "" for the file itself.
	Option string
	// Line is the line of the mistake from 1, 0 for the file as a whole.
	Line int
	// Media is set for a file of another kind than text, a PDF for example.
	Media bool
	Empty bool // the file has no row
	Wide  bool // the file has too many columns
	Msg   string
}

// Error implements error.
func (e *FileError) Error() string { return e.Msg }

// RowError says what is wrong with one row. Reading goes on after it.
type RowError struct{ Msg string }

// Error implements error.
func (e *RowError) Error() string { return e.Msg }

// Row is one row of a file. Line is the line in which it begins, from 1. Cells are as they stand in the file, without their
// quotes; a file's rows may have fewer or more cells than columns.
type Row struct {
	Line  int
	Cells []string
}

// Reader reads a CSV file whose first row names the columns. It is not safe for concurrent use.
type Reader struct {
	lines     *Lines
	delimiter byte
	columns   []string
	parser    parser
	wasted    int // lines that were read ahead in vain, see Next
}

// NewReader reads the header of a file. The error is a *FileError, or the error of r.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	lines, err := NewLines(r, o.Charset)
	if err != nil {
		return nil, err
	}
	if err := lines.refuse('{', '['); err != nil {
		return nil, err
	}
	c := &Reader{lines: lines}
	if c.delimiter, err = c.findDelimiter(o.Delimiter); err != nil {
		return nil, err
	}
	c.parser = newParser(c.delimiter)
	header, err := c.Next()
	if err != nil {
		return nil, headerError(header.Line, err)
	}
	if len(header.Cells) > MaxColumns {
		return nil, &FileError{Line: header.Line, Wide: true, Msg: fmt.Sprintf("a file has at most %d columns", MaxColumns)}
	}
	c.columns = trimEmpty(header.Cells)
	return c, nil
}

// headerError describes why the header cannot be read.
func headerError(line int, err error) error {
	var bad *RowError
	switch {
	case errors.Is(err, io.EOF):
		return &FileError{Empty: true, Msg: "the file is empty: its first row must name the columns"}
	case errors.As(err, &bad):
		return &FileError{Line: line, Msg: "the row with the names of the columns cannot be read: " + bad.Msg}
	}
	return err
}

// Columns returns the names of the columns as they stand in the file, without empty ones at the end.
func (c *Reader) Columns() []string { return c.columns }

// Delimiter returns the character that separates cells.
func (c *Reader) Delimiter() rune { return rune(c.delimiter) }

// Charset returns the name of the encoding in which the file is read.
func (c *Reader) Charset() string { return c.lines.Charset() }

// trimEmpty removes empty cells at the end of a row: spreadsheets write as many as their widest row has.
func trimEmpty(cells []string) []string {
	for len(cells) > 0 && isBlank(cells[len(cells)-1]) {
		cells = cells[:len(cells)-1]
	}
	return cells
}

// Lines that a quote may read ahead. After maxWasted lines were read ahead for quotes that are never closed, a quote may
// read fewer, so that a file with an open quote in every row takes linear time.
const (
	maxWasted    = 100_000
	aheadIfWaste = 10
)

// Next returns the next row; blank lines are skipped. The error is io.EOF at the end, a *RowError for a row that cannot be
// read, a *FileError, or the error of the underlying reader.
//
// A quote that is never closed, or closed in the middle of a later row, costs the row that it is in. Reading goes on with
// the next line that is a whole row by itself.
func (c *Reader) Next() (Row, error) {
	first, err := c.lines.NextFilled()
	if err != nil {
		return Row{Line: first.Number}, err
	}
	row := Row{Line: first.Number}
	state := c.parser.begin(first.Text)
	var ahead []Line
	for state == open && len(ahead) < c.maxAhead() && c.parser.size < MaxRow {
		l, err := c.lines.Next()
		if err != nil {
			if bad := (*RowError)(nil); !errors.As(err, &bad) && !errors.Is(err, io.EOF) {
				return row, err
			}
			break // the end of the file, or a line that is too long, closes no quote
		}
		ahead = append(ahead, l)
		state = c.parser.next(l.Text)
	}
	switch state {
	case open:
		c.resume(ahead)
		return row, &RowError{"a quote in this row is never closed"}
	case malformed:
		c.resume(ahead)
		return row, &RowError{"a quoted cell goes on after its closing quote"}
	case closed:
	}
	row.Cells = c.parser.cells()
	return row, nil
}

func (c *Reader) maxAhead() int {
	if c.wasted > maxWasted {
		return aheadIfWaste
	}
	return MaxCell
}

// resume puts lines back that were read ahead for a quote, from the first one that is a whole row by itself. The lines
// before it belong to the row that is lost.
func (c *Reader) resume(ahead []Line) {
	c.wasted += len(ahead)
	p := newParser(c.delimiter)
	for i, l := range ahead {
		if p.begin(l.Text) == closed && (len(c.columns) < 2 || len(p.cells()) == len(c.columns)) {
			c.lines.unread(ahead[i:])
			return
		}
	}
}
