package api_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// inflated returns what a compressed body stands for, or the body where it is no gzip.
func inflated(body string) string {
	r, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		return body
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return body
	}
	return string(b)
}

// A compressed body is read as the body that it stands for, within the same bounds; other encodings are named.
func TestCaseCompressedRequests(t *testing.T) {
	h := start(t)
	const send = "/api/messaging/send"
	const single = `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"c"}}`
	for _, name := range []string{"gzip", "GZIP", "x-gzip"} {
		if a := h.call("POST", send, packed(t, single), "Content-Encoding", name); a.status != 200 || a.body["status"] != "SENT" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	h.must(200, "POST", "/api/leads/import", packed(t, "email\n"+strings.Repeat("ann@example.com\n", 10_000)), "Content-Type", "text/csv", "Content-Encoding", "gzip")
	if a := h.call("POST", send, single, "Content-Encoding", "identity"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.raw)
	}
	for name, c := range map[string]struct {
		body, encoding string
		status         int
		says           string
	}{
		"another encoding":      {single, "br", 415, `Content-Encoding \"br\" is not supported`},
		"two encodings":         {packed(t, packed(t, single)), "gzip, gzip", 415, "is not supported"},
		"no gzip":               {single, "gzip", 422, "not valid gzip"},
		"gzip that breaks off":  {packed(t, single)[:30], "gzip", 422, "not valid gzip"},
		"gzip that is damaged":  {packed(t, single)[:len(packed(t, single))-3] + "xyz", "gzip", 422, "not valid gzip"},
		"nothing":               {"", "gzip", 422, "JSON body is required"},
		"more than the bound":   {packed(t, strings.Repeat(" ", 9<<20)), "gzip", 413, "larger than the 8 MB"},
		"a bomb of a gigabyte":  {packed(t, strings.Repeat(" ", 1<<30)), "gzip", 413, "larger than the 8 MB"},
		"an unpaired surrogate": {`{"message_data":{"recipient":"ann@example.com","subject":"\ud800","content":"c"}}`, "", 422, "unpaired surrogate"},
	} {
		if a := h.call("POST", send, c.body, "Content-Encoding", c.encoding); a.status != c.status || !strings.Contains(a.raw, c.says) {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	if n := len(h.sim.Accepted("")); n != 4 {
		t.Errorf("%d messages were sent", n)
	}
}

// A slash at the end of a path changes nothing.
func TestCaseASlashAtTheEnd(t *testing.T) {
	h := start(t)
	if a := h.must(200, "POST", "/api/messaging/send/", `{"message_data":{"recipient":"ann@example.com","subject":"s","content":"c"}}`); a.body["status"] != "SENT" {
		t.Errorf("%s", a.raw)
	}
	h.must(200, "GET", "/api/leads/?limit=1", "")
	h.must(200, "GET", "/api/channels/"+emailChannel+"/email/", "")
	h.must(404, "GET", "/api/leads//", "")
	h.must(404, "GET", "/api/nothing/", "")
	h.must(405, "PUT", "/api/leads/", "")
}
