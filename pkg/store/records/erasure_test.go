package records_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// An erased lead's messages hold nothing of the lead in any state, and those that had not left yet end.
func TestFaultErasureInEveryState(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		lead := storetest.Annabel(t, s)
		type ends struct {
			status   message.Status
			reason   message.Reason
			unknowns int
			part     int
			waits    bool
			want     message.Status
			why      message.Reason
		}
		rows := map[uuid.UUID]ends{}
		for _, e := range []ends{
			{message.Scheduled, "", 0, 0, true, message.Skipped, message.Erased},
			{message.Pending, "", 0, 0, false, message.Skipped, message.Erased},
			{message.Queued, "", 0, 0, true, message.Skipped, message.Erased},
			{message.Pending, "", 1, 0, false, message.Unknown, message.Erased}, // an earlier attempt may have delivered it
			{message.Queued, "", 0, 1, true, message.Unknown, message.Erased},   // its first part went out
			{message.Sending, "", 0, 0, true, message.Sending, ""},
			{message.Unknown, message.UnknownOutcome, 1, 0, true, message.Unknown, message.UnknownOutcome},
			{message.Unknown, message.UnknownOutcome, 1, 0, false, message.Unknown, message.UnknownOutcome},
			{message.Sent, "", 0, 1, false, message.Sent, ""},
			{message.Failed, message.RecipientRefused, 0, 0, false, message.Failed, message.RecipientRefused},
			{message.Skipped, message.Unsubscribed, 0, 0, false, message.Skipped, message.Unsubscribed},
			{message.Cancelled, message.WasCancelled, 0, 0, false, message.Cancelled, message.WasCancelled},
			{message.Bounced, "", 0, 1, false, message.Bounced, ""},
		} {
			m := storetest.InsertSingle(t, s, func(m *message.Message) {
				m.LeadID, m.Recipient, m.Content = lead, storetest.AnnabelsPhone, &message.Content{Text: "Hi Annabel"}
				m.Metadata = []byte(`{"name":"Annabel"}`)
			})
			next := any(nil)
			if e.waits {
				next = time.Now().Add(time.Hour)
			}
			_, err := db.ExecContext(t.Context(), "UPDATE messages SET status = $1, reason = $2, unknowns = $3, part = $4, next_attempt_at = $5 WHERE id = $6",
				string(e.status), string(e.reason), e.unknowns, e.part, next, m.ID.String())
			must(t, err)
			rows[m.ID] = e
		}
		must(t, s.EraseLead(t.Context(), lead))
		for id, e := range rows {
			m, _, err := s.Message(t.Context(), id)
			must(t, err)
			waits := m.NextAttemptAt != nil
			if m.Status != e.want || m.Reason != e.why || waits != (e.status == message.Sending) {
				t.Errorf("%s (unknowns %d, part %d) became %s %q, waits: %t", e.status, e.unknowns, e.part, m.Status, m.Reason, waits)
			}
		}
		if found := storetest.Readable(t, db, "Annabel", storetest.AnnabelsEmail, "4155550123"); found != nil {
			t.Errorf("still readable in %v", found)
		}
		if err := s.EraseLead(t.Context(), lead); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("erased twice: %v", err)
		}
	})
}

// Singles to an erased lead's address that name no lead, or one that does not exist, are emptied. Those of other leads are not.
func TestFaultErasureByAddress(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		us := channel.Channel{
			Key: channel.Key{ID: newID(), Type: message.SMS}, Provider: "twilio", Name: "us", Sender: "+15550000000", Currency: "USD", OnUnknown: channel.Hold,
			State: channel.Active, Region: "US",
		}
		must(t, s.InsertChannel(t.Context(), &us))
		lead, other := storetest.Annabel(t, s), storetest.Annabel(t, s)
		to := func(lead uuid.UUID) uuid.UUID {
			return storetest.InsertSingle(t, s, func(m *message.Message) { m.LeadID, m.Recipient = lead, storetest.AnnabelsPhone }).ID
		}
		without, unknown, others := to(uuid.Nil), to(newID()), to(other)
		must(t, s.EraseLead(t.Context(), lead))
		for id, want := range map[uuid.UUID]string{without: "", unknown: "", others: storetest.AnnabelsPhone} {
			if m, _, err := s.Message(t.Context(), id); err != nil || m.Recipient != want {
				t.Errorf("%+v, %v", m, err)
			}
		}
		must(t, s.EraseLead(t.Context(), other))
		if found := storetest.Readable(t, db, storetest.AnnabelsPhone); found != nil {
			t.Errorf("still readable in %v", found)
		}
	})
}

// A bulk's stored request and criteria lose the address of an erased lead, and nothing else.
func TestFaultErasureInRequests(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		lead := storetest.Annabel(t, s)
		ch := storetest.Channel(t, s, message.Email).Key
		b := &bulk.Bulk{
			ID: newID(), Channel: ch, Provider: "sendgrid", MessageType: message.Marketing, Priority: message.Normal, Status: bulk.Processing,
			Name:     "For " + storetest.AnnabelsEmail,
			Content:  message.Content{Subject: "s", Text: "Write to " + storetest.AnnabelsEmail},
			Criteria: audience.Criteria{Words: []string{"x", storetest.AnnabelsEmail}, Assignees: []string{"keep"}},
			Request: []byte(`{"message_data":{"recipient":"Ann.Erased@Example.com","content":"Write to ` + storetest.AnnabelsEmail + `","metadata":{"of":["` + storetest.AnnabelsEmail + `"]}},` +
				`"bulk_settings":{"search_keyword":"x ` + storetest.AnnabelsEmail + ` y","filters":{"conditions":[{"field":"phone","operator":"equals","value":"(415) 555-0123"}]},"lead_ids":12345678901234567}}`),
			CreatedAt: store.Stamp(time.Now()),
		}
		must(t, s.InsertBulk(t.Context(), b, nil))
		untouched := storetest.InsertBulk(t, s, nil)
		must(t, s.EraseLead(t.Context(), lead))
		got, err := s.Bulk(t.Context(), b.ID)
		must(t, err)
		request := string(got.Request)
		for _, keep := range []string{"Write to " + storetest.AnnabelsEmail, "12345678901234567", "x [erased] y", "equals"} {
			if !strings.Contains(request, keep) {
				t.Errorf("%q is missing in %s", keep, request)
			}
		}
		for _, gone := range []string{"Ann.Erased", "555-0123", `["` + storetest.AnnabelsEmail} {
			if strings.Contains(request, gone) {
				t.Errorf("%q is in %s", gone, request)
			}
		}
		if got.Criteria.Words[1] != "[erased]" || got.Criteria.Assignees[0] != "keep" || got.Content.Text != b.Content.Text || got.Name != "For [erased]" {
			t.Errorf("%+v", got)
		}
		if same, err := s.Bulk(t.Context(), untouched.ID); err != nil || len(same.Request) == 0 {
			t.Errorf("%v", err)
		}
		var criteria string
		must(t, db.QueryRowContext(t.Context(), "SELECT CAST(criteria AS text) FROM bulks WHERE id = $1", b.ID.String()).Scan(&criteria))
		if strings.Contains(criteria, storetest.AnnabelsEmail) {
			t.Error(criteria)
		}
	})
}

// An erasure empties the address of a suppression of the lead's address and of no other, and keeps the rows of bulks to other
// leads with the address. Rows that were settled keep their time of change.
func TestAnErasureTouchesNothingElse(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		lead := storetest.Annabel(t, s)
		suppress := func(typ message.ChannelType, address string) uuid.UUID {
			t.Helper()
			sup := message.Suppression{
				ID: newID(), Type: typ, Address: address, Hash: message.HashAddress(address), Reason: message.Unsubscribed, MessageTypes: message.MessageTypes, CreatedAt: time.Now(),
			}
			must(t, s.PutSuppression(ctx, &sup))
			return sup.ID
		}
		want := map[uuid.UUID]string{
			suppress(message.Email, storetest.AnnabelsEmail): "", suppress(message.Email, "other@example.com"): "other@example.com",
			suppress(message.SMS, storetest.AnnabelsEmail): storetest.AnnabelsEmail,
		}
		b := storetest.InsertBulk(t, s, nil)
		ofBulk := storetest.InsertSingle(t, s, func(m *message.Message) { // its lead was deleted without its row
			m.BulkID, m.LeadID, m.ChannelType, m.Recipient, m.NextAttemptAt = b.ID, newID(), message.Email, storetest.AnnabelsEmail, nil
		})
		old := store.Stamp(time.Now().Add(-time.Hour))
		at := map[message.Status]uuid.UUID{}
		for _, status := range []message.Status{message.Sent, message.Unknown, message.Queued} {
			m := storetest.InsertSingle(t, s, func(m *message.Message) { m.LeadID = lead })
			must(t, s.WithContext(ctx).Exec("UPDATE messages SET status = ?, updated_at = ?, next_attempt_at = NULL WHERE id = ?", string(status), old, m.ID).Error)
			at[status] = m.ID
		}
		must(t, s.EraseLead(ctx, lead))
		list, err := s.ListSuppressions(ctx, message.SuppressionFilter{}, uuid.Nil, 10)
		must(t, err)
		for _, sup := range list {
			if address, ok := want[sup.ID]; !ok || sup.Address != address {
				t.Errorf("suppression of %q, want %q", sup.Address, address)
			}
		}
		if len(list) != len(want) {
			t.Errorf("%d suppressions", len(list))
		}
		if m, _, err := s.Message(ctx, ofBulk.ID); err != nil || m.Recipient != storetest.AnnabelsEmail {
			t.Errorf("%+v, %v", m, err)
		}
		for status, id := range at {
			if m, _, err := s.Message(ctx, id); err != nil || m.Recipient != "" || m.UpdatedAt.Equal(old) != (status != message.Queued) {
				t.Errorf("%s: %+v, %v", status, m, err)
			}
		}
	})
}

// An address is replaced in a stored request in any letter case. A short one is replaced only where it is the whole text.
func TestShortAddressesAreReplacedAsAWhole(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		lead := storetest.Lead(t, s, func(l *message.Lead) { l.Email, l.Phone, l.InstagramID = "Ann.Short@example.com", "", "12345" })
		b := &bulk.Bulk{
			ID: newID(), Channel: storetest.Channel(t, s, message.Email).Key, Status: bulk.Processing, CreatedAt: store.Stamp(time.Now()),
			Request: []byte(`{"message_data":{"metadata":{"short":" 12345 ","inside":"id 12345678","upper":"to ANN.SHORT@EXAMPLE.COM."}}}`),
		}
		must(t, s.InsertBulk(ctx, b, nil))
		upper := *b
		upper.ID, upper.Request = newID(), []byte(`{"bulk_settings":{"search_keyword":"ANN.SHORT@EXAMPLE.COM"}}`)
		must(t, s.InsertBulk(ctx, &upper, nil))
		must(t, s.EraseLead(ctx, lead))
		if got, err := s.Bulk(ctx, upper.ID); err != nil || strings.Contains(string(got.Request), "EXAMPLE") {
			t.Errorf("%s, %v", got.Request, err)
		}
		got, err := s.Bulk(ctx, b.ID)
		must(t, err)
		var request struct {
			Data struct{ Metadata map[string]string } `json:"message_data"`
		}
		must(t, json.Unmarshal(got.Request, &request))
		want := map[string]string{"short": "[erased]", "inside": "id 12345678", "upper": "to [erased]."}
		if !maps.Equal(request.Data.Metadata, want) {
			t.Errorf("%v, want %v", request.Data.Metadata, want)
		}
	})
}
