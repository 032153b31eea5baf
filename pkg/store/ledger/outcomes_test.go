package ledger_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// rowOf returns the row of a message, its failure in the form that the ledger writes.
func rowOf(t *testing.T, s *storetest.Store, id uuid.UUID) store.MessageRow {
	t.Helper()
	var row store.MessageRow
	must(t, s.WithContext(t.Context()).Where("id = ?", id).Take(&row).Error)
	if row.Failure != nil {
		var compact bytes.Buffer
		must(t, json.Compact(&compact, row.Failure))
		row.Failure = compact.Bytes()
	}
	return row
}

// setRow changes columns of a message's row behind the ledger's back.
func setRow(t *testing.T, s *storetest.Store, id uuid.UUID, columns map[string]any) {
	t.Helper()
	must(t, s.WithContext(t.Context()).Table("messages").Where("id = ?", id).Updates(columns).Error)
}

// near compares the times of a row: two times are equal if they are less than ten seconds apart.
var near = cmp.Options{cmpopts.EquateApproxTime(10 * time.Second), cmpopts.EquateEmpty()}

// outcome is an outcome and what it writes.
type outcome struct {
	of   delivery.Outcome
	want func(before store.MessageRow, now time.Time) store.MessageRow
}

func at(t time.Time) *time.Time { return &t }

// Each outcome writes exactly its columns of a row that earlier attempts have left.
func TestEachOutcomeWritesItsColumns(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		refusal := &message.Failure{Code: "21211", Text: "no such number"}
		call := func(o delivery.Outcome, r delivery.Response) delivery.Outcome { return o.WithCall(r, time.Now()) }
		row := delivery.Row{ID: uuid.New(), Token: uuid.New(), Single: true, Attempt: 3, Part: 1}
		ended := func(change func(*store.MessageRow, time.Time)) func(store.MessageRow, time.Time) store.MessageRow {
			return func(before store.MessageRow, now time.Time) store.MessageRow {
				before.ClaimExpiresAt, before.NextAttemptAt, before.UpdatedAt = nil, nil, now
				before.HTTPStatus, before.Failure, before.Reason, before.CostMicros = 0, nil, "", 0
				change(&before, now)
				return before
			}
		}
		for name, c := range map[string]outcome{
			"sent": {call(row.Sent(79), delivery.Response{Class: delivery.Accepted, ProviderMessageID: "new", HTTPStatus: 201}), ended(func(r *store.MessageRow, now time.Time) {
				r.Status, r.Part, r.ProviderMessageID, r.HTTPStatus, r.CostMicros, r.SentAt = "SENT", 2, "new", 201, 79, &now
			})},
			"next part": {call(row.NextPart(time.Hour), delivery.Response{Class: delivery.Accepted, ProviderMessageID: "new"}), func(before store.MessageRow, now time.Time) store.MessageRow {
				r := ended(func(*store.MessageRow, time.Time) {})(before, now)
				r.Part, r.ProviderMessageID, r.ClaimedAt, r.ClaimExpiresAt, r.NextAttemptAt = 2, "new", &now, at(now.Add(time.Hour)), before.NextAttemptAt
				return r
			}},
			"failed": {call(delivery.Row{ID: row.ID, Token: row.Token, Attempt: 3}.Failed(message.RecipientRefused, nil), delivery.Response{Class: delivery.Refused, Failure: refusal, HTTPStatus: 400}),
				ended(func(r *store.MessageRow, _ time.Time) {
					r.Status, r.Reason, r.HTTPStatus, r.Failure, r.Part = "FAILED", string(message.RecipientRefused), 400, store.Encode(refusal), 0
				})},
			"unknown": {row.Unknown(0), ended(func(r *store.MessageRow, _ time.Time) {
				r.Status, r.Reason, r.Unknowns = "UNKNOWN", string(message.UnknownOutcome), r.Unknowns+1
			})},
			"unknown, to be sent again": {row.Unknown(time.Hour), ended(func(r *store.MessageRow, now time.Time) {
				r.Status, r.Reason, r.Unknowns, r.NextAttemptAt = "UNKNOWN", string(message.UnknownOutcome), r.Unknowns+1, at(now.Add(time.Hour))
			})},
			"ended UNKNOWN for another reason": {row.Failed(message.RecipientRefused, refusal), ended(func(r *store.MessageRow, _ time.Time) {
				r.Status, r.Reason, r.Failure = "UNKNOWN", string(message.RecipientRefused), store.Encode(refusal)
			})},
			"retry": {row.Retry(message.ProviderUnavailable, time.Hour), ended(func(r *store.MessageRow, now time.Time) {
				r.Status, r.Reason, r.NextAttemptAt = "QUEUED", string(message.ProviderUnavailable), at(now.Add(time.Hour))
			})},
			"release": {row.Release(message.ProviderUnavailable, time.Hour), ended(func(r *store.MessageRow, now time.Time) {
				r.Status, r.Reason, r.NextAttemptAt, r.Attempt = "QUEUED", string(message.ProviderUnavailable), at(now.Add(time.Hour)), r.Attempt-1
			})},
			"release without a time": {row.Release("", 0), ended(func(r *store.MessageRow, _ time.Time) { r.Status, r.Attempt = "QUEUED", r.Attempt-1 })},
		} {
			now := store.Stamp(time.Now())
			m := storetest.InsertSingle(t, s, func(m *message.Message) { m.ID = c.of.ID() })
			setRow(t, s, m.ID, map[string]any{
				"status": "SENDING", "reason": "provider_unavailable", "failure": store.Encode(refusal), "http_status": 503, "cost_micros": 7, "part": 1, "attempt": 3, "unknowns": 1,
				"provider_message_id": "old", "claim_token": c.of.Token(), "claimed_at": now.Add(-time.Hour), "claim_expires_at": now.Add(time.Minute),
				"next_attempt_at": now.Add(2 * time.Minute), "updated_at": now.Add(-time.Hour),
			})
			before := rowOf(t, s, m.ID)
			if !storetest.Settle(t, s, c.of) {
				t.Errorf("%s: no effect", name)
			}
			if d := cmp.Diff(c.want(before, now), rowOf(t, s, m.ID), near); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			must(t, s.WithContext(t.Context()).Exec("DELETE FROM messages WHERE id = ?", m.ID).Error)
		}
	})
}

// An outcome without a token settles an open row that no delivery has claimed.
func TestAnOutcomeWithoutAClaimNeedsAnOpenRow(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for _, status := range []message.Status{
			message.Scheduled, message.Pending, message.Queued, message.Sending, message.Sent, message.Failed, message.Skipped, message.Unknown, message.Cancelled,
		} {
			m := storetest.InsertSingle(t, s, nil)
			setRow(t, s, m.ID, map[string]any{"status": string(status)})
			before := rowOf(t, s, m.ID)
			open := status == message.Scheduled || status == message.Pending || status == message.Queued
			if settled := storetest.Settle(t, s, delivery.Row{ID: m.ID}.Skipped(message.Unsubscribed, "")); settled != open {
				t.Errorf("%s: settled: %t", status, settled)
			}
			after := rowOf(t, s, m.ID)
			if want := map[bool]string{true: "SKIPPED", false: string(status)}[open]; after.Status != want || after.Attempt != before.Attempt {
				t.Errorf("%s became %s with attempt %d after %d", status, after.Status, after.Attempt, before.Attempt)
			}
		}
	})
}

// A claim moves the time at which the sweep looks at a row to its expiry. A row that the sweep does not look at keeps it NULL.
func TestAClaimMovesTheDueTime(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for _, load := range []bool{false, true} {
			for _, due := range []bool{false, true} {
				b := storetest.InsertBulk(t, s, nil)
				lead := storetest.Lead(t, s, nil)
				m := storetest.InsertSingle(t, s, func(m *message.Message) {
					m.BulkID, m.LeadID, m.ChannelID, m.ChannelType = b.ID, lead, b.Channel.ID, b.Channel.Type
					if !due {
						m.NextAttemptAt = nil
					}
				})
				now := store.Stamp(time.Now())
				c := delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: 20 * time.Minute, Most: 3}
				if load {
					if l, err := s.LoadAndClaim(t.Context(), c); err != nil || !l.Claimed {
						t.Fatalf("%+v, %v", l, err)
					}
				} else if ok, err := s.Claim(t.Context(), c); err != nil || !ok {
					t.Fatalf("%t, %v", ok, err)
				}
				want := rowOf(t, s, m.ID)
				want.Status, want.Attempt, want.ClaimToken, want.ClaimedAt, want.ClaimExpiresAt, want.UpdatedAt, want.NextAttemptAt =
					"SENDING", 1, &c.Token, &now, at(now.Add(c.TTL)), now, nil
				if due {
					want.NextAttemptAt = want.ClaimExpiresAt
				}
				if d := cmp.Diff(want, rowOf(t, s, m.ID), near); d != "" {
					t.Errorf("load: %t, due: %t: %s", load, due, d)
				}
			}
		}
	})
}

// A message of a bulk that is paused or over waits, and is not claimed as it is loaded; so is a message of a paused channel.
func TestAMessageWaitsForItsBulk(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		for status, held := range map[bulk.Status]bool{bulk.Processing: false, bulk.Paused: true, bulk.Cancelled: true, bulk.Completed: true} {
			b := storetest.InsertBulk(t, s, nil)
			lead := storetest.Lead(t, s, nil)
			m := storetest.InsertSingle(t, s, func(m *message.Message) {
				m.BulkID, m.LeadID, m.ChannelID, m.ChannelType, m.Status = b.ID, lead, b.Channel.ID, b.Channel.Type, message.Pending
			})
			must(t, s.WithContext(t.Context()).Exec("UPDATE bulks SET status = ? WHERE id = ?", string(status), b.ID).Error)
			l, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute, Most: 3})
			must(t, err)
			if l.Claimed == held || l.Held != held {
				t.Errorf("%s: claimed: %t, held: %t", status, l.Claimed, l.Held)
			}
		}
	})
}

// A resend that is due gets a new generation, so its task has a new name, and its suspicion is kept. Messages that are due are
// read oldest first.
func TestDueMessagesAreReadOldestFirst(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		now := store.Stamp(time.Now())
		put := func(columns map[string]any, change func(*message.Message)) uuid.UUID {
			m := storetest.InsertSingle(t, s, change)
			setRow(t, s, m.ID, columns)
			return m.ID
		}
		b := storetest.InsertBulk(t, s, nil)
		ofBulk := put(map[string]any{"status": "UNKNOWN", "unknowns": 1, "next_attempt_at": now.Add(-3 * time.Minute), "suspect": int(message.SuspectRendering)},
			func(m *message.Message) { m.BulkID = b.ID })
		single := put(map[string]any{"status": "UNKNOWN", "unknowns": 1, "next_attempt_at": now.Add(-2 * time.Minute)}, nil)
		put(map[string]any{"status": "SENDING", "next_attempt_at": now.Add(-4 * time.Minute), "claim_expires_at": now.Add(time.Hour)}, nil) // claimed
		last := put(map[string]any{"next_attempt_at": now.Add(-time.Minute)}, nil)
		for _, want := range []uuid.UUID{ofBulk, single, last} {
			due, err := s.Due(t.Context(), 1, time.Hour)
			must(t, err)
			if len(due) != 1 || due[0].ID != want || due[0].Sending {
				t.Fatalf("due %+v, want %s", due, want)
			}
		}
		if due, err := s.Due(t.Context(), 10, time.Hour); err != nil || len(due) != 0 {
			t.Errorf("due %+v, %v", due, err)
		}
		for id, want := range map[uuid.UUID]store.MessageRow{
			ofBulk: {Status: "PENDING", Generation: 1, Suspect: int(message.SuspectRendering)}, single: {Status: "QUEUED", Generation: 1, Suspect: int(message.Suspected)},
			last: {Status: "QUEUED"},
		} {
			row := rowOf(t, s, id)
			got := store.MessageRow{Status: row.Status, Generation: row.Generation, Suspect: row.Suspect, NextAttemptAt: row.NextAttemptAt}
			want.NextAttemptAt = at(now.Add(time.Hour))
			if d := cmp.Diff(want, got, near); d != "" {
				t.Error(d)
			}
		}
	})
}

// Singles, loads and claims honour a suppression for exactly the channel type, the message types and the address that it names.
func TestASuppressionStopsWhatItNames(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		channels := map[message.ChannelType]channel.Key{}
		for _, typ := range []message.ChannelType{message.SMS, message.Email} {
			channels[typ] = storetest.Channel(t, s, typ).Key
		}
		lead := storetest.Lead(t, s, nil)
		for _, stopped := range message.MessageTypes {
			address := "stop " + string(stopped)
			must(t, s.PutSuppression(t.Context(), &message.Suppression{
				ID: newID(), Type: message.SMS, Hash: message.HashAddress(address), Reason: message.Unsubscribed, MessageTypes: []message.MessageType{stopped}, CreatedAt: time.Now(),
			}))
			for typ, ch := range channels {
				for _, kind := range message.MessageTypes {
					want := message.NoReason
					if typ == message.SMS && kind == stopped {
						want = message.Unsubscribed
					}
					now := store.Stamp(time.Now())
					single := &message.Message{
						ID: newID(), ChannelID: ch.ID, ChannelType: typ, Recipient: address, MessageType: kind, Priority: message.High, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
					}
					in, err := s.Insert(t.Context(), delivery.Entry{Message: single, Claim: delivery.Claim{ID: single.ID, Token: uuid.New(), TTL: time.Minute}})
					must(t, err)
					loaded, err := s.Load(t.Context(), single.ID)
					must(t, err)
					b := storetest.InsertBulk(t, s, nil)
					planned := storetest.InsertSingle(t, s, func(m *message.Message) {
						m.BulkID, m.LeadID, m.ChannelID, m.ChannelType, m.Recipient, m.MessageType = b.ID, lead, ch.ID, typ, address, kind
					})
					taken, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: planned.ID, Token: uuid.New(), TTL: time.Minute, Most: 3})
					must(t, err)
					free := want == message.NoReason
					if in.Suppressed != want || in.Claimed != free || loaded.Suppressed != want || taken.Suppressed != want || taken.Claimed != free {
						t.Errorf("%s of %s, stopped: %s: inserted %+v, loaded %q, taken: %t %q", kind, typ, stopped, in, loaded.Suppressed, taken.Claimed, taken.Suppressed)
					}
				}
			}
		}
	})
}

// A row that another process is reading is left to it.
func TestDueSkipsLockedRows(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	past := store.Stamp(time.Now().Add(-time.Minute))
	due := func(m *message.Message) { m.NextAttemptAt = &past }
	locked, free := storetest.InsertSingle(t, s, due), storetest.InsertSingle(t, s, due)
	tx, err := storetest.Raw(t, s.URL).BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), "SELECT 1 FROM messages WHERE id = $1 FOR UPDATE", locked.ID.String())
	must(t, err)
	if got, err := s.Due(t.Context(), 10, time.Hour); err != nil || len(got) != 1 || got[0].ID != free.ID {
		t.Errorf("due %+v, %v, want %s", got, err, free.ID)
	}
}
