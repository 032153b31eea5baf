package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// postgresHot runs the hot statements over arrays: one statement, one commit, for a whole group. Writes of leads, which may
// wait for locks, take connections of records.
type postgresHot struct{ pool, records *pgxpool.Pool }

// loadColumns are the columns of a message with its lead, in the order in which loaded reads them. text is how a column of
// the lead is written; every one of them is text and not null, unless there is no lead.
func loadColumns(text string) string {
	lead := make([]string, 0, len(leadTexts))
	for _, c := range leadTexts {
		lead = append(lead, fmt.Sprintf(text, c))
	}
	return `
       m.id, m.bulk_id, m.seq, m.lead_id, m.channel_id, m.channel_type, m.provider, m.recipient, m.message_type, m.priority,
       m.content, m.status, m.reason, m.attempt, m.unknowns, m.part, m.generation, m.suspect, m.provider_message_id,
       m.claim_token, m.claimed_at, m.next_attempt_at, m.keyed, m.created_at, m.updated_at, u.n, COALESCE(c.version, 0),
       l.id, l.tags, l.custom_fields, ` + strings.Join(lead, ", ")
}

var leadTexts = []string{
	"first_name", "last_name", "email", "phone", "instagram_id", "company", "title", "status", "source", "city", "state", "country", "timezone",
	"language", "assignee_id",
}

// suppressedSQL is why a message's recipient must not be contacted, no row where nothing says so.
const suppressedSQL = `
    SELECT s.reason FROM suppressions s WHERE s.type = m.channel_type AND s.address_hash = m.address_hash AND
        CASE m.message_type WHEN 'MARKETING' THEN s.marketing WHEN 'NOTIFICATION' THEN s.notification ELSE s.transactional END`

var loadSQL = "SELECT " + loadColumns("COALESCE(l.%s, '')") + `, COALESCE(m.claim_expires_at < now(), false),
       COALESCE((` + suppressedSQL + ` ORDER BY s.reason DESC LIMIT 1), ''), COALESCE(b.status <> 'PROCESSING', false) OR COALESCE(c.state = 'PAUSED', false)
FROM unnest($1::uuid[]) WITH ORDINALITY u(id, n) JOIN messages m ON m.id = u.id LEFT JOIN leads l ON l.id = m.lead_id
     LEFT JOIN bulks b ON b.id = m.bulk_id LEFT JOIN channels c ON c.id = m.channel_id AND c.type = m.channel_type`

// takeSQL claims, like claimSQL does, the messages of bulks that nothing refuses or delays, and returns them with their
// leads. That is nearly every message; of the others, and of those under another claim, it says nothing.
var takeSQL = `
UPDATE messages m SET ` + claimSet + `
FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::int[]) WITH ORDINALITY u(id, token, ttl, most, n), bulks b, channels c, leads l
WHERE m.id = u.id AND b.id = m.bulk_id AND c.id = m.channel_id AND c.type = m.channel_type AND l.id = m.lead_id
    AND ((m.status = 'SENDING' AND m.claim_token = u.token)
        OR (m.status IN ('PENDING', 'QUEUED') AND m.suspect = 0 AND m.attempt < u.most AND b.status = 'PROCESSING' AND c.state = 'ACTIVE' AND c.rate_per_second = 0
            AND NOT EXISTS (` + suppressedSQL + `)))
RETURNING ` + loadColumns("l.%s")

func (h *postgresHot) load(ctx context.Context, ids []uuid.UUID) ([]delivery.Loaded, error) {
	out := make([]delivery.Loaded, len(ids))
	rows, err := h.pool.Query(ctx, loadSQL, ids)
	if err != nil {
		return nil, err
	}
	var expired, held bool
	var reason string
	return out, readLoaded(rows, []any{&expired, &reason, &held}, func(at int, l delivery.Loaded) {
		l.ClaimExpired, l.Suppressed, l.Held = expired, message.Reason(reason), held
		out[at] = l
	})
}

// turn sends its statements together: one round trip, and one commit.
func (h *postgresHot) turn(ctx context.Context, outcomes []*delivery.Outcome, claims []*delivery.Claim) ([]delivery.Settled, []delivery.Loaded, error) {
	settled, loaded := make([]delivery.Settled, len(outcomes)), make([]delivery.Loaded, len(claims))
	var statements pgx.Batch
	if len(outcomes) > 0 {
		queueSettle(&statements, outcomes, settled)
	}
	if len(claims) > 0 {
		queueTake(&statements, claims, loaded)
	}
	plain := true
	for _, o := range outcomes {
		plain = plain && !keepsEvidence(o, true)
	}
	var err error
	if plain {
		if err = h.pool.SendBatch(ctx, &statements).Close(); err == nil { // it is a transaction of itself
			err = h.addAttempts(ctx, h.pool, evidence(outcomes, settled)) // only late ones
		}
	} else {
		err = pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			if err := tx.SendBatch(ctx, &statements).Close(); err != nil {
				return err
			}
			return h.addAttempts(ctx, tx, evidence(outcomes, settled))
		})
	}
	if err != nil {
		return nil, nil, err
	}
	return settled, loaded, h.loadRest(ctx, claims, loaded)
}

func queueTake(to *pgx.Batch, claims []*delivery.Claim, out []delivery.Loaded) {
	ids, tokens, ttls, mosts := claimArrays(claims)
	to.Queue(takeSQL, ids, tokens, ttls, mosts).Query(func(rows pgx.Rows) error {
		return readLoaded(rows, nil, func(at int, l delivery.Loaded) {
			l.Claimed = true
			out[at] = l
		})
	})
}

// loadRest loads those that the take says nothing of.
func (h *postgresHot) loadRest(ctx context.Context, claims []*delivery.Claim, out []delivery.Loaded) error {
	var rest []uuid.UUID
	var where []int
	for i := range out {
		if !out[i].Claimed {
			rest, where = append(rest, claims[i].ID), append(where, i)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	loaded, err := h.load(ctx, rest)
	if err != nil {
		return err
	}
	for i := range loaded {
		out[where[i]] = loaded[i]
	}
	return nil
}

// readLoaded reads loadColumns, and after them what more is, and hands each message on with its place among those that were
// asked for.
func readLoaded(rows pgx.Rows, more []any, each func(at int, l delivery.Loaded)) error {
	var (
		at   int
		m    messageRow
		l    leadRow
		of   int64                                                           // the channel's version
		idOf struct{ message, bulk, lead, channel, token, person uuid.UUID } // nil where there is none
	)
	into := append([]any{
		&idOf.message, &idOf.bulk, &m.Seq, &idOf.lead, &idOf.channel, &m.ChannelType, &m.Provider, &m.Recipient, &m.MessageType, &m.Priority,
		(*[]byte)(&m.Content), &m.Status, &m.Reason, &m.Attempt, &m.Unknowns, &m.Part, &m.Generation, &m.Suspect, &m.ProviderMessageID,
		&idOf.token, &m.ClaimedAt, &m.NextAttemptAt, &m.Keyed, &m.CreatedAt, &m.UpdatedAt, &at, &of,
		&idOf.person, (*[]byte)(&l.Tags), (*[]byte)(&l.CustomFields), &l.FirstName, &l.LastName, &l.Email, &l.Phone, &l.InstagramID,
		&l.Company, &l.Title, &l.Status, &l.Source, &l.City, &l.State, &l.Country, &l.Timezone, &l.Language, &l.AssigneeID,
	}, more...)
	_, err := pgx.ForEachRow(rows, into, func() error {
		// A row that cannot be decoded is reported with its own message: the others of the group are claimed already.
		msg, err := m.message()
		msg.ID, msg.BulkID, msg.LeadID, msg.ChannelID = idOf.message, idOf.bulk, idOf.lead, idOf.channel
		loaded := delivery.Loaded{Message: msg, ClaimToken: idOf.token, ChannelVersion: of, Undecodable: err}
		if idOf.person != uuid.Nil && err == nil {
			l.ID = idOf.person
			loaded.Lead, loaded.Undecodable = l.lead()
		}
		each(at-1, loaded)
		return nil
	})
	return err
}

const claimSet = `
    status = 'SENDING', attempt = m.attempt + CASE WHEN m.status = 'SENDING' THEN 0 ELSE 1 END, claim_token = u.token, claimed_at = now(),
    claim_expires_at = now() + u.ttl * interval '1 second',
    next_attempt_at = CASE WHEN m.next_attempt_at IS NOT NULL THEN now() + u.ttl * interval '1 second' END,
    updated_at = now()`

// The claim is a compare-and-set: only a waiting row is taken, or one that the same claim has taken already. A row that
// nobody watches stays so, which keeps the update within its page; a watched one is to be looked at when the claim
// expires.
const claimSQL = `
UPDATE messages m SET ` + claimSet + `
FROM unnest($1::uuid[], $2::uuid[], $3::float8[]) u(id, token, ttl)
WHERE m.id = u.id AND (m.status IN ('PENDING', 'QUEUED') OR (m.status = 'SENDING' AND m.claim_token = u.token))
RETURNING m.claim_token`

func claimArrays(claims []*delivery.Claim) (ids, tokens []uuid.UUID, ttls []float64, mosts []int32) {
	n := len(claims)
	ids, tokens, ttls, mosts = make([]uuid.UUID, n), make([]uuid.UUID, n), make([]float64, n), make([]int32, n)
	for i, c := range claims {
		ids[i], tokens[i], ttls[i], mosts[i] = c.ID, c.Token, c.TTL.Seconds(), int32(c.Most)
	}
	return ids, tokens, ttls, mosts
}

func (h *postgresHot) claim(ctx context.Context, claims []*delivery.Claim) ([]bool, error) {
	ids, tokens, ttls, _ := claimArrays(claims)
	rows, err := h.pool.Query(ctx, claimSQL, ids, tokens, ttls)
	if err != nil {
		return nil, err
	}
	taken, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, err
	}
	held := make(map[uuid.UUID]bool, len(taken))
	for _, t := range taken {
		held[t] = true
	}
	out := make([]bool, len(claims))
	for i, c := range claims {
		out[i] = held[c.Token]
	}
	return out, nil
}

// An outcome is a compare-and-set on the claim's token, or, without one, on a row that is open and not claimed. The
// token stays in the row, so that a lost answer can be told from a lost claim. A row whose recipient is empty was erased under
// its claim: where the outcome would have it go on, it ends (see eraseSQL).
var settleSQL = shape(3, []string{
	"uuid", "uuid", "text", "text", "text", "text", "int", "bigint", "int", "float8", "bool", "float8",
}, `
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
FROM ROWS u(id, token, provider_message_id, status, reason, failure, http_status, cost, part, keep, give_back, again)
WHERE m.id = u.id AND CASE WHEN u.token IS NULL THEN m.status IN ('SCHEDULED', 'PENDING', 'QUEUED') ELSE m.status = 'SENDING' AND m.claim_token = u.token END
RETURNING m.id, u.token, m.updated_at, m.recipient = ''`)

// endsErased says of a row that is erased and an outcome that would have it wait or be called again.
const endsErased = `(m.recipient = '' AND u.status IN ('PENDING', 'QUEUED', 'SENDING'))`

func queueSettle(to *pgx.Batch, outcomes []*delivery.Outcome, out []delivery.Settled) {
	sql, args := settleSQL.of([]column{
		each(outcomes, func(o **delivery.Outcome) uuid.UUID { return (*o).ID }),
		each(outcomes, func(o **delivery.Outcome) *uuid.UUID { return nullID((*o).Token) }),
		each(outcomes, func(o **delivery.Outcome) string { return (*o).ProviderMessageID }),
		often(outcomes, func(o **delivery.Outcome) string { return string((*o).Status) }),
		often(outcomes, func(o **delivery.Outcome) string { return string((*o).Reason) }),
		often(outcomes, func(o **delivery.Outcome) *string { return failureText(*o) }),
		often(outcomes, func(o **delivery.Outcome) int32 { return int32((*o).HTTPStatus) }),
		often(outcomes, func(o **delivery.Outcome) int64 { return int64((*o).Cost) }),
		often(outcomes, func(o **delivery.Outcome) int32 { return int32((*o).Part) }),
		often(outcomes, func(o **delivery.Outcome) float64 { return (*o).Keep.Seconds() }),
		often(outcomes, func(o **delivery.Outcome) bool { return (*o).GiveBack }),
		often(outcomes, func(o **delivery.Outcome) float64 { return (*o).Again.Seconds() }),
	})
	to.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		type key struct{ id, token uuid.UUID }
		found := make(map[key]delivery.Settled, len(outcomes))
		var (
			of key
			s  = delivery.Settled{OK: true}
		)
		if _, err := pgx.ForEachRow(rows, []any{&of.id, &of.token, &s.At, &s.Erased}, func() error {
			s.At = s.At.UTC()
			found[of] = s
			return nil
		}); err != nil {
			return err
		}
		for i := range outcomes {
			out[i] = found[key{outcomes[i].ID, outcomes[i].Token}]
		}
		return nil
	})
}

// failureText is an outcome's failure as its column has it. No two that there are are the same one.
func failureText(o *delivery.Outcome) *string {
	if o.Failure == nil {
		return nil
	}
	text := string(encode(o.Failure))
	return &text
}

type copier interface {
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error)
}

func (h *postgresHot) addAttempts(ctx context.Context, to copier, rows []attemptRow) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := to.CopyFrom(ctx, pgx.Identifier{"attempts"},
		[]string{"message_id", "n", "part", "outcome", "http_status", "code", "started_at", "ended_at"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			r := rows[i]
			return []any{r.MessageID, r.N, r.Part, r.Outcome, r.HTTPStatus, r.Code, r.StartedAt, r.EndedAt}, nil
		}))
	return err
}

const (
	// The first parameters of the statements that write a page. The bulk moves on only under its lease, from where the page
	// begins; without that no row is written.
	pageSQL = `
UPDATE bulks SET total = total + $3, plan_cursor = $4, not_found = not_found + $5, planned = $6
WHERE id = $1 AND lease_token = $2 AND total = $7 AND NOT planned`

	// Address by address, and by rows: only the index that begins with the address can answer that. With three equations
	// it might be the one of the bulk's rows, which then are all read for every address, as long as nobody has analyzed
	// the table.
	takenSQL = `
SELECT h.hash FROM unnest($2::bytea[]) h(hash), LATERAL (
    SELECT 1 FROM messages m
    WHERE (m.address_hash, m.bulk_id, m.copy) >= (h.hash, $1, 0) AND (m.address_hash, m.bulk_id, m.copy) <= (h.hash, $1, 0) LIMIT 1) m`

	rowsSQL = `
INSERT INTO messages (id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, copy,
                      message_type, priority, status, reason, created_at, updated_at)
SELECT u.id, $1, u.seq, u.lead_id, $8, $9, $10, CASE WHEN l.id IS NULL THEN '' ELSE u.recipient END, CASE WHEN l.id IS NOT NULL THEN u.address_hash END,
       CASE WHEN l.id IS NULL THEN u.seq + 1 ELSE u.copy END, $11, $12, CASE WHEN l.id IS NULL THEN 'SKIPPED' ELSE u.status END,
       CASE WHEN l.id IS NULL THEN 'erased' ELSE u.reason END, now(), now()
FROM page, unnest($13::uuid[], $14::bigint[], $15::uuid[], $16::text[], $17::bytea[], $18::bigint[], $19::text[], $20::text[])
     u(id, seq, lead_id, recipient, address_hash, copy, status, reason) LEFT JOIN leads l ON l.id = u.lead_id
RETURNING seq, reason`

	// addMessagesSQL also returns the rows whose lead was erased after it was read.
	addMessagesSQL = "WITH page AS (" + pageSQL + " RETURNING id), added AS (" + rowsSQL +
		") SELECT (SELECT count(*) FROM page), ARRAY(SELECT seq FROM added WHERE reason = 'erased')"

	sharedErasureSQL = "SELECT pg_advisory_xact_lock_shared($1)"
)

// addMessages writes a page in one statement. Which of its addresses have a message of the bulk already is asked before,
// under the bulk's row lock: that costs less than having every row looked for in every unique index, and no other process
// adds to the bulk meanwhile, as that takes its lease.
//
// The leads were read before the transaction. Those that were erased since then get a row without an address. The advisory
// lock keeps out an erasure until the rows are committed, so that either the page sees the erasure or the erasure sees the rows.
func (h *postgresHot) addMessages(ctx context.Context, p bulk.PlanPage) error {
	hashes := doubtful(&p)
	if len(hashes) == 0 {
		return h.writePage(ctx, h.pool, &p)
	}
	return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sharedErasureSQL, erasureLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT 1 FROM bulks WHERE id = $1 FOR NO KEY UPDATE", p.Lease.BulkID); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, takenSQL, p.Bulk.ID, hashes)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return err
		}
		skipTaken(&p, found)
		return h.writePage(ctx, tx, &p)
	})
}

type batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// writePage writes the rows of a page and moves its bulk on.
func (h *postgresHot) writePage(ctx context.Context, to batcher, p *bulk.PlanPage) error {
	n := len(p.Rows)
	ids, leads, seqs, copies := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]int64, n), make([]int64, n)
	recipients, statuses, reasons, hashes := make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i := range p.Rows {
		r := &p.Rows[i]
		seqs[i] = p.Base + int64(i)
		ids[i], leads[i], recipients[i], statuses[i], reasons[i] = r.ID, r.LeadID, r.Recipient, string(r.Status), string(r.Reason)
		hashes[i], copies[i] = hashBytes(r), copyNumber(r, seqs[i])
	}
	b := p.Bulk
	moved := 0
	var erased []int64
	var statements pgx.Batch // it is a transaction, or part of one
	statements.Queue(sharedErasureSQL, erasureLock)
	statements.Queue(addMessagesSQL, p.Lease.BulkID, p.Lease.Token, n, p.Cursor, p.NotFound, p.Done, p.Base,
		b.Channel.ID, string(b.Channel.Type), b.Provider, string(b.MessageType), string(b.Priority),
		ids, seqs, leads, recipients, hashes, copies, statuses, reasons).QueryRow(func(row pgx.Row) error { return row.Scan(&moved, &erased) })
	err := to.SendBatch(ctx, &statements).Close()
	if err == nil && moved != 1 {
		return bulk.ErrLeaseLost
	}
	for _, seq := range erased {
		skipErased(&p.Rows[seq-p.Base])
	}
	return err
}

var walkHotSQL = fmt.Sprintf(walkSQL, "now()", "$1", "$2", "$3")

func (h *postgresHot) walk(ctx context.Context, bulkID uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	rows, err := h.pool.Query(ctx, walkHotSQL, bulkID, from, limit)
	if err != nil {
		return nil, err
	}
	out := make([]bulk.Row, 0, limit)
	var r walkedRow
	_, err = pgx.ForEachRow(rows, []any{&r.ID, &r.Seq, &r.Status, &r.Reason, &r.CostMicros, &r.Generation, &r.Waiting, &r.Claimed}, func() error {
		out = append(out, r.row())
		return nil
	})
	return out, err
}
