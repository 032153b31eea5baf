package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"herald/pkg/contract"
)

// asked is what a server saw of a request.
type asked struct{ method, path, key, accept string }

// answering starts a server that answers every request with a body and notes what it saw.
func answering(t *testing.T, body string, cut bool) (*Client, *[]asked) {
	t.Helper()
	var seen []asked
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, asked{r.Method, r.URL.EscapedPath(), r.Header.Get("Authorization"), r.Header.Get("Accept")})
		_, _ = w.Write([]byte(body))
		if cut {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, WithKey("hk_test"))
	if err != nil {
		t.Fatal(err)
	}
	return c, &seen
}

// A call is made as its route says: method, path with escaped parameters, key, and kind of answer.
func TestCallsFollowTheirRoute(t *testing.T) {
	for name, test := range map[string]struct {
		route contract.Route
		args  []string
		want  asked
	}{
		"a keyed route":  {contract.Route{Method: "PATCH", Path: "/api/x/:id/:type"}, []string{"a/b", "c"}, asked{"PATCH", "/api/x/a%2Fb/c", "Bearer hk_test", ""}},
		"an open route":  {contract.Route{Method: "GET", Path: "/x", Access: contract.Open}, nil, asked{"GET", "/x", "", ""}},
		"a signed route": {contract.Route{Method: "POST", Path: "/x/:id", Access: contract.Signed}, []string{"1"}, asked{"POST", "/x/1", "", ""}},
		"a download":     {contract.Route{Method: "GET", Path: "/x", Media: contract.MediaCSV}, nil, asked{"GET", "/x", "Bearer hk_test", "text/csv"}},
	} {
		c, seen := answering(t, "{}", false)
		if err := c.do(t.Context(), call{route: test.route, args: test.args}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(*seen) != 1 || (*seen)[0] != test.want {
			t.Errorf("%s: the server saw %+v, want %+v", name, *seen, test.want)
		}
	}
}

// A download goes to its writer as it comes. One that breaks off is an error and is not repeated, since the writer has a
// part of it.
func TestDownloads(t *testing.T) {
	route := contract.Route{Method: "GET", Path: "/x", Media: contract.MediaCSV, Admission: contract.AdmitDownload}
	var whole, part strings.Builder
	c, _ := answering(t, "a,b\n1,2\n", false)
	if err := c.do(t.Context(), call{route: route, repeatable: true}, &whole); err != nil || whole.String() != "a,b\n1,2\n" {
		t.Errorf("%q, %v", whole.String(), err)
	}
	c, seen := answering(t, "a,b\n", true)
	if err := c.do(t.Context(), call{route: route, repeatable: true}, &part); !errors.Is(err, errCut) || part.String() != "a,b\n" || len(*seen) != 1 {
		t.Errorf("%q, %v, asked %d times", part.String(), err, len(*seen))
	}
}
