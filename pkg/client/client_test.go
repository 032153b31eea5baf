package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"herald/pkg/app"
	"herald/pkg/app/apptest"
	"herald/pkg/client"
	"herald/pkg/config"
	"herald/pkg/message"
)

// herald starts a whole Herald, embedded, and returns it with its address.
func herald(t *testing.T) (*app.Embedded, string) {
	t.Helper()
	return apptest.Start(t, func(*config.Config) {})
}

func connect(t *testing.T, base string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(base, options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ok returns what a call found, and ends the test when it failed.
func ok[T any](t *testing.T) func(v *T, err error) *T {
	return func(v *T, err error) *T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func mail(t *testing.T, c *client.Client) *client.Channel {
	t.Helper()
	return ok[client.Channel](t)(c.CreateChannel(t.Context(), client.NewChannel{
		Type: "email", Name: "Mail", Sender: "news@acme.test", Credentials: map[string]string{"api_key": "SG.a-key-of-a-test"},
		ChannelFields: client.ChannelFields{Price: 0.001, Default: true},
	}))
}

func hello(to string) client.SendRequest {
	return client.SendRequest{MessageData: client.MessageData{Recipient: to, Subject: "s", Content: "c"}}
}

func TestTheWholeAPI(t *testing.T) {
	e, base := herald(t)
	c := connect(t, base)
	ctx := t.Context()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	ch := mail(t, c)
	const leads = 450 // three pages
	var csv strings.Builder
	csv.WriteString("first_name,email,tags\n")
	for i := range leads {
		fmt.Fprintf(&csv, "Lead%d,lead%d@example.com,a\n", i, i)
	}
	if rep := ok[client.ImportReport](t)(c.ImportLeads(ctx, client.CSV, strings.NewReader(csv.String()))); rep.Imported != leads {
		t.Fatalf("%+v", rep)
	}
	one := ok[client.Lead](t)(c.CreateLead(ctx, client.NewLead{LeadFields: client.LeadFields{FirstName: "Zoe", Email: "zoe@example.com"}}))
	one = ok[client.Lead](t)(c.ChangeLead(ctx, one.ID, client.Patch{"last_name": "Z", "first_name": nil}))
	if got := ok[client.Lead](t)(c.Lead(ctx, one.ID)); got.FirstName != nil || *got.LastName != "Z" {
		t.Errorf("%+v", got)
	}
	seen := map[string]bool{}
	for l, err := range c.Leads(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		seen[l.ID] = true
	}
	if len(seen) != leads+1 {
		t.Errorf("walked over %d leads", len(seen))
	}
	sup := ok[client.Suppression](t)(c.Suppress(ctx, client.NewSuppression{Type: "EMAIL", Address: "lead0@example.com", Reason: "unsubscribed"}))
	req := client.SendRequest{
		BulkSettings: &client.BulkSettings{Filters: &client.FilterRequest{Conditions: []client.FilterNode{
			{Condition: &client.Condition{Field: "tags", Operator: "contains", Value: "a"}},
			{Group: &client.FilterRequest{Logic: "OR", Conditions: []client.FilterNode{{Condition: &client.Condition{Field: "first_name", Operator: "starts_with", Value: "lead"}}}}},
		}}},
		MessageData: client.MessageData{Subject: "s", Content: "c"},
	}
	if p := ok[client.Preview](t)(c.DryRun(ctx, req)); p.TotalLeads != leads || p.Reachable != leads-1 || p.Skipped[message.Unsubscribed] != 1 {
		t.Errorf("%+v", p)
	}
	b := ok[client.Bulk](t)(c.SendBulk(ctx, req))
	var last *client.Bulk
	for v, err := range c.WatchBulk(ctx, b.BulkID) {
		if err != nil {
			t.Fatal(err)
		}
		last = v
	}
	if !client.Over(last) || last.MessagesSent != leads-1 || last.MessagesFailed != 1 || last.FailureReasons[message.Unsubscribed] != 1 {
		t.Errorf("%+v", last)
	}
	n := 0
	for m, err := range c.Messages(ctx, client.MessageFilter{BulkID: b.BulkID, Statuses: []message.Status{message.Sent}, CreatedAfter: time.Now().Add(-time.Hour)}) {
		if n++; err != nil || m.Status != message.Sent {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	if n != leads-1 {
		t.Errorf("%d messages are SENT", n)
	}
	if x := ok[client.Explanation](t)(c.ExplainLead(ctx, b.BulkID, one.ID)); x.InAudience || x.MatchesNow == nil || *x.MatchesNow {
		t.Errorf("%+v", x)
	}
	if err := c.LiftSuppression(ctx, sup.ID); err != nil {
		t.Error(err)
	}
	for range c.Suppressions(ctx, client.SuppressionFilter{Type: message.Email, Address: "lead0@example.com", Reason: message.ManuallySuppressed, CreatedAfter: time.Now().Add(-time.Hour)}) {
		t.Error("the suppression is still there")
	}
	single := ok[client.SendResponse](t)(c.Send(ctx, hello("x@example.com")))
	if m := ok[client.Message](t)(c.Message(ctx, single.MessageID)); !single.Success || m.Status != message.Sent || len(m.Attempts) != 1 {
		t.Errorf("%+v", m)
	}
	if err := c.EraseLead(ctx, one.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Lead(ctx, one.ID); !client.IsStatus(err, http.StatusNotFound) {
		t.Errorf("an erased lead: %v", err)
	}
	steer(t, c, ch)
	if sent := e.Simulator.Report(); sent.Accepted != leads || len(sent.Repeated) != 0 {
		t.Errorf("%+v", sent)
	}
}

// steer pauses, resumes and cancels.
func steer(t *testing.T, c *client.Client, ch *client.Channel) {
	t.Helper()
	ctx := t.Context()
	ok[client.Channel](t)(c.ChangeChannel(ctx, ch.ID, ch.Type, client.Patch{"state": "PAUSED"}))
	b := ok[client.Bulk](t)(c.SendBulk(ctx, client.SendRequest{BulkSettings: &client.BulkSettings{AllLeads: true}, MessageData: client.MessageData{Subject: "s", Content: "c"}}))
	for _, step := range []struct {
		do   func(context.Context, string) (*client.Bulk, error)
		want string
	}{{c.PauseBulk, "PAUSED"}, {c.ResumeBulk, "PROCESSING"}, {c.CancelBulk, "CANCELLED"}} {
		if got := ok[client.Bulk](t)(step.do(ctx, b.BulkID)); got.Status != step.want {
			t.Errorf("%s, want %s", got.Status, step.want)
		}
	}
	if _, err := c.PauseBulk(ctx, b.BulkID); !client.IsStatus(err, http.StatusConflict) {
		t.Errorf("a cancelled bulk was paused: %v", err)
	}
	for v, err := range c.WatchBulk(ctx, b.BulkID) {
		if err != nil {
			t.Fatal(err)
		}
		b = v
	}
	if !client.Over(b) {
		t.Error("the watch ended before the bulk")
	}
	for v, err := range c.Bulks(ctx, client.BulkFilter{}) {
		if err != nil || v.BulkID != b.BulkID {
			t.Errorf("the newest bulk is %s, %v", v.BulkID, err)
		}
		break
	}
	if err := c.DeleteChannel(ctx, ch.ID, ch.Type); err != nil {
		t.Error(err)
	}
	for range c.Channels(ctx) {
		t.Error("the channel is still there")
	}
}

// trouble is a proxy that does something else instead of passing on an answer, so many times.
type trouble struct {
	*httptest.Server
	left atomic.Int32
	seen atomic.Int32
}

func startTrouble(t *testing.T, base string, times int32, do func(w http.ResponseWriter, pass func())) *trouble {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	tr := &trouble{}
	tr.left.Store(times)
	tr.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.seen.Add(1)
		r.Host, r.Header["X-Forwarded-For"] = u.Host, nil // it simulates a broken network; the API refuses requests of proxies
		if tr.left.Add(-1) >= 0 {
			do(w, func() { proxy.ServeHTTP(httptest.NewRecorder(), r) })
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(tr.Close)
	return tr
}

func status(code int, header ...string) func(http.ResponseWriter, func()) {
	return func(w http.ResponseWriter, _ func()) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = fmt.Fprint(w, `{"detail":"trouble","code":"in_progress"}`)
	}
}

func cut(http.ResponseWriter, func()) { panic(http.ErrAbortHandler) }

func cutAfter(_ http.ResponseWriter, pass func()) {
	pass()
	panic(http.ErrAbortHandler)
}

// A send is repeated until a response arrives, and takes effect once, whether requests or responses are lost.
func TestSendsAreRepeatedSafely(t *testing.T) {
	e, base := herald(t)
	mail(t, connect(t, base))
	for name, do := range map[string]func(http.ResponseWriter, func()){
		"too many requests": status(429, "Retry-After", "1"), "unavailable": status(503, "Retry-After", "1"), "at work on it": status(409), "an error": status(500),
		"a proxy's error": status(502), "the connection breaks": cut, "the answer is lost": cutAfter,
	} {
		to := strings.ReplaceAll(name, " ", "-") + "@example.com"
		tr := startTrouble(t, base, 2, do)
		var replayed bool
		var took time.Duration
		got, err := connect(t, tr.URL).Send(t.Context(), hello(to), client.Replayed(&replayed), client.ProviderTook(&took))
		if (took == 0) != replayed {
			t.Errorf("%s: replayed %t, and the provider took %s", name, replayed, took)
		}
		if err != nil || got.Status != message.Sent || tr.seen.Load() != 3 {
			t.Errorf("%s: %+v, %v, %d requests", name, got, err, tr.seen.Load())
		}
		if n := len(e.Simulator.Accepted(to)); n != 1 {
			t.Errorf("%s: accepted %d times", name, n)
		}
		if replayed != (name == "the answer is lost") {
			t.Errorf("%s: replayed is %v", name, replayed)
		}
	}
}

// What may not be done twice is asked for once, unless it is certain that nothing was done.
func TestWhatIsNotRepeated(t *testing.T) {
	_, base := herald(t)
	lead := func(c *client.Client) error {
		_, err := c.CreateLead(t.Context(), client.NewLead{})
		return err
	}
	for name, c := range map[string]struct {
		do       func(http.ResponseWriter, func())
		call     func(*client.Client) error
		requests int32
		fails    bool
	}{
		"a new lead, the answer is lost": {cutAfter, lead, 1, true},
		"a new lead, an error":           {status(500), lead, 1, true},
		"a new lead, too many requests":  {status(429), lead, 2, false},
		"a send that is wrong":           {status(422), func(c *client.Client) error { _, err := c.Send(t.Context(), hello("x@example.com")); return err }, 1, true},
		"reading, the connection breaks": {cut, func(c *client.Client) error {
			_, err := c.Lead(t.Context(), "550e8400-e29b-41d4-a716-446655440001")
			return err
		}, 2, true},
		"a file, the connection breaks": {cut, func(c *client.Client) error {
			_, err := c.ImportLeads(t.Context(), client.CSV, strings.NewReader("email\n"))
			return err
		}, 1, true},
		"an unknown format makes no request": {cut, func(c *client.Client) error {
			_, err := c.ImportLeads(t.Context(), "text/plain", strings.NewReader(""))
			return err
		}, 0, true},
	} {
		tr := startTrouble(t, base, 1, c.do)
		if err := c.call(connect(t, tr.URL)); (err != nil) != c.fails || tr.seen.Load() != c.requests {
			t.Errorf("%s: %v, %d requests, want %d", name, err, tr.seen.Load(), c.requests)
		}
	}
}

func TestPatienceAndContext(t *testing.T) {
	_, base := herald(t)
	tr := startTrouble(t, base, 1<<30, status(503))
	if _, err := connect(t, tr.URL, client.WithRetryTimeout(0)).Send(t.Context(), hello("x@example.com")); !client.IsStatus(err, 503) || tr.seen.Load() != 1 {
		t.Errorf("without patience: %v, %d requests", err, tr.seen.Load())
	}
	if _, err := connect(t, tr.URL, client.WithRetryTimeout(time.Second)).Send(t.Context(), hello("x@example.com")); !client.IsStatus(err, 503) || tr.seen.Load() < 3 {
		t.Errorf("with some: %v, %d requests", err, tr.seen.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := connect(t, tr.URL).Send(ctx, hello("x@example.com")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its time is over: %v", err)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	_, base := herald(t)
	c := connect(t, base)
	_, err := c.Send(t.Context(), client.SendRequest{SenderType: "fax", MessageData: client.MessageData{ContactID: "x"}})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != 422 || e.Code != "invalid" || len(e.Fields) != 2 || e.RequestID == "" || !strings.Contains(err.Error(), "sender_type") {
		t.Errorf("%+v", err)
	}
	if _, err := c.Bulk(t.Context(), "01a20960-62b0-796f-9cfb-5b3a36495aeb"); !errors.As(err, &e) || e.Status != 404 || e.Code != "not_found" || e.Detail == "" {
		t.Errorf("%+v", err)
	}
	page := startTrouble(t, base, 1<<30, func(w http.ResponseWriter, _ func()) { w.WriteHeader(404); _, _ = fmt.Fprint(w, "<html>") })
	if err := connect(t, page.URL).Ready(t.Context()); !errors.As(err, &e) || e.Detail != "Not Found" {
		t.Errorf("the page of another server: %+v", err)
	}
	for _, bad := range []string{"", "localhost:8080", "ftp://x", "http://", "://"} {
		if _, err := client.New(bad); err == nil {
			t.Errorf("%q is taken for a URL of the API", bad)
		}
	}
}

// The key goes to the API and nowhere else.
func TestTheKeyIsSent(t *testing.T) {
	var got atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization") + " " + r.URL.String())
		_, _ = fmt.Fprint(w, `{}`)
	}))
	defer srv.Close()
	if _, err := connect(t, srv.URL+"/below", client.WithKey("hk_x")).Lead(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if got.Load() != "Bearer hk_x /below/api/leads/a%2Fb" {
		t.Errorf("sent %q", got.Load())
	}
}
