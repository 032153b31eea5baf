package lead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"herald/pkg/message"
)

// Format is a file format that can be imported.
type Format string

// The formats of an import.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

// maxErrors is the number of rejected rows that a report describes; the others are only counted.
const maxErrors = 100

// Rejected describes a row that was not imported. Line is where the row begins in the file, from 1.
type Rejected struct {
	Line int    `json:"line"`
	Msg  string `json:"msg"`
}

// Report is the result of an import. Errors describes the first hundred rejected rows of the file, in the file's order.
type Report struct {
	Imported int        `json:"imported"`
	Updated  int        `json:"updated"`
	Rejected int        `json:"rejected"`
	Errors   []Rejected `json:"errors"`
}

// Import reads leads from a file and writes them in batches while it reads, in memory that does not depend on the length of
// the file. A row with an id updates the lead with this id or creates it. Any other row updates the oldest lead with its
// email address, else the oldest with its phone, else it creates a lead. An empty cell keeps the stored value; tags and
// custom fields are added. Invalid rows are reported and the import continues.
//
// An error means that reading or the store failed, or that ctx ended. Rows that were read before it are kept; the report
// and the error say how many.
func (s *Service) Import(ctx context.Context, format Format, r io.Reader) (Report, error) {
	src, err := newRowSource(format, r)
	if err != nil {
		return Report{Errors: []Rejected{}}, err
	}
	w := newWriter(ctx, s.deps.store, s.imports)
	rows := newBatch(w.shared.batchSize)
	for {
		l, line, err := src.next()
		var bad *rowError
		switch {
		case errors.As(err, &bad):
			w.reject(line, bad.msg)
			continue
		case err == nil:
			if rows.add(l, line); len(rows.leads) < w.shared.batchSize {
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
	if rep.Imported+rep.Updated == 0 || !errors.As(err, &e) {
		return err
	}
	extend := func(msg string) string {
		return fmt.Sprintf("%s; rows that were read before are kept: %d imported, %d updated", msg, rep.Imported, rep.Updated)
	}
	out := *e
	out.Message = extend(e.Message)
	if out.Fields = slices.Clone(e.Fields); len(out.Fields) > 0 {
		out.Fields[0].Msg = extend(out.Fields[0].Msg)
	}
	return &out
}
