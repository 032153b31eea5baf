package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"herald/pkg/app"
	"herald/pkg/client"
	"herald/pkg/config"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/redact"
)

type demoCmd struct {
	Listen string `help:"Address of the API; default HERALD_LISTEN."`
	Leads  int    `default:"500" help:"Number of leads in the demo data."`
	Once   bool   `help:"Exit when the demo is complete."`
	JSON   bool   `help:"Print one JSON object instead of text."`
}

// sent is a single of the demo and its response.
type sent struct {
	Name   string          `json:"name"`
	Answer json.RawMessage `json:"answer"`
}

// Run starts everything in a temporary directory, sends the examples and a bulk, and keeps serving.
func (d *demoCmd) Run(ctx context.Context) error {
	if d.Leads < len(exampleLeads) || d.Leads > 100_000 {
		return fmt.Errorf("%w: --leads must be from %d to 100000", errUsage, len(exampleLeads))
	}
	cfg, err := parse()
	if err != nil {
		return err
	}
	cfg.DatabaseURL, cfg.RedisURL = "", ""
	switch {
	case d.Once:
		cfg.Listen = "127.0.0.1:0" // the demo itself makes all requests
	case d.Listen != "":
		cfg.Listen = d.Listen
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: max(cfg.LogLevel, slog.LevelError), ReplaceAttr: redact.Attr}))
	dir, err := os.MkdirTemp("", "herald-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e, err := app.OpenEmbedded(ctx, cfg, dir, true, log)
	if err != nil {
		return err
	}
	defer e.Stop()
	if err := d.start(ctx, e, cfg); err != nil {
		return err
	}
	if d.Once {
		return nil
	}
	d.printf("\nHerald keeps running. Try:\n  curl -s %s/api/messaging/bulk | head -c 600\nStop with Ctrl-C.\n", "http://"+cfg.Listen)
	<-ctx.Done()
	return nil
}

func (d *demoCmd) printf(format string, args ...any) {
	if !d.JSON {
		fmt.Printf(format, args...)
	}
}

// start loads the data, starts the parts and sends everything. It reports readiness afterwards.
func (d *demoCmd) start(ctx context.Context, e *app.Embedded, cfg *config.Config) error {
	e.Hold()
	if err := seed(ctx, e.App, d.Leads); err != nil {
		return err
	}
	if err := e.StartWorker(); err != nil {
		return err
	}
	addr, err := startAPI(ctx, e)
	if err != nil {
		return err
	}
	cfg.Listen = addr
	base := "http://" + addr
	d.printf("Herald demo on %s: SQLite, Redis in memory and the provider simulator, all in this process.\n\n", base)
	api, err := client.New(base)
	if err != nil {
		return err
	}
	var singles []sent
	for _, example := range contract.TypeExamples() {
		t, _ := message.ParseChannelType(example) // the name of a type
		label := t.Spec().Label
		answer, err := api.SendJSON(ctx, []byte(contract.Example(example)))
		if err != nil {
			return fmt.Errorf("%s: %w", label, err)
		}
		singles = append(singles, sent{label, answer})
		var a client.SendResponse
		if err := json.Unmarshal(answer, &a); err != nil {
			return err
		}
		d.printf("%-14s %s by %s (%s)\n", label, a.Status, a.ProviderUsed, *a.ProviderMessageID)
	}
	answer, err := d.bulk(ctx, api)
	if err != nil {
		return err
	}
	e.Release()
	if d.JSON {
		return printJSON(map[string]any{"singles": singles, "bulk": answer})
	}
	d.printf("\n%s", bulkText(answer))
	return nil
}

// bulk sends a bulk to all leads of the demo and shows its progress.
func (d *demoCmd) bulk(ctx context.Context, api *client.Client) (*client.Bulk, error) {
	ids := make([]string, d.Leads)
	for i := range ids {
		ids[i] = leadID(i).String()
	}
	b, err := api.SendBulk(ctx, client.SendRequest{
		BulkSettings: &client.BulkSettings{LeadIDs: ids},
		MessageData: client.MessageData{
			Subject: `Hello {{ first_name | default: "there" }}`, Content: `News for {{ company | default: "you" }}.`,
			HTMLContent: `<p>News for {{ company | default: "you" }}.</p>`, SenderName: "Herald Demo",
		},
		MessageType: message.Marketing,
	})
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	d.printf("\nA bulk to %d leads:\n", d.Leads)
	show := newProgress("messages", d.JSON)
	for b, err = range api.WatchBulk(ctx, b.BulkID) {
		if err != nil {
			return nil, err
		}
		show(b.MessagesSent+b.MessagesFailed, int64(d.Leads))
	}
	return b, nil
}

// newProgress returns a function that shows progress: a bar on a terminal, a line per second elsewhere, nothing if quiet.
func newProgress(unit string, quiet bool) func(done, total int64) {
	if quiet {
		return func(int64, int64) {}
	}
	if st, err := os.Stdout.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
		bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(os.Stdout), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString(unit), progressbar.OptionSetWidth(40), progressbar.OptionOnCompletion(func() { fmt.Println() }))
		return func(done, total int64) {
			bar.ChangeMax64(max(total, 1))
			_ = bar.Set64(done)
		}
	}
	var last time.Time
	shown := int64(-1)
	return func(done, total int64) {
		if done != shown && (time.Since(last) > time.Second || done == total) {
			last, shown = time.Now(), done
			fmt.Printf("  %d of %d %s\n", done, total, unit)
		}
	}
}

// indent formats JSON for reading. Text that is not JSON is returned unchanged.
func indent(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return string(b)
	}
	return out.String()
}
