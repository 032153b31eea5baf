// Package migrations holds the schema of both databases as embedded goose files.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// For returns the migrations of a database, "postgres" or "sqlite".
func For(dialect string) (fs.FS, error) { return fs.Sub(files, dialect) }
