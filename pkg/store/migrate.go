package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// Migrate brings the schema up to date and returns the names of the migrations it applied. It applies none to a schema that is
// ahead of this version.
func (db *DB) Migrate(ctx context.Context) ([]string, error) {
	p, err := db.goose()
	if err != nil {
		return nil, err
	}
	if err := db.checkUnknown(ctx, p); err != nil {
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
	Name      string     `json:"name"`              // of its file; the number alone if the migration is unknown
	AppliedAt *time.Time `json:"applied_at"`        // nil: pending
	Unknown   bool       `json:"unknown,omitempty"` // applied by a newer version
}

// MigrationStatus lists every migration that this binary knows, and then those of the schema that it does not know.
func (db *DB) MigrationStatus(ctx context.Context) ([]Migration, error) {
	p, err := db.goose()
	if err != nil {
		return nil, err
	}
	status, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of the migrations: %w", err)
	}
	unknown, err := db.unknownMigrations(ctx, p)
	if err != nil {
		return nil, err
	}
	out := make([]Migration, 0, len(status)+len(unknown))
	for _, st := range status {
		m := Migration{Name: st.Source.Path}
		if st.State == goose.StateApplied {
			at := st.AppliedAt.UTC()
			m.AppliedAt = &at
		}
		out = append(out, m)
	}
	return append(out, unknown...), nil
}

// unknownMigrations returns the migrations of the schema that this binary does not have, ordered by number: a newer version
// applied them.
func (db *DB) unknownMigrations(ctx context.Context, p *goose.Provider) ([]Migration, error) {
	newest, last, err := p.GetVersions(ctx) // creates goose's table if it is missing, and waits for no lock
	if err != nil || newest <= last {
		return nil, wrapSchema(err)
	}
	rows, err := db.sql.QueryContext(ctx, "SELECT version_id, tstamp FROM goose_db_version WHERE is_applied ORDER BY version_id")
	if err != nil {
		return nil, wrapSchema(err)
	}
	defer rows.Close()
	var out []Migration
	for rows.Next() {
		var version int64
		var at time.Time
		if err := rows.Scan(&version, &at); err != nil {
			return nil, wrapSchema(err)
		}
		if at = at.UTC(); version > last {
			out = append(out, Migration{Name: fmt.Sprintf("%05d", version), AppliedAt: &at, Unknown: true})
		}
	}
	return out, wrapSchema(rows.Err())
}

func wrapSchema(err error) error {
	if err != nil {
		return fmt.Errorf("check the schema: %w", err)
	}
	return nil
}

// checkUnknown returns an error when the schema has migrations that this binary does not know.
func (db *DB) checkUnknown(ctx context.Context, p *goose.Provider) error {
	unknown, err := db.unknownMigrations(ctx, p)
	if err != nil || len(unknown) == 0 {
		return err
	}
	names := make([]string, len(unknown))
	for i, m := range unknown {
		names[i] = m.Name
	}
	return fmt.Errorf("check the schema: it is ahead of this version, which does not know the migrations %s: use the version of Herald that applied them, or a newer one",
		strings.Join(names, ", "))
}

// CheckSchema returns an error when a migration is pending, or when a newer version has applied one that this version does not
// know. A server must run on the schema of its version.
func (db *DB) CheckSchema(ctx context.Context) error {
	p, err := db.goose()
	if err != nil {
		return err
	}
	if err := db.checkUnknown(ctx, p); err != nil {
		return err
	}
	behind, err := db.schemaIsBehind(ctx)
	if err == nil && behind {
		return errors.New("check the schema: it is behind this version: run `herald migrate up`")
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
	return pending, wrapSchema(err)
}
