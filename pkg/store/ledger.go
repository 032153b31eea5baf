package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm/clause"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// hot is the statements that carry a row per recipient, in each database's own way. Those of groups return one
// result per item, in order.
type hot interface {
	insert(ctx context.Context, singles []single) ([]inserted, error)
	load(ctx context.Context, ids []uuid.UUID) ([]delivery.Loaded, error)
	claim(ctx context.Context, claims []*delivery.Claim) ([]bool, error)
	// turn settles and takes, all or nothing, in one transaction: the commit is what costs.
	turn(ctx context.Context, outcomes []*delivery.Outcome, claims []*delivery.Claim) ([]delivery.Settled, []delivery.Loaded, error)
	addMessages(ctx context.Context, p bulk.PlanPage) error
	walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error)
	insertLeads(ctx context.Context, leads []leadRow) error
	mergeLeads(ctx context.Context, m *leadMerge) error
}

// single is a message to be written, the idempotency key that must not be taken for it, or nil, and the claim that it is
// written with, or the zero one.
type single struct {
	messageRow
	key     *access.IdempotencyKey
	claim   delivery.Claim
	forLead bool // it is written only if its lead exists
}

// inserted is what became of a single. It was not written when its channel or its lead is missing or its key was taken.
type inserted struct {
	delivery.Inserted
	written bool
	noLead  bool
}

// missing says which row that a single refers to does not exist, nil when none is missing.
func (i *inserted) missing() error {
	switch {
	case i.ChannelVersion == 0:
		return message.Errorf(message.CodeNotFound, "the channel no longer exists")
	case i.noLead:
		return delivery.ErrLeadErased
	}
	return nil
}

// idempotency is the key, or the zero one.
func (r *single) idempotency() access.IdempotencyKey {
	if r.key == nil {
		return access.IdempotencyKey{}
	}
	return *r.key
}

// hashOf is one of the key's hashes, NULL without a key.
func (r *single) hashOf(of func(*access.IdempotencyKey) []byte) []byte {
	if r.key == nil {
		return nil
	}
	return of(r.key)
}

// Load implements delivery.Ledger.
func (s *Store) Load(ctx context.Context, id uuid.UUID) (delivery.Loaded, error) {
	l, err := s.loads.Do(ctx, id)
	return there(l, id, fail("load the message", err))
}

// LoadAndClaim implements delivery.Ledger.
func (s *Store) LoadAndClaim(ctx context.Context, c delivery.Claim) (delivery.Loaded, error) {
	done, err := s.turns.Do(ctx, step{claim: &c})
	return there(done.loaded, c.ID, fail("load and claim the message", err))
}

func there(l delivery.Loaded, id uuid.UUID, err error) (delivery.Loaded, error) {
	if err == nil && l.Message == nil {
		err = message.Errorf(message.CodeNotFound, "there is no message %s", id)
	}
	return l, err
}

// Claim implements delivery.Ledger.
func (s *Store) Claim(ctx context.Context, c delivery.Claim) (bool, error) {
	ok, err := s.claims.Do(ctx, &c)
	return ok, fail("claim the message", err)
}

// Settle implements delivery.Ledger.
func (s *Store) Settle(ctx context.Context, o delivery.Outcome) (delivery.Settled, error) {
	done, err := s.turns.Do(ctx, step{outcome: &o})
	return done.settled, fail("settle the message", err)
}

// step is a message's part in a turn: an outcome to record, or a claim to take it with.
type step struct {
	outcome *delivery.Outcome
	claim   *delivery.Claim
}

// stepped is what became of a step.
type stepped struct {
	settled delivery.Settled
	loaded  delivery.Loaded
}

// turn does what has gathered: it sorts the steps by their kind, and the answers back.
func (s *Store) turn(ctx context.Context, steps []step) ([]stepped, error) {
	outcomes, claims := make([]*delivery.Outcome, 0, len(steps)), make([]*delivery.Claim, 0, len(steps))
	for _, st := range steps {
		if st.outcome != nil {
			outcomes = append(outcomes, st.outcome)
		} else {
			claims = append(claims, st.claim)
		}
	}
	settled, loaded, err := s.hot.turn(ctx, outcomes, claims)
	if err != nil {
		return nil, err
	}
	out := make([]stepped, len(steps))
	for i, st := range steps {
		if st.outcome != nil {
			out[i].settled, settled = settled[0], settled[1:]
		} else {
			out[i].loaded, loaded = loaded[0], loaded[1:]
		}
	}
	return out, nil
}

// Insert implements delivery.Inserter.
func (s *Store) Insert(ctx context.Context, e delivery.Entry) (delivery.Inserted, error) {
	m := e.Message
	hash := message.HashAddress(m.Recipient)
	row := messageRow{
		ID: m.ID, BulkID: nullID(m.BulkID), Seq: m.Seq, LeadID: nullID(m.LeadID), ChannelID: m.ChannelID,
		ChannelType: string(m.ChannelType), Provider: m.Provider, Recipient: m.Recipient, AddressHash: hash[:],
		MessageType: string(m.MessageType), Priority: string(m.Priority), Metadata: document(m.Metadata), Status: string(m.Status), Keyed: m.Keyed,
		CreatedAt: stamp(m.CreatedAt), UpdatedAt: stamp(m.UpdatedAt), ScheduledAt: utc(m.ScheduledAt), NextAttemptAt: utc(m.NextAttemptAt),
	}
	if m.Content != nil {
		row.Content = encode(m.Content)
	}
	var ins inserted
	err := repeat(ctx, func() (err error) {
		ins, err = s.inserts.Do(ctx, single{row, e.Key, e.Claim, e.ForLead})
		switch {
		case err == nil && ins.missing() != nil:
			return ins.missing()
		case err == nil && !ins.written:
			return access.ErrKeyTaken
		}
		return fail("insert the message", err)
	})
	return ins.Inserted, err
}

// oncePerID makes an insert that was done already change nothing.
var oncePerID = clause.OnConflict{Columns: []clause.Column{{Name: "id"}}, DoNothing: true}

// Due implements delivery.DueMessages.
func (s *Store) Due(ctx context.Context, limit int, again time.Duration) ([]delivery.DueMessage, error) {
	skip := ""
	if s.pools != nil {
		skip = "FOR UPDATE SKIP LOCKED"
	}
	var rows []struct {
		ID      uuid.UUID
		Sending bool
	}
	err := s.db.WithContext(ctx).Raw(`
UPDATE messages SET
    next_attempt_at = ?,
    generation = generation + CASE WHEN status = 'UNKNOWN' THEN 1 ELSE 0 END,
    suspect = CASE WHEN status = 'UNKNOWN' AND suspect = 0 THEN 1 ELSE suspect END,
    status = CASE WHEN status <> 'UNKNOWN' THEN status WHEN bulk_id IS NULL THEN 'QUEUED' ELSE 'PENDING' END
WHERE id IN (
    SELECT id FROM messages
    WHERE next_attempt_at < ? AND (status <> 'SENDING' OR claim_expires_at < ?)
    ORDER BY next_attempt_at LIMIT ? `+skip+`)
RETURNING id, status = 'SENDING' AS sending`, s.in(again), s.now(), s.now(), limit).Scan(&rows).Error
	if err != nil {
		return nil, fail("look for due messages", err)
	}
	due := make([]delivery.DueMessage, len(rows))
	for i, r := range rows {
		due[i] = delivery.DueMessage{ID: r.ID, Sending: r.Sending}
	}
	return due, nil
}

// keepsEvidence says whether an attempt gets a row of its own: all but the plain success that its message's row tells.
func keepsEvidence(o *delivery.Outcome, matched bool) bool {
	return o.Attempt != nil && (o.Attempt.Outcome != message.AttemptSent || o.Keep > 0 || !matched)
}

// evidence returns the attempts to be written for a group of outcomes. One whose claim had passed on is marked late.
func evidence(outcomes []*delivery.Outcome, settled []delivery.Settled) []attemptRow {
	var rows []attemptRow
	for i, o := range outcomes {
		if !keepsEvidence(o, settled[i].OK) {
			continue
		}
		row := rowOfAttempt(o.Attempt)
		if !settled[i].OK {
			row.Outcome = message.AttemptLate
		}
		rows = append(rows, row)
	}
	return rows
}

// copyNumber is 0 for the one message of a bulk that keeps its address, and unique for every other.
func copyNumber(p *bulk.PlannedRow, seq int64) int64 {
	if p.Dedupe {
		return 0
	}
	return seq + 1
}

// doubtful are the addresses that a page's rows want for themselves and that may have a row of an earlier page.
func doubtful(p *bulk.PlanPage) [][]byte {
	var hashes [][]byte
	for i := range p.Rows {
		if p.Rows[i].Dedupe && !p.Rows[i].FirstSeen {
			hashes = append(hashes, p.Rows[i].Hash[:])
		}
	}
	return hashes
}

// skipTaken makes duplicates of the rows whose address has a message already.
func skipTaken(p *bulk.PlanPage, found [][]byte) {
	taken := make(map[message.Hash]bool, len(found))
	for _, f := range found {
		taken[message.Hash(f)] = true
	}
	for i := range p.Rows {
		if r := &p.Rows[i]; r.Dedupe && taken[r.Hash] {
			r.Status, r.Reason, r.Dedupe = message.Skipped, message.DuplicateRecipient, false
		}
	}
}

// skipErased leaves a row without an address, because its lead no longer exists.
func skipErased(r *bulk.PlannedRow) {
	r.Status, r.Reason, r.Recipient, r.Hash, r.Dedupe = message.Skipped, message.Erased, "", message.Hash{}, false
}

func hashBytes(p *bulk.PlannedRow) []byte {
	if p.Hash == (message.Hash{}) {
		return nil
	}
	return p.Hash[:]
}
