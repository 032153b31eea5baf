package app_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/jackc/pgx/v5"

	"herald/pkg/app"
	"herald/pkg/client"
	"herald/pkg/counters"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/queue"
	"herald/pkg/testenv"
)

// long makes the failure matrix take its time: the intervals of a real deployment where they matter, more leads, more
// deaths.
var long = flag.Bool("faults.long", false, "run the long form of the failure matrix")

// quick is the intervals of the short form. A claim must outlast a slow machine's pauses.
func quick() app.Timing {
	t := app.DefaultTiming()
	t.Delivery.Claim, t.Delivery.Stale, t.Delivery.Watch = 6*time.Second, 3*time.Second, 2*time.Second
	t.Delivery.Backoff, t.Delivery.PausedRetry = 200*time.Millisecond, time.Second
	t.Bulk.Poll, t.Bulk.Lease, t.Bulk.Reconcile = 200*time.Millisecond, 3*time.Second, time.Second
	t.Bulk.Stall, t.Bulk.Retry = time.Second, 200*time.Millisecond
	t.Sweep, t.Clean = 500*time.Millisecond, 2*time.Second
	return t
}

// faulty deploys the programs that can be told where to die, with short intervals.
func faulty(t *testing.T, p plan) *system {
	t.Helper()
	timing, err := json.Marshal(quick())
	if err != nil {
		t.Fatal(err)
	}
	p.programs = faultyBinaries
	if p.database == "" {
		p.database = matrix.cluster.Database(t)
	}
	p.env = append([]string{"HERALD_TIMING=" + string(timing), "HERALD_UNKNOWN_HOLD=1s"}, p.env...)
	return deployAs(t, p)
}

// at is the setting that lets a process die, or freeze, the n-th time that it passes a point.
func at(point, action string, n int) string {
	return fmt.Sprintf("HERALD_FAULT=%s=%s@%d", point, action, n)
}

// try makes a request and returns what came of it; a broken connection is status 0.
func (s *system) try(method, path, body string, headers ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 70*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// look returns how a bulk stands, and whether that could be told.
func (s *system) look(id string) (figures, bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 70*time.Second)
	defer cancel()
	b, err := s.api.Bulk(ctx, id)
	if err != nil {
		return figures{}, false
	}
	return figuresOf(b), true
}

// reach waits until a bulk has sent so many.
func (s *system) reach(id string, sent int) {
	s.t.Helper()
	testenv.Eventually(s.t, 2*time.Minute, fmt.Sprintf("%d messages are sent", sent), func() bool {
		f, ok := s.look(id)
		return ok && f.Sent >= sent
	})
}

// over waits until a bulk is over, whatever answers it gets meanwhile. Its figures always add up.
func (s *system) over(id string) figures {
	s.t.Helper()
	var f figures
	testenv.Eventually(s.t, 4*time.Minute, "the bulk is over", func() bool {
		var ok bool
		f, ok = s.look(id)
		if ok && f.Sent+f.Failed+f.Pending != f.Total {
			s.t.Errorf("the figures do not add up: %+v", f)
		}
		return ok && f.Channel == nil && f.Status != "PAUSED"
	})
	return f
}

// died waits until a process has killed itself.
func (s *system) died(p *process) {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		s.t.Fatalf("%s does not die: %s", p.cmd.Path, p.log)
	}
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		s.t.Fatalf("%s ended otherwise: %v: %s", p.cmd.Path, p.cmd.ProcessState, p.log)
	}
}

// kill ends a process without a goodbye.
func (s *system) kill(p *process) {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// frozen waits until a process has frozen itself.
func (s *system) frozen(p *process) {
	s.t.Helper()
	testenv.Eventually(s.t, time.Minute, "the process freezes", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		_, rest, ok := strings.Cut(string(b), ") ")
		return err == nil && ok && rest[0] == 'T'
	})
	s.t.Cleanup(func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
}

// query asks the database itself.
func query[T any](s *system, to pgx.RowToFunc[T], sql string, args ...any) []T {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, to)
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// number returns the one number that a query asks for.
func (s *system) number(sql string, args ...any) int {
	s.t.Helper()
	return query(s, pgx.RowTo[int], sql, args...)[0]
}

// unknowns returns how many messages were ever UNKNOWN.
func (s *system) unknowns() int {
	s.t.Helper()
	return s.number("SELECT count(*) FROM messages WHERE unknowns > 0")
}

// settled checks what holds after every fault, whatever it was: each recipient has one row and one end; the database,
// the figures and the counters agree; no recipient was accepted more often than once plus the resends that are on
// record; nothing of the bulk is left in Redis. It returns the number of second copies.
func (s *system) settled(f figures, n int) (copies int) {
	s.t.Helper()
	if f.Total != n || f.Sent+f.Failed != n || f.Pending != 0 {
		s.t.Errorf("the figures: %+v, want a total of %d and nothing pending", f, n)
	}
	type row struct {
		Recipient string
		Status    string
		Unknowns  int
	}
	rows := query(s, pgx.RowToStructByPos[row], "SELECT recipient, status, unknowns FROM messages WHERE bulk_id = $1", f.BulkID)
	counts, accepted := map[string]int{}, s.sim.Times()
	for _, r := range rows {
		counts[r.Status]++
		got := accepted[r.Recipient]
		if got > 1+r.Unknowns {
			s.t.Errorf("%s was accepted %d times, and was UNKNOWN %d times", r.Recipient, got, r.Unknowns)
		}
		if got == 0 && r.Status == "SENT" {
			s.t.Errorf("%s is SENT and was never accepted", r.Recipient)
		}
		if got > 0 && r.Status != "SENT" && r.Status != "UNKNOWN" {
			s.t.Errorf("%s is %s and was accepted", r.Recipient, r.Status)
		}
		copies += max(got-1, 0)
	}
	if len(rows) != n || counts["SENT"] != f.Sent || counts["UNKNOWN"] != f.Unknown {
		s.t.Errorf("the ledger has %d rows: %v, the figures say %+v", len(rows), counts, f)
	}
	for status := range counts {
		if st, ok := message.ParseStatus(status); !ok || st.Rank() == 0 {
			s.t.Errorf("%d messages are still %s", counts[status], status)
		}
	}
	s.counted(f)
	s.nothingLeft()
	return copies
}

// counted compares the counters in Redis with a bulk's figures, where Redis has counters: they may be lost with it
// once the bulk is over.
func (s *system) counted(f figures) {
	s.t.Helper()
	c := counters.New(s.rdb, nil)
	defer c.Close()
	id := uuid.MustParse(f.BulkID)
	counts, ok, err := c.Read(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	sent := int64(0)
	for standing, n := range counts.By {
		if status, _, _ := standing.Status(); status.Accepted() {
			sent += n
		}
	}
	if ok && (counts.Settled() != int64(f.Total) || sent != int64(f.Sent)) {
		s.t.Errorf("the counters say %d sent and %d settled, the figures %+v", sent, counts.Settled(), f)
	}
}

// nothingLeft waits until Redis holds no task in any state, not even one that no list knows. A dead worker's tasks are
// found when their lease of 30 seconds is over.
func (s *system) nothingLeft() {
	s.t.Helper()
	testenv.Eventually(s.t, 90*time.Second, "no task is left in Redis", func() bool {
		keys, _, err := s.rdb.Scan(context.Background(), 0, "asynq:{*}:t:*", 100_000).Result()
		if err != nil || len(keys) > 0 {
			return false
		}
		for _, name := range queue.Names() {
			for _, list := range []string{"pending", "active"} {
				if n, err := s.rdb.LLen(context.Background(), "asynq:{"+name+"}:"+list).Result(); err != nil || n > 0 {
					return false
				}
			}
		}
		return true
	})
}

// noLeak checks that a worker at rest has no more goroutines than servers need.
func (s *system) noLeak(p *process) {
	s.t.Helper()
	testenv.Eventually(s.t, time.Minute, "a worker at rest has few goroutines", func() bool { return s.metric(p, "go_goroutines") < 400 })
}

// dyingWorker sends a bulk while a process dies at a point, and lets a second worker bring it to its end.
func dyingWorker(t *testing.T, typ, point string, n, when int, env ...string) (*system, figures) {
	s := faulty(t, plan{})
	ids := s.load(n)
	dying := s.start("worker", append(env, at(point, "kill", when))...)
	f := s.sendBulkOf(typ, ids)
	s.died(dying)
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

// exactly is the row of a worker with one send at a time, which dies at a point where it is known what happened.
func exactly(point, said string) func(t *testing.T) string {
	return func(t *testing.T) string {
		s, f := dyingWorker(t, "email", point, size(), 20, "HERALD_WORKER_CONCURRENCY=1")
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() || f.Unknown != 0 || s.unknowns() != 0 {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return said
	}
}

func size() int {
	if *long {
		return 5_000
	}
	return 300
}

// rows is the failure matrix. Each row deploys what it needs, lets something die, and returns what was seen.
var rows = []struct {
	name string
	run  func(t *testing.T) string
}{
	{"1 the API dies before the commit of a bulk", func(t *testing.T) string {
		s := faulty(t, plan{api: []string{at(fault.BulkInserting, "kill", 1)}})
		ids := s.load(50)
		if status, body := s.try("POST", "/api/messaging/send", s.order("email", ids)); status != 0 {
			t.Fatalf("%d %s", status, body)
		}
		s.died(s.startedAPI)
		s.startAPI()
		s.start("worker")
		if n := s.number("SELECT count(*) FROM bulks"); n != 0 {
			t.Errorf("%d bulks, none was accepted", n)
		}
		s.settled(s.over(s.sendBulk(ids).BulkID), 50)
		return "not accepted; the next request is"
	}},
	{"1 the API dies after the commit, before the answer", func(t *testing.T) string {
		s := faulty(t, plan{api: []string{at(fault.BulkInserted, "kill", 1)}})
		ids := s.load(50)
		if status, body := s.try("POST", "/api/messaging/send", s.order("email", ids)); status != 0 {
			t.Fatalf("%d %s", status, body)
		}
		s.died(s.startedAPI)
		s.start("worker")
		s.startAPI()
		var bulks []string
		for b, err := range s.api.Bulks(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			bulks = append(bulks, b.BulkID)
		}
		if len(bulks) != 1 {
			t.Fatalf("%d bulks", len(bulks))
		}
		if copies := s.settled(s.over(bulks[0]), 50); copies != 0 {
			t.Errorf("%d second copies", copies)
		}
		return "the bulk is on record and is sent, once"
	}},
	{"1 the API is killed under keyed sends that are repeated", keyedSends},
	{"2 the planner dies, and the API after its answer", func(t *testing.T) string {
		const n = 5_000 // several pages
		s := faulty(t, plan{})
		api := s.startedAPI
		ids := s.load(n)
		dying := s.start("worker", at(fault.PagePlanned, "kill", 2))
		f := s.sendBulk(ids)
		s.kill(api)
		s.died(dying)
		if planned := s.number("SELECT CASE WHEN planned THEN 1 ELSE 0 END FROM bulks"); planned != 0 {
			t.Fatal("the plan was over before the planner died")
		}
		died := time.Now()
		s.start("worker")
		testenv.Eventually(t, time.Minute, "another process goes on", func() bool { return s.number("SELECT total FROM bulks") == n })
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
	{"3 enqueueing, and Redis's answers are lost", func(t *testing.T) string {
		redis := testenv.OwnRedis(t)
		proxy := testenv.StartProxy(t, redis.Addr)
		s := faulty(t, plan{redis: "redis://" + proxy.Addr + "/0"})
		ids := s.load(size())
		s.start("worker")
		s.start("worker")
		f := s.sendBulk(ids)
		proxy.LoseAnswers(40)
		f = s.over(f.BulkID)
		proxy.LoseAnswers(0)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("%d answers lost, all sent once", proxy.Lost())
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
	{"7 Asynq archives tasks", func(t *testing.T) string {
		s := faulty(t, plan{})
		s.sim.SetLatency(100 * time.Millisecond)
		ids := s.load(size())
		s.start("worker", "HERALD_WORKER_CONCURRENCY=2")
		f := s.sendBulk(ids)
		s.reach(f.BulkID, 1)
		inspector := asynq.NewInspectorFromRedisClient(s.rdb)
		archived, err := inspector.ArchiveAllPendingTasks("email.normal")
		if err != nil || archived == 0 {
			t.Fatalf("%d archived, %v", archived, err)
		}
		s.sim.SetLatency(0)
		f = s.over(f.BulkID)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		return fmt.Sprintf("%d archived, all brought back", archived)
	}},
	{"8 a worker freezes before it sends, and wakes late", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		sleeper := s.start("worker", "HERALD_WORKER_CONCURRENCY=1", at(fault.MessageClaimed, "stop", 10))
		f := s.sendBulkOf("sms", ids)
		s.frozen(sleeper)
		s.start("worker")
		f = s.over(f.BulkID)
		if *long {
			<-time.After(3 * time.Minute)
		}
		_ = sleeper.cmd.Process.Signal(syscall.SIGCONT)
		testenv.Eventually(t, time.Minute, "the late worker gives up its claim", func() bool {
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
		s.start("worker")
		f = s.over(f.BulkID)
		_ = sleeper.cmd.Process.Signal(syscall.SIGCONT)
		testenv.Eventually(t, time.Minute, "the late outcome is kept as evidence", func() bool {
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
	{"10 Redis is emptied at 10, 50 and 90 %", func(t *testing.T) string {
		s := faulty(t, plan{})
		s.sim.SetLatency(30 * time.Millisecond)
		n := 4 * size()
		ids := s.load(n)
		s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
		f := s.sendBulk(ids)
		for _, share := range []int{1, 5, 9} {
			s.reach(f.BulkID, n*share/10)
			if err := s.rdb.FlushAll(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		flushed := time.Now()
		f = s.over(f.BulkID)
		took := time.Since(flushed)
		if copies := s.settled(f, n); copies != 0 || f.Sent != n || took > time.Minute {
			t.Errorf("%d second copies, %+v, %s after the last loss", copies, f, took)
		}
		return fmt.Sprintf("all sent once, counts exact %.1f s after the last loss", took.Seconds())
	}},
	{"10 Redis dies and comes back empty", func(t *testing.T) string {
		redis := testenv.OwnRedis(t)
		return awayRedis(t, redis, redis.Kill, redis.Start)
	}},
	{"10 Redis freezes", func(t *testing.T) string {
		redis := testenv.OwnRedis(t)
		return awayRedis(t, redis, redis.Freeze, redis.Thaw)
	}},
	{"10 Redis is out of memory", func(t *testing.T) string {
		redis := testenv.OwnRedis(t)
		s := faulty(t, plan{redis: redis.URL})
		limit := func(bytes string) {
			if err := s.rdb.ConfigSet(context.Background(), "maxmemory", bytes).Err(); err != nil {
				t.Fatal(err)
			}
		}
		return away(t, s, func() { limit("1") }, func() { limit("0") })
	}},
	{"11 PostgreSQL restarts at once", func(t *testing.T) string {
		cluster := testenv.StartPostgres(t)
		return awayDatabase(t, plan{database: cluster.Database(t)}, cluster.Restart)
	}},
	{"11 PostgreSQL freezes", func(t *testing.T) string {
		proxy, through := throughProxy(t)
		return awayDatabase(t, plan{database: through}, func() {
			proxy.Freeze()
			<-time.After(pick(4*time.Second, 20*time.Second))
			proxy.Thaw()
		})
	}},
	{"11 PostgreSQL's answers to commits are lost", func(t *testing.T) string {
		proxy, through := throughProxy(t)
		said := awayDatabase(t, plan{database: through}, func() {
			for range 15 {
				proxy.LoseAnswers(2)
				<-time.After(100 * time.Millisecond)
			}
			proxy.LoseAnswers(0)
		})
		return fmt.Sprintf("%d answers lost; %s", proxy.Lost(), said)
	}},
	{"11 PostgreSQL is read-only for ten seconds", readOnly},
	{"11 PostgreSQL's replica takes over", switchOver},
	{"11 PostgreSQL's disk is full", diskFull},
	{"12 the provider refuses with 429 for a while", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(2 * size())
		s.start("worker")
		s.start("worker")
		s.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle})
		f := s.sendBulk(ids)
		testenv.Eventually(t, time.Minute, "the figures name the channel as throttled", func() bool {
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
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.ServerError, Times: 10},
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.ErrorAfter, Times: 10})
	}},
	{"12 the provider answers with nonsense, or breaks off", func(t *testing.T) string {
		return badProvider(t, "sms", 24,
			simulator.Rule{Provider: simulator.Twilio, Fault: simulator.HTML, Times: 6},
			simulator.Rule{Provider: simulator.Twilio, Fault: simulator.Empty, Times: 6},
			simulator.Rule{Provider: simulator.Twilio, Fault: simulator.Reset, Times: 6},
			simulator.Rule{Provider: simulator.Twilio, Fault: simulator.ResetAfter, Times: 6})
	}},
	{"12 the provider hangs", func(t *testing.T) string {
		return badProvider(t, "email", 8,
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Hang, Times: 4},
			simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.HangAfter, Times: 4})
	}},
	{"12 the provider cannot be reached", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		nowhere := fmt.Sprintf("http://127.0.0.1:%d", testenv.FreePort(t))
		s.patch("/api/channels/"+mailChannel+"/email", fmt.Sprintf(`{"base_url":%q,"credentials":{"api_key":"SG.secret"}}`, nowhere))
		s.start("worker")
		f := s.sendBulk(ids)
		testenv.Eventually(t, time.Minute, "the figures name the channel as down", func() bool {
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
		testenv.Eventually(t, time.Minute, "the figures name the paused channel and why", func() bool {
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
	{"14 poison in Redis", func(t *testing.T) string {
		s := faulty(t, plan{})
		ids := s.load(size())
		ctx := context.Background()
		const prefix = "asynq:{email.normal}:"
		put := func(id, msg string) {
			s.rdb.HSet(ctx, prefix+"t:"+id, "msg", msg, "state", "pending", "timeout", 60)
			s.rdb.LPush(ctx, prefix+"pending", id)
		}
		for i := range 20 {
			put(fmt.Sprintf("undecodable-%d", i), "\xff\xff nonsense")
		}
		for i := range 300 {
			s.rdb.LPush(ctx, prefix+"pending", fmt.Sprintf("ghost-%d", i))
		}
		for i := range 50 {
			s.rdb.HSet(ctx, fmt.Sprintf("%st:orphan-%d", prefix, i), "msg", "x", "state", "pending")
			s.rdb.LPush(ctx, prefix+"active", fmt.Sprintf("unleased-%d", i))
		}
		client := asynq.NewClientFromRedisClient(s.rdb)
		for range 20 {
			if _, err := client.Enqueue(asynq.NewTask("unheard-of", []byte("?")), asynq.Queue("email.normal")); err != nil {
				t.Fatal(err)
			}
		}
		w := s.start("worker")
		f := s.over(s.sendBulk(ids).BulkID)
		if copies := s.settled(f, size()); copies != 0 || f.Sent != size() {
			t.Errorf("%d second copies, %+v", copies, f)
		}
		for _, want := range []string{`"kind":"ghost"`, `"kind":"undecodable"`, `"kind":"orphan"`, "unknown kind of task"} {
			if !strings.Contains(w.log.String(), want) && !strings.Contains(w.log.String(), strings.ReplaceAll(want, "unknown kind of task", "payload")) {
				t.Errorf("no alarm with %s", want)
			}
		}
		return "the queue drained, each kind was logged"
	}},
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
	{"16 a message ends every process that renders it", poison},
	{"17 a channel is deleted on another process", channelDeleted},
	{"18 leads are erased at each step of a bulk", erased},
	{"19 rows cannot be decoded", undecodable},
	{"rates: three workers, singles included and first", rated},
	{"rates: what leaves follows what the provider takes", followed},
	{"rates: a provider that fails takes nothing from the other types", besides},
}

func pick[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}

// stands waits until a bulk's messages have stopped to leave.
func (s *system) stands(id string) {
	s.t.Helper()
	last, since := s.sim.Report().Accepted, time.Now()
	testenv.Eventually(s.t, time.Minute, "nothing leaves any more", func() bool {
		if now := s.sim.Report().Accepted; now != last {
			last, since = now, time.Now()
		}
		f, ok := s.look(id)
		return ok && f.Status == "PAUSED" && f.Sent == int(last) && time.Since(since) > 500*time.Millisecond
	})
}

func (s *system) patch(path, body string) {
	s.t.Helper()
	if status, answer := s.try(http.MethodPatch, path, body); status != http.StatusOK {
		s.t.Fatalf("PATCH %s: %d %s", path, status, answer)
	}
}

// badProvider runs a bulk over a provider with faults after which nobody knows what happened.
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

func awayRedis(t *testing.T, redis *testenv.Server, leave, back func()) string {
	return away(t, faulty(t, plan{redis: redis.URL}), leave, back)
}

// away runs a bulk while Redis is gone for a while. Meanwhile singles are delivered, and bulks accepted.
func away(t *testing.T, s *system, leave, back func()) string {
	s.sim.SetLatency(30 * time.Millisecond)
	n := pick(600, 3_000)
	ids := s.load(n)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	f := s.sendBulk(ids)
	s.reach(f.BulkID, n/4)
	leave()
	left := time.Now()
	single := fmt.Sprintf(`{"message_data":{"recipient":"single%d@example.com","subject":"s","content":"c"}}`, 1)
	if status, body := s.try("POST", "/api/messaging/send", single); status != 200 || !strings.Contains(body, `"SENT"`) {
		t.Errorf("a single without Redis: %d %s", status, body)
	}
	second := s.sendBulkOf("sms", ids[:50]) // a bulk is accepted without Redis
	<-time.After(pick(3*time.Second, 30*time.Second) - min(time.Since(left), 3*time.Second))
	back()
	returned := time.Now()
	f, second = s.over(f.BulkID), s.over(second.BulkID)
	took := time.Since(returned)
	if copies := s.settled(f, n); copies != 0 || f.Sent != n || took > time.Minute {
		t.Errorf("%d second copies, %+v, %s after it came back", copies, f, took)
	}
	if copies := s.settled(second, 50); copies != 0 || second.Sent != 50 {
		t.Errorf("%d second copies, %+v", copies, second)
	}
	return fmt.Sprintf("all sent once, exact %.1f s after it came back; singles went on", took.Seconds())
}

// throughProxy returns a proxy to the database server, and the URL of a new database through it.
func throughProxy(t *testing.T) (*testenv.Proxy, string) {
	t.Helper()
	u, err := url.Parse(matrix.cluster.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.StartProxy(t, u.Host)
	u.Host = proxy.Addr
	return proxy, u.String()
}

// awayDatabase runs a bulk while the database misbehaves. Requests get 200 or 503 meanwhile and nothing else.
func awayDatabase(t *testing.T, p plan, misbehave func()) string {
	return awayDatabaseOf(t, p, func(*system) { misbehave() })
}

func awayDatabaseOf(t *testing.T, p plan, misbehave func(*system)) string {
	// A claim lasts as long as in a real deployment: longer than the database is away.
	timing := quick()
	timing.Delivery.Claim, timing.Delivery.Stale = app.DefaultTiming().Delivery.Claim, app.DefaultTiming().Delivery.Stale
	b, err := json.Marshal(timing)
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{"HERALD_TIMING=" + string(b)}
	s := faulty(t, p)
	s.sim.SetLatency(30 * time.Millisecond)
	n := pick(600, 3_000)
	ids := s.load(n)
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	s.start("worker", "HERALD_WORKER_CONCURRENCY=10")
	f := s.sendBulkOf("sms", ids)
	s.reach(f.BulkID, n/4)
	stop, done := make(chan struct{}), make(chan struct{})
	answers := map[int]int{}
	sent := []string{}
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			status, body := s.try("POST", "/api/messaging/send",
				fmt.Sprintf(`{"message_data":{"recipient":"single%d@example.com","subject":"s","content":"c"}}`, i))
			answers[status]++
			if status == 200 {
				var m struct {
					MessageID string `json:"message_id"`
				}
				_ = json.Unmarshal([]byte(body), &m)
				sent = append(sent, m.MessageID)
			} else if status != 503 {
				t.Errorf("%d %s", status, body)
			}
		}
	}()
	misbehave(s)
	<-time.After(500 * time.Millisecond)
	close(stop)
	<-done
	f = s.over(f.BulkID)
	if copies := s.settled(f, n); copies != 0 || f.Sent != n || f.Unknown != 0 {
		t.Errorf("%d second copies, %+v", copies, f)
	}
	if n := s.number("SELECT count(*) FROM messages WHERE id = ANY($1)", sent); n != len(sent) {
		t.Errorf("%d singles were answered 200, the ledger knows %d of them", len(sent), n)
	}
	return fmt.Sprintf("all sent once; singles: %d answered 200, %d 503", answers[200], answers[503])
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

// matrix is what all rows stand on.
var matrix struct{ cluster *testenv.Cluster }

// together is how many rows run beside each other: most of their time is waiting.
const together = 5

// measures says whether a row measures a rate: such a one runs alone, since the others would take its processors.
func measures(name string) bool { return strings.HasPrefix(name, "rates:") }

// TestFailureMatrix lets every part die, freeze or lie at the worst moment, and looks whether the promises hold. With
// -faults.long it takes its time; -v shows the table of what was seen.
func TestFailureMatrix(t *testing.T) {
	t.Parallel()
	matrix.cluster = testenv.StartPostgres(t)
	seen := make([]string, len(rows))
	took := make([]time.Duration, len(rows))
	one := func(i int) {
		t.Run(rows[i].name, func(t *testing.T) {
			began := time.Now()
			seen[i] = "FAILED"
			said := rows[i].run(t)
			if took[i] = time.Since(began); !t.Failed() {
				seen[i] = said
			}
		})
	}
	places := make(chan struct{}, together)
	var wg sync.WaitGroup
	for i, row := range rows {
		if !measures(row.name) {
			wg.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				one(i)
			})
		}
	}
	wg.Wait()
	for i, row := range rows {
		if measures(row.name) {
			one(i)
		}
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what dies, when\tseconds\twhat was seen")
	for i, row := range rows {
		if seen[i] != "" {
			fmt.Fprintf(w, "%s\t%.0f\t%s\n", row.name, took[i].Seconds(), seen[i])
		}
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
	if slices.Contains(seen, "FAILED") {
		t.Error("the matrix has holes")
	}
}
