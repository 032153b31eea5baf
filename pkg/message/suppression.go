package message

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Hash stands for an address where the address itself is not needed, or must not stay: the first half of the SHA-256 of
// its folded normalised form.
type Hash [16]byte

// HashAddress returns a normalised address's Hash. Addresses that differ in letter case only have the same.
func HashAddress(address string) Hash {
	sum := sha256.Sum256([]byte(Fold(address)))
	return Hash(sum[:16])
}

// Suppression says that an address must not be contacted over one channel type for some message types, and why.
type Suppression struct {
	ID           uuid.UUID
	Type         ChannelType
	Address      string // empty once its person was erased; the Hash stays in force
	Hash         Hash
	Reason       Reason
	MessageTypes []MessageType
	Note         string
	CreatedAt    time.Time
}

// SuppressionReasons lists the reasons that a suppression can have.
var SuppressionReasons = []Reason{Unsubscribed, SuppressedBounce, Complained, ManuallySuppressed}

// DefaultMessageTypes returns what a suppression of a reason stops unless it says otherwise: who unsubscribed or complained
// still gets what belongs to their own doings; a dead address gets nothing.
func DefaultMessageTypes(r Reason) []MessageType {
	if r == Unsubscribed || r == Complained {
		return []MessageType{Marketing, Notification}
	}
	return slices.Clone(MessageTypes)
}
