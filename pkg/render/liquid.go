package render

import (
	"context"
	"errors"
	"fmt"

	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"

	"herald/pkg/message"
)

// The Liquid library has no bounds: parsing and evaluation cannot be stopped, text can be doubled without limit, and an
// unclosed {{ is plain text. So this package splits and parses templates, evaluates expressions and runs tags and filters
// itself, on a budget. The library contributes values and their comparison, most filters, the walk through blocks, white
// space control and HTML escaping, so that templates mean the same as in other Liquid products.

// engineKind says how values are written into a field.
type engineKind int

const (
	plainText   engineKind = iota // as they are
	escapedHTML                   // HTML-escaped, except for values of the filter safe
)

// field is one parsed template, or text without template syntax. It is read-only after parseField, so concurrent renderings share it.
type field struct {
	source string
	*compiler
	root render.Node // nil: the source contains no template syntax and is the text
	cfg  render.Config
}

// parseField parses one template. The library panics on some malformed sources; a panic is an error of the template.
func parseField(ctx context.Context, source string, kind engineKind) (f *field, err error) {
	if len(source) > MaxOutput {
		return nil, fmt.Errorf("is over %d bytes long", MaxOutput)
	}
	f = &field{source: source}
	if !message.IsTemplate(source) {
		return f, nil
	}
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, errors.New("cannot be parsed")
		}
	}()
	f.compiler = newCompiler(kind, ctx.Done())
	if err := f.scan(source); err != nil {
		return nil, err
	}
	f.cfg = f.config()
	root, perr := f.cfg.Compile(f.compiler.source(len(source)), parser.SourceLoc{})
	if perr != nil {
		return nil, errors.New("cannot be parsed")
	}
	f.root = root
	return f, nil
}

// render renders the template on a budget, which is shared by the fields of a message; the bytes held by variables are
// counted per field. It adds the budget to bindings, which the caller must not share between goroutines; the library works on
// a copy of them. An exceeded bound is returned as the budget's error, any other failure as a *valueError.
//
// The library panics when its writer fails, which is how limitedWriter bounds the output. So a panic is an error here, and
// the budget's error takes precedence over the panic that it caused.
func (f *field) render(b *budget, bindings map[string]any) (s string, err error) {
	if f.root == nil {
		return f.source, nil
	}
	if b.err != nil {
		return "", b.err
	}
	bindings[stepBinding] = b
	b.held, b.sum, b.counters = nil, 0, nil
	w := &limitedWriter{b: b}
	w.buf.Grow(len(f.source))
	defer func() {
		if p := recover(); p != nil {
			err = &valueError{"cannot be rendered"}
		}
		if b.err != nil {
			err = b.err
		}
		if err != nil {
			s = ""
		}
	}()
	if rerr := render.Render(f.root, w, bindings, f.cfg); rerr != nil {
		err := rerr.Cause()
		if err == nil {
			err = errors.New("cannot be rendered")
		}
		return "", &valueError{err.Error()}
	}
	return w.buf.String(), nil
}

// valueError is a failure that depends on the values of the lead, as opposed to an exceeded bound.
type valueError struct{ msg string }

func (e *valueError) Error() string { return e.msg }
