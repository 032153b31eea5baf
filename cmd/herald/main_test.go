package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
)

// execute runs a command line and returns its exit code and what it printed.
func execute(t *testing.T, args ...string) (int, []byte) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	printed := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r)
		printed <- b
	}()
	code := run(args)
	_ = w.Close()
	return code, <-printed
}

func TestDemoOnce(t *testing.T) {
	code, out := execute(t, "demo", "--once", "--json", "--leads", "400")
	var got struct {
		Singles []struct {
			Answer struct {
				Success bool
				Status  string
			}
		}
		Bulk struct {
			Total   int            `json:"total_leads"`
			Sent    int            `json:"messages_sent"`
			Failed  int            `json:"messages_failed"`
			Pending int            `json:"messages_pending"`
			Reasons map[string]int `json:"failure_reasons"`
			Status  string
		}
	}
	if err := json.Unmarshal(out, &got); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	if len(got.Singles) != 3 {
		t.Fatalf("%d singles", len(got.Singles))
	}
	for _, s := range got.Singles {
		if !s.Answer.Success || s.Answer.Status != "SENT" {
			t.Errorf("%+v", s)
		}
	}
	failed := 0
	for _, n := range got.Bulk.Reasons {
		failed += n
	}
	b := got.Bulk
	if b.Status != "COMPLETED" || b.Total != 400 || b.Sent+b.Failed != 400 || b.Pending != 0 || failed != b.Failed || len(b.Reasons) != 4 {
		t.Errorf("%+v", b)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"demo", "--leads", "1"}, {"demo", "--leads", "x"}, {"migrate", "down"}, {}} {
		if code, _ := execute(t, args...); code != 2 {
			t.Errorf("%v: exit code %d, want 2", args, code)
		}
	}
	if code, out := execute(t, "--help"); code != 0 || len(out) == 0 {
		t.Errorf("--help: exit code %d, %q", code, out)
	}
}

func TestMigrateAndConfig(t *testing.T) {
	t.Setenv("DATABASE_URL", "sqlite://"+t.TempDir()+"/x.db")
	t.Setenv("HERALD_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	if code, out := execute(t, "migrate", "--json"); code != 0 || !json.Valid(out) {
		t.Errorf("migrate: %d %s", code, out)
	}
	var status struct {
		Migrations []struct {
			AppliedAt *string `json:"applied_at"`
		}
		Backfills []struct {
			Name, State string
			RowsDone    *int64 `json:"rows_done"`
		}
	}
	if code, out := execute(t, "migrate", "status", "--json"); code != 0 || json.Unmarshal(out, &status) != nil || len(status.Migrations) == 0 || status.Migrations[0].AppliedAt == nil ||
		len(status.Backfills) == 0 || status.Backfills[0].State != "pending" || status.Backfills[0].RowsDone == nil || *status.Backfills[0].RowsDone != 0 {
		t.Errorf("status: %d %s", code, out)
	}
	if code, out := execute(t, "migrate", "status"); code != 0 || !strings.Contains(string(out), status.Backfills[0].Name) || !strings.Contains(string(out), "ROWS DONE") {
		t.Errorf("status: %d %s", code, out)
	}
	if code, out := execute(t, "config"); code != 0 || len(out) == 0 {
		t.Errorf("config: %d", code)
	}
	t.Setenv("HERALD_BULK_WAIT", "soon")
	if code, _ := execute(t, "config", "--json"); code != 2 {
		t.Errorf("config with a mistake: exit code %d", code)
	}
}
