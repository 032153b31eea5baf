package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"

	"herald/pkg/app"
	"herald/pkg/config"
)

type demoCmd struct {
	Listen string `default:"127.0.0.1:8080" help:"Address of the API."`
	Leads  int    `default:"500" help:"How many leads the demo data has."`
	Once   bool   `help:"Exit when the demo is done instead of serving on."`
	JSON   bool   `help:"Print one JSON object instead of text."`
}

// sent is one single of the demo and its answer.
type sent struct {
	Name   string          `json:"name"`
	Answer json.RawMessage `json:"answer"`
}

// Run starts everything on a temporary directory, sends the examples and a bulk, and serves on.
func (d *demoCmd) Run(ctx context.Context) error {
	if d.Leads < len(exampleLeads) || d.Leads > 100_000 {
		return fmt.Errorf("%w: --leads must be from %d to 100000", errUsage, len(exampleLeads))
	}
	cfg, err := parse(0)
	if err != nil {
		return err
	}
	cfg.DatabaseURL, cfg.RedisURL, cfg.Listen = "", "", d.Listen
	if d.Once {
		cfg.Listen = "127.0.0.1:0" // nobody else is to reach it
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: max(cfg.LogLevel, slog.LevelError)}))
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
	d.printf("\nServing on. Try:\n  curl -s %s/api/messaging/bulk | head -c 600\nStop with Ctrl-C.\n", "http://"+cfg.Listen)
	<-ctx.Done()
	return nil
}

func (d *demoCmd) printf(format string, args ...any) {
	if !d.JSON {
		fmt.Printf(format, args...)
	}
}

// start loads the data, starts the parts, sends everything, and only then says that it is ready.
func (d *demoCmd) start(ctx context.Context, e *app.Embedded, cfg *config.Config) error {
	e.Hold()
	if err := seed(ctx, e.App, d.Leads); err != nil {
		return err
	}
	if err := e.StartWorker(); err != nil {
		return err
	}
	addr, err := e.StartAPI(ctx)
	if err != nil {
		return err
	}
	cfg.Listen = addr
	base := "http://" + addr
	d.printf("Herald demo on %s: SQLite, Redis in memory, and the providers' simulator, all in this process.\n\n", base)
	var singles []sent
	for _, ex := range singleExamples {
		answer, err := post(ctx, base, ex.body, "")
		if err != nil {
			return fmt.Errorf("%s: %w", ex.name, err)
		}
		singles = append(singles, sent{ex.name, answer})
		var a struct {
			Status            string `json:"status"`
			ProviderUsed      string `json:"provider_used"`
			ProviderMessageID string `json:"provider_message_id"`
		}
		if err := json.Unmarshal(answer, &a); err != nil {
			return err
		}
		d.printf("%-14s %s by %s (%s)\n", ex.name, a.Status, a.ProviderUsed, a.ProviderMessageID)
	}
	answer, err := d.bulk(ctx, base)
	if err != nil {
		return err
	}
	e.Release()
	if d.JSON {
		return printJSON(map[string]any{"singles": singles, "bulk": answer})
	}
	d.printf("\n%s\n", indent(answer))
	return nil
}

// bulk sends to every lead of the demo and shows how it goes.
func (d *demoCmd) bulk(ctx context.Context, base string) (json.RawMessage, error) {
	ids := make([]uuid.UUID, d.Leads)
	for i := range ids {
		ids[i] = leadID(i)
	}
	body, err := json.Marshal(map[string]any{
		"bulk_settings": map[string]any{"lead_ids": ids},
		"message_data": map[string]any{
			"subject": `Hello {{ first_name | default: "there" }}`, "content": "News for {{ company | default: \"you\" }}.",
			"html_content": "<p>News for {{ company | default: \"you\" }}.</p>", "sender_name": "Herald Demo",
		},
		"message_type": "MARKETING",
	})
	if err != nil {
		return nil, err
	}
	answer, err := post(ctx, base, string(body), "respond-async")
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	d.printf("\nA bulk to %d leads:\n", d.Leads)
	show := newProgress(d.Leads, d.JSON)
	for {
		var st struct {
			BulkID string `json:"bulk_id"`
			Status string `json:"status"`
			Sent   int    `json:"messages_sent"`
			Failed int    `json:"messages_failed"`
		}
		if err := json.Unmarshal(answer, &st); err != nil {
			return nil, err
		}
		show(st.Sent + st.Failed)
		if st.Status == "COMPLETED" {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if answer, err = get(ctx, base+"/api/messaging/bulk/"+st.BulkID); err != nil {
			return nil, err
		}
	}
}

// newProgress returns a function that shows how far a bulk is: a bar on a terminal, a line a second elsewhere.
func newProgress(total int, quiet bool) func(done int) {
	if quiet {
		return func(int) {}
	}
	if st, err := os.Stdout.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
		bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stdout), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("messages"), progressbar.OptionSetWidth(40), progressbar.OptionOnCompletion(func() { fmt.Println() }))
		return func(done int) { _ = bar.Set(done) }
	}
	var last time.Time
	shown := -1
	return func(done int) {
		if done != shown && (time.Since(last) > time.Second || done == total) {
			last, shown = time.Now(), done
			fmt.Printf("  %d of %d\n", done, total)
		}
	}
}

func indent(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return string(b)
	}
	return out.String()
}

func post(ctx context.Context, base, body, prefer string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/messaging/send", bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	return do(req)
}

func get(ctx context.Context, url string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return do(req)
}

func do(req *http.Request) (json.RawMessage, error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status + ": " + string(b))
	}
	return b, nil
}
