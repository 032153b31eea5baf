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

// execution is one run of a tag or block: what it works on. It is passed by value so that it stays off the heap.
type execution struct {
	*entry
	b   *budget
	w   io.Writer
	ctx render.Context
	v   any // the value of the tag's expression, nil where it has none
}

type (
	renderer = func(io.Writer, render.Context) error
	// tagRunner runs a tag or a block after its cost was charged and its expression was evaluated.
	tagRunner = func(x execution) error
	// blockCompiler prepares the runner of a block with its clauses.
	blockCompiler = func(node render.BlockNode) tagRunner
)

// config makes the library's configuration for one template. The library walks the template, trims white space and writes;
// the tags are those of this package.
func (c *compiler) config() render.Config {
	cfg := render.NewConfig()
	if c.kind == escapedHTML {
		c.escape = render.HtmlEscaper
		cfg.SetAutoEscapeReplacer(render.HtmlEscaper)
	}
	for name, run := range map[string]tagRunner{
		textTag: writeText, objectTag: c.writeObject, "assign": assign, "cycle": cycle,
		"break":    func(x execution) error { return x.ctx.WrapError(errBreak) },
		"continue": func(x execution) error { return x.ctx.WrapError(errContinue) },
	} {
		cfg.AddTag(name, func(args string) (renderer, error) {
			e, err := c.entry(args)
			if err != nil {
				return nil, err
			}
			return e.renderer(run), nil
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

func (c *compiler) block(compile blockCompiler) render.BlockCompiler {
	return func(node render.BlockNode) (renderer, error) {
		e, err := c.entry(node.Args)
		if err != nil {
			return nil, err
		}
		return e.renderer(compile(node)), nil
	}
}

// renderer is the prologue of every tag and block: it charges the cost of the entry and evaluates its expression.
func (e *entry) renderer(run tagRunner) renderer {
	return func(w io.Writer, ctx render.Context) error {
		b, err := budgetOf(ctx)
		if err != nil {
			return err
		}
		if err := b.charge(e.cost); err != nil {
			return err
		}
		x := execution{entry: e, b: b, w: w, ctx: ctx}
		if len(e.exprs) > 0 {
			if x.v, err = e.value(b); err != nil {
				return err
			}
		}
		return run(x)
	}
}

// clauses returns the entries of a block's clauses.
func (c *compiler) clauses(node render.BlockNode) []*entry {
	list := make([]*entry, len(node.Clauses))
	for i, clause := range node.Clauses {
		list[i], _ = c.entry(clause.Args)
	}
	return list
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

// writeText writes a text. An empty write before or after it keeps a neighbour's hyphen from trimming it.
func writeText(x execution) error {
	pieces := [3]string{1: x.text}
	for i, write := range [...]bool{x.stopLeft, x.text != "", x.stopRight} {
		if write {
			if _, err := io.WriteString(x.w, pieces[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeObject writes a value. The writer that receives the text charges for it.
func (c *compiler) writeObject(x execution) error {
	if s, ok := x.v.(values.SafeValue); ok {
		x.v = s.Value
	} else if c.escape != nil {
		x.w = &escaper{x.w, c.escape}
	}
	return c.write(x.b, x.w, x.v)
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

func assign(x execution) error { return x.b.set(x.ctx, x.name, x.v) }

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

// captureBlock is the library's capture with a bound: the library's own buffer grows as long as the body writes.
func captureBlock(render.BlockNode) tagRunner {
	return func(x execution) error {
		w := &limitedWriter{b: x.b}
		if err := x.ctx.RenderChildren(w); err != nil {
			return err
		}
		s := w.buf.String()
		if err := x.b.make(2 * len(s)); err != nil {
			return err
		}
		return x.b.set(x.ctx, x.name, s)
	}
}

// ifBlock renders the first branch whose condition holds: that of if or unless, of an elsif, or else.
func (c *compiler) ifBlock(node render.BlockNode) tagRunner {
	clauses := c.clauses(node)
	return func(x execution) error {
		if truth(x.v) != (x.tag == "unless") {
			return x.ctx.RenderBlock(x.w, &node)
		}
		for i, clause := range clauses {
			holds, err := clause.holds(x.b)
			if err != nil {
				return err
			}
			if holds {
				return x.ctx.RenderBlock(x.w, node.Clauses[i])
			}
		}
		return nil
	}
}

// value evaluates the expression of a tag or object.
func (e *entry) value(b *budget) (any, error) {
	v, err := e.exprs[0].eval(b)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", e.line, err)
	}
	return v, nil
}

// holds reports whether the clause of an if is chosen: an elsif by its condition, an else always.
func (e *entry) holds(b *budget) (bool, error) {
	if e.tag == "else" {
		return true, nil
	}
	if err := b.charge(e.cost); err != nil {
		return false, err
	}
	v, err := e.value(b)
	return truth(v), err
}

// caseBlock renders the first clause with a value equal to that of case, or else.
func (c *compiler) caseBlock(node render.BlockNode) tagRunner {
	clauses := c.clauses(node)
	return func(x execution) error {
		for i, clause := range clauses {
			chosen, err := clause.isChosenBy(x.b, x.v)
			if err != nil {
				return err
			}
			if chosen {
				return x.ctx.RenderBlock(x.w, node.Clauses[i])
			}
		}
		return nil
	}
}

// isChosenBy reports whether a clause of a case is for a value: a when with an equal one, an else always.
func (e *entry) isChosenBy(b *budget, v any) (bool, error) {
	for _, x := range e.exprs {
		if found, err := matches(b, x, v); err != nil || found {
			return found, err
		}
	}
	return e.tag == "else", nil
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
