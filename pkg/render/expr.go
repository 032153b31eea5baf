package render

import (
	"fmt"

	"github.com/osteele/liquid/values"
)

// expr is a parsed expression. Expressions are parsed and evaluated here because those of the library have no budget: a
// comparison may walk arrays, a filter may multiply text, and neither can be stopped. The grammar and the values are the
// library's. An expr is immutable and safe for concurrent use.
type expr interface {
	// eval charges the budget and returns the value: nil, bool, int, float64, string, []any, map[string]any, or a type that
	// only the library or a lead creates. The error is that of the budget, or of a value that a filter cannot take.
	eval(b *budget) (any, error)
}

// exprParser parses the text of one tag or object by recursive descent, with one token of look-ahead. It records the names
// that occur in the compiler.
type exprParser struct {
	lexer
	tok     lexeme // look-ahead
	at      int    // where the look-ahead begins in the text
	depth   int    // open parentheses and brackets
	filters int    // filters so far
	c       *compiler
}

// parser returns a parser at the first token of src.
func (c *compiler) parser(src string) (*exprParser, error) {
	p := &exprParser{lexer: lexer{src: src}, c: c}
	return p, p.advance()
}

func (p *exprParser) advance() (err error) {
	for p.pos < len(p.src) && isSpace(p.src[p.pos]) {
		p.pos++
	}
	p.at = p.pos
	p.tok, err = p.next()
	return err
}

// is reports whether the look-ahead is a token.
func (p *exprParser) is(kind tokenKind, text string) bool {
	return p.tok.kind == kind && p.tok.text == text
}

// accept skips a token if it is next, and reports whether it was.
func (p *exprParser) accept(kind tokenKind, text string) (bool, error) {
	if !p.is(kind, text) {
		return false, nil
	}
	return true, p.advance()
}

// expect skips a token; another one is a syntax error.
func (p *exprParser) expect(kind tokenKind, text string) error {
	if ok, err := p.accept(kind, text); ok || err != nil {
		return err
	}
	return errSyntax
}

// end returns a syntax error if a token is left.
func (p *exprParser) end() error {
	if p.tok.kind != endOfArgs {
		return errSyntax
	}
	return nil
}

// cond parses relations that "and" and "or" join. Both have the same precedence and associate to the left, which differs from
// Shopify's Liquid and is the library's rule.
func (p *exprParser) cond() (expr, error) {
	left, err := p.rel()
	for err == nil && (p.is(operator, "and") || p.is(operator, "or")) {
		and := p.tok.text == "and"
		if err = p.advance(); err != nil {
			break
		}
		var right expr
		if right, err = p.rel(); err == nil {
			left = &logical{and, left, right}
		}
	}
	return left, err
}

// rel parses a comparison of two operands, or one operand with filters. As in the library, the operands of a comparison have
// no filters; parentheses are needed for them.
func (p *exprParser) rel() (expr, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != operator || p.tok.text == "and" || p.tok.text == "or" || p.tok.text == "in" {
		return p.filtered(left)
	}
	op := p.tok.text
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.operand()
	return &relation{op, left, right}, err
}

// filtered parses the filters that follow an operand. An unknown filter is a mistake of the template, so it is found here and
// not when a message is delivered.
func (p *exprParser) filtered(in expr) (expr, error) {
	for {
		ok, err := p.accept(punctuation, "|")
		if err != nil || !ok {
			return in, err
		}
		if p.tok.kind != identifier && p.tok.kind != keyword {
			return nil, errSyntax
		}
		name, hasArgs := p.tok.text, p.tok.kind == keyword
		def := filterNamed(name, p.c.kind)
		if def == nil {
			return nil, unknownFilter(name)
		}
		if p.filters++; p.filters > maxFilters {
			return nil, fmt.Errorf("over %d filters in one tag or object", maxFilters)
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		f := &application{def: def, in: in}
		for hasArgs {
			arg, err := p.operand()
			if err != nil {
				return nil, err
			}
			f.args = append(f.args, arg)
			if hasArgs, err = p.accept(punctuation, ","); err != nil {
				return nil, err
			}
		}
		in = f
	}
}

// unknownFilter quotes the name, unless it is long enough to be a value in the wrong place.
func unknownFilter(name string) error {
	if len(name) > 40 {
		return fmt.Errorf("a filter with a name of %d bytes is not known", len(name))
	}
	return fmt.Errorf("the filter %q is not known or not allowed", name)
}

// operand parses a primary with properties and indexes. It records the custom fields that are named by
// custom_fields.x and custom_fields["x"], for the sample lead.
func (p *exprParser) operand() (expr, error) {
	e, err := p.primary()
	custom := false
	if n, ok := e.(name); ok && err == nil {
		custom = n == "custom_fields"
	}
	for ; err == nil; custom = false {
		switch {
		case p.tok.kind == property:
			if custom {
				p.c.custom[p.tok.text] = true
			}
			e = &member{e, p.tok.text, values.ValueOf(p.tok.text)}
			err = p.advance()
		case p.is(punctuation, "["):
			var index expr
			if index, err = p.nested("]", p.operand); err != nil {
				return nil, err
			}
			if c, ok := index.(constant); ok && custom {
				if s, ok := c.value.(string); ok {
					p.c.custom[s] = true
				}
			}
			e = &indexed{e, index}
		default:
			return e, nil
		}
	}
	return nil, err
}

// primary parses a literal, a name or a condition in parentheses.
func (p *exprParser) primary() (expr, error) {
	switch {
	case p.tok.kind == literal:
		e := constant{p.tok.value}
		return e, p.advance()
	case p.tok.kind == identifier:
		e := name(p.tok.text)
		p.c.names[p.tok.text] = true
		return e, p.advance()
	case p.is(punctuation, "("):
		return p.nested(")", p.cond)
	}
	return nil, errSyntax
}

// nested parses an expression in parentheses or brackets, at the opening token.
func (p *exprParser) nested(closing string, inner func() (expr, error)) (expr, error) {
	if p.depth++; p.depth > maxExprDepth {
		return nil, fmt.Errorf("parentheses and brackets are nested more than %d deep", maxExprDepth)
	}
	defer func() { p.depth-- }()
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := inner()
	if err != nil {
		return nil, err
	}
	return e, p.expect(punctuation, closing)
}

// constant is a literal.
type constant struct{ value any }

func (c constant) eval(*budget) (any, error) { return c.value, nil }

// name is the value of a variable or of a binding of the lead; nil if none has the name.
type name string

func (n name) eval(b *budget) (any, error) { return values.ToLiquid(b.vars[string(n)]), nil }

// member is a property of a value: x.name. size, first and last are properties of texts and arrays.
type member struct {
	of   expr
	name string
	key  values.Value // name as a value of the library, made once
}

func (m *member) eval(b *budget) (any, error) {
	v, err := m.of.eval(b)
	if err != nil {
		return nil, err
	}
	v = bare(v)
	if fields, ok := v.(map[string]any); ok { // the common case, without the library's reflection
		if f, ok := fields[m.name]; ok {
			return f, nil
		}
	}
	return values.ValueOf(v).PropertyValue(m.key).Interface(), nil
}

// indexed is an element of an array or of a map: x[index].
type indexed struct{ of, index expr }

func (x *indexed) eval(b *budget) (any, error) {
	v, err := x.of.eval(b)
	if err != nil {
		return nil, err
	}
	i, err := x.index.eval(b)
	if err != nil {
		return nil, err
	}
	if s, ok := i.(string); ok { // a map hashes the whole text
		if err := b.charge(len(s) >> 10); err != nil {
			return nil, err
		}
	}
	return values.ValueOf(bare(v)).IndexValue(values.ValueOf(bare(i))).Interface(), nil
}

// logical is left and right, or left or right. The right side is evaluated only if it decides the result.
type logical struct {
	and         bool // false: or
	left, right expr
}

func (l *logical) eval(b *budget) (any, error) {
	v, err := l.left.eval(b)
	if err != nil {
		return nil, err
	}
	if truth(v) != l.and {
		return !l.and, nil
	}
	if v, err = l.right.eval(b); err != nil {
		return nil, err
	}
	return truth(v), nil
}

// truth reports whether a condition holds: everything but nil and false is true in Liquid, also 0 and empty texts.
func truth(v any) bool { return v != nil && v != false }

// relation compares two values.
type relation struct {
	op          string
	left, right expr
}

func (r *relation) eval(b *budget) (any, error) {
	left, err := r.left.eval(b)
	if err != nil {
		return nil, err
	}
	right, err := r.right.eval(b)
	if err != nil {
		return nil, err
	}
	left, right = bare(left), bare(right)
	if r.op == "contains" {
		return contains(b, left, right)
	}
	if err := b.compare(left, right); err != nil {
		return nil, err
	}
	switch r.op {
	case "==":
		return values.Equal(left, right), nil
	case "!=":
		return !values.Equal(left, right), nil
	case "<":
		return values.Less(left, right), nil
	case ">":
		return values.Less(right, left), nil
	case "<=":
		return values.Less(left, right) || values.Equal(left, right), nil
	}
	return values.Less(right, left) || values.Equal(left, right), nil
}

// compare charges for the bytes that a comparison may read: a comparison ends at the end of the shorter value. Values of
// different types, and scalars, compare in constant time.
func (b *budget) compare(left, right any) error {
	switch l := left.(type) {
	case nil, bool, int, float64:
		return nil
	case string:
		if r, ok := right.(string); ok {
			return b.charge(min(len(l), len(r)) >> 10)
		}
		return nil
	}
	if _, scalar := right.(string); scalar || right == nil {
		return nil
	}
	return b.charge(min(size(left), size(right)) >> 10)
}

// contains reports whether a text contains a text, or an array an element. The library prints a right side that is not a text
// before it searches.
func contains(b *budget, left, right any) (any, error) {
	n := size(right)
	if _, isText := right.(string); !isText {
		if n > MaxOutput {
			return nil, b.fail(errTooLong)
		}
		n *= printWeight
	}
	if err := b.charge((size(left) + n) >> 10); err != nil {
		return nil, err
	}
	return values.ValueOf(left).Contains(values.ValueOf(right)), nil
}
