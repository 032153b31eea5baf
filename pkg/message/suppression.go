package message

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Hash is the first half of the SHA-256 of an address in its folded normalised form. It replaces addresses that are not needed or must
// be erased.
type Hash [16]byte

// HashAddress returns the Hash of a normalised address. Addresses that differ only in letter case have equal hashes.
func HashAddress(address string) Hash {
	sum := sha256.Sum256([]byte(Fold(address)))
	return Hash(sum[:16])
}

// AddressHashes returns the Hash of a normalised address, and that of the form in which earlier versions stored the same
// address, if it differs.
func AddressHashes(address string) []Hash {
	hashes := []Hash{HashAddress(address)}
	if earlier, ok := earlierForm(address); ok {
		hashes = append(hashes, HashAddress(earlier))
	}
	return hashes
}

// Suppression forbids messages of some message types to an address of one channel type.
type Suppression struct {
	ID           uuid.UUID
	Type         ChannelType
	Address      string // empty after an erasure; the Hash stays in force
	Hash         Hash
	Reason       Reason
	MessageTypes []MessageType
	Note         string
	CreatedAt    time.Time
}

// SuppressionFilter selects suppressions. A zero field selects all; the time is exclusive.
type SuppressionFilter struct {
	Type         ChannelType
	Address      string // normalised
	Reason       Reason
	CreatedAfter *time.Time
}

// SuppressionReasons lists the reasons of suppressions.
var SuppressionReasons = []Reason{Unsubscribed, SuppressedBounce, Complained, ManuallySuppressed}

// DefaultMessageTypes returns the message types that a suppression with a reason stops by default. After an unsubscribe or a complaint,
// transactional messages are still sent; to an address that bounced, nothing is.
func DefaultMessageTypes(r Reason) []MessageType {
	if r == Unsubscribed || r == Complained {
		return []MessageType{Marketing, Notification}
	}
	return slices.Clone(MessageTypes)
}
