package store

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// Document is a JSON column: jsonb in PostgreSQL, text in SQLite. An empty one is NULL.
type Document []byte

// Encode returns a value of this program's types as a document. Such values always encode: it panics otherwise.
func Encode(v any) Document {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

// Decode decodes the document. NULL changes nothing.
func (d Document) Decode(into any) error {
	if len(d) == 0 {
		return nil
	}
	if err := json.Unmarshal(d, into); err != nil {
		return fmt.Errorf("decode a JSON column: %w", err)
	}
	return nil
}

// Value implements driver.Valuer.
func (d Document) Value() (driver.Value, error) {
	if len(d) == 0 {
		return nil, nil //nolint:nilnil // a Valuer's NULL
	}
	return string(d), nil
}

// Scan implements sql.Scanner.
func (d *Document) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*d = nil
	case string:
		*d = Document(v)
	case []byte:
		*d = append(Document(nil), v...)
	default:
		return fmt.Errorf("a JSON column holds %T", v)
	}
	return nil
}

// MarshalJSON returns the document itself, for statements that take rows as JSON.
func (d Document) MarshalJSON() ([]byte, error) {
	if len(d) == 0 {
		return []byte("null"), nil
	}
	return d, nil
}

// Text returns the document as a nullable text parameter.
func (d Document) Text() *string {
	if len(d) == 0 {
		return nil
	}
	s := string(d)
	return &s
}

// orNull returns the document as a value for COPY.
func (d Document) orNull() any {
	if len(d) == 0 {
		return nil
	}
	return []byte(d)
}

// numberReader decodes documents one after the other and keeps all digits of their numbers. It is reused: a new json.Decoder
// for every lead of a bulk would cost more than the decoding.
type numberReader struct {
	doc bytes.Reader
	dec *json.Decoder
}

var numberReaders = sync.Pool{New: func() any {
	r := &numberReader{}
	r.dec = json.NewDecoder(&r.doc)
	r.dec.UseNumber()
	return r
}}

// decodeNumbers decodes an object; its numbers become json.Number.
func (d Document) decodeNumbers(into *map[string]any) error {
	if len(d) == 0 {
		return nil
	}
	r, _ := numberReaders.Get().(*numberReader)
	before := r.dec.InputOffset()
	r.doc.Reset(d)
	err := r.dec.Decode(into)
	if err == nil && r.dec.InputOffset()-before != int64(len(bytes.TrimRight(d, " \t\r\n"))) {
		err = errors.New("unexpected data after the value")
	}
	if err != nil { // a decoder that failed keeps its error and is not reused
		return fmt.Errorf("decode a JSON column: %w", err)
	}
	numberReaders.Put(r)
	return nil
}

// NullID returns an id as a nullable parameter: nil for uuid.Nil.
func NullID(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// OrNil returns the id of a nullable column: uuid.Nil for NULL.
func OrNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}
