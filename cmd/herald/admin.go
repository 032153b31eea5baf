package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"herald/pkg/app"
	"herald/pkg/config"
	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/store/records"
	"herald/pkg/version"
)

// printJSON prints a value as indented JSON.
func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// parse reads the settings, and warns about variables that are none. Invalid settings are errUsage.
func parse() (*config.Config, error) {
	warnOfUnknown()
	return settings()
}

func warnOfUnknown() {
	for _, u := range config.UnknownSettings(os.Environ()) {
		fmt.Fprintln(os.Stderr, "herald: warning:", u)
	}
}

// settings is parse without warnings.
func settings() (*config.Config, error) {
	cfg, err := config.Parse(0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return cfg, nil
}

// openStore opens DATABASE_URL or the embedded file. A nil sealer is allowed if no credentials are read or written.
func openStore(ctx context.Context, cfg *config.Config, sealer *seal.Sealer) (*app.Stores, error) {
	if cfg.DatabaseURL == "" {
		if err := os.MkdirAll(cfg.DataDir(), 0o700); err != nil {
			return nil, err
		}
		cfg.DatabaseURL = "sqlite://" + filepath.Join(cfg.DataDir(), "herald.db")
	}
	return app.OpenStores(ctx, cfg.DatabaseURL, 0, sealer)
}

// openCurrent is openStore on a schema that must be up to date.
func openCurrent(ctx context.Context, cfg *config.Config, sealer *seal.Sealer) (*app.Stores, error) {
	s, err := openStore(ctx, cfg, sealer)
	if err != nil {
		return nil, err
	}
	if err := s.DB.CheckSchema(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

type migrateCmd struct {
	Action string `arg:"" optional:"" default:"up" enum:"up,status" help:"up applies the migrations; status lists them and the backfills, with the rows done."`
	JSON   bool   `help:"Print JSON."`
}

// Run brings the schema of DATABASE_URL, or of the embedded file, up to date, or shows its state.
func (m *migrateCmd) Run(ctx context.Context) error {
	cfg, err := parse()
	if err != nil {
		return err
	}
	s, err := openStore(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if m.Action == "up" {
		names, err := s.DB.Migrate(ctx)
		if err != nil {
			return err
		}
		if m.JSON {
			return printJSON(map[string]any{"applied": append([]string{}, names...)})
		}
		for _, n := range names {
			fmt.Println("applied", n)
		}
		fmt.Println("the schema is up to date")
		return nil
	}
	return m.status(ctx, s.DB)
}

// status prints the migrations of the schema, and the data migrations that workers execute while they serve.
func (m *migrateCmd) status(ctx context.Context, db *store.DB) error {
	migrations, err := db.MigrationStatus(ctx)
	if err != nil {
		return err
	}
	backfills, err := db.BackfillStatus(ctx, records.Backfills())
	if err != nil {
		return err
	}
	if m.JSON {
		return printJSON(map[string]any{"migrations": migrations, "backfills": backfills})
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MIGRATION\tAPPLIED")
	for _, st := range migrations {
		when := "pending"
		if st.AppliedAt != nil {
			when = st.AppliedAt.Format(time.RFC3339)
		}
		if st.Unknown {
			when += " by a newer version; this version does not know it and does not start"
		}
		fmt.Fprintf(w, "%s\t%s\n", st.Name, when)
	}
	fmt.Fprintln(w, "\nBACKFILL\tSTATE\tROWS DONE")
	for _, b := range backfills {
		fmt.Fprintf(w, "%s\t%s\t%d\n", b.Name, b.State, b.RowsDone)
	}
	return w.Flush()
}

type configCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run shows the settings. It fails if any of them is invalid.
func (c *configCmd) Run() error {
	warnOfUnknown()
	cfg, err := config.Parse(0)
	if c.JSON {
		if perr := printJSON(cfg.Settings()); perr != nil {
			return perr
		}
	} else {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SETTING\tVALUE\tDEFAULT\tMEANING")
		for _, s := range cfg.Settings() {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Value, s.Default, s.Help)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}

type serveCmd struct {
	Listen string `help:"Address of the API; default HERALD_LISTEN."`
}

// Run serves until a signal arrives.
func (s *serveCmd) Run(ctx context.Context) error {
	cfg, err := settings()
	if err != nil {
		warnOfUnknown() // otherwise they are in the log
		return err
	}
	if s.Listen != "" {
		cfg.Listen = s.Listen
	}
	log := cfg.Logger()
	app.LogStart(log)
	e, err := app.OpenEmbedded(ctx, cfg, cfg.DataDir(), false, log)
	if err != nil {
		return err
	}
	defer e.Stop()
	if err := e.StartAdmin("127.0.0.1:0"); err != nil {
		return err
	}
	if err := e.StartWorker(); err != nil {
		return err
	}
	addr, err := startAPI(ctx, e)
	if err != nil {
		return err
	}
	log.Info("herald serves", "api", "http://"+addr, "data", cfg.DataDir())
	<-ctx.Done()
	e.Drain()
	return nil
}

// startAPI starts the API of a command with the flag --listen, and returns the address that it has bound.
func startAPI(ctx context.Context, e *app.Embedded) (string, error) {
	addr, err := e.StartAPI(ctx)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w, or pass it as --listen", err)
	}
	return addr, err
}

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run prints the build of this program.
func (v *versionCmd) Run() error {
	if v.JSON {
		return printJSON(version.Get())
	}
	_, err := fmt.Println("herald", version.Get())
	return err
}

type openapiCmd struct{}

// Run prints the OpenAPI document.
func (o *openapiCmd) Run() error {
	b, err := app.Document()
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(b))
	return err
}
