package api_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// conditional checks the life of an object with ETags. made is the answer that created it; patches are two changes of it.
func (h *herald) conditional(made answer, path string, patches [2]string) {
	h.t.Helper()
	first := made.header.Get("ETag")
	if read := h.must(200, "GET", path, "").header.Get("ETag"); first == "" || read != first {
		h.t.Errorf("the ETag is %s in the answer of POST, %s in that of GET", first, read)
	}
	for _, none := range []string{`"other"`, `W/` + first, `"x", "y"`, strings.Trim(first, `"`) + `"`} {
		status := 412
		if !strings.HasPrefix(none, `"`) && !strings.HasPrefix(none, "W/") {
			status = 422
		}
		for _, method := range []string{"PATCH", "DELETE"} {
			body := map[string]string{"PATCH": patches[0]}[method]
			a := h.must(status, method, path, body, "If-Match", none)
			if status == 412 && a.body["code"] != "precondition_failed" || status == 422 && a.locs()[`["header","If-Match"]`] == "" {
				h.t.Errorf("%s: %s", none, a.raw)
			}
		}
	}
	if read := h.must(200, "GET", path, "").header.Get("ETag"); read != first {
		h.t.Errorf("a refused change made %s of %s", read, first)
	}
	second := h.must(200, "PATCH", path, patches[0], "If-Match", `"other" , `+first).header.Get("ETag")
	if second == "" || second == first {
		h.t.Errorf("the ETag is %s after a change of %s", second, first)
	}
	h.must(412, "PATCH", path, patches[1], "If-Match", first)
	h.must(200, "PATCH", path, patches[1], "If-Match", "*")
	h.must(412, "DELETE", path, "", "If-Match", second)
	last := h.must(200, "PATCH", path, patches[0]).header.Get("ETag")
	h.must(204, "DELETE", path, "", "If-Match", last)
	h.must(404, "PATCH", path, patches[0], "If-Match", last)
	h.must(404, "DELETE", path, "", "If-Match", "*")
}

func TestIntegrationChangesOfOneVersion(t *testing.T) {
	eachHerald(t, func(_ *testing.T, h *herald) {
		made := h.must(201, "POST", "/api/leads", `{"first_name":"Ann","tags":["a","a"],"created_at":"2024-01-31T10:00:00.123456789Z","custom_fields":{"n":1.50}}`)
		h.conditional(made, made.header.Get("Location"), [2]string{`{"first_name":"Bea"}`, `{"add_tags":["b"]}`})
		made = h.must(201, "POST", "/api/channels", `{"id":"`+emailChannel+`","type":"SMS","name":"S","sender":"+15005550006","credentials":{"account_sid":"AC00000000000000000000000000000000","auth_token":"x"}}`)
		h.conditional(made, made.header.Get("Location"), [2]string{`{"name":"A"}`, `{"state":"PAUSED"}`})
	})
}

// Of concurrent changes of one version, one is made. An import changes the version too.
func TestIntegrationConcurrentChangesOfOneVersion(t *testing.T) {
	eachHerald(t, func(t *testing.T, h *herald) {
		made := h.must(201, "POST", "/api/leads", `{"email":"ann@example.com"}`)
		path, etag := made.header.Get("Location"), made.header.Get("ETag")
		for range 5 {
			var wg sync.WaitGroup
			var changed atomic.Int64
			var next atomic.Value
			for _, body := range []string{`{"city":"Oslo"}`, `{"city":"Rome"}`, `{"city":"Nice"}`, `{"city":"Bonn"}`} {
				wg.Go(func() {
					switch a := h.call("PATCH", path, body, "If-Match", etag); a.status {
					case 200:
						changed.Add(1)
						next.Store(a.header.Get("ETag"))
					case 412:
					default:
						t.Errorf("%d %s", a.status, a.raw)
					}
				})
			}
			wg.Wait()
			if changed.Load() != 1 {
				t.Fatalf("%d of four changes of one version were made", changed.Load())
			}
			etag, _ = next.Load().(string)
		}
		h.must(200, "POST", "/api/leads/import", "email,company\nann@example.com,Acme\n", "Content-Type", "text/csv")
		h.must(412, "PATCH", path, `{"city":"Kiel"}`, "If-Match", etag)
	})
}
