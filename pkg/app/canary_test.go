package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/pkg/client"
	"herald/pkg/message"
	"herald/pkg/provider/simulator"
	"herald/pkg/testenv"
)

// marked is what must never show: personal data and secrets that are unlike anything else.
var marked = struct{ email, phone, instagram, apiKey, authToken, sid, accessToken, password string }{
	email: "canary-%d@canary.example", phone: "+1555999%04d", instagram: "17841999000000%03d", apiKey: "SG.canary-of-sendgrid-0123456789",
	authToken: "canary-of-twilio-0123456789", sid: "AC00000000000000000000000000ca4a81", accessToken: "EAAcanaryOfInstagram0123456789", password: "canary-of-postgres",
}

// shapes are what traces of it would look like.
var shapes = []string{"canary", "1555999", "17841999", marked.sid}

// hunt is a run with marked data, and everything that it leaves where it must not be.
type hunt struct {
	*system
	token string
	seen  []string // answers that say no, dumps of Redis
}

// found returns the traces in a text, with what is around them.
func found(text string, more ...string) []string {
	var hits []string
	low := strings.ToLower(text)
	for _, shape := range append(slices.Clone(shapes), more...) {
		if at := strings.Index(low, strings.ToLower(shape)); at >= 0 {
			hits = append(hits, fmt.Sprintf("%q in …%s…", shape, text[max(at-150, 0):min(at+150, len(text))]))
		}
	}
	return hits
}

// ask makes a request and keeps an answer that says no.
func (h *hunt) ask(method, path, body string, headers ...string) int {
	h.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, h.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 400 {
		h.seen = append(h.seen, fmt.Sprintf("%s %s: %d %v %s", method, "…", res.StatusCode, res.Header, b))
	}
	return res.StatusCode
}

// redis keeps everything that Redis holds at this moment.
func (h *hunt) redis() (keys int) {
	h.t.Helper()
	ctx := h.t.Context()
	for it := h.rdb.Scan(ctx, 0, "*", 1000).Iterator(); it.Next(ctx); keys++ {
		key := it.Val()
		var v any
		var err error
		switch kind := h.rdb.Type(ctx, key).Val(); kind {
		case "string":
			v, err = h.rdb.Get(ctx, key).Result()
		case "hash":
			v, err = h.rdb.HGetAll(ctx, key).Result()
		case "list":
			v, err = h.rdb.LRange(ctx, key, 0, -1).Result()
		case "set":
			v, err = h.rdb.SMembers(ctx, key).Result()
		case "zset":
			v, err = h.rdb.ZRange(ctx, key, 0, -1).Result()
		}
		if err != nil && err != redis.Nil { //nolint:errorlint // the client returns it as it is
			h.t.Fatal(err)
		}
		h.seen = append(h.seen, fmt.Sprintf("Redis %s: %v", key, v))
	}
	return keys
}

// mark loads channels and leads that are marked.
func (h *hunt) mark(leads int) {
	h.t.Helper()
	for _, c := range []client.NewChannel{
		{ID: mailChannel, Type: "email", Name: "Mail", Sender: "news@canary.example", Credentials: map[string]string{"api_key": marked.apiKey}},
		{ID: textChannel, Type: "sms", Name: "SMS", Sender: "+15559990000", Credentials: map[string]string{"account_sid": marked.sid, "auth_token": marked.authToken}},
		{ID: textChannel, Type: "instagram_dm", Name: "IG", Sender: "17841999000000000", Credentials: map[string]string{"access_token": marked.accessToken}},
	} {
		c.Default = true
		must[client.Channel](h.system)(h.api.CreateChannel(h.t.Context(), c))
	}
	var csv strings.Builder
	csv.WriteString("first_name,last_name,email,phone,instagram_id,company,tags,secret\n")
	for i := range leads {
		fmt.Fprintf(&csv, "Canary,Person,"+marked.email+","+marked.phone+","+marked.instagram+",Canary Ltd,canary tag,canary value\n", i, i, i)
	}
	csv.WriteString("canary,\"unclosed canary\n")
	if rep, err := h.api.ImportLeads(h.t.Context(), client.CSV, strings.NewReader(csv.String())); err == nil && rep.Rejected > 0 {
		h.seen = append(h.seen, fmt.Sprint(rep.Errors))
	}
}

// bulk is a request for a bulk of a type to all marked leads.
func canaryBulk(typ string) client.SendRequest {
	r := client.SendRequest{
		SenderType: typ, MessageData: client.MessageData{Content: "canary text for {{ first_name }}, {{ custom_fields.secret }}", Metadata: json.RawMessage(`{"note":"canary"}`)},
		BulkSettings: &client.BulkSettings{SearchKeyword: "canary", Filters: &client.FilterRequest{Conditions: []client.FilterNode{{Condition: &client.Condition{Field: "tags", Operator: "contains", Value: "canary tag"}}}}},
	}
	if typ == "email" {
		r.MessageData.Subject, r.MessageData.HTMLContent = "canary subject", "<p>canary</p>"
	}
	return r
}

// singles sends marked messages over every channel. The vendors may refuse them.
func (h *hunt) singles(i int) {
	h.t.Helper()
	for typ, to := range map[string]string{"email": fmt.Sprintf(marked.email, i), "sms": fmt.Sprintf(marked.phone, i), "instagram_dm": fmt.Sprintf(marked.instagram, i)} {
		r := client.SendRequest{SenderType: typ, MessageData: client.MessageData{Recipient: to, Content: "canary text", Metadata: json.RawMessage(`{"note":"canary"}`)}}
		if typ == "email" {
			r.MessageData.Subject = "canary subject"
		}
		body, err := json.Marshal(r)
		if err != nil {
			h.t.Fatal(err)
		}
		h.ask("POST", "/api/messaging/send", string(body), "Idempotency-Key", fmt.Sprintf("canary-key-%s-%d", typ, i))
	}
}

// mistakes makes wrong requests that hold marked data.
func (h *hunt) mistakes() {
	h.t.Helper()
	email, phone := fmt.Sprintf(marked.email, 1), fmt.Sprintf(marked.phone, 1)
	for _, body := range []string{
		`{"message_data":{"recipient":"` + email + ` ` + email + `","subject":"canary","content":"canary"}}`,
		`{"message_data":{"recipient":"` + email + `","subject":"canary","content":"{{ 'canary' | nonsense }}"}}`,
		`{"message_data":{"recipient":"` + email + `","subject":"{{ canary","content":"{% nonsense 'canary' %}"}}`,
		`{"sender_type":"sms","message_data":{"recipient":"` + phone + `","content":"canary","sender":"` + phone + `"}}`,
		`{"sender_type":"canary","priority":"canary","message_type":"canary","sender_identifier":"canary","message_data":{"contact_id":"canary","metadata":"canary"}}`,
		`{"message_data":{"recipient":"` + email + `","subject":"canary"`, `{"message_data":"canary" canary}`, `canary`,
		`{"bulk_settings":{"filters":{"conditions":[{"field":"email","operator":"before","value":"canary"},{"field":"created_at","operator":"before","value":"canary"}]}},"message_data":{"content":"canary"}}`,
	} {
		h.ask("POST", "/api/messaging/send", body)
	}
	h.ask("POST", "/api/messaging/send", `{"message_data":{"recipient":"`+email+`","subject":"s","content":"another"}}`, "Idempotency-Key", "canary-key-email-1")
	for _, path := range []string{"/api/messaging/messages?recipient=canary", "/api/messaging/messages?status=canary&cursor=canary", "/api/leads/canary", "/canary/" + email, "/api/suppressions?address=canary"} {
		h.ask("GET", path, "")
	}
	h.ask("POST", "/api/suppressions", `{"type":"EMAIL","address":"canary","note":"canary"}`)
	h.ask("POST", "/api/leads", `{"email":1,"first_name":["canary"],"id":"canary"}`)
	h.ask("POST", "/api/channels", `{"type":"EMAIL","name":"x","sender":"canary","credentials":{"api_key":"`+marked.apiKey+`\n"}}`)
	h.ask("GET", "/api/leads", "", "Authorization", "Bearer canary-token")
	h.ask("GET", "/api/leads", "", "Authorization", "Bearer hk_0123456789abcdef_"+strings.Repeat("canary", 8))
}

// Logs, Redis, metrics and error responses contain no address, no text and no secret, with and without faults.
func TestCanaries(t *testing.T) {
	t.Parallel()
	const leads = 200
	cluster, rds := testenv.StartPostgres(t), testenv.StartRedis(t)
	master := testenv.MasterKey()
	s := deployAs(t, plan{
		programs: faultyBinaries, redis: rds.URL, database: strings.Replace(cluster.Database(t), "postgres@", "postgres:"+marked.password+"@", 1),
		env: append(quickly(t, quick()), "HERALD_LOG_LEVEL=debug", "HERALD_MASTER_KEY="+master),
	})
	out, err := s.command("herald", "keys", "create", "--scope", "send,read,admin", "--name", "canary", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var key struct{ Token string }
	if err := json.Unmarshal(out, &key); err != nil {
		t.Fatal(err)
	}
	h := &hunt{system: s, token: key.Token}
	if s.api, err = client.New(s.base, client.WithKey(key.Token)); err != nil {
		t.Fatal(err)
	}
	processes := []*process{s.startedAPI, s.start("worker"), s.start("worker")}
	h.mark(leads)
	h.mistakes()
	faults := []simulator.Fault{simulator.None, simulator.Quote, simulator.ServerError, simulator.HTML, simulator.Reset, simulator.Throttle}
	for i, fault := range faults {
		s.sim.Script(simulator.Rule{Fault: fault, Times: 3})
		h.singles(i)
	}
	s.sim.SetLatency(50 * time.Millisecond)
	s.sim.Script(simulator.Rule{Recipient: "1@", Fault: simulator.Quote}, simulator.Rule{Recipient: "2@", Fault: simulator.Reset, Times: 5})
	var bulks []string
	for _, typ := range []string{"email", "sms", "instagram_dm"} {
		must[client.Preview](s)(s.api.DryRun(t.Context(), canaryBulk(typ)))
		bulks = append(bulks, must[client.Bulk](s)(s.api.SendBulk(t.Context(), canaryBulk(typ))).BulkID)
	}
	s.eventually(time.Minute, "tasks wait in Redis", func() bool { return s.sim.Report().Accepted > leads/4 })
	held := h.redis()
	cluster.Restart()
	h.singles(50)
	rds.Kill()
	h.singles(51)
	rds.Start()
	for _, id := range bulks {
		if f := s.over(id); f.Total != leads || f.Sent == 0 {
			t.Errorf("%+v", f)
		}
	}
	if _, err := s.api.Suppress(t.Context(), client.NewSuppression{Type: "EMAIL", Address: fmt.Sprintf(marked.email, 3), Note: "canary"}); err != nil {
		t.Error(err)
	}
	h.singles(3)
	h.quoted()
	held += h.redis()
	if held < 100 || len(h.seen) < 100 {
		t.Errorf("only %d keys of Redis and %d answers were looked at", held, len(h.seen))
	}
	_, idAndSecret, _ := strings.Cut(key.Token, "_")
	_, secret, _ := strings.Cut(idAndSecret, "_") // it may contain "_" itself
	for _, p := range processes {
		h.seen = append(h.seen, "metrics: "+s.metrics(p))
		s.terminate(p)
		if n := strings.Count(p.log.String(), "\n"); n < 20 {
			t.Errorf("%s logged %d lines", p.cmd.Path, n)
		}
		h.seen = append(h.seen, strings.Split(p.log.String(), "\n")...)
	}
	hits := 0
	for _, text := range h.seen {
		for _, hit := range found(text, master, secret, key.Token) {
			if hits++; hits <= 20 {
				t.Error(hit)
			}
		}
	}
	t.Logf("%d texts looked at, %d keys of Redis among them: %d hits", len(h.seen), held, hits)
}

// quoted checks that the text of a provider is stored without the address that it quotes.
func (h *hunt) quoted() {
	h.t.Helper()
	failed := 0
	for m, err := range h.api.Messages(h.t.Context(), client.MessageFilter{Statuses: []message.Status{message.Failed}}) {
		if err != nil {
			h.t.Fatal(err)
		}
		failed++
		h.seen = append(h.seen, fmt.Sprint(m.Error, m.Reason))
	}
	if failed == 0 {
		h.t.Error("nothing was refused")
	}
}
