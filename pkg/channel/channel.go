// Package channel is the registry of sending accounts: the fields of a channel, their validation, and the choice of the channel of a
// message. It knows the declarations of the registered providers, not their APIs.
package channel

import (
	"path"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// State says whether a channel sends, and why not.
type State string

// The states of a channel. ACTIVE and PAUSED are stored. THROTTLED and DOWN describe the provider's current behaviour.
const (
	Active    State = "ACTIVE"
	Paused    State = "PAUSED"    // by an operator, or because the provider refused its credentials
	Throttled State = "THROTTLED" // the provider refuses calls for load
	Down      State = "DOWN"      // the provider does not answer; the circuit breaker lets one call at a time through
	Deleted   State = "DELETED"   // the channel does not exist any more
)

// Policy decides about a message with an unknown outcome.
type Policy string

// The policies for unknown outcomes.
const (
	Hold       Policy = "hold"        // the message stays UNKNOWN: never a second copy
	ResendOnce Policy = "resend_once" // the message waits for the provider's events and is then sent once more
)

func (p Policy) valid() bool { return p == Hold || p == ResendOnce }

// Key identifies a channel. Channels of different types may share an id.
type Key struct {
	ID   uuid.UUID
	Type message.ChannelType
}

// Channel is a configured sending account of one type with one provider.
type Channel struct {
	Key
	Provider       string
	Name           string
	Sender         string // the address, number or account id of the sender
	SenderName     string
	AllowedSenders []string // patterns (path.Match) of senders that a message may name
	Credentials    map[string]seal.Secret
	Price          message.Micros  // per unit of the type's price rule
	PriceMedia     *message.Micros // per message with media; nil: as without media
	Currency       string
	RatePerSecond  float64 // 0: unlimited
	Default        bool    // used for its type when a request names no channel
	OnUnknown      Policy
	BaseURL        string // empty: the provider's own
	Region         string // two-letter country of national phone numbers of leads
	State          State
	StateReason    string
	Version        int64 // grows with every write, and does not restart if the key is used again after a deletion
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Allows reports whether a message may name a sender: the channel's own, or one that matches a pattern. Letter case is ignored.
func (c *Channel) Allows(sender string) bool {
	sender = strings.ToLower(strings.TrimSpace(sender))
	if sender == strings.ToLower(c.Sender) {
		return true
	}
	for _, p := range c.AllowedSenders {
		if ok, err := path.Match(strings.ToLower(p), sender); err == nil && ok {
			return true
		}
	}
	return false
}

// Cost returns the cost of a message by the price rule of the channel's type.
func (c *Channel) Cost(segments int, media bool) message.Micros {
	return c.Type.Spec().Price.Cost(message.Usage{Price: c.Price, PriceMedia: c.PriceMedia, Segments: segments, Media: media})
}
