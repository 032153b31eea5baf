package api

import (
	"time"

	"github.com/google/uuid"

	"herald/api/request"
	"herald/pkg/contract"
)

// listOf makes a page: items was asked for with one more than limit, which tells whether there is a next page.
func listOf[D, T any](items []D, limit int, show func(*D) T, key func(*D) string) contract.Page[T] {
	l := contract.Page[T]{Items: make([]T, 0, limit)}
	for i := range items {
		if i == limit {
			next := request.Cursor(key(&items[i-1]))
			l.NextCursor = &next
			break
		}
		l.Items = append(l.Items, show(&items[i]))
	}
	return l
}

// at is a time as the wire has it: in UTC, to the second.
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
