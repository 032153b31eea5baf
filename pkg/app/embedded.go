package app

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gofrs/flock"

	"herald/pkg/config"
	"herald/pkg/provider/simulator"
	"herald/pkg/provider/vendors"
	"herald/pkg/store"
)

// Embedded is an App that has its services in the same process: a SQLite file, Redis in memory and the provider simulator.
// DATABASE_URL and REDIS_URL take precedence over the embedded services.
type Embedded struct {
	*App
	Simulator *simulator.Simulator
	lock      *flock.Flock // of the directory; nil if its database is not used
	redis     *miniredis.Miniredis
	stop      context.CancelFunc
	wg        sync.WaitGroup
}

// redisTick is the interval at which the clock of the in-memory Redis advances. Its keys expire only then.
const redisTick = 100 * time.Millisecond

// OpenEmbedded opens an App that keeps its data in a directory. With simulate, messages go to the simulator instead of the
// providers.
func OpenEmbedded(ctx context.Context, cfg *config.Config, dir string, simulate bool, log *slog.Logger) (*Embedded, error) {
	e := &Embedded{}
	if err := e.prepare(cfg, dir, simulate); err != nil {
		e.stopParts()
		return nil, err
	}
	if err := migrate(ctx, cfg.DatabaseURL); err != nil {
		e.stopParts()
		return nil, err
	}
	a, err := Open(ctx, cfg, log)
	if err != nil {
		e.stopParts()
		return nil, err
	}
	e.App = a
	return e, nil
}

func (e *Embedded) prepare(cfg *config.Config, dir string, simulate bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if cfg.DatabaseURL == "" {
		if err := e.lockDir(dir); err != nil {
			return err
		}
		cfg.DatabaseURL = "sqlite://" + filepath.Join(dir, "herald.db")
	}
	if cfg.MasterKey == "" {
		key, err := EmbeddedMasterKey(dir)
		if err != nil {
			return err
		}
		cfg.MasterKey = config.Masked(key)
	}
	cfg.Open = config.OpenLoopback
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	if cfg.RedisURL == "" {
		e.redis = miniredis.NewMiniRedis()
		if err := e.redis.Start(); err != nil {
			return fmt.Errorf("start the in-memory Redis: %w", err)
		}
		cfg.RedisURL = "redis://" + e.redis.Addr()
		e.wg.Go(func() { e.tick(ctx) })
	}
	if simulate {
		return e.simulate(cfg)
	}
	return nil
}

// lockFile is locked while a process serves a directory. The lock ends with the process; the file stays.
const lockFile = "herald.lock"

// lockDir makes sure that one process serves a directory: two would each have their own Redis, and send the messages of each
// other's bulks. Commands that only open the database need no lock.
func (e *Embedded) lockDir(dir string) error {
	l := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("lock the data directory: %w", err)
	case !ok:
		return fmt.Errorf("another herald process serves the data directory %s (it holds %s): stop it, or set HERALD_DATA to another directory", dir, lockFile)
	}
	e.lock = l
	return nil
}

func (e *Embedded) tick(ctx context.Context) {
	t := time.NewTicker(redisTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.redis.FastForward(redisTick)
		}
	}
}

func (e *Embedded) simulate(cfg *config.Config) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	e.Simulator = simulator.New()
	e.wg.Go(func() { _ = e.Simulator.Serve(l) })
	u := "http://" + l.Addr().String()
	for _, name := range vendors.All.Names() {
		cfg.ProviderURLs[name] = u
	}
	return nil
}

// Stop stops the App and then its services.
func (e *Embedded) Stop() {
	e.App.Stop()
	e.stopParts()
}

func (e *Embedded) stopParts() {
	if e.stop != nil {
		e.stop()
	}
	if e.Simulator != nil {
		e.Simulator.Close()
	}
	e.wg.Wait()
	if e.redis != nil {
		e.redis.Close()
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
}

func migrate(ctx context.Context, databaseURL string) error {
	s, err := store.Open(ctx, databaseURL, store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Migrate(ctx)
	return err
}

// EmbeddedMasterKey returns the master key that is stored in a directory. It creates the key if necessary, in a file that
// only the user can read.
func EmbeddedMasterKey(dir string) (string, error) {
	path := filepath.Join(dir, "master.key")
	b, err := os.ReadFile(path) //nolint:gosec // the path is the user's own data directory
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("master key: %w", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("master key: %w", err)
	}
	s := base64.StdEncoding.EncodeToString(key)
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		return "", fmt.Errorf("master key: %w", err)
	}
	return s, nil
}
