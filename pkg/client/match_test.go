package client

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"herald/pkg/message"
)

// A change under a condition sends it and is not repeated: its lost response may have been that of a change.
func TestIntegrationConditionsOfChanges(t *testing.T) {
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.Header.Get("If-Match"))
		w.Header().Set("ETag", `"v2"`)
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"PATCH": func() error {
			_, err := c.ChangeLead(t.Context(), "1", Patch{}, IfMatch(`"v1"`))
			return err
		},
		"DELETE": func() error { return c.EraseLead(t.Context(), "1", IfMatch(`"v1"`)) },
	} {
		seen = nil
		if err := change(); !IsStatus(err, http.StatusBadGateway) || len(seen) != 1 || seen[0] != name+` "v1"` {
			t.Errorf("%s: %v, the server saw %v", name, err, seen)
		}
	}
	seen = nil
	if _, err := c.ChangeChannel(t.Context(), "1", message.Email, Patch{}, IfMatch(`"v1"`)); !IsStatus(err, http.StatusBadGateway) || len(seen) != 1 {
		t.Errorf("%v, the server saw %v", err, seen)
	}
	if err := c.DeleteChannel(t.Context(), "1", message.Email, IfMatch("*")); err == nil || seen[1] != "DELETE *" {
		t.Errorf("%v, the server saw %v", err, seen)
	}
	var lead, channel string
	_, leadErr := c.Lead(t.Context(), "1", ETag(&lead))
	_, channelErr := c.Channel(t.Context(), "1", message.Email, ETag(&channel))
	if leadErr != nil || channelErr != nil || lead != `"v2"` || channel != `"v2"` {
		t.Errorf("%q and %q: %v, %v", lead, channel, leadErr, channelErr)
	}
}
