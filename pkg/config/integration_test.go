package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The URLs of the services are checked with all other settings, in one list, before anything connects.
func TestIntegrationMistakesInURLsAreInTheList(t *testing.T) {
	_, err := parse(t, Database|Redis|MasterKey, map[string]string{
		"DATABASE_URL": "mysql://db/herald", "REDIS_URL": "http://redis:6379", "HERALD_MASTER_KEY": "c2hvcnQ=", "HERALD_KEY_RATE": "-1",
	})
	if err == nil {
		t.Fatal("invalid settings are accepted")
	}
	var named []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		name, _, _ := strings.Cut(line, ":")
		named = append(named, name)
	}
	if d := cmp.Diff([]string{"DATABASE_URL", "REDIS_URL", "HERALD_MASTER_KEY", "HERALD_KEY_RATE"}, named); d != "" {
		t.Errorf("%s in %v", d, err)
	}
}

func TestIntegrationURLsOfServices(t *testing.T) {
	const password = "s3cret"
	for _, c := range []struct {
		name, value, says string // says: empty for a valid URL
	}{
		{"DATABASE_URL", "postgres://herald:" + password + "@db:5432/herald?sslmode=disable", ""},
		{"DATABASE_URL", "postgresql://db/herald?pool_max_conns=7", ""},
		{"DATABASE_URL", "postgres:///herald?host=/run/postgresql&port=5433", ""},
		{"DATABASE_URL", "sqlite:///var/lib/herald/herald.db", ""},
		{"DATABASE_URL", "sqlite://", "needs the path of a file"},
		{"DATABASE_URL", "herald.db", "must begin with postgres:// or sqlite://"},
		{"DATABASE_URL", "postgres://herald:" + password + "@db:port/herald", "is not a URL"},
		{"DATABASE_URL", "postgres://herald:" + password + "/1@db:5432/herald", "%2F"},
		{"DATABASE_URL", "postgres://herald:" + password + "@db:5432/herald?sslmode=maybe", "sslmode"},
		{"DATABASE_URL", "postgres://herald:" + password + "@db:5432/herald?pool_max_conns=many", "pool_max_conns"},
		{"DATABASE_URL", "postgres://herald:" + password + "@db:99999/herald", "port"},
		{"REDIS_URL", "redis://:" + password + "@redis:6379/0", ""},
		{"REDIS_URL", "rediss://redis", ""},
		{"REDIS_URL", "unix:///run/redis.sock", ""},
		{"REDIS_URL", "redis:6379", "must begin with redis://"},
		{"REDIS_URL", "redis://:" + password + "/1@redis:6379/0", "%2F"},
		{"REDIS_URL", "redis://:" + password + "@redis:6379/first", "is not a Redis URL"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			_, err := parse(t, 0, map[string]string{c.name: c.value})
			switch {
			case c.says == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil || !strings.HasPrefix(err.Error(), c.name+": ") || !strings.Contains(err.Error(), c.says):
				t.Errorf("%v, want %q", err, c.says)
			case strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "@db"):
				t.Errorf("the error shows the password, or repeats the URL: %v", err)
			}
		})
	}
}

// A misspelt variable is told with the setting that was probably meant. Variables that other programs set are not misspelt.
func TestIntegrationMisspeltVariablesAreNamed(t *testing.T) {
	got := UnknownSettings([]string{
		"HERALD_LISTEN=127.0.0.1:1", "DATABASE_URL=x", "PATH=/bin", "HERALD_TEST_DATABASE_URL=x", "HERALD_DB_PASSWORD=x", "HERALD_SENDGRID_URL=x",
		"HERALD_SERVICE_HOST=10.0.0.1", "HERALD_SERVICE_PORT_HTTP=80", "HERALD_PORT=tcp://10.0.0.1:80", "HERALD_PORT_80_TCP_ADDR=10.0.0.1", "HERALD_API_PORT_80_TCP=tcp://10.0.0.1:80",
		"HERALD_LISTN=127.0.0.1:1", "HERALD_MASTERKEY=secret", "HERALD_LOG_LEVL=debug", "HERALD_DB_MAX_CONNS=9", "herald_key_rate=1", "HERALD_TWILLIO_URL=x",
		"HERALD_PORT=8080", "HERALD_COLOUR_OF_THE_LOGO=red",
	})
	want := []UnknownSetting{
		{"HERALD_COLOUR_OF_THE_LOGO", ""}, {"HERALD_DB_MAX_CONNS", "HERALD_DATABASE_MAX_CONNS"}, {"HERALD_LISTN", "HERALD_LISTEN"}, {"HERALD_LOG_LEVL", "HERALD_LOG_LEVEL"},
		{"HERALD_MASTERKEY", "HERALD_MASTER_KEY"}, {"HERALD_PORT", ""}, {"HERALD_TWILLIO_URL", "HERALD_TWILIO_URL"}, {"herald_key_rate", "HERALD_KEY_RATE"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, u := range got {
		if text := u.String(); strings.Contains(text, "secret") || !strings.Contains(text, u.Name) || !strings.Contains(text, u.Nearest) {
			t.Errorf("%+v says %q", u, text)
		}
	}
	if all := names(); len(all) != len((&Config{}).Settings()) || !slices.Contains(all, "HERALD_MASTER_KEY") {
		t.Errorf("the names of the settings: %v", all)
	}
}

func TestIntegrationTheDataDirectoryCanBeMoved(t *testing.T) {
	dir := t.TempDir()
	c, err := parse(t, 0, map[string]string{"HERALD_DATA": dir})
	if err != nil || c.DataDir() != dir {
		t.Errorf("%s, %v", c.DataDir(), err)
	}
	t.Setenv("HERALD_DATA", "")
	if c, err = Parse(0); err != nil || filepath.Base(c.DataDir()) != "herald" || !filepath.IsAbs(c.DataDir()) {
		t.Errorf("the default is %s, %v", c.DataDir(), err)
	}
	for _, s := range c.Settings() {
		if s.Name == "HERALD_DATA" && (s.Value != c.DataDir() || s.Default != c.DataDir()) {
			t.Errorf("it is shown as %+v", s)
		}
	}
}
