package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"herald/pkg/testenv"
)

// redisRows are the rows in which Redis fails, or holds what does not belong there.
var redisRows = []row{
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
	{"3 enqueueing, and Redis's answers are lost", func(t *testing.T) string {
		proxy := testenv.StartProxy(t, testenv.StartRedis(t).Socket)
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
		redis := testenv.StartRedis(t)
		return awayRedis(t, redis, redis.Kill, redis.Start)
	}},
	{"10 Redis freezes", func(t *testing.T) string {
		redis := testenv.StartRedis(t)
		return awayRedis(t, redis, redis.Freeze, redis.Thaw)
	}},
	{"10 Redis is out of memory", func(t *testing.T) string {
		redis := testenv.StartRedis(t)
		s := faulty(t, plan{redis: redis.URL})
		limit := func(bytes string) {
			if err := s.rdb.ConfigSet(context.Background(), "maxmemory", bytes).Err(); err != nil {
				t.Fatal(err)
			}
		}
		return away(t, s, func() { limit("1") }, func() { limit("0") })
	}},
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
