package render

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"time"

	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/values"
)

// stepBinding carries the budget to the tags. No template can name or assign it: it has spaces.
const stepBinding = "herald step counter"

var (
	errBreak    = errors.New("break outside a loop")
	errContinue = errors.New("continue outside a loop")
)

type (
	renderer     = func(io.Writer, render.Context) error
	entryTag     = func(e *entry, b *budget, w io.Writer, ctx render.Context) error
	limitedBlock = func(e *entry, node render.BlockNode) renderer
)

// config makes the library's configuration for one template. The library walks the template, trims white space and
// writes; the tags are those of this package.
func (c *compiler) config() render.Config {
	cfg := render.NewConfig()
	if c.kind == escapedHTML {
		c.escape = render.HtmlEscaper
		cfg.SetAutoEscapeReplacer(render.HtmlEscaper)
	}
	for name, run := range map[string]entryTag{
		textTag: writeText, objectTag: c.writeObject, "assign": assign, "cycle": cycle,
		"break":    func(_ *entry, _ *budget, _ io.Writer, ctx render.Context) error { return ctx.WrapError(errBreak) },
		"continue": func(_ *entry, _ *budget, _ io.Writer, ctx render.Context) error { return ctx.WrapError(errContinue) },
	} {
		cfg.AddTag(name, func(args string) (renderer, error) {
			e, err := c.entry(args)
			return func(w io.Writer, ctx render.Context) error {
				b, err := budgetOf(ctx)
				if err != nil {
					return err
				}
				return run(e, b, w, ctx)
			}, err
		})
	}
	cfg.AddBlock("capture").Compiler(c.block(captureBlock))
	cfg.AddBlock("case").Clause("when").Clause("else").Compiler(c.block(c.caseBlock))
	cfg.AddBlock("for").Clause("else").Compiler(c.block(loopBlock))
	cfg.AddBlock("if").Clause("else").Clause("elsif").Compiler(c.block(c.ifBlock))
	cfg.AddBlock("unless").Clause("else").Compiler(c.block(c.ifBlock))
	return cfg
}

func (c *compiler) entry(args string) (*entry, error) {
	i, err := strconv.Atoi(args)
	if err != nil || i < 0 || i >= len(c.entries) {
		return nil, errSyntax
	}
	return c.entries[i], nil
}

func (c *compiler) block(make limitedBlock) render.BlockCompiler {
	return func(node render.BlockNode) (renderer, error) {
		e, err := c.entry(node.Args)
		if err != nil {
			return nil, err
		}
		return make(e, node), nil
	}
}

func budgetOf(ctx render.Context) (*budget, error) {
	vars := ctx.Bindings()
	b, ok := vars[stepBinding].(*budget)
	if !ok {
		return nil, errWork
	}
	b.vars = vars
	return b, nil
}

func writeText(e *entry, _ *budget, w io.Writer, _ render.Context) error {
	pieces := [3]string{1: e.text}
	for i, write := range [...]bool{e.stopLeft, e.text != "", e.stopRight} {
		if write {
			if _, err := io.WriteString(w, pieces[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeObject writes a value. What it writes is charged by the writer that gets it; white space that is trimmed reaches no
// writer.
func (c *compiler) writeObject(e *entry, b *budget, w io.Writer, _ render.Context) error {
	if err := b.charge(1 + e.cost); err != nil {
		return err
	}
	v, err := e.value(b)
	if err != nil {
		return err
	}
	if s, ok := v.(values.SafeValue); ok {
		v = s.Value
	} else if c.escape != nil {
		w = &escaper{w, c.escape}
	}
	return c.write(b, w, v)
}

func (c *compiler) write(b *budget, w io.Writer, v any) error {
	switch v := values.ToLiquid(v).(type) {
	case nil:
		return b.charge(1)
	case string:
		if c.trims {
			if err := b.charge(len(v) >> 8); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, v)
		return err
	case int:
		_, err := io.WriteString(w, strconv.Itoa(v))
		return err
	case float64:
		_, err := io.WriteString(w, strconv.FormatFloat(v, 'f', -1, 64))
		return err
	case time.Time:
		_, err := io.WriteString(w, v.Format("2006-01-02 15:04:05 -0700"))
		return err
	case []byte:
		_, err := w.Write(v)
		return err
	case []any:
		if err := b.charge(len(v) / 16); err != nil {
			return err
		}
		for _, item := range v {
			if item == nil {
				continue
			}
			if err := c.write(b, w, item); err != nil {
				return err
			}
		}
		return nil
	default:
		n := size(v)
		if n > MaxOutput {
			return b.fail(errTooLong)
		}
		if err := b.charge(n * printWeight >> 10); err != nil {
			return err
		}
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice || rv.Kind() == reflect.Array {
			for i := range rv.Len() {
				if err := c.write(b, w, rv.Index(i).Interface()); err != nil {
					return err
				}
			}
			return nil
		}
		_, err := io.WriteString(w, fmt.Sprint(v))
		return err
	}
}

type escaper struct {
	w       io.Writer
	replace render.Replacer
}

func (e *escaper) Write(p []byte) (int, error) { return e.WriteString(string(p)) }

// WriteString implements io.StringWriter.
func (e *escaper) WriteString(s string) (int, error) {
	if _, err := e.replace.WriteString(e.w, s); err != nil {
		return 0, err
	}
	return len(s), nil
}

func assign(e *entry, b *budget, _ io.Writer, ctx render.Context) error {
	if err := b.charge(1 + e.cost); err != nil {
		return err
	}
	v, err := e.value(b)
	if err != nil {
		return err
	}
	return b.set(ctx, e.name, v)
}

// set sets a variable. A text is as cheap as its pointer; the parts of an array are walked.
func (b *budget) set(ctx render.Context, name string, v any) error {
	n := size(v)
	if _, ok := v.(string); !ok {
		if err := b.charge(n >> 10); err != nil {
			return err
		}
	}
	if err := b.hold(name, n); err != nil {
		return err
	}
	ctx.Set(name, v)
	return nil
}

// captureBlock is the library's capture with an end: its own buffer grows as long as the body writes.
func captureBlock(e *entry, _ render.BlockNode) renderer {
	return func(_ io.Writer, ctx render.Context) error {
		b, err := budgetOf(ctx)
		if err != nil {
			return err
		}
		if err := b.charge(1); err != nil {
			return err
		}
		w := &limitedWriter{b: b}
		if err := ctx.RenderChildren(w); err != nil {
			return err
		}
		s := w.buf.String()
		if err := b.make(2 * len(s)); err != nil {
			return err
		}
		return b.set(ctx, e.name, s)
	}
}

// ifBlock renders the first branch whose condition holds: if and elsif, or unless, and else.
func (c *compiler) ifBlock(e *entry, node render.BlockNode) renderer {
	clauses := make([]*entry, len(node.Clauses))
	for i, clause := range node.Clauses {
		clauses[i], _ = c.entry(clause.Args)
	}
	return func(w io.Writer, ctx render.Context) error {
		b, err := budgetOf(ctx)
		if err != nil {
			return err
		}
		holds, err := e.holds(b)
		if err != nil {
			return err
		}
		if holds != (e.tag == "unless") {
			return ctx.RenderBlock(w, &node)
		}
		for i, clause := range clauses {
			if clause.tag == "elsif" {
				if holds, err = clause.holds(b); err != nil {
					return err
				}
				if !holds {
					continue
				}
			}
			return ctx.RenderBlock(w, node.Clauses[i])
		}
		return nil
	}
}

// value evaluates what the tag or object is about.
func (e *entry) value(b *budget) (any, error) {
	v, err := e.exprs[0].eval(b)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", e.line, err)
	}
	return v, nil
}

func (e *entry) holds(b *budget) (bool, error) {
	if err := b.charge(1 + e.cost); err != nil {
		return false, err
	}
	v, err := e.value(b)
	return truth(v), err
}

func (c *compiler) caseBlock(e *entry, node render.BlockNode) renderer {
	clauses := make([]*entry, len(node.Clauses))
	for i, clause := range node.Clauses {
		clauses[i], _ = c.entry(clause.Args)
	}
	return func(w io.Writer, ctx render.Context) error {
		b, err := budgetOf(ctx)
		if err != nil {
			return err
		}
		if err := b.charge(1 + e.cost); err != nil {
			return err
		}
		v, err := e.value(b)
		if err != nil {
			return err
		}
		for i, clause := range clauses {
			found := clause.tag == "else"
			for _, x := range clause.exprs {
				if found, err = matches(b, x, v); err != nil || found {
					break
				}
			}
			if err != nil {
				return err
			}
			if found {
				return ctx.RenderBlock(w, node.Clauses[i])
			}
		}
		return nil
	}
}

func matches(b *budget, x expr, v any) (bool, error) {
	if err := b.charge(1); err != nil {
		return false, err
	}
	when, err := x.eval(b)
	if err != nil {
		return false, err
	}
	if err := b.compare(v, when); err != nil {
		return false, err
	}
	return values.Equal(v, when), nil
}
