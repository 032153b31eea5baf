package app_test

import (
	"fmt"
	"testing"
	"time"

	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// providerRows are the rows in which the provider fails.
var providerRows = []row{
	{"12 the provider refuses with 429 for a while", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(2 * size())
		s.start("worker")
		s.start("worker")
		s.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle})
		f := s.sendBulk(ids)
		s.eventually(time.Minute, "the figures name the channel as throttled", func() bool {
			f, ok := s.look(f.BulkID)
			return ok && f.Channel != nil && f.Channel.State == "THROTTLED"
		})
		<-time.After(pick(4*time.Second, time.Minute))
		s.sim.Script()
		f = s.over(f.BulkID)
		if copies := s.settled(f, 2*size()); copies != 0 || f.Sent != 2*size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		if n := s.number("SELECT count(*) FROM messages WHERE attempt <> 1"); n != 0 {
			t.Errorf("%d messages used an attempt on a refusal", n)
		}
		return fmt.Sprintf("all sent, no attempt used, %d refusals", s.number("SELECT count(*) FROM attempts"))
	}},
	{"12 the provider fails before and after it accepts", func(t *testing.T) string {
		return badProvider(t, "email", 20,
			simulator.Rule{Recipient: "3@", Fault: simulator.ServerError, Times: 10}, // every tenth: the circuit breaker stays closed
			simulator.Rule{Recipient: "7@", Fault: simulator.ErrorAfter, Times: 10})
	}},
	{"12 the provider answers with nonsense, or breaks off", func(t *testing.T) string {
		return badProvider(t, "sms", 24, spread(24, simulator.HTML, simulator.Empty, simulator.Reset, simulator.ResetAfter)...)
	}},
	{"12 the provider hangs", func(t *testing.T) string {
		return badProvider(t, "email", 8,
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Hang, Times: 4},
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.HangAfter, Times: 4})
	}},
	{"12 the provider cannot be reached", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		nowhere := "http://" + testenv.RefusedAddress(t)
		s.patch("/api/channels/"+mailChannel+"/email", fmt.Sprintf(`{"base_url":%q,"credentials":{"api_key":"SG.secret"}}`, nowhere))
		s.start("worker")
		f := s.sendBulk(ids)
		s.eventually(time.Minute, "the figures name the channel as down", func() bool {
			f, ok := s.look(f.BulkID)
			return ok && f.Channel != nil && f.Channel.State == "DOWN"
		})
		<-time.After(pick(2*time.Second, time.Minute))
		s.patch("/api/channels/"+mailChannel+"/email", `{"base_url":null,"credentials":{"api_key":"SG.secret"}}`)
		f = s.over(f.BulkID)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("all sent; %d calls had been tried", s.number("SELECT count(*) FROM attempts"))
	}},
	{"12 the provider refuses the credentials", func(t *testing.T) string {
		s := faulty(t, plan{})
		s.sim.SetLatency(20 * time.Millisecond)
		ids := s.load(size())
		s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		f := s.sendBulk(ids)
		s.reach(f.BulkID, size()/5)
		s.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Unauthorize})
		s.eventually(time.Minute, "the figures name the paused channel and why", func() bool {
			f, ok := s.look(f.BulkID)
			return ok && f.Channel != nil && f.Channel.State == "PAUSED" && f.Channel.StateReason != nil && f.Failed == 0
		})
		if status, body := s.try("POST", "/api/messaging/send", `{"message_data":{"recipient":"x@example.com","subject":"s","content":"c"}}`); status != 409 {
			t.Errorf("a single over a paused channel: %d %s", status, body)
		}
		s.sim.Script()
		s.patch("/api/channels/"+mailChannel+"/email", `{"state":"ACTIVE"}`)
		f = s.over(f.BulkID)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return "paused with the reason, nobody failed, resumed"
	}},
}

// spread returns a rule for each of n text messages, far apart and with the faults in turn, so that the circuit breaker never
// sees five failures in a row: it would probe the channel at growing intervals.
func spread(n int, faults ...simulator.Fault) []simulator.Rule {
	rules := make([]simulator.Rule, n)
	for i := range rules {
		rules[i] = simulator.Rule{Recipient: number(i * size() / n), Fault: faults[i%len(faults)], Times: 1}
	}
	return rules
}

// badProvider runs a bulk over a provider with faults after which the outcome of a call is unknown.
func badProvider(t *testing.T, typ string, most int, rules ...simulator.Rule) string {
	s := faulty(t, plan{})
	ids := s.load(size())
	s.start("worker", "HERALD_WORKER_CONCURRENCY=50")
	s.sim.Script(rules...)
	f := s.over(s.sendBulkOf(typ, ids).BulkID)
	copies := s.settled(f, size())
	unknowns := s.unknowns()
	if f.Sent+f.Unknown != size() || unknowns == 0 || unknowns > most || copies > most {
		t.Errorf("%d were UNKNOWN, %d copies, %+v", unknowns, copies, f)
	}
	return fmt.Sprintf("%d were UNKNOWN, %d sent, %d copies, each on record", unknowns, f.Sent, copies)
}
