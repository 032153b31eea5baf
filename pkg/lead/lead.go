// Package lead keeps the people of the CRM: creating, reading, and importing them from files of any length. It knows
// no database and no HTTP.
package lead

import (
	"context"
	"fmt"
	"maps"
	"slices"
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

// Store keeps leads. Lead and UpdateLead return a message.Error not_found. InsertLeads writes new leads, all or none; an id
// that is taken is a message.Error conflict. UpdateLead locks a lead, has change change it, and writes the fields that
// differ, in one transaction; an error of change is returned and nothing is written. MergeLeads writes a batch of an import.
// The store may call change and Merge more than once, each time with what is stored then. All but InsertLeads may be
// repeated.
type Store interface {
	Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error)
	Leads(ctx context.Context, after uuid.UUID, limit int) ([]message.Lead, error)
	InsertLeads(ctx context.Context, leads []message.Lead) error
	UpdateLead(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error)
	MergeLeads(ctx context.Context, b Batch) error
}

// Batch is a part of an import that is written in one transaction: the leads that have one of the ids, folded email
// addresses or phones are read and locked, Merge is called with them, those that it returns as created are inserted, and
// those that it returns as updated are written over themselves. A lead that was erased before it was locked is not among
// them. Batches of different importers exclude each other; the caller keeps batches of one importer that share a key apart.
type Batch struct {
	Importer       uuid.UUID
	IDs            []uuid.UUID
	Emails, Phones []string
	Merge          func(stored []message.Lead) (created, updated []message.Lead)
}

// Suppressions keeps who must not be contacted. PutSuppression writes one, or over the one with the same type, address
// and reason, whose id it then takes. DropSuppression returns a message.Error not_found.
type Suppressions interface {
	PutSuppression(ctx context.Context, s *message.Suppression) error
	ListSuppressions(ctx context.Context, t message.ChannelType, address string, before uuid.UUID, limit int) ([]message.Suppression, error)
	DropSuppression(ctx context.Context, id uuid.UUID) error
}

// Eraser forgets a person: the lead, and the address and text wherever messages hold them. Counts and suppressions
// stay. It returns a message.Error not_found.
type Eraser interface {
	EraseLead(ctx context.Context, id uuid.UUID) error
}

// Service is the use cases around leads.
type Service struct {
	store Store
	Suppressions
	eraser  Eraser
	imports *imports
}

// NewService makes a Service over a store.
func NewService(store Store, suppressions Suppressions, eraser Eraser) *Service {
	return &Service{store, suppressions, eraser, newImports()}
}

// Erase forgets a person.
func (s *Service) Erase(ctx context.Context, id uuid.UUID) error { return s.eraser.EraseLead(ctx, id) }

// Update changes a lead and returns it as it is then. Updates of one lead take effect one after the other; change may be
// called more than once. The error is change's, or a message.Error, not_found for a lead that is not there.
func (s *Service) Update(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error) {
	return s.store.UpdateLead(ctx, id, func(l *message.Lead) error {
		if err := change(l); err != nil {
			return err
		}
		stamp(l, time.Now())
		return nil
	})
}

// Suppress puts an address on the list.
func (s *Service) Suppress(ctx context.Context, sup *message.Suppression) error {
	address, ok := message.ValidRecipient(sup.Type, sup.Address)
	if !ok {
		return message.InvalidField(message.SlugValue, "is no address of this type", "address")
	}
	sup.ID, sup.Address, sup.Hash = uuid.Must(uuid.NewV7()), address, message.HashAddress(address)
	sup.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	if len(sup.MessageTypes) == 0 {
		sup.MessageTypes = message.DefaultMessageTypes(sup.Reason)
	}
	return s.PutSuppression(ctx, sup)
}

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
	stamp(l, time.Now())
	err := s.store.InsertLeads(ctx, []message.Lead{*l})
	if message.IsCode(err, message.CodeConflict) {
		return message.Errorf(message.CodeConflict, "there is a lead with the id %s", l.ID)
	}
	return err
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
		*f.Value = text(o, f.Name)
	}
	l.Tags = o.Strings("tags", MaxTags, MaxTag)
	l.CustomFields = customFields(o)
	if t := o.Time("created_at"); t != nil {
		l.CreatedAt = *t
	}
	o.Time("updated_at") // set by us at every write
	l.LastContactedAt = o.Time("last_contacted_at")
	o.Close()
	return l
}

// indexedBound says what a text field with an index must be like.
var indexedBound = fmt.Sprintf("must have at most %d bytes in UTF-8, in lower case, too", message.MaxIndexed)

func text(o *wire.Object, name string) string {
	v := o.String(name, MaxText)
	if !message.FitsIndex(name, v) {
		o.Fail(message.SlugTooLong, indexedBound, name)
		return ""
	}
	return v
}

func customFields(o *wire.Object) map[string]any {
	m := o.Free("custom_fields", MaxCustomBytes)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !message.ValidFieldName(name) {
			o.Fail(message.SlugValue, message.FieldNameBound, "custom_fields", name)
		}
	}
	return m
}

// Patch changes the fields of a lead that a JSON object names; null empties one. Mistakes go to the object's errors.
func Patch(o *wire.Object, l *message.Lead) {
	for _, f := range l.TextFields() {
		if o.Given(f.Name) {
			*f.Value = text(o, f.Name)
		}
	}
	if o.Given("tags") {
		l.Tags = o.Strings("tags", MaxTags, MaxTag)
	}
	if o.Given("custom_fields") {
		l.CustomFields = customFields(o)
	}
	if o.Given("last_contacted_at") {
		l.LastContactedAt = o.Time("last_contacted_at")
	}
	o.Close()
}
