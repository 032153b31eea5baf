package provider_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/pkg/delivery"
)

// How a provider was not reached is told to the log alone: a base URL may lead anywhere.
func TestFaultTransportsAreNotQuoted(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nothing := closed.Addr().String()
	_ = closed.Close()
	gone, _ := vendor(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	foreign, _ := vendor(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2 intranet\r\n"))
			_ = conn.Close()
		}
	})
	for name, a := range adapters {
		for what, c := range map[string]struct{ url, code string }{
			"nothing listens":           {"http://" + nothing, "provider_unreachable"},
			"no such name":              {"http://intranet.invalid", "provider_unreachable"},
			"no TLS there":              {strings.Replace(gone, "http:", "https:", 1), "provider_unreachable"},
			"it hangs up":               {gone, "no_answer"},
			"it speaks something else":  {foreign, "no_answer"},
			"a path that cannot be one": {"http://" + nothing + "/%zz", "provider_unreachable"},
		} {
			if what == "a path that cannot be one" && name == "sendgrid" {
				continue // the vendor's SDK does not give the URL's mistake as an error of its own
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			r := a.make(c.url).Send(ctx, a.envelope())
			cancel()
			if r.Failure == nil || r.Failure.Code != c.code || r.Detail == "" || r.Class == delivery.Accepted {
				t.Errorf("%s, %s: %+v, %+v", name, what, r, r.Failure)
				continue
			}
			for _, word := range []string{"refused", "dial", "127.0.0.1", "intranet", "SSH", "lookup", "EOF", "tls", "reset", "malformed", "zz", nothing} {
				if strings.Contains(r.Failure.Text, word) || strings.Contains(r.Failure.Code, word) {
					t.Errorf("%s, %s: %q", name, what, r.Failure.Text)
				}
			}
		}
	}
}
