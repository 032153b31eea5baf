package store_test

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"

	"herald/migrations"
	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/records"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func TestSchema(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s := storetest.Connect(t, url, storetest.Options{})
		if err := s.CheckSchema(t.Context()); err == nil {
			t.Error("an empty database passes as up to date")
		}
		if status, err := s.BackfillStatus(t.Context(), records.Backfills()); err != nil || len(status) != len(records.Backfills()) || status[0].State != store.BackfillPending {
			t.Errorf("backfills of an empty database: %+v, %v", status, err)
		}
		applied, err := s.Migrate(t.Context())
		must(t, err)
		if len(applied) == 0 {
			t.Error("nothing was applied")
		}
		must(t, s.CheckSchema(t.Context()))
		if again, err := s.Migrate(t.Context()); err != nil || len(again) != 0 {
			t.Errorf("the second time applied %v, %v", again, err)
		}
		status, err := s.MigrationStatus(t.Context())
		must(t, err)
		if len(status) != len(applied) || status[0].AppliedAt == nil {
			t.Errorf("status %+v", status)
		}
	})
}

// filledVersion is the version that fillSQL fills: the one before the newest that changed a table of fillSQL.
const filledVersion = 5

// The ids of fillSQL.
const (
	filledLead    = "00000000-0000-7000-8000-000000000001"
	filledChannel = "00000000-0000-7000-8000-000000000002"
	filledBulk    = "00000000-0000-7000-8000-000000000003"
	filledSingle  = "00000000-0000-7000-8000-000000000004"
	filledPlanned = "00000000-0000-7000-8000-000000000005"
	filledSpelled = "00000000-0000-7000-8000-000000000006"
)

// fillSQL writes a row of every table as version 5 wrote it, in the words of both databases.
var fillSQL = []string{
	`INSERT INTO leads (id, first_name, first_name_fold, email, email_fold, search_text, tags, tags_fold, custom_fields, custom_text, custom_number, created_at, updated_at)
VALUES ('` + filledLead + `', 'Ann', 'ann', 'Ann@example.com', 'ann@example.com', 'ann', '["VIP"]', '["vip"]', '{"n": 7}', '{"k6e": "7"}', '{"k6e": 7}', '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO channels (id, type, provider, name, sender, allowed_senders, credentials, currency, on_unknown, state, version, created_at, updated_at)
VALUES ('` + filledChannel + `', 'EMAIL', 'sendgrid', 'main', 'a@acme.test', '[]', '{}', 'USD', 'HOLD', 'ACTIVE', 3, '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO bulks (id, channel_id, channel_type, channel_version, provider, message_type, priority, content, criteria, request, status, planned, total, created_at)
VALUES ('` + filledBulk + `', '` + filledChannel + `', 'EMAIL', 3, 'sendgrid', 'MARKETING', 'NORMAL', '{}', '{}', '{"message_data": {"metadata": {"a": 1}}}', 'PROCESSING', true, 1, '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO messages (id, channel_id, channel_type, provider, recipient, message_type, priority, content, status, keyed, created_at, updated_at)
VALUES ('` + filledSingle + `', '` + filledChannel + `', 'EMAIL', 'sendgrid', 'x@example.com', 'TRANSACTIONAL', 'HIGH', '{"subject": "s", "content": "t"}', 'QUEUED', true, '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO messages (id, bulk_id, seq, lead_id, channel_id, channel_type, provider, recipient, message_type, priority, status, created_at, updated_at)
VALUES ('` + filledPlanned + `', '` + filledBulk + `', 0, '` + filledLead + `', '` + filledChannel + `', 'EMAIL', 'sendgrid', 'ann@example.com', 'MARKETING', 'NORMAL', 'PENDING', '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO attempts (message_id, n, part, outcome, http_status, code, started_at, ended_at)
VALUES ('` + filledSingle + `', 1, 0, 'retry', 503, '', '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:06+00:00')`,
	`INSERT INTO leads (id, first_name, first_name_fold, phone, phone_fold, search_text, tags, tags_fold, created_at, updated_at)
VALUES ('` + filledSpelled + `', 'José', 'josé', '+1 (415) 555-0101', '+1 (415) 555-0101', 'josé', '[" Gold "]', '[" gold "]', '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO suppressions (id, type, address, address_hash, reason, transactional, marketing, notification, created_at)
VALUES ('00000000-0000-7000-8000-000000000007', 'SMS', '+5215512345678', 'HASH', 'unsubscribed', false, true, true, '2025-01-02 03:04:05+00:00'),
       ('00000000-0000-7000-8000-000000000008', 'SMS', '+551187654321', 'HASH', 'bounced', true, true, true, '2025-01-02 03:04:05+00:00'),
       ('00000000-0000-7000-8000-000000000009', 'SMS', '+551131234567', 'HASH', 'complained', true, true, true, '2025-01-02 03:04:05+00:00')`,
	`INSERT INTO api_keys (id, name, hash, scopes, created_at) VALUES ('k1', 'first', 'HASH', 'send', '2025-01-02 03:04:05+00:00')`,
}

// migrateTo applies the migrations up to a version.
func migrateTo(t *testing.T, db *sql.DB, dialect string, version int64) {
	t.Helper()
	files, err := migrations.For(dialect)
	must(t, err)
	d := map[string]goose.Dialect{"postgres": goose.DialectPostgres, "sqlite": goose.DialectSQLite3}[dialect]
	p, err := goose.NewProvider(d, db, files)
	must(t, err)
	_, err = p.UpTo(context.Background(), version)
	must(t, err)
}

// A database that the previous version filled is migrated, and this version reads and continues what it finds there.
func TestMigrationsOfAFilledDatabase(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		db := storetest.Raw(t, url)
		s := storetest.Connect(t, url, storetest.Options{Sealer: storetest.Sealer(t)})
		migrateTo(t, db, s.Dialect(), filledVersion)
		hash := strings.Repeat("ab", 32)
		for _, statement := range fillSQL {
			literal := map[string]string{"postgres": `'\x` + hash + `'`, "sqlite": `x'` + hash + `'`}[s.Dialect()]
			_, err := db.ExecContext(t.Context(), strings.ReplaceAll(statement, "'HASH'", literal))
			must(t, err)
		}
		applied, err := s.Migrate(t.Context())
		must(t, err)
		must(t, s.CheckSchema(t.Context()))
		if len(applied) == 0 || slices.ContainsFunc(applied, func(name string) bool { return strings.HasPrefix(name, "00005") }) {
			t.Errorf("applied %v after version %d", applied, filledVersion)
		}
		must(t, s.RunBackfills(t.Context(), records.Backfills()))
		checkFilled(t, s)
	})
}

// checkFilled reads the rows of fillSQL and sends their messages.
func checkFilled(t *testing.T, s *storetest.Store) {
	t.Helper()
	ctx := t.Context()
	l, err := s.Lead(ctx, uuid.MustParse(filledLead))
	must(t, err)
	if l.FirstName != "Ann" || l.Email != "Ann@example.com" || !slices.Equal(l.Tags, []string{"VIP"}) || len(l.CustomFields) != 1 || l.CreatedAt.Year() != 2025 {
		t.Errorf("lead %+v", l)
	}
	m, attempts, err := s.Message(ctx, uuid.MustParse(filledSingle))
	must(t, err)
	if m.Content == nil || m.Content.Text != "t" || !m.Keyed || len(attempts) != 1 || attempts[0].HTTPStatus != 503 {
		t.Errorf("message %+v with attempts %+v", m, attempts)
	}
	b, err := s.Bulk(ctx, uuid.MustParse(filledBulk))
	must(t, err)
	if b.Total != 1 || !b.Planned || b.ChannelVersion != 3 || b.Currency != "USD" || b.Name != "" || b.PlannedAt != nil {
		t.Errorf("bulk %+v", b)
	}
	checkSpelled(t, s)
	if k, err := s.APIKey(ctx, "k1"); err != nil || k.Name != "first" {
		t.Errorf("key %+v, %v", k, err)
	}
	loaded, err := s.LoadAndClaim(ctx, delivery.Claim{ID: uuid.MustParse(filledPlanned), Token: uuid.New(), TTL: time.Minute, Most: 3})
	must(t, err)
	if !loaded.Claimed || loaded.Lead == nil || loaded.Lead.FirstName != "Ann" || loaded.ChannelVersion != 3 {
		t.Fatalf("loaded %+v", loaded)
	}
	if !storetest.Settle(t, s, delivery.Row{ID: loaded.Message.ID, Token: loaded.ClaimToken}.Sent(0)) {
		t.Error("the claim is not in force")
	}
	if done, err := s.Finish(ctx, b.ID); !done || err != nil {
		t.Errorf("the bulk is not finished: %v, %v", done, err)
	}
	if got, err := s.Bulk(ctx, b.ID); err != nil || got.Status != bulk.Completed {
		t.Errorf("bulk %+v, %v", got, err)
	}
}

// checkSpelled finds what an earlier version stored as it was spelled: a lead by its number, its tag and its name without accents,
// and suppressions of numbers of an earlier numbering plan.
func checkSpelled(t *testing.T, s *storetest.Store) {
	t.Helper()
	condition := func(field, operator string, value any) map[string]any {
		return map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": field, "operator": operator, "value": value}}}}
	}
	for _, settings := range []map[string]any{
		condition("phone", "equals", "+14155550101"), condition("phone", "contains", "555-0101"), condition("tags", "contains", "gold"),
		condition("first_name", "equals", "JOSÉ"), {"search_keyword": "jose"}, {"search_keyword": "josé 4155550101"},
	} {
		got := storetest.ResolveAll(t, s, storetest.ParseSettings(t, settings, time.Now()), 10)
		if len(got) != 1 || got[0].String() != filledSpelled {
			t.Errorf("%v finds %v", settings, got)
		}
	}
	for address, want := range map[string]message.Reason{"+525512345678": message.Unsubscribed, "+5511987654321": message.SuppressedBounce} {
		hash := message.HashAddress(address)
		found, err := s.Suppressed(t.Context(), message.SMS, message.Marketing, []message.Hash{hash})
		must(t, err)
		if found[hash] != want {
			t.Errorf("%s: suppressed %q, want %q", address, found[hash], want)
		}
	}
	list, err := s.ListSuppressions(t.Context(), message.SuppressionFilter{Type: message.SMS}, uuid.Nil, 10)
	must(t, err)
	if len(list) != 5 {
		t.Errorf("%d suppressions, want the three of the earlier version and two copies", len(list))
	}
}

// Every migration can be undone and applied again.
func TestMigrationsGoBothWays(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, storetest.Options{})
		db := storetest.Raw(t, url)
		files, err := migrations.For(s.Dialect())
		must(t, err)
		p, err := goose.NewProvider(map[string]goose.Dialect{"postgres": goose.DialectPostgres, "sqlite": goose.DialectSQLite3}[s.Dialect()], db, files)
		must(t, err)
		_, err = p.DownTo(t.Context(), 0)
		must(t, err)
		if err := s.CheckSchema(t.Context()); err == nil {
			t.Error("an empty database passes as current")
		}
		_, err = s.Migrate(t.Context())
		must(t, err)
		must(t, s.CheckSchema(t.Context()))
	})
}
