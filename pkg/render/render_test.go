package render

import (
	"errors"
	"strings"
	"testing"

	"herald/pkg/message"
)

func compile(t *testing.T, typ message.ChannelType, c message.Content) *Template {
	t.Helper()
	tpl, errs := Compile(t.Context(), typ, c)
	if len(errs) > 0 {
		t.Fatalf("Compile: %v", errs)
	}
	return tpl
}

func TestRenderFillsTheLead(t *testing.T) {
	lead := &message.Lead{FirstName: "Ann <b>", LastName: "Lee", Tags: []string{"a", "b"}, CustomFields: map[string]any{"plan": "gold"}}
	tpl := compile(t, message.Email, message.Content{
		Subject: `Hi {{ first_name | default: "there" }}`,
		Text:    `{% for t in tags %}{{ t }},{% endfor %}{{ custom_fields.plan }} {{ company | default: "no company" }}`,
		HTML:    `<p>{{ full_name }}</p>`,
	})
	got, err := tpl.Render(t.Context(), lead)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "Hi Ann <b>" || got.Text != "a,b,gold no company" || got.HTML != "<p>Ann &lt;b&gt; Lee</p>" {
		t.Errorf("got %+v", got.Content)
	}
}

func TestLeadDataIsNoTemplate(t *testing.T) {
	tpl := compile(t, message.SMS, message.Content{Text: "Hi {{ first_name }}"})
	got, err := tpl.Render(t.Context(), &message.Lead{FirstName: "{{ company }}{% endif"})
	if err != nil || got.Text != "Hi {{ company }}{% endif" {
		t.Errorf("got %q, %v", got.Text, err)
	}
}

// What goes into a header has no control characters, and a subject no white space around it.
func TestHeadersAreOneLine(t *testing.T) {
	tpl := compile(t, message.Email, message.Content{Subject: " {{ first_name }} ", Text: "x\ny ", SenderName: "A\tB\u0085"})
	got, err := tpl.Render(t.Context(), &message.Lead{FirstName: "A\r\nBcc: x@y.test\x7f"})
	if err != nil || got.Subject != "A  Bcc: x@y.test" || got.SenderName != "A B " || got.Text != "x\ny " || got.Segments != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	sms, err := compile(t, message.SMS, message.Content{Text: strings.Repeat("x", 161)}).Render(t.Context(), nil)
	if err != nil || sms.Segments != 2 {
		t.Errorf("%d segments, %v", sms.Segments, err)
	}
}

// With a lead only this lead's message is tried. Without, the sample lead is tried too, whose values count only for bounds.
func TestCheckTriesTheLeadOrASample(t *testing.T) {
	work := repeat("{% assign x = 'a' | append: x | append: x | append: x %}", 14) + "{{ x }}{{ x }}"
	for name, c := range map[string]struct {
		source string
		lead   *message.Lead
		want   string
	}{
		"work for the sample":       {"{% if city == 'City' %}" + work + "{% endif %}", nil, "renders to over"},
		"not for this lead":         {"{% if city == 'City' %}" + work + "{% endif %}", &message.Lead{City: "Linz"}, ""},
		"a value that does not fit": {"{{ city | divided_by: 2 }}", &message.Lead{City: "Linz"}, "cannot take this value"},
		"a value of the sample":     {"{{ city | divided_by: 2 }}", nil, ""},
		"a value that is missing":   {"{{ 2 | divided_by: 0 }}", nil, "cannot divide"},
	} {
		errs := compile(t, message.SMS, message.Content{Text: c.source}).Check(t.Context(), c.lead)
		if (len(errs) == 0) != (c.want == "") || len(errs) > 0 && (!strings.Contains(errs[0].Msg, c.want) || errs[0].Loc[0] != "content") {
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
	}
}

// The filters that this package implements itself.
func TestOwnFilters(t *testing.T) {
	lead := &message.Lead{Tags: []string{"b", "C", "b", "a"}, CustomFields: map[string]any{
		"rows":  []any{map[string]any{"n": "b"}, map[string]any{"n": "C"}, map[string]any{"n": "b"}, map[string]any{}},
		"mixed": []any{"b", 1.0, "a"},
	}}
	for source, want := range map[string]string{
		`{{ tags | uniq | join }}`:                                             "b C a",
		`{{ custom_fields.rows | uniq | map: "n" | join: "," }}`:               "b,C,",
		`{{ tags | sort_natural | join }}`:                                     "a b b C",
		`{{ custom_fields.rows | sort_natural: "n" | map: "n" | join: "," }}`:  ",b,b,C",
		`{{ custom_fields.mixed | sort_natural | join }}`:                      "b 1 a",
		`{{ "abcdef" | truncate: 6 }}`:                                         "abcdef",
		`{{ "abcdef" | truncate: 5 }}`:                                         "ab...",
		`{{ "abcdef" | truncate: 3 }}`:                                         "...",
		`{{ "abcdef" | truncate: 2 }}`:                                         "abcdef",
		`{{ "äöüäöü" | truncate: 5, "" }}`:                                     "äöüäö",
		`{{ "äöü" | truncate: 3, "" }}`:                                        "äöü",
		"{% assign x = 'abcdef\nghi' | truncate: 5 %}{{ x }}":                  "ab...\nghi",
		`{{ "a b c" | truncatewords: 2 }}`:                                     "a b...",
		`{{ "a b c" | truncatewords: 3 }}`:                                     "a b c...",
		`{{ "a b" | truncatewords: 4 }}`:                                       "a b",
		`{{ "one two" | truncatewords: 3 }}`:                                   "one two...",
		`{{ "a b" | truncatewords: 0 }}`:                                       "a b",
		"{% assign x = 'a <b\n> <i>c</i> <' | strip_html %}{{ x }}":            "a <b\n> c <",
		`{{ "a,b,,c," | split: "," | size }}`:                                  "5",
		`{{ "äb" | split: "" | join: "-" }}`:                                   "ä-b",
		`{{ "aaa" | replace: "a", "bb" }}{{ "aaa" | replace_first: "a", "" }}`: "bbbbbbaa",
	} {
		got, err := compile(t, message.SMS, message.Content{Text: source + " "}).Render(t.Context(), lead)
		if err != nil || got.Text != want+" " {
			t.Errorf("%s: %q, %v, want %q", source, got.Text, err, want)
		}
	}
}

// Filters of this package are bounded at their edge.
func TestFilterBounds(t *testing.T) {
	lead := func(n int) *message.Lead {
		return &message.Lead{CustomFields: map[string]any{"x": strings.Repeat("x", n), "f": strings.Repeat("y", n)}}
	}
	for name, c := range map[string]struct {
		source string
		n      int
		want   string
	}{
		"characters":           {`{{ custom_fields.x | split: "" | size }}`, maxElements, ""},
		"too many characters":  {`{{ custom_fields.x | split: "" | size }}`, maxElements + 1, "array of over"},
		"a date format":        {`{{ "2024-01-02" | date: custom_fields.f }}`, maxDateFormat, ""},
		"too long a format":    {`{{ "2024-01-02" | date: custom_fields.f }}`, maxDateFormat + 1, "date format is too long"},
		"concat over elements": {`{% assign a = custom_fields.x | split: "" %}{{ a | concat: a | size }}`, maxElements/2 + 1, "array of over"},
		"concat":               {`{% assign a = custom_fields.x | split: "" %}{{ a | concat: a | size }}`, maxElements / 2, ""},
		"concat one too many":  {`{% assign a = custom_fields.x | split: "" %}{% assign one = "z" | split: "," %}{{ a | concat: a | concat: one | size }}`, maxElements / 2, "array of over"},
	} {
		errs := compile(t, message.SMS, message.Content{Text: c.source}).Check(t.Context(), lead(c.n))
		if (len(errs) == 0) != (c.want == "") || len(errs) > 0 && !strings.Contains(errs[0].Msg, c.want) {
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
	}
	for source, want := range map[string]string{"{% assign a.b = 1 %}": "cannot set a property", "{% if a %}{% endfor %}": "endfor closes nothing"} {
		if _, errs := Compile(t.Context(), message.SMS, message.Content{Text: source}); len(errs) != 1 || !strings.Contains(errs[0].Msg, want) {
			t.Errorf("%s: %v, want %q", source, errs, want)
		}
	}
}

// Filters check the size of a result before they allocate it. The check after the call would notice too, but too late.
func TestFiltersAreBoundedBeforeTheyAllocate(t *testing.T) {
	made := func() string { return "made" }
	if s, err := bounded(MaxOutput, made); s != "made" || err != nil {
		t.Errorf("at the bound: %q, %v", s, err)
	}
	if s, err := bounded(MaxOutput+1, made); s != "" || !errors.Is(err, errTooLong) {
		t.Errorf("beyond the bound: %q, %v", s, err)
	}
	for sep, text := range map[string]string{"": strings.Repeat("x", maxElements), ",": strings.Repeat(",", maxElements-1)} {
		if parts, err := splitBounded(text, sep); len(parts) != maxElements || err != nil {
			t.Errorf("split by %q: %d parts, %v", sep, len(parts), err)
		}
		if parts, err := splitBounded(text+text[:1], sep); parts != nil || !errors.Is(err, errElements) {
			t.Errorf("split by %q beyond the bound: %d parts, %v", sep, len(parts), err)
		}
	}
}

// A template at a bound is accepted; TestFaultParsing has those beyond.
func TestCompileAcceptsTheBounds(t *testing.T) {
	for name, source := range map[string]string{
		"parentheses":       "{{ " + repeat("(", maxExprDepth) + "a" + repeat(")", maxExprDepth) + " }}",
		"words":             "{{ a" + repeat(".b", maxExprTokens-1) + " }}",
		"filters":           "{{ a" + repeat(" | upcase", maxFilters) + " }}",
		"tags and objects":  repeat("{{a}}", maxTokens),
		"blocks":            repeat("{% if a %}", maxNesting) + repeat("{% endif %}", maxNesting),
		"loops":             repeat("{% for a in b %}", maxLoops) + repeat("{% endfor %}", maxLoops),
		"loops in a row":    repeat("{% for a in b %}{% endfor %}", maxLoops+1),
		"a name":            "{% capture " + repeat("x", maxName) + " %}{% endcapture %}",
		"bytes of a tag":    "{{ '" + repeat("x", maxArgs-2) + "' }}",
		"bytes of all tags": repeat("{{ '"+repeat("x", maxArgs-2)+"' }}", maxAllArgs/maxArgs),
		"digits":            "{{ " + repeat("9", maxDigits) + "." + repeat("9", maxDecimals) + " }}",
	} {
		if _, errs := Compile(t.Context(), message.SMS, message.Content{Text: source}); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	for name, source := range map[string]string{
		"words":             "{{ a" + repeat(".b", maxExprTokens) + " }}",
		"a name":            "{% capture " + repeat("x", maxName+1) + " %}{% endcapture %}",
		"bytes of a tag":    "{{ '" + repeat("x", maxArgs-1) + "' }}",
		"bytes of all tags": repeat("{{ '"+repeat("x", maxArgs-2)+"' }}", maxAllArgs/maxArgs) + "{{ a }}",
		"digits":            "{{ " + repeat("9", maxDigits+1) + " }}",
		"decimals":          "{{ 1." + repeat("9", maxDecimals+1) + " }}",
		"a property":        "{% assign a.b = 1 %}",
		"the wrong end":     "{% if a %}{% endfor %}",
	} {
		if _, errs := Compile(t.Context(), message.SMS, message.Content{Text: source}); len(errs) != 1 {
			t.Errorf("%s, beyond the bound: %v", name, errs)
		}
	}
}

func TestLoops(t *testing.T) {
	lead := &message.Lead{Tags: []string{"a", "b", "c"}}
	for source, want := range map[string]string{
		`{% for t in tags %}{{ t }}{{ forloop.index }}{{ forloop.rindex0 }},{% endfor %}`:                               "a12,b21,c30,",
		`{% for t in tags %}{{ forloop.first }}-{{ forloop.last }},{% endfor %}`:                                        "true-false,false-false,false-true,",
		`{% for t in tags limit: 0 %}{{ t }}{% else %}none{% endfor %}`:                                                 "none",
		`{% for t in tags limit: 2 offset: 1 %}{{ t }}{% endfor %}`:                                                     "bc",
		`{% for t in tags offset: 1 %}{{ t }}{% endfor %}`:                                                              "bc",
		`{% for t in tags offset: 9 %}{{ t }}{% endfor %}`:                                                              "",
		`{% for t in tags reversed %}{{ t }}{% endfor %}`:                                                               "cba",
		`{% for t in tags %}{% if t == "b" %}{% break %}{% endif %}{{ t }}{% endfor %}`:                                 "a",
		`{% for t in tags %}{% if t == "b" %}{% continue %}{% endif %}{{ t }}{% endfor %}`:                              "ac",
		`{% assign t = "x" %}{% for t in tags %}{% endfor %}{{ t }}{{ forloop.index }}`:                                 "x",
		`{% for t in tags %}{% for u in tags limit: 1 %}{{ forloop.index }}{% endfor %}{{ forloop.index }}{% endfor %}`: "111213",
		`{% for t in tags %}{% cycle "x", "y" %}{% cycle "g": "1", "2" %}{% endfor %}`:                                  "x1y2x1",
		`{% case tags[1] %}{% when "a", "b" %}ab{% else %}other{% endcase %}`:                                           "ab",
		`{% case tags[2] %}{% when "a" or "b" %}ab{% else %}other{% endcase %}`:                                         "other",
		`{% unless tags %}none{% else %}some{% endunless %}`:                                                            "some",
		`{% if false %}1{% elsif nil %}2{% elsif 0 %}3{% else %}4{% endif %}`:                                           "3",
	} {
		got, err := compile(t, message.SMS, message.Content{Text: source + "."}).Render(t.Context(), lead)
		if err != nil || got.Text != want+"." {
			t.Errorf("%s: %q, %v, want %q", source, got.Text, err, want)
		}
	}
	tpl := compile(t, message.SMS, message.Content{Text: `x{% for t in tags %}{% else %}{% else %}{% endfor %}`})
	if errs := tpl.Check(t.Context(), lead); len(errs) != 1 || !strings.Contains(errs[0].Msg, "one else") {
		t.Errorf("two elses: %v", errs)
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"unclosed object":  {"a\nb {{ first_name", "line 2: {{ without }}"},
		"unclosed tag":     {"{% if x", "{% without %}"},
		"unclosed block":   {"{% if x %}a", "never closed"},
		"closes nothing":   {"{% endif %}", "closes nothing"},
		"range":            {"{% for i in (1..10) %}{% endfor %}", "ranges"},
		"range in assign":  {"{% assign x = (1..1000000000) %}", "ranges"},
		"range in object":  {"{{ (1..5) | join }}", "ranges"},
		"tablerow":         {"{% tablerow x in tags %}{% endtablerow %}", "tablerow is not allowed"},
		"include":          {"{% include 'x' %}", "include is not allowed"},
		"render":           {"{% render 'x' %}", "render is not allowed"},
		"three loops":      {strings.Repeat("{% for a in tags %}", 3) + strings.Repeat("{% endfor %}", 3), "nested more than 2"},
		"deep blocks":      {strings.Repeat("{% if a %}", 31) + strings.Repeat("{% endif %}", 31), "nested more than 30"},
		"unknown tag":      {"{% nonsense %}", "nonsense"},
		"unknown filter":   {"a\nb\n{{ x | nonsense }}", `line 3, column 8: the filter "nonsense"`},
		"too many objects": {strings.Repeat("{{a}}", maxTokens+1), "tags and objects"},
		"too long":         {strings.Repeat("x", MaxOutput+1), "bytes long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := Compile(t.Context(), message.SMS, message.Content{Text: c.source})
			if len(errs) != 1 || !strings.Contains(errs[0].Msg, c.want) || errs[0].Loc[0] != "content" {
				t.Errorf("got %v, want one error with %q", errs, c.want)
			}
		})
	}
}

func TestVerbatimBlocksAreLeftAlone(t *testing.T) {
	tpl := compile(t, message.SMS, message.Content{Text: "{% raw %}{{ not closed {% for %}{% endraw %}{% comment %}{{ x {% endcomment %}!"})
	got, err := tpl.Render(t.Context(), nil)
	if err != nil || got.Text != "{{ not closed {% for %}!" {
		t.Errorf("got %q, %v", got.Text, err)
	}
}

func TestRenderedTextIsChecked(t *testing.T) {
	long := &message.Lead{FirstName: strings.Repeat("é", 1601)}
	for name, c := range map[string]struct {
		typ     message.ChannelType
		content message.Content
		ok      bool
	}{
		"sms at its bound":   {message.SMS, message.Content{Text: strings.Repeat("é", message.MaxSMS) + "{{ company }}"}, true},
		"subject at bound":   {message.Email, message.Content{Subject: strings.Repeat("é", message.MaxSubject) + "{{ company }}", Text: "x"}, true},
		"direct at bound":    {message.InstagramDM, message.Content{Text: strings.Repeat("x", message.MaxInstagramBytes) + "{{ company }}"}, true},
		"direct in bytes":    {message.InstagramDM, message.Content{Text: strings.Repeat("é", message.MaxInstagramBytes/2) + "x{{ company }}"}, false},
		"empty sms":          {message.SMS, message.Content{Text: "{{ company }} "}, false},
		"long sms":           {message.SMS, message.Content{Text: "{{ first_name }}"}, false},
		"empty subject":      {message.Email, message.Content{Subject: "{{ company }}", Text: "x"}, false},
		"long subject":       {message.Email, message.Content{Subject: "{{ first_name }}", Text: "x"}, false},
		"empty email":        {message.Email, message.Content{Subject: "x", Text: "{{ company }}"}, false},
		"white html":         {message.Email, message.Content{Subject: "x", HTML: "{{ company }} \n"}, false},
		"html only":          {message.Email, message.Content{Subject: "x", Text: "{{ company }}", HTML: "<p>"}, true},
		"long instagram":     {message.InstagramDM, message.Content{Text: "{{ first_name }}"}, false},
		"picture only":       {message.InstagramDM, message.Content{Text: "{{ company }}", ImageURL: "https://x.test/y.png"}, true},
		"empty instagram dm": {message.InstagramDM, message.Content{Text: "{{ company }}"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, c.typ, c.content).Render(t.Context(), long)
			if (err == nil) != c.ok {
				t.Errorf("err = %v, want ok = %v", err, c.ok)
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	tpl, _ := Compile(b.Context(), message.Email, message.Content{Subject: "Hello {{ first_name }}", Text: "Hi {{ first_name }}, {{ company }} is great.", HTML: "<p>Hi {{ first_name }}</p>"})
	lead := &message.Lead{FirstName: "Ann", Company: "Acme", Email: "ann@acme.test", City: "Linz", Tags: []string{"a"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Render(b.Context(), lead); err != nil {
			b.Fatal(err)
		}
	}
}

// Errors quote neither the template nor the lead: the library would quote both.
func TestErrorsQuoteNothing(t *testing.T) {
	_, errs := Compile(t.Context(), message.Email, message.Content{Subject: `{{ "hunter2" | nonsense }}`, Text: `{% nonsense "hunter2" %}`, HTML: `{{ "hunter2" | }}`})
	if len(errs) == 0 {
		t.Error("nothing is wrong")
	}
	for _, e := range errs {
		if strings.Contains(e.Msg, "hunter2") || !strings.HasPrefix(e.Msg, "template: ") {
			t.Errorf("%q", e.Msg)
		}
	}
	tpl, errs := Compile(t.Context(), message.SMS, message.Content{Text: `{{ first_name | divided_by: 0 }}{{ first_name | date: first_name }}{{ first_name | slice: first_name }}`})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if _, err := tpl.Render(t.Context(), &message.Lead{FirstName: "hunter2"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
