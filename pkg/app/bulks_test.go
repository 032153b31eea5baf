package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/client"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// figures is how a bulk stands, in the short words of these tests.
type figures struct {
	BulkID, Status                        string
	Total, Sent, Failed, Pending, Unknown int
	Channel                               *contract.BulkChannel
	Reasons                               map[message.Reason]int64
}

func figuresOf(b *client.Bulk) figures {
	return figures{
		b.BulkID, b.Status, int(b.TotalLeads), int(b.MessagesSent), int(b.MessagesFailed), int(b.MessagesPending), int(b.MessagesUnknown), b.Channel, b.FailureReasons,
	}
}

// must fails the test when a call of the client failed.
func must[T any](s *system) func(v *T, err error) *T {
	return func(v *T, err error) *T {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
		return v
	}
}

// bulk returns how a bulk stands.
func (s *system) bulk(id string) figures {
	s.t.Helper()
	return figuresOf(must[client.Bulk](s)(s.api.Bulk(s.t.Context(), id)))
}

// load makes the channels, imports n leads from CSV and returns their ids.
func (s *system) load(n int) []string {
	s.t.Helper()
	for _, c := range []client.NewChannel{
		{ID: mailChannel, Type: "email", Name: "Mail", Sender: "news@acme.test", Credentials: map[string]string{"api_key": "SG.secret"}},
		{ID: textChannel, Type: "sms", Name: "SMS", Sender: "+15005550006", Credentials: map[string]string{"account_sid": "AC00000000000000000000000000000000", "auth_token": "secret"}},
	} {
		c.Default = true
		must[client.Channel](s)(s.api.CreateChannel(s.t.Context(), c))
	}
	ids := make([]string, n)
	var csv strings.Builder
	w := bufio.NewWriter(&csv)
	fmt.Fprintln(w, "id,first_name,email,phone,company")
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
		fmt.Fprintf(w, "%s,Name%d,lead%d@example.com,+1555%07d,Company %d\n", ids[i], i, i, i, i%50)
	}
	_ = w.Flush()
	report := must[client.ImportReport](s)(s.api.ImportLeads(s.t.Context(), client.CSV, strings.NewReader(csv.String())))
	if report.Imported != n || report.Rejected != 0 {
		s.t.Fatalf("import: %+v", report)
	}
	return ids
}

const (
	mailChannel = "0190a000-0000-7000-8000-000000000001"
	textChannel = "0190a000-0000-7000-8000-000000000002"
)

// request asks for a bulk of a type to some leads.
func (s *system) request(typ string, ids []string) client.SendRequest {
	r := client.SendRequest{
		SenderType: typ, BulkSettings: &client.BulkSettings{LeadIDs: ids}, MessageData: client.MessageData{Content: "Hello {{ first_name }} of {{ company }}"},
	}
	if typ == "email" {
		r.MessageData.Subject = "Hi {{ first_name }}"
	}
	return r
}

// order is request as it goes over the wire.
func (s *system) order(typ string, ids []string) string {
	s.t.Helper()
	body, err := json.Marshal(s.request(typ, ids))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(body)
}

func (s *system) sendBulk(ids []string) figures {
	s.t.Helper()
	return s.sendBulkOf("email", ids)
}

func (s *system) sendBulkOf(typ string, ids []string) figures {
	s.t.Helper()
	return figuresOf(must[client.Bulk](s)(s.api.SendBulk(s.t.Context(), s.request(typ, ids))))
}

func (s *system) finish(f figures) figures {
	s.t.Helper()
	s.eventually(5*time.Minute, "the bulk is complete", func() bool {
		f = s.bulk(f.BulkID)
		if f.Sent+f.Failed+f.Pending != f.Total {
			s.t.Fatalf("the figures do not add up: %+v", f)
		}
		return f.Status == "COMPLETED"
	})
	return f
}

// try makes a request and returns what came of it; a broken connection is status 0.
func (s *system) try(method, path, body string, headers ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 70*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// look returns how a bulk stands, and whether that could be told.
func (s *system) look(id string) (figures, bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 70*time.Second)
	defer cancel()
	b, err := s.api.Bulk(ctx, id)
	if err != nil {
		return figures{}, false
	}
	return figuresOf(b), true
}

// reach waits until a bulk has sent so many.
func (s *system) reach(id string, sent int) {
	s.t.Helper()
	s.eventually(2*time.Minute, fmt.Sprintf("%d messages are sent", sent), func() bool {
		f, ok := s.look(id)
		return ok && f.Sent >= sent
	})
}

// over waits until a bulk has ended. It ignores failed requests, and checks that the figures of each view add up.
func (s *system) over(id string) figures {
	s.t.Helper()
	var f figures
	s.eventually(4*time.Minute, "the bulk is over", func() bool {
		var ok bool
		f, ok = s.look(id)
		if ok && f.Sent+f.Failed+f.Pending != f.Total {
			s.t.Errorf("the figures do not add up: %+v", f)
		}
		return ok && f.Channel == nil && f.Status != "PAUSED"
	})
	return f
}

func (s *system) patch(path, body string) {
	s.t.Helper()
	if status, answer := s.try(http.MethodPatch, path, body); status != http.StatusOK {
		s.t.Fatalf("PATCH %s: %d %s", path, status, answer)
	}
}
