// Package redistest connects tests to the Redis servers of testenv.
package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/pkg/redisconn"
	"herald/pkg/testenv"
)

// Nowhere returns the URL of a Redis that refuses every connection.
func Nowhere(t testing.TB) string {
	t.Helper()
	return testenv.NoRedis(t)
}

// Connect returns a client that is closed when the test ends.
func Connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	rdb, err := redisconn.Connect(url, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Each runs a test on miniredis and on redis-server, as parallel subtests.
func Each(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, url string)) {
	t.Helper()
	testenv.EachRedis(t, func(t *testing.T, url string) { test(t, Connect(t, url), url) })
}

// Must fails the test at once on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
