package channel

import (
	"strings"
	"testing"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// Every call sends credentials to the channel's base URL, so it must lead to the provider, or to this machine in a test.
func TestFaultBaseURLs(t *testing.T) {
	for _, good := range []string{
		"https://api.eu.sendgrid.com", "https://api.sendgrid.com/prefix", "https://10.0.0.5:8443", "https://[2001:db8::1]", "http://127.0.0.1:8081", "http://localhost:1",
		"http://[::1]:8081", "http://127.8.9.1", "http://x.localhost", "https://proxy_1.internal", "https://API.Example.COM.", "https://[::ffff:10.0.0.1]", "http://[::ffff:127.0.0.1]:80",
	} {
		if err := CheckBaseURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for what, list := range map[string][]string{
		"https":      {"http://api.sendgrid.com", "http://10.0.0.1", "ftp://x.test", "//x.test", "x.test", "https:x.test", "https:///x", "http://[::ffff:10.0.0.1]", "", "http://localhost.evil.test", "http://evillocalhost", "http://127.0.0.1.evil.test"},
		"user":       {"https://u@x.test", "https://u:p@x.test", "https://api.sendgrid.com@evil.test", "https://@x.test"},
		"query":      {"https://x.test?a=1", "https://x.test/?", "https://x.test#a", "https://x.test/#"},
		"port":       {"https://x.test:0", "https://x.test:", "https://x.test:65536", "http://localhost:"},
		"link":       {"https://169.254.169.254", "https://169.254.0.1:80", "https://[fe80::1]", "https://[fe80::1%25eth0]", "https://[::ffff:169.254.169.254]", "https://[::ffff:a9fe:a9fe]", "https://[64:ff9b::a9fe:a9fe]", "https://[2002:a9fe:a9fe::]", "https://[::169.254.169.254]"},
		"one host":   {"https://0.0.0.0", "https://[::]", "https://224.0.0.1", "https://[ff02::1]", "https://255.255.255.255", "https://[::ffff:0.0.0.0]"},
		"metadata":   {"https://metadata.google.internal", "https://METADATA.google.internal.", "https://metadata", "https://[fd00:ec2::254]", "https://100.100.100.200", "https://192.0.0.192", "https://instance-data"},
		"usual form": {"https://2130706433", "https://0x7f.0.0.1", "https://0x7f000001", "https://127.1", "http://127.1", "https://0251.0376.0251.0376", "https://169.254.43518", "https://1.2.3.4.5", "https://0xA9FEA9FE"},
		"letters":    {"https://１６９.254.169.254", "https://exämple.test", "https://a b.test", "https://a%2eb.test", "https://x。test"},
		"host":       {"https://a..test", "https://.x.test", "https://:443"},
	} {
		for _, bad := range list {
			err := CheckBaseURL(bad)
			if err == nil {
				t.Errorf("%s is taken (%s)", bad, what)
			} else if !strings.Contains(err.Error(), what) && what != "letters" && what != "host" && what != "port" {
				t.Errorf("%s: %v, want something on %s", bad, err, what)
			}
		}
	}
	c := &Channel{Key: Key{Type: message.Email}, Sender: "a@acme.test", Credentials: map[string]seal.Secret{"api_key": seal.NewSecret("SG.x")}, BaseURL: "https://169.254.169.254"}
	if errs := NewRegistry(nil, nil, nil, testProviders).prepare(c); len(errs) != 1 || errs[0].Loc[0] != "base_url" {
		t.Errorf("%+v", errs)
	}
}
