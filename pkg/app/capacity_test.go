package app_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/client"
)

// many makes the tests of capacity take the sizes that are promised, and report what they measured.
var (
	many     = flag.Bool("capacity.full", false, "run the tests of capacity in their full size, and log what was measured")
	programs = flag.String("capacity.programs", "", "measure the programs of this directory instead of this version's")
)

// loaded deploys the programs for a test of capacity.
func loaded(t *testing.T) *system {
	t.Helper()
	if !*many { // the full size measures, so it runs alone
		t.Parallel()
	}
	p := plan{env: []string{"HERALD_KEY_RATE=0"}}
	if *programs != "" {
		p.programs = func() (string, error) { return *programs, nil }
	}
	return deployAs(t, p)
}

// accept sends bulks of a type, each to its own ids, from several clients at once, and returns their ids.
func (s *system) accept(typ string, channel string, bulks [][]string) []string {
	s.t.Helper()
	const clients = 8
	ids := make([]string, len(bulks))
	var wg sync.WaitGroup
	var next atomic.Int64
	for range clients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(bulks); i = int(next.Add(1)) - 1 {
				r := s.request(typ, bulks[i])
				r.SenderIdentifier = channel
				body, err := json.Marshal(r)
				if err != nil {
					s.t.Error(err)
					return
				}
				status, answer := s.try(http.MethodPost, "/api/messaging/send", string(body), "Prefer", "respond-async")
				var b struct {
					BulkID string `json:"bulk_id"`
				}
				if status != http.StatusOK || json.Unmarshal([]byte(answer), &b) != nil {
					s.t.Errorf("a bulk is not accepted: %d %s", status, answer)
					return
				}
				ids[i] = b.BulkID
			}
		})
	}
	wg.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	return ids
}

// split makes bulks of some leads each.
func split(ids []string, bulks, each int) [][]string {
	out := make([][]string, bulks)
	for i := range out {
		from := i * each % (len(ids) - each + 1)
		out[i] = ids[from : from+each]
	}
	return out
}

// rss is the memory of a process in MB.
func (s *system) rss(p *process) int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	v := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if v == nil {
		s.t.Fatal("no VmHWM")
	}
	kb, _ := strconv.Atoi(string(v[1]))
	return kb >> 10
}

// transactions is the number of transactions that the database has ended. A statement outside a transaction counts as one.
func (s *system) transactions() int {
	s.t.Helper()
	return s.number("SELECT (xact_commit + xact_rollback)::int FROM pg_stat_database WHERE datname = current_database()")
}

func (s *system) open() int {
	s.t.Helper()
	return s.number("SELECT count(*)::int FROM bulks WHERE final IS NULL")
}

// slowChannel makes a channel of the type SMS with a rate, or a paused one.
func (s *system) slowChannel(rate float64, paused bool) string {
	s.t.Helper()
	ch := must[client.Channel](s)(s.api.CreateChannel(s.t.Context(), client.NewChannel{
		ID: uuid.NewString(), Type: "sms", Name: "Slow", Sender: "+15005550006",
		Credentials: map[string]string{"account_sid": "AC00000000000000000000000000000000", "auth_token": "secret"},
	}))
	patch := fmt.Sprintf(`{"rate_per_second":%g}`, rate)
	if paused {
		patch = `{"state":"PAUSED"}`
	}
	s.patch("/api/channels/"+ch.ID+"/sms", patch)
	return ch.ID
}

// Waiting bulks delay no other bulk: an email bulk starts at once beside bulks that wait for the rate of their channel, for the
// resume of a paused channel, and for a slot.
func TestFaultWaitingBulksHoldNoPlace(t *testing.T) {
	n := 140
	if *many {
		n = 2_000
	}
	s := loaded(t)
	ids := s.load(2_000)
	worker := s.start("worker")
	slow, paused := s.slowChannel(1, false), s.slowChannel(1, true)
	s.accept("sms", slow, split(ids, n*3/4, 10))
	s.accept("sms", paused, split(ids, n/4, 10))
	s.eventually(5*time.Minute, "every waiting bulk is planned", func() bool {
		return s.number("SELECT count(*)::int FROM bulks WHERE NOT planned") == 0
	})
	if *many {
		before, began := s.transactions(), time.Now()
		<-time.After(20 * time.Second)
		t.Logf("beside %d waiting bulks the database makes %.0f transactions a second", n, float64(s.transactions()-before)/time.Since(began).Seconds())
	}
	for range 3 {
		began := time.Now()
		f := figuresOf(must[client.Bulk](s)(s.api.SendBulk(t.Context(), s.request("email", ids[:10]))))
		for f.Status != "COMPLETED" {
			if f = s.bulk(f.BulkID); time.Since(began) > time.Minute {
				t.Fatalf("an email bulk waits: %+v", f)
			}
		}
		took := time.Since(began)
		if t.Logf("an email bulk of 10 beside %d that wait: %s", s.open(), took); *many && took > 2*time.Second {
			t.Error("it waits for others")
		}
	}
	if leased := s.number("SELECT count(*)::int FROM bulks WHERE final IS NULL AND lease_token IS NOT NULL"); leased > 24 { // one for each task of the window at most, and four that are planned
		t.Errorf("%d waiting bulks have a lease", leased)
	}
	if n := s.rdb.LLen(t.Context(), "asynq:{sms.normal}:pending").Val() + s.rdb.ZCard(t.Context(), "asynq:{sms.normal}:retry").Val() +
		s.rdb.ZCard(t.Context(), "asynq:{sms.normal}:scheduled").Val(); n > 40 {
		t.Errorf("%d tasks of a channel with a rate of 1 wait in the queue", n)
	}
	t.Logf("memory at most: worker %d MB, API %d MB", s.rss(worker), s.rss(s.startedAPI))
	if *many && (s.rss(worker) > 150 || s.rss(s.startedAPI) > 150) {
		t.Error("too much memory")
	}
}

// Many small bulks: each ends with every message sent once, and the rate is reported.
func TestFaultSmallBulksFollowEachOther(t *testing.T) {
	n := 100
	if *many {
		n = 300
	}
	s := loaded(t)
	ids := s.load(2_000)
	s.start("worker")
	s.finish(s.sendBulk(ids[:10])) // everything is warm
	began := time.Now()
	s.accept("email", "", split(ids, n, 10))
	accepted := time.Since(began)
	s.eventually(2*time.Minute, "all bulks are over", func() bool { return s.open() == 0 })
	t.Logf("%d bulks of 10 leads: %.0f bulks/s; the API accepted them in %s", n, float64(n)/time.Since(began).Seconds(), accepted.Round(time.Millisecond))
	type row struct {
		Status string
		N      int
	}
	for _, r := range query(s, pgx.RowToStructByPos[row], "SELECT status, count(*)::int FROM messages GROUP BY status") {
		if r.Status != "SENT" || r.N != 10*(n+1) {
			t.Errorf("%+v", r)
		}
	}
}

// hasty deploys programs with short intervals on a separate database.
func hasty(t *testing.T) *system {
	t.Helper()
	return deployAs(t, plan{programs: faultyBinaries, env: quickly(t, quick())})
}

// Every key of Herald in Redis has an expiry, also after workers died: while a bulk runs, when it has just ended, and at the end
// of all work.
func TestFaultNoKeyStaysInRedis(t *testing.T) {
	t.Parallel()
	const n = 200
	s := hasty(t)
	ids := s.load(n)
	expires := func(when string) {
		t.Helper()
		keys, err := s.rdb.Keys(t.Context(), "herald:*").Result()
		if err != nil || len(keys) == 0 {
			t.Fatalf("%s: %d keys, %v", when, len(keys), err)
		}
		for _, key := range keys {
			if ttl := s.rdb.PTTL(t.Context(), key).Val(); ttl == -1 { // what go-redis makes of no expiry
				t.Errorf("%s: %s stays for good", when, key)
			}
		}
	}
	s.sim.SetLatency(5 * time.Millisecond)
	var last figures
	for _, sent := range []int{n, n / 2, 1} {
		worker := s.start("worker")
		last = s.sendBulk(ids)
		s.reach(last.BulkID, sent)
		if sent == n { // the end of the bulk, and whatever follows it
			s.eventually(time.Minute, "the bulk is over", func() bool { return s.open() == 0 })
		}
		s.kill(worker)
		s.expireLeases()
		expires(fmt.Sprintf("a worker died when %d were sent", sent))
	}
	after := s.start("worker")
	s.over(last.BulkID)
	expires("afterwards")
	s.kill(after)
	expires("when no worker is left")
}

// Many small bulks, and a worker that is killed at random moments and replaced: no key of Herald's stays without an expiry.
func TestFaultNoKeyStaysAfterManyBulks(t *testing.T) {
	t.Parallel()
	n := 60
	if *many {
		n = 1_000
	}
	s := hasty(t)
	ids := s.load(500)
	s.accept("sms", "", split(ids, n, 2))
	random := rand.New(rand.NewPCG(3, 4))
	worker, kills := s.start("worker"), 0
	s.eventually(8*time.Minute, "all bulks are over", func() bool {
		if random.IntN(50) == 0 && kills < 6 {
			s.kill(worker)
			worker = s.start("worker")
			kills++
		}
		return s.open() == 0
	})
	keys, err := s.rdb.Keys(t.Context(), "herald:*").Result()
	if err != nil || len(keys) < n {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, key := range keys {
		if s.rdb.PTTL(t.Context(), key).Val() == -1 {
			t.Errorf("%s stays for good", key)
		}
	}
	t.Logf("%d bulks, %d workers killed, %d keys, each with an expiry", n, kills, len(keys))
}

// A worker that dies delays neither waiting bulks nor its own: another worker continues them within a lease.
func TestFaultAnotherWorkerRunsWhatWaits(t *testing.T) {
	t.Parallel()
	s := hasty(t)
	ids := s.load(500)
	slow := s.slowChannel(20, false)
	dying := s.start("worker")
	bulks := s.accept("sms", slow, split(ids, 40, 5))
	for _, id := range bulks[:1] {
		s.reach(id, 1)
	}
	s.kill(dying)
	s.expireLeases()
	other := s.start("worker")
	f := s.over(s.sendBulk(ids[:20]).BulkID)
	if f.Sent != 20 {
		t.Errorf("%+v", f)
	}
	for _, id := range bulks {
		if f := s.over(id); f.Total != 5 || f.Sent+f.Unknown != 5 {
			t.Errorf("%+v", f)
		}
	}
	s.noLeak(other)
	if n := s.number("SELECT count(*)::int FROM bulks WHERE lease_token IS NOT NULL"); n != 0 {
		t.Errorf("%d bulks that are over have a lease", n)
	}
	accepted := s.sim.Report()
	if sent := s.number("SELECT count(*)::int FROM messages WHERE status = 'SENT'"); int64(sent) > accepted.Accepted {
		t.Errorf("%d are SENT, the simulator accepted %d", sent, accepted.Accepted)
	}
}
