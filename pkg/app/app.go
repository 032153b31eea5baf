// Package app wires Herald: it builds the parts from a configuration and starts and stops them in the order of their
// dependencies. No other package knows both the domain and its adapters. The programs in cmd call Main or OpenEmbedded.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/api"
	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/config"
	"herald/pkg/counters"
	"herald/pkg/delivery"
	"herald/pkg/lead"
	"herald/pkg/provider/vendors"
	"herald/pkg/queue"
	"herald/pkg/queue/asynqfast"
	"herald/pkg/ratelimit"
	"herald/pkg/redisconn"
	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/telemetry"
	"herald/worker"
)

// App is the parts of one process.
type App struct {
	Config   *config.Config
	Stores   *Stores
	Channels *channel.Registry
	Leads    *lead.Service
	Bulks    *bulk.Service
	Preview  *bulk.Previewer
	Queue    *queue.Client
	Keys     *access.Keyring
	Sender   *delivery.Sender

	telemetry *telemetry.Telemetry
	recent    *telemetry.Recent
	checksums access.Checksums
	timing    Timing
	deliverer *delivery.Deliverer
	limiter   *ratelimit.ChannelLimiter
	inFlight  queue.InFlight
	counters  *counters.Counters
	templates *bulk.Templates
	redis     []redis.UniversalClient
	worker    *worker.Worker
	http      *http.Server
	admin     *telemetry.Admin
	backfills *backfills
	watch     *redisconn.Watch
	held      atomic.Bool // Hold was called
	draining  atomic.Bool // Drain was called
}

// Sizes of the pools of Redis connections. Each use has its own pool, so that none waits for another.
const (
	queuePool    = 64
	countersPool = 16
	serverPool   = 32
	stopTime     = 40 * time.Second
)

// Open connects to the database and to Redis. It returns an error if the schema is not up to date, or if a stored credential
// cannot be opened with the master keys. It does not wait for Redis.
func Open(ctx context.Context, cfg *config.Config, log *slog.Logger) (*App, error) {
	sealer, err := Sealer(cfg)
	if err != nil {
		return nil, err
	}
	a := &App{Config: cfg, telemetry: telemetry.New(log)}
	a.recent = telemetry.NewRecent(a.Health)
	if a.checksums, err = Checksums(cfg); err != nil {
		return nil, err
	}
	if a.timing, err = timing(); err != nil {
		return nil, err
	}
	a.timing.Delivery.UnknownHold = cfg.UnknownHold
	if a.Stores, err = OpenStores(ctx, cfg.DatabaseURL, cfg.DatabaseMaxConns, sealer); err != nil {
		return nil, err
	}
	if err := a.check(ctx); err != nil {
		a.Stores.Close()
		return nil, err
	}
	if err := a.build(); err != nil {
		a.close()
		return nil, err
	}
	rdb := a.redis[0] // a.redis grows when workers start, and the watch reads beside them
	ping := func(ctx context.Context) error { return rdb.Ping(ctx).Err() }
	a.watch = redisconn.StartWatch(ping, redisconn.Address(cfg.RedisURL), log)
	return a, nil
}

// Sealer returns the sealer of channel credentials.
func Sealer(cfg *config.Config) (*seal.Sealer, error) {
	key, others, err := masterKeys(cfg)
	if err != nil {
		return nil, err
	}
	return seal.NewSealer(key, others...)
}

// Checksums returns the checksums that distinguish API keys from forged ones without a query.
func Checksums(cfg *config.Config) (access.Checksums, error) {
	key, others, err := masterKeys(cfg)
	if err != nil {
		return access.Checksums{}, err
	}
	return access.NewChecksums(key, others...), nil
}

func masterKeys(cfg *config.Config) (key []byte, others [][]byte, err error) {
	if key, err = seal.ParseMasterKey(string(cfg.MasterKey)); err != nil {
		return nil, nil, fmt.Errorf("HERALD_MASTER_KEY %w", err)
	}
	if others, err = cfg.OtherKeys(); err != nil {
		return nil, nil, fmt.Errorf("HERALD_MASTER_KEY_PREVIOUS %w", err)
	}
	return key, others, nil
}

// check returns an error for a database that this process cannot use.
func (a *App) check(ctx context.Context) error {
	if err := a.Stores.DB.CheckSchema(ctx); err != nil {
		return err
	}
	return a.Stores.Channels.CheckSeals(ctx)
}

func (a *App) connect(pool int) (redis.UniversalClient, error) {
	rdb, err := redisconn.Connect(a.Config.RedisURL, pool)
	if err == nil {
		a.redis = append(a.redis, rdb)
	}
	return rdb, err
}

// fastPath configures the hooks between Asynq and Redis.
func (a *App) fastPath() asynqfast.Options {
	return asynqfast.Options{Enabled: a.Config.QueueFast, Prefetch: a.Config.QueuePrefetch, Observe: a.telemetry.Step}
}

func (a *App) build() error {
	cfg := a.Config
	queueRedis, err := a.connect(queuePool)
	if err != nil {
		return err
	}
	countersRedis, err := a.connect(countersPool)
	if err != nil {
		return err
	}
	a.Queue = queue.NewClient(queueRedis, a.fastPath())
	a.telemetry.AddGauges(a.gauges())
	a.counters = counters.New(countersRedis, func(err error) { a.telemetry.Failure(context.Background(), "count", err) })
	a.Channels = channel.NewRegistry(a.Stores.Channels, a.Stores.Channels, a.Stores.Channels, vendors.All.Providers())
	a.Keys = access.NewKeyring(access.Deps{
		Keys: a.Stores.Keys, Usage: a.Stores.Keys, Limiter: ratelimit.NewKeyLimiter(countersRedis), Rate: cfg.KeyRate, Checksums: a.checksums,
		Failed: func(ctx context.Context, err error) { a.telemetry.Failure(ctx, "note the use of an API key", err) },
	})
	a.Leads = lead.NewService(a.Stores.Leads, a.Stores.Suppressions, a.Stores.Leads)
	a.limiter = ratelimit.NewChannelLimiter(countersRedis, a.telemetry.ChannelState)
	a.Bulks = bulk.NewService(bulk.ServiceDeps{
		Store: a.Stores.Bulks, Lifecycle: a.Stores.Bulks, Queue: a.Queue, Counters: a.counters, Channels: a.Channels, Health: a.limiter, Observer: a.telemetry,
	})
	a.Preview = bulk.NewPreviewer(bulk.PreviewDeps{Resolver: a.Stores.Audiences, Plan: a.Stores.Runs, Store: a.Stores.Previews, Queue: a.Queue})
	a.templates = bulk.NewTemplates(a.Stores.Bulks)
	a.inFlight = queue.NewInFlight()
	a.deliverer = delivery.New(delivery.Deps{
		Ledger: a.Stores.Ledger, Contents: a.templates, Files: delivery.NewFileCache(a.Stores.Messages), Channels: a.Channels, Limiter: a.limiter, Counters: a.counters,
		Queue: a.Queue, InFlight: a.inFlight, Observer: a.telemetry, Timing: a.timing.Delivery, Suspicions: a.Stores.Messages, Refusals: ratelimit.NewRefusals(countersRedis),
		Providers: vendors.All.Adapters(cfg.ProviderURLs),
	})
	a.Sender = delivery.NewSender(delivery.SenderDeps{Deliverer: a.deliverer, Inserter: a.Stores.Ledger, Leads: a.Stores.Leads, Messages: a.Stores.Messages})
	return nil
}

// Hold makes the process report that it is not ready, until Release.
func (a *App) Hold() { a.held.Store(true) }

// Release ends Hold.
func (a *App) Release() { a.held.Store(false) }

// Ready returns the health of the process, which is at most one second old. The effect of Hold is immediate.
func (a *App) Ready(ctx context.Context) telemetry.Health {
	h := a.recent.Health(ctx)
	h.Ready = h.Ready && !a.held.Load()
	return h
}

// Health checks the database and Redis. Without the database the process is not ready. Without Redis it is degraded: it
// delivers singles and accepts bulks.
func (a *App) Health(ctx context.Context) telemetry.Health {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	db, rdb := a.Stores.DB.Ping(ctx), a.Queue.Ping(ctx)
	return telemetry.Health{
		Ready: db == nil, Degraded: rdb != nil, Parts: map[string]error{"database": db, "redis": rdb},
	}
}

// StartWorker starts to deliver messages and to run bulks.
func (a *App) StartWorker() error {
	var poolErr error
	pool := func() redis.UniversalClient {
		rdb, err := a.connect(serverPool)
		poolErr = errors.Join(poolErr, err)
		return rdb
	}
	servers := queue.NewServers(pool, a.Config.Concurrency, a.inFlight, a.fastPath(), a.telemetry.Log())
	if poolErr != nil {
		return poolErr
	}
	runner := bulk.NewRunner(bulk.RunnerDeps{
		Leases: a.Stores.Runs, Plan: a.Stores.Runs, Feed: a.Stores.Runs, Bulks: a.Stores.Bulks, Resolver: a.Stores.Audiences, Queue: a.Queue, Counters: a.counters,
		Rescuer: a.deliverer, Channels: a.Channels, Health: a.limiter, Observer: a.telemetry, Timing: a.timing.Bulk, Window: a.Config.FeedWindow,
	})
	a.counters.Tell(runner.NotifyCounted)
	a.worker = worker.New(worker.Deps{
		Deliverer: a.deliverer, Due: a.Stores.Ledger, Runner: runner, Servers: servers, Presence: queue.NewPresence(a.redis[0]),
		Janitor: queue.NewJanitor(a.redis[0], a.Stores.Messages, a.timing.Clean), Keys: a.Stores.Idempotency, Outbox: a.Stores.DB, Telemetry: a.telemetry,
		SweepEvery: a.timing.Sweep, CleanEvery: a.timing.Clean, ForgetEvery: a.timing.Forget,
	})
	a.backfills = startBackfills(a.Stores, a.telemetry)
	return a.worker.Start()
}

// Document returns the OpenAPI document of the API.
func Document() ([]byte, error) { return api.Document() }

// open reports whether the API answers requests without a key: those of this machine, if HERALD_OPEN is set, until the first
// key is created. It returns an error for an API that could not answer any request.
func (a *App) open(ctx context.Context, l net.Listener) (bool, error) {
	tcp, ok := l.Addr().(*net.TCPAddr)
	local := ok && tcp.IP.IsLoopback()
	open := local && a.Config.Open == config.OpenLoopback
	inUse, err := a.Keys.InUse(ctx)
	switch {
	case err != nil || inUse:
		return open, err
	case !local:
		return false, fmt.Errorf("HERALD_LISTEN is %s: without an API key the API listens on a loopback address only; create a key with `herald keys create`", a.Config.Listen)
	case !open:
		return false, errors.New("no API key exists: create one with `herald keys create`, or set HERALD_OPEN=loopback to allow requests of this machine without a key")
	}
	a.telemetry.Log().Warn("no API key exists: every process of this machine may send", "listen", l.Addr().String())
	return open, nil
}

// StartAPI starts to answer requests and returns the address that it has bound.
func (a *App) StartAPI(ctx context.Context) (string, error) {
	l, err := net.Listen("tcp", a.Config.Listen)
	if err != nil {
		return "", listenError("HERALD_LISTEN", a.Config.Listen, err)
	}
	open, err := a.open(ctx, l)
	if err != nil {
		_ = l.Close()
		return "", err
	}
	server, err := api.New(api.Deps{
		Sender: a.Sender, Bulks: a.Bulks, Preview: a.Preview, Channels: a.Channels, Leads: a.Leads, Messages: a.Stores.Messages,
		Keys: a.Keys, Effects: a.Stores.Idempotency, Local: open, Telemetry: a.telemetry,
		Health: a.Ready, BulkWait: a.Config.BulkWait,
		Limits: request.Limits{
			InFlight: a.Config.InFlight,
			DryRuns:  store.SearchConns(a.Config.DatabaseMaxConns) - 1, // one stays for the audiences of bulks
		},
	})
	if err != nil {
		_ = l.Close()
		return "", err
	}
	a.http = server.HTTPServer()
	a.http.Handler = a.closing(a.http.Handler)
	a.http.ErrorLog = slog.NewLogLogger(a.telemetry.Log().Handler(), slog.LevelDebug)
	go func() {
		if err := a.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.telemetry.Log().Error("the API stopped", "error", err.Error())
		}
	}()
	return l.Addr().String(), nil
}

// listenError names the setting of an address that cannot be bound. An address in use satisfies errors.Is with
// syscall.EADDRINUSE.
func listenError(setting, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: another program uses this address (%w): set %s to another host:port", addr, syscall.EADDRINUSE, setting)
	}
	return fmt.Errorf("%s: %w", setting, err)
}

// closing makes answers close their connections while the process drains, so that clients and proxies open the next one to
// another process. It does not close idle connections: a request may be on its way on one.
func (a *App) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// StartAdmin starts the admin listener. If the configuration names no address it uses fallback, or another port if that is
// taken.
func (a *App) StartAdmin(fallback string) error {
	addr, isDefault := a.Config.AdminListen, a.Config.AdminListen == ""
	if isDefault {
		addr = fallback
	}
	admin, moved, err := a.telemetry.StartAdmin(telemetry.AdminOptions{
		Addr: addr, Default: isDefault, Health: a.Ready, Hosts: a.Config.AdminHosts, PProf: a.Config.PProf,
	})
	if err != nil {
		return listenError("HERALD_ADMIN_LISTEN", addr, err)
	}
	a.admin = admin
	log := a.telemetry.Log()
	if moved {
		log.Warn("the default admin address is taken", "wanted", addr)
	}
	log.Info("admin listens", "address", admin.Addr)
	return nil
}

// Drain makes the process report that it is not ready, and waits for HERALD_DRAIN_DELAY while requests are answered as before, so
// that load balancers send them elsewhere before Stop closes the port. A process without an API does not wait. A signal to stop
// ends the wait.
func (a *App) Drain() {
	a.Hold()
	a.draining.Store(true)
	if a.http == nil || a.Config.DrainDelay == 0 {
		return
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	t := time.NewTimer(a.Config.DrainDelay)
	defer t.Stop()
	a.telemetry.Log().Info("draining: not ready, requests are still answered", "seconds", a.Config.DrainDelay.Seconds())
	select {
	case <-t.C:
	case <-again:
	}
}

// Stop stops the parts in the order of their dependencies: it accepts no new requests, takes no new tasks, finishes what is
// in progress, and closes the connections. It takes at most about stopTime.
func (a *App) Stop() {
	a.Hold() // at once, although Health may be a second old
	if a.http != nil {
		a.Bulks.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		_ = a.http.Shutdown(ctx) // what did not end in time is cut
		cancel()
	}
	if a.worker != nil {
		a.worker.Stop()
	}
	a.admin.Stop()
	a.close()
}

func (a *App) close() {
	a.watch.Stop()
	if a.counters != nil {
		a.counters.Close()
	}
	if a.Queue != nil {
		a.Queue.Close()
	}
	a.backfills.stop()
	a.Stores.Close()
	for _, rdb := range a.redis {
		_ = rdb.Close()
	}
}
