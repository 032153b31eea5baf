// Package lead manages the people of the CRM and the addresses that must not be contacted: create, read, change and erase
// leads, and import them from CSV and NDJSON files of any length. fields.go declares the fields of a lead. The package
// knows no database and no HTTP; its ports are Store, Suppressions and Eraser.
package lead

import (
	"context"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// Store keeps leads. All methods but InsertLeads may be repeated after an error.
type Store interface {
	// Lead returns one lead, or a message.Error not_found.
	Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error)
	// Leads returns at most limit leads with ids above after that meet the criteria, in the order of their ids. nil criteria are met
	// by every lead. It returns audience.ErrTooSlow when the database exceeds its time limit.
	Leads(ctx context.Context, c *audience.Criteria, after uuid.UUID, limit int) ([]message.Lead, error)
	// InsertLeads writes new leads, all or none. An id that is in use is a message.Error conflict.
	InsertLeads(ctx context.Context, leads []message.Lead) error
	// UpdateLead locks a lead, calls change with it and writes the fields that differ, in one transaction. It may call
	// change more than once, each time with the lead as it is stored then. An error of change is returned and nothing is
	// written. A missing lead is a message.Error not_found.
	UpdateLead(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error)
	// MergeLeads writes one batch of an import, all or nothing.
	MergeLeads(ctx context.Context, b Batch) error
}

// Batch is a part of an import that is written in one transaction. The store reads and locks the leads that have one of the
// IDs, Emails or Phones, in the form of message.EmailKey and PhoneKey, and calls Merge with them, without leads that were erased before they were locked. It inserts
// what Merge returns as created and writes what Merge returns as updated over the leads with these ids. It may call Merge
// more than once, each time with the leads as they are stored then. The store excludes batches of different importers; the
// caller keeps batches of one importer that share a key apart.
type Batch struct {
	Importer       uuid.UUID
	IDs            []uuid.UUID
	Emails, Phones []string
	Merge          func(stored []message.Lead) (created, updated []message.Lead)
}

// Suppressions keeps the addresses that must not be contacted.
type Suppressions interface {
	// PutSuppression writes an entry, or overwrites the entry with the same type, address and reason, whose id s then gets.
	PutSuppression(ctx context.Context, s *message.Suppression) error
	// ListSuppressions returns at most limit entries that match a filter, with ids below before, newest first.
	ListSuppressions(ctx context.Context, f message.SuppressionFilter, before uuid.UUID, limit int) ([]message.Suppression, error)
	// DropSuppression removes an entry. A missing entry is a message.Error not_found.
	DropSuppression(ctx context.Context, id uuid.UUID) error
}

// Eraser erases a person: the lead, and its address and text in all messages. Counts and suppressions stay. A missing lead
// is a message.Error not_found.
type Eraser interface {
	// The conditions get the time of the lead's last update, under its lock; the error of one is returned and nothing is erased.
	EraseLead(ctx context.Context, id uuid.UUID, conditions ...func(updated time.Time) error) error
}

// Service implements the use cases around leads. It is safe for concurrent use.
type Service struct {
	deps    deps
	imports *importer
}

// deps are the ports of a Service.
type deps struct {
	store        Store
	suppressions Suppressions
	eraser       Eraser
}

// NewService makes a Service.
func NewService(store Store, suppressions Suppressions, eraser Eraser) *Service {
	return &Service{deps{store, suppressions, eraser}, newImporter()}
}

// Erase erases a person, see Eraser.
func (s *Service) Erase(ctx context.Context, id uuid.UUID, conditions ...func(updated time.Time) error) error {
	return s.deps.eraser.EraseLead(ctx, id, conditions...)
}

// Update changes a lead and returns the result. Updates of one lead run one after the other; change may be called more than
// once. The error is change's, or a message.Error, not_found for a missing lead.
func (s *Service) Update(ctx context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error) {
	return s.deps.store.UpdateLead(ctx, id, func(l *message.Lead) error {
		if err := change(l); err != nil {
			return err
		}
		stamp(l, time.Now())
		return nil
	})
}

// Suppress validates and normalises an address and puts it on the list of suppressions. Without MessageTypes the reason
// decides which types of message are stopped.
func (s *Service) Suppress(ctx context.Context, sup *message.Suppression) error {
	address, ok := message.ValidRecipient(sup.Type, sup.Address)
	if !ok {
		return message.InvalidField(message.SlugValue, "is not an address of this channel type", "address")
	}
	sup.ID, sup.Address, sup.Hash = uuid.Must(uuid.NewV7()), address, message.HashAddress(address)
	sup.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	if len(sup.MessageTypes) == 0 {
		sup.MessageTypes = message.DefaultMessageTypes(sup.Reason)
	}
	return s.deps.suppressions.PutSuppression(ctx, sup)
}

// ListSuppressions returns at most limit entries that match a filter, with ids below before, newest first.
func (s *Service) ListSuppressions(ctx context.Context, f message.SuppressionFilter, before uuid.UUID, limit int) ([]message.Suppression, error) {
	return s.deps.suppressions.ListSuppressions(ctx, f, before, limit)
}

// DropSuppression removes an entry. A missing entry is a message.Error not_found.
func (s *Service) DropSuppression(ctx context.Context, id uuid.UUID) error {
	return s.deps.suppressions.DropSuppression(ctx, id)
}

// Get returns one lead, or a message.Error not_found.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	return s.deps.store.Lead(ctx, id)
}

// List returns at most limit leads with ids above after that match a filter, in the order of their ids. It returns
// audience.ErrTooSlow when the database exceeds its time limit.
func (s *Service) List(ctx context.Context, f Filter, after uuid.UUID, limit int) ([]message.Lead, error) {
	return s.deps.store.Leads(ctx, f.Criteria(), after, limit)
}

// Create stores a new lead and fills in its id, where it has none, and its times. An id that is in use is a conflict.
func (s *Service) Create(ctx context.Context, l *message.Lead) error {
	stamp(l, time.Now())
	err := s.deps.store.InsertLeads(ctx, []message.Lead{*l})
	if message.IsCode(err, message.CodeConflict) {
		return message.Errorf(message.CodeConflict, "a lead with the id %s exists already", l.ID)
	}
	return err
}

// stamp gives a lead that is about to be written its id and its times. An id and a time of creation that are set stay.
// Times are truncated to the microsecond, the precision of both databases. Each update of a lead is later than the one before, so the
// time tells the versions of a lead apart, even if the clocks of two processes do not agree.
func stamp(l *message.Lead, now time.Time) {
	if l.ID == uuid.Nil {
		l.ID = uuid.Must(uuid.NewV7())
	}
	now = now.UTC().Truncate(time.Microsecond)
	if l.CreatedAt.IsZero() {
		l.CreatedAt = now
	}
	if !now.After(l.UpdatedAt) {
		now = l.UpdatedAt.Add(time.Microsecond)
	}
	l.UpdatedAt = now
}
