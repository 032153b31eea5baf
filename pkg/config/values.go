package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/adrg/xdg"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DataDir returns the directory of the embedded mode.
func (c *Config) DataDir() string {
	if c.Data != "" {
		return c.Data
	}
	return defaultData()
}

func defaultData() string { return filepath.Join(xdg.DataHome, "herald") }

// checkURL checks the URL of a service. An empty one is a mistake if the service is required.
func checkURL(v string, required bool, check func(string) error) error {
	switch {
	case v != "":
		return check(v)
	case required:
		return errors.New("is required")
	}
	return nil
}

// CheckDatabaseURL returns why the store cannot use a URL. It connects to nothing. The error does not repeat the URL, which may
// contain a password.
func CheckDatabaseURL(databaseURL string) error {
	if path, ok := strings.CutPrefix(databaseURL, "sqlite://"); ok {
		if path == "" {
			return errors.New("sqlite:// needs the path of a file: sqlite:///path/file.db")
		}
		return nil
	}
	if !strings.HasPrefix(databaseURL, "postgres://") && !strings.HasPrefix(databaseURL, "postgresql://") {
		return errors.New("must begin with postgres:// or sqlite://")
	}
	if _, err := url.Parse(databaseURL); err != nil {
		return errors.New("is not a URL; characters like / and # in a password are written as %2F and %23")
	}
	if _, err := pgxpool.ParseConfig(databaseURL); err != nil {
		text := err.Error()
		if _, cause, ok := strings.Cut(text, "`: "); ok { // "cannot parse `URL`: cause"
			text = cause
		}
		return fmt.Errorf("is not usable: %s", text)
	}
	return nil
}

// isAddress reports whether addr is host:port with a port that can be bound. The host may be empty.
func isAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}
