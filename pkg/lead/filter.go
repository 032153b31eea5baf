package lead

import (
	"time"

	"herald/pkg/audience"
)

// Filter selects leads of a list. Empty fields select every lead; the others must all match. Texts are compared as the filters
// of an audience compare them, addresses in their normalised form, and AssigneeID exactly.
type Filter struct {
	Email, Phone, InstagramID string
	AssigneeID                string
	Tag                       string
	Status                    string
	Search                    string // every word must occur, as in search_keyword of an audience
	CreatedAfter              *time.Time
	CreatedBefore             *time.Time
	UpdatedAfter              *time.Time
}

// Criteria returns the audience that a filter describes, nil for every lead. The database then has one implementation of both.
func (f *Filter) Criteria() *audience.Criteria {
	var parts []audience.Node
	for _, text := range []struct{ field, value string }{
		{"email", f.Email}, {"phone", f.Phone}, {"instagram_id", f.InstagramID}, {"status", f.Status}, {"tags", f.Tag},
	} {
		if text.value != "" {
			parts = append(parts, audience.Is(text.field, text.value)...)
		}
	}
	for _, bound := range []struct {
		field string
		op    audience.Op
		at    *time.Time
	}{
		{"created_at", audience.After, f.CreatedAfter}, {"created_at", audience.Before, f.CreatedBefore}, {"updated_at", audience.After, f.UpdatedAfter},
	} {
		if bound.at != nil {
			parts = append(parts, audience.Node{Cond: &audience.Condition{Field: bound.field, Kind: audience.Time, Op: bound.op, Times: []time.Time{*bound.at}}})
		}
	}
	c := audience.Criteria{Words: audience.Words(f.Search)}
	if f.AssigneeID != "" {
		c.Assignees = []string{f.AssigneeID}
	}
	if len(parts) > 0 {
		c.Filter = &audience.Node{Children: parts}
	}
	if c.Filter == nil && len(c.Words) == 0 && len(c.Assignees) == 0 {
		return nil
	}
	return &c
}
