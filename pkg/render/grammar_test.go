package render

import (
	"fmt"
	"sort"
	"strings"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// grammar makes templates of the whole language from bytes: each decision takes one, and when they run out the first
// choice is taken, which ends everything.
type grammar struct {
	in      []byte
	out     strings.Builder
	depth   int
	loops   int
	filters []string
	hostile bool // sizes too; and what Liquid does not know
}

func newGrammar(in []byte, hostile bool) *grammar {
	g := &grammar{in: in, hostile: hostile}
	for name := range allowed {
		if name != "safe" {
			g.filters = append(g.filters, name)
		}
	}
	sort.Strings(g.filters)
	return g
}

func (g *grammar) pick(n int) int {
	if len(g.in) == 0 || n < 1 {
		return 0
	}
	v := int(g.in[0])
	g.in = g.in[1:]
	return v % n
}

func (g *grammar) of(words ...string) string { return words[g.pick(len(words))] }

func (g *grammar) template() string {
	for len(g.in) > 0 && g.out.Len() < MaxOutput {
		if g.hostile && g.pick(40) == 1 {
			g.attack()
			continue
		}
		g.node()
	}
	return g.out.String()
}

// attack writes much of one thing.
func (g *grammar) attack() {
	piece := g.of("(", "{", "{{", "{%", "{{ a ", "{{a}}", "{{ a | upcase }}", "a.b", "[", "a[", "9", " ", "\n", "'", "|", "{{-", "-}}", "{% if a %}", "{%raw%}", "x | sort ", "\u3000", "<",
		"{% assign a = a | append: 'xxxxxxxx' %}", "{% capture a %}{{ a }}{{ a }}{% endcapture %}", "{{ {%x%}", "{% raw %}{{ {%x%}", "{% when 1 %}", "a or ", "a, ", "| upcase", "%", "{% comment %}{%", "{% endraw ", "{% endcomment -x", "{{ a | sort | size }}", "{{ tags }}")
	n := []int{3, 50, 300, 4_000, 5_200, 100_000, MaxOutput}[g.pick(7)]
	open, end := g.of("", "{{ ", "{% if ", "{% assign x = ", "{% raw %}", "{% case a %}"), g.of("", " }}", " %}", "{% endraw %}", "{% endcase %}", " %}{% endif %}")
	g.out.WriteString(open)
	g.out.WriteString(strings.Repeat(piece, min(n, (MaxOutput-min(g.out.Len(), MaxOutput))/len(piece))))
	g.out.WriteString(end)
}

func (g *grammar) braces(left, inner, right string) {
	l, r := "", ""
	if p := g.pick(9); p > 6 {
		l = "-"
		if p > 7 {
			r = "-"
		}
	}
	g.out.WriteString(left + l + " " + inner + " " + r + right)
}

func (g *grammar) node() {
	if g.depth > 6 {
		g.out.WriteString("t")
		return
	}
	g.depth++
	defer func() { g.depth-- }()
	switch g.pick(13) {
	case 0, 1:
		g.out.WriteString(g.of("text ", "a\n b", "  ", "<b>&\"'", "{ x }", "é ü", "%}", "\u3000"))
	case 2, 3, 4:
		g.braces("{{", g.cond(), "}}")
	case 5:
		g.braces("{%", "assign "+g.variable()+" = "+g.cond(), "%}")
	case 6:
		g.braces("{%", "capture "+g.variable(), "%}")
		g.nodes()
		g.out.WriteString("{% endcapture %}")
	case 7:
		word := g.of("if", "unless")
		g.braces("{%", word+" "+g.cond(), "%}")
		g.nodes()
		if word == "if" && g.pick(2) == 1 {
			g.braces("{%", "elsif "+g.cond(), "%}")
			g.nodes()
		}
		if g.pick(2) == 1 {
			g.out.WriteString("{% else %}")
			g.nodes()
		}
		g.braces("{%", "end"+word, "%}")
	case 8:
		g.braces("{%", "case "+g.cond(), "%}")
		for range 1 + g.pick(4) {
			g.braces("{%", "when "+g.operand()+g.of("", ", "+g.operand(), " or "+g.operand()), "%}")
			g.nodes()
		}
		if g.pick(2) == 1 {
			g.out.WriteString("{% else %}")
			g.nodes()
		}
		g.out.WriteString("{% endcase %}")
	case 9, 10:
		g.loop()
	case 11:
		word := g.of("raw", "comment")
		g.braces("{%", word, "%}")
		g.out.WriteString(g.of("", " x ", "{{ x }}", "{ x }", "{% if %} "))
		if !g.hostile || g.pick(4) > 0 {
			g.braces("{%", "end"+word, "%}")
		}
	default:
		if g.loops > 0 {
			g.braces("{%", g.of("cycle 'a', 'b', 'c'", "break", "continue", "cycle 'g': 'x', 'y'"), "%}")
		}
	}
}

func (g *grammar) loop() {
	if g.loops == maxLoops {
		return
	}
	g.loops++
	g.braces("{%", "for "+g.variable()+" in "+g.filtered()+g.of("", " limit: 3", " offset: 1", " reversed", " limit:"+g.operand()), "%}")
	g.nodes()
	if g.pick(4) == 3 {
		g.out.WriteString("{% else %}")
		g.nodes()
	}
	g.out.WriteString("{% endfor %}")
	g.loops--
}

func (g *grammar) nodes() {
	for range 1 + g.pick(4) {
		g.node()
	}
}

func (g *grammar) variable() string { return g.of("x", "y", "z", "first_name", "forloop", "a-b?") }

func (g *grammar) operand() string {
	g.depth++
	defer func() { g.depth-- }()
	words := []string{
		"first_name", "x", "y", "z", "tags", "custom_fields", "custom_fields.text", "custom_fields.list", "custom_fields.words", "custom_fields.rows", "custom_fields.n", "custom_fields.blank", "forloop.index",
		"company", "full_name", "''", "'a'", "' '", "','", "\"<b>\"", "0", "1", "-2", "3.5", "999", "true", "false", "nil", "x.size", "tags.first", "x.last", "'%Y-%m-%d %H:%M'", "'now'", "'2024-02-03'", "'name'", "x[0]", "custom_fields['rows'][1]", "custom_fields[y]",
	}
	if g.depth < 8 {
		switch g.pick(12) {
		case 10:
			return "(" + g.cond() + ")"
		case 11:
			return g.of("x", "tags", "custom_fields") + "[" + g.operand() + "]"
		}
	}
	return words[g.pick(len(words))]
}

func (g *grammar) filtered() string {
	var b strings.Builder
	b.WriteString(g.operand())
	for range g.pick(5) {
		b.WriteString(" | " + g.filters[g.pick(len(g.filters))])
		for i := range g.pick(3) {
			b.WriteString([]string{": ", ", "}[i] + g.operand())
		}
	}
	return b.String()
}

func (g *grammar) cond() string {
	switch g.pick(6) {
	case 4:
		return g.operand() + g.of(" == ", " != ", " < ", " > ", " <= ", " >= ", " contains ") + g.operand()
	case 5:
		if g.depth < 8 {
			g.depth++
			defer func() { g.depth-- }()
			return g.cond() + g.of(" and ", " or ") + g.cond()
		}
	}
	return g.filtered()
}

// fullLead has data up to its bounds: texts, tags and custom fields.
func fullLead() *message.Lead {
	list := make([]any, 3_000)
	for i := range list {
		list[i] = fmt.Sprint(i * 7919 % 3_000)
	}
	rows := make([]any, 200)
	for i := range rows {
		rows[i] = map[string]any{"name": fmt.Sprint("n", i*37%200), "v": float64(i)}
	}
	lead := &message.Lead{ID: uuid.Max, CustomFields: map[string]any{
		"text": strings.Repeat("<a&\"'\n>é ", 900), "list": list, "rows": rows, "words": strings.Repeat("w ", 4_000), "n": 3.5, "blank": strings.Repeat(" ", 8_000),
	}}
	for i := range 200 {
		lead.Tags = append(lead.Tags, strings.Repeat("é", 190)+fmt.Sprint(i))
	}
	for _, f := range lead.TextFields() {
		*f.Value = strings.Repeat("ü", 1_000)
	}
	return lead
}
