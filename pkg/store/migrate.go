package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"herald/migrations"
)

func (db *DB) goose() (*goose.Provider, error) {
	files, err := migrations.For(db.Dialect())
	if err != nil {
		return nil, fmt.Errorf("open the migrations: %w", err)
	}
	if db.pools == nil {
		return goose.NewProvider(goose.DialectSQLite3, db.sql, files)
	}
	// Several processes may migrate at once: an advisory lock lets one of them, and the others wait for it.
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, fmt.Errorf("open the migrations: %w", err)
	}
	return goose.NewProvider(goose.DialectPostgres, db.sql, files, goose.WithSessionLocker(locker))
}

// Migrate brings the schema up to date and returns the names of the migrations it applied.
func (db *DB) Migrate(ctx context.Context) ([]string, error) {
	p, err := db.goose()
	if err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("apply the migrations: %w", err)
	}
	var names []string
	for _, r := range results {
		names = append(names, r.Source.Path)
	}
	return names, nil
}

// Migration is one migration of the schema.
type Migration struct {
	Name      string     `json:"name"`
	AppliedAt *time.Time `json:"applied_at"` // nil: pending
}

// MigrationStatus lists every migration that this binary knows.
func (db *DB) MigrationStatus(ctx context.Context) ([]Migration, error) {
	p, err := db.goose()
	if err != nil {
		return nil, err
	}
	status, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of the migrations: %w", err)
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

// CheckSchema returns an error when a migration is pending. A server must not run on a schema that is behind its version.
func (db *DB) CheckSchema(ctx context.Context) error {
	behind, err := db.schemaIsBehind(ctx)
	if err == nil && behind {
		err = errors.New("check the schema: it is behind this version: run `herald migrate up`")
	}
	return err
}

// schemaIsBehind reports whether a migration of this binary is pending.
func (db *DB) schemaIsBehind(ctx context.Context) (bool, error) {
	p, err := db.goose()
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("check the schema: %w", err)
	}
	return pending, nil
}
