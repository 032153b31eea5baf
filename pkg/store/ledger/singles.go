package ledger

import (
	"context"

	"herald/pkg/access"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
)

// single is a message to be inserted.
type single struct {
	store.MessageRow
	key     *access.IdempotencyKey // must be free, or the message's own already; nil: none
	claim   delivery.Claim         // the message is inserted as claimed; zero: unclaimed
	forLead bool                   // insert only if the lead exists
}

// insertResult is the result of a single. It is not written when its channel or its lead is missing, or its key is taken.
type insertResult struct {
	delivery.Inserted
	written bool
	noLead  bool
}

// missing returns an error for the row that a single refers to and that does not exist; nil if all exist.
func (r *insertResult) missing() error {
	switch {
	case r.ChannelVersion == 0:
		return message.Errorf(message.CodeNotFound, "the channel no longer exists")
	case r.noLead:
		return delivery.ErrLeadErased
	}
	return nil
}

// idempotency returns the key, or the zero key.
func (r *single) idempotency() access.IdempotencyKey {
	if r.key == nil {
		return access.IdempotencyKey{}
	}
	return *r.key
}

// keyHash returns the hash of the key, nil (NULL) without a key.
func (r *single) keyHash() []byte {
	if r.key == nil {
		return nil
	}
	return r.key.Hash[:]
}

// Insert implements delivery.Inserter. It may be repeated: a message that exists, because the answer to its insert was lost, stays as
// it is. The group that it joins retries each single alone if the database rejects a value. A single with files joins no group, because
// the others would wait until its megabytes are written.
func (l *Ledger) Insert(ctx context.Context, e delivery.Entry) (delivery.Inserted, error) {
	m := e.Message
	hash := message.HashAddress(m.Recipient)
	row := store.MessageRow{
		ID: m.ID, BulkID: store.NullID(m.BulkID), Seq: m.Seq, LeadID: store.NullID(m.LeadID), ChannelID: m.ChannelID,
		ChannelType: string(m.ChannelType), Provider: m.Provider, Recipient: m.Recipient, AddressHash: hash[:],
		MessageType: string(m.MessageType), Priority: string(m.Priority), Metadata: store.Document(m.Metadata), Status: string(m.Status), Keyed: m.Keyed,
		CreatedAt: store.Stamp(m.CreatedAt), UpdatedAt: store.Stamp(m.UpdatedAt), ScheduledAt: store.UTC(m.ScheduledAt), NextAttemptAt: store.UTC(m.NextAttemptAt),
	}
	if m.Content != nil {
		row.Content = store.Encode(m.Content)
	}
	var result insertResult
	err := store.Retry(ctx, func() (err error) {
		if s := (single{row, e.Key, e.Claim, e.ForLead}); len(e.Files) > 0 {
			result, err = l.driver.insertWithFiles(ctx, &s, e.Files)
		} else {
			result, err = l.inserts.Do(ctx, s)
		}
		switch {
		case err == nil && result.missing() != nil:
			return result.missing()
		case err == nil && !result.written:
			return access.ErrKeyTaken
		}
		return store.WrapError("insert the message", err)
	})
	return result.Inserted, err
}
