package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"herald/pkg/app"
	"herald/pkg/app/apptest"
	"herald/pkg/client"
	"herald/pkg/config"
	"herald/pkg/contract"
	"herald/pkg/testenv"
)

// serveOne serves a Herald that the command line's settings lead to.
func serveOne(t *testing.T) *app.Embedded {
	t.Helper()
	e, base := apptest.Start(t, func(c *config.Config) { c.DatabaseURL = os.Getenv("DATABASE_URL") })
	t.Setenv("HERALD_URL", base)
	return e
}

// file writes a file and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wants runs a command line, checks its exit code and what it prints, and returns that.
func wants(t *testing.T, code int, says string, args ...string) string {
	t.Helper()
	got, out := execute(t, args...)
	if got != code || !strings.Contains(string(out), says) {
		t.Fatalf("herald %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// lines decodes one JSON document in a line.
func lines[T any](t *testing.T, out string) []T {
	t.Helper()
	var all []T
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var v T
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		all = append(all, v)
	}
	return all
}

func TestKeysOnTheCommandLine(t *testing.T) {
	t.Setenv("DATABASE_URL", "sqlite://"+filepath.Join(t.TempDir(), "herald.db"))
	wants(t, 1, "", "keys", "list")
	wants(t, 0, "up to date", "migrate")
	type key struct {
		ID, Token string
		Scopes    []string
		ExpiresAt *string `json:"expires_at"`
		RevokedAt *string `json:"revoked_at"`
		Rate      any
	}
	if code, out := execute(t, "keys", "create", "--scope", "read"); code != 2 {
		t.Errorf("a key without the master key: exit code %d, %s", code, out)
	}
	t.Setenv("HERALD_MASTER_KEY", testenv.MasterKey())
	made := lines[key](t, wants(t, 0, "hk_", "keys", "create", "--if-none", "--scope", "read,send", "--name", "UI", "--expires", "30d", "--rate", "5", "--json"))[0]
	if len(made.Scopes) != 2 || made.ExpiresAt == nil || made.Rate != 5.0 || !strings.HasPrefix(made.Token, "hk_"+made.ID+"_") {
		t.Errorf("%+v", made)
	}
	for _, soon := range []string{"24h", "1d", "90m"} {
		made := lines[key](t, wants(t, 0, "hk_", "keys", "create", "--scope", "read", "--expires", soon, "--json"))[0]
		if until, err := time.Parse(time.RFC3339, *made.ExpiresAt); err != nil || until.After(time.Now().Add(25*time.Hour)) || until.Before(time.Now()) {
			t.Errorf("--expires %s: until %s, %v", soon, *made.ExpiresAt, err)
		}
		wants(t, 0, "revoked", "keys", "revoke", made.ID)
	}
	wants(t, 0, "a key exists", "keys", "create", "--if-none", "--scope", "read")
	if out := wants(t, 0, made.ID, "keys", "list"); strings.Contains(out, made.Token) || !strings.Contains(out, "valid") {
		t.Error(out)
	}
	wants(t, 0, "revoked", "keys", "revoke", made.ID)
	wants(t, 0, "revoked", "keys", "list")
	if list := lines[[]key](t, wants(t, 0, made.ID, "keys", "list", "--json"))[0]; len(list) != 4 || list[0].RevokedAt == nil || list[0].Token != "" {
		t.Errorf("%+v", list)
	}
	wants(t, 1, "", "keys", "revoke", "0000000000000000")
	for _, args := range [][]string{
		{"--scope", "everything"}, {}, {"--scope", "read", "--expires", "soon"}, {"--scope", "read", "--expires", "2020-01-01T00:00:00Z"},
		{"--scope", "read", "--expires", "-1h"}, {"--scope", "read", "--expires", "0d"},
		{"--scope", "read", "--rate", "-1"}, {"--scope", "read", "--name", "a\nb"},
	} {
		wants(t, 2, "", append([]string{"keys", "create"}, args...)...)
	}
}

func TestTheMasterKeyIsExchanged(t *testing.T) {
	before, after := testenv.MasterKey(), testenv.MasterKey()
	t.Setenv("DATABASE_URL", "sqlite://"+filepath.Join(t.TempDir(), "herald.db"))
	t.Setenv("HERALD_MASTER_KEY", before)
	serveOne(t)
	wants(t, 0, `"id"`, "channels", "create", file(t, "c.json", `{"type":"EMAIL","name":"Mail","sender":"a@acme.test","credentials":{"api_key":"SG.a-key-of-a-test"}}`))
	t.Setenv("HERALD_MASTER_KEY", after)
	wants(t, 1, "", "reseal")
	t.Setenv("HERALD_MASTER_KEY_PREVIOUS", before)
	wants(t, 0, "1 channels resealed", "reseal")
	wants(t, 0, `"resealed": 0`, "reseal", "--json")
	t.Setenv("HERALD_MASTER_KEY", "")
	wants(t, 2, "", "reseal")
}

func TestTheAPIOnTheCommandLine(t *testing.T) {
	e := serveOne(t)
	wants(t, 0, `"api_key": "****test"`, "channels", "create", file(t, "c.json", `{"type":"EMAIL","name":"Mail","sender":"a@acme.test","default":true,"credentials":{"api_key":"SG.a-key-of-a-test"}}`))
	wants(t, 2, "", "channels", "create", file(t, "wrong.json", `{"typ":"EMAIL"}`))
	channel := lines[contract.Channel](t, wants(t, 0, "Mail", "channels", "list", "--json"))[0]
	wants(t, 0, "PAUSED", "channels", "pause", channel.ID, "email", "--reason", "a try")
	wants(t, 0, "PAUSED: a try", "channels")
	wants(t, 1, "", "send", "--to", "x@example.com", "--subject", "s", "--text", "t")
	wants(t, 0, "ACTIVE", "channels", "resume", channel.ID, "email")
	wants(t, 2, "", "channels", "resume", channel.ID, "fax")

	wants(t, 0, "2 imported, 0 updated, 0 unchanged, 0 rejected", "leads", "import", file(t, "leads.csv", "email,first_name\na@example.com,Ann\nb@example.com,Ben\n"))
	wants(t, 1, "1 imported, 0 updated, 0 unchanged, 1 rejected", "leads", "import", file(t, "leads.ndjson", "{\"email\":\"c@example.com\"}\n{\"id\":1}\n"))
	wants(t, 0, `"updated": 2`, "leads", "import", "--json", "--format", "csv", file(t, "leads.txt", "email,company\na@example.com,X\nb@example.com,X\n"))
	wants(t, 2, "", "leads", "import", file(t, "leads.xls", ""))
	if found := lines[client.Lead](t, wants(t, 0, "a@example.com", "leads", "list", "--json", "--search", "ann", "--email", "A@example.com", "--created-before", "9999-01-01T00:00:00Z")); len(found) != 1 {
		t.Errorf("%d leads", len(found))
	}
	ann := lines[client.Lead](t, wants(t, 0, "", "leads", "list", "--json", "--email", "a@example.com"))[0].ID
	wants(t, 0, `"plan": "pro"`, "leads", "change", ann, "--add-tag", "a,b", "--add-tag", "vip", "--custom", "plan=pro", "--custom", "seats=3", "--set", "city=Oslo")
	changed := lines[client.Lead](t, wants(t, 0, "", "leads", "change", ann, "--remove-tag", "VIP", "--custom", "plan=", "--set", "city="))[0]
	lead := lines[client.Lead](t, wants(t, 0, ann, "leads", "show", ann))[0]
	if len(changed.Tags) != 1 || lead.Tags[0] != "a,b" || len(lead.CustomFields) != 1 || lead.CustomFields["seats"] != 3.0 || lead.City != nil || *lead.FirstName != "Ann" {
		t.Errorf("%+v", lead)
	}
	etag := strings.TrimSpace(wants(t, 0, `"`, "leads", "show", "--etag", ann))
	wants(t, 0, "Bergen", "leads", "change", ann, "--if-match", etag, "--set", "city=Bergen")
	wants(t, 1, "", "leads", "change", ann, "--if-match", etag, "--set", "city=Stavanger")
	wants(t, 0, "Bergen", "leads", "show", ann)
	wants(t, 0, "b@example.com", "leads", "list", "--phone", "", "--limit", "2")
	wants(t, 0, "ID", "leads", "list", "--tag", "vip", "--status", "new", "--assignee-id", "u", "--instagram-id", "1", "--created-after", "2024-01-31T10:00:00Z", "--updated-after", "2024-01-31T10:00:00Z")
	semicolons := file(t, "kontakte.csv", "E-Mail-Adresse;Vorname;Kundennr;Notiz\nj@example.com;J\xfcrgen;7;x\n")
	wants(t, 1, "", "leads", "import", semicolons)
	shown := wants(t, 0, "1 rows: 1 imported, 0 updated, 0 unchanged, 0 rejected, 0 warnings (dry run: nothing was written)",
		"leads", "import", "--dry-run", "--charset", "windows-1252", "--map", "Kundennr=custom_fields.customer", "--map", "Notiz=", semicolons)
	for _, want := range []string{"E-Mail-Adresse  email", "Vorname         first_name", "Kundennr        custom_fields.customer", "Notiz           (left out)"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %s", want, shown)
		}
	}

	for range 2 {
		wants(t, 0, `"SENT"`, "send", "--to", "x@example.com", "--subject", "s", "--text", "t", "--key", "once")
	}
	if n := len(e.Simulator.Accepted("x@example.com")); n != 1 {
		t.Errorf("sent %d times under one key", n)
	}
	wants(t, 0, `"SENT"`, "send", "--to", "mail@example.com", "--subject", "s", "--text", "t", "--reply-to", "Acme Help <help@acme.test>", "--header", "X-Team: a, b", "--header", "X-Wave:2",
		"--attach", file(t, "a.pdf", "%PDF"), "--attach", file(t, "b, c", "text"))
	if got := e.Simulator.Accepted("mail@example.com"); len(got) != 1 || got[0].ReplyTo != `"Acme Help" <help@acme.test>` || got[0].Headers["X-Team"] != "a, b" || got[0].Headers["X-Wave"] != "2" {
		t.Errorf("%+v", got)
	} else if files := got[0].Attachments; len(files) != 2 || files[0].Name != "a.pdf" || files[0].Type != "application/pdf" || files[0].Size != 4 || files[1].Name != "b, c" || files[1].Type != "application/octet-stream" {
		t.Errorf("%+v", files)
	}
	wants(t, 2, "", "send", "--to", "x@example.com", "--subject", "s", "--text", "t", "--attach", "no such file")
	wants(t, 2, "", "send", "--to", "x@example.com", "--subject", "s", "--text", "t", "--reply-to", "nobody")
	wants(t, 2, "", "send", "--to", "x@example.com", "--subject", "s", "--text", "t", "--header", "X-Team")
	wants(t, 1, `"FAILED"`, "send", "--to", "refused@simulator.test", "--subject", "s", "--text", "t")
	wants(t, 2, "", "send", "--subject", "s")
	wants(t, 1, "", "send", "--to", "x@example.com")
	bulk := file(t, "bulk.json", `{"bulk_settings":{"all_leads":true},"message_data":{"subject":"s","content":"c"}}`)
	inZone := lines[contract.Bulk](t, wants(t, 0, "bulk_id", "send", "--file", bulk, "--timezone", "Europe/Berlin"))[0].BulkID
	wants(t, 0, "COMPLETED", "bulk", "watch", inZone)
	wants(t, 0, `"timezone": "Europe/Berlin"`, "bulk", "show", inZone, "--json")
	wants(t, 1, "", "send", "--file", bulk, "--timezone", "Mars/Phobos")
	named := lines[contract.Bulk](t, wants(t, 0, "bulk_id", "send", "--file", bulk, "--name", "first wave"))[0].BulkID
	wants(t, 0, "first wave", "bulk", "watch", named)
	if list := lines[contract.Bulk](t, wants(t, 0, named, "bulk", "list", "--name", "first wave", "--status", "completed", "--type", "email", "--created-after", "2025-01-31T10:30:00Z", "--json")); len(list) != 1 {
		t.Errorf("%d bulks have the name", len(list))
	}
	wants(t, 0, "BULK", "bulk", "list", "--created-before", "2025-01-31T10:30:00Z")
	wants(t, 0, "SENT", "messages", "list", "--bulk", named, "--status", "sent,delivered", "--created-after", "2025-01-31T10:30:00Z")
	if failed := lines[contract.Message](t, wants(t, 0, "", "messages", "list", "--bulk", named, "--failed", "--json")); len(failed) != 0 {
		t.Errorf("%+v", failed)
	}
	wants(t, 1, "", "messages", "list", "--reason", "none")
	wants(t, 2, "", "send", "--file", file(t, "single.json", `{"message_data":{"recipient":"x@example.com","subject":"s","content":"t"}}`), "--timezone", "UTC")
	wants(t, 2, "", "send", "--file", file(t, "broken.json", `{`), "--timezone", "UTC")
	wants(t, 2, "", "send", "--to", "x@example.com", "--subject", "s", "--text", "t", "--timezone", "UTC")
	wants(t, 0, "3 leads, 3 sent, 0 failed, 0 pending: 100.00 %", "send", "--file", bulk, "--watch")
	id := lines[contract.Bulk](t, wants(t, 0, "bulk_id", "send", "--file", bulk))[0].BulkID
	wants(t, 0, "COMPLETED", "bulk", "watch", id)
	states := lines[contract.Bulk](t, wants(t, 0, "COMPLETED", "bulk", "watch", id, "--json"))
	if last := states[len(states)-1]; last.MessagesSent != 3 {
		t.Errorf("%+v", last)
	}
	wants(t, 0, id, "bulk", "list")
	if all := lines[contract.Bulk](t, wants(t, 0, id, "bulk", "list", "--json", "--most", "1")); len(all) != 1 || all[0].BulkID != id {
		t.Errorf("%+v", all)
	}
	wants(t, 1, "", "bulk", "pause", id)

	wants(t, 0, "PAUSED", "channels", "pause", channel.ID, "email")
	id = lines[contract.Bulk](t, wants(t, 0, "bulk_id", "send", "--file", bulk))[0].BulkID
	testenv.Eventually(t, 30*time.Second, "the bulk is planned", func() bool {
		_, out := execute(t, "bulk", "show", id)
		return strings.Contains(string(out), "3 leads")
	})
	for _, step := range [][2]string{{"pause", "PAUSED"}, {"resume", "PROCESSING"}, {"cancel", "CANCELLED"}, {"watch", "CANCELLED"}, {"show", "3 cancelled"}} {
		wants(t, 0, step[1], "bulk", step[0], id)
	}
	if show := lines[contract.Bulk](t, wants(t, 0, "request", "bulk", "show", id, "--json"))[0]; show.MessagesFailed != 3 {
		t.Errorf("%+v", show)
	}
	wants(t, 0, "deleted", "channels", "delete", channel.ID, "email")
	t.Setenv("HERALD_URL", "nonsense")
	wants(t, 2, "", "bulk", "list")
}

func TestTheDocumentOnTheCommandLine(t *testing.T) {
	if out := wants(t, 0, `"openapi": "3.1.0"`, "openapi"); !json.Valid([]byte(out)) {
		t.Error("it is no JSON")
	}
}
