package app_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/pkg/access"
	"herald/pkg/app"
	"herald/pkg/channel"
	"herald/pkg/config"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/testenv"
)

func embedded(t *testing.T, change func(*config.Config)) *app.Embedded {
	t.Helper()
	cfg, err := config.Parse(0)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen, cfg.DatabaseURL, cfg.RedisURL = "127.0.0.1:0", "", ""
	if change != nil {
		change(cfg)
	}
	dir := filepath.Join(t.TempDir(), "data")
	e, err := app.OpenEmbedded(t.Context(), cfg, dir, true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "master.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the master key's file: %v, %v", st, err)
	}
	return e
}

// Everything that starts also stops, and leaves no goroutine behind.
func TestStartAndStopLeaveNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	for range 2 {
		e := embedded(t, nil)
		if err := e.StartWorker(); err != nil {
			t.Fatal(err)
		}
		if err := e.StartAdmin("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		addr, err := e.StartAPI(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Get("http://" + addr + "/readyz")
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", res, err)
		}
		_ = res.Body.Close()
		e.Stop()
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, ignore)
}

func TestReadinessIsHeldBack(t *testing.T) {
	e := embedded(t, nil)
	defer e.Stop()
	e.Hold()
	if h := e.Ready(t.Context()); h.Ready || h.Code() != http.StatusServiceUnavailable {
		t.Errorf("%+v", h)
	}
	e.Release()
	if h := e.Ready(t.Context()); !h.Ready || h.Degraded {
		t.Errorf("%+v", h)
	}
}

// Without API keys the API does not listen beyond loopback.
func TestTheAPIStaysOnLoopback(t *testing.T) {
	e := embedded(t, func(c *config.Config) { c.Listen = "0.0.0.0:0" })
	defer e.Stop()
	if _, err := e.StartAPI(t.Context()); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("listens on every address: %v", err)
	}
	if _, err := e.Keys.Create(t.Context(), &access.Key{Scopes: access.Scopes}, true); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, "with a key it listens everywhere", func() bool {
		_, err := e.StartAPI(t.Context())
		return err == nil
	})
}

// A process without the master key of what is stored does not start, and one that has it beside another does.
func TestMasterKeysOfWhatIsStored(t *testing.T) {
	url := testenv.Database(t, testenv.SQLite)
	open := func(key, previous string) (*app.Embedded, error) {
		cfg, err := config.Parse(0)
		if err != nil {
			t.Fatal(err)
		}
		cfg.DatabaseURL, cfg.RedisURL, cfg.MasterKey, cfg.PreviousKeys = url, "", config.Masked(key), config.Masked(previous)
		return app.OpenEmbedded(t.Context(), cfg, t.TempDir(), true, slog.New(slog.DiscardHandler))
	}
	before, after := testenv.MasterKey(), testenv.MasterKey()
	e, err := open(before, "")
	if err != nil {
		t.Fatal(err)
	}
	ch := &channel.Channel{Key: channel.Key{Type: message.Email}, Name: "x", Sender: "a@acme.test", Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("SG.x")}}
	if err := e.Channels.Create(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	e.Stop()
	if _, err := open(after, ""); err == nil || !strings.Contains(err.Error(), "which is not configured") {
		t.Fatalf("starts without the key: %v", err)
	}
	for _, want := range []int{1, 0} {
		e, err = open(after, before)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Stores.Channels.Channel(t.Context(), ch.Key)
		if err != nil || got.Credentials["api_key"].Reveal() != "SG.x" {
			t.Errorf("the credential does not open: %v", err)
		}
		if n, err := e.Stores.Channels.Reseal(t.Context()); n != want || err != nil {
			t.Errorf("%d sealed anew, %v, want %d", n, err, want)
		}
		e.Stop()
	}
	if e, err = open(after, ""); err != nil {
		t.Fatalf("sealed anew, and the new key alone does not do: %v", err)
	}
	e.Stop()
}

// If a default address is in use, a free port is taken. If a configured address is in use, the process does not start.
func TestAdminAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := embedded(t, nil)
	defer e.Stop()
	if err := e.StartAdmin(l.Addr().String()); err != nil {
		t.Errorf("the default: %v", err)
	}
	asked := embedded(t, func(c *config.Config) { c.AdminListen = l.Addr().String() })
	defer asked.Stop()
	if err := asked.StartAdmin("127.0.0.1:0"); err == nil {
		t.Error("an address that was asked for gave way")
	}
}

// Without Redis bulks are accepted and singles are delivered; the process says that it is degraded.
func TestWithoutRedis(t *testing.T) {
	e := embedded(t, func(c *config.Config) { c.RedisURL = testenv.NoRedis(t) })
	defer e.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if h := e.Health(ctx); !h.Ready || !h.Degraded {
		t.Errorf("%+v", h)
	}
	addr, err := e.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"/api/channels", `{"type":"EMAIL","name":"x","sender":"a@acme.test","credentials":{"api_key":"SG.x"},"default":true}`, `"ACTIVE"`, 201},
		{"/api/messaging/send", `{"message_data":{"recipient":"x@example.com","subject":"s","content":"c"}}`, `"SENT"`, 200},
		{"/api/messaging/send", `{"bulk_settings":{"lead_ids":["550e8400-e29b-41d4-a716-446655440001"]},"message_data":{"subject":"s","content":"c"}}`, `"PROCESSING"`, 200},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", "respond-async")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %d %s", c.path, res.StatusCode, b)
		}
	}
}
