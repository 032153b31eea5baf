// Package render turns the Liquid templates of a message and a lead into the text that a provider sends. Templates are
// untrusted input: parsing and rendering are bounded in time, steps, memory and output, and the data of a lead is never parsed
// as a template. The package knows no channels, providers or storage.
//
// A template takes three passes:
//  1. scan.go splits it into texts, tags and objects in one linear pass.
//  2. lex.go, parse.go and expr.go parse tags and objects into expressions. All mistakes of syntax end here.
//  3. The Liquid library walks the blocks and calls back into tags.go and loops.go, which charge a budget (budget.go) for all
//     work. filters.go and textfilters.go charge for the filters.
//
// The language is standard Liquid without include, render, tablerow, ranges, and the filters that reveal Go types.
// library_test.go compares the results with those of the library on random templates.
package render

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Bounds of one template.
const (
	MaxOutput = 1 << 20     // bytes of one rendered field, and of the source of one template
	MaxTime   = time.Second // wall time of the trial renderings at acceptance

	// deliverTime bounds rendering at delivery. maxSteps bounds the work exactly, to less than 100 ms of a processor. Both bounds on
	// wall time are far above that, because a busy machine stretches wall time: with 100 ms for the trial, a machine at its limit
	// refused a template of one object. A template that was accepted must not fail for that reason either.
	deliverTime = 5 * time.Second
)

// Template is a message's content, parsed once and rendered for many leads. It is safe for concurrent use.
type Template struct {
	rules   *message.ContentRule // of the channel type
	content message.Content      // as given, templates not rendered
	parts   []part               // the texts of the content that may be templates
	media   bool                 // a media URL is a template
	headers bool                 // the value of a header is a template
	uses    map[string]bool      // the bindings that the templates name; others are not computed for a lead
}

// part is one text of a content.
type part struct {
	*field
	loc []any // its path in the request
	to  func(*message.Content) *string
}

// Compile parses the templates of content. Mistakes are field errors: the path is the name of the template, the text contains
// the line, and neither quotes the template. Compile stops with an error when ctx ends, so a caller checks ctx before it
// reports mistakes. Parsing takes linear time.
func Compile(ctx context.Context, t message.ChannelType, c message.Content) (*Template, []message.FieldError) {
	tpl := &Template{rules: &t.Spec().Content, content: c, uses: map[string]bool{}}
	var errs []message.FieldError
	parse := func(kind engineKind, to func(*message.Content) *string, loc ...any) {
		f, err := parseField(ctx, *to(&c), kind)
		if err != nil {
			errs = append(errs, templateError(loc, err))
			return
		}
		if f.root != nil { // other texts are sent as they are
			tpl.parts = append(tpl.parts, part{f, loc, to})
		}
	}
	parse(plainText, func(c *message.Content) *string { return &c.Subject }, "subject")
	parse(plainText, func(c *message.Content) *string { return &c.Text }, "content")
	parse(escapedHTML, func(c *message.Content) *string { return &c.HTML }, "html_content")
	parse(plainText, func(c *message.Content) *string { return &c.SenderName }, "sender_name")
	parse(plainText, func(c *message.Content) *string { return &c.ImageURL }, "image_url")
	before := len(tpl.parts)
	for i := range c.MediaURLs {
		parse(plainText, func(c *message.Content) *string { return &c.MediaURLs[i] }, "media_urls", i)
	}
	tpl.media = len(tpl.parts) > before
	before = len(tpl.parts)
	for i := range c.Headers {
		parse(plainText, func(c *message.Content) *string { return &c.Headers[i].Value }, "headers", c.Headers[i].Name)
	}
	tpl.headers = len(tpl.parts) > before
	for _, name := range message.BindingNames() {
		tpl.uses[name] = slices.ContainsFunc(tpl.parts, func(p part) bool { return p.names[name] })
	}
	return tpl, errs
}

func templateError(loc []any, err error) message.FieldError {
	return message.FieldError{Loc: loc, Msg: "template: " + err.Error(), Type: message.SlugValue}
}

// Check renders the templates on trial when a message is accepted, and reports failures and exceeded bounds, with the name
// of the template as the path. All renderings together may take MaxTime. It stops when ctx ends.
//
// With a lead the templates are rendered for it. Without a lead they are rendered twice: first without values, then for a
// sample lead in which every field has a value, so that no condition on a field hides work. The values of the sample are
// arbitrary, so of the second rendering only exceeded bounds are reported.
func (t *Template) Check(ctx context.Context, lead *message.Lead) []message.FieldError {
	until := time.Now().Add(MaxTime)
	errs := t.try(&budget{until: until, done: ctx.Done()}, lead, false)
	if lead != nil || len(errs) > 0 {
		return errs
	}
	return t.try(&budget{until: until, done: ctx.Done()}, t.sample(), true)
}

// try renders all fields on one budget. It stops at an exceeded bound, because the budget is then spent for the other fields
// too. With boundsOnly it ignores errors that depend on the values of the lead.
func (t *Template) try(b *budget, lead *message.Lead, boundsOnly bool) []message.FieldError {
	var errs []message.FieldError
	bindings := lead.Bindings(t.uses)
	for _, p := range t.parts {
		_, err := p.render(b, bindings)
		var value *valueError
		if err == nil || boundsOnly && errors.As(err, &value) {
			continue
		}
		if errs = append(errs, templateError(p.loc, err)); b.err != nil {
			break
		}
	}
	return errs
}

// sample returns a lead in which every field that the templates name has a value. Each text is the title of its field: a
// typical length, and nothing that a filter could parse by chance.
func (t *Template) sample() *message.Lead {
	lead := &message.Lead{ID: uuid.Max, Tags: []string{"First Tag", "Second Tag", "Third Tag"}, CustomFields: map[string]any{}}
	for _, f := range lead.TextFields() {
		*f.Value = title(f.Name)
	}
	lead.CreatedAt, lead.UpdatedAt, lead.LastContactedAt = sampleTime, sampleTime, &sampleTime
	for _, p := range t.parts {
		for name := range p.custom {
			lead.CustomFields[name] = title(name)
		}
	}
	return lead
}

var sampleTime = time.Date(2000, time.January, 31, 10, 30, 0, 0, time.UTC)

// title converts first_name to "First Name".
func title(name string) string {
	words := strings.Fields(strings.ReplaceAll(name, "_", " "))
	for i, w := range words {
		r, n := utf8.DecodeRuneInString(w)
		words[i] = string(unicode.ToUpper(r)) + w[n:]
	}
	return strings.Join(words, " ")
}

// Rendered is the content that a provider sends to one lead.
type Rendered struct {
	message.Content
	Segments int // parts of an SMS, the unit of its price; 0 for channel types without segments
}

// Render renders the templates for one lead, or without values for nil. An error means that the message to this lead cannot
// be sent: the text is empty or too long, a bound is exceeded, or a template does not render with these values. The error
// contains no personal data, so it may be stored and shown. When ctx ends, the error is that of ctx: the caller must release
// the message and not fail it.
func (t *Template) Render(ctx context.Context, lead *message.Lead) (Rendered, error) {
	out := Rendered{Content: t.content}
	b := &budget{until: time.Now().Add(deliverTime), done: ctx.Done()}
	if t.media {
		out.MediaURLs = slices.Clone(out.MediaURLs)
	}
	if t.headers {
		out.Headers = slices.Clone(out.Headers)
	}
	bindings := lead.Bindings(t.uses)
	for _, p := range t.parts {
		s, err := p.render(b, bindings)
		var value *valueError
		switch {
		case err == nil:
		case errors.Is(err, errGone):
			return Rendered{}, ctx.Err()
		case errors.As(err, &value): // its text may describe a value of the lead
			return Rendered{}, errors.New("a template does not render with this lead's values")
		default:
			return Rendered{}, err
		}
		if !utf8.ValidString(s) { // a filter such as url_decode can make any bytes
			return Rendered{}, errors.New("the rendered text is not valid UTF-8")
		}
		*p.to(&out.Content) = s
	}
	out.Subject = strings.TrimSpace(oneLine(out.Subject))
	out.SenderName = oneLine(out.SenderName)
	if t.headers {
		out.Headers = headerLines(out.Headers)
	}
	if err := t.rules.CheckRendered(&out.Content); err != nil {
		return Rendered{}, err
	}
	if t.rules.Segments != nil {
		out.Segments = t.rules.Segments(out.Text)
	}
	return out, nil
}

// headerLines makes lines of the values of rendered headers, in place, and removes the headers without a value: a lead may lack the
// field that a header names, and that must not cost it the message.
func headerLines(headers []message.Header) []message.Header {
	for i := range headers {
		headers[i].Value = strings.TrimSpace(oneLine(headers[i].Value))
	}
	return slices.DeleteFunc(headers, func(h message.Header) bool { return h.Value == "" })
}

// oneLine replaces control characters by spaces, so that a value of a lead cannot add a header to an email (header injection).
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if message.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// UsesTimes reports whether the templates use a time of the lead.
func (t *Template) UsesTimes() bool { return message.UsesTimes(t.uses) }

// Content returns the content as it was given to Compile.
func (t *Template) Content() message.Content { return t.content }
