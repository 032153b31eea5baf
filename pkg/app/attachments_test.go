package app_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"herald/pkg/client"
	"herald/pkg/message"
)

// mailWith is a single with one attachment of a number of bytes.
func mailWith(to string, bytes int) string {
	content := base64.StdEncoding.EncodeToString(make([]byte, bytes))
	return `{"message_data":{"recipient":"` + to + `","subject":"s","content":"c","attachments":[{"name":"a.bin","content":"` + content + `"}]}}`
}

// The largest attachments take little memory, of API, worker and Redis: they are decoded while they arrive, stored once for a bulk, shared
// by its messages, and encoded while they are sent. Larger ones are refused with their place, and take less.
func TestCaseLargeAttachmentsTakeLittleMemory(t *testing.T) {
	t.Parallel()
	s := deploy(t)
	ids := s.load(8)
	worker := s.start("worker")
	if status, answer := s.try(http.MethodPost, "/api/messaging/send", mailWith("first@example.com", 10)); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	idle := s.rss(s.startedAPI)
	large, tooLarge := mailWith("large@example.com", message.MaxAttachmentBytes), mailWith("none@example.com", 21<<20)
	for range 3 {
		if status, answer := s.try(http.MethodPost, "/api/messaging/send", tooLarge); status != http.StatusUnprocessableEntity || !strings.Contains(answer, `["body","message_data","attachments",0,"content"]`) {
			t.Errorf("21 MB: %d %.300s", status, answer)
		}
		if status, answer := s.try(http.MethodPost, "/api/messaging/send", large); status != http.StatusOK || !strings.Contains(answer, `"SENT"`) {
			t.Errorf("20 MB: %d %.300s", status, answer)
		}
	}
	one := s.rss(s.startedAPI)
	var wg sync.WaitGroup
	for range 8 { // more than memory allows at once
		wg.Go(func() {
			if status, answer := s.try(http.MethodPost, "/api/messaging/send", large); status != http.StatusOK && status != http.StatusServiceUnavailable {
				t.Errorf("beside others: %d %.300s", status, answer)
			}
		})
	}
	wg.Wait()
	bulk := s.request("email", ids)
	bulk.MessageData.Attachments = []client.Attachment{{Name: "a.bin", Content: make([]byte, message.MaxAttachmentBytes)}}
	f := s.finish(figuresOf(must[client.Bulk](s)(s.api.SendBulk(s.t.Context(), bulk, client.Waiting(0)))))
	if f.Sent != len(ids) {
		t.Errorf("%+v", f)
	}
	for i := range ids {
		got := s.sim.Accepted(fmt.Sprintf("lead%d@example.com", i))
		if len(got) != 1 || len(got[0].Attachments) != 1 || got[0].Attachments[0].Size != message.MaxAttachmentBytes {
			t.Fatalf("lead %d got %+v", i, got)
		}
	}
	info := s.rdb.Info(t.Context(), "memory").Val()
	_, peak, _ := strings.Cut(info, "used_memory_peak:")
	var redis int
	if _, err := fmt.Sscan(peak, &redis); err != nil || redis > 16<<20 {
		t.Errorf("Redis has used %d bytes, %v", redis, err)
	}
	if n := s.number("SELECT count(DISTINCT owner_id)::int FROM message_files WHERE owner_id IN (SELECT id FROM bulks)"); n != 1 {
		t.Errorf("the files of the bulk are stored %d times", n)
	}
	t.Logf("memory at most: API %d MB idle, %d MB after one at a time, %d MB after eight; worker %d MB; Redis %d MB", idle, one, s.rss(s.startedAPI), s.rss(worker), redis>>20)
	if one > idle+150 || s.rss(s.startedAPI) > idle+200 || s.rss(worker) > 250 {
		t.Errorf("memory: API %d MB idle, %d MB after one at a time, %d MB after eight; worker %d MB", idle, one, s.rss(s.startedAPI), s.rss(worker))
	}
}
