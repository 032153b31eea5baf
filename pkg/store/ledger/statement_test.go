package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"herald/pkg/store"
	"herald/pkg/testenv"
)

// PostgreSQL reads the same rows from every form of a statement.
func TestTheFormsOfAStatement(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), testenv.Database(t, testenv.Postgres))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	store.RegisterTypes(conn.TypeMap())
	type row struct {
		N           int
		Name, State string
		Why         *string
		More        string
	}
	stmt := newRowsStatement("x", `SELECT x.n, x.name, x.state, x.why, $5::text FROM ROWS x ORDER BY x.n`,
		newColumn("n", "integer", func(r *row) int { return r.N }),
		newColumn("name", "text", func(r *row) string { return r.Name }),
		newColumn("state", "text", func(r *row) string { return r.State }),
		newColumn("why", "text", func(r *row) *string { return r.Why }),
	)
	why, whyNot := "why", "why not"
	for name, c := range map[string]struct {
		form string
		rows []row
	}{
		"one":                 {stmt.one, []row{{1, "a", "sent", &why, "m"}}},
		"one without a value": {stmt.one, []row{{1, "a", "sent", nil, "m"}}},
		"alike":               {stmt.many, []row{{1, "a", "sent", &why, "m"}, {2, "b", "sent", &why, "m"}, {3, "c", "sent", &why, "m"}}},
		"alike without":       {stmt.many, []row{{1, "a", "sent", nil, "m"}, {2, "b", "sent", nil, "m"}}},
		"the last differs":    {stmt.many, []row{{1, "a", "sent", nil, "m"}, {2, "b", "sent", nil, "m"}, {3, "c", "failed", nil, "m"}}},
		"one column differs":  {stmt.many, []row{{1, "a", "sent", &why, "m"}, {2, "b", "sent", &whyNot, "m"}}},
		"one has none":        {stmt.many, []row{{1, "a", "sent", &why, "m"}, {2, "b", "sent", nil, "m"}}},
	} {
		t.Run(name, func(t *testing.T) {
			sql, args := stmt.bind(c.rows, "m")
			if sql != c.form {
				t.Errorf("not the form for these rows: %s", sql)
			}
			answer, err := conn.Query(t.Context(), sql, args...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(answer, pgx.RowToStructByPos[row])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.rows, got); d != "" {
				t.Error(d)
			}
		})
	}
}
