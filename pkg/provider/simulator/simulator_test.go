package simulator_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

func call(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

const mail = `{"from":{"email":"a@acme.test"},"subject":"s","personalizations":[{"to":[{"email":"x@example.com"}]}],"content":[{"type":"text/plain","value":"c"}]}`

// The script, the record and the reset over HTTP, as an operator's benchmark uses them.
func TestScriptAndRecordOverHTTP(t *testing.T) {
	_, u := testenv.Simulator(t)
	send := func() int {
		code, _ := call(t, "POST", u+"/v3/mail/send", mail, "Authorization", "Bearer SG.x")
		return code
	}
	if code, _ := call(t, "POST", u+"/simulator/script", `{"rules":[{"provider":"sendgrid","fault":"throttle","times":1},{"fault":"500_after","times":1}]}`); code != 204 {
		t.Fatalf("script: %d", code)
	}
	if a, b, c := send(), send(), send(); a != 429 || b != 500 || c != 202 {
		t.Errorf("answers %d %d %d", a, b, c)
	}
	var rep struct {
		Accepted int
		Repeated map[string]int
	}
	_, body := call(t, "GET", u+"/simulator/report", "")
	if err := json.Unmarshal([]byte(body), &rep); err != nil || rep.Accepted != 2 || rep.Repeated["sendgrid x@example.com"] != 2 {
		t.Errorf("%v %s", err, body)
	}
	if _, body := call(t, "GET", u+"/simulator/accepted?recipient=x@example.com", ""); strings.Count(body, "provider_message_id") != 2 {
		t.Error(body)
	}
	call(t, "POST", u+"/simulator/reset", "")
	if _, body := call(t, "GET", u+"/simulator/accepted", ""); strings.TrimSpace(body) != "[]" {
		t.Error(body)
	}
	if code, _ := call(t, "POST", u+"/simulator/script", `nonsense`); code != 400 {
		t.Errorf("nonsense: %d", code)
	}
}

// Wrong requests get what the vendors would say.
func TestWrongRequests(t *testing.T) {
	_, u := testenv.Simulator(t)
	const twilio = "/2010-04-01/Accounts/AC1/Messages.json"
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Authorization", "Basic YTpi"}
	for name, c := range map[string]struct {
		path, body string
		header     []string
		status     int
		says       string
	}{
		"sendgrid without a key":  {"/v3/mail/send", mail, nil, 401, "authorization grant"},
		"sendgrid nonsense":       {"/v3/mail/send", "x", []string{"Authorization", "Bearer SG.x"}, 400, "Bad Request"},
		"sendgrid without to":     {"/v3/mail/send", `{}`, []string{"Authorization", "Bearer SG.x"}, 400, "personalizations"},
		"sendgrid no subject":     {"/v3/mail/send", strings.Replace(mail, `"s"`, `""`, 1), []string{"Authorization", "Bearer SG.x"}, 400, "subject"},
		"twilio without a key":    {twilio, "", form[:2], 401, "20003"},
		"twilio without to":       {twilio, "", form, 400, "21604"},
		"twilio without from":     {twilio, "To=%2B14155550100", form, 400, "21603"},
		"twilio without body":     {twilio, "To=%2B14155550100&From=x", form, 400, "21602"},
		"twilio magic sender":     {twilio, "To=%2B14155550100&From=%2B15005550001&Body=x", form, 400, "21212"},
		"instagram without token": {"/v26.0/1/messages", "{}", nil, 401, "190"},
		"instagram nonsense":      {"/v26.0/1/messages", "{}", []string{"Authorization", "Bearer x"}, 400, `"code":100`},
		"instagram without text":  {"/v26.0/1/messages", `{"recipient":{"id":"1"}}`, []string{"Authorization", "Bearer x"}, 400, `"code":100`},
	} {
		if code, body := call(t, "POST", u+c.path, c.body, c.header...); code != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
}

// A listener that fails ends Serve, also while callers keep connections.
func TestAListenerThatFailsEndsServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- simulator.New().Serve(l) }()
	if code, _ := call(t, "GET", "http://"+l.Addr().String()+"/simulator/report", ""); code != 200 {
		t.Fatal(code)
	}
	_ = l.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
