package app_test

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// connect returns the test's own connections to the deployment's database. They are few and stay: a connection for each
// look would cost a new server process.
func (s *system) connect() *pgxpool.Pool {
	s.t.Helper()
	s.poolOnce.Do(func() {
		cfg, err := pgxpool.ParseConfig(s.database)
		if err != nil {
			s.t.Fatal(err)
		}
		cfg.MaxConns = 2
		if s.pool, err = pgxpool.NewWithConfig(context.Background(), cfg); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(s.pool.Close)
	})
	return s.pool
}

// query asks the database itself. A query that fails is asked once more on new connections: the test may have restarted
// the database.
func query[T any](s *system, to pgx.RowToFunc[T], sql string, args ...any) []T {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ask := func() ([]T, error) {
		rows, err := s.connect().Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, to)
	}
	found, err := ask()
	if err != nil {
		s.connect().Reset()
		found, err = ask()
	}
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

// change runs a statement on the deployment's database.
func (s *system) change(sql string, args ...any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := s.connect().Exec(ctx, sql, args...); err != nil {
		s.t.Fatal(err)
	}
}
