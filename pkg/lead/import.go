package lead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"herald/pkg/dates"
	"herald/pkg/message"
)

// Format is a file format that can be imported.
type Format string

// The formats of an import.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

// ImportOptions say how a file is read. Every empty field is found out from the file.
type ImportOptions struct {
	Format    Format
	Charset   string            // IANA name of the encoding
	Delimiter rune              // of a CSV file
	Columns   map[string]string // of a CSV file: what columns become, a field, custom_fields.NAME, or "" to leave it out
	Dates     dates.Order       // of dates like 1/2/2024
	Zone      *time.Location    // of dates without a time zone; nil: UTC
	Separator string            // of the tags in a cell
	DryRun    bool              // report what the import would do, and write nothing
}

func (o ImportOptions) cellReader() cellReader {
	return cellReader{dates: dates.Reader{Order: o.Dates, Zone: o.Zone}, separator: o.Separator}
}

// Bounds of a report.
const (
	maxErrors = 100 // rejected rows, and warnings, that a report describes; the others are only counted
	maxSample = 5   // leads that a dry run shows
)

// Rejected describes a row that was not imported. Line is where the row begins in the file, from 1.
type Rejected struct {
	Line int    `json:"line"`
	Msg  string `json:"msg"`
}

// Warning describes a cell of an imported row that was left out, or that is stored and cannot be used.
type Warning struct {
	Line   int
	Column string
	Code   string // one of the constants Warn…
	Msg    string
}

// Report is the result of an import. Errors and Warnings describe the first hundred of the file, in the file's order.
type Report struct {
	DryRun    bool // nothing was written
	Rows      int  // of the file, without its header and blank lines
	Imported  int  // new leads
	Updated   int
	Unchanged int // rows that say what is stored already
	Rejected  int
	Errors    []Rejected
	Warned    int // warnings
	Warnings  []Warning

	Charset   string         // in which the file was read
	Delimiter string         // of a CSV file
	Columns   []Column       // of a CSV file
	Sample    []message.Lead // of a dry run: the first leads as they would be stored
}

// Import reads leads from a file and writes them in batches while it reads, in memory that does not depend on the length of
// the file. A row with an id updates the lead with this id or creates it. Any other row updates the oldest lead with its
// email address, else the oldest with its phone, else it creates a lead. An empty cell keeps the stored value; tags and
// custom fields are added. Invalid rows are reported and the import continues. A dry run does the same and writes nothing.
//
// An error means that reading or the store failed, or that ctx ended. Rows that were read before it are kept; the report
// and the error say how many.
func (s *Service) Import(ctx context.Context, o ImportOptions, r io.Reader) (Report, error) {
	src, err := newRowSource(o, r)
	if err != nil {
		return Report{}, err
	}
	w := newWriter(ctx, s.deps.store, s.imports, o.DryRun)
	w.rep.DryRun = o.DryRun
	src.describe(&w.rep)
	rows := newBatch(w.shared.batchSize)
	for {
		read, err := src.next()
		var bad *rowError
		switch {
		case errors.As(err, &bad):
			w.reject(read.line, bad.msg)
			continue
		case err == nil:
			w.warn(read)
			if rows.add(read.lead, read.line); len(rows.leads) < w.shared.batchSize {
				continue
			}
		}
		w.write(rows)
		if err == nil && ctx.Err() == nil && w.ctx.Err() == nil {
			rows = newBatch(w.shared.batchSize)
			continue
		}
		return w.finish(ctx, err)
	}
}

// finish waits for the batches in flight and returns the result of an import that stopped reading because of err.
func (w *writer) finish(ctx context.Context, err error) (Report, error) {
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
	return rep, WithKeptRows(err, rep)
}

// WithKeptRows adds to a message.Error that ended an import the number of rows that were written before it. Other errors are
// internal and returned unchanged.
func WithKeptRows(err error, rep Report) error {
	var e *message.Error
	if rep.DryRun || rep.Imported+rep.Updated+rep.Unchanged == 0 || !errors.As(err, &e) {
		return err
	}
	extend := func(msg string) string {
		msg = fmt.Sprintf("%s; rows that were read before are kept: %d imported, %d updated", msg, rep.Imported, rep.Updated)
		if rep.Unchanged > 0 {
			msg += fmt.Sprintf(", %d unchanged", rep.Unchanged)
		}
		return msg
	}
	out := *e
	out.Message = extend(e.Message)
	if out.Fields = slices.Clone(e.Fields); len(out.Fields) > 0 {
		out.Fields[0].Msg = extend(out.Fields[0].Msg)
	}
	return &out
}
