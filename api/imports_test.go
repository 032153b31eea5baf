package api_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/access"
)

// An import says how it read the file: in the requirement's own words what each column became, and which cells are of no use.
func TestCaseAnImportSaysHowItReadTheFile(t *testing.T) {
	h := start(t)
	file := "E-Mail-Adresse;Vorname;Kunde;Notiz;angelegt\r\nj\xfcrgen@x.test;J\xfcrgen;7;x;1/2/2024\r\nann@x.test;Ann;8;y;31.01.2024\r\n"
	query := url.Values{"charset": {"windows-1252"}, "columns": {`{"Kunde":"custom_fields.customer","Notiz":null,"angelegt":"created_at"}`}}
	dry := h.must(200, "POST", "/api/leads/import?dry_run=true&"+query.Encode(), file, "Content-Type", "text/csv")
	if sample, ok := dry.body["sample"].([]any); !ok || len(sample) != 2 || sample[0].(map[string]any)["first_name"] != "Jürgen" {
		t.Errorf("%s", dry.raw)
	}
	if leads := h.must(200, "GET", "/api/leads", "").body["items"].([]any); len(leads) != 0 {
		t.Errorf("a dry run wrote %v", leads)
	}
	got := h.must(200, "POST", "/api/leads/import?"+query.Encode(), file, "Content-Type", "text/csv")
	column := func(name string, field any) map[string]any { return map[string]any{"name": name, "field": field} }
	warning := func(column, code, msg string) map[string]any {
		return map[string]any{"line": 2.0, "column": column, "code": code, "msg": msg}
	}
	want := map[string]any{
		"rows": 2.0, "imported": 2.0, "updated": 0.0, "unchanged": 0.0, "rejected": 0.0, "errors": []any{}, "dry_run": false,
		"charset": "windows-1252", "delimiter": ";", "warning_count": 2.0,
		"warnings": []any{
			warning("angelegt", "ambiguous_date", "can be day/month or month/day: name the order with the parameter dates"),
			warning("email", "invalid_email", "is not an email address"),
		},
		"columns": []any{column("E-Mail-Adresse", "email"), column("Vorname", "first_name"), column("Kunde", "custom_fields.customer"), column("Notiz", nil), column("angelegt", "created_at")},
	}
	if d := cmp.Diff(want, got.body); d != "" {
		t.Error(d)
	}
	again := h.must(200, "POST", "/api/leads/import?dates=dmy&"+query.Encode(), file, "Content-Type", "text/csv")
	if again.body["unchanged"] != 2.0 || again.body["warning_count"] != 1.0 {
		t.Errorf("%s", again.raw)
	}
}

// What a key without the scope read must not see is not in a dry run.
func TestCaseADryRunOfAnImportShowsNoLeadWithoutRead(t *testing.T) {
	h := start(t)
	h.must(200, "POST", "/api/leads/import", "email,company\nann@x.test,Secret\n", "Content-Type", "text/csv")
	_, h.token = h.key(access.Key{Scopes: []access.Scope{access.Send}})
	a := h.must(200, "POST", "/api/leads/import?dry_run=true", "email,first_name\nann@x.test,Ann\n", "Content-Type", "text/csv")
	if strings.Contains(a.raw, "Secret") || a.body["updated"] != 1.0 {
		t.Errorf("%s", a.raw)
	}
}

// Bad parameters and files are refused with the place of the mistake, and nothing is written.
func TestCaseImportsThatAreRefused(t *testing.T) {
	h := start(t)
	for name, c := range map[string]struct {
		query, file, media string
		status             int
		says               string // in the answer
	}{
		"an unknown charset":          {"charset=klingon", "email\na@x.test\n", "text/csv", 422, `["query","charset"]`},
		"two delimiters":              {"delimiter=" + url.QueryEscape(";;"), "email\na@x.test\n", "text/csv", 422, `["query","delimiter"]`},
		"a delimiter that is a quote": {"delimiter=%22", "email\na@x.test\n", "text/csv", 422, `["query","delimiter"]`},
		"an order of dates":           {"dates=ymd", "email\na@x.test\n", "text/csv", 422, `["query","dates"]`},
		"a time zone":                 {"timezone=Mars/Olympus", "email\na@x.test\n", "text/csv", 422, `["query","timezone"]`},
		"the server's time zone":      {"timezone=Local", "email\na@x.test\n", "text/csv", 422, `["query","timezone"]`},
		"a dry run that is none":      {"dry_run=1", "email\na@x.test\n", "text/csv", 422, `["query","dry_run"]`},
		"an unknown parameter":        {"dryrun=true", "email\na@x.test\n", "text/csv", 422, `["query","dryrun"]`},
		"columns that are no JSON":    {"columns=email", "email\na@x.test\n", "text/csv", 422, `["query","columns"]`},
		"columns that are a list":     {"columns=%5B%5D", "email\na@x.test\n", "text/csv", 422, `["query","columns"]`},
		"a column to a number":        {"columns=" + url.QueryEscape(`{"email":1}`), "email\na@x.test\n", "text/csv", 422, `["query","columns","email"]`},
		"a column to no field":        {"columns=" + url.QueryEscape(`{"email":"mail"}`), "email\na@x.test\n", "text/csv", 422, `["query","columns","email"]`},
		"two columns to a field":      {"columns=" + url.QueryEscape(`{"a":"email","b":"email"}`), "a,b\na@x.test,b@x.test\n", "text/csv", 422, `["query","columns","b"]`},
		"a million columns":           {"", strings.Repeat("a,", 500_000) + "email\na@x.test\n", "text/csv", 422, "at most 500 columns"},
		"two million columns":         {"", strings.Repeat("a,", 1_000_000) + "email\na@x.test\n", "text/csv", 422, "at most 1048576 bytes"},
		"Windows-1252 without a name": {"", "email,name\na@x.test,J\xfcrgen\n", "text/csv", 422, `["query","charset"]`},
		"a workbook":                  {"", "PK\x03\x04", "text/csv", 415, "save the sheet as CSV"},
		"a PDF":                       {"", "%PDF-1.7", "text/csv", 415, "PDF"},
		"a web page":                  {"", "<!DOCTYPE html><html>", "text/csv", 422, "HTML"},
		"a web page as NDJSON":        {"", "<!DOCTYPE html><html>", "application/x-ndjson", 422, "HTML"},
		"no address":                  {"", "name\nAnn\n", "text/csv", 422, `the file has the columns \"name\"`},
	} {
		a := h.must(c.status, "POST", "/api/leads/import?"+c.query, c.file, "Content-Type", c.media)
		if !strings.Contains(a.raw, c.says) {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	if leads := h.must(200, "GET", "/api/leads", "").body["items"].([]any); len(leads) != 0 {
		t.Errorf("%v was written", leads)
	}
}
