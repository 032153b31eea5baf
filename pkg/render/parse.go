package render

import (
	"errors"
	"fmt"
	"strings"
)

const maxName = 100 // bytes of the name of a variable that capture sets

// parse parses the arguments of a tag or the text of an object, computes its cost, and adds the entry to the compiler.
//
// The cost is one step, and one for each 16 tokens: evaluating an expression takes time in proportion to its tokens, apart
// from filters and comparisons, which are charged separately.
func (c *compiler) parse(e *entry, args string) error {
	if len(args) > maxArgs {
		return fmt.Errorf("over %d bytes in one tag or object", maxArgs)
	}
	if c.args += len(args); c.args > maxAllArgs {
		return fmt.Errorf("over %d bytes in all tags and objects", maxAllArgs)
	}
	c.entries = append(c.entries, e)
	c.trims = c.trims || e.trimLeft || e.trimRight
	switch e.tag {
	case "else", "break", "continue":
		return nil
	case "capture":
		if args == "" || len(args) > maxName || strings.ContainsAny(args, white) {
			return fmt.Errorf("capture takes one name of at most %d bytes", maxName)
		}
		e.name, e.cost = args, 1
		c.assigned[args] = true
		return nil
	}
	if strings.HasPrefix(e.tag, "end") {
		return nil
	}
	p, err := c.parser(args)
	if err != nil {
		return &mistake{p.at, err}
	}
	read := p.condition
	switch e.tag {
	case "assign":
		read = p.assign
	case "for":
		read = p.loop
	case "when":
		read = p.when
	case "cycle":
		read = p.cycle
	case "increment", "decrement":
		read = p.counter
	}
	if err := read(e); err != nil {
		return &mistake{p.at, explained(err, args)}
	}
	if e.cost = 1; e.tag != "cycle" { // a cycle writes one of its texts, regardless of their number
		e.cost += p.count / 16
	}
	if err := p.end(); err != nil {
		return &mistake{p.at, explained(err, args)}
	}
	return nil
}

// explained replaces an error of syntax that a backslash before a quote probably caused.
func explained(err error, args string) error {
	if errors.Is(err, errSyntax) && (strings.Contains(args, `\'`) || strings.Contains(args, `\"`)) {
		return errors.New("syntax error: a backslash does not escape a quote; put the text into the other kind of quotes")
	}
	return err
}

// mistake is an error of syntax at an offset of the text within a tag or an object.
type mistake struct {
	offset int
	err    error
}

// Error implements error.
func (m *mistake) Error() string { return m.err.Error() }

// Unwrap returns the error without its place.
func (m *mistake) Unwrap() error { return m.err }

// condition parses the text of an object, or the arguments of if, unless, elsif and case.
func (p *exprParser) condition(e *entry) error {
	x, err := p.cond()
	if err != nil {
		return err
	}
	e.exprs = []expr{x}
	if n, ok := x.(name); ok {
		e.plain, e.name = true, string(n)
	}
	return nil
}

// variable parses the name of a variable that a tag sets.
func (p *exprParser) variable(e *entry) error {
	if p.tok.kind != identifier {
		return errSyntax
	}
	e.name = p.tok.text
	p.c.assigned[e.name] = true
	return p.advance()
}

// counter parses the name of a counter. Counters and variables are apart, so the name is not an assigned one.
func (p *exprParser) counter(e *entry) error {
	if p.tok.kind != identifier {
		return errSyntax
	}
	e.name = p.tok.text
	return p.advance()
}

// assign parses: variable = condition.
func (p *exprParser) assign(e *entry) error {
	if err := p.variable(e); err != nil {
		return err
	}
	if p.tok.kind == property {
		return fmt.Errorf("assign cannot set a property of a variable")
	}
	if err := p.expect(punctuation, "="); err != nil {
		return err
	}
	x, err := p.cond()
	e.exprs = []expr{x}
	return err
}

// when parses one or more operands, separated by commas or "or".
func (p *exprParser) when(e *entry) error {
	for {
		x, err := p.operand()
		if err != nil {
			return err
		}
		e.exprs = append(e.exprs, x)
		if !p.is(punctuation, ",") && !p.is(operator, "or") {
			return nil
		}
		if err := p.advance(); err != nil {
			return err
		}
	}
}

// cycle parses an optional group, 'group':, and one or more texts.
func (p *exprParser) cycle(e *entry) error {
	for {
		s, ok := p.tok.value.(string)
		if p.tok.kind != literal || !ok {
			return errSyntax
		}
		if err := p.advance(); err != nil {
			return err
		}
		if len(e.list) == 0 && e.name == "" && p.is(punctuation, ":") {
			e.name = s
		} else if e.list = append(e.list, s); !p.is(punctuation, ",") {
			return nil
		}
		if err := p.advance(); err != nil {
			return err
		}
	}
}

// loop is a parsed for tag.
type loop struct {
	limit, offset expr
	reversed      bool
	text          int // bytes of text in the body, which each round writes
}

// loop parses: variable in operand, filters, and the modifiers reversed, limit, offset and cols in any order. cols belongs to
// tablerow; the library accepts it for every loop and ignores it, and so does this package.
func (p *exprParser) loop(e *entry) error {
	if err := p.variable(e); err != nil {
		return err
	}
	if err := p.expect(operator, "in"); err != nil {
		return err
	}
	x, err := p.operand()
	if err == nil {
		x, err = p.filtered(x)
	}
	if err != nil {
		return err
	}
	e.exprs = []expr{x}
	for {
		word := p.tok.text
		switch {
		case p.is(identifier, "reversed"):
			e.loop.reversed = true
			if err := p.advance(); err != nil {
				return err
			}
		case p.tok.kind == keyword && (word == "limit" || word == "offset" || word == "cols"):
			if err := p.advance(); err != nil {
				return err
			}
			v, err := p.operand()
			if err != nil {
				return err
			}
			switch word {
			case "limit":
				e.loop.limit = v
			case "offset":
				e.loop.offset = v
			}
		default:
			return nil
		}
	}
}
