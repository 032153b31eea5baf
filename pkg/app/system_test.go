package app_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"herald/pkg/client"
	"herald/pkg/provider/simulator"
	"herald/pkg/queue"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/redisconn"
	"herald/pkg/testenv"
)

// system is a deployment: real programs on a separate PostgreSQL database and redis-server, and the simulator, which records
// what was sent.
type system struct {
	t        testing.TB
	bin      string
	env      []string
	base     string
	database string         // as the test reaches it: the programs may use a proxy
	api      *client.Client // makes every call once
	sim      *simulator.Simulator
	simURL   string
	rdb      redis.UniversalClient
	q        *queue.Client

	startedAPI *process
	front      *testenv.Proxy // nil: the API is reached directly
	pool       *pgxpool.Pool  // to database; connect opens it
	poolOnce   *sync.Once
}

// plan is what is special about a deployment. Empty fields have defaults.
type plan struct {
	programs func() (string, error)
	database string   // the URL of a database; empty: one on the shared server
	redis    string   // the URL of a Redis of the test's own
	env      []string // of the programs
	api      []string // of the API alone
	fixed    bool     // the API's address stays when it restarts: a proxy has it
}

func deploy(t testing.TB) *system {
	t.Helper()
	return deployAs(t, plan{})
}

func deployAs(t testing.TB, p plan) *system {
	t.Helper()
	if p.programs == nil {
		p.programs = binaries
	}
	if p.redis == "" {
		p.redis = testenv.Redis(t, testenv.RedisServer)
	}
	if p.database == "" {
		p.database = sharedPostgres(t).Database(t)
	}
	bin, err := p.programs()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, bin: bin, database: p.database, poolOnce: &sync.Once{}}
	s.sim, s.simURL = testenv.Simulator(t)
	if p.fixed {
		s.front = testenv.StartProxy(t, "")
	}
	s.env = append(os.Environ(), "DATABASE_URL="+p.database, "REDIS_URL="+p.redis, "HERALD_MASTER_KEY="+testenv.MasterKey(),
		"HERALD_SENDGRID_URL="+s.simURL, "HERALD_TWILIO_URL="+s.simURL, "HERALD_INSTAGRAM_URL="+s.simURL,
		"HERALD_LISTEN=127.0.0.1:0", "HERALD_OPEN=loopback", "HERALD_ADMIN_LISTEN=127.0.0.1:0", "HERALD_LOG_FORMAT=json", "HERALD_DRAIN_DELAY=0s")
	s.env = append(s.env, p.env...) // the last value of a variable counts
	if s.rdb, err = redisconn.Connect(p.redis, 4); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.q = queue.NewClient(s.rdb, asynqfast.Options{})
	s.run("herald", "migrate", "up")
	s.startAPI(p.api...)
	return s
}

// startAPI starts the API and waits until it is ready.
func (s *system) startAPI(env ...string) *process {
	s.t.Helper()
	p := s.start("api", env...)
	s.startedAPI = p
	address := s.address(p, "api listens")
	if s.front != nil {
		s.front.Forward(address)
		address = s.front.Addr
	}
	s.base = "http://" + address
	var err error
	if s.api, err = client.New(s.base, client.WithRetryTimeout(0)); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(30*time.Second, "the API is ready", func() bool { return s.api.Ready(context.Background()) == nil })
	return p
}

// eventually waits for a condition that costs a request or a query to check.
func (s *system) eventually(within time.Duration, what string, ok func() bool) {
	s.t.Helper()
	testenv.EventuallyEvery(s.t, lookEvery, within, what, ok)
}

// lookEvery is the interval of eventually. A shorter one takes a good part of the processors from the programs.
const lookEvery = 25 * time.Millisecond
