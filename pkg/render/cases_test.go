package render

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// renderedAs renders a source as the text and as the HTML of an email.
func renderedAs(t *testing.T, kind engineKind, source string, lead *message.Lead) string {
	t.Helper()
	c := message.Content{Subject: "s", Text: "|" + source + "|"}
	if kind == escapedHTML {
		c = message.Content{Subject: "s", HTML: "|" + source + "|"}
	}
	got, err := compile(t, message.Email, c).Render(t.Context(), lead)
	if err != nil {
		t.Errorf("%s: %v", source, err)
	}
	return strings.TrimPrefix(strings.TrimSuffix(got.Text+got.HTML, "|"), "|")
}

// What standard Liquid 5 makes of these templates.
func TestCaseTextsAsStandardLiquid(t *testing.T) {
	lead := &message.Lead{
		FirstName: "élan", Company: "A & B", Title: "MY GREAT title",
		CustomFields: map[string]any{"box": map[string]any{"city": "Oslo", "tags": []any{"<a>"}}, "renewal": "31/03/2024", "soon": "soon", "empty": "", "epoch": "1706695500", "two": "1/2/2024", "null": nil},
	}
	year := time.Now().UTC().Format("2006")
	for source, want := range map[string]string{
		"{{ first_name | capitalize }}":                                       "Élan",
		"{{ title | capitalize }}":                                            "My great title",
		"{{ '' | capitalize }}{{ nothing | capitalize }}":                     "",
		"{{ custom_fields.renewal | date: '%Y-%m-%d' }}":                      "2024-03-31",
		"{{ custom_fields.nothing | date: '%Y' }}":                            "",
		"{{ custom_fields.null | date: '%Y' }}":                               "",
		"{{ custom_fields.empty | date: '%Y' }}":                              "",
		"{{ custom_fields.nothing | date: '%Y' | default: 'soon' }}":          "soon",
		"{{ custom_fields.empty | date: '%Y' | default: 'soon' }}":            "soon",
		"{{ custom_fields.soon | date: '%Y' }}":                               "soon",
		"{{ custom_fields.two | date: '%Y' }}":                                "1/2/2024",
		"{{ custom_fields.epoch | date: '%d.%m.%Y' }}":                        "31.01.2024",
		"{{ 1706695500 | date: '%d.%m.%Y' }}":                                 "31.01.2024",
		"{{ 'today' | date: '%Y' }} {{ 'now' | date: '%Y' }}":                 year + " " + year,
		"{{ '2024-01-31' | date: '%b %d, %Y' }}":                              "Jan 31, 2024",
		"{{ custom_fields.box }}":                                             `{"city":"Oslo","tags":["<a>"]}`,
		"{{ first_name\n  | default: 'x'\n}}":                                 "élan",
		"{% echo first_name | upcase %}":                                      "ÉLAN",
		"{% # a comment %}a{%- # another -%} b":                               "ab",
		"{% increment n %}{% increment n %}{{ n }}{% decrement n %}":          "011",
		"{% decrement n %}{% decrement n %}":                                  "-1-2",
		"{% liquid\n assign x = 'a'\n # no\n if x == 'a'\n echo x\n endif %}": "a",
		"a {%- liquid\n assign x = 1 -%} b":                                   "ab",
	} {
		if got := renderedAs(t, plainText, source, lead); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}

// Templates know every field that filters know. A field without a value is absent.
func TestCaseEveryFieldOfTheLead(t *testing.T) {
	at := time.Date(2024, 1, 31, 10, 30, 0, 0, time.UTC)
	lead := &message.Lead{FirstName: "Ann", LastName: "Lee", Tags: []string{"vip", "news"}, CustomFields: map[string]any{"plan": "gold"}, CreatedAt: at, UpdatedAt: at.AddDate(1, 0, 0)}
	for source, want := range map[string]string{
		"{{ created_at }}":                                                  "2024-01-31T10:30:00Z",
		"{{ created_at | date: '%d.%m.%Y %H:%M' }}":                         "31.01.2024 10:30",
		"{{ updated_at | date: '%Y' }}":                                     "2025",
		"{{ last_contacted_at | date: '%Y' | default: 'never' }}":           "never",
		"{% if last_contacted_at %}known{% else %}new{% endif %}":           "new",
		"{% if created_at < '2024-02-01' %}January{% endif %}":              "January",
		"{{ full_name }}, {{ custom_fields.plan }}, {{ tags | join: '+' }}": "Ann Lee, gold, vip+news",
	} {
		if got := renderedAs(t, plainText, source, lead); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
	lead.LastContactedAt = &at
	if got := renderedAs(t, escapedHTML, "{{ last_contacted_at | date: '%B %Y' }}", lead); got != "January 2024" {
		t.Errorf("%q", got)
	}
	for _, field := range audience.Fields() {
		if !slices.Contains(message.BindingNames(), field) {
			t.Errorf("templates do not know %s", field)
		}
	}
	// The trial at acceptance has a value for each of them, so that no condition hides work.
	tpl := compile(t, message.Email, message.Content{Subject: "s", Text: "{{ created_at }}"})
	if l := tpl.sample(); l.CreatedAt.IsZero() || l.UpdatedAt.IsZero() || l.LastContactedAt == nil {
		t.Errorf("%+v", l)
	}
}

// The values of headers are templates: one line each, and none for a lead that lacks the value. Templates share nothing between
// leads, and headers without templates are sent as they are.
func TestCaseHeadersAreRendered(t *testing.T) {
	tpl := compile(t, message.Email, message.Content{Subject: "s", Text: "t", Headers: []message.Header{
		{Name: "X-City", Value: "{{ city }}"}, {Name: "X-Company", Value: " {{ company }} "}, {Name: "X-Wave", Value: " 2"},
	}})
	for _, c := range []struct {
		lead message.Lead
		want []message.Header
	}{
		{message.Lead{City: "Oslo\r\nBcc: x@y.test", Company: "A & B"}, []message.Header{{Name: "X-City", Value: "Oslo  Bcc: x@y.test"}, {Name: "X-Company", Value: "A & B"}, {Name: "X-Wave", Value: "2"}}},
		{message.Lead{}, []message.Header{{Name: "X-Wave", Value: "2"}}},
		{message.Lead{City: "Bergen"}, []message.Header{{Name: "X-City", Value: "Bergen"}, {Name: "X-Wave", Value: "2"}}},
	} {
		got, err := tpl.Render(t.Context(), &c.lead)
		if err != nil || !cmp.Equal(got.Headers, c.want) {
			t.Errorf("%+v, %v, want %+v", got.Headers, err, c.want)
		}
	}
	if _, err := tpl.Render(t.Context(), &message.Lead{City: strings.Repeat("x", message.MaxHeaderValue+1)}); err == nil || !strings.Contains(err.Error(), "a header has over 1000 characters") {
		t.Errorf("a long header: %v", err)
	}
	if _, errs := Compile(t.Context(), message.Email, message.Content{Headers: []message.Header{{Name: "X-A", Value: "a"}, {Name: "X-B", Value: "{{ nope"}}}); len(errs) != 1 || !cmp.Equal(errs[0].Loc, []any{"headers", "X-B"}) {
		t.Errorf("a header that does not parse: %+v", errs)
	}
	plain, err := compile(t, message.Email, message.Content{Subject: "s", Text: "t", ReplyTo: &message.Mailbox{Email: "a@b.test"}, Headers: []message.Header{{Name: "X-A", Value: "a"}}}).Render(t.Context(), nil)
	if err != nil || plain.ReplyTo.Email != "a@b.test" || !cmp.Equal(plain.Headers, []message.Header{{Name: "X-A", Value: "a"}}) {
		t.Errorf("%+v, %v", plain, err)
	}
}

// HTML is escaped once, however a template asks for it.
func TestCaseHTMLIsEscapedOnce(t *testing.T) {
	lead := &message.Lead{Company: "A & B", CustomFields: map[string]any{"once": "A &amp; B & C", "lines": "a & b\nc", "box": map[string]any{"a": "<b>"}}}
	for source, want := range map[string]string{
		"{{ company }}":                                                               "A &amp; B",
		"{{ company | escape }}":                                                      "A &amp; B",
		"{{ company | escape | escape }}":                                             "A &amp; B",
		"{{ company | escape_once }}":                                                 "A &amp; B",
		"{{ custom_fields.once | escape_once }}":                                      "A &amp; B &amp; C",
		"{{ custom_fields.lines | newline_to_br }}":                                   "a &amp; b<br />\nc",
		"{{ custom_fields.lines | escape | newline_to_br }}":                          "a &amp; b<br />\nc",
		"{% capture x %}<i>{{ company }}</i>{% endcapture %}{{ x }}":                  "<i>A &amp; B</i>",
		"{% capture x %}{{ company }}{% endcapture %}{{ x | escape }}":                "A &amp; B",
		"{% capture x %}b{% endcapture %}{% if x == 'b' %}same{% endif %}":            "same",
		"{% capture x %}b{% endcapture %}{% case x %}{% when 'b' %}same{% endcase %}": "same",
		"{% capture x %}b{% endcapture %}{{ x.size }}{{ x | upcase }}":                "1B",
		"{% capture x %}ab{% endcapture %}{% if x contains 'b' %}yes{% endif %}":      "yes",
		"{{ nothing | escape }}{{ nothing | newline_to_br }}":                         "",
		"{{ custom_fields.box }}":                                                     "{&#34;a&#34;:&#34;&lt;b&gt;&#34;}",
	} {
		if got := renderedAs(t, escapedHTML, source, lead); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}

// The result of a template is checked to be valid text before it is sent.
func TestCaseRenderedTextIsValid(t *testing.T) {
	tpl := compile(t, message.Email, message.Content{Subject: "s", Text: "{{ '%ff' | url_decode }}"})
	if got, err := tpl.Render(t.Context(), nil); err == nil || err.Error() != "the rendered text is not valid UTF-8" {
		t.Errorf("%q, %v", got.Text, err)
	}
}

// Mistakes are named by the line and the column of the text in which they are.
func TestCaseMistakesHaveAPlace(t *testing.T) {
	for source, want := range map[string]string{
		"a\nb\n{{ city | upcas }}":                 `template: line 3, column 11: the filter "upcas" is not known or not allowed`,
		"a\n{{ city\n | upcas }}":                  `template: line 3, column 4: the filter "upcas" is not known or not allowed`,
		"é {{ \u201ccity\u201d }}":                 "template: line 1, column 6: syntax error: \u201c is a typographic quote; use ' or \"",
		"{{ city |\u00a0upcase }}":                 "template: line 1, column 10: syntax error: U+00A0 is a space or an invisible character that templates do not know; use a plain space",
		"{{ 'it\\'s' }}":                           "template: line 1, column 9: syntax error: a backslash does not escape a quote; put the text into the other kind of quotes",
		"{% if city %}\n{% assign x y %}":          "template: line 2, column 13: syntax error",
		"{% liquid\n assign x = 1\n echo x | y %}": `template: line 3, column 11: the filter "y" is not known or not allowed`,
		"{% liquid\n raw %}":                       "template: line 2: the tag raw is not allowed inside liquid",
		"a\n{{ city\n{{ x }}":                      "template: line 2: {{ without }}",
	} {
		_, errs := Compile(t.Context(), message.Email, message.Content{Subject: "s", Text: source})
		if len(errs) != 1 || errs[0].Msg != want || !cmp.Equal(errs[0].Loc, []any{"content"}) {
			t.Errorf("%q: %v, want %s", source, errs, want)
		}
	}
	wrong := "a\nb\n{{ city | upcas }}"
	_, errs := Compile(t.Context(), message.Email, message.Content{Subject: wrong, HTML: wrong, SenderName: "{{ city | upcas }}"})
	for i, loc := range []string{"subject", "html_content", "sender_name"} {
		if len(errs) != 3 || !cmp.Equal(errs[i].Loc, []any{loc}) || !strings.HasPrefix(errs[i].Msg, "template: line "+[]string{"3", "3", "1"}[i]+", column 11: ") {
			t.Errorf("%s: %v", loc, errs)
		}
	}
}

// The name of the sender and the addresses of pictures are templates like the rest, and their results are checked.
func TestCaseNamesAndURLsAreRendered(t *testing.T) {
	lead := &message.Lead{Company: "Acme\nLtd", FirstName: "a b", CustomFields: map[string]any{"url": "https://x.test/a.jpg"}}
	mail, err := compile(t, message.Email, message.Content{Subject: "s", Text: "t", SenderName: "{{ company }} team"}).Render(t.Context(), lead)
	if err != nil || mail.SenderName != "Acme Ltd team" {
		t.Errorf("%q, %v", mail.SenderName, err)
	}
	given := message.Content{Text: "t", MediaURLs: []string{"https://x.test/{{ first_name | url_encode }}.jpg", "{{ custom_fields.url }}", "https://x.test/b.jpg"}}
	if errs := message.ValidateContent(message.SMS, &given); len(errs) != 0 {
		t.Error(errs)
	}
	tpl := compile(t, message.SMS, given)
	text, err := tpl.Render(t.Context(), lead)
	if d := cmp.Diff([]string{"https://x.test/a+b.jpg", "https://x.test/a.jpg", "https://x.test/b.jpg"}, text.MediaURLs); d != "" || err != nil {
		t.Error(d, err)
	}
	lead.ID = uuid.MustParse("550e8400-e29b-41d4-a716-446655440001")
	picture, err := compile(t, message.SMS, message.Content{Text: "t", MediaURLs: []string{"https://x.test/{{ id }}.jpg"}}).Render(t.Context(), lead)
	if d := cmp.Diff([]string{"https://x.test/550e8400-e29b-41d4-a716-446655440001.jpg"}, picture.MediaURLs); d != "" || err != nil {
		t.Error(d, err)
	}
	if !strings.Contains(given.MediaURLs[0], "{{") || !strings.Contains(tpl.Content().MediaURLs[0], "{{") {
		t.Error("rendering changed the template")
	}
	dm, err := compile(t, message.InstagramDM, message.Content{ImageURL: "{{ custom_fields.url }}"}).Render(t.Context(), lead)
	if err != nil || dm.ImageURL != "https://x.test/a.jpg" {
		t.Errorf("%q, %v", dm.ImageURL, err)
	}
	for name, c := range map[string]struct {
		typ  message.ChannelType
		c    message.Content
		want string
	}{
		"a long name":        {message.Email, message.Content{Subject: "s", Text: "t", SenderName: "{{ custom_fields.long }}"}, "the sender name has over 256 characters once rendered"},
		"no media URL":       {message.SMS, message.Content{Text: "t", MediaURLs: []string{"{{ company }}"}}, "a media URL is not an http or https URL once rendered"},
		"an image over http": {message.InstagramDM, message.Content{ImageURL: "http://{{ first_name }}.test"}, "the image URL is not an https URL once rendered"},
	} {
		lead := &message.Lead{Company: "Acme", FirstName: "a", CustomFields: map[string]any{"long": strings.Repeat("x", 257)}}
		if _, err := compile(t, c.typ, c.c).Render(t.Context(), lead); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, errs := Compile(t.Context(), message.SMS, message.Content{Text: "t", MediaURLs: []string{"https://x.test/a", "{{ x | y }}"}})
	if len(errs) != 1 || !cmp.Equal(errs[0].Loc, []any{"media_urls", 1}) {
		t.Error(errs)
	}
}
