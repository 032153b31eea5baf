package render

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/osteele/liquid/render"

	"herald/pkg/message"
)

// The library's scanner is a regular expression that reads to the end of a line for each {{ that is not closed, and takes
// what is not closed for text. So templates are split here, in one pass; everything is checked and parsed; and the
// library gets a source of another kind: text, plain values, and tags with a number, which names an entry of the
// compiler.
const (
	maxTokens  = 5_000 // tags and objects in one template
	maxAllArgs = 256 << 10
	maxNesting = 30 // blocks within blocks
	maxLoops   = 2  // loops within loops
	maxPlain   = 500
	// maxBraces are the braces in one text that the library's scanner is given to look at.
	maxBraces   = 8
	objectTag   = "o"
	textTag     = "t"
	lookedEvery = 64 // tokens between two looks at the caller
)

// entry is a tag, an object or a text as the tags of the library's source refer to it.
type entry struct {
	tag   string // name of the tag, "" for an object
	line  int
	text  string
	exprs []expr
	cost  int // steps that each run charges first; 0 for texts, break and continue
	loop  loop
	name  string // of a variable that the tag sets; of a cycle's group
	list  []string

	trimLeft, trimRight bool
	stopLeft, stopRight bool // hyphens within raw trim nothing, and no hyphen trims across them
	verbatim            bool // raw or comment: a text apart from its neighbours, which matters where white space is trimmed
	plain               bool // nothing but a name
}

// compiler holds what the parts of one template find out.
type compiler struct {
	kind     engineKind
	escape   render.Replacer // nil: text is written as it is
	done     <-chan struct{}
	entries  []*entry
	blocks   []*entry
	loops    int
	args     int
	count    int
	names    map[string]bool // identifiers of all expressions
	custom   map[string]bool // custom fields that are named
	assigned map[string]bool
	trims    bool // white space is trimmed somewhere
}

func newCompiler(kind engineKind, done <-chan struct{}) *compiler {
	return &compiler{kind: kind, done: done, names: map[string]bool{}, custom: map[string]bool{}, assigned: map[string]bool{}}
}

// scan splits and parses a template.
func (c *compiler) scan(src string) error {
	line := 1
	for len(src) > 0 {
		if c.count%lookedEvery == 0 {
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

// addText adds to the loops that are open.
func (c *compiler) addText(n int) {
	for _, b := range c.blocks {
		if b.tag == "for" {
			b.loop.text += n
		}
	}
}

// opening returns where the next {{ or {% stands, or the length.
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

const white = " \t\n\f\r"

// trimmed takes the hyphens and the white space off what stands within braces.
func trimmed(inner string) (s string, left, right bool) {
	s, left = strings.CutPrefix(inner, "-")
	s, right = strings.CutSuffix(s, "-")
	return strings.Trim(s, white), left, right
}

func (c *compiler) object(src string, line int) (int, error) {
	end := strings.Index(src[2:], "}}")
	if end < 0 {
		return 0, fmt.Errorf("line %d: {{ without }}", line)
	}
	inner, left, right := trimmed(src[2 : 2+end])
	if strings.Contains(inner, "\n") {
		return 0, fmt.Errorf("line %d: {{ without }}", line)
	}
	e := &entry{line: line, trimLeft: left, trimRight: right}
	if err := c.parse(e, inner); err != nil {
		return 0, fmt.Errorf("line %d: %w", line, err)
	}
	return end + 4, nil
}

// tag reads a tag, and with raw and comment what they enclose.
func (c *compiler) tag(src string, line int) (int, error) {
	unclosed := fmt.Errorf("line %d: {%% without %%}", line)
	name, args, n := splitTag(src)
	if n == 0 {
		return 0, unclosed
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
	err := c.place(e)
	if err == nil {
		err = c.parse(e, args)
	}
	if err != nil {
		return 0, fmt.Errorf("line %d: %w", line, err)
	}
	return n, nil
}

// splitTag reads a tag at the start of src: {%, a name, perhaps white space and arguments, %}. A % within takes the
// character after it along, as in the library.
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

// verbatim returns what stands before the tag that ends raw or comment, and the length of both.
func verbatim(src, endTag string) (inner string, size int) {
	for at := 0; ; {
		i := strings.Index(src[at:], "{%")
		if i < 0 {
			return "", 0
		}
		at += i
		rest := strings.TrimLeft(strings.TrimPrefix(src[at+2:], "-"), white)
		// One that is never closed ends the search: the next would be read to the end of the template as well.
		if after, ok := strings.CutPrefix(rest, endTag); ok && after != "" && !isNameStart(after[0]) && !isDigit(after[0]) {
			if _, _, n := splitTag(src[at:]); n > 0 {
				return src[:at], at + n
			}
			return "", 0
		}
		at += 2
	}
}

// place checks that a tag is allowed where it stands.
func (c *compiler) place(e *entry) error {
	parent := ""
	if n := len(c.blocks); n > 0 {
		parent = c.blocks[n-1].tag
	}
	within := func(parents ...string) error {
		if slices.Contains(parents, parent) {
			return nil
		}
		return fmt.Errorf("%s does not stand in %s", e.tag, strings.Join(parents, ", "))
	}
	switch e.tag {
	case "assign", "break", "continue", "cycle":
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
	case len(e.tag) > 40:
		return errors.New("a tag is not known")
	case isEnd:
		return fmt.Errorf("%s closes nothing", e.tag)
	}
	return fmt.Errorf("the tag %s is not known", e.tag)
}

// source writes the template as the library gets it.
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

// inline says whether a text can stand in the library's source as it is.
func (c *compiler) inline(e *entry) bool {
	return (!c.trims || !e.verbatim) && strings.Count(e.text, "{") <= maxBraces && opening(e.text) == len(e.text) && !strings.HasSuffix(e.text, "{")
}

// isList says whether a lead's value is more than a short text.
func isList(name string) bool { return name == "tags" || name == "custom_fields" }
