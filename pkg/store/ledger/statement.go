package ledger

import (
	"fmt"
	"strings"
)

// rowsStatement is a statement over rows that are passed as parameters. It has two forms: a single row as plain values, and many
// rows as one array per column. A single row as arrays of one element would cost PostgreSQL a fifth more. A third form, with the
// columns that are equal in all rows as plain values, was removed: for load, claim and settle of a message it saved 0.5 % of the
// CPU time of server and worker together (54.5 against 54.8 µs, six pairs of 30,000 messages).
type rowsStatement[R any] struct {
	columns   []column[R]
	one, many string
}

// column is a column of the rows: its name and type in SQL, and its values.
type column[R any] struct {
	name, typ string
	value     func(row *R) any
	array     func(rows []R) any
}

// newColumn returns a column whose value in a row is value's result.
func newColumn[R, V any](name, typ string, value func(*R) V) column[R] {
	return column[R]{name, typ, func(row *R) any { return value(row) }, func(rows []R) any { return valuesOf(rows, value) }}
}

// newRowsStatement returns a statement; sql contains "ROWS alias" where the rows belong.
func newRowsStatement[R any](alias, sql string, columns ...column[R]) rowsStatement[R] {
	names, plain, arrays := make([]string, len(columns)), make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i], plain[i], arrays[i] = c.name, fmt.Sprintf("$%d::%s", i+1, c.typ), fmt.Sprintf("$%d::%s[]", i+1, c.typ)
	}
	list := func(columns []string) string { return strings.Join(columns, ", ") }
	from := func(rows string) string {
		return strings.Replace(sql, "ROWS "+alias, rows+" "+alias+"("+list(names)+")", 1)
	}
	return rowsStatement[R]{columns: columns, one: from("(VALUES (" + list(plain) + "))"), many: from("unnest(" + list(arrays) + ")")}
}

// bind returns the statement for rows, and its parameters: the columns, and then more.
func (s *rowsStatement[R]) bind(rows []R, more ...any) (string, []any) {
	args := make([]any, 0, len(s.columns)+len(more))
	if len(rows) == 1 {
		for _, c := range s.columns {
			args = append(args, c.value(&rows[0]))
		}
		return s.one, append(args, more...)
	}
	for _, c := range s.columns {
		args = append(args, c.array(rows))
	}
	return s.many, append(args, more...)
}

// valuesOf returns the values of a column in all rows.
func valuesOf[R, V any](rows []R, value func(*R) V) []V {
	v := make([]V, len(rows))
	for i := range rows {
		v[i] = value(&rows[i])
	}
	return v
}
