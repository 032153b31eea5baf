package api_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/config"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

func few(places int) func(*config.Config) {
	return func(c *config.Config) { c.InFlight = places }
}

// sendAtOnce sends n singles at the same moment and returns the answers.
func (h *herald) sendAtOnce(n int, body func(i int) string) []answer {
	h.t.Helper()
	answers := make([]answer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { answers[i] = h.call(http.MethodPost, "/api/messaging/send", body(i)) })
	}
	wg.Wait()
	return answers
}

func mail(i int) string {
	return fmt.Sprintf(`{"message_data":{"recipient":"r%d@example.com","subject":"s","content":"c"}}`, i)
}

func text(i int) string {
	return fmt.Sprintf(`{"message_data":{"recipient":"+1555000%04d","content":"c"}}`, i)
}

// Requests beyond the places are rejected with Retry-After and have no effect.
func TestMoreRequestsThanPlaces(t *testing.T) {
	h := startWith(t, few(4))
	h.sim.SetLatency(500 * time.Millisecond)
	sent := 0
	for _, a := range h.sendAtOnce(12, mail) {
		switch a.status {
		case http.StatusOK:
			sent++
		case http.StatusServiceUnavailable:
			if a.header.Get("Retry-After") == "" || a.body["code"] != "unavailable" {
				t.Errorf("%s, Retry-After %q", a.raw, a.header.Get("Retry-After"))
			}
		default:
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	if rep := h.sim.Report(); sent == 0 || sent > 4 || rep.Accepted != int64(sent) {
		t.Errorf("%d were sent over 4 places, the simulator accepted %d", sent, rep.Accepted)
	}
	if list := h.must(200, "GET", "/api/messaging/messages", ""); len(list.body["items"].([]any)) != sent {
		t.Errorf("the ledger has %d messages, %d were accepted", len(list.body["items"].([]any)), sent)
	}
}

// A provider that hangs takes half of the places at most: the other types go on.
func TestAProviderThatHangsTakesNoOthersPlaces(t *testing.T) {
	h := startWith(t, few(8))
	h.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Hang, Times: 8})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer h.sim.Close() // ends the calls that hang, instead of waiting for their timeout
	wg.Go(func() { h.sendAtOnce(8, mail) })
	testenv.Eventually(t, 10*time.Second, "mails hang", func() bool {
		a := h.call("GET", "/api/messaging/messages?status=sending", "")
		return a.status == 200 && len(a.body["items"].([]any)) == 4
	})
	for i := range 5 {
		if a := h.call(http.MethodPost, "/api/messaging/send", text(i)); a.status != 200 || a.body["status"] != "SENT" {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
}

// Clients that send slowly hold no place.
func TestSlowClientsHoldNoPlace(t *testing.T) {
	h := startWith(t, few(2))
	for range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /api/messaging/send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
	}
	for i := range 20 {
		if a := h.send(mail(i)); a.body["status"] != "SENT" {
			t.Errorf("%s", a.raw)
		}
	}
}

// A bulk that waits for its figures holds no place either.
func TestWaitingHoldsNoPlace(t *testing.T) {
	h := startWith(t, few(1))
	h.lead(`"email":"l@example.com"`)
	h.must(200, "PATCH", "/api/channels/"+emailChannel+"/email", `{"state":"PAUSED"}`)
	done := make(chan answer, 1)
	go func() {
		done <- h.call("POST", "/api/messaging/send", `{"sender_type":"email","bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`, "Prefer", "wait=2")
	}()
	testenv.Eventually(t, 10*time.Second, "the bulk is accepted", func() bool {
		a := h.call("GET", "/api/messaging/bulk", "")
		return a.status == 200 && len(a.body["items"].([]any)) == 1
	})
	for i := range 5 {
		if a := h.call("POST", "/api/messaging/send", text(i)); a.status != 200 {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	if a := <-done; a.status != 200 || a.body["status"] != "PROCESSING" || a.body["channel"].(map[string]any)["state"] != "PAUSED" {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

func TestPauseResumeCancelOverHTTP(t *testing.T) {
	h := start(t)
	h.lead(`"email":"l@example.com"`)
	channel := "/api/channels/" + emailChannel + "/email"
	h.must(200, "PATCH", channel, `{"state":"PAUSED","state_reason":"revoked"}`)
	bulk := func() string {
		return h.send(`{"sender_type":"email","bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`, "Prefer", "respond-async").body["bulk_id"].(string)
	}
	id := bulk()
	path := "/api/messaging/bulk/" + id
	a := h.must(200, "GET", path, "")
	if ch := a.body["channel"].(map[string]any); ch["state"] != "PAUSED" || ch["state_reason"] != "revoked" || ch["type"] != "EMAIL" {
		t.Errorf("%s", a.raw)
	}
	if a := h.must(200, "POST", path+"/pause", ""); a.body["status"] != "PAUSED" {
		t.Errorf("%s", a.raw)
	}
	h.must(409, "POST", path+"/pause", "")
	h.must(200, "PATCH", channel, `{"state":"ACTIVE"}`)
	if a := h.must(200, "POST", path+"/resume", ""); a.body["status"] != "PROCESSING" {
		t.Errorf("%s", a.raw)
	}
	testenv.Eventually(t, 20*time.Second, "it is complete", func() bool {
		a := h.must(200, "GET", path, "")
		return a.body["status"] == "COMPLETED" && a.body["messages_sent"] == 1.0 && a.body["channel"] == nil
	})
	h.must(409, "POST", path+"/cancel", "")
	h.must(404, "POST", "/api/messaging/bulk/0190a000-0000-7000-8000-00000000dead/cancel", "")
	h.must(422, "POST", "/api/messaging/bulk/x/cancel", "")
	h.must(405, "GET", path+"/cancel", "")

	h.must(200, "PATCH", channel, `{"state":"PAUSED"}`)
	path = "/api/messaging/bulk/" + bulk()
	testenv.Eventually(t, 20*time.Second, "it is planned", func() bool { return h.must(200, "GET", path, "").body["total_leads"] == 1.0 })
	h.must(200, "POST", path+"/cancel", "")
	testenv.Eventually(t, 20*time.Second, "it is over", func() bool {
		a := h.must(200, "GET", path, "")
		reasons := a.body["failure_reasons"].(map[string]any)
		return a.body["status"] == "CANCELLED" && a.body["completed_at"] != nil && a.body["messages_failed"] == 1.0 && reasons["cancelled"] == 1.0
	})
}
