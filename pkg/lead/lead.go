// Package lead keeps the people of the CRM: creating, reading, and importing them from files of any length. It knows
// no database and no HTTP.
package lead

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// Limits of a lead's fields.
const (
	MaxText        = 1_000 // characters of a text field
	MaxTags        = 200
	MaxTag         = 200 // characters
	MaxCustomBytes = 64 << 10
)

// Store keeps leads. Lead returns a message.Error not_found. SaveLeads writes every lead whole, new ones and
// over those that are there, in one transaction. MatchLeads returns the leads that have one of the ids, folded email addresses
// or phones. All may be repeated.
type Store interface {
	Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error)
	Leads(ctx context.Context, after uuid.UUID, limit int) ([]message.Lead, error)
	MatchLeads(ctx context.Context, ids []uuid.UUID, emails, phones []string) ([]message.Lead, error)
	SaveLeads(ctx context.Context, created, updated []message.Lead) error
}

// Service is the use cases around leads.
type Service struct{ store Store }

// NewService makes a Service over a store.
func NewService(store Store) *Service { return &Service{store} }

// Get returns one lead.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	return s.store.Lead(ctx, id)
}

// List returns leads in the order of their ids, beginning after one.
func (s *Service) List(ctx context.Context, after uuid.UUID, limit int) ([]message.Lead, error) {
	return s.store.Leads(ctx, after, limit)
}

// Create stores a new lead. An id that is taken is a conflict.
func (s *Service) Create(ctx context.Context, l *message.Lead) error {
	if l.ID != uuid.Nil {
		_, err := s.store.Lead(ctx, l.ID)
		if err == nil {
			return message.Errorf(message.CodeConflict, "there is a lead with the id %s", l.ID)
		}
		if !message.IsCode(err, message.CodeNotFound) {
			return err
		}
	}
	stamp(l, time.Now())
	return s.store.SaveLeads(ctx, []message.Lead{*l}, nil)
}

func stamp(l *message.Lead, now time.Time) {
	if l.ID == uuid.Nil {
		l.ID = uuid.Must(uuid.NewV7())
	}
	now = now.UTC().Truncate(time.Microsecond)
	if l.CreatedAt.IsZero() {
		l.CreatedAt = now
	}
	l.UpdatedAt = now
}

// Parse reads a lead from a JSON object. Mistakes go to the object's errors.
func Parse(o *wire.Object) *message.Lead {
	l := &message.Lead{ID: o.UUID("id")}
	for _, f := range l.TextFields() {
		*f.Value = o.String(f.Name, MaxText)
	}
	l.Tags = o.Strings("tags", MaxTags, MaxTag)
	l.CustomFields = o.Free("custom_fields", MaxCustomBytes)
	if t := o.Time("created_at"); t != nil {
		l.CreatedAt = *t
	}
	o.Time("updated_at") // set by us at every write
	l.LastContactedAt = o.Time("last_contacted_at")
	o.Close()
	return l
}
