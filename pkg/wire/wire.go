// Package wire reads JSON strictly. Decode turns a body into a tree and refuses everything that a lenient decoder
// lets through; Object reads the tree with types and collects every mistake with its path, so that a caller learns of
// all of them at once. It knows no HTTP and no route.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"herald/pkg/message"
)

// Bounds of a document.
const (
	MaxDepth = 32      // how deeply arrays and objects may be nested
	MaxNodes = 200_000 // values and keys; 100,000 lead ids take half of them
)

// Decode reads exactly one JSON document of valid UTF-8. Objects become map[string]any, arrays []any, numbers
// json.Number. An empty body, trailing data, a key given twice, a NUL character, too much depth and too many nodes are
// errors, as a message.Error whose loc starts with "body". Its memory is bounded by Weigh: it copies the body's strings
// once and keeps no buffer beside them.
func Decode(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, message.InvalidField(message.SlugMissing, "a JSON body is required", "body")
	}
	if !utf8.Valid(body) {
		return nil, message.InvalidField(message.SlugJSON, "the body is not valid UTF-8", "body")
	}
	d := &decoder{b: body}
	v, err := d.value(0)
	if err == nil {
		if d.peek() != 0 || d.at < len(body) {
			err = errors.New("there is more after the JSON document")
		}
	}
	switch {
	case errors.Is(err, errNodes):
		return nil, tooManyNodes()
	case err != nil:
		return nil, message.InvalidField(message.SlugJSON, "not valid JSON: "+err.Error(), "body", d.at)
	}
	return v, nil
}

var (
	errNodes = fmt.Errorf("the body has more than %d values and keys", MaxNodes)
	errEnd   = errors.New("unexpected end of JSON input")
)

func tooManyNodes() error {
	return message.InvalidField(message.SlugListLong, errNodes.Error(), "body")
}

// decoder reads a document from memory. encoding/json's Decoder would copy a long string three times over, and allocates
// for each token.
type decoder struct {
	b     []byte
	at    int
	nodes int
}

// peek skips white space and returns the next byte, 0 at the end. A NUL byte is not valid JSON anywhere.
func (d *decoder) peek() byte {
	for ; d.at < len(d.b); d.at++ {
		switch c := d.b[d.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// unexpected is the error for the byte at hand.
func (d *decoder) unexpected(where string) error {
	if d.at >= len(d.b) {
		return errEnd
	}
	r, _ := utf8.DecodeRune(d.b[d.at:])
	return fmt.Errorf("invalid character %q %s", r, where)
}

func (d *decoder) count() error {
	if d.nodes++; d.nodes > MaxNodes {
		return errNodes
	}
	return nil
}

func (d *decoder) value(depth int) (any, error) {
	if err := d.count(); err != nil {
		return nil, err
	}
	c := d.peek()
	switch {
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return nil, fmt.Errorf("nested more than %d deep", MaxDepth)
		}
		d.at++
		if c == '[' {
			return d.array(depth)
		}
		return d.object(depth)
	case c == '"':
		return d.text()
	case c == '-' || (c >= '0' && c <= '9'):
		return d.number()
	case c == 't':
		return true, d.literal("true")
	case c == 'f':
		return false, d.literal("false")
	case c == 'n':
		return nil, d.literal("null")
	}
	return nil, d.unexpected("looking for beginning of value")
}

func (d *decoder) literal(word string) error {
	for i := range len(word) {
		if d.at >= len(d.b) || d.b[d.at] != word[i] {
			return d.unexpected("in literal " + word)
		}
		d.at++
	}
	return nil
}

// text reads a string, whose opening quote is at hand.
func (d *decoder) text() (string, error) {
	from, escaped := d.at, false
	for d.at++; ; d.at++ {
		switch {
		case d.at >= len(d.b):
			return "", errEnd
		case d.b[d.at] == '\\':
			escaped = true
			d.at++ // the byte after it is no end of the string; which escapes exist encoding/json knows
		case d.b[d.at] < 0x20:
			return "", d.unexpected("in string literal")
		case d.b[d.at] == '"':
			d.at++
			if !escaped {
				return string(d.b[from+1 : d.at-1]), nil
			}
			var s string
			if err := json.Unmarshal(d.b[from:d.at], &s); err != nil {
				return "", err
			}
			if strings.IndexByte(s, 0) >= 0 {
				return "", errors.New("a string holds a NUL character")
			}
			return s, nil
		}
	}
}

// number reads a number of RFC 8259, section 6.
func (d *decoder) number() (json.Number, error) {
	from := d.at
	if d.b[d.at] == '-' {
		d.at++
	}
	zero := d.at < len(d.b) && d.b[d.at] == '0'
	if n := d.digits(); n == 0 || (zero && n > 1) {
		d.at -= max(n-1, 0)
		return "", d.unexpected("in numeric literal")
	}
	if d.at < len(d.b) && d.b[d.at] == '.' {
		d.at++
		if d.digits() == 0 {
			return "", d.unexpected("after decimal point in numeric literal")
		}
	}
	if d.at < len(d.b) && (d.b[d.at] == 'e' || d.b[d.at] == 'E') {
		d.at++
		if d.at < len(d.b) && (d.b[d.at] == '+' || d.b[d.at] == '-') {
			d.at++
		}
		if d.digits() == 0 {
			return "", d.unexpected("in exponent of numeric literal")
		}
	}
	return json.Number(d.b[from:d.at]), nil
}

func (d *decoder) digits() int {
	from := d.at
	for d.at < len(d.b) && d.b[d.at] >= '0' && d.b[d.at] <= '9' {
		d.at++
	}
	return d.at - from
}

func (d *decoder) array(depth int) (any, error) {
	list := []any{}
	for d.peek() != ']' {
		if len(list) > 0 {
			if d.peek() != ',' {
				return nil, d.unexpected("after array element")
			}
			d.at++
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	d.at++
	return list, nil
}

func (d *decoder) object(depth int) (any, error) {
	m := map[string]any{}
	for d.peek() != '}' {
		if len(m) > 0 {
			if d.peek() != ',' {
				return nil, d.unexpected("after object key:value pair")
			}
			d.at++
		}
		name, err := d.name()
		if err != nil {
			return nil, err
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("the key %q is given twice", cut(name, maxLoc))
		}
		if m[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	d.at++
	return m, nil
}

// name reads an object's key with its colon.
func (d *decoder) name() (string, error) {
	if err := d.count(); err != nil {
		return "", err
	}
	if d.peek() != '"' {
		return "", d.unexpected("looking for beginning of object key string")
	}
	name, err := d.text()
	if err != nil {
		return "", err
	}
	if d.peek() != ':' {
		return "", d.unexpected("after object key")
	}
	d.at++
	return name, nil
}
