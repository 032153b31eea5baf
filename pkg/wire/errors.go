package wire

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"herald/pkg/message"
)

// Bounds of an error response. Without them a small request could cause a response of many times its size.
const (
	MaxMistakes = 100
	maxLoc      = 100 // bytes of one name in a path
	maxMsg      = 500 // bytes of one description
)

// Errors collects the mistakes of a document: the first MaxMistakes in full, the others as a count. The zero value is ready
// to use. It is not safe for concurrent use.
type Errors struct {
	list []message.FieldError
	more int // mistakes that are not in list
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

// full reports whether the list is full. If so, it counts the mistake that the caller is about to add.
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

// Err returns all mistakes as one message.Error, or nil. If more than MaxMistakes were added, a last entry counts the others.
func (e *Errors) Err() error {
	list := e.list
	if e.more > 0 {
		list = append(slices.Clone(list), message.FieldError{
			Loc: []any{"body"}, Msg: fmt.Sprintf("and %d more", e.more), Type: message.SlugMore,
		})
	}
	return message.Invalid(list)
}

// Bounded applies the bounds of Errors to a list of mistakes that another package collected. A list that Err made is returned
// unchanged.
func Bounded(list []message.FieldError) []message.FieldError {
	var e Errors
	for i, f := range list {
		if i == MaxMistakes && f.Type == message.SlugMore {
			return append(e.list, f) // the count of Err
		}
		e.Add(f.Type, f.Msg, f.Loc...)
	}
	var err *message.Error
	errors.As(e.Err(), &err)
	return err.Fields
}

// Has reports whether a mistake at exactly a path was recorded.
func (e *Errors) Has(loc ...any) bool {
	return slices.ContainsFunc(e.list, func(f message.FieldError) bool { return slices.Equal(f.Loc, loc) })
}

// List returns the mistakes that were added first, at most MaxMistakes.
func (e *Errors) List() []message.FieldError { return e.list }

// cut shortens a text to at most limit bytes, at the end of a character, and appends an ellipsis.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
