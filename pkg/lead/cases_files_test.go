package lead_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/unicode"

	"herald/pkg/lead"
	"herald/pkg/message"
)

// A file is read into the same lead in whichever form it is exported, and a second import of it changes nothing.
func TestCaseOneLeadInManyFiles(t *testing.T) {
	utf16 := func(order unicode.Endianness, text string) string {
		encoded, err := unicode.UTF16(order, unicode.UseBOM).NewEncoder().String(text)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	const ndjson = `{"email":"ann@x.test","first_name":"Ann"}` + "\n"
	for name, c := range map[string]struct {
		o    lead.ImportOptions
		file string
	}{
		"spaces in names":                    {lead.ImportOptions{}, "Email,First Name\nann@x.test,Ann\n"},
		"Mailchimp":                          {lead.ImportOptions{}, "\"Email Address\",\"First Name\",TAGS\nann@x.test,Ann,\n"},
		"German":                             {lead.ImportOptions{}, "E-mail,Vorname\nann@x.test,Ann\n"},
		"semicolons":                         {lead.ImportOptions{}, "email;first_name\nann@x.test;Ann\n"},
		"tabs":                               {lead.ImportOptions{}, "email\tfirst_name\nann@x.test\tAnn\n"},
		"vertical bars":                      {lead.ImportOptions{}, "email|first_name\nann@x.test|Ann\n"},
		"quoted cells with semicolons":       {lead.ImportOptions{}, "\"email\";\"first_name\"\n\"ann@x.test\";\"Ann\"\n"},
		"a line that names the delimiter":    {lead.ImportOptions{}, "sep=;\nemail;first_name\nann@x.test;Ann\n"},
		"a delimiter by name":                {lead.ImportOptions{Delimiter: '~'}, "email~first_name\nann@x.test~Ann\n"},
		"CR":                                 {lead.ImportOptions{}, "email,first_name\rann@x.test,Ann\r"},
		"CRLF":                               {lead.ImportOptions{}, "email,first_name\r\nann@x.test,Ann\r\n"},
		"an empty column at the end":         {lead.ImportOptions{}, "email,first_name,\nann@x.test,Ann,\n"},
		"UTF-16, little end first":           {lead.ImportOptions{}, utf16(unicode.LittleEndian, "email\tfirst_name\r\nann@x.test\tAnn\r\n")},
		"UTF-16, big end first":              {lead.ImportOptions{}, utf16(unicode.BigEndian, "email,first_name\nann@x.test,Ann\n")},
		"NDJSON":                             {lead.ImportOptions{Format: lead.NDJSON}, ndjson},
		"a UTF-8 mark before NDJSON":         {lead.ImportOptions{Format: lead.NDJSON}, "\ufeff" + ndjson},
		"NDJSON in UTF-16":                   {lead.ImportOptions{Format: lead.NDJSON}, utf16(unicode.LittleEndian, ndjson)},
		"NDJSON in UTF-16 without line ends": {lead.ImportOptions{Format: lead.NDJSON}, utf16(unicode.BigEndian, strings.TrimSpace(ndjson))},
		"a column by hand":                   {lead.ImportOptions{Columns: map[string]string{"Wer": "first_name"}}, "E-mail,Wer\nann@x.test,Ann\n"},
		"a full name":                        {lead.ImportOptions{}, "email,full_name\nann@x.test,Ann\n"},
	} {
		if c.o.Format == "" {
			c.o.Format = lead.CSV
		}
		svc, m := inMemory()
		for round, want := range []lead.Report{{Rows: 1, Imported: 1}, {Rows: 1, Unchanged: 1}} {
			rep, err := svc.Import(t.Context(), c.o, strings.NewReader(c.file))
			if err != nil || rep.Rows != want.Rows || rep.Imported != want.Imported || rep.Unchanged != want.Unchanged || rep.Warned != 0 {
				t.Errorf("%s, import %d: %+v, %v", name, round+1, rep, err)
			}
		}
		if l := m.all(t); len(l) != 1 || l[0].Email != "ann@x.test" || l[0].FirstName != "Ann" || len(l[0].CustomFields) != 0 || len(l[0].Tags) != 0 {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// An encoding is read where the caller names it, and never guessed.
func TestCaseEncodingsByName(t *testing.T) {
	for name, c := range map[string]struct{ charset, cell, want string }{
		"Windows-1252": {"windows-1252", "J\xfcrgen \x80", "Jürgen €"}, "ISO 8859-1": {"iso-8859-1", "J\xfcrgen", "Jürgen"}, "ISO 8859-15": {"ISO-8859-15", "J\xfcrgen \xa4", "Jürgen €"},
		"ISO 8859-2": {"iso-8859-2", "\xb3ukasz", "łukasz"}, "Shift JIS": {"shift_jis", "\x8d\x82", "高"}, "UTF-8": {"utf-8", "Jürgen", "Jürgen"},
	} {
		file := "email,first_name\nann@x.test," + c.cell + "\n"
		rep, leads := importWith(t, lead.ImportOptions{Charset: c.charset}, file)
		if rep.Imported != 1 || leads[0].FirstName != c.want {
			t.Errorf("%s: %+v, %+v", name, rep, leads)
		}
		if name == "UTF-8" {
			continue
		}
		for _, format := range []lead.Format{lead.CSV, lead.NDJSON} {
			svc, m := inMemory()
			if format == lead.NDJSON {
				file = `{"email":"ann@x.test","first_name":"` + c.cell + `"}`
			}
			_, err := svc.Import(t.Context(), lead.ImportOptions{Format: format}, strings.NewReader(file))
			var e *message.Error
			if !errors.As(err, &e) || e.Code != message.CodeInvalid || !cmp.Equal(e.Fields[0].Loc, []any{"query", "charset"}) || len(m.leads) != 0 {
				t.Errorf("%s as %s without a name: %v", name, format, err)
			}
		}
	}
}

// A header that begins with letters outside ASCII is no binary file.
func TestCaseHeadersInOtherEncodings(t *testing.T) {
	for name, c := range map[string]struct{ charset, header, want string }{
		"Windows-1251": {"windows-1251", "\xc8\xec\xff,email", "Имя"}, "Windows-1252": {"windows-1252", "\xc4\xd6\xdc,email", "ÄÖÜ"},
		"Shift JIS": {"shift_jis", "\x96\xbc\x91O,email", "名前"}, "GBK": {"gbk", "\xd0\xd5\xc3\xfb,email", "姓名"}, "like an old workbook": {"windows-1252", "\xd0\xcf \xe0,email", "ÐÏ à"},
	} {
		rep, leads := importWith(t, lead.ImportOptions{Charset: c.charset}, c.header+"\nx,ann@x.test\n")
		if rep.Imported != 1 || rep.Columns[0].Name != c.want || leads[0].Email != "ann@x.test" {
			t.Errorf("%s: %+v", name, rep)
		}
		svc, _ := inMemory()
		_, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader(c.header+"\nx,ann@x.test\n"))
		var e *message.Error
		if !errors.As(err, &e) || e.Code != message.CodeInvalid || !cmp.Equal(e.Fields[0].Loc, []any{"query", "charset"}) {
			t.Errorf("%s without a name: %v", name, err)
		}
	}
}

// What is odd in one row costs that row at most, and the report counts every row.
func TestCaseOddRowsAreCounted(t *testing.T) {
	const people = 1_000
	var file strings.Builder
	file.WriteString("email,first_name\n\"open@x.test,Ann\n")
	for i := range people {
		fmt.Fprintf(&file, "p%d@x.test,P\n", i)
	}
	rep, leads := importWith(t, lead.ImportOptions{}, file.String())
	if rep.Rows != people+1 || rep.Imported != people || rep.Rejected != 1 || rep.Errors[0].Line != 2 || len(leads) != people {
		t.Errorf("a quote that is never closed: %+v", rep)
	}
	for name, c := range map[string]struct{ row, first, company string }{
		"a bare quote":        {`Ann "The" Lee,Acme`, `Ann "The" Lee`, "Acme"},
		"inches":              {`Ann,5" Nails`, "Ann", `5" Nails`},
		"line ends in a cell": {"Ann,\"Acme\r\nLtd\"", "Ann", "Acme\nLtd"},
		"fewer cells":         {"Ann", "Ann", ""},
		"quotes in quotes":    {`"Ann ""The"" Lee","Acme, Ltd"`, `Ann "The" Lee`, "Acme, Ltd"},
	} {
		rep, leads := importWith(t, lead.ImportOptions{}, "email,first_name,company\nann@x.test,"+c.row+"\nbob@x.test,Bob,Bob Ltd\n")
		if rep.Imported != 2 || rep.Rejected != 0 || leads[0].FirstName != c.first || leads[0].Company != c.company || leads[1].Company != "Bob Ltd" {
			t.Errorf("%s: %+v, %+v", name, rep, leads)
		}
	}
}

// A custom field has the same name whether or not its column names the member that holds it.
func TestCaseCustomFieldsInColumns(t *testing.T) {
	svc, m := inMemory()
	for i, header := range []string{"email,custom_fields.plan", "email,plan", `email,"custom_fields.plan"`} {
		rep := mustImport(t, svc, lead.CSV, header+"\nann@x.test,gold\n")
		if i > 0 && rep.Unchanged != 1 {
			t.Errorf("%s: %+v", header, rep)
		}
	}
	if l := m.all(t); len(l) != 1 || !cmp.Equal(l[0].CustomFields, map[string]any{"plan": "gold"}) {
		t.Errorf("%+v", l)
	}
}

// A report describes a hundred mistakes and as many warnings, and counts all of them.
func TestCaseReportsAreBounded(t *testing.T) {
	const n = 150
	rep, _ := importWith(t, lead.ImportOptions{}, "email,first_name\n"+strings.Repeat("a@x.test,A,B\nnone,A\n", n))
	if rep.Rows != 2*n || rep.Rejected != n || rep.Warned != n || len(rep.Errors) != 100 || len(rep.Warnings) != 100 {
		t.Errorf("%d rows, %d rejected, %d described, %d warnings, %d described", rep.Rows, rep.Rejected, len(rep.Errors), rep.Warned, len(rep.Warnings))
	}
	if rep.Errors[99].Line != 200 || rep.Warnings[99].Line != 201 {
		t.Errorf("the last ones: %+v, %+v", rep.Errors[99], rep.Warnings[99])
	}
}
