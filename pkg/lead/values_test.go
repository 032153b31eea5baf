package lead_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// picky is a store whose database refuses leads of some companies, as it would refuse a value that validation knows
// nothing of.
type picky struct{ lead.Store }

func (p picky) MergeLeads(ctx context.Context, b lead.Batch) error {
	merge, refused := b.Merge, false
	b.Merge = func(stored []message.Lead) (created, updated []message.Lead) {
		created, updated = merge(stored)
		for _, l := range append(slices.Clone(created), updated...) {
			refused = refused || strings.HasPrefix(l.Company, "refused")
		}
		if refused {
			return nil, nil
		}
		return created, updated
	}
	if err := p.Store.MergeLeads(ctx, b); err != nil || !refused {
		return err
	}
	return &message.Error{Code: message.CodeInvalid, Message: "the database refuses a value"}
}

// leadsOf returns the leads with one of the addresses.
func leadsOf(t *testing.T, s *store.Store, emails ...string) ([]message.Lead, error) {
	t.Helper()
	leads, err := s.Leads(t.Context(), uuid.Nil, 100_000)
	return slices.DeleteFunc(leads, func(l message.Lead) bool { return !slices.Contains(emails, l.Email) }), err
}

// A row that only the database refuses is rejected with its line, and the others of its batch are stored as the file says,
// also those that mean the same lead.
func TestFaultValuesRefusedRowIsRejectedAlone(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, store.Options{})
		svc := lead.NewService(picky{s}, s, s)
		const n = 2_500
		var file strings.Builder
		file.WriteString("email,company,first_name,tags,score,mark\n")
		for i := range n {
			company := "c"
			if i == 7 || i == 1_000 || i == n-1 {
				company = "refused"
			}
			fmt.Fprintf(&file, "p%d@example.com,%s,N%d,t%d,%d,\n", i, company, i, i, i)
		}
		// The same lead in the same batch, before and after a row of it that is refused.
		file.WriteString("q@example.com,c,M,first,1,\nq@example.com,refused,never,never,,never\nq@example.com,,,last,2,\n")
		rep, err := svc.Import(t.Context(), lead.CSV, strings.NewReader(file.String()))
		if err != nil || rep.Imported != n-2 || rep.Updated != 1 || rep.Rejected != 4 {
			t.Fatalf("%+v, %v", rep, err)
		}
		var lines []int
		for _, e := range rep.Errors {
			lines = append(lines, e.Line)
		}
		if !slices.Equal(lines, []int{9, 1_002, n + 1, n + 3}) {
			t.Errorf("lines %v", lines)
		}
		leads, err := leadsOf(t, s, "q@example.com", "p7@example.com", "p8@example.com")
		if err != nil || len(leads) != 2 {
			t.Fatalf("%d leads, %v", len(leads), err)
		}
		i := slices.IndexFunc(leads, func(l message.Lead) bool { return l.Email == "q@example.com" })
		if l := leads[i]; l.FirstName != "M" || l.Company != "c" || !slices.Equal(l.Tags, []string{"first", "last"}) || len(l.CustomFields) != 1 || l.CustomFields["score"] != "2" {
			t.Errorf("%+v", l)
		}
	})
}

// No row passes that a database refuses, and the rest of the file is stored.
func TestFaultValuesImportBounds(t *testing.T) {
	clef := "\U0001D11E" // four bytes, and what has no pattern is not compressed in an index
	wide := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteRune(rune(0x10400 + (i*7919)%0x5000))
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		format    lead.Format
		row, want string
	}{
		"number":               {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":1e200000}}`, "40 digits"},
		"infinite":             {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":1e309}}`, "40 digits"},
		"deep number":          {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"a":[{"b":[-1e-999]}]}}`, "custom_fields a 0 b 0"},
		"many digits":          {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":` + strings.Repeat("9", 41) + `}}`, "40 digits"},
		"late":                 {lead.NDJSON, `{"email":"x@y.z","created_at":"9999-12-31T23:59:59-23:59"}`, "years 1 to 9999"},
		"early":                {lead.NDJSON, `{"email":"x@y.z","last_contacted_at":"0001-01-01T00:00:00+00:01"}`, "years 1 to 9999"},
		"late in CSV":          {lead.CSV, "email,last_contacted_at\nx@y.z,9999-12-31T23:59:59-23:59\n", "years 1 to 9999"},
		"early in CSV":         {lead.CSV, "email,created_at\nx@y.z,0000-01-01T00:00:00Z\n", "years 1 to 9999"},
		"wide email":           {lead.NDJSON, `{"email":"` + wide(1_000) + `"}`, "2000 bytes"},
		"wide phone":           {lead.NDJSON, `{"phone":"` + wide(501) + `"}`, "2000 bytes"},
		"wide assignee in CSV": {lead.CSV, "email,assignee_id\nx@y.z," + wide(700) + "\n", "2000 bytes"},
		"wide when folded":     {lead.NDJSON, `{"email":"` + strings.Repeat("\u0958", 400) + `"}`, "2000 bytes"},
		"no name":              {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"":1}}`, "name of a custom field"},
		"long name":            {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"` + strings.Repeat(clef, 201) + `":1}}`, "name of a custom field"},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.EachDatabase(t, func(t *testing.T, url string) {
				s := storetest.Open(t, url, store.Options{})
				svc := lead.NewService(s, s, s)
				file, line := `{"email":"first@y.z"}`+"\n"+c.row+"\n"+`{"email":"last@y.z"}`, 2
				if c.format == lead.CSV {
					header, row, _ := strings.Cut(c.row, "\n")
					file, line = header+"\nfirst@y.z,\n"+row+"last@y.z,\n", 3
				}
				rep, err := svc.Import(t.Context(), c.format, strings.NewReader(file))
				if err != nil || rep.Imported != 2 || rep.Rejected != 1 || rep.Errors[0].Line != line || !strings.Contains(rep.Errors[0].Msg, c.want) {
					t.Errorf("%+v, %v", rep, err)
				}
				if list, err := s.Leads(t.Context(), uuid.Nil, 9); err != nil || len(list) != 2 {
					t.Errorf("%d leads, %v", len(list), err)
				}
			})
		})
	}
}

// A lead does not grow without end, row by row.
func TestFaultValuesLeadsDoNotOutgrowTheirBounds(t *testing.T) {
	svc, s := newService(t)
	row := func(tag, field int) string {
		tags := make([]string, lead.MaxTags/2)
		for i := range tags {
			tags[i] = fmt.Sprintf(`"%d-%d"`, tag, i)
		}
		return fmt.Sprintf(`{"email":"x@y.z","tags":[%s],"custom_fields":{"f%d":"%s"}}`+"\n", strings.Join(tags, ","), field, strings.Repeat("x", lead.MaxCustomBytes*2/5))
	}
	rep, err := svc.Import(t.Context(), lead.NDJSON, strings.NewReader(row(1, 1)+row(2, 2)+row(3, 2)+row(2, 3)+`{"email":"x@y.z","first_name":"Ann"}`))
	if err != nil || rep.Imported != 1 || rep.Updated != 2 || rep.Rejected != 2 {
		t.Fatalf("%d and %d, %d rejected, %v", rep.Imported, rep.Updated, rep.Rejected, err)
	}
	if rep.Errors[0].Line != 3 || rep.Errors[1].Line != 4 || !strings.Contains(rep.Errors[0].Msg, "200") || !strings.Contains(rep.Errors[1].Msg, "65536") {
		t.Errorf("%+v", rep.Errors)
	}
	leads, err := leadsOf(t, s, "x@y.z")
	if err != nil || len(leads) != 1 || len(leads[0].Tags) != lead.MaxTags || len(leads[0].CustomFields) != 2 || leads[0].FirstName != "Ann" {
		t.Errorf("%d leads, %v", len(leads), err)
	}
}
