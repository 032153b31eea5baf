package storetest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/wire"
)

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NewID returns a new id as the services create them (UUIDv7).
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Together runs functions at the same time and returns their errors.
func Together(all ...func() error) []error {
	errs := make([]error, len(all))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, do := range all {
		wg.Go(func() {
			<-begin
			errs[i] = do()
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// Lead inserts a lead that was created an hour ago, after change (nil: none), and returns its id.
func Lead(t testing.TB, s *Store, change func(*message.Lead)) uuid.UUID {
	t.Helper()
	now := store.Stamp(time.Now().Add(-time.Hour))
	l := message.Lead{ID: NewID(), FirstName: "Old", Email: NewID().String() + "@example.com", CreatedAt: now, UpdatedAt: now}
	if change != nil {
		change(&l)
	}
	Must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
	return l.ID
}

// EnsureChannel inserts a channel where none has the key.
func EnsureChannel(t testing.TB, s *Store, k channel.Key) {
	t.Helper()
	ch := &channel.Channel{Key: k, Provider: "sendgrid", Name: "x", Sender: "x", Currency: "USD", OnUnknown: channel.Hold, State: channel.Active}
	if err := s.InsertChannel(t.Context(), ch); err != nil && !message.IsCode(err, message.CodeConflict) {
		t.Fatal(err)
	}
}

// Insert inserts a single, and its channel if that does not exist.
func Insert(t testing.TB, s *Store, e delivery.Entry) delivery.Inserted {
	t.Helper()
	EnsureChannel(t, s, channel.Key{ID: e.Message.ChannelID, Type: e.Message.ChannelType})
	inserted, err := s.Insert(t.Context(), e)
	Must(t, err)
	return inserted
}

// InsertSingle inserts a queued SMS that is due in an hour, after change (nil: none).
func InsertSingle(t testing.TB, s *Store, change func(*message.Message)) *message.Message {
	t.Helper()
	now := store.Stamp(time.Now())
	due := now.Add(time.Hour)
	m := &message.Message{
		ID: NewID(), ChannelID: NewID(), ChannelType: message.SMS, Provider: "twilio", Recipient: "+15550001111", MessageType: message.Transactional,
		Priority: message.High, Content: &message.Content{Text: "Hi", MediaURLs: []string{"https://x.test/a"}}, Metadata: []byte(`{"a": 1}`),
		Status: message.Queued, CreatedAt: now, UpdatedAt: now, NextAttemptAt: &due,
	}
	if change != nil {
		change(m)
	}
	Insert(t, s, delivery.Entry{Message: m})
	return m
}

// Claim claims a message under a new token.
func Claim(t testing.TB, s *Store, id uuid.UUID, ttl time.Duration) (token uuid.UUID, ok bool) {
	t.Helper()
	token = uuid.New()
	ok, err := s.Claim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: ttl})
	Must(t, err)
	return token, ok
}

// Settle records an outcome, and reports whether it took effect.
func Settle(t testing.TB, s *Store, o delivery.Outcome) bool {
	t.Helper()
	settled, err := s.Settle(t.Context(), o)
	Must(t, err)
	return settled.OK
}

// InsertBulk inserts a bulk over a new channel to some leads (nil: without criteria).
func InsertBulk(t testing.TB, s *Store, ids []uuid.UUID) *bulk.Bulk {
	t.Helper()
	b := &bulk.Bulk{
		ID: NewID(), Channel: Channel(t, s, message.Email).Key, Provider: "sendgrid", MessageType: message.Marketing,
		Priority: message.Normal, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: ids},
		Request: []byte(`{"a": 1}`), Status: bulk.Processing, CreatedAt: store.Stamp(time.Now()),
	}
	Must(t, s.InsertBulk(t.Context(), b, nil))
	return b
}

// Acquire takes the lease of a bulk under a new token.
func Acquire(t testing.TB, s *Store, id uuid.UUID, ttl time.Duration) (bulk.Lease, *bulk.Bulk) {
	t.Helper()
	l := bulk.Lease{BulkID: id, Token: uuid.New()}
	b, err := s.Acquire(t.Context(), l, ttl)
	Must(t, err)
	return l, b
}

// PlannedRows inserts n leads and returns their rows of a plan.
func PlannedRows(t testing.TB, s *Store, n int) []bulk.PlannedRow {
	t.Helper()
	rows := make([]bulk.PlannedRow, n)
	for i := range rows {
		address := NewID().String() + "@example.com"
		rows[i] = bulk.PlannedRow{ID: NewID(), LeadID: NewID(), Recipient: address, Hash: message.HashAddress(address), Dedupe: true, Status: message.Pending}
	}
	InsertLeadsOf(t, s, rows)
	return rows
}

// InsertLeadsOf inserts the leads of rows of a plan.
func InsertLeadsOf(t testing.TB, s *Store, rows []bulk.PlannedRow) {
	t.Helper()
	leads := make([]message.Lead, len(rows))
	for i := range rows {
		leads[i] = message.Lead{ID: rows[i].LeadID, Email: rows[i].Recipient, CreatedAt: time.Now(), UpdatedAt: time.Now()}
	}
	Must(t, s.InsertLeads(t.Context(), leads))
}

// IdempotencyKey returns the idempotency key of a caller for a request.
func IdempotencyKey(caller, key, request string) *access.IdempotencyKey {
	return &access.IdempotencyKey{Caller: caller, Hash: sha256.Sum256([]byte(key)), Fingerprint: sha256.Sum256([]byte(request))}
}

// InsertUnder inserts a single or a bulk under an idempotency key (nil: none) and returns its id.
func InsertUnder(t testing.TB, s *Store, k *access.IdempotencyKey, asBulk bool) (uuid.UUID, error) {
	t.Helper()
	id, now := NewID(), store.Stamp(time.Now())
	if asBulk {
		return id, s.InsertBulk(t.Context(), &bulk.Bulk{ID: id, Channel: Channel(t, s, message.Email).Key, Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: now}, k)
	}
	m := &message.Message{ID: id, Recipient: "+15550001111", ChannelType: message.SMS, MessageType: message.Transactional, Keyed: k != nil, Status: message.Queued, CreatedAt: now, UpdatedAt: now}
	EnsureChannel(t, s, channel.Key{ID: m.ChannelID, Type: m.ChannelType})
	_, err := s.Insert(t.Context(), delivery.Entry{Message: m, Key: k})
	return id, err
}

// Exists reports whether a message or a bulk has the id.
func Exists(t testing.TB, s *Store, id uuid.UUID) bool {
	t.Helper()
	if _, _, err := s.Message(t.Context(), id); err == nil {
		return true
	}
	_, err := s.Bulk(t.Context(), id)
	return err == nil
}

// The address and the phone number of Annabel.
const (
	AnnabelsEmail = "ann.erased@example.com"
	AnnabelsPhone = "+14155550123"
)

// Annabel inserts a lead with the first name Annabel and returns its id. The lead has its phone number in a national form.
func Annabel(t testing.TB, s *Store) uuid.UUID {
	t.Helper()
	return Lead(t, s, func(l *message.Lead) { l.FirstName, l.Email, l.Phone = "Annabel", AnnabelsEmail, "(415) 555-0123" })
}

// Readable returns the tables of a database that contain one of some texts.
func Readable(t testing.TB, db *sql.DB, texts ...string) []string {
	t.Helper()
	var found []string
	for table, columns := range map[string]string{
		"leads":        "first_name || email || phone || search_text || COALESCE(CAST(custom_fields AS text), '') || COALESCE(CAST(custom_text AS text), '')",
		"suppressions": "address", "attempts": "code",
		"messages": "recipient || COALESCE(CAST(content AS text), '') || COALESCE(CAST(metadata AS text), '') || COALESCE(CAST(failure AS text), '')",
		"bulks":    "CAST(criteria AS text) || CAST(request AS text)",
	} {
		for _, text := range texts {
			var n int
			Must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table+" WHERE "+columns+" LIKE '%"+text+"%'").Scan(&n))
			if n > 0 {
				found = append(found, fmt.Sprintf("%s (%d rows: %s)", table, n, text))
			}
		}
	}
	return found
}

// Published returns the events after seen, and moves seen to the last of them.
func Published(t testing.TB, s *Store, seen *int64) []event.Event {
	t.Helper()
	stored, err := s.Events(t.Context(), *seen, 100)
	Must(t, err)
	var events []event.Event //nolint:prealloc // nil without events, as expectations have it
	for _, e := range stored {
		if e.ID <= *seen || time.Since(e.CreatedAt) > time.Minute || time.Until(e.CreatedAt) > time.Minute {
			t.Errorf("event %d of %s after %d", e.ID, e.CreatedAt, *seen)
		}
		events, *seen = append(events, e.Event), e.ID
	}
	return events
}

// failer is what ParseSettings and ResolveAll need of a test, or of a property test.
type failer interface {
	Fatalf(format string, args ...any)
}

// ParseSettings parses the bulk_settings of a request that was received at a time. A keyword of white space only selects all
// leads.
func ParseSettings(t failer, settings map[string]any, now time.Time) *audience.Criteria {
	errs := &wire.Errors{}
	c := audience.Parse(errs, wire.NewObject(errs, settings, "body", "bulk_settings"), now)
	for _, e := range errs.List() {
		if e.Loc[len(e.Loc)-1] == "search_keyword" {
			c.Words, c.AllLeads = nil, true
			continue
		}
		t.Fatalf("%v: %s", e.Loc, e.Msg)
	}
	return &c
}

// ResolveAll resolves an audience page by page and returns the ids of its leads.
func ResolveAll(t failer, s *Store, c *audience.Criteria, limit int) []uuid.UUID {
	var ids []uuid.UUID
	for cursor, done := "", false; !done; {
		page, err := s.Resolve(context.Background(), c, message.Email, cursor, limit)
		if err != nil {
			t.Fatalf("resolve: %v", err)
		}
		for _, found := range page.Candidates {
			ids = append(ids, found.LeadID)
		}
		if page.Next == cursor && !page.Done {
			t.Fatalf("the cursor stays at %s", cursor)
		}
		cursor, done = page.Next, page.Done
	}
	return ids
}
