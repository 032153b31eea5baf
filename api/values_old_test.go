package api_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/config"
	"herald/pkg/testenv"
)

// tamper runs a statement on a Herald's database, beside it.
func tamper(t *testing.T, databaseURL, statement string, args ...any) {
	t.Helper()
	ctx := context.Background()
	path, isSQLite := strings.CutPrefix(databaseURL, "sqlite://")
	if !isSQLite {
		conn, err := pgx.Connect(ctx, databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if tag, err := conn.Exec(ctx, statement, args...); err != nil || (tag.Update() && tag.RowsAffected() != 1) {
			t.Fatalf("%s: %v, %v", statement, tag, err)
		}
		return
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// exact reads a lead with the digits of its numbers.
func (h *herald) exact(id string) map[string]any {
	h.t.Helper()
	res, err := http.Get(h.base + "/api/leads/" + id)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		h.t.Fatalf("%d %s", res.StatusCode, b)
	}
	var body map[string]any
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	if err := dec.Decode(&body); err != nil {
		h.t.Fatal(err)
	}
	return body
}

// oldRows are rows that an earlier version stored and could neither read nor remove. shown checks the lead as it is read now.
var oldRows = map[string]struct {
	column, value string
	sqliteOnly    bool
	shown         func(map[string]any) bool
}{
	"infinite number": {"custom_fields", `{"n": 1e309, "plan": "pro"}`, false, func(l map[string]any) bool {
		fields, _ := l["custom_fields"].(map[string]any)
		n, _ := fields["n"].(json.Number)
		return fields["plan"] == "pro" && (n == "1e309" || n == json.Number("1"+strings.Repeat("0", 309)))
	}},
	"rounded number": {"custom_number", `{"k6e": 42}`, false, func(l map[string]any) bool { return len(l["custom_fields"].(map[string]any)) == 0 }},
	"huge number":    {"custom_fields", `{"n":[1e200000]}`, true, func(l map[string]any) bool { return len(l["custom_fields"].(map[string]any)) == 1 }},
	"broken text":    {"custom_fields", `{"n":`, true, func(l map[string]any) bool { return len(l["custom_fields"].(map[string]any)) == 0 }},
	"more text":      {"custom_fields", `{"n":1} {"n":2}`, true, func(l map[string]any) bool { return len(l["custom_fields"].(map[string]any)) == 0 }},
	"another shape":  {"custom_fields", `[1, 2]`, false, func(l map[string]any) bool { return len(l["custom_fields"].(map[string]any)) == 0 }},
	"tags":           {"tags", `{"a": 1}`, false, func(l map[string]any) bool { return len(l["tags"].([]any)) == 0 }},
	"late":           {"created_at", "10000-01-01 22:58:59+00:00", false, func(l map[string]any) bool { return l["created_at"] == "9999-12-31T23:59:59Z" }},
	"very late":      {"last_contacted_at", "200000-01-01 00:00:00+00:00", false, func(l map[string]any) bool { return l["last_contacted_at"] == "9999-12-31T23:59:59Z" }},
	"early":          {"created_at", "0001-06-01 00:00:00+00:00 BC", false, func(l map[string]any) bool { return l["created_at"] == "0001-01-01T00:00:00Z" }},
}

// Rows that an earlier version left, and that could neither be read nor removed, can be used like all others.
func TestFaultValuesRowsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		onSQLite := strings.HasPrefix(url, "sqlite")
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		h.lead(`"email":"other@example.com"`)
		for name, c := range oldRows {
			if c.sqliteOnly && !onSQLite {
				continue
			}
			value := any(c.value)
			if before, isBC := strings.CutSuffix(c.value, " BC"); isBC && onSQLite {
				at, err := time.Parse("2006-01-02 15:04:05-07:00", before)
				if err != nil {
					t.Fatal(err)
				}
				value = at.AddDate(-1, 0, 0) // as the driver writes it
			}
			id := h.lead(`"email":"old@example.com","first_name":"Old"`)
			poison := func() {
				set := "UPDATE leads SET " + c.column + " = $1 WHERE id = $2"
				if !onSQLite {
					set = "UPDATE leads SET " + c.column + " = $1::text::" + map[bool]string{true: "timestamptz", false: "jsonb"}[strings.HasSuffix(c.column, "_at")] + " WHERE id = $2::text::uuid"
				}
				tamper(t, url, set, value, id)
			}
			poison()
			if l := h.exact(id); !c.shown(l) {
				t.Errorf("%s: %v", name, l)
			}
			useOld(t, name, h, id, poison)
		}
	})
}

// Numbers that an earlier version stored for filters are compared as they were.
func TestFaultValuesNumbersOfEarlierVersions(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		h := launch(t, func(c *config.Config) { c.DatabaseURL = url })
		id := h.lead(`"email":"old@example.com","custom_fields":{"n":1}`)
		statement := `UPDATE leads SET custom_number = '{"k6e": 4200.5}' WHERE id = $1`
		if !strings.HasPrefix(url, "sqlite") {
			statement += "::text::uuid"
		}
		tamper(t, url, statement, id)
		for condition, want := range map[string]float64{
			`"gt","value":4200`: 1, `"gt","value":4200.5`: 0, `"gte","value":4200.5`: 1, `"lt","value":1e39`: 1, `"lt","value":5`: 0, `"between","value":[-1e39,4200.5]`: 1, `"lte","value":-4200.5`: 0,
		} {
			if got := h.matching(`"custom_fields.n","operator":` + condition); got != want {
				t.Errorf("%s finds %v", condition, got)
			}
		}
	})
}

// matching counts the leads of a condition.
func (h *herald) matching(condition string) any {
	h.t.Helper()
	return h.send(`{"sender_type":"email","bulk_settings":{"filters":{"conditions":[{"field":` + condition + `}]}},"message_data":{"subject":"s","content":"c"},"dry_run":true}`).body["total_leads"]
}

// useOld does with an old row what can be done with a lead, and deletes it.
func useOld(t *testing.T, name string, h *herald, id string, poison func()) {
	t.Helper()
	status := func(method, path, body string, headers ...string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, h.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 300 {
			t.Fatalf("%s: %s %s: %d %s", name, method, path, res.StatusCode, b)
		}
		return string(b)
	}
	const all = `{"sender_type":"email","bulk_settings":{"match":"any","all_leads":true,"filters":{"conditions":[{"field":"custom_fields.n","operator":"gt","value":1},{"field":"created_at","operator":"after","value":"2020-01-01"}]}},
		"message_data":{"subject":"s","content":"{{ first_name }}."}`
	status("GET", "/api/leads", "")
	status("POST", "/api/messaging/send", all+`,"dry_run":true}`)
	status("POST", "/api/messaging/send", `{"message_data":{"recipient":"x@example.com","subject":"s","content":"c","contact_id":"`+id+`"}}`)
	if report := status("POST", "/api/leads/import", `{"email":"old@example.com","city":"Oslo"}`, "Content-Type", "application/x-ndjson"); !strings.Contains(report, `"updated":1`) {
		t.Errorf("%s: %s", name, report)
	}
	poison()
	status("PATCH", "/api/leads/"+id, `{"city":"Bergen"}`)
	if l := h.exact(id); l["city"] != "Bergen" || l["first_name"] != "Old" {
		t.Errorf("%s: after a change: %v", name, l)
	}
	poison()
	var bulk struct {
		ID string `json:"bulk_id"`
	}
	if err := json.Unmarshal([]byte(status("POST", "/api/messaging/send", `{"sender_type":"email","bulk_settings":{"lead_ids":["`+uuid.NewString()+`"]},"message_data":{"subject":"s","content":"c"}}`)), &bulk); err != nil {
		t.Fatal(err)
	}
	status("GET", "/api/messaging/bulk/"+bulk.ID+"/leads/"+id, "")
	status("DELETE", "/api/leads/"+id, "")
	if left := status("GET", "/api/leads", ""); strings.Contains(left, id) {
		t.Errorf("%s: it is still there", name)
	}
}
