// Package wire reads JSON strictly. Decode turns a body into a tree and rejects everything that a lenient decoder accepts:
// trailing data, duplicate keys, NUL characters, invalid UTF-8, too much depth and too many values. Object reads the tree
// with types and collects every mistake with its path, so that a caller learns all of them from one response. The package
// knows no HTTP and no route.
//
// Two passes are needed because encoding/json stops at the first mistake and ignores unknown fields, which could change the
// meaning of a send. Memory is bounded in three steps: Weigh estimates the tree before it exists, Decode counts its values,
// Errors and Encode bound what is made from it.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"herald/pkg/message"
)

// Bounds of a document.
const (
	MaxDepth = 32      // arrays and objects within each other; bounds the recursion of all readers of a tree
	MaxNodes = 200_000 // values and keys; 100,000 lead ids take half of them
)

// Decode reads exactly one JSON document of valid UTF-8. Objects become map[string]any, arrays []any, numbers
// json.Number. Every error is a message.Error whose loc starts with "body"; for invalid JSON the byte offset follows. Weigh
// bounds the memory: Decode copies the strings of the body once and keeps no buffer beside them.
func Decode(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, message.InvalidField(message.SlugMissing, "a JSON body is required", "body")
	}
	if !utf8.Valid(body) {
		return nil, message.InvalidField(message.SlugJSON, "the body is not valid UTF-8", "body")
	}
	d := newDecoder(body)
	defer d.release()
	v, err := d.document()
	var syntax *jsontext.SyntacticError
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, errNodes):
		return nil, tooManyNodes()
	case errors.As(err, &syntax) && strings.HasPrefix(syntax.Err.Error(), "invalid surrogate pair"):
		return nil, invalidJSON(errors.New("a string has an unpaired surrogate escape (U+D800 to U+DFFF)"), syntax.ByteOffset)
	case errors.As(err, &syntax): // its own text quotes the path, which may be as long as the body
		return nil, invalidJSON(syntax.Err, syntax.ByteOffset)
	}
	return nil, invalidJSON(err, d.text.InputOffset())
}

// invalidJSON is the error of a document that is not JSON. EOF is described, because its own text means nothing to callers.
func invalidJSON(err error, offset int64) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("unexpected end of the document")
	}
	return message.InvalidField(message.SlugJSON, "not valid JSON: "+err.Error(), "body", int(offset))
}

var errNodes = fmt.Errorf("the body has more than %d values and keys", MaxNodes)

func tooManyNodes() error {
	return message.InvalidField(message.SlugListLong, errNodes.Error(), "body")
}

// decoder builds the tree from the tokens of jsontext. encoding/json's Decoder copies a long string three times and cannot
// stop at a number of values.
type decoder struct {
	text  *jsontext.Decoder
	body  bytes.Buffer // jsontext parses a bytes.Buffer in place and copies any other reader
	nodes int          // values and keys so far
}

// decoders reuses decoders: without the pool a short request allocates a fifth more.
var decoders = sync.Pool{New: func() any { return &decoder{text: new(jsontext.Decoder)} }}

var decoderOptions = []jsontext.Options{
	jsontext.AllowDuplicateNames(true), // object detects them by its map; jsontext would need a second one
}

func newDecoder(body []byte) *decoder {
	d := decoders.Get().(*decoder) //nolint:forcetypeassert // the pool holds nothing else
	d.body, d.nodes = *bytes.NewBuffer(body), 0
	d.text.Reset(&d.body, decoderOptions...)
	return d
}

// release returns the decoder to the pool, without the body, so that the pool does not keep it alive.
func (d *decoder) release() {
	d.body = bytes.Buffer{}
	d.text.Reset(&d.body)
	decoders.Put(d)
}

// document reads one value and the end of the body after it.
func (d *decoder) document() (any, error) {
	tok, err := d.next()
	if err != nil {
		return nil, err
	}
	v, err := d.value(tok)
	if err != nil {
		return nil, err
	}
	if _, err := d.text.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the JSON document")
	}
	return v, nil
}

// next reads a token and counts values and keys. The ends of objects and arrays are not counted.
func (d *decoder) next() (jsontext.Token, error) {
	tok, err := d.text.ReadToken()
	if kind := tok.Kind(); err != nil || kind == '}' || kind == ']' {
		return tok, err
	}
	if d.nodes++; d.nodes > MaxNodes {
		return tok, errNodes
	}
	return tok, nil
}

// value returns the value that a token begins.
func (d *decoder) value(tok jsontext.Token) (any, error) {
	switch tok.Kind() {
	case '{', '[':
		if d.text.StackDepth() > MaxDepth {
			return nil, fmt.Errorf("nested more than %d deep", MaxDepth)
		}
		if tok.Kind() == '{' {
			return d.object()
		}
		return d.array()
	case '"':
		return stringOf(tok)
	case '0':
		return json.Number(tok.String()), nil
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return nil, nil //nolint:nilnil // JSON's null
}

// stringOf returns a string or key. NUL is refused because PostgreSQL cannot store it.
func stringOf(tok jsontext.Token) (string, error) {
	s := tok.String()
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("a string contains a NUL character")
	}
	return s, nil
}

// array reads the rest of an array.
func (d *decoder) array() (any, error) {
	list := []any{}
	for {
		tok, err := d.next()
		if err != nil {
			return nil, err
		}
		if tok.Kind() == ']' {
			return list, nil
		}
		v, err := d.value(tok)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

// object reads the rest of an object. Duplicate keys are refused: parsers disagree on which one counts, so a proxy in front
// could check another value than the one that takes effect.
func (d *decoder) object() (any, error) {
	m := map[string]any{}
	for {
		tok, err := d.next()
		if err != nil {
			return nil, err
		}
		if tok.Kind() == '}' {
			return m, nil
		}
		name, err := stringOf(tok)
		if err != nil {
			return nil, err
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("the key %q is given twice", cut(name, maxLoc))
		}
		if tok, err = d.next(); err != nil {
			return nil, err
		}
		if m[name], err = d.value(tok); err != nil {
			return nil, err
		}
	}
}
