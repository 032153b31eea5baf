package ledger

import (
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"

	"github.com/google/uuid"
)

// messageTypeColumn is the flag of a suppression for a kind of message.
var messageTypeColumn = map[message.MessageType]string{
	message.Transactional: "transactional", message.Marketing: "marketing", message.Notification: "notification",
}

// copyNumber is 0 for the one message of a bulk that keeps its address, and unique for every other message.
func copyNumber(p *bulk.PlannedRow, seq int64) int64 {
	if p.Dedupe {
		return 0
	}
	return seq + 1
}

// needsDuplicateCheck returns the addresses that rows of a page claim and that a row of an earlier page may have.
func needsDuplicateCheck(p *bulk.PlanPage) [][]byte {
	var hashes [][]byte
	for i := range p.Rows {
		if p.Rows[i].Dedupe && !p.Rows[i].FirstSeen {
			hashes = append(hashes, p.Rows[i].Hash[:])
		}
	}
	return hashes
}

// skipDuplicates marks the rows as duplicates whose address has a message already.
func skipDuplicates(p *bulk.PlanPage, found [][]byte) {
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

// skipErased removes the address from a row whose lead no longer exists.
func skipErased(r *bulk.PlannedRow) {
	r.Status, r.Reason, r.Recipient, r.Hash, r.Dedupe = message.Skipped, message.Erased, "", message.Hash{}, false
}

// hashBytes returns NULL for a row without an address, which then never conflicts in the unique index.
func hashBytes(p *bulk.PlannedRow) []byte {
	if p.Hash == (message.Hash{}) {
		return nil
	}
	return p.Hash[:]
}

// walkSQL reads a range of a bulk's messages. Its arguments differ by dialect: the current time, the bulk, the first seq, the
// number of rows.
const walkSQL = `
SELECT id, seq, status, reason, cost_micros, generation, next_attempt_at IS NOT NULL AS waiting, COALESCE(claim_expires_at > %s, false) AS claimed
FROM messages WHERE bulk_id = %s AND seq >= %s ORDER BY seq LIMIT %s`

// walkedRow is a row of walkSQL.
type walkedRow struct {
	ID         uuid.UUID
	Seq        int64
	Status     string
	Reason     string
	CostMicros int64
	Generation int
	Waiting    bool
	Claimed    bool
}

// row returns the state. Only an UNKNOWN message waits in the sense of stats; others with a due time are open anyway.
func (r *walkedRow) row() bulk.Row {
	status := message.Status(r.Status)
	return bulk.Row{
		ID: r.ID, Generation: r.Generation, Claimed: r.Claimed,
		State: stats.MessageState{
			Seq: r.Seq, Status: status, Reason: message.Reason(r.Reason), Waiting: status == message.Unknown && r.Waiting,
			Cost: message.Micros(r.CostMicros),
		},
	}
}
