package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"herald/pkg/message"
)

const (
	// statementTimeout bounds every statement, unless the URL of the database sets it.
	statementTimeout = "30s"
	// SearchTimeout bounds a statement that resolves a page of an audience.
	SearchTimeout = 10 * time.Second
	// LedgerGroups is the number of groups of statements that run at once, each on its own connection.
	LedgerGroups = 4
	// poolTimeout bounds the wait for a connection. A longer wait means that the database is overloaded.
	poolTimeout = time.Second
	// startTimeout bounds the first connection. It is longer than poolTimeout: a process that gives up while it starts is
	// started again, which adds load to a busy database.
	startTimeout = 15 * time.Second
)

func (db *DB) openPostgres(ctx context.Context, databaseURL string, conns int) error {
	cfg, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", scrub(err, databaseURL))
	}
	db.configure(cfg)
	if db.pools, err = openPools(ctx, cfg, conns); err != nil {
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	if err := db.pools.connectFirst(ctx); err != nil {
		db.pools.close()
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	db.sql = sql.OpenDB(timeoutConnector{stdlib.GetPoolConnector(db.pools.records)})
	db.sql.SetMaxIdleConns(0) // the pool below keeps idle connections
	db.gorm, err = gorm.Open(postgres.New(postgres.Config{Conn: db.sql}), gormConfig())
	if err != nil {
		db.pools.close()
		return fmt.Errorf("open the database: %w", scrub(err, databaseURL))
	}
	return nil
}

// configure sets what all connections share. Parameters in the URL of the database take precedence.
func (db *DB) configure(cfg *pgxpool.Config) {
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		db.writes.note(err)
		return keepConnection(err)
	}
	if severalHosts(cfg.ConnConfig) && cfg.ConnConfig.ValidateConnect == nil {
		cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	for name, v := range map[string]string{
		"statement_timeout": statementTimeout, "lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s", "timezone": "UTC",
		// JIT compilation costs about 50 ms for plans with a high estimated cost. The sequential scans that enable_seqscan=off
		// discourages have such a cost, although the statements are cheap.
		"jit": "off",
	} {
		if _, set := cfg.ConnConfig.RuntimeParams[name]; !set {
			cfg.ConnConfig.RuntimeParams[name] = v
		}
	}
}

// pools divide the connections of one process by use, so that no use waits for another: outcomes are recorded while
// requests queue, and requests are answered while an audience is searched.
type pools struct {
	ledger  *pgxpool.Pool
	records *pgxpool.Pool
	search  *pgxpool.Pool
}

// SearchConns returns how many of conns connections of a process are for audiences. conns 0 is the default number.
func SearchConns(conns int) int { return max(cmp.Or(conns, defaultConns)/6, 1) }

// openPools divides conns. The ledger and records pools find every row by a key. Scans are off for them: a generic plan
// that was made while a table was small would scan it when it is large. The ledger's statements are planned once
// (force_generic_plan), because each has one good plan, and planning per group would be half of the database's work for a
// single. The ledger pool opens one connection per group at the start: on a busy machine a new connection takes a tenth of a
// second, and every single waits for the group that needs it.
func openPools(ctx context.Context, cfg *pgxpool.Config, conns int) (*pools, error) {
	ledger, search := max(conns/3, 2), SearchConns(conns)
	p := &pools{}
	for _, use := range []struct {
		pool    **pgxpool.Pool
		conns   int
		ready   int
		scans   string
		plans   string
		timeout string // statement_timeout, "": statementTimeout
	}{
		{&p.ledger, ledger, min(ledger, LedgerGroups), "off", "force_generic_plan", ""},
		{&p.records, max(conns-ledger-search, 1), 0, "off", "auto", ""},
		{&p.search, search, 0, "on", "auto", SearchTimeout.String()},
	} {
		c := cfg.Copy()
		c.MaxConns, c.MinConns = int32(use.conns), int32(use.ready)
		c.ConnConfig.RuntimeParams["enable_seqscan"] = use.scans
		c.ConnConfig.RuntimeParams["plan_cache_mode"] = use.plans
		if use.timeout != "" && c.ConnConfig.RuntimeParams["statement_timeout"] == statementTimeout {
			c.ConnConfig.RuntimeParams["statement_timeout"] = use.timeout
		}
		c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
			RegisterTypes(conn.TypeMap())
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

// connectFirst makes the first connection.
func (p *pools) connectFirst(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.records.Ping(ctx)
}

func (p *pools) close() {
	for _, pool := range []*pgxpool.Pool{p.ledger, p.records, p.search} {
		if pool != nil {
			pool.Close()
		}
	}
}

// timeoutConnector bounds the wait for a connection by poolTimeout.
type timeoutConnector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c timeoutConnector) Connect(ctx context.Context) (driver.Conn, error) {
	wctx, cancel := context.WithTimeout(ctx, poolTimeout)
	defer cancel()
	conn, err := c.Connector.Connect(wctx)
	if err != nil && wctx.Err() != nil && ctx.Err() == nil {
		return nil, message.Unavailable("the database", fmt.Errorf("no connection within %s: %w", poolTimeout, err))
	}
	return conn, err
}
