package store_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func TestLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		now := micro(time.Now())
		full := message.Lead{
			ID: newID(), FirstName: "Zoë", LastName: "O'Hara", Email: "Zoe@Example.com", Phone: "+4712345678", InstagramID: "178414000",
			Company: `50% "Ünits" \ Co`, Title: "CTO", Status: "new", Source: "web", City: "Oslo", State: "Oslo", Country: "NO",
			Timezone: "Europe/Oslo", Language: "nb", AssigneeID: "user-1", Tags: []string{"b", "a", "Import 10/05/25"},
			CustomFields: map[string]any{"plan": "gold", "seats": json.Number("3.50"), "id": json.Number("9007199254740993"), "list": []any{"x", json.Number("1")}, "ok": true}, CreatedAt: now, UpdatedAt: now,
			LastContactedAt: &now,
		}
		bare := message.Lead{ID: newID(), Email: "bare@example.com", CreatedAt: now, UpdatedAt: now}
		must(t, s.InsertLeads(ctx, []message.Lead{full, bare}))
		got, err := s.Lead(ctx, full.ID)
		must(t, err)
		if d := cmp.Diff(&full, got); d != "" {
			t.Error(d)
		}
		_, err = s.UpdateLead(ctx, full.ID, func(l *message.Lead) error {
			l.Tags, l.Company, l.CustomFields = []string{"c", "c"}, "New", nil
			return nil
		})
		must(t, err)
		got, err = s.Lead(ctx, full.ID)
		must(t, err)
		if !slices.Equal(got.Tags, []string{"c"}) || got.Company != "New" || got.CustomFields != nil {
			t.Errorf("after the second write: %+v", got)
		}
		if _, err := s.Lead(ctx, newID()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown lead: %v", err)
		}
		list, err := s.Leads(ctx, uuid.Nil, 10)
		must(t, err)
		if len(list) != 2 || list[0].ID.String() > list[1].ID.String() {
			t.Errorf("list: %d", len(list))
		}
		next, err := s.Leads(ctx, list[0].ID, 10)
		must(t, err)
		if len(next) != 1 || next[0].ID != list[1].ID {
			t.Errorf("next page: %+v", next)
		}
		var match []message.Lead
		must(t, s.MergeLeads(ctx, lead.Batch{
			Importer: newID(), IDs: []uuid.UUID{bare.ID}, Emails: []string{"zoe@example.com"}, Phones: []string{"+4712345678"},
			Merge: func(stored []message.Lead) (created, updated []message.Lead) {
				match = stored
				return nil, nil
			},
		}))
		if len(match) != 2 {
			t.Errorf("matched %d leads, want 2", len(match))
		}
	})
}

func testChannel() channel.Channel {
	return channel.Channel{
		Key: channel.Key{ID: newID(), Type: message.Email}, Provider: "sendgrid", Name: "Mail", Sender: "a@acme.test", SenderName: "Acme",
		AllowedSenders: []string{"*@acme.test"}, Credentials: map[string]channel.Secret{"api_key": channel.NewSecret("SG.very-secret-value")},
		Price: 1000, PriceMedia: 2000, Currency: "USD", RatePerSecond: 2.5, Default: true, OnUnknown: channel.ResendOnce, Region: "NO", State: channel.Active,
	}
}

func TestChannels(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		c := testChannel()
		must(t, s.InsertChannel(ctx, &c))
		got, err := s.Channel(ctx, c.Key)
		must(t, err)
		if d := cmp.Diff(&c, got, cmp.Comparer(func(a, b channel.Secret) bool { return a.Reveal() == b.Reveal() })); d != "" {
			t.Error(d)
		}
		if err := s.InsertChannel(ctx, &c); !message.IsCode(err, message.CodeConflict) {
			t.Errorf("the same key again: %v", err)
		}
		sms := c
		sms.Type = message.SMS
		must(t, s.InsertChannel(ctx, &sms)) // one id, another type
		if _, err := s.DefaultChannel(ctx, message.InstagramDM); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("no default: %v", err)
		}
		def, err := s.DefaultChannel(ctx, message.SMS)
		must(t, err)
		if def.Key != sms.Key {
			t.Errorf("default is %v", def.Key)
		}
		must(t, s.PauseChannel(ctx, c.Key, got.Version-1, "an older key"))
		if got, err := s.Channel(ctx, c.Key); err != nil || got.State != channel.Active {
			t.Errorf("paused for what was true before its change: %v, %v", got, err)
		}
		must(t, s.PauseChannel(ctx, c.Key, got.Version, "dead key"))
		got, err = s.Channel(ctx, c.Key)
		must(t, err)
		if got.State != channel.Paused || got.StateReason != "dead key" {
			t.Errorf("state %s %q", got.State, got.StateReason)
		}
		first, err := s.Channels(ctx, channel.Key{}, 1)
		must(t, err)
		rest, err := s.Channels(ctx, first[0].Key, 10)
		must(t, err)
		if len(first) != 1 || len(rest) != 1 || rest[0].Type != message.SMS {
			t.Errorf("pages: %v %v", first, rest)
		}
	})
}

// A sealed credential must not open in another row: a copy of it there is of no use.
func TestCredentialsAreSealed(t *testing.T) {
	url := testenv.Database(t, testenv.SQLite)
	c := testChannel()
	s := open(t, url)
	must(t, s.InsertChannel(t.Context(), &c))
	other := open(t, url) // another master key
	if _, err := other.Channel(t.Context(), c.Key); err == nil {
		t.Error("opened with another key")
	}
}
