// Package event declares what other systems may want to know about bulks, channels and leads. The component that causes an
// event writes it to the outbox in the same transaction, so an event exists if, and only if, its cause was committed. Events
// hold ids and numbers, never addresses or content. Each change of a bulk, a channel or a lead has one event; messages have
// none, because a bulk would write millions.
//
// The package does not know how the outbox is stored, nor its consumers.
package event

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Type names an event. Stored events keep their type, so a name must not change.
type Type string

// The types of events.
const (
	TypeBulkAccepted   Type = "bulk.accepted"
	TypeBulkPlanned    Type = "bulk.planned"
	TypeBulkPaused     Type = "bulk.paused"
	TypeBulkResumed    Type = "bulk.resumed"
	TypeBulkCancelled  Type = "bulk.cancelled"
	TypeBulkCompleted  Type = "bulk.completed"
	TypeChannelPaused  Type = "channel.paused"
	TypeChannelResumed Type = "channel.resumed"
	TypeLeadErased     Type = "lead.erased"
)

// Event is one of the types below.
type Event interface {
	// Type returns the name of the event.
	Type() Type
	// Subject returns the id of what the event is about.
	Subject() uuid.UUID
}

// BulkAccepted says that a bulk was stored and will be planned.
type BulkAccepted struct {
	BulkID      uuid.UUID           `json:"bulk_id"`
	ChannelID   uuid.UUID           `json:"channel_id"`
	ChannelType message.ChannelType `json:"channel_type"`
	MessageType message.MessageType `json:"message_type"`
}

// BulkPlanned says that all messages of a bulk are in the ledger.
type BulkPlanned struct {
	BulkID   uuid.UUID `json:"bulk_id"`
	Total    int64     `json:"total"`     // messages, including skipped ones
	NotFound int64     `json:"not_found"` // requested leads that do not exist
}

// BulkPaused says that a bulk sends nothing until it is resumed or cancelled.
type BulkPaused struct {
	BulkID uuid.UUID `json:"bulk_id"`
}

// BulkResumed says that a paused bulk continues.
type BulkResumed struct {
	BulkID uuid.UUID `json:"bulk_id"`
}

// BulkCancelled says that the waiting messages of a bulk will not be sent. BulkCompleted follows when its last message ended.
type BulkCancelled struct {
	BulkID uuid.UUID `json:"bulk_id"`
	Reason string    `json:"reason,omitempty"` // why Herald cancelled it; "" if a request did
}

// BulkCompleted says that every message of a bulk has ended, and its figures are final.
type BulkCompleted struct {
	BulkID uuid.UUID `json:"bulk_id"`
	Status string    `json:"status"` // COMPLETED or CANCELLED
	Total  int64     `json:"total"`
}

// ChannelPaused says that a channel sends nothing until it is resumed.
type ChannelPaused struct {
	ChannelID   uuid.UUID           `json:"channel_id"`
	ChannelType message.ChannelType `json:"channel_type"`
	Reason      string              `json:"reason,omitempty"` // why Herald paused it; "" if a request did
}

// ChannelResumed says that a paused channel sends again.
type ChannelResumed struct {
	ChannelID   uuid.UUID           `json:"channel_id"`
	ChannelType message.ChannelType `json:"channel_type"`
}

// LeadErased says that a lead and what messages held of it are gone.
type LeadErased struct {
	LeadID uuid.UUID `json:"lead_id"`
}

// Type implements Event.
func (BulkAccepted) Type() Type { return TypeBulkAccepted }

// Type implements Event.
func (BulkPlanned) Type() Type { return TypeBulkPlanned }

// Type implements Event.
func (BulkPaused) Type() Type { return TypeBulkPaused }

// Type implements Event.
func (BulkResumed) Type() Type { return TypeBulkResumed }

// Type implements Event.
func (BulkCancelled) Type() Type { return TypeBulkCancelled }

// Type implements Event.
func (BulkCompleted) Type() Type { return TypeBulkCompleted }

// Type implements Event.
func (ChannelPaused) Type() Type { return TypeChannelPaused }

// Type implements Event.
func (ChannelResumed) Type() Type { return TypeChannelResumed }

// Type implements Event.
func (LeadErased) Type() Type { return TypeLeadErased }

// Subject implements Event.
func (e BulkAccepted) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e BulkPlanned) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e BulkPaused) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e BulkResumed) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e BulkCancelled) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e BulkCompleted) Subject() uuid.UUID { return e.BulkID }

// Subject implements Event.
func (e ChannelPaused) Subject() uuid.UUID { return e.ChannelID }

// Subject implements Event.
func (e ChannelResumed) Subject() uuid.UUID { return e.ChannelID }

// Subject implements Event.
func (e LeadErased) Subject() uuid.UUID { return e.LeadID }

// decoders decode the data of each type.
var decoders = map[Type]func([]byte) (Event, error){
	TypeBulkAccepted:   decode[BulkAccepted],
	TypeBulkPlanned:    decode[BulkPlanned],
	TypeBulkPaused:     decode[BulkPaused],
	TypeBulkResumed:    decode[BulkResumed],
	TypeBulkCancelled:  decode[BulkCancelled],
	TypeBulkCompleted:  decode[BulkCompleted],
	TypeChannelPaused:  decode[ChannelPaused],
	TypeChannelResumed: decode[ChannelResumed],
	TypeLeadErased:     decode[LeadErased],
}

func decode[E Event](data []byte) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}

// Decode returns the event that is stored under a type. It returns an error for a type that this version does not know.
func Decode(t Type, data []byte) (Event, error) {
	d, ok := decoders[t]
	if !ok {
		return nil, fmt.Errorf("decode event: unknown type %q", t)
	}
	e, err := d(data)
	if err != nil {
		return nil, fmt.Errorf("decode event %s: %w", t, err)
	}
	return e, nil
}

// Stored is an event in the outbox.
type Stored struct {
	ID        int64 // grows with the time of writing, but a transaction that commits late makes a lower id visible late
	Event     Event
	CreatedAt time.Time
}

// Keep is how long the outbox keeps an event.
const Keep = 7 * 24 * time.Hour

// Outbox holds the events of the past Keep. Events returns events in the order of their ids, beginning after an id (0: the
// oldest); at most limit. Prune deletes the events that are older than Keep, in small batches, and may be repeated.
type Outbox interface {
	Events(ctx context.Context, after int64, limit int) ([]Stored, error)
	Prune(ctx context.Context) error
}
