package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// The hot statements carry a group of rows as arrays, one a column. pgx writes an array by asking for each element as an
// interface, which for ids and texts is two allocations an element and a third of what a statement costs here; this
// writes them straight.

// registerTypes makes a connection write arrays of ids and texts so, and ids by themselves as their bytes, not as text.
func registerTypes(m *pgtype.Map) {
	pgxuuid.Register(m)
	m.RegisterType(&pgtype.Type{Name: "uuid", OID: pgtype.UUIDOID, Codec: idCodec{}})
	for _, oid := range []uint32{pgtype.UUIDArrayOID, pgtype.TextArrayOID} {
		if t, ok := m.TypeForOID(oid); ok {
			if codec, ok := t.Codec.(*pgtype.ArrayCodec); ok {
				m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: arrayCodec{codec}})
			}
		}
	}
}

// idCodec reads an id into a uuid.UUID, NULL as the nil one. pgx would have it read itself from text.
type idCodec struct{ pgxuuid.UUIDCodec }

// PlanScan implements pgtype.Codec.
func (c idCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(*uuid.UUID); ok && format == pgtype.BinaryFormatCode {
		return idPlan{}
	}
	return c.UUIDCodec.PlanScan(m, oid, format, target)
}

type idPlan struct{}

// Scan implements pgtype.ScanPlan.
func (idPlan) Scan(src []byte, target any) error {
	id, ok := target.(*uuid.UUID)
	if !ok || src != nil && len(src) != len(id) {
		return fmt.Errorf("an id of %d bytes for %T", len(src), target)
	}
	*id = uuid.Nil
	copy(id[:], src)
	return nil
}

// arrayCodec is pgx's own for everything but the writing of ids and texts.
type arrayCodec struct{ *pgtype.ArrayCodec }

// PlanEncode implements pgtype.Codec.
func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	of := uint32(0)
	switch value.(type) {
	case []uuid.UUID, []*uuid.UUID:
		of = pgtype.UUIDOID
	case []string, []*string:
		of = pgtype.TextOID
	}
	if format == pgtype.BinaryFormatCode && of == c.ElementType.OID { // texts may also stand for ids
		return arrayPlan(of)
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// arrayPlan writes arrays whose elements have its OID.
type arrayPlan uint32

// Encode implements pgtype.EncodePlan.
func (p arrayPlan) Encode(value any, buf []byte) ([]byte, error) {
	switch v := value.(type) {
	case []uuid.UUID:
		return appendArray(buf, p, v, func(buf []byte, id uuid.UUID) []byte { return append(buf, id[:]...) })
	case []string:
		return appendArray(buf, p, v, func(buf []byte, s string) []byte { return append(buf, s...) })
	case []*uuid.UUID:
		return appendArray(buf, p, v, func(buf []byte, id *uuid.UUID) []byte {
			if id == nil {
				return nil
			}
			return append(buf, id[:]...)
		})
	case []*string:
		return appendArray(buf, p, v, func(buf []byte, s *string) []byte {
			if s == nil {
				return nil
			}
			return append(buf, *s...)
		})
	}
	return nil, fmt.Errorf("an array of %T", value)
}

const lengthBytes = 4

// appendArray writes an array as PostgreSQL's array_recv reads it: the number of dimensions, whether there may be NULLs,
// the elements' type, length and lower bound of the dimension, and each element after its length, which is -1 for NULL.
// add appends one element, or returns nil for NULL.
func appendArray[T any](buf []byte, elements arrayPlan, values []T, add func(buf []byte, v T) []byte) ([]byte, error) {
	for _, v := range []uint32{1, 1, uint32(elements), uint32(len(values)), 1} {
		buf = binary.BigEndian.AppendUint32(buf, v)
	}
	for _, v := range values {
		at := len(buf)
		buf = append(buf, 0, 0, 0, 0)
		written := add(buf, v)
		if written == nil {
			binary.BigEndian.PutUint32(buf[at:], math.MaxUint32)
			continue
		}
		buf = written
		n := len(buf) - at - lengthBytes
		if n > math.MaxInt32 {
			return nil, fmt.Errorf("an element of %d bytes", n)
		}
		binary.BigEndian.PutUint32(buf[at:], uint32(n))
	}
	return buf, nil
}

// shaped is a statement over rows that come as its parameters: many as an array for each column, one as plain values, which
// PostgreSQL reads in half the time.
type shaped struct{ one, many string }

// shape puts the rows, whose columns have these types, where the statement says ROWS.
func shape(types []string, sql string) shaped {
	one, many := make([]string, len(types)), make([]string, len(types))
	for i, t := range types {
		one[i], many[i] = fmt.Sprintf("$%d::%s", i+1, t), fmt.Sprintf("$%d::%s[]", i+1, t)
	}
	return shaped{
		strings.Replace(sql, "ROWS", "(VALUES ("+strings.Join(one, ", ")+"))", 1),
		strings.Replace(sql, "ROWS", "unnest("+strings.Join(many, ", ")+")", 1),
	}
}

// of is the statement for so many rows.
func (s shaped) of(rows int) string {
	if rows == 1 {
		return s.one
	}
	return s.many
}

// parameter is a column of rows as a shaped statement takes it.
func parameter[V any](column []V) any {
	if len(column) == 1 {
		return column[0]
	}
	return column
}

// each is a column of rows as a shaped statement takes it.
func each[R, V any](rows []R, of func(*R) V) any { return parameter(column(rows, of)) }

// column is one column of rows, as an array parameter.
func column[R, V any](rows []R, of func(*R) V) []V {
	values := make([]V, len(rows))
	for i := range rows {
		values[i] = of(&rows[i])
	}
	return values
}
