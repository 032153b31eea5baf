package store

import (
	"fmt"
	"reflect"
	"slices"
	"sync"

	"gorm.io/gorm/schema"
)

// Columns returns the columns of a row struct in the order of its fields, without some. The struct is the only list of a
// table's columns: statements that name columns take them from here.
func Columns(row any, except ...string) []string {
	s, err := schema.Parse(row, &sync.Map{}, schema.NamingStrategy{})
	if err != nil {
		panic(fmt.Sprintf("columns of %T: %v", row, err)) // a mistake in the struct's tags, found by every test
	}
	return slices.DeleteFunc(slices.Clone(s.DBNames), func(c string) bool { return slices.Contains(except, c) })
}

// Values returns the fields of a row struct in the order of Columns.
func Values(row any) []any {
	v := reflect.ValueOf(row)
	out := make([]any, v.NumField())
	for i := range out {
		out[i] = v.Field(i).Interface()
	}
	return out
}

// BatchRows bounds the rows, and with them the parameters, of one insert.
const BatchRows = 200
