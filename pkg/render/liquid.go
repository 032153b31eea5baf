package render

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/osteele/liquid"
	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"
	"github.com/osteele/tuesday"
)

// The library bounds nothing: a loop with an empty body cannot be stopped, strings can be doubled without end, and an
// unclosed {{ is plain text. So templates are checked token by token before they are parsed, a step counter is put
// before everything that does work, and the filters that can multiply text are replaced by bounded ones.
const (
	maxTokens   = 5_000  // tags and objects in one template
	maxNesting  = 30     // blocks within blocks
	maxLoops    = 2      // loops within loops
	maxSteps    = 50_000 // tags, objects and loop rounds that one rendering may run
	maxElements = 10_000 // of an array that a filter makes
	stepTag     = "herald_step"
	// captureBlock stands for capture in the source that is parsed: the library lets no block be replaced.
	captureBlock = "herald_capture"
	stepBinding  = "herald step counter" // no template can name or assign it: it has spaces
)

type engineKind int

const (
	plainText engineKind = iota
	escapedHTML
)

var engines = map[engineKind]*liquid.Engine{plainText: newEngine(nil), escapedHTML: newEngine(render.HtmlEscaper)}

var (
	errTooLong = fmt.Errorf("renders to over %d bytes", MaxOutput)
	errWork    = errors.New("takes too many steps to render")
	errTime    = errors.New("takes too long to render")
)

func newEngine(escape render.Replacer) *liquid.Engine {
	e := liquid.NewEngine()
	if escape != nil {
		e.SetAutoEscapeReplacer(escape)
	}
	e.RegisterTag(stepTag, func(ctx render.Context) (string, error) {
		if b, ok := ctx.Get(stepBinding).(*budget); ok {
			return "", b.step()
		}
		return "", nil
	})
	e.RegisterBlock(captureBlock, captureBounded)
	e.RegisterFilter("append", func(s, more string) (string, error) {
		return bounded(len(s)+len(more), func() string { return s + more })
	})
	e.RegisterFilter("prepend", func(s, more string) (string, error) {
		return bounded(len(s)+len(more), func() string { return more + s })
	})
	e.RegisterFilter("replace", func(s, old, by string) (string, error) { return replaceBounded(s, old, by, -1) })
	e.RegisterFilter("replace_first", func(s, old, by string) (string, error) { return replaceBounded(s, old, by, 1) })
	e.RegisterFilter("split", func(s, sep string) ([]string, error) {
		if strings.Count(s, sep) >= maxElements {
			return nil, errTooLong
		}
		return strings.Split(s, sep), nil
	})
	e.RegisterFilter("join", joinBounded)
	e.RegisterFilter("concat", func(a, b []any) ([]any, error) {
		if len(a)+len(b) > maxElements {
			return nil, errTooLong
		}
		return append(append(make([]any, 0, len(a)+len(b)), a...), b...), nil
	})
	e.RegisterFilter("date", dateBounded)
	return e
}

func bounded(size int, make func() string) (string, error) {
	if size > MaxOutput {
		return "", errTooLong
	}
	return make(), nil
}

func replaceBounded(s, old, by string, n int) (string, error) {
	count := strings.Count(s, old)
	if n >= 0 && count > n {
		count = n
	}
	return bounded(len(s)+count*(len(by)-len(old)), func() string { return strings.Replace(s, old, by, n) })
}

func joinBounded(a []any, sep func(string) string) (string, error) {
	s := sep(" ")
	var b strings.Builder
	for i, v := range a {
		if i > 0 {
			b.WriteString(s)
		}
		if v != nil {
			fmt.Fprint(&b, v)
		}
		if b.Len() > MaxOutput {
			return "", errTooLong
		}
	}
	return b.String(), nil
}

// wideFormat finds a width of three digits and more in a date format: the formatter pads to whatever it is told.
var wideFormat = regexp.MustCompile(`%[^A-Za-z%]*[0-9]{3}`)

func dateBounded(t time.Time, format func(string) string) (string, error) {
	f := format("%a, %b %d, %y")
	if len(f) > 256 || wideFormat.MatchString(f) {
		return "", errors.New("date format is too long")
	}
	return tuesday.Strftime(f, t)
}

// captureBounded is the library's capture with an end: its own buffer grows as long as the body writes.
func captureBounded(ctx render.Context) (string, error) {
	w := &limitedWriter{}
	err := ctx.RenderChildren(w)
	if err != nil {
		return "", err
	}
	ctx.Set(strings.TrimSpace(ctx.TagArgs()), w.buf.String())
	return "", nil
}

// field is one parsed template, or text without any template syntax.
type field struct {
	source   string
	template *liquid.Template // nil: the source is the text
}

// names says whether a name stands in the template. Without that it cannot be asked for.
func (f *field) names(name string) bool {
	return f != nil && f.template != nil && strings.Contains(f.source, name)
}

func parseField(source string, kind engineKind) (f *field, err error) {
	if len(source) > MaxOutput {
		return nil, fmt.Errorf("is over %d bytes long", MaxOutput)
	}
	if !strings.Contains(source, "{{") && !strings.Contains(source, "{%") {
		return &field{source: source}, nil
	}
	stepped, err := check(source)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, errors.New("cannot be parsed")
		}
	}()
	t, perr := engines[kind].ParseString(stepped)
	if perr != nil {
		return nil, errors.New(clean(perr.Error()))
	}
	return &field{source, t}, nil
}

// clean leaves of what the library says where the mistake is and which: not the piece of the template that it quotes,
// which may hold anything, and not our own tags.
func clean(msg string) string {
	msg = excerpt.ReplaceAllString(strings.ReplaceAll(msg, captureBlock, "capture"), "")
	return strings.TrimLeft(strings.TrimPrefix(msg, "Liquid error"), ": ")
}

var excerpt = regexp.MustCompile(`(?s) in [{"].*`)

// check walks the tokens, refuses what is not allowed, and returns the source with a step tag before everything that
// does work and at the start of every loop's body. A plain value outside of loops is written once, and does none.
func check(source string) (string, error) {
	var (
		out    strings.Builder
		blocks []string
		loops  int
		count  int
	)
	step := "{%" + stepTag + "%}"
	for _, tok := range parser.Scan(source, parser.SourceLoc{LineNo: 1}, nil) {
		line := tok.SourceLoc.LineNo
		verbatim := len(blocks) > 0 && (blocks[len(blocks)-1] == "raw" || blocks[len(blocks)-1] == "comment")
		switch {
		case tok.Type == parser.TextTokenType && !verbatim:
			if i := strings.Index(tok.Source, "{{"); i >= 0 {
				return "", fmt.Errorf("line %d: {{ without }}", line+strings.Count(tok.Source[:i], "\n"))
			}
			if i := strings.Index(tok.Source, "{%"); i >= 0 {
				return "", fmt.Errorf("line %d: {%% without %%}", line+strings.Count(tok.Source[:i], "\n"))
			}
		case tok.Type == parser.ObjTokenType && !verbatim:
			if hasRange(tok.Args) {
				return "", fmt.Errorf("line %d: ranges (a..b) are not allowed", line)
			}
			count++
			if loops > 0 || strings.Contains(tok.Args, "|") {
				out.WriteString(step)
			}
		case tok.Type == parser.TagTokenType && (!verbatim || strings.HasPrefix(tok.Name, "end")):
			if err := checkTag(tok, &blocks, &loops); err != nil {
				return "", fmt.Errorf("line %d: %w", line, err)
			}
			count++
			switch tok.Name {
			case "assign", "if", "unless", "case", "for", "capture", "cycle":
				out.WriteString(step)
			}
		}
		if count > maxTokens {
			return "", fmt.Errorf("has over %d tags and objects", maxTokens)
		}
		out.WriteString(boundedSource(tok, verbatim))
		if tok.Type == parser.TagTokenType && tok.Name == "for" && !verbatim {
			out.WriteString(step)
		}
	}
	if len(blocks) > 0 {
		return "", fmt.Errorf("{%% %s %%} is never closed", blocks[len(blocks)-1])
	}
	return out.String(), nil
}

func boundedSource(tok parser.Token, verbatim bool) string {
	switch {
	case tok.Type == parser.TagTokenType && tok.Name == "capture" && !verbatim:
		return strings.Replace(tok.Source, "capture", captureBlock, 1)
	case tok.Type == parser.TagTokenType && tok.Name == "endcapture" && !verbatim:
		return strings.Replace(tok.Source, "endcapture", "end"+captureBlock, 1)
	}
	return tok.Source
}

func checkTag(tok parser.Token, blocks *[]string, loops *int) error {
	switch tok.Name {
	case "include", "render", "tablerow", stepTag, captureBlock, "end" + captureBlock:
		return fmt.Errorf("the tag %s is not allowed", tok.Name)
	case "if", "unless", "case", "for", "capture", "comment", "raw":
		if hasRange(tok.Args) {
			return errors.New("ranges (a..b) are not allowed")
		}
		if *blocks = append(*blocks, tok.Name); len(*blocks) > maxNesting {
			return fmt.Errorf("blocks are nested more than %d deep", maxNesting)
		}
		if tok.Name == "for" {
			if *loops++; *loops > maxLoops {
				return fmt.Errorf("loops are nested more than %d deep", maxLoops)
			}
		}
	default:
		name, isEnd := strings.CutPrefix(tok.Name, "end")
		if !isEnd {
			if hasRange(tok.Args) {
				return errors.New("ranges (a..b) are not allowed")
			}
			return nil
		}
		n := len(*blocks)
		if n == 0 || (*blocks)[n-1] != name {
			if n > 0 && ((*blocks)[n-1] == "raw" || (*blocks)[n-1] == "comment") {
				return nil // text inside raw or comment
			}
			return fmt.Errorf("%s closes nothing", tok.Name)
		}
		if *blocks = (*blocks)[:n-1]; name == "for" {
			*loops--
		}
	}
	return nil
}

var quoted = regexp.MustCompile(`"[^"]*"|'[^']*'`)

func hasRange(args string) bool { return strings.Contains(quoted.ReplaceAllString(args, ""), "..") }

// render fills the template; bindings are the caller's own, and get one more. The library works on a copy of them. It panics
// when its writer fails, which is how the output is bounded.
func (f *field) render(bindings map[string]any, limit time.Duration) (s string, err error) {
	if f == nil {
		return "", nil
	}
	if f.template == nil {
		return f.source, nil
	}
	b := &budget{until: time.Now().Add(limit)}
	bindings[stepBinding] = b
	w := &limitedWriter{}
	w.buf.Grow(len(f.source))
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("cannot be rendered")
		}
		switch {
		case err == nil && !w.over:
		case w.over:
			s, err = "", errTooLong
		case b.err != nil:
			s, err = "", b.err
		}
	}()
	if rerr := f.template.FRender(w, bindings); rerr != nil {
		return "", &libraryError{clean(rerr.Error())}
	}
	return w.buf.String(), nil
}

// libraryError is what the library says of a rendering. It may quote the values that were rendered.
type libraryError struct{ msg string }

func (e *libraryError) Error() string { return e.msg }

// budget counts the steps of one rendering.
type budget struct {
	steps int
	until time.Time
	err   error
}

func (b *budget) step() error {
	b.steps++
	switch {
	case b.steps > maxSteps:
		b.err = errWork
	case b.steps%16 == 0 && time.Now().After(b.until):
		b.err = errTime
	}
	return b.err
}

type limitedWriter struct {
	buf  bytes.Buffer
	over bool
}

var _ io.Writer = (*limitedWriter)(nil)

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.buf.Len()+len(p) > MaxOutput {
		w.over = true
		return 0, errTooLong
	}
	return w.buf.Write(p)
}
