package simulator

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	registry "herald/pkg/provider/vendors"
)

// Every entry of the table is complete and simulates a registered provider.
func TestVendorsAreComplete(t *testing.T) {
	for i, v := range vendors {
		if slices.ContainsFunc(vendors[:i], func(o vendor) bool { return o.name == v.name }) || !slices.Contains(registry.All.Names(), v.name) {
			t.Errorf("%s is repeated or not registered", v.name)
		}
		if len(v.path) == 0 || v.read == nil || v.quote == nil || v.refuse == nil {
			t.Errorf("%s is incomplete", v.name)
		}
		for _, f := range []Fault{Throttle, Unauthorize, Forbid, Refuse} {
			if v.refusals[f] == nil {
				t.Errorf("%s has no answer to %s", v.name, f)
			}
		}
	}
}

// calls are a valid call to each vendor.
var calls = map[string]struct {
	path, body string
	header     []string
	accepted   int
}{
	SendGrid: {
		"/v3/mail/send",
		`{"from":{"email":"a@acme.test"},"subject":"s","personalizations":[{"to":[{"email":"x@example.com"}]}],"content":[{"type":"text/plain","value":"c"}]}`,
		[]string{"Authorization", "Bearer SG.x"}, 202,
	},
	Twilio: {
		"/2010-04-01/Accounts/AC1/Messages.json", "To=%2B14155550100&From=x&Body=y",
		[]string{"Content-Type", "application/x-www-form-urlencoded", "Authorization", "Basic YTpi"}, 201,
	},
	Instagram: {"/v26.0/1/messages", `{"recipient":{"id":"1"},"message":{"text":"x"}}`, []string{"Authorization", "Bearer x"}, 200},
}

func post(t *testing.T, url, vendor string) (status int, retryAfter string, err error) {
	t.Helper()
	status, retryAfter, _, err = postFor(t, url, vendor)
	return status, retryAfter, err
}

// postFor makes a valid call to a vendor and returns its answer.
func postFor(t *testing.T, url, vendor string) (status int, retryAfter, body string, err error) {
	t.Helper()
	c := calls[vendor]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(c.header); i += 2 {
		req.Header.Set(c.header[i], c.header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Retry-After"), string(b), err
}

func start(t *testing.T) (*Simulator, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		s.Close() // has no effect
		if err := <-done; err != nil {
			t.Errorf("Serve after Close: %v", err)
		}
	})
	return s, "http://" + l.Addr().String()
}

// Each fault has its status at each vendor, and accepts the message first exactly if its name ends in _after.
func TestFaults(t *testing.T) {
	s, u := start(t)
	statuses := map[Fault]map[string]int{
		Throttle: {SendGrid: 429, Twilio: 429, Instagram: 400}, Unauthorize: {SendGrid: 401, Twilio: 401, Instagram: 401},
		Forbid: {SendGrid: 403, Twilio: 400, Instagram: 400}, Refuse: {SendGrid: 400, Twilio: 400, Instagram: 400},
		Quote: {SendGrid: 400, Twilio: 400, Instagram: 400},
	}
	for fault, status := range map[Fault]int{Unavailable: 503, ServerError: 500, ErrorAfter: 500, HTML: 502, Empty: 200, "no such fault": 500, Reset: 0, ResetAfter: 0} {
		statuses[fault] = map[string]int{SendGrid: status, Twilio: status, Instagram: status}
	}
	statuses[None] = map[string]int{}
	for name, c := range calls {
		statuses[None][name] = c.accepted
	}
	for fault, byVendor := range statuses {
		for name, want := range byVendor {
			s.Reset()
			s.Script(Rule{Provider: name, Fault: fault})
			status, wait, err := post(t, u, name)
			if status != want || (err != nil) != (want == 0) {
				t.Errorf("%s, %s: status %d, %v, want %d", name, fault, status, err, want)
			}
			if (wait != "") != (fault == Unavailable) {
				t.Errorf("%s, %s: Retry-After %q", name, fault, wait)
			}
			accepted := fault == None || fault == ErrorAfter || fault == ResetAfter
			if n := s.Report().ByProvider[name]; (n == 1) != accepted || n > 1 {
				t.Errorf("%s, %s: %d accepted", name, fault, n)
			}
		}
	}
}

// SendGrid refuses what it would not send, and the record has what it accepted.
func TestSendGridExtras(t *testing.T) {
	s, u := start(t)
	plain := calls[SendGrid]
	defer func() { calls[SendGrid] = plain }()
	for name, c := range map[string]struct {
		more   string
		status int
	}{
		"both":                  {`"reply_to":{"email":"help@acme.test","name":"Help"},"headers":{"X-A":"b"}`, 202},
		"reply_to only":         {`"reply_to":{"email":"help@acme.test"}`, 202},
		"no address":            {`"reply_to":{"email":"help"}`, 400},
		"a reserved header":     {`"headers":{"Reply-To":"x@y.test"}`, 400},
		"in another case":       {`"headers":{"X-SG-ID":"1"}`, 400},
		"a header over a line":  {`"headers":{"X-A":"b\r\nBcc: x@y.test"}`, 400},
		"a header beyond ASCII": {`"headers":{"X-A":"ä"}`, 400},
		"a file":                {`"attachments":[{"content":"aGVsbG8=","filename":"a.txt","type":"text/plain","disposition":"attachment"}]`, 202},
		"a file without a type": {`"attachments":[{"content":"aGVsbG8=","filename":"a.txt"}]`, 202},
		"a file of no base64":   {`"attachments":[{"content":"hello","filename":"a.txt"}]`, 400},
		"an escape in a file":   {`"attachments":[{"content":"aGVs\/G8=","filename":"a.txt"}]`, 400},
		"a file that is null":   {`"attachments":[{"content":null,"filename":"a.txt"}]`, 400},
		"an empty file":         {`"attachments":[{"content":"","filename":"a.txt"}]`, 400},
		"a file without a name": {`"attachments":[{"content":"aGVsbG8="}]`, 400},
		"a type with parameter": {`"attachments":[{"content":"aGVsbG8=","filename":"a.txt","type":"text/plain; charset=utf-8"}]`, 400},
		"another disposition":   {`"attachments":[{"content":"aGVsbG8=","filename":"a.txt","disposition":"hidden"}]`, 400},
	} {
		call := plain
		call.body = strings.TrimSuffix(plain.body, "}") + "," + c.more + "}"
		calls[SendGrid] = call
		s.Reset()
		if status, _, err := post(t, u, SendGrid); status != c.status || err != nil {
			t.Errorf("%s: status %d, %v", name, status, err)
		}
		got := s.Accepted("")
		switch {
		case len(got) != map[bool]int{true: 1}[c.status == 202]:
			t.Errorf("%s: accepted %+v", name, got)
		case name == "a file" && !slices.Equal(got[0].Attachments, []File{{Name: "a.txt", Type: "text/plain", Size: 5, SHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}):
			t.Errorf("%+v", got[0].Attachments)
		case name == "both" && (got[0].ReplyTo != `"Help" <help@acme.test>` || got[0].Headers["X-A"] != "b"), name == "reply_to only" && got[0].ReplyTo != "help@acme.test":
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A rule applies to the calls that it names, the given number of times, in the order of the script.
func TestScript(t *testing.T) {
	s, u := start(t)
	s.Script(Rule{Provider: Twilio, Fault: Refuse}, Rule{Recipient: "y@", Fault: Refuse}, Rule{Recipient: "x@", Fault: ServerError, Times: 2, RetryIn: 7}, Rule{Fault: HTML, Times: 1})
	for i, want := range []struct {
		vendor string
		status int
		wait   string
	}{{SendGrid, 500, "7"}, {SendGrid, 500, "7"}, {SendGrid, 502, ""}, {SendGrid, 202, ""}, {Twilio, 400, ""}, {Instagram, 200, ""}} {
		if status, wait, err := post(t, u, want.vendor); status != want.status || wait != want.wait || err != nil {
			t.Errorf("call %d: %d, %q, %v", i, status, wait, err)
		}
	}
	if r := s.Report(); r.Accepted != 2 || r.Recipients != 2 || r.First.IsZero() || r.Last.Before(r.First) {
		t.Errorf("%+v", r)
	}
	if times := s.Times(); times["x@example.com"] != 1 || times["1 text"] != 1 {
		t.Errorf("%v", times)
	}
}

// A rule's refusal is answered in the form of each vendor, and nothing is accepted.
func TestRefusals(t *testing.T) {
	s, u := start(t)
	s.Script(Rule{RetryIn: 3, Refusal: &Refusal{Status: 422, Code: 10, Subcode: 2018108, Text: "no", Field: "from"}})
	for name, want := range map[string]string{
		SendGrid:  `{"errors":[{"field":"from","help":null,"message":"no"}]}`,
		Twilio:    `{"code":10,"message":"no","more_info":"https://www.twilio.com/docs/errors/10","status":422}`,
		Instagram: `{"error":{"code":10,"error_subcode":2018108,"fbtrace_id":"simulated","message":"no","type":"OAuthException"}}`,
	} {
		status, wait, body, err := postFor(t, u, name)
		if status != 422 || wait != "3" || strings.TrimSpace(body) != want || err != nil {
			t.Errorf("%s: %d, Retry-After %q, %s, %v", name, status, wait, body, err)
		}
	}
	s.Script(Rule{Times: 1, Refusal: &Refusal{Code: 21211}})
	if first, _, _ := post(t, u, Twilio); first != 400 || s.Report().Accepted != 0 {
		t.Errorf("status %d without one in the rule, %d accepted", first, s.Report().Accepted)
	}
	if second, _, _ := post(t, u, Twilio); second != 201 {
		t.Errorf("after the rule: %d", second)
	}
}

// A limit holds per second and per vendor. Nine calls take less than nine seconds.
func TestLimit(t *testing.T) {
	s, u := start(t)
	s.SetLimit(SendGrid, 1)
	refused := 0
	for range 9 {
		if status, _, _ := post(t, u, SendGrid); status == 429 {
			refused++
		}
	}
	if accepted := int(s.Report().ByProvider[SendGrid]); refused == 0 || accepted != 9-refused {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
	if status, _, _ := post(t, u, Twilio); status != 201 {
		t.Errorf("another vendor: %d", status)
	}
	s.SetLimit(SendGrid, 0)
	for range 9 {
		if status, _, _ := post(t, u, SendGrid); status != 202 {
			t.Fatalf("without a limit: %d", status)
		}
	}
}

// The record keeps the latest messages and counts all.
func TestRecordIsBounded(t *testing.T) {
	s := New()
	for range maxRecords + 1 {
		s.accept(Accepted{Provider: SendGrid, Recipient: "a"})
	}
	if n := len(s.Accepted("a")); n != maxRecords/2+1 {
		t.Errorf("%d records", n)
	}
	if r := s.Report(); r.Accepted != maxRecords+1 || r.Repeated["sendgrid a"] != maxRecords+1 {
		t.Errorf("%+v", r)
	}
	if n := len(s.Accepted("b")); n != 0 {
		t.Errorf("%d records of another recipient", n)
	}
}
