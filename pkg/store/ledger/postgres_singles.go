package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/access"
	"herald/pkg/message"
	"herald/pkg/store"
)

// The rows that singles refer to are locked until the commit, so that none of them is deleted meanwhile. A statement after
// these two sees what the locks have waited for.
const (
	lockChannelsSQL = `
SELECT c.id, c.type, c.version FROM channels c JOIN unnest($1::uuid[], $2::text[]) u(id, type) ON c.id = u.id AND c.type = u.type
ORDER BY c.id, c.type FOR KEY SHARE OF c`
	keyLockLeadsSQL = `SELECT l.id FROM leads l WHERE l.id = ANY($1::uuid[]) ORDER BY l.id FOR KEY SHARE`
)

// refersSQL is the condition that the rows exist that single m refers to.
const refersSQL = `
    EXISTS (SELECT 1 FROM channels c WHERE c.id = m.channel_id AND c.type = m.channel_type)
    AND (NOT m.for_lead OR EXISTS (SELECT 1 FROM leads l WHERE l.id = m.lead_id))`

// keyStatement takes idempotency keys for singles: keys that are free, that are the message's own already, or that are older
// than $9 seconds.
var keyStatement = newRowsStatement("m", `
INSERT INTO idempotency_keys (caller, key_hash, fingerprint, effect_id, is_bulk, created_at)
SELECT caller, key_hash, fingerprint, id, false, now()
FROM ROWS m
WHERE `+refersSQL+`
ON CONFLICT (caller, key_hash) DO UPDATE SET
    fingerprint = excluded.fingerprint, effect_id = excluded.effect_id, is_bulk = false, created_at = excluded.created_at
WHERE idempotency_keys.effect_id = excluded.effect_id OR idempotency_keys.created_at < now() - $9 * interval '1 second'`,
	newColumn("caller", "text", func(r *single) string { return r.idempotency().Caller }),
	newColumn("key_hash", "bytea", (*single).keyHash),
	newColumn("fingerprint", "bytea", func(r *single) []byte { return r.key.Fingerprint[:] }),
	newColumn("id", "uuid", func(r *single) uuid.UUID { return r.ID }),
	newColumn("channel_id", "uuid", func(r *single) uuid.UUID { return r.ChannelID }),
	newColumn("channel_type", "text", func(r *single) string { return r.ChannelType }),
	newColumn("lead_id", "uuid", func(r *single) *uuid.UUID { return r.LeadID }),
	newColumn("for_lead", "bool", func(r *single) bool { return r.forLead }),
)

// insertStatement inserts singles. A message that exists already, because the answer to its insert was lost, stays as it is. A
// message whose idempotency key is taken by another effect is not written. A message with a claim is written as claimed, unless
// its recipient is suppressed.
var insertStatement = newRowsStatement("m", `
INSERT INTO messages (id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, message_type, priority,
                      content, metadata, next_attempt_at, scheduled_at, created_at, updated_at, keyed,
                      status, attempt, claim_token, claimed_at, claim_expires_at)
SELECT id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, address_hash, message_type, priority,
       content::jsonb, metadata::jsonb, next_attempt_at, scheduled_at, created_at, created_at, keyed,
       CASE WHEN free THEN 'SENDING' ELSE status END, CASE WHEN free THEN 1 ELSE 0 END, CASE WHEN free THEN token END,
       CASE WHEN free THEN now() END, CASE WHEN free THEN now() + ttl * interval '1 second' END
FROM (
    SELECT m.*, token IS NOT NULL AND NOT EXISTS (`+suppressedSQL+`) AS free
    FROM ROWS m
    WHERE `+refersSQL+`
    OFFSET 0 -- keeps the planner from evaluating free more than once
) m
WHERE key_hash IS NULL
    OR EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.caller = m.caller AND k.key_hash = m.key_hash AND k.effect_id = m.id)
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING id, claim_token`,
	newColumn("id", "uuid", func(r *single) uuid.UUID { return r.ID }),
	newColumn("bulk_id", "uuid", func(r *single) *uuid.UUID { return r.BulkID }),
	newColumn("seq", "bigint", func(r *single) int64 { return r.Seq }),
	newColumn("lead_id", "uuid", func(r *single) *uuid.UUID { return r.LeadID }),
	newColumn("channel_id", "uuid", func(r *single) uuid.UUID { return r.ChannelID }),
	newColumn("channel_type", "text", func(r *single) string { return r.ChannelType }),
	newColumn("provider", "text", func(r *single) string { return r.Provider }),
	newColumn("recipient", "text", func(r *single) string { return r.Recipient }),
	newColumn("address_hash", "bytea", func(r *single) []byte { return r.AddressHash }),
	newColumn("message_type", "text", func(r *single) string { return r.MessageType }),
	newColumn("priority", "text", func(r *single) string { return r.Priority }),
	newColumn("content", "text", func(r *single) *string { return r.Content.Text() }),
	newColumn("metadata", "text", func(r *single) *string { return r.Metadata.Text() }),
	newColumn("status", "text", func(r *single) string { return r.Status }),
	newColumn("next_attempt_at", "timestamptz", func(r *single) *time.Time { return r.NextAttemptAt }),
	newColumn("scheduled_at", "timestamptz", func(r *single) *time.Time { return r.ScheduledAt }),
	newColumn("created_at", "timestamptz", func(r *single) time.Time { return r.CreatedAt }),
	newColumn("keyed", "bool", func(r *single) bool { return r.Keyed }),
	newColumn("caller", "text", func(r *single) string { return r.idempotency().Caller }),
	newColumn("key_hash", "bytea", (*single).keyHash),
	newColumn("token", "uuid", func(r *single) *uuid.UUID { return store.NullID(r.claim.Token) }),
	newColumn("ttl", "float8", func(r *single) float64 { return r.claim.TTL.Seconds() }),
	newColumn("for_lead", "bool", func(r *single) bool { return r.forLead }),
)

// insert sends all statements in one batch, which is one transaction.
func (d *postgresDriver) insert(ctx context.Context, singles []single) ([]insertResult, error) {
	out, unclaimed, err := insertInto(ctx, d.pool, singles)
	if err != nil {
		return out, err
	}
	return out, d.addSuppressions(ctx, singles, out, unclaimed)
}

// errNotWritten rolls the files of a single back that was not written.
var errNotWritten = errors.New("the single was not written")

// insertWithFiles writes the files first: the locks on what the single refers to are held for its own row only.
func (d *postgresDriver) insertWithFiles(ctx context.Context, s *single, files []message.FileData) (insertResult, error) {
	var out []insertResult
	var unclaimed []int
	err := pgx.BeginFunc(ctx, d.files, func(tx pgx.Tx) error {
		err := store.EachPiece(s.ID, files, func(r store.FileRow) error {
			_, err := tx.Exec(ctx, insertFileSQL, r.OwnerID, r.File, r.Piece, r.Data)
			return err
		})
		if err != nil {
			return err
		}
		if out, unclaimed, err = insertInto(ctx, tx, []single{*s}); err == nil && !out[0].written {
			err = errNotWritten
		}
		return err
	})
	if errors.Is(err, errNotWritten) {
		return out[0], nil
	}
	if err != nil {
		return insertResult{}, err
	}
	err = d.addSuppressions(ctx, []single{*s}, out, unclaimed)
	return out[0], err
}

// insertFileSQL is store.InsertFileSQL in the notation of pgx.
var insertFileSQL = strings.NewReplacer("?, ?, ?, ?", "$1, $2, $3, $4").Replace(store.InsertFileSQL)

// batchSender is a pool or a transaction.
type batchSender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// addSuppressions looks up why singles that were to be inserted as claimed are not. unclaimed are their positions.
func (d *postgresDriver) addSuppressions(ctx context.Context, singles []single, out []insertResult, unclaimed []int) error {
	if len(unclaimed) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(unclaimed))
	for i, at := range unclaimed {
		ids[i] = singles[at].ID
	}
	loaded, err := d.load(ctx, ids)
	for i := range loaded {
		out[unclaimed[i]].Suppressed = loaded[i].Suppressed
	}
	return err
}

// insertInto inserts singles. It returns the positions of those that are not claimed.
func insertInto(ctx context.Context, to batchSender, singles []single) (out []insertResult, unclaimed []int, err error) {
	rows, positions := insertOrder(singles)
	out = make([]insertResult, len(singles))
	var statements pgx.Batch
	queueReferences(&statements, singles, out)
	if keyed := slices.IndexFunc(rows, func(r single) bool { return r.key != nil }); keyed >= 0 {
		sql, args := keyStatement.bind(rows[keyed:], access.KeepEffects.Seconds())
		statements.Queue(sql, args...)
	}
	sql, args := insertStatement.bind(rows)
	statements.Queue(sql, args...).Query(func(found pgx.Rows) error {
		var id, token uuid.UUID
		_, err := pgx.ForEachRow(found, []any{&id, &token}, func() error {
			i := positions[id]
			out[i].written = true
			if out[i].Claimed = token != uuid.Nil && token == singles[i].claim.Token; !out[i].Claimed {
				unclaimed = append(unclaimed, i)
			}
			return nil
		})
		return err
	})
	err = to.SendBatch(ctx, &statements).Close()
	return out, unclaimed, err
}

// insertOrder returns the singles to write in the order of their keys, those without a key first, so that two groups never
// wait for each other's keys. Of two singles with one key only the first is returned: the second finds its key taken.
// positions maps an id to its index in singles.
func insertOrder(singles []single) (rows []single, positions map[uuid.UUID]int) {
	rows, positions = make([]single, 0, len(singles)), make(map[uuid.UUID]int, len(singles))
	keys := map[access.IdempotencyKey]bool{}
	for i := range singles {
		if key := singles[i].key; key != nil {
			k := access.IdempotencyKey{Caller: key.Caller, Hash: key.Hash}
			if keys[k] {
				continue
			}
			keys[k] = true
		}
		rows = append(rows, singles[i])
		positions[singles[i].ID] = i
	}
	slices.SortFunc(rows, func(a, b single) int {
		x, y := a.idempotency(), b.idempotency()
		return cmp.Or(cmp.Compare(x.Caller, y.Caller), bytes.Compare(x.Hash[:], y.Hash[:]))
	})
	return rows, positions
}

// queueReferences locks the channels and the leads that singles refer to, and records what is missing.
func queueReferences(to *pgx.Batch, singles []single, out []insertResult) {
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
