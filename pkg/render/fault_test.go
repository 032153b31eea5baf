package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"herald/pkg/message"
)

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// within compiles, checks and renders for a lead with data up to its bounds, and returns the first mistake.
func within(t *testing.T, source string) error {
	t.Helper()
	for _, typ := range []message.ChannelType{message.SMS, message.Email} {
		u := measure(t, typ, source, fullLead())
		t.Logf("%s: %d ms, %d KiB", typ, u.cpu, u.memory>>10)
		if u.cpu > cpuBound || u.memory > memoryBound {
			t.Errorf("%s: %d ms of CPU and %d KiB", typ, u.cpu, u.memory>>10)
		}
	}
	tpl, errs := Compile(t.Context(), message.SMS, message.Content{Text: source})
	if len(errs) > 0 {
		return errors.New(errs[0].Msg)
	}
	b := &budget{until: forever(), done: t.Context().Done()} // which bound it is depends on no clock
	if errs := tpl.try(b, fullLead(), false); len(errs) > 0 {
		return errors.New(errs[0].Msg)
	}
	return nil
}

// Only the filters of standard Liquid are known, and an unknown one is refused with its name and line, wherever it stands.
func TestFaultFiltersThatAreNotAllowed(t *testing.T) {
	for _, name := range []string{"inspect", "type", "json", "nonsense", "safe"} {
		for where, source := range map[string]string{
			"object": "a\n{{ '\"' | %s }}", "assign": "a\n{%% assign x = 1 | upcase | %s: 2 %%}", "for": "a\n{%% for x in tags | %s %%}{%% endfor %%}",
			"hidden": "{%% if first_name contains 'Name' %%}\n{{ x | %s }}{%% endif %%}", "elsif": "{%% if a %%}\n{%% elsif (a | %s) == 1 %%}{%% endif %%}",
			"when": "{%% case 1 %%}\n{%% when (a | %s) %%}{%% endcase %%}", "index": "a\n{{ tags[(a | %s)] }}", "argument": "a\n{{ a | append: (a | %s) }}",
			"limit": "a\n{%% for x in tags limit: (a | %s) %%}{%% endfor %%}",
		} {
			_, errs := Compile(t.Context(), message.SMS, message.Content{Text: fmt.Sprintf(source, name)})
			place, _, _ := strings.Cut(source, "%s")
			column := len(strings.ReplaceAll(place[strings.LastIndexByte(place, '\n')+1:], "%%", "%")) + 1
			if want := fmt.Sprintf("template: line 2, column %d: the filter %q is not known or not allowed", column, name); len(errs) != 1 || errs[0].Msg != want {
				t.Errorf("%s in %s: got %v", name, where, errs)
			}
		}
	}
	_, errs := Compile(t.Context(), message.SMS, message.Content{Text: `{{ '"'` + repeat(" | inspect", 31) + " }}"})
	if len(errs) != 1 {
		t.Errorf("doubling by inspect is accepted: %v", errs)
	}
}

// Each grows without end if nothing bounds what a filter makes.
func TestFaultGrowth(t *testing.T) {
	double := func(step string) string { return `{% assign x = "0<&'é9" %}` + repeat(step, 40) + "{{ x }}" }
	grow := func(filter string) string {
		return "{% assign x = '<\n&' %}" + repeat("{% assign x = x"+repeat(" | "+filter, 20)+" %}", 100)
	}
	list := `{% assign a = "a,b" | split: "," %}`
	for name, c := range map[string]struct{ source, want string }{
		"append":              {double(`{% assign x = x | append: x %}`), "renders to over"},
		"prepend":             {double(`{% assign x = x | prepend: x %}`), "renders to over"},
		"replace":             {double(`{% assign x = x | replace: "0", x %}`), "renders to over"},
		"replace by nothing":  {double(`{% assign x = x | replace: "", x %}`), "renders to over"},
		"replace first":       {double(`{% assign x = x | replace_first: "0", x | append: x %}`), "renders to over"},
		"replace in one jump": {`{% assign x = custom_fields.words | replace: "w", "0123456789" %}{{ x | replace: "0", x }}`, "renders to over"},
		"capture":             {double(`{% capture x %}{{ x }}{{ x }}{% endcapture %}`), "renders to over"},
		"capture in a loop":   {`{% assign x = "0123456789" %}{% for t in tags %}{% capture x %}{{ x }}{{ x }}{% endcapture %}{% endfor %}`, "renders to over"},
		"captures within":     {`{% assign x = custom_fields.words | append: custom_fields.words %}` + repeat(`{% capture x %}{{ x }}{{ x }}`, 10) + repeat(`{% endcapture %}`, 10), ""},
		"join":                {double(`{% assign a = "a,b,c,d" | split: "," %}{% assign x = a | join: x %}`), "renders to over"},
		"join of long texts":  {list + `{% assign x = custom_fields.words | append: custom_fields.words | append: custom_fields.words %}` + repeat(`{% assign a = a | concat: a %}`, 12) + `{{ a | join: x }}`, "renders to over"},
		"split":               {`{% assign x = custom_fields.words | append: custom_fields.words %}{{ x | split: "" }}`, "array of over"},
		"split at once":       {long("x") + `{{ x | append: x | split: "" }}`, "array of over"},
		"split and join":      {`{% assign x = custom_fields.words %}` + repeat(`{% assign x = x | split: " " | join: "  " %}`, 100), "array of over"},
		"concat":              {list + repeat(`{% assign a = a | concat: a %}`, 40), "array of over"},
		"date":                {`{{ "2020-01-01" | date: "%999999999d" }}`, "date format is too long"},
		"date width":          {`{{ "2020-01-01" | date: "%-100000d" }}`, "date format is too long"},
		"many dates":          {`{% for a in custom_fields.list %}{{ "January 2, 2006" | date: "` + repeat("%c", 100) + `" }}{% endfor %}`, "steps"},
		"url_encode":          {grow("url_encode"), "steps"},
		"escape":              {grow("escape"), "steps"},
		"url_encode at once":  {long("<") + `{{ x | url_encode }}`, "renders to over"},
		"escape at once":      {long("<") + `{{ x | escape }}`, "renders to over"},
		"escape_once at once": {long("'") + `{{ x | escape_once }}`, "renders to over"},
		"newline_to_br":       {long("\n") + `{{ x | newline_to_br }}`, "renders to over"},
		"text of an array":    {list + `{% assign x = custom_fields.text | append: custom_fields.text %}{% assign b = x | split: "no" %}` + repeat(`{% assign b = b | concat: b %}`, 13) + `{{ b | append: "x" }}`, ""},
		"contains an array":   {`{% assign b = custom_fields.text | split: "no" %}` + repeat(`{% assign b = b | concat: b %}`, 12) + `{% if first_name contains b %}{% endif %}`, ""},
		"text of many texts":  {arrays(`{{ b | append: "x" }}`), "renders to over"},
		"number of an array":  {arrays(`{{ b | abs }}`), "renders to over"},
		"divided by an array": {arrays(`{{ 1 | divided_by: b }}`), "renders to over"},
		"sort by an array":    {arrays(`{{ tags | sort: b }}`), "renders to over"},
		"date of an array":    {arrays(`{{ b | date }}`), "renders to over"},
		"date of a long text": {`{{ custom_fields.words | date }}`, ""},
		"empty loops":         {`{% for x in custom_fields.list %}{% for y in custom_fields.list %}{% endfor %}{% endfor %}`, "steps"},
		"output":              {`{% assign x = custom_fields.words %}` + repeat("{{ x }}", 400), "renders to over"},
		"variables":           {manyVariables(), "in variables"},
		"text on the way":     {`{% assign x = custom_fields.words %}{% for t in custom_fields.list %}{% assign y = x | append: "0" %}{% endfor %}`, "on the way"},
	} {
		t.Run(name, func(t *testing.T) {
			err := within(t, c.source)
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// arrays makes an array that holds a text of 8 KB 512 times: 4 MB once it is printed.
func arrays(use string) string {
	return `{% assign b = custom_fields.words | split: "no" %}` + repeat("{% assign b = b | concat: b %}", 9) + use
}

// long makes a text of half a megabyte.
func long(s string) string {
	return `{% assign x = "` + repeat(s, 16_000) + `" %}` + repeat(`{% assign x = x | append: x %}`, 5)
}

func manyVariables() string {
	var b strings.Builder
	b.WriteString(`{% assign x = custom_fields.words %}{% capture y %}` + repeat("{{ x }}", 100) + "{% endcapture %}")
	for i := range 10 {
		fmt.Fprintf(&b, "{%% assign v%d = y %%}", i)
	}
	return b.String()
}

// Each does much work in few tags.
func TestFaultWork(t *testing.T) {
	big := `{% assign x = custom_fields.words %}{% capture x %}` + repeat("{{ x }}", 100) + `{% endcapture %}`
	loop := func(body string) string {
		return big + "{% for t in custom_fields.list %}" + body + "{% endfor %}"
	}
	chain := func(filter string) string { return "{{ x" + repeat(" | "+filter, 20) + " }}" }
	for name, source := range map[string]string{
		"url_encode":            loop(chain("url_encode | url_decode")),
		"sort":                  `{% assign a = custom_fields.list %}` + repeat("{{ a"+repeat(" | sort", 20)+" | size }}", 1_000),
		"sorts":                 repeat("{{ custom_fields.list | sort | size }}", 4_000),
		"natural sorts":         repeat("{{ custom_fields.list | sort_natural | size }}", 4_000),
		"sorts by a property":   repeat("{{ custom_fields.rows | sort: 'name' | size }}", 4_000),
		"sort by a property":    `{% assign a = custom_fields.rows %}` + repeat("{{ a"+repeat(" | sort: 'name'", 20)+" | size }}", 1_000),
		"sort natural":          `{% assign a = custom_fields.list %}` + repeat("{{ a"+repeat(" | sort_natural", 20)+" | size }}", 1_000),
		"sort long texts":       big + `{% assign a = x | split: "no" %}` + repeat("{% assign a = a | concat: a %}", 12) + "{{ a | sort | size }}",
		"uniq":                  loop(`{{ custom_fields.rows | uniq | size }}`),
		"map":                   loop(`{{ custom_fields.rows | map: "name" | size }}`),
		"compact":               loop(`{{ custom_fields.list | compact | reverse | size }}`),
		"upcase":                loop(`{{ first_name` + repeat(" | upcase | downcase", 10) + ` }}`),
		"escape_once":           loop(`{{ custom_fields.text` + repeat(" | escape_once", 20) + ` | size }}`),
		"strip_html":            `{% assign x = custom_fields.words | replace: " ", "<" | replace: "w", "<<<<<<<<" %}` + repeat("{{ x | strip_html | size }}", 4_000),
		"truncatewords":         loop(`{{ x | truncatewords: 1000, "" | size }}`),
		"truncate":              loop(`{{ x | truncate: 100000 | size }}`),
		"slice":                 loop(`{{ x | slice: 400000, 1 }}`),
		"size":                  loop(`{{ x | size }}`),
		"split":                 loop(`{{ custom_fields.words | split: " " | size }}`),
		"contains":              loop(`{% if x contains "wx" or x contains "wy" or x contains "wz" %}{% endif %}`),
		"equal texts":           big + `{% assign y = x | append: "1" %}{% assign x = x | append: "2" %}{% for t in custom_fields.list %}{% if x == y or x == y or x == y %}{% endif %}{% endfor %}`,
		"equal arrays":          loop(`{% if custom_fields.list == custom_fields.list %}{% endif %}`),
		"array contains":        loop(`{% if custom_fields.list contains "none" %}{% endif %}`),
		"index by a long text":  loop(`{{ custom_fields[x] }}`),
		"many whens":            `{% for t in custom_fields.list %}{% case t %}` + repeat("{% when 'a', 'b', 'c', 'd', 'e', 'f', 'g' %}", 3_000) + `{% endcase %}{% endfor %}`,
		"many elsifs":           `{% for t in custom_fields.list %}{% if a == 1 %}` + repeat("{% elsif a == 1 or a == 2 or a == 3 or a == 4 %}", 3_000) + `{% endif %}{% endfor %}`,
		"long conditions":       `{% for t in custom_fields.list %}{% for u in tags %}{% if a` + repeat(" or a == 1", 45) + ` %}{% endif %}{% endfor %}{% endfor %}`,
		"empty loops":           `{% for x in custom_fields.list %}{% for y in custom_fields.list %}{% endfor %}{% endfor %}`,
		"empty elements":        `{% assign a = custom_fields.rows | map: "none" %}{% for x in custom_fields.list %}{{ a }}{{ a }}{{ a }}{% endfor %}`,
		"many small objects":    `{% for x in custom_fields.list %}` + repeat("{{a}}", 4_000) + `{% endfor %}`,
		"many plain objects":    repeat("{{ company }}", 5_000),
		"maps as text":          loop(`{{ custom_fields.rows | size }}{{ custom_fields | append: "x" | size }}`),
		"trimmed white space":   `{% assign s = custom_fields.blank %}{% capture s %}` + repeat("{{ s }}", 100) + `{% endcapture %}{% for t in custom_fields.list %}{{- s -}}{{- s -}}{% endfor %}`,
		"trimmed text":          `{% for t in custom_fields.list %}{{- t -}}` + repeat(" ", 900_000) + `{{- t -}}{% endfor %}`,
		"breaks":                `{% for x in custom_fields.list %}{% for y in custom_fields.list %}` + repeat("{% if true %}", 20) + "{% break %}" + repeat("{% endif %}", 20) + `{% endfor %}{% endfor %}`,
		"html":                  `{% for x in custom_fields.list %}{{ custom_fields.text }}{% endfor %}`,
		"captures":              `{% for x in custom_fields.list %}{% capture y %}{{ custom_fields.text }}{% endcapture %}{% endfor %}`,
		"concat in loops":       `{% for x in custom_fields.list %}{% assign y = custom_fields.list | concat: custom_fields.list %}{% endfor %}`,
		"loops over maps":       `{% for x in custom_fields.list %}{% for p in custom_fields %}{% endfor %}{% endfor %}`,
		"dates that are none":   `{% for x in custom_fields.list %}{% assign y = 5 | date: "%c%c%c%c%c%c%c%c%c%c" %}{% endfor %}`,
		"numbers":               `{% for x in custom_fields.list %}{{ 1` + repeat(" | times: 3", 20) + ` }}{% endfor %}`,
		"numbers of long texts": loop(`{{ x | plus: 1 }}{{ x | times: x }}`),
	} {
		t.Run(name, func(t *testing.T) { t.Log(within(t, source)) })
	}
}

// What cannot be a template is refused before it costs anything.
func TestFaultParsing(t *testing.T) {
	const mb = MaxOutput
	fill := func(s string) string { return repeat(s, mb/len(s)) }
	object := func(s string) string { return "{{ " + repeat(s, (mb-10)/len(s)) + " }}" }
	for name, c := range map[string]struct{ source, want string }{
		"parentheses":          {object("("), "over 16384 bytes in one"},
		"some parentheses":     {"{{ " + repeat("(", 17) + "a" + repeat(")", 17) + " }}", "nested more than 16"},
		"parentheses in if":    {"{% if " + repeat("(", 800_000) + " %}{% endif %}", "over 16384 bytes in one"},
		"properties":           {object("a.b"), "over 16384 bytes in one"},
		"some properties":      {"{{ a" + repeat(".b", 300) + " }}", "over 200 words"},
		"indexes":              {"{{ " + repeat("a[", 17) + "b" + repeat("]", 17) + " }}", "nested more than 16"},
		"filters":              {"{{ a" + repeat(" | upcase", 21) + " }}", "over 20 filters"},
		"filters in arguments": {"{{ a" + repeat(" | append: (b | upcase)", 11) + " }}", "over 20 filters"},
		"many filters":         {"{{ a" + repeat(" | url_encode", 2_000) + " }}", "over 16384 bytes"},
		"many sorts":           {"{% for x in tags" + repeat(" | sort", 1_000) + " %}{% endfor %}", "over 20 filters"},
		"whens":                {"{% case a %}{% when 1" + repeat(",1", 1_000) + " %}{% endcase %}", "over 200 words"},
		"whens together":       {"{% case a %}" + repeat("{% when 1"+repeat(",1", 90)+" %}", 4_900) + "{% endcase %}", "over 262144 bytes in all"},
		"cycle":                {"{% cycle 'a'" + repeat(",'a'", 1_000) + " %}", "over 200 words"},
		"a long number":        {object("9"), "over 16384 bytes"},
		"a number":             {"{{ 9999999999999999999 }}", "over 18 digits"},
		"decimals":             {"{{ 1." + repeat("9", 31) + " }}", "over 30 decimals"},
		"a long text":          {"{{ '" + repeat("x", 900_000) + "' }}", "over 16384 bytes"},
		"a long name":          {object("x"), "over 16384 bytes"},
		"a long filter":        {"{{ a | " + repeat("x", 16_000) + " }}", "a name of 16000 bytes"},
		"a long tag":           {"{% " + repeat("x", 900_000) + " %}", "a tag is not known"},
		"quotes":               {object("'"), "over 16384 bytes"},
		"unclosed objects":     {fill("{{ "), "{{ without }}"},
		"unclosed tags":        {fill("{% "), "{% without %}"},
		"tags in an object":    {fill("{{ {%x%}"), "{{ without }}"},
		"tags in raw":          {"{% raw %}" + repeat("{{ {%x%}", mb/8-10) + "{% endraw %}", ""},
		"raw of braces":        {"{% raw %}" + repeat("{", mb-30) + "{% endraw %}", ""},
		"unclosed raw":         {repeat("{%raw%}", mb/7), "{% raw %} is never closed"},
		"ends of raw":          {"{% raw %}" + repeat("{% endraw ", mb/10-10), "{% raw %} is never closed"},
		"comment of tags":      {"{% comment %}" + repeat("{% if ", mb/6-20) + "{% endcomment %}", ""},
		"many comments":        {fill("{%comment%}{%endcomment%}"), "over 5000 tags"},
		"braces":               {fill("{"), "{{ without }}"},
		"single braces":        {"{{ a }}" + repeat("{ ", mb/2-10), ""},
		"braces between":       {repeat("{ { { { { { { { {{a}}", 4_999), ""},
		"closing braces":       {"{{ a }}" + repeat("}", mb-10), ""},
		"per cents":            {"{% if a " + repeat("%", mb-10), "{% without %}"},
		"per cents in pairs":   {"{% if a " + repeat("%", 900_001) + "} %}{% endif %}", "over 16384 bytes"},
		"hyphens":              {fill("{{-"), "{{ without }}"},
		"empty objects":        {fill("{{}}"), "syntax error"},
		"empty tags":           {fill("{%%}"), "{% without %}"},
		"lines":                {"{{ a" + repeat("\n", mb-10) + "}}", ""},
		"white space":          {"{{" + repeat(" ", mb-10) + "a }}", ""},
		"white space in tags":  {repeat("{%"+repeat(" ", 10_000), 100), "{% without %}"},
		"names of letters":     {"{{ " + repeat("é", 7_000) + " }}", ""},
		"no letters":           {"{{ \u00a7 }}", "not a letter"},
		"selectors":            {"{{ %assign x = 1 }}", "syntax error"},
		"capture of budget":    {"{% capture " + stepBinding + " %}{% endcapture %}", "capture takes one name"},
		"blocks":               {fill("{% if a %}"), "nested more than 30"},
		"elses":                {"{% if a %}" + repeat("{% else %}", 5_000) + "{% endif %}", "over 5000 tags"},
	} {
		t.Run(name, func(t *testing.T) {
			err := within(t, c.source)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Work behind a condition that no value meets is found, because the templates are tried with a value for every field too.
func TestFaultConditionsHideNoWork(t *testing.T) {
	work := `{% assign x = "0123456789" %}` + repeat(`{% assign x = x | append: x %}`, 30)
	for name, condition := range map[string]string{
		"text": "first_name contains 'Name'", "any text": "company", "full name": "full_name != nil", "id": "id", "tags": "tags.size > 0", "tag": "tags[0]",
		"custom field": "custom_fields.plan", "custom field by index": "custom_fields['plan'] contains 'Plan'", "nothing": "first_name == nil",
	} {
		tpl, errs := Compile(t.Context(), message.SMS, message.Content{Text: "{% if " + condition + " %}" + work + "{% endif %}"})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		errs = tpl.Check(t.Context(), nil)
		if len(errs) != 1 || !strings.Contains(errs[0].Msg, "renders to over") && !strings.Contains(errs[0].Msg, errTime.Error()) { // a busy machine
			t.Errorf("%s: got %v", name, errs)
		}
	}
	for _, source := range []string{`{{ custom_fields.renewal | date: "%Y" }}`, `{% if company %}{{ company | divided_by: 2 }}{% endif %}`} {
		tpl, _ := Compile(t.Context(), message.SMS, message.Content{Text: source})
		if errs := tpl.Check(t.Context(), nil); len(errs) > 0 {
			t.Errorf("%s: the sample's values are held against a template: %v", source, errs)
		}
	}
	tpl, _ := Compile(t.Context(), message.SMS, message.Content{Text: "{% if city == 'Linz' %}" + work + "{% endif %}x"})
	if errs := tpl.Check(t.Context(), nil); len(errs) > 0 {
		t.Fatal(errs)
	}
	if _, err := tpl.Render(t.Context(), &message.Lead{City: "Linz"}); !errors.Is(err, errTooLong) {
		t.Errorf("at delivery: got %v", err)
	}
	if _, err := tpl.Render(t.Context(), &message.Lead{City: "Graz"}); err != nil {
		t.Errorf("another lead's message fails: %v", err)
	}
}

// Work stops when the caller has gone, and when time is up, within filters too.
func TestFaultWorkStops(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	source := `{% for t in tags %}{{ t | upcase }}{% endfor %}`
	if _, errs := Compile(gone, message.SMS, message.Content{Text: source}); len(errs) != 1 || !strings.Contains(errs[0].Msg, "cancelled") {
		t.Errorf("Compile: got %v", errs)
	}
	tpl := compile(t, message.SMS, message.Content{Text: source})
	lead := &message.Lead{Tags: []string{"a"}}
	if errs := tpl.Check(gone, lead); len(errs) != 1 || !strings.Contains(errs[0].Msg, "cancelled") {
		t.Errorf("Check: got %v", errs)
	}
	if _, err := tpl.Render(gone, lead); !errors.Is(err, context.Canceled) {
		t.Errorf("Render: got %v", err)
	}
	chain := compile(t, message.SMS, message.Content{Text: "{{ tags" + repeat(" | reverse", 20) + " }}"})
	for name, b := range map[string]*budget{"late": {until: time.Now().Add(-time.Second)}, "gone": {until: forever(), done: gone.Done()}} {
		_, err := chain.parts[0].render(b, lead.Bindings(chain.uses))
		if want := map[string]error{"late": errTime, "gone": errGone}[name]; !errors.Is(err, want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// The clock is read between the filters of one object.
	b := &budget{until: forever(), done: t.Context().Done()}
	if err := b.charge(1); err != nil {
		t.Fatal(err)
	}
	b.until = time.Now().Add(-time.Second)
	b.vars = map[string]any{"x": repeat("x", 20<<10)}
	f := chain.parts[0].exprs(t, "{{ x"+repeat(" | strip", 20)+" }}")
	if _, err := f.eval(b); !errors.Is(err, errTime) || b.steps > 3*clockSteps {
		t.Errorf("after %d steps: %v", b.steps, err)
	}
}

// exprs parses one object.
func (f *field) exprs(t *testing.T, source string) expr {
	t.Helper()
	c := newCompiler(plainText, nil)
	if err := c.scan(source); err != nil {
		t.Fatal(err)
	}
	return c.entries[0].exprs[0]
}
