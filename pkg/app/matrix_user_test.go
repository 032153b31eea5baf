package app_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
)

// userRows are the rows in which a user changes what is under way.
var userRows = []row{
	{"15 a user pauses and resumes", func(t *testing.T) string {
		s := faulty(t, plan{env: []string{"HERALD_FEED_WINDOW=50"}})
		s.sim.SetLatency(20 * time.Millisecond)
		ids := s.load(size())
		s.start("worker", "HERALD_WORKER_CONCURRENCY=5")
		f := s.sendBulk(ids)
		more := 0
		for _, share := range []int{2, 5} {
			s.reach(f.BulkID, size()*share/10)
			before := s.sim.Report().Accepted
			f = figuresOf(must[client.Bulk](s)(s.api.PauseBulk(t.Context(), f.BulkID)))
			s.stands(f.BulkID)
			if more = int(s.sim.Report().Accepted - before); more > 50 {
				t.Errorf("%d messages left after the pause, the window is 50", more)
			}
			f = figuresOf(must[client.Bulk](s)(s.api.ResumeBulk(t.Context(), f.BulkID)))
		}
		f = s.over(f.BulkID)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("%d sends after a pause over a window of 50; exact", more)
	}},
	{"15 a user cancels", func(t *testing.T) string {
		s := faulty(t, plan{env: []string{"HERALD_FEED_WINDOW=50"}})
		s.sim.SetLatency(20 * time.Millisecond)
		ids := s.load(size())
		s.start("worker", "HERALD_WORKER_CONCURRENCY=5")
		f := s.sendBulk(ids)
		s.reach(f.BulkID, size()/3)
		before := s.sim.Report().Accepted
		f = figuresOf(must[client.Bulk](s)(s.api.CancelBulk(t.Context(), f.BulkID)))
		f = s.over(f.BulkID)
		more := int(s.sim.Report().Accepted - before)
		if copies := s.settled(f, size()); copies != 0 || f.Status != "CANCELLED" || more > 50 || int(f.Reasons["cancelled"]) != f.Failed || f.Failed == 0 {
			t.Errorf("%d second copies, %d more, %+v", copies, more, f)
		}
		return fmt.Sprintf("%d sent, %d cancelled, %d after the request", f.Sent, f.Failed, more)
	}},
	{"17 a channel is deleted on another process", channelDeleted},
	{"18 leads are erased at each step of a bulk", erased},
}

// channelDeleted deletes a channel over one API process while another one has it cached, and behind the back of a running bulk.
func channelDeleted(t *testing.T) string {
	s := faulty(t, plan{})
	ids := s.load(40)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=2")
	other := *s // with an API of its own
	other.startAPI()
	single := fmt.Sprintf(`{"sender_identifier":%q,"sender_type":"sms","message_data":{"recipient":"+15550009999","content":"c"}}`, textChannel)
	if status, body := other.try("POST", "/api/messaging/send", single); status != 200 { // it has the channel cached now
		t.Fatalf("%d %s", status, body)
	}
	if status, body := s.try("DELETE", "/api/channels/"+textChannel+"/sms", ""); status != 204 {
		t.Fatalf("%d %s", status, body)
	}
	for _, body := range []string{single, s.order("sms", ids)} {
		if status, answer := other.try("POST", "/api/messaging/send", body); status != 404 && status != 422 {
			t.Errorf("accepted over a deleted channel: %d %s", status, answer)
		}
	}
	if n := s.number("SELECT count(*) FROM bulks"); n != 0 {
		t.Errorf("%d bulks", n)
	}
	s.sim.SetLatency(200 * time.Millisecond)
	f := s.sendBulk(ids)
	s.reach(f.BulkID, 2)
	s.change("DELETE FROM channels WHERE id = $1 AND type = 'EMAIL'", mailChannel)
	f = s.over(f.BulkID)
	if f.Sent+int(f.Reasons[message.ChannelDeleted]) != 40 || f.Reasons[message.ChannelDeleted] == 0 {
		t.Errorf("%+v", f)
	}
	if status, body := s.try("GET", "/api/messaging/bulk", ""); status != 200 {
		t.Errorf("the list of bulks: %d %s", status, body)
	}
	return fmt.Sprintf("not accepted over it; of a bulk under way %d were sent, %d FAILED channel_deleted", f.Sent, f.Reasons[message.ChannelDeleted])
}

// erased erases leads while a bulk to them is planned, fed, sent, resent and cancelled.
func erased(t *testing.T) string {
	s := faulty(t, plan{})
	n := pick(400, 3_000)
	ids := s.load(n)
	s.sim.SetLatency(20 * time.Millisecond)
	s.sim.Script(simulator.Rule{Recipient: "7@", Fault: simulator.ErrorAfter, Times: n / 20}, simulator.Rule{Recipient: "3@", Fault: simulator.Unavailable, Times: n / 20})
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	f := s.sendBulk(ids)
	gone := ids[:n/2]
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for _, id := range gone[part*len(gone)/4 : (part+1)*len(gone)/4] {
				if status, body := s.try("DELETE", "/api/leads/"+id, ""); status != 204 {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
	wg.Wait()
	f = s.over(f.BulkID)
	s.settledErased(f, n)
	left := s.number(`SELECT count(*) FROM messages WHERE lead_id = ANY($1::uuid[]) AND (recipient <> '' OR address_hash IS NOT NULL OR content IS NOT NULL)`, gone)
	if left != 0 || s.number("SELECT count(*) FROM leads WHERE id = ANY($1::uuid[])", gone) != 0 {
		t.Errorf("%d messages still name an erased lead", left)
	}
	return fmt.Sprintf("%d leads erased under way: %d of %d sent, %d SKIPPED erased, none readable", len(gone), f.Sent, n, f.Reasons[message.Erased])
}

// settledErased compares a bulk with its rows where erased ones have no recipient. Leads that were erased before they were planned
// are not among them.
func (s *system) settledErased(f figures, n int) {
	s.t.Helper()
	if open := s.number("SELECT count(*) FROM messages WHERE status IN ('PENDING', 'QUEUED', 'SENDING')"); open != 0 || f.Total > n || f.Sent+f.Failed != f.Total {
		s.t.Errorf("%d open messages, %+v", open, f)
	}
	if sent := s.number("SELECT count(*) FROM messages WHERE status = 'SENT'"); sent != f.Sent {
		s.t.Errorf("%d SENT, the figures say %d", sent, f.Sent)
	}
	for who, times := range s.sim.Report().Repeated {
		if times > 2 {
			s.t.Errorf("%s was called %d times", who, times)
		}
	}
}
