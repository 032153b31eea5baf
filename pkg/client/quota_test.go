package client_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/access"
	"herald/pkg/client"
	"herald/pkg/testenv"
	"herald/pkg/version"
)

// The quota of each response is passed on, also that of an error. Responses that tell none are silent.
func TestIntegrationTheClientTellsTheQuota(t *testing.T) {
	e, base := herald(t)
	token, err := e.Keys.Create(t.Context(), &access.Key{Name: "limited", Scopes: access.Scopes, Rate: 2}, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []client.Quota
	c := connect(t, base, client.WithKey(token), client.WithRetryTimeout(0), client.WithQuota(func(q client.Quota) { got = append(got, q) }))
	testenv.Eventually(t, 10*time.Second, "the API asks for a key", func() bool {
		if _, err := c.Lead(t.Context(), "01a20960-62a9-7aff-9ba4-ab08429b828e"); !client.IsStatus(err, http.StatusNotFound) {
			t.Fatal(err)
		}
		return len(got) > 0
	})
	want := []client.Quota{{Limit: 2, Window: time.Second, Remaining: 1, Reset: time.Second}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	alive, err := c.Alive(t.Context())
	if err != nil || alive.Version != version.Get().Version || len(got) != 1 {
		t.Errorf("%+v, %v, %+v", alive, err, got)
	}
}

// Headers of other servers, and of other forms, are not guessed.
func TestIntegrationQuotasInOtherForms(t *testing.T) {
	for name, c := range map[string]struct {
		policy, left string
		want         []client.Quota
	}{
		"none":             {"", "", nil},
		"only a policy":    {`"key";q=5;w=1`, "", nil},
		"without spaces":   {`"key";q=5;w=1`, `"key";r=0;t=3`, []client.Quota{{5, time.Second, 0, 3 * time.Second}}},
		"more parameters":  {`"key"; q=5; w=60; qu="requests"`, `"key"; r=4; t=30; pk=:x:`, []client.Quota{{5, time.Minute, 4, 30 * time.Second}}},
		"an earlier draft": {"5;w=1", "4", nil},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("RateLimit-Policy", c.policy)
			w.Header().Set("RateLimit", c.left)
			_, _ = w.Write([]byte(`{"status":"ok"}`))
		}))
		var got []client.Quota
		if _, err := connect(t, server.URL, client.WithQuota(func(q client.Quota) { got = append(got, q) })).Alive(t.Context()); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		server.Close()
	}
}
