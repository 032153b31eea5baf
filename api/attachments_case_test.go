package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/provider/simulator"
)

// noise returns n bytes that are different for each seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// attach is the member attachments of one file.
func attach(name, content string) string {
	return `"attachments":[{"name":"` + name + `","content":"` + content + `"}]`
}

func encoded(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// file is a file as the simulator records it.
func file(name, media string, b []byte) simulator.File {
	sum := sha256.Sum256(b)
	return simulator.File{Name: name, Type: media, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

// A single carries its files, short and long, also when workers deliver it; it is shown with them, without their content.
func TestCaseAttachmentsOfASingle(t *testing.T) {
	h := start(t)
	short, long := []byte("%PDF-1.7"), noise(1<<20+1, 1)
	more := `"attachments":[{"name":"Rechnung ä.pdf","type":null,"content":"` + encoded(short) + `"},{"content":"` + encoded(long) + `","type":"application/x-own","name":"b"}]`
	want := []simulator.File{file("Rechnung ä.pdf", "application/pdf", short), file("b", "application/x-own", long)}
	shown := []any{
		map[string]any{"name": "Rechnung ä.pdf", "type": "application/pdf", "size": 8.0}, map[string]any{"name": "b", "type": "application/x-own", "size": 1048577.0},
	}
	now := h.send(mailTo("ann@example.com", more))
	h.sim.Script(simulator.Rule{Provider: simulator.SendGrid, Fault: simulator.Throttle, Times: 2, RetryIn: 1})
	later := h.send(mailTo("ben@example.com", more))
	if now.body["status"] != "SENT" || later.body["status"] != "QUEUED" {
		t.Fatal(now.raw, later.raw)
	}
	h.waitStatus(later.body["message_id"].(string), "SENT")
	for to, id := range map[string]any{"ann@example.com": now.body["message_id"], "ben@example.com": later.body["message_id"]} {
		if got := h.sim.Accepted(to); len(got) != 1 || !slices.Equal(got[0].Attachments, want) || got[0].Text != "c" {
			t.Errorf("%s got %+v", to, got)
		}
		m := h.message(id.(string))
		if d := cmp.Diff(shown, m.body["attachments"]); d != "" || strings.Contains(m.raw, encoded(short)) {
			t.Errorf("%s: %s", to, d)
		}
	}
	plain := h.send(mailTo("cat@example.com", `"attachments":[]`))
	if d := cmp.Diff([]any{}, h.message(plain.body["message_id"].(string)).body["attachments"]); d != "" {
		t.Errorf("a message without files: %s", d)
	}
}

// The recipients of a bulk get the same files. Its request is shown with their sizes; a dry run counts their bytes.
func TestCaseAttachmentsOfABulk(t *testing.T) {
	h := start(t)
	ids := []string{h.lead(`"email":"ann@example.com"`), h.lead(`"email":"ben@example.com"`), h.lead(`"phone":"+14155550100"`)}
	long := noise(300_000, 2)
	body := `{"bulk_settings":{"lead_ids":["` + strings.Join(ids, `","`) + `"]},"message_data":{"subject":"s","content":"c",` + attach("a.csv", encoded(long)) + `}`
	dry := h.send(body + `,"dry_run":true}`)
	if dry.body["attachment_bytes"] != 600_000.0 || dry.body["reachable"] != 2.0 {
		t.Errorf("%s", dry.raw)
	}
	if a := h.send(strings.Replace(body, attach("a.csv", encoded(long)), `"metadata":{}`, 1) + `,"dry_run":true}`); a.body["attachment_bytes"] != 0.0 {
		t.Errorf("without files: %s", a.raw)
	}
	a := h.send(body + "}")
	if a.body["messages_sent"] != 2.0 {
		t.Fatal(a.raw)
	}
	for _, to := range []string{"ann@example.com", "ben@example.com"} {
		if got := h.sim.Accepted(to); len(got) != 1 || !slices.Equal(got[0].Attachments, []simulator.File{file("a.csv", "text/csv", long)}) {
			t.Errorf("%s got %+v", to, got)
		}
	}
	shown := []any{map[string]any{"name": "a.csv", "type": "text/csv", "size": 300_000.0}}
	request := h.must(200, "GET", "/api/messaging/bulk/"+a.body["bulk_id"].(string), "").body["request"].(map[string]any)
	if d := cmp.Diff(shown, request["message_data"].(map[string]any)["attachments"]); d != "" {
		t.Errorf("the request: %s", d)
	}
	for _, m := range h.must(200, "GET", "/api/messaging/messages?bulk_id="+a.body["bulk_id"].(string), "").body["items"].([]any) {
		if d := cmp.Diff(shown, m.(map[string]any)["attachments"]); d != "" {
			t.Errorf("a message: %s", d)
		}
	}
}

// A repeated request with the same files is answered as before, however they are written; other files are another request.
func TestCaseAttachmentsUnderAKey(t *testing.T) {
	h := start(t)
	for name, content := range map[string][]byte{"short": []byte("hello"), "long": noise(100_000, 3)} {
		first := h.send(mailTo(name+"@example.com", attach("a.txt", encoded(content))), "Idempotency-Key", name)
		wrapped := encoded(content)[:4] + `\r\n` + strings.ReplaceAll(encoded(content)[4:], "/", `\/`)
		again := h.send(mailTo(name+"@example.com", attach("a.txt", wrapped)), "Idempotency-Key", name)
		if again.header.Get("Idempotent-Replayed") != "true" || again.body["message_id"] != first.body["message_id"] {
			t.Errorf("%s: %s", name, again.raw)
		}
		content[len(content)-1]++
		other := h.must(422, "POST", "/api/messaging/send", mailTo(name+"@example.com", attach("a.txt", encoded(content))), "Idempotency-Key", name)
		if other.locs()[`["header","Idempotency-Key"]`] != "idempotency_key_reused" {
			t.Errorf("%s: %s", name, other.raw)
		}
		if n := len(h.sim.Accepted(name + "@example.com")); n != 1 {
			t.Errorf("%s: sent %d times", name, n)
		}
	}
}

// Each mistake in an attachment names its place, and nothing is written or sent.
func TestCaseAttachmentMistakes(t *testing.T) {
	h := start(t)
	const at = `["body","message_data","attachments"`
	mib := 1 << 20
	for given, want := range map[string]map[string]string{
		`"attachments":"a.pdf"`:                                    {at + `]`: "list_type"},
		`"attachments":["a.pdf"]`:                                  {at + `,0]`: "dict_type"},
		`"attachments":[null]`:                                     {at + `,0]`: "dict_type"},
		`"attachments":[{}]`:                                       {at + `,0,"name"]`: "missing", at + `,0,"content"]`: "missing"},
		`"attachments":[{"name":7,"type":7,"content":7}]`:          {at + `,0,"name"]`: "string_type", at + `,0,"type"]`: "string_type", at + `,0,"content"]`: "string_type"},
		`"attachments":[{"name":"a","content":"QQ==","path":"x"}]`: {at + `,0,"path"]`: "extra_forbidden"},
		attach("a", ""):                                            {at + `,0,"content"]`: "string_too_short"},
		attach("a", "data:text/plain;base64,QQ=="):                 {at + `,0,"content"]`: "value_error"},
		attach("a", "QQ"):                                          {at + `,0,"content"]`: "value_error"},
		attach("a/b", "QQ=="):                                      {at + `,0,"name"]`: "value_error"},
		attach("", "QQ=="):                                         {at + `,0,"name"]`: "string_too_short"},
		attach(strings.Repeat("ä", 128), "QQ=="):                   {at + `,0,"name"]`: "string_too_long"},
		`"attachments":[{"name":"a","content":"QQ=="},{"name":"b","type":"pdf","content":"QQ=="}]`: {at + `,1,"type"]`: "value_error"},
		`"attachments":[null,{"name":"a","content":7},{"name":"b/c","content":"!"}]`: {
			at + `,0]`: "dict_type", at + `,1,"content"]`: "string_type", at + `,2,"content"]`: "value_error", at + `,2,"name"]`: "value_error",
		},
		`"attachments":[` + strings.TrimSuffix(strings.Repeat(`{"name":"a","content":"QQ=="},`, 11), ",") + `]`:                              {at + `]`: "too_long"},
		attach("a", encoded(make([]byte, 20*mib+1))):                                                                                         {at + `,0,"content"]`: "string_too_long"},
		attach("a", encoded(make([]byte, 21*mib))):                                                                                           {at + `,0,"content"]`: "string_too_long"},
		strings.Replace(attach("a", encoded(make([]byte, 15*mib))), `}]`, `},{"name":"b","content":"`+encoded(make([]byte, 6*mib))+`"}]`, 1): {at + `,1,"content"]`: "string_too_long"},
	} {
		a := h.must(422, "POST", "/api/messaging/send", mailTo("ann@example.com", given))
		if d := cmp.Diff(want, a.locs()); d != "" {
			t.Errorf("%.100s: %s", given, d)
		}
		if len(a.raw) > 10_000 {
			t.Errorf("%.100s: an answer of %d bytes", given, len(a.raw))
		}
	}
	if a := h.must(413, "POST", "/api/messaging/send", mailTo("ann@example.com", attach("a", encoded(make([]byte, 37*mib))))); !strings.Contains(a.raw, "message_data.attachments") {
		t.Error(a.raw)
	}
	for _, recipient := range []string{"+14155550100", "123456789012345"} {
		a := h.must(422, "POST", "/api/messaging/send", `{"message_data":{"recipient":"`+recipient+`","content":"c",`+attach("a", "QQ==")+`}}`)
		if d := cmp.Diff(map[string]string{at + `]`: "extra_forbidden"}, a.locs()); d != "" {
			t.Errorf("to %s: %s", recipient, d)
		}
	}
	if h.written() != 0 || len(h.sim.Accepted("")) != 0 {
		t.Error("a refused request left something behind")
	}
}
