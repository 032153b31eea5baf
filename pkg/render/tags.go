package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/values"
)

// stepBinding is the binding that carries the budget to the tags: the library passes nothing else to them. The name contains
// spaces, so no template can read or assign it.
const stepBinding = "herald step counter"

// break and continue travel to their loop as errors, through the library's renderers of the blocks between. Outside a loop
// they are the template's error.
var (
	errBreak    = errors.New("break outside a loop")
	errContinue = errors.New("continue outside a loop")
)

// execution is the context of one execution of a tag or block. It is passed by value so that it stays off the heap.
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

// config returns the library's configuration for one template. All tags are those of this package; the library contributes
// the structure of blocks, the trimming of white space, and the writing of texts.
func (c *compiler) config() render.Config {
	cfg := render.NewConfig()
	if c.kind == escapedHTML {
		c.escape = render.HtmlEscaper
		cfg.SetAutoEscapeReplacer(render.HtmlEscaper)
	}
	for name, run := range map[string]tagRunner{
		textTag: writeText, objectTag: c.writeObject, "assign": assign, "cycle": cycle, "increment": count, "decrement": count,
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
	cfg.AddBlock("capture").Compiler(c.block(c.captureBlock))
	cfg.AddBlock("case").Clause("when").Clause("else").Compiler(c.block(c.caseBlock))
	cfg.AddBlock("for").Clause("else").Compiler(c.block(loopBlock))
	cfg.AddBlock("if").Clause("else").Clause("elsif").Compiler(c.block(c.ifBlock))
	cfg.AddBlock("unless").Clause("else").Compiler(c.block(c.ifBlock))
	return cfg
}

// entry returns the entry that a tag of the generated source refers to.
func (c *compiler) entry(args string) (*entry, error) {
	i, err := strconv.Atoi(args)
	if err != nil || i < 0 || i >= len(c.entries) {
		return nil, errSyntax
	}
	return c.entries[i], nil
}

// block adapts a blockCompiler to the library.
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

// budgetOf returns the budget of a rendering, and gives it the bindings in which variables are set.
func budgetOf(ctx render.Context) (*budget, error) {
	vars := ctx.Bindings()
	b, ok := vars[stepBinding].(*budget)
	if !ok {
		return nil, errWork
	}
	b.vars = vars
	return b, nil
}

// writeText writes a text. The library trims up to the previous or next write, so an empty write before or after the text
// protects its white space from the hyphen of a neighbour.
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

// writeObject writes the value of an object, escaped in HTML unless the filter safe marked it. limitedWriter charges for the
// text.
func (c *compiler) writeObject(x execution) error {
	if s, ok := x.v.(values.SafeValue); ok {
		x.v = s.Value
	} else if c.escape != nil {
		x.w = &escaper{x.w, c.escape}
	}
	return c.write(x.b, x.w, x.v)
}

// write writes a value in the library's form: an array as its elements, nil as nothing, a float64 without exponent. It charges
// what the writer cannot see: nil and empty elements, the trimming of white space, which reads the text again, and printing
// by reflection.
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
		_, err := io.WriteString(w, asJSON(v))
		return err
	}
}

// asJSON returns the JSON of a value that is neither text, number nor list, such as an object among the custom fields.
func asJSON(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // escaper does that where the field is HTML
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// escaper escapes HTML on the way to another writer. The escaped text is charged and bounded there.
type escaper struct {
	w       io.Writer
	replace render.Replacer
}

// Write implements io.Writer.
func (e *escaper) Write(p []byte) (int, error) { return e.WriteString(string(p)) }

// WriteString implements io.StringWriter.
func (e *escaper) WriteString(s string) (int, error) {
	if _, err := e.replace.WriteString(e.w, s); err != nil {
		return 0, err
	}
	return len(s), nil
}

// assign runs {% assign %}.
func assign(x execution) error { return x.b.set(x.ctx, x.name, x.v) }

// set sets a variable and charges its size to the memory of the rendering. To find the size of an array costs steps; a text
// has its length at hand.
func (b *budget) set(ctx render.Context, name string, v any) error {
	n := size(v)
	if _, ok := bare(v).(string); !ok {
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

// captureBlock runs {% capture %} with a bounded buffer. The text counts twice as made: the buffer has up to twice its length.
// In HTML the text is HTML, whose values were escaped when they were written.
func (c *compiler) captureBlock(render.BlockNode) tagRunner {
	return func(x execution) error {
		w := &limitedWriter{b: x.b}
		if err := x.ctx.RenderChildren(w); err != nil {
			return err
		}
		s := w.buf.String()
		if err := x.b.make(2 * len(s)); err != nil {
			return err
		}
		if c.kind == escapedHTML {
			return x.b.set(x.ctx, x.name, values.SafeValue{Value: s})
		}
		return x.b.set(x.ctx, x.name, s)
	}
}

// ifBlock runs {% if %} and {% unless %}: it renders the first branch whose condition holds.
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

// value evaluates the expression of a tag or object. An error gets the line of the tag.
func (e *entry) value(b *budget) (any, error) {
	v, err := e.exprs[0].eval(b)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", e.line, err)
	}
	return v, nil
}

// holds reports whether a clause of an if is chosen: an elsif by its condition, an else always. The cost of an elsif is charged
// when its condition is evaluated, so branches that are not reached cost nothing.
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

// caseBlock runs {% case %}: it renders the first clause that matches the value.
func (c *compiler) caseBlock(node render.BlockNode) tagRunner {
	clauses := c.clauses(node)
	return func(x execution) error {
		v := bare(x.v)
		for i, clause := range clauses {
			chosen, err := clause.isChosenBy(x.b, v)
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

// isChosenBy reports whether a clause of a case matches a value: a when by an equal operand, an else always.
func (e *entry) isChosenBy(b *budget, v any) (bool, error) {
	for _, x := range e.exprs {
		if found, err := matches(b, x, v); err != nil || found {
			return found, err
		}
	}
	return e.tag == "else", nil
}

// matches compares the value of a case with an operand of when.
func matches(b *budget, x expr, v any) (bool, error) {
	if err := b.charge(1); err != nil {
		return false, err
	}
	when, err := x.eval(b)
	if err != nil {
		return false, err
	}
	when = bare(when)
	if err := b.compare(v, when); err != nil {
		return false, err
	}
	return values.Equal(v, when), nil
}
