// Package store keeps everything that must last: PostgreSQL in production, SQLite embedded. Records that are touched
// now and then go through GORM; the ledger's hot statements, which carry a row per recipient, go to the driver in
// groups. It decides nothing: the domain says what a row should become, and under which condition.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"herald/migrations"
	"herald/pkg/batch"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
)

// Options of a store.
type Options struct {
	Sealer   *channel.Sealer // seals channel credentials; nil where channels are not touched
	MaxConns int             // 0: a default that suits one process
	PageTime time.Duration   // how long SQLite may take for a page of an audience; 0: pageTime
}

// defaultConns is how many database connections one process opens at most. Grouped statements need few.
const defaultConns = 24

// groups is how many groups of statements can be under way at once.
const groups = 4

// Store is one database. It implements the ports of the domain packages and is safe for concurrent use.
type Store struct {
	db     *gorm.DB
	sql    *sql.DB
	pools  *pools // nil on SQLite
	sealer *channel.Sealer

	pageTime time.Duration // SQLite's, for a page of an audience
	writes   writes
	hot      hot
	inserts  *batch.Group[single, inserted]
	loads    *batch.Group[uuid.UUID, delivery.Loaded]
	claims   *batch.Group[*delivery.Claim, bool]
	turns    *batch.Group[step, stepped]
}

// Open connects to postgres://… or sqlite:///path and does not touch the schema.
func Open(ctx context.Context, databaseURL string, o Options) (*Store, error) {
	if o.MaxConns == 0 {
		o.MaxConns = defaultConns
	}
	s := &Store{sealer: o.Sealer, pageTime: cmp.Or(o.PageTime, pageTime)}
	var err error
	switch {
	case strings.HasPrefix(databaseURL, "postgres://"), strings.HasPrefix(databaseURL, "postgresql://"):
		err = s.openPostgres(ctx, databaseURL, o.MaxConns)
	case strings.HasPrefix(databaseURL, "sqlite://"):
		err = s.openSQLite(strings.TrimPrefix(databaseURL, "sqlite://"))
	default:
		err = errors.New("DATABASE_URL must begin with postgres:// or sqlite://")
	}
	if err != nil {
		return nil, err
	}
	// One run of each kind at a time: what gathers meanwhile goes with the next, so groups, and with them the commits that
	// they share, grow with the load.
	s.inserts = batch.New("insert", isData, s.hot.insert)
	s.loads = batch.New("load", isData, s.hot.load)
	s.claims = batch.New("claim", isData, s.hot.claim)
	s.turns = batch.New("turn", isData, s.turn)
	s.turns.Pace(turnPace)
	return s, nil
}

func gormConfig() *gorm.Config {
	return &gorm.Config{
		Logger:                 logger.Default.LogMode(logger.Silent), // errors are returned; SQL with values is never logged
		TranslateError:         true,
		SkipDefaultTransaction: true,
		NowFunc:                func() time.Time { return time.Now().UTC().Truncate(time.Microsecond) },
	}
}

func (s *Store) openPostgres(ctx context.Context, databaseURL string, conns int) error {
	cfg, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", scrub(err, databaseURL))
	}
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		s.writes.note(err)
		return keepConnection(err)
	}
	if severalHosts(cfg.ConnConfig) && cfg.ConnConfig.ValidateConnect == nil {
		cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	for name, v := range map[string]string{
		"statement_timeout": statementTimeout, "lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s", "timezone": "UTC",
		"jit": "off", // it compiles for fifty milliseconds whatever looks dear, and a scan that is to be avoided does
	} {
		if _, set := cfg.ConnConfig.RuntimeParams[name]; !set {
			cfg.ConnConfig.RuntimeParams[name] = v
		}
	}
	if s.pools, err = openPools(ctx, cfg, conns); err != nil {
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	if err := s.pools.first(ctx); err != nil {
		s.pools.close()
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	s.sql = sql.OpenDB(patientConnector{stdlib.GetPoolConnector(s.pools.records)})
	s.sql.SetMaxIdleConns(0) // the pool below keeps them
	s.db, err = gorm.Open(postgres.New(postgres.Config{Conn: s.sql}), gormConfig())
	if err != nil {
		s.pools.close()
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	s.hot = &postgresHot{pool: s.pools.hot, records: s.pools.records}
	return nil
}

// pools share the connections of one process out by use, so that no use waits behind another: outcomes are recorded
// while requests queue, and requests are answered while an audience is searched.
type pools struct {
	hot     *pgxpool.Pool // the ledger's statements, in groups
	records *pgxpool.Pool // GORM's
	search  *pgxpool.Pool // audiences
}

// statementTimeout bounds every statement, unless the URL of the database says otherwise.
const statementTimeout = "30s"

// SearchConns is how many of a process's connections are for audiences. 0 stands for the default number.
func SearchConns(conns int) int { return max(cmp.Or(conns, defaultConns)/6, 1) }

// openPools shares conns out. The first two find every row by a key. They are told not to scan, because a plan that was
// made, and kept, while a table was small would scan it when it is large. The ledger's statements are planned once: each
// has one good plan, and planning them again for every group would be half of a single's work in the database. Of these
// connections there is one for each group from the start: on a busy machine a new one takes a tenth of a second, and every
// single waits for whoever needs it first.
func openPools(ctx context.Context, cfg *pgxpool.Config, conns int) (*pools, error) {
	hot, search := max(conns/3, 2), SearchConns(conns)
	p := &pools{}
	for _, use := range []struct {
		pool  **pgxpool.Pool
		conns int
		ready int
		scans string
		plans string

		patience string // statement_timeout, "": as for all
	}{
		{&p.hot, hot, min(hot, groups), "off", "force_generic_plan", ""},
		{&p.records, max(conns-hot-search, 1), 0, "off", "auto", ""},
		{&p.search, search, 0, "on", "auto", pageTime.String()},
	} {
		c := cfg.Copy()
		c.MaxConns, c.MinConns = int32(use.conns), int32(use.ready)
		c.ConnConfig.RuntimeParams["enable_seqscan"] = use.scans
		c.ConnConfig.RuntimeParams["plan_cache_mode"] = use.plans
		if use.patience != "" && c.ConnConfig.RuntimeParams["statement_timeout"] == statementTimeout {
			c.ConnConfig.RuntimeParams["statement_timeout"] = use.patience
		}
		c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
			registerTypes(conn.TypeMap())
			return nil
		}
		pool, err := pgxpool.NewWithConfig(ctx, c)
		if err != nil {
			p.close()
			return nil, err
		}
		*use.pool = pool
	}
	return p, nil
}

// first makes the first connection. It waits longer than requests do: a process that gave up on a busy database as it
// starts would be started again, and add to what keeps the database busy.
func (p *pools) first(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	return p.records.Ping(ctx)
}

func (p *pools) close() {
	for _, pool := range []*pgxpool.Pool{p.hot, p.records, p.search} {
		if pool != nil {
			pool.Close()
		}
	}
}

// turnPace is between the starts of two turns. A turn costs the database, and everybody who wakes for it, far more than one
// of its messages does. A worker with a hundred sends of 50 ms under way would make six hundred a second, of three messages each;
// with this it needs a quarter less of the machine. Under full load turns take longer than that by themselves.
const turnPace = 2 * time.Millisecond

// poolWait is how long a statement waits for a connection. Longer means that there is more to do than the database does.
const poolWait = time.Second

const startWait = 15 * time.Second

// patientConnector waits for a connection, but not for long.
type patientConnector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c patientConnector) Connect(ctx context.Context) (driver.Conn, error) {
	wctx, cancel := context.WithTimeout(ctx, poolWait)
	defer cancel()
	conn, err := c.Connector.Connect(wctx)
	if err != nil && wctx.Err() != nil && ctx.Err() == nil {
		return nil, message.Unavailable("the database", fmt.Errorf("no connection within %s: %w", poolWait, err))
	}
	return conn, err
}

// scrub keeps a password in the URL out of an error.
func scrub(err error, databaseURL string) error {
	u, perr := url.Parse(databaseURL)
	if perr != nil || u.User == nil {
		return err
	}
	if pw, ok := u.User.Password(); ok && pw != "" {
		return errors.New(strings.ReplaceAll(err.Error(), pw, "xxxxx"))
	}
	return err
}

// openSQLite uses one connection: SQLite has one writer anyway, and readers that wait a moment are simpler than
// writers that meet SQLITE_BUSY. synchronous=FULL keeps the promise that what was answered is on disk. Transactions take
// the write lock as they begin, so what one has read is still true when it writes, also beside another process.
func (s *Store) openSQLite(path string) error {
	dsn := "file:" + path + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)&_txlock=immediate"
	db, err := gorm.Open(sqlite.Open(dsn), gormConfig())
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if s.sql, err = db.DB(); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	s.sql.SetMaxOpenConns(1)
	s.db = db
	s.hot = &sqliteHot{db: db}
	return nil
}

// Close ends the groups and the connections.
func (s *Store) Close() {
	s.inserts.Close()
	s.loads.Close()
	s.claims.Close()
	s.turns.Close()
	_ = s.sql.Close()
	if s.pools != nil {
		s.pools.close()
	}
}

// Dialect returns "postgres" or "sqlite".
func (s *Store) Dialect() string {
	if s.pools != nil {
		return "postgres"
	}
	return "sqlite"
}

func (s *Store) goose() (*goose.Provider, error) {
	files, err := migrations.For(s.Dialect())
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	if s.pools == nil {
		return goose.NewProvider(goose.DialectSQLite3, s.sql, files)
	}
	// Several processes may migrate at once: the first one does, the others wait for it.
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return goose.NewProvider(goose.DialectPostgres, s.sql, files, goose.WithSessionLocker(locker))
}

// Migrate brings the schema up to date and returns the names of the migrations it applied.
func (s *Store) Migrate(ctx context.Context) ([]string, error) {
	p, err := s.goose()
	if err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	var names []string
	for _, r := range results {
		names = append(names, r.Source.Path)
	}
	return names, nil
}

// Migration is one step of the schema and when it was applied, nil when it was not.
type Migration struct {
	Name      string
	AppliedAt *time.Time
}

// MigrationStatus lists every migration that this binary knows.
func (s *Store) MigrationStatus(ctx context.Context) ([]Migration, error) {
	p, err := s.goose()
	if err != nil {
		return nil, err
	}
	status, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	out := make([]Migration, len(status))
	for i, st := range status {
		out[i] = Migration{Name: st.Source.Path}
		if st.State == goose.StateApplied {
			at := st.AppliedAt.UTC()
			out[i].AppliedAt = &at
		}
	}
	return out, nil
}

// CheckSchema fails when a migration is missing: no server runs on a schema that is behind.
func (s *Store) CheckSchema(ctx context.Context) error {
	p, err := s.goose()
	if err != nil {
		return err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return fmt.Errorf("check the schema: %w", err)
	}
	if pending {
		return errors.New("the database's schema is behind this version: run `herald migrate up`")
	}
	return nil
}

// now is the current time in a statement, by the database's clock. SQLite lives in this process and shares its clock.
func (s *Store) now() clause.Expr { return s.in(0) }

// in is the time after d in a statement.
func (s *Store) in(d time.Duration) clause.Expr {
	if s.pools != nil {
		return gorm.Expr("now() + ? * interval '1 second'", d.Seconds())
	}
	return gorm.Expr("?", stamp(time.Now().Add(d)))
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
