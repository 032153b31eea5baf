package search

import (
	"github.com/google/uuid"

	"herald/pkg/audience"
)

// ListQuery returns the query that searches a list in PostgreSQL or SQLite.
func ListQuery(postgres bool, c *audience.Criteria, after uuid.UUID, limit int) (string, []any) {
	q := &compiler{postgres: postgres}
	return q.list(c, after, limit), q.args
}
