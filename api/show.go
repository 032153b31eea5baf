package api

import (
	"time"

	"github.com/google/uuid"

	"herald/api/request"
	"herald/pkg/contract"
)

// listOf makes a page of at most limit items. items was queried with limit+1: an extra item means that a next page exists.
func listOf[D, T any](q *request.Query, items []D, limit int, show func(*D) T, key func(*D) string) contract.Page[T] {
	l := contract.Page[T]{Items: make([]T, 0, limit)}
	for i := range items {
		if i == limit {
			next := q.Cursor(key(&items[i-1]))
			l.NextCursor = &next
			break
		}
		l.Items = append(l.Items, show(&items[i]))
	}
	return l
}

// at returns a time as the wire shows it: in UTC, truncated to the second.
func at(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	s := t.UTC().Truncate(time.Second)
	return &s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func idOrNull(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	s := id.String()
	return &s
}
