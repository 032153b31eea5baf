package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// RegisterTypes installs codecs on a connection that write arrays of ids and texts, and ids, directly in binary. The ledger's
// statements carry a group of rows as one array per column. pgx's own array codec converts each element to an interface:
// two allocations per id or text, a third of what a statement costs in this process.
func RegisterTypes(m *pgtype.Map) {
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

// idCodec reads an id into a uuid.UUID, NULL as uuid.Nil. pgx would convert it to text and parse that.
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
		return fmt.Errorf("read id of %d bytes into %T", len(src), target)
	}
	*id = uuid.Nil
	copy(id[:], src)
	return nil
}

// arrayCodec writes arrays of ids and texts, and leaves everything else to pgx's codec.
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
	if format == pgtype.BinaryFormatCode && of == c.ElementType.OID { // a []string may also be the value of a uuid[]
		return arrayPlan(of)
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// arrayPlan writes arrays; its value is the OID of the elements.
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
	return nil, fmt.Errorf("write array of %T", value)
}

const lengthBytes = 4

// appendArray writes an array in the format of PostgreSQL's array_recv: the number of dimensions, a flag that NULLs may
// occur, the elements' type, the length and the lower bound of the dimension, then each element after its length (-1: NULL).
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
			return nil, fmt.Errorf("write array element of %d bytes", n)
		}
		binary.BigEndian.PutUint32(buf[at:], uint32(n))
	}
	return buf, nil
}
