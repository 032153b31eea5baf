package ledger

import (
	"fmt"
	"strings"
)

// rowsStatement is a statement over rows that are passed as parameters. It has three forms, and bind chooses the one that
// PostgreSQL executes fastest: a single row as plain values; many rows as one array per column; and many rows with the columns
// that are constant in this group as plain values. PostgreSQL materialises the elements of every array before it reads the
// first row, which costs more than to compare the values here.
type rowsStatement[R any] struct {
	columns             []column[R]
	one, constant, many string
}

// column is a column of the rows: its name and type in SQL, and its value in a row.
type column[R any] struct {
	name, typ string
	distinct  bool // the value differs between rows, so it is never bound as a constant
	bind      func(rows []R) boundColumn
}

// boundColumn is a column of the rows of one execution.
type boundColumn struct {
	first    any        // the value in the first row
	array    func() any // the values of all rows
	constant bool       // all rows have the first value
}

// distinct is a column whose values differ between rows.
func distinct[R, V any](name, typ string, value func(*R) V) column[R] {
	return column[R]{name, typ, true, func(rows []R) boundColumn {
		return boundColumn{first: value(&rows[0]), array: func() any { return valuesOf(rows, value) }}
	}}
}

// repeated is a column whose value is often the same in all rows.
func repeated[R any, V comparable](name, typ string, value func(*R) V) column[R] {
	return column[R]{name, typ, false, func(rows []R) boundColumn {
		first := value(&rows[0])
		c := boundColumn{first: first, array: func() any { return valuesOf(rows, value) }, constant: true}
		for i := 1; i < len(rows) && c.constant; i++ {
			c.constant = value(&rows[i]) == first
		}
		return c
	}}
}

// newRowsStatement returns a statement; sql contains "ROWS alias" where the rows belong. Distinct columns come first.
func newRowsStatement[R any](alias, sql string, columns ...column[R]) rowsStatement[R] {
	var constants []string
	names, plain, arrays := make([]string, 0, len(columns)), make([]string, 0, len(columns)), make([]string, 0, len(columns))
	distinctArrays := 0
	for i, c := range columns {
		names = append(names, c.name)
		plain, arrays = append(plain, fmt.Sprintf("$%d::%s", i+1, c.typ)), append(arrays, fmt.Sprintf("$%d::%s[]", i+1, c.typ))
		if c.distinct {
			distinctArrays++
		} else {
			constants = append(constants, plain[i])
		}
	}
	list := func(columns ...string) string { return strings.Join(columns, ", ") }
	from := func(rows string) string {
		return strings.Replace(sql, "ROWS "+alias, rows+" "+alias+"("+list(names...)+")", 1)
	}
	return rowsStatement[R]{
		columns:  columns,
		one:      from("(VALUES (" + list(plain...) + "))"),
		constant: from("(SELECT " + list(append([]string{"r.*"}, constants...)...) + " FROM unnest(" + list(arrays[:distinctArrays]...) + ") r)"),
		many:     from("unnest(" + list(arrays...) + ")"),
	}
}

// bind returns the statement for rows, and its parameters: the columns, and then more.
func (s *rowsStatement[R]) bind(rows []R, more ...any) (string, []any) {
	bound := make([]boundColumn, len(s.columns))
	for i, c := range s.columns {
		bound[i] = c.bind(rows)
	}
	one := len(rows) == 1
	constant := !one
	for i, c := range s.columns {
		constant = constant && (c.distinct || bound[i].constant)
	}
	sql := s.many
	switch {
	case one:
		sql = s.one
	case constant:
		sql = s.constant
	}
	args := make([]any, 0, len(bound)+len(more))
	for i, c := range s.columns {
		if one || constant && !c.distinct {
			args = append(args, bound[i].first)
		} else {
			args = append(args, bound[i].array())
		}
	}
	return sql, append(args, more...)
}

// valuesOf returns the values of a column in all rows.
func valuesOf[R, V any](rows []R, value func(*R) V) []V {
	v := make([]V, len(rows))
	for i := range rows {
		v[i] = value(&rows[i])
	}
	return v
}
