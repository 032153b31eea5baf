package app_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"herald/pkg/client"
	"herald/pkg/provider/simulator"
)

// rateRows are the rows that measure a rate.
var rateRows = []row{
	{"rates: three workers, singles included and first", rated},
	{"rates: what leaves follows what the provider takes", followed},
	{"rates: a provider that fails takes nothing from the other types", besides},
}

// rated measures what leaves over a channel with a rate while three workers share it and singles come in between.
func rated(t *testing.T) string {
	const perSecond, singles = 50, 4 // a second
	d := pick(10*time.Second, 30*time.Second)
	s := faulty(t, plan{})
	n := int(d.Seconds()+6) * perSecond
	ids := s.load(n)
	s.patch("/api/channels/"+textChannel+"/sms", fmt.Sprintf(`{"rate_per_second":%d}`, perSecond))
	for range 3 {
		s.start("worker")
	}
	f := s.sendBulkOf("sms", ids)
	s.reach(f.BulkID, perSecond)
	begin := time.Now()
	var slowest time.Duration
	tick := time.NewTicker(time.Second / singles)
	defer tick.Stop()
	for i := 0; time.Since(begin) < d; i++ {
		<-tick.C
		asked := time.Now()
		if status, body := s.try("POST", "/api/messaging/send", fmt.Sprintf(`{"message_data":{"recipient":"+1666%07d","content":"c"}}`, i)); status != 200 || !strings.Contains(body, `"SENT"`) {
			t.Errorf("a single: %d %s", status, body)
		}
		slowest = max(slowest, time.Since(asked))
	}
	end := time.Now()
	all, alone := 0, 0
	for _, a := range s.sim.Accepted("") {
		if a.At.After(begin) && a.At.Before(end) {
			all++
			if strings.HasPrefix(a.Recipient, "+1666") {
				alone++
			}
		}
	}
	rate := float64(all) / end.Sub(begin).Seconds()
	if rate < perSecond*0.95 || rate > perSecond*1.05 {
		t.Errorf("%.1f a second left over a channel of %d", rate, perSecond)
	}
	f = figuresOf(must[client.Bulk](s)(s.api.CancelBulk(t.Context(), f.BulkID)))
	s.settled(s.over(f.BulkID), n)
	return fmt.Sprintf("%.1f a second of %d, %d singles among them, the slowest %d ms", rate, perSecond, alone, slowest.Milliseconds())
}

// followed measures what leaves over a channel without a rate to a provider that takes no more than its own.
func followed(t *testing.T) string {
	const allowed = 60
	d := pick(10*time.Second, time.Minute)
	s := faulty(t, plan{})
	n := int(d.Seconds()+15) * allowed
	ids := s.load(n)
	s.start("worker")
	s.start("worker")
	s.sim.SetLimit(simulator.SendGrid, allowed)
	f := s.sendBulk(ids)
	s.reach(f.BulkID, 3*allowed)
	accepted, refused := s.sim.Report().Accepted, s.number("SELECT count(*) FROM attempts")
	begin := time.Now()
	<-time.After(d)
	rate := float64(s.sim.Report().Accepted-accepted) / time.Since(begin).Seconds()
	refused = s.number("SELECT count(*) FROM attempts") - refused
	if rate < allowed/2 {
		t.Errorf("%.1f a second left, the provider takes %d", rate, allowed)
	}
	s.sim.SetLimit(simulator.SendGrid, 0)
	f = s.over(f.BulkID)
	if copies := s.settled(f, n); copies != 0 || f.Sent != n || s.number("SELECT count(*) FROM messages WHERE attempt <> 1") != 0 {
		t.Errorf("%d second copies, %+v", copies, f)
	}
	return fmt.Sprintf("%.1f a second of %d, %d refusals in %s, no attempt used", rate, allowed, refused, d)
}

// besides measures what leaves by SMS while every email fails, against what leaves when all is well.
func besides(t *testing.T) string {
	const perSecond = 60
	d := pick(6*time.Second, 30*time.Second)
	s := faulty(t, plan{})
	n := int(d.Seconds()+8) * 2 * perSecond
	ids := s.load(n)
	s.patch("/api/channels/"+textChannel+"/sms", fmt.Sprintf(`{"rate_per_second":%d}`, perSecond))
	s.start("worker")
	s.start("worker")
	f := s.sendBulkOf("sms", ids)
	s.reach(f.BulkID, perSecond)
	measure := func() float64 {
		from := s.sim.Report().ByProvider[simulator.Twilio]
		begin := time.Now()
		<-time.After(d)
		return float64(s.sim.Report().ByProvider[simulator.Twilio]-from) / time.Since(begin).Seconds()
	}
	well := measure()
	s.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Hang, Times: 100}, simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle})
	mails := s.sendBulk(ids)
	besides := measure()
	if besides < 0.95*well {
		t.Errorf("%.1f a second while mail fails, %.1f before", besides, well)
	}
	s.sim.Script()
	for _, id := range []string{f.BulkID, mails.BulkID} {
		must[client.Bulk](s)(s.api.CancelBulk(t.Context(), id))
		s.over(id)
	}
	return fmt.Sprintf("%.1f SMS a second while mail hangs and is refused, %.1f before", besides, well)
}
