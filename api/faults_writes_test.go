package api_test

import (
	"database/sql"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"

	"herald/pkg/channel"
	"herald/pkg/config"
	"herald/pkg/message"
	"herald/pkg/testenv"
)

// everywhere runs a test on a Herald over every database, with a separate connection to that database.
func everywhere(t *testing.T, test func(t *testing.T, h *herald, db *sql.DB)) {
	t.Helper()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		driver, name := "pgx", url
		if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
			driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
		}
		db, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		test(t, h, db)
	})
}

// together makes calls at the same time and returns their answers.
func (h *herald) together(calls ...[3]string) []answer {
	answers := make([]answer, len(calls))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range calls {
		wg.Go(func() {
			<-begin
			headers := []string{"Prefer", "respond-async"}
			if strings.HasSuffix(c[1], "/import") {
				headers = []string{"Content-Type", "text/csv"}
			}
			answers[i] = h.call(c[0], c[1], c[2], headers...)
		})
	}
	close(begin)
	wg.Wait()
	return answers
}

// Of PATCHes at the same time that are all answered with 200, none is lost.
func TestFaultPatchesAtTheSameTime(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		lead, ch := "/api/leads/"+h.lead(`"email":"ann@example.com"`), "/api/channels/"+emailChannel+"/email"
		created := h.must(200, "GET", lead, "").body["created_at"]
		for i := range 40 {
			state := []string{"PAUSED", "ACTIVE"}[i%2]
			for _, a := range h.together(
				[3]string{"PATCH", lead, fmt.Sprintf(`{"company":"c%d"}`, i)}, [3]string{"PATCH", lead, fmt.Sprintf(`{"tags":["t%d"]}`, i)},
				[3]string{"PATCH", lead, fmt.Sprintf(`{"custom_fields":{"n":"%d"}}`, i)},
				[3]string{"PATCH", ch, `{"state":"` + state + `"}`}, [3]string{"PATCH", ch, fmt.Sprintf(`{"name":"n%d"}`, i)},
				[3]string{"PATCH", ch, fmt.Sprintf(`{"credentials":{"api_key":"SG.secret-number-%04d"}}`, i)},
			) {
				if a.status != 200 {
					t.Fatalf("%d %s", a.status, a.raw)
				}
			}
			l := h.must(200, "GET", lead, "").body
			if fmt.Sprintf("%v %v %v", l["company"], l["tags"], l["custom_fields"]) != fmt.Sprintf("c%d [t%d] map[n:%d]", i, i, i) {
				t.Fatalf("round %d: %v %v %v", i, l["company"], l["tags"], l["custom_fields"])
			}
			if l["created_at"] != created || l["email"] != "ann@example.com" {
				t.Fatalf("round %d: %v", i, l)
			}
			c := h.must(200, "GET", ch, "").body
			if c["state"] != state || c["name"] != fmt.Sprintf("n%d", i) || fmt.Sprint(c["credentials"]) != fmt.Sprintf("map[api_key:****%04d]", i) {
				t.Fatalf("round %d: %v", i, c)
			}
		}
	})
}

// A lead that is deleted concurrently with PATCHes and an import stays deleted.
func TestFaultWritesBesideADeletion(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		for i := range 40 {
			path := "/api/leads/" + h.lead(fmt.Sprintf(`"email":"p%d@example.com","last_name":"Old"`, i))
			answers := h.together(
				[3]string{"PATCH", path, `{"company":"x"}`}, [3]string{"DELETE", path, ""}, [3]string{"PATCH", path, `{"city":"x"}`},
				[3]string{"POST", "/api/leads/import", fmt.Sprintf("email,first_name\np%d@example.com,New\n", i)},
			)
			for n, want := range [][]int{{200, 404}, {204}, {200, 404}, {200}} {
				if s := answers[n].status; s != want[0] && s != want[len(want)-1] {
					t.Fatalf("round %d: %d %s", i, s, answers[n].raw)
				}
			}
			if a := h.call("GET", path, ""); a.status != 404 {
				t.Fatalf("round %d: the lead is there: %s", i, a.raw)
			}
		}
		for _, item := range h.must(200, "GET", "/api/leads?limit=200", "").body["items"].([]any) {
			if l := item.(map[string]any); l["last_name"] != nil || l["company"] != nil {
				t.Errorf("an erased person is there: %v", l)
			}
		}
	})
}

// The second POST of an id is a conflict, also at the same time.
func TestFaultOneIDIsPostedOnce(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		for range 30 {
			post := [3]string{"POST", "/api/leads", `{"id":"` + uuid.NewString() + `"}`}
			statuses := map[int]int{}
			for _, a := range h.together(post, post, post) {
				statuses[a.status]++
			}
			if statuses[201] != 1 || statuses[409] != 2 {
				t.Fatalf("%v", statuses)
			}
		}
	})
}

// A channel that another process deletes a moment before is not sent over: the bulk is 404, and nothing is written.
func TestFaultABulkOverADeletedChannel(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		id := h.lead(`"email":"ann@example.com"`)
		for _, named := range []string{`"sender_identifier":"` + emailChannel + `",`, ""} {
			body := `{"sender_type":"email",` + named + `"message_data":{"subject":"s","content":"c"},"bulk_settings":{"lead_ids":["` + id + `"]}}`
			h.send(body, "Idempotency-Key", "before"+named) // this process has the channel in its cache now
			testenv.Eventually(t, 20*time.Second, "nothing is open", func() bool {
				err := h.app.Stores.Channels.DeleteChannel(t.Context(), channel.Key{ID: uuid.MustParse(emailChannel), Type: message.Email})
				return err == nil || message.IsCode(err, message.CodeNotFound)
			})
			before := h.written()
			a := h.call("POST", "/api/messaging/send", body)
			if a.status != 404 || a.body["code"] != "not_found" {
				// It may have been cached too long ago; then it is a field that names no channel.
				if a.status != 422 || !strings.Contains(a.raw, "channel") {
					t.Errorf("%d %s", a.status, a.raw)
				}
			}
			h.must(200, "POST", "/api/messaging/send", body, "Idempotency-Key", "before"+named) // what was done is still answered
			if n := h.written(); n != before {
				t.Errorf("%d more were written", n-before)
			}
			if named != "" {
				h.must(201, "POST", "/api/channels", `{"id":"`+emailChannel+`","type":"EMAIL","name":"Mail","sender":"news@acme.test","credentials":{"api_key":"SG.secret-of-the-test"},"default":true}`)
			}
		}
	})
}

// Of a bulk and the deletion of its channel at the same time one is refused.
func TestFaultABulkBesideTheDeletionOfItsChannel(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		lead := h.lead(`"email":"ann@example.com"`)
		outcomes := map[string]int{}
		for range 30 {
			id := uuid.NewString()
			path := "/api/channels/" + id + "/email"
			h.must(201, "POST", "/api/channels", `{"id":"`+id+`","type":"EMAIL","name":"x","sender":"x@acme.test","credentials":{"api_key":"SG.secret-of-the-test"},"state":"PAUSED"}`)
			h.must(200, "GET", path, "")
			bulks := func() int {
				return len(h.must(200, "GET", "/api/messaging/bulk?limit=200", "").body["items"].([]any))
			}
			before := bulks()
			answers := h.together(
				[3]string{"POST", "/api/messaging/send", `{"sender_type":"email","sender_identifier":"` + id + `","message_data":{"subject":"s","content":"c"},"bulk_settings":{"lead_ids":["` + lead + `"]}}`},
				[3]string{"DELETE", path, ""},
			)
			sent, removed := answers[0], answers[1]
			outcomes[fmt.Sprint(sent.status, " ", removed.status)]++
			accepted := bulks() - before
			switch {
			case sent.status == 200 && removed.status == 409 && accepted == 1:
			case (sent.status == 404 || sent.status == 422) && removed.status == 204 && accepted == 0:
			default:
				t.Fatalf("sent %d %s, deleted %d %s, %d bulks", sent.status, sent.raw, removed.status, removed.raw, accepted)
			}
			if sent.status == 200 {
				h.must(200, "POST", "/api/messaging/bulk/"+sent.body["bulk_id"].(string)+"/cancel", "")
			}
		}
		t.Log(outcomes)
	})
}

// Bulks whose channel is gone are listed, read and cancelled, and say that it is gone.
func TestFaultBulksWithoutTheirChannel(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, db *sql.DB) {
		h.must(200, "PATCH", "/api/channels/"+emailChannel+"/email", `{"state":"PAUSED"}`)
		id := h.lead(`"email":"ann@example.com"`)
		body := `{"sender_type":"email","sender_identifier":"` + emailChannel + `","message_data":{"subject":"s","content":"c"},"bulk_settings":{"lead_ids":["` + id + `"]}}`
		var bulks []string
		for range 2 {
			bulks = append(bulks, h.send(body, "Prefer", "respond-async").body["bulk_id"].(string))
		}
		for _, b := range bulks { // a bulk that runs ends soon after its channel is gone
			h.must(200, "POST", "/api/messaging/bulk/"+b+"/pause", "")
		}
		h.must(409, "DELETE", "/api/channels/"+emailChannel+"/email", "")
		if res, err := db.ExecContext(t.Context(), "DELETE FROM channels WHERE id = $1", emailChannel); err != nil {
			t.Fatal(res, err)
		}
		deleted := func(b any) bool {
			c, _ := b.(map[string]any)["channel"].(map[string]any)
			return c != nil && c["state"] == "DELETED" && c["id"] == emailChannel
		}
		testenv.Eventually(t, 10*time.Second, "the channel is seen to be gone", func() bool {
			return deleted(h.must(200, "GET", "/api/messaging/bulk/"+bulks[0], "").body)
		})
		items := h.must(200, "GET", "/api/messaging/bulk", "").body["items"].([]any)
		if len(items) != 2 || !deleted(items[0]) || !deleted(items[1]) {
			t.Errorf("%v", items)
		}
		if a := h.must(200, "GET", "/api/messaging/bulk/"+bulks[0], ""); !deleted(a.body) || a.body["status"] != "PAUSED" {
			t.Errorf("%s", a.raw)
		}
		for _, b := range bulks {
			if a := h.must(200, "POST", "/api/messaging/bulk/"+b+"/cancel", ""); a.body["status"] != "CANCELLED" {
				t.Errorf("%s", a.raw)
			}
			testenv.Eventually(t, 20*time.Second, "the cancelled bulk is over", func() bool {
				return h.must(200, "GET", "/api/messaging/bulk/"+b, "").body["completed_at"] != nil
			})
		}
	})
}

// Imports of the same new people at the same time store each of them once.
func TestFaultImportsAtTheSameTime(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		const people, files = 180, 4
		calls := make([][3]string, files)
		for f := range calls {
			var b strings.Builder
			b.WriteString("email,first_name\n")
			for i := range people {
				at := i
				if f%2 == 1 {
					at = people - 1 - i
				}
				fmt.Fprintf(&b, "p%d@example.com,N%d\n", at, f)
			}
			calls[f] = [3]string{"POST", "/api/leads/import", b.String()}
		}
		imported := 0.0
		for _, a := range h.together(calls...) {
			if a.status != 200 || a.body["rejected"] != 0.0 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			imported += a.body["imported"].(float64)
		}
		if n := len(h.must(200, "GET", "/api/leads?limit=200", "").body["items"].([]any)); n != people || imported != people {
			t.Errorf("%d leads, %v imported, of %d people", n, imported, people)
		}
	})
}

// A client that is gone in the middle of its upload leaves the rows that came.
func TestFaultAnUploadThatBreaksOff(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, h *herald, _ *sql.DB) {
		const came = 150
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString("POST /api/leads/import HTTP/1.1\r\nHost: " + strings.TrimPrefix(h.base, "http://") + "\r\nContent-Type: text/csv\r\nContent-Length: 100000\r\n\r\nemail,first_name\n")
		for i := range came {
			fmt.Fprintf(&b, "p%d@example.com,N\n", i)
		}
		b.WriteString("cut@exam")
		if _, err := conn.Write([]byte(b.String())); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		testenv.Eventually(t, 20*time.Second, "the rows that came are stored", func() bool {
			return len(h.must(200, "GET", "/api/leads?limit=200", "").body["items"].([]any)) == came
		})
	})
}
