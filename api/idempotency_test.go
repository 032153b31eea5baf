package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/pkg/access"
	"herald/pkg/config"
	"herald/pkg/contract"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

func TestASingleUnderAKeyIsSentOnce(t *testing.T) {
	h := start(t)
	first := h.send(smsExample, "Idempotency-Key", `"key \"1\""`)
	if first.header.Get("Idempotent-Replayed") != "" {
		t.Error("the first answer is a replay")
	}
	for name, again := range map[string][2]string{
		"word for word":     {smsExample, `"key \"1\""`},
		"the key bare":      {smsExample, `key "1"`},
		"written otherwise": {strings.ReplaceAll(strings.ReplaceAll(smsExample, "\n", "  "), "{", "{ "), `key "1"`},
	} {
		a := h.send(again[0], "Idempotency-Key", again[1])
		if a.raw != first.raw || a.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %s, first %s", name, a.raw, first.raw)
		}
	}
	for name, other := range map[string][2]string{
		"another text":  {"", strings.Replace(smsExample, "3 PM", "4 PM", 1)},
		"another query": {"?send_identifier=" + pairChannel, smsExample},
		"a bulk":        {"", bulkExample},
	} {
		a := h.must(422, "POST", "/api/messaging/send"+other[0], other[1], "Idempotency-Key", `key "1"`)
		if a.locs()[`["header","Idempotency-Key"]`] != "idempotency_key_reused" {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	if n := len(h.sim.Accepted("")); n != 1 || h.written() != 1 {
		t.Errorf("sent %d times, %d on record", n, h.written())
	}
	if a := h.send(smsExample, "Idempotency-Key", "another"); a.raw == first.raw {
		t.Error("another key is taken for the same")
	}
}

func TestOutcomesAreReplayed(t *testing.T) {
	h := start(t)
	body := `{"message_data":{"recipient":"refused@simulator.test","subject":"s","content":"c"}}`
	first := h.send(body, "Idempotency-Key", "refused")
	if again := h.send(body, "Idempotency-Key", "refused"); again.raw != first.raw || again.body["status"] != "FAILED" {
		t.Errorf("%s, first %s", again.raw, first.raw)
	}
	// What could not be carried out is not kept: the same request may do better later.
	h.must(422, "POST", "/api/messaging/send", `{"message_data":{"recipient":"x"}}`, "Idempotency-Key", "later")
	h.must(200, "PATCH", "/api/channels/"+emailChannel+"/EMAIL", `{"state":"PAUSED"}`)
	h.must(409, "POST", "/api/messaging/send", emailExample, "Idempotency-Key", "later")
	if again := h.send(body, "Idempotency-Key", "refused"); again.raw != first.raw {
		t.Errorf("on a paused channel: %s", again.raw)
	}
	h.must(200, "PATCH", "/api/channels/"+emailChannel+"/EMAIL", `{"state":"ACTIVE"}`)
	if a := h.send(emailExample, "Idempotency-Key", "later"); a.body["status"] != "SENT" || a.header.Get("Idempotent-Replayed") != "" {
		t.Error(a.raw)
	}
}

func TestABulkUnderAKeyIsAcceptedOnce(t *testing.T) {
	h := start(t)
	h.must(200, "POST", "/api/leads/import", "email\na@example.com\nb@example.com\n", "Content-Type", "text/csv")
	body := `{"bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`
	first := h.send(body, "Idempotency-Key", "k", "Prefer", "respond-async")
	again := h.send(body, "Idempotency-Key", "k", "Prefer", "wait=30")
	if again.body["bulk_id"] != first.body["bulk_id"] || again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Preference-Applied") != "wait=30" ||
		again.body["status"] != "COMPLETED" || again.body["messages_sent"] != 2.0 {
		t.Errorf("%s, first %s", again.raw, first.raw)
	}
	if n := len(h.sim.Accepted("")); n != 2 {
		t.Errorf("%d messages were sent", n)
	}
	// A dry run does nothing, so its key stays free.
	dry := strings.Replace(body, "{", `{"dry_run":true,`, 1)
	for range 2 {
		if a := h.send(dry, "Idempotency-Key", "dry"); a.header.Get("Idempotent-Replayed") != "" || a.body["reachable"] != 2.0 {
			t.Error(a.raw)
		}
	}
}

func TestKeysBelongToTheirCallers(t *testing.T) {
	h := start(t)
	ids := map[any]bool{}
	for range 2 {
		_, h.token = h.key(access.Key{Scopes: access.Scopes})
		for range 2 {
			ids[h.send(emailExample, "Idempotency-Key", "k").body["message_id"]] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("two callers sent %d messages under one key", len(ids))
	}
}

// However many come at once, one is sent, and the others are answered with it or told to come back.
func TestManyAtOnceUnderOneKey(t *testing.T) {
	h := start(t)
	h.sim.SetLatency(200 * time.Millisecond)
	const callers = 20
	answers := make([]answer, callers)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = h.call("POST", "/api/messaging/send", emailExample, "Idempotency-Key", "k") })
	}
	wg.Wait()
	ids, busy := map[any]bool{}, 0
	for _, a := range answers {
		switch {
		case a.status == 409 && a.body["code"] == "in_progress" && a.header.Get("Retry-After") == "1":
			busy++
		case a.status == 200:
			ids[a.body["message_id"]] = true
		default:
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	if len(ids) != 1 || busy == 0 || len(h.sim.Accepted("")) != 1 {
		t.Errorf("%d messages, %d told to come back, %d sent", len(ids), busy, len(h.sim.Accepted("")))
	}
}

// A single under a key with an unknown outcome is sent once more if the channel's policy says so: its caller cannot repeat it.
func TestUnknownUnderAKey(t *testing.T) {
	h := startWith(t, func(c *config.Config) { c.UnknownHold = time.Second })
	h.sim.Script(simulator.Rule{Fault: simulator.ErrorAfter, Times: 3})
	email := func(to string) string {
		return `{"message_data":{"recipient":"` + to + `","subject":"s","content":"c"}}`
	}
	keyed := h.send(email("keyed@example.com"), "Idempotency-Key", "k")
	bare := h.send(email("bare@example.com"))
	sms := h.send(`{"message_data":{"recipient":"+14155550100","content":"c"}}`, "Idempotency-Key", "sms")
	for _, a := range []answer{keyed, bare, sms} {
		if a.body["status"] != "UNKNOWN" || a.body["success"] != false {
			t.Fatal(a.raw)
		}
	}
	h.waitStatus(keyed.body["message_id"].(string), "SENT")
	for _, a := range []answer{bare, sms} {
		if m := h.message(a.body["message_id"].(string)); m.body["status"] != "UNKNOWN" {
			t.Error(m.raw)
		}
	}
	if a := h.send(email("keyed@example.com"), "Idempotency-Key", "k"); a.body["status"] != "SENT" || a.body["message_id"] != keyed.body["message_id"] {
		t.Error(a.raw)
	}
	for to, want := range map[string]int{"keyed@example.com": 2, "bare@example.com": 1, "+14155550100": 1} {
		if n := len(h.sim.Accepted(to)); n != want {
			t.Errorf("%s was accepted %d times", to, n)
		}
	}
}

// The examples of the documentation are answered as it says, all of them.
func TestEveryExampleRuns(t *testing.T) {
	h := start(t)
	var csv strings.Builder
	csv.WriteString("id,first_name,email,phone,company,assignee_id,tags\n")
	for i := range 3 {
		fmt.Fprintf(&csv, "550e8400-e29b-41d4-a716-44665544000%d,Stella,s%d@example.com,+1500555100%d,Enterprise Customers,user-uuid-%d,Import 10/05/25\n", i+1, i, i, i%2+1)
	}
	h.must(200, "POST", "/api/leads/import", csv.String(), "Content-Type", "text/csv")
	send := the(h).Paths["/api/messaging/send"]["post"]
	examples := send.RequestBody.Content["application/json"].Examples
	if len(examples) != 7 {
		t.Errorf("%d examples", len(examples))
	}
	for name := range examples {
		a := h.send(contract.Example(name))
		if strings.HasPrefix(name, "bulk") && (a.body["status"] != "COMPLETED" || a.body["messages_sent"] != a.body["total_leads"] || a.body["total_leads"] == 0.0) {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	testenv.Eventually(t, 10*time.Second, "everything is sent", func() bool { return len(h.sim.Accepted("")) >= 12 })
}
