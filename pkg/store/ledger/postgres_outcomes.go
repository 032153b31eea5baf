package ledger

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/delivery"
	"herald/pkg/store"
)

// endsErased is the condition that a row is erased and its outcome would have it wait or be sent again.
const endsErased = `(m.recipient = '' AND u.status IN ('PENDING', 'QUEUED', 'SENDING'))`

// An outcome is a compare-and-set on the token of the claim, or, without a token, on a row that is open and not claimed. The
// token stays in the row, so that a lost answer can be told from a lost claim. A row with an empty recipient was erased while
// it was claimed: an outcome that would continue it ends it instead (see eraseSQL in the records package).
var settleStatement = newRowsStatement("u", `
UPDATE messages m SET
    status = CASE WHEN NOT `+endsErased+` THEN u.status WHEN m.unknowns > 0 OR u.part > 0 THEN 'UNKNOWN' ELSE 'SKIPPED' END,
    reason = CASE WHEN `+endsErased+` THEN 'erased' ELSE u.reason END, failure = u.failure::jsonb, http_status = u.http_status, cost_micros = u.cost, part = u.part,
    provider_message_id = CASE WHEN u.provider_message_id = '' THEN m.provider_message_id ELSE u.provider_message_id END,
    attempt = m.attempt - CASE WHEN u.give_back THEN 1 ELSE 0 END,
    unknowns = m.unknowns + CASE WHEN u.status = 'UNKNOWN' AND u.reason = 'outcome_unknown' THEN 1 ELSE 0 END,
    claim_expires_at = CASE WHEN u.keep > 0 THEN now() + u.keep * interval '1 second' END,
    claimed_at = CASE WHEN u.keep > 0 THEN now() ELSE m.claimed_at END,
    next_attempt_at = CASE WHEN m.recipient = '' THEN NULL WHEN u.keep > 0 THEN m.next_attempt_at WHEN u.again > 0 THEN now() + u.again * interval '1 second' END,
    sent_at = CASE WHEN u.status = 'SENT' THEN now() ELSE m.sent_at END,
    updated_at = now()
FROM ROWS u
WHERE m.id = u.id AND CASE WHEN u.token IS NULL THEN m.status IN ('SCHEDULED', 'PENDING', 'QUEUED') ELSE m.status = 'SENDING' AND m.claim_token = u.token END
RETURNING m.id, u.token, m.updated_at, m.recipient = ''`,
	newColumn("id", "uuid", func(o **delivery.Outcome) uuid.UUID { return (*o).ID() }),
	newColumn("token", "uuid", func(o **delivery.Outcome) *uuid.UUID { return store.NullID((*o).Token()) }),
	newColumn("provider_message_id", "text", func(o **delivery.Outcome) string { return (*o).ProviderMessageID() }),
	newColumn("status", "text", func(o **delivery.Outcome) string { return string((*o).Status()) }),
	newColumn("reason", "text", func(o **delivery.Outcome) string { return string((*o).Reason()) }),
	newColumn("failure", "text", func(o **delivery.Outcome) *string { return failureText(*o) }),
	newColumn("http_status", "int", func(o **delivery.Outcome) int32 { return int32((*o).HTTPStatus()) }),
	newColumn("cost", "bigint", func(o **delivery.Outcome) int64 { return int64((*o).Cost()) }),
	newColumn("part", "int", func(o **delivery.Outcome) int32 { return int32((*o).Part()) }),
	newColumn("keep", "float8", func(o **delivery.Outcome) float64 { return (*o).ExtendsClaim().Seconds() }),
	newColumn("give_back", "bool", func(o **delivery.Outcome) bool { return (*o).RefundsAttempt() }),
	newColumn("again", "float8", func(o **delivery.Outcome) float64 { return (*o).DueAfter().Seconds() }),
)

// queueSettle queues settleStatement. Its rows are matched by id and token, because a group may hold outcomes of two claims of one
// message, of which at most one matches.
func queueSettle(to *pgx.Batch, outcomes []*delivery.Outcome, out []delivery.Settled) {
	sql, args := settleStatement.bind(outcomes)
	to.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		type key struct{ id, token uuid.UUID }
		found := make(map[key]delivery.Settled, len(outcomes))
		var (
			k key
			s = delivery.Settled{OK: true}
		)
		if _, err := pgx.ForEachRow(rows, []any{&k.id, &k.token, &s.At, &s.Erased}, func() error {
			s.At = s.At.UTC()
			found[k] = s
			return nil
		}); err != nil {
			return err
		}
		for i := range outcomes {
			out[i] = found[key{outcomes[i].ID(), outcomes[i].Token()}]
		}
		return nil
	})
}

// failureText returns the failure of an outcome as its column stores it, nil for none.
func failureText(o *delivery.Outcome) *string {
	if o.Failure() == nil {
		return nil
	}
	return store.Encode(o.Failure()).Text()
}

// copier is a pool or a transaction.
type copier interface {
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error)
}

var attemptColumns = store.Columns(store.AttemptRow{})

// addAttempts copies attempts, which is several times faster than inserting them.
func addAttempts(ctx context.Context, to copier, rows []store.AttemptRow) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := to.CopyFrom(ctx, pgx.Identifier{"attempts"}, attemptColumns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		return store.Values(rows[i]), nil
	}))
	return err
}
