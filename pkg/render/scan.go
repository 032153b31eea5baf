package render

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/osteele/liquid/render"

	"herald/pkg/message"
)

// The library's scanner is a regular expression. For each unclosed {{ it reads to the end of the line, which takes quadratic
// time, and it treats what is unclosed as text. So this file splits templates itself, in one pass. Tags and objects are
// parsed at once, and the library gets a generated source: texts, plain values such as {{first_name}}, and tags such as
// {%o 17%}, whose number is the index of an entry of the compiler. The library then contributes the structure of blocks and
// the trimming of white space, and never sees the arguments.

// Bounds of one template. The time and memory of parsing, and of the library's walk, are proportional to them.
const (
	maxTokens  = 5_000     // tags and objects
	maxAllArgs = 256 << 10 // bytes within the braces of all tags and objects
	maxNesting = 30        // blocks within each other
	maxLoops   = 2         // loops within each other: work grows with the power of this number
	maxPlain   = 500       // values that the library writes itself, without a charge
	maxBraces  = 8         // braces in one text that the library's scanner reads; a text with more becomes an entry
	doneTokens = 64        // tokens between two checks of the caller's context
)

// Tags of the generated source that Liquid does not have.
const (
	objectTag = "o"
	textTag   = "t"
)

// entry is a parsed tag, object or text. A tag of the generated source refers to it by its index in compiler.entries. It is
// read-only after the scan.
type entry struct {
	tag   string // name of the tag, "" for an object
	line  int
	text  string   // of a textTag
	exprs []expr   // several for when, at most one for other tags
	cost  int      // steps that are charged before each execution; 0 for texts, break and continue
	loop  loop     // of for
	name  string   // the variable that the tag sets, the group of a cycle, or the only name of an object
	list  []string // texts of a cycle

	trimLeft, trimRight bool // hyphens inside the braces
	stopLeft, stopRight bool // hyphens of raw within its own tags: they trim nothing, and no other hyphen trims across them
	verbatim            bool // from raw or comment: must stay apart from adjacent texts if white space is trimmed
	plain               bool // the expression is a name without filters and properties
}

// compiler collects the entries of one template, and the facts about the whole template that decide its generated source.
// It is read-only after the scan.
type compiler struct {
	kind     engineKind
	escape   render.Replacer // nil: values are written as they are
	done     <-chan struct{} // closed when the caller's context ends
	entries  []*entry
	blocks   []*entry        // that are open
	loops    int             // open loops
	args     int             // bytes within braces so far
	count    int             // tags and objects so far
	names    map[string]bool // identifiers in all expressions
	custom   map[string]bool // custom fields that expressions name
	assigned map[string]bool // variables that assign, capture and for set
	trims    bool            // a hyphen trims white space somewhere
	full     string          // the template
}

func newCompiler(kind engineKind, done <-chan struct{}) *compiler {
	return &compiler{kind: kind, done: done, names: map[string]bool{}, custom: map[string]bool{}, assigned: map[string]bool{}}
}

// scan splits and parses a template. It returns the first mistake with its line.
func (c *compiler) scan(src string) error {
	c.full = src
	line := 1
	for len(src) > 0 {
		if c.count%doneTokens == 0 {
			select {
			case <-c.done:
				return errGone
			default:
			}
		}
		at := opening(src)
		if at > 0 {
			c.entries = append(c.entries, &entry{tag: textTag, text: src[:at], line: line})
			if c.loops > 0 {
				c.addText(at)
			}
			line += strings.Count(src[:at], "\n")
			src = src[at:]
			continue
		}
		if c.count++; c.count > maxTokens {
			return fmt.Errorf("has over %d tags and objects", maxTokens)
		}
		read := c.object
		if src[1] == '%' {
			read = c.tag
		}
		n, err := read(src, line)
		if err != nil {
			return err
		}
		line += strings.Count(src[:n], "\n")
		src = src[n:]
	}
	if n := len(c.blocks); n > 0 {
		return fmt.Errorf("line %d: {%% %s %%} is never closed", c.blocks[n-1].line, c.blocks[n-1].tag)
	}
	return nil
}

// addText adds the length of a text to every open loop: each of their rounds writes it.
func (c *compiler) addText(n int) {
	for _, b := range c.blocks {
		if b.tag == "for" {
			b.loop.text += n
		}
	}
}

// opening returns the index of the next {{ or {%, or the length of src.
func opening(src string) int {
	for at := 0; ; {
		i := strings.IndexByte(src[at:], '{')
		if i < 0 || at+i+1 >= len(src) {
			return len(src)
		}
		if at += i; src[at+1] == '{' || src[at+1] == '%' {
			return at
		}
		at++
	}
}

const white = " \t\n\f\r" // the white space of regular expressions, as in the library

// trimmed removes the hyphens and the white space at the ends of the text within braces.
func trimmed(inner string) (s string, left, right bool) {
	s, left = strings.CutPrefix(inner, "-")
	s, right = strings.CutSuffix(s, "-")
	return strings.Trim(s, white), left, right
}

// object reads the object at the start of src and returns its length. It may have several lines. One that contains the
// beginning of another object or tag was not closed.
func (c *compiler) object(src string, line int) (int, error) {
	end := strings.Index(src[2:], "}}")
	if end < 0 || opening(src[2:2+end]) < end {
		return 0, fmt.Errorf("line %d: {{ without }}", line)
	}
	inner, left, right := trimmed(src[2 : 2+end])
	e := &entry{line: line, trimLeft: left, trimRight: right}
	if err := c.parse(e, inner); err != nil {
		return 0, c.located(src, 2+strings.Index(src[2:], inner), line, err)
	}
	return end + 4, nil
}

// located adds the line, and the column where it is known, to an error in the text that begins at an offset of src.
func (c *compiler) located(src string, from, line int, err error) error {
	var m *mistake
	if !errors.As(err, &m) {
		return fmt.Errorf("line %d: %w", line, err)
	}
	before := c.full[:len(c.full)-len(src)+from+m.offset]
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Errorf("line %d, column %d: %w", strings.Count(before, "\n")+1, column, err)
}

// tag reads the tag at the start of src and returns its length. For raw and comment this includes the end tag and everything
// before it. raw becomes a text. comment becomes an empty text, which keeps its neighbours apart for trimming.
func (c *compiler) tag(src string, line int) (int, error) {
	if n := inlineComment(src); n > 0 {
		e := &entry{tag: textTag, line: line, verbatim: true, trimLeft: src[2] == '-', trimRight: src[n-3] == '-'}
		c.trims = c.trims || e.trimLeft || e.trimRight
		c.entries = append(c.entries, e)
		return n, nil
	}
	name, args, n := splitTag(src)
	if n == 0 {
		return 0, fmt.Errorf("line %d: {%% without %%}", line)
	}
	if name == "liquid" {
		return n, c.statements(src, args, n, line)
	}
	e := &entry{tag: name, line: line, trimLeft: src[2] == '-'}
	args, e.trimRight = strings.CutSuffix(args, "-")
	c.trims = c.trims || e.trimLeft || e.trimRight
	args = strings.Trim(args, white)
	if name == "raw" || name == "comment" {
		inner, size := verbatim(src[n:], "end"+name)
		if size == 0 {
			return 0, fmt.Errorf("line %d: {%% %s %%} is never closed", line, name)
		}
		if name == "raw" {
			e.text, e.stopLeft, e.stopRight = inner, e.trimRight, src[n+len(inner)+2] == '-'
		}
		e.trimRight = src[n+size-3] == '-'
		c.trims = c.trims || e.trimRight
		e.tag, e.verbatim = textTag, true
		c.entries = append(c.entries, e)
		if c.loops > 0 {
			c.addText(len(e.text))
		}
		return n + size, nil
	}
	if err := c.statement(e, args); err != nil {
		return 0, c.located(src, strings.Index(src, args), line, err)
	}
	return n, nil
}

// statement adds a tag. echo is an object in the form of a tag.
func (c *compiler) statement(e *entry, args string) error {
	if e.tag == "echo" {
		e.tag = ""
		return c.parse(e, args)
	}
	if err := c.place(e); err != nil {
		return err
	}
	return c.parse(e, args)
}

// inlineComment returns the length of a tag {% # text %} at the start of src, 0 if it is another one.
func inlineComment(src string) int {
	start := strings.TrimLeft(strings.TrimPrefix(src[2:], "-"), white)
	if !strings.HasPrefix(start, "#") {
		return 0
	}
	if end := strings.Index(src, "%}"); end > 0 {
		return end + 2
	}
	return 0
}

// statements reads the lines of a tag {% liquid %}, each of which is a tag without its braces. n is the length of the tag.
func (c *compiler) statements(src, args string, n, line int) error {
	first, left, right := len(c.entries), src[2] == '-', src[n-3] == '-'
	at := strings.Index(src, args)
	for text := range strings.SplitAfterSeq(strings.TrimSuffix(args, "-"), "\n") {
		statement := strings.Trim(text, white)
		from := at + strings.Index(text, statement)
		at += len(text)
		number := line + strings.Count(src[:from], "\n")
		if statement == "" || statement[0] == '#' {
			continue
		}
		if c.count++; c.count > maxTokens {
			return fmt.Errorf("has over %d tags and objects", maxTokens)
		}
		name, rest, _ := strings.Cut(statement, " ")
		rest = strings.Trim(rest, white)
		switch name {
		case "raw", "comment", "liquid":
			return fmt.Errorf("line %d: the tag %s is not allowed inside liquid", number, name)
		}
		if err := c.statement(&entry{tag: name, line: number}, rest); err != nil {
			return c.located(src, from+len(statement)-len(rest), number, err)
		}
	}
	if len(c.entries) == first { // an empty text keeps its neighbours apart for trimming
		c.entries = append(c.entries, &entry{tag: textTag, line: line, verbatim: true})
	}
	c.entries[first].trimLeft = c.entries[first].trimLeft || left
	c.entries[len(c.entries)-1].trimRight = right
	c.trims = c.trims || left || right
	return nil
}

// splitTag splits the tag at the start of src: {%, an optional hyphen, a name, optional arguments, %}. n is the length of the
// tag, 0 if it is malformed or unclosed. A % within the arguments consumes the next character, as in the library, so %%} does
// not end a tag.
func splitTag(src string) (name, args string, n int) {
	start := 2
	if start < len(src) && src[start] == '-' {
		start++
	}
	for start < len(src) && strings.IndexByte(white, src[start]) >= 0 {
		start++
	}
	end := start
	for end < len(src) && (src[end] < 0x80 && isNameStart(src[end]) || isDigit(src[end])) {
		end++
	}
	if end == start || end == len(src) || strings.IndexByte(white+"-%", src[end]) < 0 {
		return "", "", 0
	}
	for at := end; ; {
		i := strings.IndexByte(src[at:], '%')
		if i < 0 || at+i+1 >= len(src) {
			return "", "", 0
		}
		if at += i; src[at+1] == '}' {
			args = src[end:at]
			if args != "" && args != "-" && args[0] == '-' {
				return "", "", 0
			}
			return src[start:end], args, at + 2
		}
		at += 2
	}
}

// verbatim returns the text before the end tag of raw or comment, and the length of both; size is 0 if the block is never
// closed.
func verbatim(src, endTag string) (inner string, size int) {
	for at := 0; ; {
		i := strings.Index(src[at:], "{%")
		if i < 0 {
			return "", 0
		}
		at += i
		rest := strings.TrimLeft(strings.TrimPrefix(src[at+2:], "-"), white)
		// An unclosed end tag ends the search. To try the next one would read the rest of the template again each time.
		if after, ok := strings.CutPrefix(rest, endTag); ok && after != "" && !isNameStart(after[0]) && !isDigit(after[0]) {
			if _, _, n := splitTag(src[at:]); n > 0 {
				return src[:at], at + n
			}
			return "", 0
		}
		at += 2
	}
}

// place checks that a tag is allowed at its position, and keeps the stack of open blocks. The library would accept some of
// these mistakes silently, for example an else outside a block.
func (c *compiler) place(e *entry) error {
	parent := ""
	if n := len(c.blocks); n > 0 {
		parent = c.blocks[n-1].tag
	}
	within := func(parents ...string) error {
		if slices.Contains(parents, parent) {
			return nil
		}
		return fmt.Errorf("%s is not inside %s", e.tag, strings.Join(parents, ", "))
	}
	switch e.tag {
	case "assign", "break", "continue", "cycle", "increment", "decrement":
		return nil
	case "else":
		return within("if", "unless", "case", "for")
	case "elsif":
		return within("if")
	case "when":
		return within("case")
	case "if", "unless", "case", "for", "capture":
		if c.blocks = append(c.blocks, e); len(c.blocks) > maxNesting {
			return fmt.Errorf("blocks are nested more than %d deep", maxNesting)
		}
		if e.tag == "for" {
			if c.loops++; c.loops > maxLoops {
				return fmt.Errorf("loops are nested more than %d deep", maxLoops)
			}
		}
		return nil
	case "include", "render", "tablerow":
		return fmt.Errorf("the tag %s is not allowed", e.tag)
	}
	name, isEnd := strings.CutPrefix(e.tag, "end")
	switch {
	case isEnd && parent == name:
		if c.blocks = c.blocks[:len(c.blocks)-1]; name == "for" {
			c.loops--
		}
		return nil
	case len(e.tag) > 40: // not quoted, so that an error is not as long as the template
		return errors.New("a tag is not known")
	case isEnd:
		return fmt.Errorf("%s closes nothing", e.tag)
	}
	return fmt.Errorf("the tag %s is not known", e.tag)
}

// source generates the source for the library. size is the length of the template.
//
// The first maxPlain short fields of a lead are left to the library, which writes them without a call to this package: that
// is the common template, and it renders faster. A variable of the template can have any length and never is left.
func (c *compiler) source(size int) string {
	var out strings.Builder
	out.Grow(size + size/4)
	plain := 0
	fields := message.BindingNames()
	for i, e := range c.entries {
		left, right := "", ""
		if e.trimLeft {
			left = "-"
		}
		if e.trimRight {
			right = "-"
		}
		name := e.tag
		switch {
		case e.tag == textTag && c.inline(e):
			out.WriteString(e.text)
			continue
		case e.tag == "":
			name = objectTag
			if e.plain && !c.trims && plain < maxPlain && !c.assigned[e.name] && !isList(e.name) && slices.Contains(fields, e.name) {
				plain++
				out.WriteString("{{" + e.name + "}}")
				continue
			}
		}
		out.WriteString("{%" + left + name + " " + strconv.Itoa(i) + right + "%}")
	}
	return out.String()
}

// inline reports whether a text can be part of the generated source as it is: it must not be trimmed wrongly, cost the
// library's scanner much time, or form a tag with its neighbours.
func (c *compiler) inline(e *entry) bool {
	return (!c.trims || !e.verbatim) && strings.Count(e.text, "{") <= maxBraces && opening(e.text) == len(e.text) && !strings.HasSuffix(e.text, "{")
}

// isList reports whether a binding of a lead can be longer than a short text.
func isList(name string) bool { return name == "tags" || name == "custom_fields" }
