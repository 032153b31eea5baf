package app_test

import (
	"fmt"
	"testing"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
)

const directChannel = "0190a000-0000-7000-8000-000000000003"

// loadDirect makes the channel for direct messages, with a rate (0: none), and n leads with Instagram ids. It returns their
// ids.
func (s *system) loadDirect(n int, perSecond float64) []string {
	s.t.Helper()
	ch := client.NewChannel{
		ID: directChannel, Type: "instagram_dm", Name: "IG", Sender: "17841400000000000", Credentials: map[string]string{"access_token": "secret"},
	}
	if ch.Default = true; perSecond > 0 {
		ch.RatePerSecond = &perSecond
	}
	must[client.Channel](s)(s.api.CreateChannel(s.t.Context(), ch))
	ids := make([]string, n)
	for i := range ids {
		var l client.NewLead
		l.InstagramID = instagramID(i)
		ids[i] = must[client.Lead](s)(s.api.CreateLead(s.t.Context(), l)).ID
	}
	return ids
}

func instagramID(i int) string { return fmt.Sprintf("178414111111%05d", i) }

// begin sends a bulk and does not wait for it.
func (s *system) begin(typ string, ids []string) figures {
	s.t.Helper()
	return figuresOf(must[client.Bulk](s)(s.api.SendBulk(s.t.Context(), s.request(typ, ids), client.Waiting(0))))
}

// channel returns a channel as it is stored.
func (s *system) channel(id, typ string) *client.Channel {
	s.t.Helper()
	return must[client.Channel](s)(s.api.Channel(s.t.Context(), id, message.ChannelType(typ)))
}

// A provider that refuses every recipient with a code that Herald does not know pauses the channel after twenty of them. The
// other messages wait. After the channel is resumed twenty more are tried before it pauses again, and once the provider accepts,
// the rest is sent.
func TestCaseAnUnknownRefusalOfAll(t *testing.T) {
	t.Parallel()
	const leads, inARow = 60, 20
	const why = "the provider refused 20 recipients in a row with the code http_422: The account is under review"
	s := faulty(t, plan{})
	ids := s.load(leads)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=1") // no other call is in flight when the channel pauses
	s.sim.Script(simulator.Rule{Refusal: &simulator.Refusal{Status: 422, Text: "The account is under review"}})
	f := s.begin("email", ids)
	for failed := inARow; failed < leads; failed += inARow {
		s.eventually(time.Minute, fmt.Sprintf("the channel is paused after %d refusals", failed), func() bool {
			now, ok := s.look(f.BulkID)
			f = now
			return ok && f.Channel != nil && f.Channel.State == "PAUSED" && f.Failed >= failed
		})
		if ch := s.channel(mailChannel, "email"); ch.State != "PAUSED" || ch.StateReason == nil || *ch.StateReason != why {
			t.Errorf("the channel: %+v", ch)
		}
		if f.Failed != failed || f.Pending != leads-failed || f.Reasons[message.ProviderRefused] != int64(failed) {
			t.Errorf("%+v, want %d failed", f, failed)
		}
		if failed+inARow == leads {
			s.sim.Script()
		}
		s.patch("/api/channels/"+mailChannel+"/email", `{"state":"ACTIVE"}`)
	}
	f = s.over(f.BulkID)
	if copies := s.settled(f, leads); copies != 0 || f.Sent != inARow || f.Failed != leads-inARow || f.Status != "COMPLETED" {
		t.Errorf("%d second copies, %+v", copies, f)
	}
}

// What Meta refuses for one recipient fails that one. The channel stays active and the others are sent.
func TestCaseMetaRefusesOneRecipient(t *testing.T) {
	t.Parallel()
	const leads = 6
	s := faulty(t, plan{})
	ids := s.loadDirect(leads, 0)
	s.start("worker")
	for code, c := range map[string]struct {
		refusal simulator.Refusal
		reason  message.Reason
	}{
		"10/2018108":  {simulator.Refusal{Code: 10, Subcode: 2018108, Text: "This person is not receiving messages"}, message.RecipientRefused},
		"200/1545041": {simulator.Refusal{Code: 200, Subcode: 1545041, Text: "This person isn't available"}, message.RecipientRefused},
		"10/99":       {simulator.Refusal{Code: 10, Subcode: 99, Text: "unlisted"}, message.ProviderRefused},
	} {
		s.sim.Script(simulator.Rule{Recipient: instagramID(2), Refusal: &c.refusal})
		f := s.over(s.begin("instagram_dm", ids).BulkID)
		if f.Sent != leads-1 || f.Failed != 1 || f.Reasons[c.reason] != 1 {
			t.Errorf("%s: %+v", code, f)
		}
		if ch := s.channel(directChannel, "instagram_dm"); ch.State != "ACTIVE" {
			t.Errorf("%s: the channel: %+v", code, ch)
		}
	}
}

// "Not now" for one message uses that message's attempts. It does not slow the others, which keep to the channel's rate.
func TestCaseMetaIsNotReadyForOneMessage(t *testing.T) {
	t.Parallel()
	const leads, within = 60, 20 * time.Second
	timing := quick()
	timing.Delivery.Backoff = 50 * time.Millisecond // all attempts fall into the time in which the others are sent
	s := faulty(t, plan{env: quickly(t, timing)})
	ids := s.loadDirect(leads, 5)
	s.start("worker")
	s.sim.Script(simulator.Rule{Recipient: instagramID(2), Refusal: &simulator.Refusal{Code: 2, Text: "Service temporarily unavailable"}})
	f := s.begin("instagram_dm", ids)
	s.eventually(within, fmt.Sprintf("%d of %d are sent", leads-1, leads), func() bool { return s.sim.Report().Accepted == leads-1 })
	f = s.over(f.BulkID)
	if f.Sent != leads-1 || f.Failed != 1 || f.Reasons[message.ProviderUnavailable] != 1 || f.Status != "COMPLETED" {
		t.Errorf("%+v", f)
	}
	const attempts = "SELECT attempt FROM messages WHERE bulk_id = $1 AND status = 'FAILED'"
	if n := s.number(attempts, f.BulkID); n != 8 {
		t.Errorf("%d attempts", n)
	}
	if ch := s.channel(directChannel, "instagram_dm"); ch.State != "ACTIVE" {
		t.Errorf("the channel: %+v", ch)
	}
}
