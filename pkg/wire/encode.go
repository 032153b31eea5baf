package wire

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// piece is the size of the buffer of an encoder in bytes, and the unit in which long strings are escaped.
const piece = 4 << 10

// Encode writes a tree of Decode with the result of json.Marshal, in pieces. json.Marshal holds the whole text, which may be
// six times as long as its source because of escapes. Encode stops at the first error of the writer and returns it.
func Encode(w io.Writer, v any) error {
	e := &encoder{w: w}
	e.value(v)
	e.flush()
	return e.err
}

type encoder struct {
	w     io.Writer
	buf   []byte
	err   error
	plain bool // <, > and & are written as they are
}

// flush writes the buffer. After an error it only empties the buffer.
func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) add(s string) {
	if len(e.buf)+len(s) > piece {
		e.flush()
	}
	e.buf = append(e.buf, s...)
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case map[string]any:
		e.add("{")
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				e.add(",")
			}
			e.text(name)
			e.add(":")
			if e.value(v[name]); e.err != nil {
				return
			}
		}
		e.add("}")
	case []any:
		e.add("[")
		for i := range v {
			if i > 0 {
				e.add(",")
			}
			if e.value(v[i]); e.err != nil {
				return
			}
		}
		e.add("]")
	case string:
		e.text(v)
	case json.Number:
		e.add(string(v))
	default:
		e.leaf(v)
	}
}

// leaf writes a value that is neither a container nor a string nor a number: true, false or null.
func (e *encoder) leaf(v any) {
	b, err := json.Marshal(v)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.add(string(b))
}

// text writes a string, a long one in pieces. That is correct because the escape of a character does not depend on its
// neighbours.
func (e *encoder) text(s string) {
	e.add(`"`)
	for s != "" && e.err == nil {
		n := min(len(s), piece)
		for n < len(s) && n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		if part := s[:n]; strings.IndexFunc(part, special) < 0 {
			e.add(part)
		} else {
			e.add(e.escape(part))
		}
		s = s[n:]
	}
	e.add(`"`)
}

// escape returns the JSON of a text, without its quotes.
func (e *encoder) escape(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(!e.plain)
	_ = enc.Encode(s) // a string always can be
	quoted := strings.TrimSuffix(b.String(), "\n")
	return quoted[1 : len(quoted)-1]
}

// special reports whether json.Marshal may escape a character.
func special(r rune) bool {
	return r < 0x20 || r > 0x7e || r == '"' || r == '\\' || r == '<' || r == '>' || r == '&'
}

// Fits reports whether the JSON of a tree has at most limit bytes. It counts as a caller writes: without white space, and without
// the escapes of <, > and & that only HTML needs.
func Fits(v any, limit int) bool {
	e := &encoder{w: &bounded{left: limit}, plain: true}
	e.value(v)
	e.flush()
	return e.err == nil
}

// bounded is a writer that fails after a number of bytes. It stores nothing.
type bounded struct{ left int }

var errLong = errors.New("too long")

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errLong
	}
	return len(p), nil
}
