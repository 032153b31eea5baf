package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/osteele/liquid/values"
)

const kib = 1 << 10

// priced are values whose sizes make the prices below easy to compute. A list element counts 32 bytes beside its content.
func priced() map[string]any {
	list := make([]any, 64) // 64 times 32+32 bytes: 4 KiB
	for i := range list {
		list[i] = strings.Repeat("l", 32)
	}
	row := map[string]any{"name": strings.Repeat("r", 8*kib-36)} // 8 KiB with 32 bytes for the element and 4 for its name
	rows := make([]any, 10)
	for i := range rows {
		rows[i] = row
	}
	return map[string]any{
		"text": strings.Repeat("x", 10*kib), "other": strings.Repeat("x", 11*kib), "short": "s", "middle": strings.Repeat("m", 700),
		"list": list, "row": row, "rows": rows, "pairs": map[string]any{"a": 1, "b": 2, "c": 3, "d": 4}, "numbers": make([]int, 160),
	}
}

// rendered renders a template of one field with values and returns its budget.
func rendered(t *testing.T, source string) *budget {
	t.Helper()
	f, err := parseField(t.Context(), source, plainText)
	if err != nil {
		t.Fatalf("%.80s: %v", source, err)
	}
	b := &budget{until: forever(), done: t.Context().Done()}
	if _, err := f.render(b, priced()); err != nil {
		t.Fatalf("%.80s: %v", source, err)
	}
	return b
}

// Each tag, filter, comparison and write costs its steps: one for a run, and one for each kibibyte that is read, made or
// written, times the weight of slow work. A cheaper price would let a template do more work than maxSteps stands for.
func TestPrices(t *testing.T) {
	for source, want := range map[string]int{
		// Tags cost one step, and one for 16 words and signs.
		`{% if a %}{% endif %}`:                                                                         1,
		`{% unless a %}{% endunless %}`:                                                                 1,
		`{% if a` + repeat(" or a == 1", 3) + ` %}{% endif %}`:                                          1,
		`{% if a` + repeat(" or a == 1", 4) + ` %}{% endif %}`:                                          1 + 17/16,
		`{% if a %}{% elsif a` + repeat(" or a == 1", 4) + ` %}{% elsif b %}{% else %}{% endif %}`:      1 + 2 + 1,
		`{% assign x = a` + repeat(" or a == 1", 8) + ` %}`:                                             1 + 35/16,
		`{{ a` + repeat(" or a == 1", 8) + ` }}`:                                                        1 + 33/16,
		`{% case a` + repeat(" or a == 1", 4) + ` %}{% when 1, 2 %}{% when 3 %}{% else %}{% endcase %}`: 2 + 3,
		`{% assign x = 1 %}`:                                                                            1,

		// Objects: what is written is charged by the writer, which counts 64 bytes for each write.
		`{{ text }}`:                            1 + 10,
		`{{ nothing }}`:                         1 + 1,
		repeat("{{ middle }}", 16):              16 + 16*(700+64)/kib,
		repeat("{{ short }}", 16):               16 + 16*(1+64)/kib,
		`{{ list }}`:                            1 + 64/16 + 64*(32+64)/kib,
		`{{ row }}`:                             1 + 4*8 + (8*kib-36+len("map[name:]")+64)/kib,
		`{{- text -}}`:                          1 + 40 + 10,
		`{% assign company = 1 %}{{ company }}`: 1 + 1,

		// Variables: an array is walked, a text is a pointer. A capture makes its text twice.
		`{% assign x = text %}`:                      1,
		`{% assign x = list %}`:                      1 + 4,
		`{% capture x %}{{ text }}{% endcapture %}`:  1 + (1 + 10) + 20,
		`{% capture x %}{% endcapture %}`:            1,
		`{% assign x = text %}{% assign x = text %}`: 2,

		// Filters: one step, one for each kibibyte that comes in, times a weight, and one for each kibibyte that is made.
		`{% assign x = text | strip %}`:                 1 + (1 + 10) + 10,
		`{% assign x = text | upcase %}`:                1 + (1 + 8*10) + 10,
		`{% assign x = text | default: short %}`:        1 + (1 + 10),
		`{% assign x = row | append: "" %}`:             1 + (1 + 4*8) + 7,
		`{% assign x = short | append: row %}`:          1 + (1 + 4*8) + 7,
		`{% assign x = list | reverse %}`:               1 + (1 + 2*4) + 4 + 2 + 4,
		`{% assign x = list | sort %}`:                  1 + (1 + 4) + (64*7/4 + 7*4) + 4 + 2 + 4,
		`{% assign x = list | sort_natural %}`:          1 + (1 + 4) + (64*7/4 + 7*4) + 4 + 2 + 4,
		`{% assign x = rows | uniq %}`:                  1 + (1 + 8*10*(8*kib+32)/kib) + (45 + 45*8*4) + 8 + 8,
		`{% assign x = "2024-01-02" | date: "%Y-%m" %}`: 1 + 1 + (8 + 4*2),

		// Comparisons read both sides up to the shorter one; contains reads both, and prints what is no text.
		`{% if text == other %}{% endif %}`:            1 + 10,
		`{% if text == short %}{% endif %}`:            1,
		`{% if list == list %}{% endif %}`:             1 + 4,
		`{% if list == short %}{% endif %}`:            1,
		`{% if text contains "y" %}{% endif %}`:        1 + 10,
		`{% if short contains list %}{% endif %}`:      1 + 4*4,
		`{% case text %}{% when other %}{% endcase %}`: 1 + 1 + 10,
		`{{ row[text] }}`:                              1 + 10 + 1,

		// Loops: one step for a round, and one for each 256 bytes of text in the body.
		`{% for x in list %}{% endfor %}`:                                                                   1 + 64,
		`{% for x in list reversed %}{% endfor %}`:                                                          1 + 1 + 64,
		`{% for x in numbers %}{% endfor %}`:                                                                1 + 10 + 160,
		`{% for x in pairs %}{% endfor %}`:                                                                  1 + 2 + 4,
		`{% for x in list limit: 4 %}{% cycle 'a', 'b' %}{% endfor %}`:                                      1 + 4*2,
		`{% for x in list %}` + repeat("t", kib) + `{% endfor %}`:                                           1 + 64*(1+4) + 64*(kib+64)/kib,
		`{% for x in list %}{% if a %}` + repeat("t", kib) + `{% endif %}{% endfor %}`:                      1 + 64*(1+4+1),
		`{% for x in list %}{% if a %}{% raw %}` + repeat("t", kib) + `{% endraw %}{% endif %}{% endfor %}`: 1 + 64*(1+4+1),
		`{% if a %}` + repeat("t", kib) + `{% endif %}{% for x in list %}{% endfor %}`:                      1 + 1 + 64,
	} {
		if got := rendered(t, source).steps; got != want {
			t.Errorf("%.120s: %d steps, want %d", source, got, want)
		}
	}
}

// The library writes the first maxPlain of a lead's own short fields, without a step; this package writes everything else.
func TestPlainFieldsAreWrittenByTheLibrary(t *testing.T) {
	for source, want := range map[string]int{
		`{{ company }}`:                                      0,
		repeat("{{ company }}", maxPlain+7):                  2 * 7,
		`{{ tags }}`:                                         2, // it may be long
		`{{ custom_fields }}`:                                2,
		`{{ nothing }}`:                                      2,
		`{{- company -}}`:                                    2,
		`{{ company | default: 1 }}`:                         2,
		`{% assign company = 1 %}{{ company }}`:              2, // a variable may hold anything
		`{% capture company %}{% endcapture %}{{ company }}`: 2,
	} {
		if got := rendered(t, source).steps; got != want {
			t.Errorf("%.60s: %d steps, want %d", source, got, want)
		}
	}
}

func TestBudgetBounds(t *testing.T) {
	fresh := func() *budget { return &budget{until: forever(), done: t.Context().Done()} }
	if b := fresh(); b.charge(maxSteps) != nil || !errors.Is(b.charge(1), errWork) || !errors.Is(b.charge(0), errWork) {
		t.Errorf("steps: %v", b.err)
	}
	if b := fresh(); b.make(maxMade) != nil || !errors.Is(b.make(1), errMade) {
		t.Errorf("text on the way: %v", b.err)
	}
	if b := fresh(); b.hold("a", maxHeld) != nil || b.hold("a", 10) != nil || b.hold("b", maxHeld-10) != nil || !errors.Is(b.hold("a", 11), errMemory) {
		t.Errorf("variables: %v", b.err)
	}
	w := &limitedWriter{b: fresh()}
	if _, err := w.Write(make([]byte, MaxOutput-1)); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, errTooLong) || w.buf.Len() != MaxOutput {
		t.Errorf("output: %v, %d bytes", err, w.buf.Len())
	}
}

// The size of a value is what printing or comparing it reads.
func TestSizes(t *testing.T) {
	type named string
	for name, c := range map[string]struct {
		v    any
		want int
	}{
		"nothing":     {nil, 0},
		"text":        {"four", 4},
		"safe text":   {values.SafeValue{Value: "four"}, 4},
		"number":      {1.5, 8},
		"array":       {[]any{"four", nil}, 2*elementSize + 4},
		"map":         {map[string]any{"key": "four"}, elementSize + 3 + 4},
		"typed array": {[]string{"four"}, elementSize + 4},
		"typed map":   {map[int]string{1: "four"}, 2 * elementSize},
		"named text":  {named("four"), 4},
		"other":       {struct{}{}, elementSize},
	} {
		if got := size(c.v); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
	// Counting stops where no budget pays for more.
	large := strings.Repeat("x", maxSize/2)
	keyed := map[string]any{}
	for i := range 1_000 {
		keyed[fmt.Sprint(i)] = large
	}
	for name, many := range map[string]any{"array": slices.Repeat([]any{large}, 1_000), "typed array": slices.Repeat([]string{large}, 1_000), "map": keyed} {
		if n := size(many); n <= maxSize || n > 2*maxSize {
			t.Errorf("%s: counted to %d", name, n)
		}
	}
}
