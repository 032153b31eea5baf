package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"herald/pkg/config"
	"herald/pkg/redisconn"
	"herald/pkg/version"
)

// Exit codes of every program.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Role is the task of a server process.
type Role string

// The roles.
const (
	RoleAPI    Role = "api"
	RoleWorker Role = "worker"
)

// Main runs a server process of one role until it receives SIGINT or SIGTERM, and returns its exit code. Its only arguments
// are --version, and --healthcheck, which asks the running process of this role on this machine whether it is alive.
func Main(role Role, args []string) int {
	switch {
	case len(args) == 1 && args[0] == "--version":
		fmt.Println("herald", role, version.Get())
		return ExitDone
	case len(args) > 1, len(args) == 1 && args[0] != "--healthcheck":
		fmt.Fprintf(os.Stderr, "usage: %s [--healthcheck | --version]\nSettings are environment variables; `herald config` lists them.\n", role)
		return ExitUsage
	}
	cfg, err := config.Parse(config.Database | config.Redis | config.MasterKey)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		for _, u := range config.UnknownSettings(os.Environ()) { // a required setting may be missing because it is misspelt
			fmt.Fprintln(os.Stderr, "warning:", u)
		}
		return ExitUsage
	}
	if len(args) == 1 {
		return healthcheck(adminAddress(role, cfg))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, role, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitFailed
	}
	return ExitDone
}

func adminAddress(role Role, cfg *config.Config) string {
	switch {
	case cfg.AdminListen != "":
		return cfg.AdminListen
	case role == RoleAPI:
		return "127.0.0.1:9101"
	default:
		return "127.0.0.1:0"
	}
}

// LogStart writes the first lines of a server's log: which build starts, and which variables it does not know.
func LogStart(log *slog.Logger) {
	v := version.Get()
	log.Info("herald starts", "version", v.Version, "revision", v.Revision, "go", v.Go)
	for _, u := range config.UnknownSettings(os.Environ()) {
		log.Warn("unknown setting", "variable", u.Name, "nearest", u.Nearest)
	}
}

func serve(ctx context.Context, role Role, cfg *config.Config) error {
	log := cfg.Logger().With("role", string(role))
	LogStart(log)
	redisconn.SetLogger(log)
	limitMemory()
	if role == RoleAPI {
		boundAPIMemory()
	}
	paceCollector()
	a, err := Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer a.Stop()
	if err := a.StartAdmin(adminAddress(role, cfg)); err != nil {
		return err
	}
	if role == RoleAPI {
		addr, err := a.StartAPI(ctx)
		if err != nil {
			return err
		}
		log.Info("api listens", "address", addr)
	} else {
		if err := a.StartWorker(); err != nil {
			return err
		}
		log.Info("worker started", "concurrency", cfg.Concurrency.String())
	}
	<-ctx.Done()
	a.Drain()
	log.Info("stopping")
	return nil
}

// healthcheck asks the admin listener of a process on this machine for /healthz.
func healthcheck(addr string) int {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && port == "0" {
		err = errors.New("HERALD_ADMIN_LISTEN has no fixed port")
	}
	if err == nil {
		if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
			host = "127.0.0.1"
		}
		err = ask("http://" + net.JoinHostPort(host, port) + "/healthz")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "not healthy:", err)
		return ExitFailed
	}
	return ExitDone
}

func ask(url string) error {
	c := &http.Client{Timeout: 3 * time.Second}
	res, err := c.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}
