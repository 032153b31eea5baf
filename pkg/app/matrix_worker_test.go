package app_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"herald/pkg/fault"
	"herald/pkg/message"
)

// workerRows are the rows in which a worker dies, freezes or restarts.
var workerRows = []row{
	{"any worker dies at any moment", func(t *testing.T) string {
		s := faulty(t, plan{})
		s.sim.SetLatency(20 * time.Millisecond)
		n := 6 * size()
		ids := s.load(n)
		fleet := []*process{s.start("worker", "HERALD_WORKER_CONCURRENCY=10"), s.start("worker", "HERALD_WORKER_CONCURRENCY=10")}
		f := s.sendBulk(ids)
		deaths := pick(4, 30)
		for i := range deaths {
			s.reach(f.BulkID, (i+1)*n/(deaths+2)*8/10)
			<-time.After(rand.N(100 * time.Millisecond))
			s.kill(fleet[i%2])
			fleet[i%2] = s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		}
		f = s.over(f.BulkID)
		copies := s.settled(f, n)
		unknowns := s.unknowns()
		if f.Sent != n || unknowns > deaths*10 {
			t.Errorf("%d messages were UNKNOWN after %d deaths with 10 sends in flight, %+v", unknowns, deaths, f)
		}
		return fmt.Sprintf("%d deaths: all sent, %d were UNKNOWN, %d copies", deaths, unknowns, copies)
	}},
	{"2 the planner dies, and the API after its answer", func(t *testing.T) string {
		const n = 5_000 // several pages
		s := faulty(t, plan{})
		api := s.startedAPI
		ids := s.load(n)
		dying := s.start("worker", at(fault.PagePlanned, "kill", 2))
		f := s.sendBulk(ids)
		s.kill(api)
		s.died(dying)
		s.expireLeases()
		if planned := s.number("SELECT CASE WHEN planned THEN 1 ELSE 0 END FROM bulks"); planned != 0 {
			t.Fatal("the plan was over before the planner died")
		}
		died := time.Now()
		s.start("worker")
		s.eventually(time.Minute, "another process goes on", func() bool { return s.number("SELECT total FROM bulks") == n })
		resumed := time.Since(died)
		s.startAPI()
		copies := s.settled(s.over(f.BulkID), n)
		if resumed > quick().Bulk.Lease+30*time.Second {
			t.Errorf("resumed after %s", resumed)
		}
		return fmt.Sprintf("planned on and complete after %.1f s; %d rows, no lead twice, %d copies", resumed.Seconds(), n, copies)
	}},
	{"3 the feeder dies before it enqueues a page", func(t *testing.T) string {
		s, f := dyingWorker(t, "email", fault.PageWalked, size(), 1)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return "fed by another"
	}},
	{"3 the feeder dies after it enqueued a page", func(t *testing.T) string {
		s, f := dyingWorker(t, "email", fault.PageEnqueued, size(), 1)
		copies := s.settled(f, size())
		return fmt.Sprintf("enqueued twice, %d sent, %d copies", f.Sent, copies)
	}},
	{"4 a worker dies before the claim", exactly(fault.MessageLoaded, "0 lost, 0 twice")},
	{"5 a worker dies after claims, resend_once", func(t *testing.T) string {
		s, f := dyingWorker(t, "email", fault.MessageClaimed, size(), 50)
		copies := s.settled(f, size())
		if f.Sent != size() {
			t.Errorf("%+v", f)
		}
		return fmt.Sprintf("all sent, %d copies, %d were UNKNOWN", copies, s.unknowns())
	}},
	{"5 a worker dies after claims, hold", held(fault.MessageClaimed)},
	{"5 a worker dies after the provider's answer, resend_once", func(t *testing.T) string {
		s, f := dyingWorker(t, "email", fault.ProviderAnswered, size(), 50)
		copies := s.settled(f, size())
		if f.Sent != size() || copies == 0 {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("all sent, %d copies, each on record", copies)
	}},
	{"5 a worker dies after the provider's answer, hold", held(fault.ProviderAnswered)},
	{"6 a worker dies before it counts an outcome", exactly(fault.MessageSettled, "counts exact, no second send")},
	{"6 a worker dies before it acknowledges a task", exactly(fault.MessageCounted, "counts exact, no second send")},
	{"8 a worker freezes before it sends, and wakes late", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		sleeper := s.start("worker", "HERALD_WORKER_CONCURRENCY=1", at(fault.MessageClaimed, "stop", 10))
		f := s.sendBulkOf("sms", ids)
		s.frozen(sleeper)
		s.expireLeases()
		s.start("worker")
		f = s.over(f.BulkID)
		if *long {
			<-time.After(3 * time.Minute)
		}
		sleeper.thaw()
		s.eventually(time.Minute, "the late worker gives up its claim", func() bool {
			return s.unknowns() == 1 && s.metric(sleeper, "go_goroutines") > 0 &&
				strings.Contains(sleeper.log.String(), `"fenced":true`)
		})
		if copies := s.settled(f, size()); copies != 0 || f.Unknown != 1 || s.sim.Report().Accepted != int64(size()-1) {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return "the late send did not happen"
	}},
	{"8 a worker freezes before it records, and wakes late", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		sleeper := s.start("worker", "HERALD_WORKER_CONCURRENCY=1", at(fault.ProviderAnswered, "stop", 10))
		f := s.sendBulk(ids)
		s.frozen(sleeper)
		s.expireLeases()
		s.start("worker")
		f = s.over(f.BulkID)
		sleeper.thaw()
		s.eventually(time.Minute, "the late outcome is kept as evidence", func() bool {
			return s.number("SELECT count(*) FROM attempts WHERE outcome = 'late'") == 1
		})
		copies := s.settled(f, size())
		if again := s.over(f.BulkID); again.Sent != f.Sent || copies > 1 || f.Sent != size() {
			t.Errorf("%d second copies, %+v, then %+v", copies, f, again)
		}
		return fmt.Sprintf("the late outcome is fenced; %d copy, on record", copies)
	}},
	{"9 workers restart one after the other", func(t *testing.T) string {
		s := faulty(t, plan{})
		s.sim.SetLatency(50 * time.Millisecond)
		n := 4 * size()
		ids := s.load(n)
		fleet := []*process{s.start("worker", "HERALD_WORKER_CONCURRENCY=10"), s.start("worker", "HERALD_WORKER_CONCURRENCY=10")}
		f := s.sendBulk(ids)
		for i := range 4 {
			s.reach(f.BulkID, (i+1)*n/10)
			s.terminate(fleet[i%2])
			fleet[i%2] = s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		}
		f = s.over(f.BulkID)
		if copies := s.settled(f, n); copies != 0 || f.Sent != n || s.unknowns() != 0 {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return "4 restarts, 0 UNKNOWN"
	}},
	{"16 a message ends every process that renders it", poison},
}

// dyingWorker sends a bulk while a process dies at a point, and lets a second worker bring it to its end.
func dyingWorker(t *testing.T, typ, point string, n, when int, env ...string) (*system, figures) {
	s := faulty(t, plan{})
	ids := s.load(n)
	dying := s.start("worker", append(env, at(point, "kill", when))...)
	f := s.sendBulkOf(typ, ids)
	s.died(dying)
	s.expireLeases()
	other := s.start("worker")
	f = s.over(f.BulkID)
	s.noLeak(other)
	return s, f
}

// held is the row of a worker that dies at a point over a channel that never sends a second time.
func held(point string) func(t *testing.T) string {
	return func(t *testing.T) string {
		s, f := dyingWorker(t, "sms", point, size(), 50)
		if copies := s.settled(f, size()); copies != 0 || f.Unknown == 0 || f.Sent+f.Unknown != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("%d sent, %d UNKNOWN and stay so, 0 twice", f.Sent, f.Unknown)
	}
}

// exactly is the row of a worker with one send at a time, which dies at a point where the outcome of the send is known.
func exactly(point, said string) func(t *testing.T) string {
	return func(t *testing.T) string {
		s, f := dyingWorker(t, "email", point, size(), 20, "HERALD_WORKER_CONCURRENCY=1")
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() || f.Unknown != 0 || s.unknowns() != 0 {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return said
	}
}

// poison is a message whose rendering ends the process.
func poison(t *testing.T) string {
	s := faulty(t, plan{})
	ids := s.load(20)
	s.patch("/api/channels/"+textChannel+"/sms", `{"rate_per_second":50}`) // rendered before it is claimed
	f := s.sendBulkOf("sms", ids[:1])
	var deaths int
	for range 2 {
		s.died(s.start("worker", at(fault.MessageRendering, "kill", 1)))
		s.expireLeases()
		deaths++
	}
	s.start("worker")
	f = s.over(f.BulkID)
	if f.Reasons[message.RenderCrashed] != 1 || f.Failed != 1 {
		t.Errorf("%+v", f)
	}
	others := s.over(s.sendBulkOf("sms", ids[1:]).BulkID)
	if copies := s.settled(others, 19); copies != 0 || others.Sent != 19 {
		t.Errorf("%d second copies, %+v", copies, others)
	}
	return fmt.Sprintf("FAILED render_crashed after %d deaths; the third worker lives", deaths)
}
