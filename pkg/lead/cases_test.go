package lead_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/dates"
	"herald/pkg/lead"
	"herald/pkg/message"
)

// importWith imports a file into an empty store and returns the report and the leads in the order of the file.
func importWith(t *testing.T, o lead.ImportOptions, file string) (lead.Report, []message.Lead) {
	t.Helper()
	svc, m := inMemory()
	if o.Format == "" {
		o.Format = lead.CSV
	}
	rep, err := svc.Import(t.Context(), o, strings.NewReader(file))
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	leads := m.all(t)
	slices.SortFunc(leads, func(a, b message.Lead) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return rep, leads
}

// fieldsOf lists what the columns of a report became, "-" for one that was left out.
func fieldsOf(rep lead.Report) []string {
	var out []string
	for _, c := range rep.Columns {
		if c.Field == "" {
			c.Field = "-"
		}
		out = append(out, c.Field)
	}
	return out
}

// The columns of the exports of usual programs are known.
func TestCaseColumnsOfPrograms(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		want   []string
	}{
		"plain":           {"Email,First Name", []string{"email", "first_name"}},
		"German exports":  {"Vorname;Nachname;E-Mail geschäftlich;Mobil;Firmenname;Beruf", []string{"first_name", "last_name", "email", "phone", "company", "title"}},
		"French exports":  {"Prénoms;Nom de famille;Adresse électronique;Téléphone mobile;Raison sociale", []string{"first_name", "last_name", "email", "phone", "company"}},
		"Spanish exports": {"Nombres;Primer apellido;Correo-e;Celular;Nombre de la empresa", []string{"first_name", "last_name", "email", "phone", "company"}},
		"forms":           {"FName,LName,Email ID,Mobile No.,Employer", []string{"first_name", "last_name", "email", "phone", "company"}},
		"underlines":      {"E_MAIL,first.name,LAST-NAME", []string{"email", "first_name", "last_name"}},
		"Mailchimp": {`"Email Address","First Name","Last Name",Address,"Phone Number",Birthday,MEMBER_RATING,OPTIN_TIME,TAGS`, []string{
			"email", "first_name", "last_name", "custom_fields.Address", "phone", "custom_fields.Birthday", "custom_fields.MEMBER_RATING", "custom_fields.OPTIN_TIME", "tags",
		}},
		"HubSpot": {`"Record ID","First Name","Last Name",Email,"Phone Number","Contact owner","Associated Company","Create Date","Lead Status"`, []string{
			"custom_fields.Record ID", "first_name", "last_name", "email", "phone", "custom_fields.Contact owner", "company", "created_at", "status",
		}},
		"Salesforce": {`"First Name","Last Name",Title,"Account Name",Phone,Mobile,Email,"Mailing City","Mailing Country","Lead Source"`, []string{
			"first_name", "last_name", "title", "company", "phone", "custom_fields.Mobile", "email", "city", "country", "source",
		}},
		"Google Contacts": {`"First Name","Middle Name","Last Name","Organization Name","Organization Title",Labels,"E-mail 1 - Label","E-mail 1 - Value","E-mail 2 - Value","Phone 1 - Value"`, []string{
			"first_name", "custom_fields.Middle Name", "last_name", "company", "title", "tags", "custom_fields.E-mail 1 - Label", "email", "custom_fields.E-mail 2 - Value", "phone",
		}},
		"Outlook": {`"First Name","Last Name",Company,"Job Title","Business City","E-mail Address","Mobile Phone","Business Phone",Categories`, []string{
			"first_name", "last_name", "company", "title", "city", "email", "phone", "custom_fields.Business Phone", "tags",
		}},
		"Outlook, the business phone first": {`"E-mail Address","Business Phone","Mobile Phone"`, []string{"email", "custom_fields.Business Phone", "phone"}},
		"Shopify": {`"Customer ID","First Name","Last Name",Email,"Accepts Email Marketing","Default Address Company","Default Address City","Default Address Country Code","Default Address Phone",Phone,Tags`, []string{
			"custom_fields.Customer ID", "first_name", "last_name", "email", "custom_fields.Accepts Email Marketing", "company", "city", "country",
			"custom_fields.Default Address Phone", "phone", "tags",
		}},
		"German":        {"E-Mail-Adresse;Vorname;Nachname;Mobiltelefon;Firma;Ort;Land;Sprache", []string{"email", "first_name", "last_name", "phone", "company", "city", "country", "language"}},
		"French":        {"Adresse e-mail;Prénom;Nom;Téléphone portable;Société;Ville;Pays", []string{"email", "first_name", "last_name", "phone", "company", "city", "country"}},
		"Spanish":       {"Correo electrónico;Nombre;Apellidos;Teléfono móvil;Empresa;Ciudad;País", []string{"email", "first_name", "last_name", "phone", "company", "city", "country"}},
		"custom fields": {"email,custom_fields.plan,score", []string{"email", "custom_fields.plan", "custom_fields.score"}},
		"a field twice": {"E-mail,email", []string{"custom_fields.E-mail", "email"}},
		"a name twice":  {"email,note,note", []string{"email", "custom_fields.note", "-"}},
		"no name":       {",email,name", []string{"-", "email", "full_name"}},
	} {
		rep, _ := importWith(t, lead.ImportOptions{}, c.header+"\n")
		if d := cmp.Diff(c.want, fieldsOf(rep)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestCaseColumnsByHand(t *testing.T) {
	file := "Adresse,Wer,Kunde,Notiz,E-Mail\nann@x.test,Ann Lee,7,secret,other@x.test\n"
	rep, leads := importWith(t, lead.ImportOptions{Columns: map[string]string{"Adresse": "email", "Wer": "full_name", "Kunde": "custom_fields.customer", "Notiz": ""}}, file)
	if d := cmp.Diff([]string{"email", "full_name", "custom_fields.customer", "-", "custom_fields.E-Mail"}, fieldsOf(rep)); d != "" {
		t.Error(d)
	}
	l := leads[0]
	if l.Email != "ann@x.test" || l.FirstName != "Ann" || l.LastName != "Lee" || !cmp.Equal(l.CustomFields, map[string]any{"customer": "7", "E-Mail": "other@x.test"}) {
		t.Errorf("%+v", l)
	}
	for name, c := range map[string]struct {
		columns map[string]string
		slug    string
		loc     []any
	}{
		"a column that is absent":     {map[string]string{"Mail": "email"}, message.SlugValue, []any{"query", "columns", "Mail"}},
		"a field that does not exist": {map[string]string{"Wer": "nickname"}, message.SlugValue, []any{"query", "columns", "Wer"}},
		"JSON's member for custom":    {map[string]string{"Wer": "custom_fields"}, message.SlugValue, []any{"query", "columns", "Wer"}},
		"a custom field without name": {map[string]string{"Wer": "custom_fields."}, message.SlugValue, []any{"query", "columns", "Wer"}},
		"a field twice":               {map[string]string{"Adresse": "email", "E-Mail": "email"}, message.SlugValue, []any{"query", "columns", "E-Mail"}},
		"no address left":             {map[string]string{"E-Mail": ""}, message.SlugMissing, []any{"body", 1}},
	} {
		svc, m := inMemory()
		_, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV, Columns: c.columns}, strings.NewReader(file))
		var e *message.Error
		if !errors.As(err, &e) || e.Fields[0].Type != c.slug || !cmp.Equal(e.Fields[0].Loc, c.loc) || len(m.leads) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCaseAFileWithoutAddresses(t *testing.T) {
	svc, m := inMemory()
	_, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader("name,city\nAnn,Oslo\n"))
	var e *message.Error
	want := `the file has the columns "name", "city"; at least one must be id, email, phone, instagram_id, under its usual name or by the parameter columns`
	if !errors.As(err, &e) || e.Code != message.CodeInvalid || e.Fields[0].Msg != want || len(m.leads) != 0 {
		t.Errorf("%v", err)
	}
}

// An id of another program is no id of Herald.
func TestCaseIDsOfOtherPrograms(t *testing.T) {
	rep, leads := importWith(t, lead.ImportOptions{}, "Id,Email\n0035g00000XyZ,ann@x.test\n,bob@x.test\n")
	if d := cmp.Diff([]string{"custom_fields.Id", "email"}, fieldsOf(rep)); d != "" || rep.Imported != 2 || leads[0].CustomFields["Id"] != "0035g00000XyZ" {
		t.Errorf("%s %+v", d, rep)
	}
}

func TestCaseRowsOfAnotherWidth(t *testing.T) {
	rep, leads := importWith(t, lead.ImportOptions{}, "email,first_name,,\nann@x.test\nbob@x.test,Bob,,,,\ncy@x.test,Cy,,extra\n")
	if rep.Rows != 3 || rep.Imported != 2 || rep.Rejected != 1 || rep.Errors[0] != (lead.Rejected{Line: 4, Msg: "the row has 4 cells, the header has 2"}) || leads[1].FirstName != "Bob" {
		t.Errorf("%+v", rep)
	}
}

func TestCaseDatesInFiles(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    lead.ImportOptions
		cell string
		want string // of created_at; "": the cell is left out
		code string
	}{
		{lead.ImportOptions{}, "2024-01-31", "2024-01-31T00:00:00Z", ""},
		{lead.ImportOptions{}, "2024-01-31 10:00:00", "2024-01-31T10:00:00Z", ""},
		{lead.ImportOptions{}, "31.01.2024 10:00", "2024-01-31T10:00:00Z", ""},
		{lead.ImportOptions{}, "1/31/2024", "2024-01-31T00:00:00Z", ""},
		{lead.ImportOptions{Zone: berlin}, "31.01.2024 10:00", "2024-01-31T09:00:00Z", ""},
		{lead.ImportOptions{Dates: dates.DayFirst}, "1/2/2024", "2024-02-01T00:00:00Z", ""},
		{lead.ImportOptions{Dates: dates.MonthFirst}, "1/2/2024", "2024-01-02T00:00:00Z", ""},
		{lead.ImportOptions{}, "1/2/2024", "", lead.WarnTwoDates},
		{lead.ImportOptions{}, "soon", "", lead.WarnDate},
		{lead.ImportOptions{}, "9999-12-31T23:59:59-23:59", "", lead.WarnDate},
	} {
		for format, file := range map[lead.Format]string{
			lead.CSV:    "email;created_at\nann@x.test;" + c.cell + "\n",
			lead.NDJSON: fmt.Sprintf(`{"email":"ann@x.test","created_at":%q}`, c.cell),
		} {
			c.o.Format = format
			rep, leads := importWith(t, c.o, file)
			switch {
			case len(leads) != 1:
				t.Errorf("%s %q: %+v", format, c.cell, rep)
			case c.want != "" && (leads[0].CreatedAt.Format(time.RFC3339) != c.want || rep.Warned != 0):
				t.Errorf("%s %q: %v, %+v", format, c.cell, leads[0].CreatedAt, rep)
			case c.want == "" && (!recent(leads[0].CreatedAt) || rep.Warned != 1 || rep.Warnings[0].Code != c.code || rep.Warnings[0].Column != "created_at"):
				t.Errorf("%s %q: %v, %+v", format, c.cell, leads[0].CreatedAt, rep)
			}
		}
	}
}

func TestCaseNamesInOneColumn(t *testing.T) {
	for row, want := range map[string][2]string{
		",,Ann Lee": {"Ann", "Lee"}, ",,Ann Mary  Lee": {"Ann Mary", "Lee"}, ",,Ann": {"Ann", ""}, "Ann,,Ann Lee": {"Ann", "Lee"},
		",Lee,Ann Lee": {"Ann", "Lee"}, "A,L,Ann Lee": {"A", "L"}, "Bob,,Ann Lee": {"Bob", ""}, ",,": {"", ""},
	} {
		_, leads := importWith(t, lead.ImportOptions{}, "email,first_name,last_name,full_name\nann@x.test,"+row+"\n")
		if got := [2]string{leads[0].FirstName, leads[0].LastName}; got != want {
			t.Errorf("%q: %q", row, got)
		}
	}
}

func TestCaseTagsInOneCell(t *testing.T) {
	for name, c := range map[string]struct {
		separator, cells string
		want             []string // of the last row
	}{
		"semicolons":                      {"", "vip; news", []string{"vip", "news"}},
		"commas":                          {"", `"vip, news"`, []string{"vip", "news"}},
		"commas in a file of semicolons":  {"", "a;b\nb@x.test,\"Import 10, May\"", []string{"Import 10, May"}},
		"a separator by name":             {"|", "vip|a;b", []string{"vip", "a;b"}},
		"a separator of several":          {" / ", "vip / news", []string{"vip", "news"}},
		"semicolons and commas in a cell": {"", `"a,b; c"`, []string{"a,b", "c"}},
	} {
		_, leads := importWith(t, lead.ImportOptions{Separator: c.separator}, "email,tags\na@x.test,"+c.cells+"\n")
		if d := cmp.Diff(c.want, leads[len(leads)-1].Tags); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Addresses that nothing can be sent to are imported and reported.
func TestCaseAddressesThatAreNone(t *testing.T) {
	file := "email,phone\nann@,\nnone,\na@b.c;d@e.f,\nann@x.test,4.47911E+11\n,12\n,call me\n,+44 20 7946 0018\nbob@x.test,\n"
	rep, leads := importWith(t, lead.ImportOptions{}, file)
	want := []lead.Warning{
		{Line: 2, Column: "email", Code: lead.WarnEmail, Msg: "is not an email address"}, {Line: 3, Column: "email", Code: lead.WarnEmail, Msg: "is not an email address"},
		{Line: 4, Column: "email", Code: lead.WarnEmail, Msg: "is not an email address"},
		{Line: 5, Column: "phone", Code: lead.WarnRoundedPhone, Msg: "is a rounded number: format the column as text in the spreadsheet and export it again"},
		{Line: 6, Column: "phone", Code: lead.WarnPhone, Msg: "is not a possible phone number"}, {Line: 7, Column: "phone", Code: lead.WarnPhone, Msg: "is not a possible phone number"},
	}
	if d := cmp.Diff(want, rep.Warnings); d != "" || rep.Warned != 6 || rep.Imported != 8 || len(leads) != 8 {
		t.Errorf("%s %+v", d, rep)
	}
	for phone, warned := range map[string]int{
		"(415) 555-0101": 0, "030 901820": 0, "tel:+14155550101": 0, "12345": 0, "123456789012345": 0, "+14155550101": 0, "1234": 1, "1234567890123456": 1, "+1 415": 1,
		"00999 123 456": 1, "+1415555010112345": 1, "call me": 1,
	} {
		if rep, _ := importWith(t, lead.ImportOptions{}, "phone\n"+phone+"\n"); rep.Warned != warned {
			t.Errorf("%s: %d warnings, want %d", phone, rep.Warned, warned)
		}
	}
	rep, _ = importWith(t, lead.ImportOptions{}, "email\n"+strings.Repeat("none\n", 101))
	if rep.Warned != 101 || len(rep.Warnings) != 100 || rep.Warnings[99].Line != 101 {
		t.Errorf("%d warnings, %d described", rep.Warned, len(rep.Warnings))
	}
}

// A dry run answers what the import answers, and writes nothing.
func TestCaseADryRun(t *testing.T) {
	svc, m := inMemory()
	svc.SetBatchSize(2)
	mustImport(t, svc, lead.CSV, "email,first_name\nold@x.test,Old\nsame@x.test,Same\n")
	before := m.all(t)
	file := "email,first_name,phone\na@x.test,A,\nA@x.test,B,\nold@x.test,New,\nsame@x.test,Same,\nb@x.test,,+15550001\nc@x.test,,\na@x.test,C,\n,D,+15550001\n,E,\n"
	dry, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV, DryRun: true}, strings.NewReader(file))
	if err != nil || !dry.DryRun {
		t.Fatalf("%+v, %v", dry, err)
	}
	if d := cmp.Diff(before, m.all(t)); d != "" {
		t.Error(d)
	}
	if len(dry.Sample) != 1 || dry.Sample[0].FirstName != "B" {
		t.Errorf("%+v", dry.Sample)
	}
	rep := mustImport(t, svc, lead.CSV, file)
	dry.Sample, dry.DryRun = nil, false
	if d := cmp.Diff(rep, dry); d != "" {
		t.Errorf("the dry run differs: %s", d)
	}
	svc, _ = inMemory()
	dry, err = svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV, DryRun: true}, csvFile("email", 20, func(i int) string { return fmt.Sprintf("p%d@x.test", i) }))
	if err != nil || len(dry.Sample) != 5 || dry.Sample[4].Email != "p4@x.test" || dry.Imported != 20 {
		t.Errorf("%+v, %v", dry, err)
	}
}
