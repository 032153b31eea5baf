// Package render turns the Liquid templates of a message and a lead into the text that a provider sends. Templates are
// untrusted input: parsing and rendering are bounded in time, steps, memory and output, and the data of a lead is never parsed
// as a template. The package knows no channels, providers or storage.
//
// A template takes three passes: scan.go splits it into texts, tags and objects; parse.go and expr.go parse those; the Liquid
// library walks the blocks and calls back into tags.go and loops.go, which charge a budget (budget.go) for all work.
package render

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Bounds of one template.
const (
	MaxOutput = 1 << 20                // bytes that one rendered field may have, and one template's source
	MaxTime   = 100 * time.Millisecond // wall time that a template may take when it is accepted

	// deliverTime bounds rendering at delivery. It is generous because a busy machine stretches wall time, and a
	// template that passed at acceptance must not fail for the machine's sake; maxSteps bounds the work exactly.
	deliverTime = 5 * time.Second
)

// Template is a message's content, parsed once and rendered for many leads. It is safe for concurrent use.
type Template struct {
	rules               *message.ContentRule // of the channel type
	content             message.Content
	subject, text, html *field
	uses                map[string]bool // the values of a lead that the templates may ask for
}

// Compile parses the templates of content. Mistakes are field errors whose path is the name of the template and whose text
// has the line. Compile stops with an error when ctx ends, so a caller checks ctx before it reports mistakes.
func Compile(ctx context.Context, t message.ChannelType, c message.Content) (*Template, []message.FieldError) {
	tpl := &Template{rules: &t.Spec().Content, content: c, uses: map[string]bool{}}
	var errs []message.FieldError
	parse := func(name, source string, engine engineKind) *field {
		f, err := parseField(ctx, source, engine)
		if err != nil {
			errs = append(errs, templateError(name, err))
		}
		return f
	}
	tpl.subject = parse("subject", c.Subject, plainText)
	tpl.text = parse("content", c.Text, plainText)
	tpl.html = parse("html_content", c.HTML, escapedHTML)
	for _, name := range message.BindingNames() {
		if tpl.subject.asks(name) || tpl.text.asks(name) || tpl.html.asks(name) {
			tpl.uses[name] = true
		}
	}
	return tpl, errs
}

func templateError(field string, err error) message.FieldError {
	return message.FieldError{Loc: []any{field}, Msg: "template: " + err.Error(), Type: message.SlugValue}
}

// Check tries the templates, and reports what fails or goes beyond the bounds, with the template's name as the path.
// Callers do it when they accept a message. With a lead the templates are rendered for it. Without, they are rendered
// without values, and then for a sample lead that has every field, so that a condition on a field hides no work; with the sample
// only the bounds count, because its values mean nothing. It stops when ctx ends.
func (t *Template) Check(ctx context.Context, lead *message.Lead) []message.FieldError {
	until := time.Now().Add(MaxTime)
	errs := t.try(&budget{until: until, done: ctx.Done()}, lead, false)
	if lead != nil || len(errs) > 0 {
		return errs
	}
	return t.try(&budget{until: until, done: ctx.Done()}, t.sample(), true)
}

func (t *Template) try(b *budget, lead *message.Lead, boundsOnly bool) []message.FieldError {
	var errs []message.FieldError
	bindings := lead.Bindings(t.uses)
	for _, f := range []struct {
		name string
		*field
	}{{"subject", t.subject}, {"content", t.text}, {"html_content", t.html}} {
		_, err := f.render(b, bindings)
		var value *valueError
		if err == nil || boundsOnly && errors.As(err, &value) {
			continue
		}
		if errs = append(errs, templateError(f.name, err)); b.err != nil {
			break
		}
	}
	return errs
}

// sample makes a lead in which every field that the templates can name has a value.
func (t *Template) sample() *message.Lead {
	lead := &message.Lead{ID: uuid.Max, Tags: []string{"First Tag", "Second Tag", "Third Tag"}, CustomFields: map[string]any{}}
	for _, f := range lead.TextFields() {
		*f.Value = title(f.Name)
	}
	for _, f := range []*field{t.subject, t.text, t.html} {
		if f != nil && f.compiler != nil {
			for name := range f.custom {
				lead.CustomFields[name] = title(name)
			}
		}
	}
	return lead
}

// title makes "First Name" of first_name.
func title(name string) string {
	words := strings.Fields(strings.ReplaceAll(name, "_", " "))
	for i, w := range words {
		r, n := utf8.DecodeRuneInString(w)
		words[i] = string(unicode.ToUpper(r)) + w[n:]
	}
	return strings.Join(words, " ")
}

// Rendered is what a provider is asked to send.
type Rendered struct {
	message.Content
	Segments int // parts in which the text is sent and charged; 0 for channel types without segments
}

// Render fills the templates for one lead, or without values for nil. An error means that the message to this lead cannot be
// sent: its text is empty, too long, beyond a bound, or does not render. The error contains no personal data. When ctx ends
// the error is that of ctx.
func (t *Template) Render(ctx context.Context, lead *message.Lead) (Rendered, error) {
	out := Rendered{Content: t.content}
	b := &budget{until: time.Now().Add(deliverTime), done: ctx.Done()}
	bindings := lead.Bindings(t.uses)
	for _, f := range []struct {
		to *string
		*field
	}{{&out.Subject, t.subject}, {&out.Text, t.text}, {&out.HTML, t.html}} {
		s, err := f.render(b, bindings)
		var value *valueError
		switch {
		case err == nil:
		case errors.Is(err, errGone):
			return Rendered{}, ctx.Err()
		case errors.As(err, &value):
			return Rendered{}, errors.New("a template does not render with this lead's values")
		default:
			return Rendered{}, err
		}
		*f.to = s
	}
	out.Subject = strings.TrimSpace(oneLine(out.Subject))
	out.SenderName = oneLine(out.SenderName)
	if err := t.rules.CheckRendered(&out.Content); err != nil {
		return Rendered{}, err
	}
	if t.rules.Segments != nil {
		out.Segments = t.rules.Segments(out.Text)
	}
	return out, nil
}

// oneLine replaces control characters by spaces, so that a value cannot add a header.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if message.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// Content returns the content with its templates as they were given.
func (t *Template) Content() message.Content { return t.content }
