package redisconn

import "testing"

func TestConnectSaysWhatItCannot(t *testing.T) {
	for _, u := range []string{"http://x", "redis-cluster://x:1", "redis-sentinel://x:1", "::", "redis://h:port"} {
		if _, err := Connect(u, 1); err == nil {
			t.Errorf("%q connects", u)
		}
	}
}
