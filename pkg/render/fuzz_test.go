package render

import (
	"testing"
	"time"

	"herald/pkg/message"
)

// Compiling and rendering any template ends soon, with text within the bounds or with an error.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		`Hi {{ first_name | default: "there" }}`, `{% for t in tags %}{{ t }}{% endfor %}`, `{% if a == 1 %}x{% elsif b %}y{% else %}z{% endif %}`,
		`{{`, `{% for i in (1..1000000000) %}x{% endfor %}`, `{% assign x = "a" | append: x %}{{ x | replace: "a", "aaaaaaaaaa" }}`,
		`{% capture c %}{{ c }}{{ c }}{% endcapture %}`, `{{ "x" | times: 1e308 }}`, `{% case x %}{% when 1 %}{% endcase %}`, "{{ custom_fields['k'] | date: '%Y' }}", "{%- raw -%}{{{% endraw %}",
	} {
		f.Add(s, s)
	}
	lead := &message.Lead{FirstName: "Ann", Tags: []string{"a", "b"}, CustomFields: map[string]any{"plan": "gold", "n": 3.5}, CreatedAt: time.Unix(0, 0)}
	f.Fuzz(func(t *testing.T, subject, text string) {
		began := time.Now()
		for _, typ := range message.ChannelTypes {
			c := message.Content{Text: text}
			if typ == message.Email {
				c.Subject, c.HTML = subject, text
			}
			tpl, errs := Compile(t.Context(), typ, c)
			if len(errs) > 0 || len(tpl.Check(t.Context(), nil)) > 0 {
				continue
			}
			r, err := tpl.Render(t.Context(), lead)
			if err == nil && (len(r.Text) > 1<<20 || len(r.HTML) > 1<<20) {
				t.Errorf("%d and %d bytes came out", len(r.Text), len(r.HTML))
			}
		}
		if d := time.Since(began); d > 5*time.Second { // a hang, not a figure
			t.Errorf("it took %s", d)
		}
	})
}
