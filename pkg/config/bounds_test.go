package config

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/pkg/message"
)

const someKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// parse parses the environment with some variables set.
func parse(t *testing.T, need Need, set map[string]string) (*Config, error) {
	t.Helper()
	for name, value := range set {
		t.Setenv(name, value)
	}
	return Parse(need)
}

// Each setting accepts the values at its bounds and refuses the ones beyond, naming the variable.
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name string
		good []string
		bad  []string
	}{
		{"HERALD_KEY_RATE", []string{"0", "0.5", "1000000"}, []string{"-0.1", "1000001", "many", "NaN"}},
		{"HERALD_DRAIN_DELAY", []string{"0", "0s", "5m"}, []string{"-1ns", "301s", "soon"}},
		{"HERALD_BULK_WAIT", []string{"0s", "60s"}, []string{"-1ns", "60000000001ns", "10"}},
		{"HERALD_UNKNOWN_HOLD", []string{"1s", "24h"}, []string{"999ms", "0s"}},
		{"HERALD_IN_FLIGHT", []string{"1", "100000"}, []string{"0", "100001"}},
		{"HERALD_QUEUE_PREFETCH", []string{"1", "10000"}, []string{"0", "10001"}},
		{"HERALD_FEED_WINDOW", []string{"0", "1000000"}, []string{"-1", "1000001"}},
		{"HERALD_DATABASE_MAX_CONNS", []string{"4", "1000"}, []string{"3", "1001"}},
		{"HERALD_WORKER_CONCURRENCY", []string{"1", "5000", "email=1"}, []string{"0", "5001", "email=5001", "email=-1"}},
		{"HERALD_LOG_FORMAT", []string{"text", "json"}, []string{"xml", "JSON"}},
		{"HERALD_LOG_LEVEL", []string{"debug", "info", "warn", "error"}, []string{"loud"}},
		{"HERALD_LISTEN", []string{"127.0.0.1:0", ":8080", "[::1]:1"}, []string{"8080", "localhost", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http"}},
		{"HERALD_ADMIN_LISTEN", []string{"127.0.0.1:0", ":1"}, []string{"1", "localhost"}},
		{"HERALD_URL", []string{"http://x.test", "https://x.test:8443"}, []string{"x.test", "ftp://x.test", "http://", "http://%zz"}},
		{"HERALD_MASTER_KEY", []string{someKey}, []string{"c2hvcnQ=", "not base64"}},
		{"HERALD_MASTER_KEY_PREVIOUS", []string{someKey, someKey + "," + someKey, ","}, []string{"c2hvcnQ=", someKey + ",x"}},
		{"HERALD_OPEN", []string{"loopback"}, []string{"all"}},
	} {
		for _, value := range c.good {
			t.Run(c.name+"="+value, func(t *testing.T) {
				if _, err := parse(t, 0, map[string]string{c.name: value}); err != nil {
					t.Error(err)
				}
			})
		}
		for _, value := range c.bad {
			t.Run(c.name+"="+value, func(t *testing.T) {
				if _, err := parse(t, 0, map[string]string{c.name: value}); err == nil || !strings.HasPrefix(err.Error(), c.name+": ") {
					t.Errorf("got %v, want an error that begins with the variable", err)
				}
			})
		}
	}
}

// A program refuses to start without exactly the settings that it needs.
func TestNeeds(t *testing.T) {
	need := map[string]Need{"DATABASE_URL": Database, "REDIS_URL": Redis, "HERALD_MASTER_KEY": MasterKey}
	for name, flag := range need {
		for other := range need {
			t.Setenv(other, "")
		}
		_, err := Parse(flag)
		if err == nil || !strings.HasPrefix(err.Error(), name+": is required") || strings.Contains(err.Error(), "\n") {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := Parse(0); err != nil {
		t.Errorf("a program that needs nothing: %v", err)
	}
	if _, err := parse(t, Database|Redis|MasterKey, map[string]string{"DATABASE_URL": "sqlite://x", "REDIS_URL": "unix:///x", "HERALD_MASTER_KEY": someKey}); err != nil {
		t.Errorf("with everything: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	for _, s := range (&Config{}).Settings() {
		t.Setenv(s.Name, "")
		if err := os.Unsetenv(s.Name); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Parse(0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:8080" || c.AdminListen != "" || c.Open != "" || c.PProf || c.BulkWait != 10*time.Second || c.DrainDelay != 5*time.Second || c.UnknownHold != 5*time.Minute ||
		c.KeyRate != 1000 || c.InFlight != 512 || c.FeedWindow != 0 || c.QueuePrefetch != 100 || c.DatabaseMaxConns != 24 || c.LogLevel != slog.LevelInfo {
		t.Errorf("%+v", c)
	}
	for _, spec := range message.TypeSpecs() {
		if c.Concurrency[spec.Type] != spec.Concurrency {
			t.Errorf("sends in flight of %s: %d, want %d", spec.Type, c.Concurrency[spec.Type], spec.Concurrency)
		}
	}
	if len(c.Concurrency) != len(message.ChannelTypes) || c.Concurrency[message.Email] != 1000 || c.Concurrency[message.SMS] != 400 || c.Concurrency[message.InstagramDM] != 200 {
		t.Errorf("sends in flight: %s", c.Concurrency)
	}
	for _, s := range c.Settings() {
		if s.Value != s.Default && (s.Default != "" || (s.Value != "0" && s.Value != "[]")) && !sameDuration(s.Value, s.Default) && !strings.EqualFold(s.Value, s.Default) {
			t.Errorf("%s is %q, its default is %q", s.Name, s.Value, s.Default)
		}
	}
}

func sameDuration(a, b string) bool {
	x, err := time.ParseDuration(a)
	y, other := time.ParseDuration(b)
	return err == nil && other == nil && x == y
}

// A channel type that the setting does not name gets unlistedConcurrency.
func TestConcurrencyOfUnlistedTypes(t *testing.T) {
	c, err := parse(t, 0, map[string]string{"HERALD_WORKER_CONCURRENCY": "sms=5"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Concurrency[message.SMS] != 5 || c.Concurrency[message.Email] != unlistedConcurrency || c.Concurrency[message.InstagramDM] != unlistedConcurrency {
		t.Errorf("%s", c.Concurrency)
	}
}

func TestOtherKeys(t *testing.T) {
	c := &Config{PreviousKeys: someKey + "," + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}
	keys, err := c.OtherKeys()
	if err != nil || len(keys) != 2 || keys[0][0] != 0 || keys[1][0] != 1 {
		t.Errorf("%v, %v", keys, err)
	}
	if keys, err := (&Config{}).OtherKeys(); err != nil || len(keys) != 0 {
		t.Errorf("without the setting: %v, %v", keys, err)
	}
}

// stderr returns what do writes to standard error.
func stderr(t *testing.T, do func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = w
	do()
	os.Stderr = before
	_ = w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The logger writes the chosen format and levels, and redacts what it did not choose.
func TestLogger(t *testing.T) {
	write := func(c Config) string {
		return stderr(t, func() {
			log := c.Logger()
			log.Debug("unimportant")
			log.Warn("important", "error", "mail to ann@example.com failed")
		})
	}
	for name, c := range map[string]struct {
		config Config
		json   bool
		lines  int
	}{
		"text":                      {Config{LogFormat: "text"}, false, 1},
		"json":                      {Config{LogFormat: "json"}, true, 1},
		"no terminal":               {Config{}, true, 1},
		"debug":                     {Config{LogFormat: "json", LogLevel: slog.LevelDebug}, true, 2},
		"error hides what is below": {Config{LogFormat: "json", LogLevel: slog.LevelError}, true, 0},
	} {
		out := write(c.config)
		lines := slices.DeleteFunc(bytes.Split([]byte(out), []byte("\n")), func(l []byte) bool { return len(l) == 0 })
		if len(lines) != c.lines {
			t.Errorf("%s: %d lines: %s", name, len(lines), out)
		}
		for _, line := range lines {
			if json.Valid(line) != c.json {
				t.Errorf("%s: %s", name, line)
			}
		}
		if strings.Contains(out, "ann@example.com") {
			t.Errorf("%s shows an address: %s", name, out)
		}
	}
}
