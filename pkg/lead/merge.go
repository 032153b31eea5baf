package lead

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// merger applies the rows of a batch to the stored leads that they mean, and to new leads of the same batch.
type merger struct {
	byID             map[uuid.UUID]*message.Lead
	byEmail, byPhone map[string]*message.Lead // by message.EmailKey and PhoneKey
	changed          []*message.Lead          // in the order of their first row
	isChanged        map[uuid.UUID]bool
	isNew            map[uuid.UUID]bool
}

func newMerger(stored []message.Lead) *merger {
	m := &merger{
		byID: map[uuid.UUID]*message.Lead{}, byEmail: map[string]*message.Lead{}, byPhone: map[string]*message.Lead{},
		isChanged: map[uuid.UUID]bool{}, isNew: map[uuid.UUID]bool{},
	}
	slices.SortFunc(stored, func(a, b message.Lead) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	for i := range stored {
		m.index(&stored[i])
	}
	return m
}

// index enters a lead under its keys. A key that an older lead has stays with that lead.
func (m *merger) index(l *message.Lead) {
	m.byID[l.ID] = l
	if k := message.EmailKey(l.Email); k != "" && m.byEmail[k] == nil {
		m.byEmail[k] = l
	}
	if k := message.PhoneKey(l.Phone); k != "" && m.byPhone[k] == nil {
		m.byPhone[k] = l
	}
}

// find returns the lead that a row means, nil for a new one. A row with an id never means a lead with another id, even
// if it has the same email address.
func (m *merger) find(row *message.Lead) *message.Lead {
	if row.ID != uuid.Nil {
		return m.byID[row.ID]
	}
	if row.Email != "" {
		if l := m.byEmail[message.EmailKey(row.Email)]; l != nil {
			return l
		}
	}
	if row.Phone != "" {
		return m.byPhone[message.PhoneKey(row.Phone)]
	}
	return nil
}

// outcome is what a row did to the leads.
type outcome int

const (
	created outcome = iota
	updated
	unchanged
	refused
)

// merge applies a row. An error means that the lead would be too large with it; the lead is then unchanged.
func (m *merger) merge(row *message.Lead, now time.Time) (outcome, error) {
	l, did := m.find(row), updated
	if l == nil {
		did, l = created, new(message.Lead)
		*l = *row
	} else if changed, err := apply(l, row); err != nil || !changed {
		return unchanged, err
	}
	stamp(l, now)
	if did == created {
		m.isNew[l.ID] = true
	}
	m.index(l)
	if !m.isChanged[l.ID] {
		m.isChanged[l.ID] = true
		m.changed = append(m.changed, l)
	}
	return did, nil
}

// apply merges the fields of a row into a lead, all or none, and reports whether the lead changed.
func apply(l, row *message.Lead) (changed bool, err error) {
	merged := *l
	for _, f := range fields {
		if f.merge == nil {
			continue
		}
		fieldChanged, err := f.merge(&merged, row)
		if err != nil {
			return false, err
		}
		changed = changed || fieldChanged
	}
	*l = merged
	return changed, nil
}

// changes returns the leads to insert and the leads to update.
func (m *merger) changes() (created, updated []message.Lead) {
	for _, l := range m.changed {
		if m.isNew[l.ID] {
			created = append(created, *l)
		} else {
			updated = append(updated, *l)
		}
	}
	return created, updated
}
