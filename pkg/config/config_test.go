package config

import (
	"strconv"
	"strings"
	"testing"

	"herald/pkg/message"
)

func TestParseReportsEveryMistake(t *testing.T) {
	for k, v := range map[string]string{
		"HERALD_BULK_WAIT": "soon", "HERALD_LISTEN": "8080", "HERALD_WORKER_CONCURRENCY": "email=0", "HERALD_LOG_FORMAT": "xml",
		"HERALD_SENDGRID_URL": "sendgrid", "HERALD_MASTER_KEY": "c2hvcnQ=", "HERALD_UNKNOWN_HOLD": "1ms", "HERALD_FEED_WINDOW": "-1", "HERALD_DATABASE_MAX_CONNS": "1",
		"DATABASE_URL": "", "REDIS_URL": "",
	} {
		t.Setenv(k, v)
	}
	_, err := Parse(Database | Redis | MasterKey)
	if err == nil {
		t.Fatal("invalid settings are accepted")
	}
	for _, name := range []string{
		"DATABASE_URL", "REDIS_URL", "HERALD_BULK_WAIT", "HERALD_LISTEN", "HERALD_WORKER_CONCURRENCY", "HERALD_LOG_FORMAT", "HERALD_SENDGRID_URL",
		"HERALD_MASTER_KEY", "HERALD_UNKNOWN_HOLD", "HERALD_FEED_WINDOW", "HERALD_DATABASE_MAX_CONNS",
	} {
		if !strings.Contains(err.Error(), name+":") {
			t.Errorf("does not name %s: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "c2hvcnQ") {
		t.Error("the error shows the key")
	}
}

func TestSettingsMaskSecrets(t *testing.T) {
	t.Setenv("HERALD_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	t.Setenv("DATABASE_URL", "postgres://herald:hunter2@db/herald")
	t.Setenv("REDIS_URL", "redis://:hunter2@redis/0")
	c, err := Parse(Database | Redis | MasterKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Settings() {
		if strings.Contains(s.Value, "hunter2") || strings.Contains(s.Value, "AAAA") {
			t.Errorf("%s shows %s", s.Name, s.Value)
		}
		if s.Name == "" || s.Help == "" {
			t.Errorf("%+v lacks its name or meaning", s)
		}
	}
}

func TestConcurrency(t *testing.T) {
	// all returns the setting in which the types have n, except for those that are named.
	all := func(n int, named map[message.ChannelType]int) string {
		parts := make([]string, len(message.ChannelTypes))
		for i, typ := range message.ChannelTypes {
			value, ok := named[typ]
			if !ok {
				value = n
			}
			parts[i] = strings.ToLower(string(typ)) + "=" + strconv.Itoa(value)
		}
		return strings.Join(parts, ",")
	}
	for in, want := range map[string]string{
		"7": all(7, nil), "1": all(1, nil), "5000": all(5000, nil), "email=9": all(64, map[message.ChannelType]int{message.Email: 9}),
		"SMS=1, email=2,instagram_dm=3": all(64, map[message.ChannelType]int{message.SMS: 1, message.Email: 2, message.InstagramDM: 3}),
		"x":                             "", "email": "", "email=x": "", "fax=1": "", "0": "", "5001": "", "email=0": "",
	} {
		var c Concurrency
		err := c.UnmarshalText([]byte(in))
		if (err == nil) != (want != "") || (err == nil && c.String() != want) {
			t.Errorf("%q: %s, %v", in, c, err)
		}
	}
}

// Base URLs in settings have the same rules as those of channels, because the same credentials are sent there.
func TestFaultURLsOfProvidersAndOpen(t *testing.T) {
	for name, bad := range map[string][]string{
		"HERALD_SENDGRID_URL": {"http://api.sendgrid.com", "https://u:p@x.test", "https://169.254.169.254", "https://x.test?q=1"},
		"HERALD_TWILIO_URL":   {"https://[::ffff:169.254.169.254]", "ftp://x.test"}, "HERALD_INSTAGRAM_URL": {"https://0.0.0.0", "https://2130706433"},
		"HERALD_OPEN": {"yes", "LOOPBACK", "true"}, "HERALD_PPROF": {"perhaps"},
	} {
		for _, v := range bad {
			t.Run(name+"="+v, func(t *testing.T) {
				t.Setenv(name, v)
				if _, err := Parse(0); err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%v", err)
				}
			})
		}
	}
	t.Setenv("HERALD_SENDGRID_URL", "http://127.0.0.1:8081")
	t.Setenv("HERALD_OPEN", "loopback")
	t.Setenv("HERALD_ADMIN_HOSTS", "a.internal,b.internal")
	c, err := Parse(0)
	if err != nil || c.Open != OpenLoopback || c.PProf || len(c.AdminHosts) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}
