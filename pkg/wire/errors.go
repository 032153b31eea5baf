package wire

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"herald/pkg/message"
)

// Bounds of an error response: it must not be several times as long as its request.
const (
	MaxMistakes = 100
	maxLoc      = 100 // bytes of one name in a path
	maxMsg      = 500 // bytes of a text
)

// Errors collects the mistakes of a document: the first MaxMistakes in full, the others as a count. The zero value is ready.
type Errors struct {
	list []message.FieldError
	more int // beyond those in the list
}

// Add records a mistake at a path.
func (e *Errors) Add(slug, msg string, loc ...any) {
	if e.full() {
		return
	}
	for i, part := range loc {
		if s, ok := part.(string); ok && len(s) > maxLoc {
			loc = slices.Clone(loc)
			loc[i] = cut(s, maxLoc)
		}
	}
	e.list = append(e.list, message.FieldError{Loc: loc, Msg: cut(msg, maxMsg), Type: slug})
}

// full reports whether the list is full. If so, it counts the mistake that the caller has.
func (e *Errors) full() bool {
	if len(e.list) < MaxMistakes {
		return false
	}
	e.more++
	return true
}

// count returns the number of all mistakes.
func (e *Errors) count() int { return len(e.list) + e.more }

// AddUnder records mistakes whose paths are relative to loc.
func (e *Errors) AddUnder(list []message.FieldError, loc ...any) {
	for _, f := range list {
		e.Add(f.Type, f.Msg, append(slices.Clone(loc), f.Loc...)...)
	}
}

// Err returns all mistakes as one message.Error, or nil. When there were more than MaxMistakes, a last entry counts the others.
func (e *Errors) Err() error {
	list := e.list
	if e.more > 0 {
		list = append(slices.Clone(list), message.FieldError{
			Loc: []any{"body"}, Msg: fmt.Sprintf("and %d more", e.more), Type: message.SlugMore,
		})
	}
	return message.Invalid(list)
}

// Bounded returns a list of mistakes that was not collected here within the bounds of those that were.
func Bounded(list []message.FieldError) []message.FieldError {
	var e Errors
	for i, f := range list {
		if i == MaxMistakes && f.Type == message.SlugMore {
			return append(e.list, f) // it was
		}
		e.Add(f.Type, f.Msg, f.Loc...)
	}
	var err *message.Error
	errors.As(e.Err(), &err)
	return err.Fields
}

// List returns what was collected, MaxMistakes at most.
func (e *Errors) List() []message.FieldError { return e.list }

// cut shortens a text to a number of bytes, at a character's end.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
