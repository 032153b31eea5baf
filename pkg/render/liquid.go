package render

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"
)

// The library bounds nothing: neither parsing nor evaluation can be stopped, text can be doubled without end, and an
// unclosed {{ is plain text. So this package splits and parses templates, evaluates expressions and runs tags and
// filters itself, all on a budget. The library's parts do the rest: values and their comparison, filters, the walk
// through blocks, white space, HTML escaping.

type engineKind int

const (
	plainText engineKind = iota
	escapedHTML
)

// field is one parsed template, or text without any template syntax.
type field struct {
	source string
	*compiler
	root render.Node // nil: the source is the text
	cfg  render.Config
}

// asks says whether the template names a value.
func (f *field) asks(name string) bool { return f != nil && f.compiler != nil && f.names[name] }

func parseField(ctx context.Context, source string, kind engineKind) (f *field, err error) {
	if len(source) > MaxOutput {
		return nil, fmt.Errorf("is over %d bytes long", MaxOutput)
	}
	f = &field{source: source}
	if !strings.Contains(source, "{{") && !strings.Contains(source, "{%") {
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

// render fills the template; bindings are the caller's own, and get one more. The library works on a copy of them. It panics
// when its writer fails, which is how the output is bounded.
func (f *field) render(b *budget, bindings map[string]any) (s string, err error) {
	if f == nil {
		return "", nil
	}
	if f.root == nil {
		return f.source, nil
	}
	if b.err != nil {
		return "", b.err
	}
	bindings[stepBinding] = b
	b.held, b.sum = nil, 0
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

// valueError says that a template does not render with the values that it got, as opposed to a bound.
type valueError struct{ msg string }

func (e *valueError) Error() string { return e.msg }
