// Package channel is the registry of sending accounts: what a channel is, what makes one valid, how its credentials
// are kept, and which channel a message goes over. It knows what the registered providers declare, not their APIs.
package channel

import (
	"path"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// State says whether a channel sends.
type State string

// The states of a channel. The first two are its own; the next two are how its provider behaves at the moment.
const (
	Active    State = "ACTIVE"
	Paused    State = "PAUSED"    // by a person, or because the provider refused its credentials
	Throttled State = "THROTTLED" // the provider refuses what is too much for it
	Down      State = "DOWN"      // the provider does not answer; one call at a time finds out when it does
	Deleted   State = "DELETED"   // the channel is not there any more
)

// Policy says what becomes of a message with an unknown outcome.
type Policy string

// The policies for unknown outcomes.
const (
	Hold       Policy = "hold"        // it stays UNKNOWN: never a second copy
	ResendOnce Policy = "resend_once" // it waits for the provider's events, then is sent once more
)

func (p Policy) valid() bool { return p == Hold || p == ResendOnce }

// Key names a channel: one id may be registered once per type.
type Key struct {
	ID   uuid.UUID
	Type message.ChannelType
}

// Channel is a configured sending account of one type with one provider.
type Channel struct {
	Key
	Provider       string
	Name           string
	Sender         string // the address, number or account id that messages come from
	SenderName     string
	AllowedSenders []string // patterns of senders that a message may name for itself
	Credentials    map[string]seal.Secret
	Price          message.Micros // of an email, an SMS segment or an Instagram message
	PriceMedia     message.Micros // of an SMS with media
	Currency       string
	RatePerSecond  float64 // 0: unlimited
	Default        bool    // used for its type when a request names no channel
	OnUnknown      Policy
	BaseURL        string // empty: the provider's own
	Region         string // two-letter country whose national phone numbers leads may have
	State          State
	StateReason    string
	Version        int64 // grows with every write; also across a deletion and a new channel with the key
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Allows says whether a message may name sender for itself: it is the channel's own, or a pattern allows it.
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

// Cost is what a message over the channel costs by the price rule of the channel's type.
func (c *Channel) Cost(segments int, media bool) message.Micros {
	return c.Type.Spec().Price.Cost(message.Usage{Price: c.Price, PriceMedia: c.PriceMedia, Segments: segments, Media: media})
}
