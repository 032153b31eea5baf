package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
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

// shaped is a statement over rows that come as its parameters, in the form that PostgreSQL reads fastest: one row as plain
// values, many as an array for each column. As it puts the elements of every array aside before it reads the rows, which
// costs more than to compare them here, columns that are the same in all rows go as plain values, too.
type shaped struct{ one, alike, many string }

// shape puts the rows, whose columns have these types, where the statement says ROWS. The columns after the first own ones
// are those that are often the same in all rows.
func shape(own int, types []string, sql string) shaped {
	plain, arrays := make([]string, len(types)), make([]string, len(types))
	for i, t := range types {
		plain[i], arrays[i] = fmt.Sprintf("$%d::%s", i+1, t), fmt.Sprintf("$%d::%s[]", i+1, t)
	}
	list := func(columns ...string) string { return strings.Join(columns, ", ") }
	from := func(rows string) string { return strings.Replace(sql, "ROWS", rows, 1) }
	return shaped{
		one:   from("(VALUES (" + list(plain...) + "))"),
		alike: from("(SELECT " + list(append([]string{"r.*"}, plain[own:]...)...) + " FROM unnest(" + list(arrays[:own]...) + ") r)"),
		many:  from("unnest(" + list(arrays...) + ")"),
	}
}

// of is the statement for rows of these columns, and its parameters: the columns, and what more it takes.
func (s shaped) of(columns []column, more ...any) (string, []any) {
	alike := !slices.ContainsFunc(columns, func(c column) bool { return !c.own && !c.same })
	sql := s.many
	switch {
	case columns[0].rows == 1:
		sql = s.one
	case alike:
		sql = s.alike
	}
	args := make([]any, 0, len(columns)+len(more))
	for _, c := range columns {
		if c.rows == 1 || alike && !c.own {
			args = append(args, c.first)
		} else {
			args = append(args, c.array())
		}
	}
	return sql, append(args, more...)
}

// column is one column of rows.
type column struct {
	rows  int
	first any        // the first row's value
	array func() any // the values of all rows
	own   bool       // every row has a value of its own
	same  bool       // all rows have the first one's
}

// each is a column in which every row has a value of its own.
func each[R, V any](rows []R, of func(*R) V) column {
	return column{rows: len(rows), first: of(&rows[0]), array: func() any { return values(rows, of) }, own: true}
}

// often is a column that is often the same in all rows.
func often[R any, V comparable](rows []R, of func(*R) V) column {
	first := of(&rows[0])
	c := column{rows: len(rows), first: first, array: func() any { return values(rows, of) }, same: true}
	for i := 1; i < len(rows) && c.same; i++ {
		c.same = of(&rows[i]) == first
	}
	return c
}

// values are what a column has in each row.
func values[R, V any](rows []R, of func(*R) V) []V {
	v := make([]V, len(rows))
	for i := range rows {
		v[i] = of(&rows[i])
	}
	return v
}
