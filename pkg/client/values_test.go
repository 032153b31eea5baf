package client_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"herald/pkg/client"
)

// The client gives a lead's numbers with all their digits, also one that no float64 holds.
func TestFaultValuesClientKeepsDigits(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"id":"550e8400-e29b-41d4-a716-446655440001","custom_fields":{"n":9007199254740993,"old":1e309,"in":[0.10000000000000000001]}}`))
	}))
	defer srv.Close()
	l := ok[client.Lead](t)(connect(t, srv.URL).Lead(t.Context(), "550e8400-e29b-41d4-a716-446655440001"))
	in, _ := l.CustomFields["in"].([]any)
	if l.CustomFields["n"] != json.Number("9007199254740993") || l.CustomFields["old"] != json.Number("1e309") || in[0] != json.Number("0.10000000000000000001") {
		t.Errorf("%v", l.CustomFields)
	}
}
