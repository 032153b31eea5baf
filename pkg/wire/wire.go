// Package wire reads JSON strictly. Decode turns a body into a tree and refuses everything that a lenient decoder
// lets through; Object reads the tree with types and collects every mistake with its path, so that a caller learns of
// all of them at once. It knows no HTTP and no route.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"herald/pkg/message"
)

// MaxDepth is how deeply arrays and objects may be nested.
const MaxDepth = 32

// Decode reads exactly one JSON document of valid UTF-8. Objects become map[string]any, arrays []any, numbers
// json.Number. An empty body, trailing data, a key given twice, a NUL character and too much depth are errors, as a
// message.Error whose loc starts with "body".
func Decode(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, message.InvalidField(message.SlugMissing, "a JSON body is required", "body")
	}
	if !utf8.Valid(body) {
		return nil, message.InvalidField(message.SlugJSON, "the body is not valid UTF-8", "body")
	}
	d := &decoder{dec: json.NewDecoder(bytes.NewReader(body))}
	d.dec.UseNumber()
	v, err := d.value(0)
	if err == nil {
		if _, terr := d.dec.Token(); !errors.Is(terr, io.EOF) {
			err = errors.New("there is more after the JSON document")
		}
	}
	if err != nil {
		return nil, message.InvalidField(message.SlugJSON, "not valid JSON: "+err.Error(), "body", int(d.dec.InputOffset()))
	}
	return v, nil
}

type decoder struct{ dec *json.Decoder }

func (d *decoder) value(depth int) (any, error) {
	tok, err := d.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch t := tok.(type) {
	case json.Delim:
		if depth >= MaxDepth {
			return nil, fmt.Errorf("nested more than %d deep", MaxDepth)
		}
		if t == '[' {
			return d.array(depth)
		}
		return d.object(depth)
	case string:
		if strings.IndexByte(t, 0) >= 0 {
			return nil, errors.New("a string holds a NUL character")
		}
		return t, nil
	default:
		return t, nil
	}
}

func (d *decoder) array(depth int) (any, error) {
	list := []any{}
	for d.dec.More() {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.dec.Token()
	return list, err
}

func (d *decoder) object(depth int) (any, error) {
	m := map[string]any{}
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := tok.(string)
		if !ok {
			return nil, errors.New("an object's key is not a string")
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("the key %q is given twice", name)
		}
		if strings.IndexByte(name, 0) >= 0 {
			return nil, errors.New("a key holds a NUL character")
		}
		if m[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := d.dec.Token()
	return m, err
}
