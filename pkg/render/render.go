// Package render turns a message's Liquid templates and a lead into the text that a provider gets. Templates come
// from strangers: parsing and rendering are bounded in time, work and output, and a lead's data is never parsed as a
// template. It also counts SMS segments. It knows nothing of channels, providers or storage.
package render

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
	typ                 message.Type
	content             message.Content
	subject, text, html *field
	uses                map[string]bool // the values of a lead that the templates may ask for
}

// Compile parses the templates of content. What does not parse comes back as field errors with the template's name
// as the path and its line in the text.
func Compile(t message.Type, c message.Content) (*Template, []message.FieldError) {
	tpl := &Template{typ: t, content: c, uses: map[string]bool{}}
	var errs []message.FieldError
	parse := func(name, source string, engine engineKind) *field {
		f, err := parseField(source, engine)
		if err != nil {
			errs = append(errs, message.FieldError{Loc: []any{name}, Msg: "template: " + err.Error(), Type: message.SlugValue})
		}
		return f
	}
	tpl.subject = parse("subject", c.Subject, plainText)
	tpl.text = parse("content", c.Text, plainText)
	tpl.html = parse("html_content", c.HTML, escapedHTML)
	for _, name := range message.BindingNames() {
		if tpl.subject.names(name) || tpl.text.names(name) || tpl.html.names(name) {
			tpl.uses[name] = true
		}
	}
	return tpl, errs
}

// Check renders every template once for a lead, nil for nobody, and reports what fails or goes beyond the bounds, with
// the template's name as the path. Callers do it when they accept a message.
func (t *Template) Check(lead *message.Lead) []message.FieldError {
	var errs []message.FieldError
	bindings := lead.Bindings(t.uses)
	for _, f := range []struct {
		name string
		*field
	}{{"subject", t.subject}, {"content", t.text}, {"html_content", t.html}} {
		if _, err := f.render(bindings, MaxTime); err != nil {
			errs = append(errs, message.FieldError{Loc: []any{f.name}, Msg: "template: " + err.Error(), Type: message.SlugValue})
		}
	}
	return errs
}

// Rendered is what a provider is asked to send.
type Rendered struct {
	message.Content
	Segments int // SMS: how many parts the text takes; 0 for other types
}

// Render fills the templates for one lead, nil for nobody. An error means that this lead's message cannot be sent as it is: the text
// is empty, too long, or does not render; it carries no personal data.
func (t *Template) Render(lead *message.Lead) (Rendered, error) {
	out := Rendered{Content: t.content}
	bindings := lead.Bindings(t.uses)
	for _, f := range []struct {
		to *string
		*field
	}{{&out.Subject, t.subject}, {&out.Text, t.text}, {&out.HTML, t.html}} {
		s, err := f.render(bindings, deliverTime)
		var quotes *libraryError
		if errors.As(err, &quotes) {
			err = errors.New("a template does not render with this lead's values")
		}
		if err != nil {
			return Rendered{}, err
		}
		*f.to = s
	}
	out.Subject = strings.TrimSpace(oneLine(out.Subject))
	out.SenderName = oneLine(out.SenderName)
	if err := checkRendered(t.typ, &out); err != nil {
		return Rendered{}, err
	}
	if t.typ == message.SMS {
		out.Segments = Segments(out.Text)
	}
	return out, nil
}

func checkRendered(t message.Type, r *Rendered) error {
	blank := strings.TrimSpace(r.Text) == ""
	switch t {
	case message.Email:
		switch {
		case r.Subject == "":
			return errors.New("the subject is empty once rendered")
		case utf8.RuneCountInString(r.Subject) > message.MaxSubject:
			return fmt.Errorf("the subject has over %d characters once rendered", message.MaxSubject)
		case blank && strings.TrimSpace(r.HTML) == "":
			return errors.New("the content is empty once rendered")
		}
	case message.SMS:
		if blank {
			return errors.New("the content is empty once rendered")
		}
		if utf8.RuneCountInString(r.Text) > message.MaxSMS {
			return fmt.Errorf("the content has over %d characters once rendered", message.MaxSMS)
		}
	case message.InstagramDM:
		if blank && r.ImageURL == "" {
			return errors.New("the content is empty once rendered")
		}
		if len(r.Text) > message.MaxInstagramBytes {
			return fmt.Errorf("the content has over %d bytes once rendered", message.MaxInstagramBytes)
		}
	}
	return nil
}

// oneLine makes text fit for a header: every control character becomes a space.
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
