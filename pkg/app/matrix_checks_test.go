package app_test

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/counters"
	"herald/pkg/message"
	"herald/pkg/queue"
)

// settled checks what holds after every fault: each recipient has one row and one end; the database,
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
		if status, _, _ := standing.State(); status.Accepted() {
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
	s.eventually(90*time.Second, "no task is left in Redis", func() bool {
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
	s.eventually(time.Minute, "a worker at rest has few goroutines", func() bool { return s.metric(p, "go_goroutines") < 400 })
}

// unknowns returns how many messages were ever UNKNOWN.
func (s *system) unknowns() int {
	s.t.Helper()
	return s.number("SELECT count(*) FROM messages WHERE unknowns > 0")
}

// stands waits until a bulk's messages have stopped to leave.
func (s *system) stands(id string) {
	s.t.Helper()
	last, since := s.sim.Report().Accepted, time.Now()
	s.eventually(time.Minute, "nothing leaves any more", func() bool {
		if now := s.sim.Report().Accepted; now != last {
			last, since = now, time.Now()
		}
		f, ok := s.look(id)
		return ok && f.Status == "PAUSED" && f.Sent == int(last) && time.Since(since) > 500*time.Millisecond
	})
}
