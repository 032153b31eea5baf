package store

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/access"
)

// The rows that singles refer to are locked until the commit, so that none of them is deleted meanwhile. The statements after
// these see what the locks have waited for.
const (
	lockChannelsSQL = `
SELECT c.id, c.type, c.version FROM channels c JOIN unnest($1::uuid[], $2::text[]) u(id, type) ON c.id = u.id AND c.type = u.type
ORDER BY c.id, c.type FOR KEY SHARE OF c`
	keyLockLeadsSQL = `SELECT l.id FROM leads l WHERE l.id = ANY($1::uuid[]) ORDER BY l.id FOR KEY SHARE`
)

// refersSQL says of a single m whether the rows that it refers to exist.
const refersSQL = `
    EXISTS (SELECT 1 FROM channels c WHERE c.id = m.channel_id AND c.type = m.channel_type)
    AND (NOT m.for_lead OR EXISTS (SELECT 1 FROM leads l WHERE l.id = m.lead_id))`

// keySQL takes idempotency keys for messages: those that are free, are the message's own already, or stood for longer
// than $9 seconds.
var keySQL = shape(8, []string{"text", "bytea", "bytea", "uuid", "uuid", "text", "uuid", "bool"}, `
INSERT INTO idempotency_keys (caller, key_hash, fingerprint, effect_id, is_bulk, created_at)
SELECT caller, key_hash, fingerprint, id, false, now()
FROM ROWS m(caller, key_hash, fingerprint, id, channel_id, channel_type, lead_id, for_lead)
WHERE `+refersSQL+`
ON CONFLICT (caller, key_hash) DO UPDATE SET
    fingerprint = excluded.fingerprint, effect_id = excluded.effect_id, is_bulk = false, created_at = excluded.created_at
WHERE idempotency_keys.effect_id = excluded.effect_id OR idempotency_keys.created_at < now() - $9 * interval '1 second'`)

// A message that is there already, because the answer to its insert was lost, stays as it is. One whose idempotency key
// is taken, by another effect that still stands, is not written. One that comes with a claim, and whose recipient is not
// suppressed, is written as claimed.
var insertSQL = shape(23, []string{
	"uuid", "uuid", "bigint", "uuid", "uuid", "text", "text", "text", "bytea", "text", "text", "text", "text", "text",
	"timestamptz", "timestamptz", "timestamptz", "bool", "text", "bytea", "uuid", "float8", "bool",
}, `
INSERT INTO messages (id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, message_type, priority,
                      content, metadata, next_attempt_at, scheduled_at, created_at, updated_at, keyed,
                      status, attempt, claim_token, claimed_at, claim_expires_at)
SELECT id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, message_type, priority,
       content::jsonb, metadata::jsonb, next_attempt_at, scheduled_at, created_at, created_at, keyed,
       CASE WHEN free THEN 'SENDING' ELSE status END, CASE WHEN free THEN 1 ELSE 0 END, CASE WHEN free THEN token END,
       CASE WHEN free THEN now() END, CASE WHEN free THEN now() + ttl * interval '1 second' END
FROM (
    SELECT m.*, token IS NOT NULL AND NOT EXISTS (`+suppressedSQL+`) AS free
    FROM ROWS m(id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, message_type, priority,
                content, metadata, status, next_attempt_at, scheduled_at, created_at, keyed, caller, key_hash, token, ttl, for_lead)
    WHERE `+refersSQL+`
    OFFSET 0 -- free is found out once
) m
WHERE key_hash IS NULL
    OR EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.caller = m.caller AND k.key_hash = m.key_hash AND k.effect_id = m.id)
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING id, claim_token`)

// insert writes singles. Keys go in in one order, so that no two groups wait for each other, and of two messages with the
// same key in a group only the first: the second finds it taken.
func (h *postgresHot) insert(ctx context.Context, singles []single) ([]inserted, error) {
	rows, at := make([]single, 0, len(singles)), make(map[uuid.UUID]int, len(singles))
	keys := map[access.IdempotencyKey]bool{}
	for i := range singles {
		if key := singles[i].key; key != nil {
			claim := access.IdempotencyKey{Caller: key.Caller, Hash: key.Hash}
			if keys[claim] {
				continue
			}
			keys[claim] = true
		}
		rows = append(rows, singles[i])
		at[singles[i].ID] = i
	}
	slices.SortFunc(rows, byKey)
	out := make([]inserted, len(singles))
	var statements pgx.Batch
	queueReferences(&statements, singles, out)
	if keyed := slices.IndexFunc(rows, func(r single) bool { return r.key != nil }); keyed >= 0 {
		rows := rows[keyed:]
		sql, args := keySQL.of([]column{
			each(rows, callerOf), each(rows, keyHashOf), each(rows, func(r *single) []byte { return r.key.Fingerprint[:] }), each(rows, idOf),
			each(rows, func(r *single) uuid.UUID { return r.ChannelID }), each(rows, func(r *single) string { return r.ChannelType }),
			each(rows, func(r *single) *uuid.UUID { return r.LeadID }), each(rows, func(r *single) bool { return r.forLead }),
		}, access.KeepEffects.Seconds())
		statements.Queue(sql, args...)
	}
	var unclaimed []uuid.UUID
	sql, args := insertSQL.of([]column{
		each(rows, idOf), each(rows, func(r *single) *uuid.UUID { return r.BulkID }),
		each(rows, func(r *single) int64 { return r.Seq }), each(rows, func(r *single) *uuid.UUID { return r.LeadID }),
		each(rows, func(r *single) uuid.UUID { return r.ChannelID }), each(rows, func(r *single) string { return r.ChannelType }),
		each(rows, func(r *single) string { return r.Provider }), each(rows, func(r *single) string { return r.Recipient }),
		each(rows, func(r *single) []byte { return r.AddressHash }), each(rows, func(r *single) string { return r.MessageType }),
		each(rows, func(r *single) string { return r.Priority }), each(rows, func(r *single) *string { return r.Content.text() }),
		each(rows, func(r *single) *string { return r.Metadata.text() }), each(rows, func(r *single) string { return r.Status }),
		each(rows, func(r *single) *time.Time { return r.NextAttemptAt }), each(rows, func(r *single) *time.Time { return r.ScheduledAt }),
		each(rows, func(r *single) time.Time { return r.CreatedAt }), each(rows, func(r *single) bool { return r.Keyed }),
		each(rows, callerOf), each(rows, keyHashOf),
		each(rows, func(r *single) *uuid.UUID { return nullID(r.claim.Token) }), each(rows, func(r *single) float64 { return r.claim.TTL.Seconds() }),
		each(rows, func(r *single) bool { return r.forLead }),
	})
	statements.Queue(sql, args...).Query(func(found pgx.Rows) error {
		var id, token uuid.UUID
		_, err := pgx.ForEachRow(found, []any{&id, &token}, func() error {
			i := at[id]
			out[i].written = true
			if out[i].Claimed = token != uuid.Nil && token == singles[i].claim.Token; !out[i].Claimed {
				unclaimed = append(unclaimed, id)
			}
			return nil
		})
		return err
	})
	if err := h.pool.SendBatch(ctx, &statements).Close(); err != nil || len(unclaimed) == 0 {
		return out, err
	}
	loaded, err := h.load(ctx, unclaimed)
	for i := range loaded {
		out[at[unclaimed[i]]].Suppressed = loaded[i].Suppressed
	}
	return out, err
}

// queueReferences locks the channels and the leads that singles refer to, and notes what is missing.
func queueReferences(to *pgx.Batch, singles []single, out []inserted) {
	type key struct {
		id  uuid.UUID
		typ string
	}
	channels, leads := map[key][]int{}, map[uuid.UUID][]int{}
	for i := range singles {
		r := &singles[i]
		k := key{r.ChannelID, r.ChannelType}
		channels[k] = append(channels[k], i)
		if r.forLead {
			leads[*r.LeadID] = append(leads[*r.LeadID], i)
			out[i].noLead = true
		}
	}
	ids, types := make([]uuid.UUID, 0, len(channels)), make([]string, 0, len(channels))
	for k := range channels {
		ids, types = append(ids, k.id), append(types, k.typ)
	}
	to.Queue(lockChannelsSQL, ids, types).Query(func(rows pgx.Rows) error {
		var (
			k       key
			version int64
		)
		_, err := pgx.ForEachRow(rows, []any{&k.id, &k.typ, &version}, func() error {
			for _, i := range channels[k] {
				out[i].ChannelVersion = version
			}
			return nil
		})
		return err
	})
	if len(leads) == 0 {
		return
	}
	to.Queue(keyLockLeadsSQL, slices.Collect(maps.Keys(leads))).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			for _, i := range leads[id] {
				out[i].noLead = false
			}
			return nil
		})
		return err
	})
}

func idOf(r *single) uuid.UUID { return r.ID }

func callerOf(r *single) string { return r.idempotency().Caller }

func keyHashOf(r *single) []byte {
	return r.hashOf(func(k *access.IdempotencyKey) []byte { return k.Hash[:] })
}

// byKey orders singles by their idempotency keys, those without first.
func byKey(a, b single) int {
	x, y := a.idempotency(), b.idempotency()
	return cmp.Or(cmp.Compare(x.Caller, y.Caller), bytes.Compare(x.Hash[:], y.Hash[:]))
}
