package lead_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
)

// A row in CSV sets the fields that its columns name, and custom fields of all other columns.
func TestImportReadsEveryColumn(t *testing.T) {
	svc, m := inMemory()
	rep := mustImport(t, svc, lead.CSV, "\ufeffid, first_name ,last_name,email,phone,instagram_id,company,title,status,source,city,state,country,timezone,language,"+
		"assignee_id,tags,created_at,updated_at,full_name,last_contacted_at,custom_fields,score\n"+
		"550e8400-e29b-41d4-a716-446655440001,a, b ,c,d,e,f,g,h,i,j,k,l,m,n,o,\"p; q;;p\",2024-01-02T03:04:05Z,2020-01-02T03:04:05Z,x,2025-01-02T03:04:05+01:00,y,7\n")
	if rep.Imported != 1 || rep.Updated+rep.Rejected != 0 {
		t.Fatalf("%+v", rep)
	}
	got := m.all(t)[0]
	if !recent(got.UpdatedAt) {
		t.Errorf("updated at %v", got.UpdatedAt)
	}
	contacted := time.Date(2025, 1, 2, 2, 4, 5, 0, time.UTC)
	want := message.Lead{
		ID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440001"), FirstName: "a", LastName: "b", Email: "c", Phone: "d", InstagramID: "e", Company: "f",
		Title: "g", Status: "h", Source: "i", City: "j", State: "k", Country: "l", Timezone: "m", Language: "n", AssigneeID: "o", Tags: []string{"p", "q"},
		CustomFields: map[string]any{"custom_fields": "y", "score": "7"}, CreatedAt: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
		UpdatedAt: got.UpdatedAt, LastContactedAt: &contacted,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// An invalid row is reported with its line and what is wrong; the rows beside it are imported.
func TestImportRejectsInvalidRows(t *testing.T) {
	long := strings.Repeat("é", 1_000)
	for name, c := range map[string]struct {
		format    lead.Format
		file      string
		imported  int
		rejected  []int // lines
		complains string
	}{
		"an id that is none":      {lead.CSV, "id,email\n550e8400-e29b-41d4-a716-446655440001,a@x.y\n1,a@x.y\n", 1, []int{3}, "id: must be a UUID"},
		"a NUL":                   {lead.CSV, "email,x\na@x.y," + strings.Repeat("a", 600) + "\x00b\n", 0, []int{2}, "x: not valid text"},
		"a text at its bound":     {lead.CSV, "email,first_name\na@x.y," + long + "\n", 1, nil, ""},
		"a text over its bound":   {lead.CSV, "email,first_name\na@x.y," + long + "x\n", 0, []int{2}, "first_name: must have at most 1000 characters"},
		"over the index's bound":  {lead.CSV, "email\n" + strings.Repeat("\u0958", 700) + "\n", 0, []int{2}, "email: must have at most 2000 bytes"},
		"a quote within a cell":   {lead.CSV, "email,first_name\n\"a\"b,c\nd@x.y,e\n", 1, []int{2}, "goes on after its closing quote"},
		"too many cells":          {lead.CSV, "email\n\"a@\nx.y\"\na@x.y,b\n", 1, []int{4}, "has 2 cells, the header has 1"},
		"a long tag":              {lead.CSV, "email,tags\na@x.y," + strings.Repeat("é", 200) + "\nb@x.y," + strings.Repeat("t", 201) + "\n", 1, []int{3}, "tags: must be at most 200"},
		"200 tags":                {lead.CSV, "email,tags\na@x.y," + numbers(200) + "\nb@x.y," + numbers(201) + "\n", 1, []int{3}, "tags: must be at most 200"},
		"large custom fields":     {lead.CSV, "email,x\na@x.y," + strings.Repeat("x", 64<<10-8) + "\nb@x.y," + strings.Repeat("x", 64<<10-7) + "\n", 1, []int{3}, "at most 65536 bytes"},
		"an empty row":            {lead.CSV, "email,first_name\n,\n", 0, []int{2}, "the row is empty"},
		"nothing but a time":      {lead.CSV, "email,created_at\n,2024-01-02T03:04:05Z\n", 0, []int{2}, "the row is empty"},
		"an id alone":             {lead.CSV, "id,email\n550e8400-e29b-41d4-a716-446655440001,\n", 1, nil, ""},
		"a tag alone":             {lead.CSV, "tags,email\na,\n", 1, nil, ""},
		"a custom field alone":    {lead.CSV, "x,email\na,\n", 1, nil, ""},
		"JSON of another type":    {lead.NDJSON, "{\"email\":\"a@x.y\"}\n\n{\"email\":1}\n", 1, []int{3}, "[email]: must be a string"},
		"no object":               {lead.NDJSON, "[]\n{\"email\":\"a@x.y\"}", 1, []int{1}, "must be an object"},
		"an unknown member":       {lead.NDJSON, `{"x":1}`, 0, []int{1}, "unknown field x"},
		"no JSON":                 {lead.NDJSON, "{\"email\":\n{\"email\":\"a@x.y\"}\n", 1, []int{1}, "not valid JSON"},
		"an empty object":         {lead.NDJSON, "{}\n", 0, []int{1}, "the row is empty"},
		"a line at its bound":     {lead.NDJSON, `{"email":"a@x.y"}` + strings.Repeat(" ", 256<<10-17) + "\n", 1, nil, ""},
		"a line one byte longer":  {lead.NDJSON, `{"email":"a@x.y"}` + strings.Repeat(" ", 256<<10-16) + "\n" + `{"email":"b@x.y"}`, 1, []int{1}, "a row has at most 262144 bytes"},
		"a line over its bound":   {lead.NDJSON, `{"first_name":"` + strings.Repeat("x", 600<<10) + "\"}\n" + `{"email":"a@x.y"}` + "\n", 1, []int{1}, "a row has at most 262144 bytes"},
		"the last line, too long": {lead.NDJSON, "{\"email\":\"a@x.y\"}\n" + strings.Repeat(" ", 256<<10) + "x", 1, []int{2}, "a row has at most 262144 bytes"},
		"an empty file":           {lead.NDJSON, "\n \n", 0, nil, ""},
	} {
		svc, m := inMemory()
		rep := mustImport(t, svc, c.format, c.file)
		var lines []int
		for _, e := range rep.Errors {
			if lines = append(lines, e.Line); !strings.Contains(e.Msg, c.complains) {
				t.Errorf("%s: %q does not contain %q", name, e.Msg, c.complains)
			}
		}
		if rep.Imported != c.imported || rep.Updated != 0 || rep.Rejected != len(c.rejected) || !slices.Equal(lines, c.rejected) || len(m.leads) != c.imported {
			t.Errorf("%s: %+v, want %d imported and %v rejected", name, rep, c.imported, c.rejected)
		}
	}
}

// numbers returns n tags.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d;", i)
	}
	return b.String()
}

// A file whose header cannot be used is refused as a whole.
func TestImportRefusesHeaders(t *testing.T) {
	name200, columns := strings.Repeat("é", 200), strings.Join(strings.SplitN(strings.TrimSuffix(numbers(500), ";"), ";", 500), ",")
	for name, c := range map[string]struct{ file, slug string }{
		"an empty file":         {"", message.SlugMissing},
		"bytes that are none":   {"email,\xff\n", message.SlugValue},
		"a NUL":                 {"email,a\x00\n", message.SlugValue},
		"a name at its bound":   {"email," + name200 + "\n", ""},
		"a name over its bound": {"email," + name200 + "x\n", message.SlugTooLong},
		"500 columns":           {"email" + strings.TrimPrefix(columns, "0") + "\n", ""},
		"501 columns":           {"email," + columns + "\n", message.SlugListLong},
		"no column of a person": {"first_name,company\n", message.SlugMissing},
	} {
		svc, _ := inMemory()
		rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader(c.file))
		var e *message.Error
		switch {
		case c.slug == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.slug != "" && (!errors.As(err, &e) || e.Fields[0].Type != c.slug || rep.Rows != 0):
			t.Errorf("%s: %v, want %s", name, err, c.slug)
		}
	}
}

// A row updates the lead with its id, else the oldest with its email address, else the oldest with its phone.
func TestImportFindsTheLead(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	ids := []uuid.UUID{uuid.MustParse("00000000-0000-4000-8000-000000000001"), uuid.MustParse("00000000-0000-4000-8000-000000000002"), uuid.MustParse("00000000-0000-4000-8000-000000000003"), uuid.New()}
	stored := []message.Lead{
		{ID: ids[0], Email: "Ann@example.com", CreatedAt: year(2022)},
		{ID: ids[1], Email: "ann@example.com", Phone: "+1", CreatedAt: year(2021)},
		{ID: ids[2], Phone: "+1", CreatedAt: year(2021)},
		{ID: ids[3], Email: "Bob@example.com", CreatedAt: year(2021)},
	}
	for name, c := range map[string]struct {
		row  string
		want uuid.UUID // nil: a new lead
	}{
		"by id":                       {ids[0].String() + ",,", ids[0]},
		"an id before an address":     {ids[0].String() + ",ann@example.com,+1", ids[0]},
		"an unknown id":               {"00000000-0000-4000-8000-000000000009,ann@example.com,", uuid.Nil},
		"the oldest with an address":  {",ANN@example.com,", ids[1]},
		"the lower id of equal age":   {",,+1", ids[1]},
		"in another case":             {",bob@Example.com,", ids[3]},
		"an unknown address":          {",cat@example.com,", uuid.Nil},
		"by phone, not by address":    {",cat@example.com,+1", ids[1]},
		"nothing to be recognised by": {",,", uuid.Nil},
	} {
		svc, m := inMemory()
		for _, l := range stored {
			m.leads[l.ID] = l
		}
		rep := mustImport(t, svc, lead.CSV, "id,email,phone,company\n"+c.row+",Acme\n")
		var got uuid.UUID
		for id, l := range m.leads {
			if l.Company == "Acme" && slices.Contains(ids, id) {
				got = id
			}
		}
		isNew := c.want == uuid.Nil
		if got != c.want || (rep.Imported == 1) != isNew || (rep.Updated == 1) == isNew || (len(m.leads) == 5) != isNew {
			t.Errorf("%s: updated %v, want %v; %+v", name, got, c.want, rep)
		}
	}
}

// A row changes what it names of a stored lead: texts are replaced, tags and custom fields are added, the rest stays.
func TestImportMergesIntoTheLead(t *testing.T) {
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	contacted := old.AddDate(1, 0, 0)
	ann := message.Lead{
		ID: uuid.New(), Email: "ann@example.com", FirstName: "Ann", City: "Linz", Tags: []string{"a", "b"}, CustomFields: map[string]any{"x": "1", "y": "1"},
		CreatedAt: old, UpdatedAt: old, LastContactedAt: &contacted,
	}
	later := old.AddDate(2, 0, 0)
	for name, c := range map[string]struct {
		header, row string
		change      func(l *message.Lead) // nil: the lead stays as it is
	}{
		"a text":                {"city", "Oslo", func(l *message.Lead) { l.City = "Oslo" }},
		"an empty cell":         {"city,first_name,tags,x,last_contacted_at", ",,,,", nil},
		"tags":                  {"tags", "b;c", func(l *message.Lead) { l.Tags = []string{"a", "b", "c"} }},
		"custom fields":         {"y,z", "2,3", func(l *message.Lead) { l.CustomFields = map[string]any{"x": "1", "y": "2", "z": "3"} }},
		"the last contact":      {"last_contacted_at", "2022-01-02T03:04:05Z", func(l *message.Lead) { l.LastContactedAt = &later }},
		"the time of creation":  {"created_at,updated_at", "2024-01-02T03:04:05Z,2024-01-02T03:04:05Z", nil},
		"the case of the email": {"x", "1", func(l *message.Lead) { l.Email = "ANN@example.com" }},
	} {
		svc, m := inMemory()
		m.leads[ann.ID] = ann
		email := "ann@example.com"
		if name == "the case of the email" {
			email = "ANN@example.com"
		}
		rep := mustImport(t, svc, lead.CSV, "email,"+c.header+"\n"+email+","+c.row+"\n")
		got, want := m.leads[ann.ID], ann
		if c.change != nil {
			c.change(&want)
		}
		if recent(got.UpdatedAt) != (c.change != nil) || (rep.Updated == 1) != (c.change != nil) || rep.Updated+rep.Unchanged != 1 {
			t.Errorf("%s: updated at %v, %+v", name, got.UpdatedAt, rep)
		}
		if want.UpdatedAt = got.UpdatedAt; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

// Rows that would make a lead too large are rejected and change nothing of it. A lead that is larger already, stored by an
// earlier version, can still be changed.
func TestImportBoundsTheMergedLead(t *testing.T) {
	half := strings.Repeat("x", 40<<10)
	for name, c := range map[string]struct {
		stored    message.Lead
		header    string
		row       string
		complains string // "": the row is accepted
	}{
		"200 tags in all":        {message.Lead{Tags: strings.Split(numbers(199), ";")[:199]}, "tags", "a", ""},
		"201 tags in all":        {message.Lead{Tags: strings.Split(numbers(199), ";")[:199]}, "tags", "a;b", "tags: must be at most 200 together with those of the lead"},
		"a known tag":            {message.Lead{Tags: strings.Split(numbers(200), ";")[:200]}, "tags", "7", ""},
		"more tags than allowed": {message.Lead{Tags: strings.Split(numbers(205), ";")[:205]}, "tags", "7", ""},
		"and another one":        {message.Lead{Tags: strings.Split(numbers(205), ";")[:205]}, "tags", "a", "tags: must be at most 200"},
		"large custom fields":    {message.Lead{CustomFields: map[string]any{"x": half}}, "y", half, "custom fields: must have at most 65536 bytes together with those of the lead"},
		"a smaller value":        {message.Lead{CustomFields: map[string]any{"x": half}}, "x", "1", ""},
	} {
		_, m := inMemory()
		svc := lead.NewService(&refusing{memory: m}, nil, nil) // which merges twice
		c.stored.ID, c.stored.Email = uuid.New(), "ann@example.com"
		m.leads[c.stored.ID] = c.stored
		rep := mustImport(t, svc, lead.CSV, "email,city,"+c.header+"\nann@example.com,Oslo,"+c.row+"\n")
		got := m.leads[c.stored.ID]
		if c.complains == "" {
			if rep.Updated != 1 || got.City != "Oslo" {
				t.Errorf("%s: %+v", name, rep)
			}
			continue
		}
		if rep.Rejected != 1 || !strings.Contains(rep.Errors[0].Msg, c.complains) || rep.Errors[0].Line != 2 || !reflect.DeepEqual(got, c.stored) {
			t.Errorf("%s: %+v, %s", name, rep, got.City)
		}
	}
}

// Rows of one file that mean the same lead take effect in the file's order, within a batch and over many batches that are
// written at once.
func TestRowsTakeEffectInOrder(t *testing.T) {
	const rows, people = 900, 30
	svc, m := inMemory()
	svc.SetBatchSize(20)
	rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, csvFile("email,first_name,tags", rows, func(i int) string {
		return fmt.Sprintf("p%02d@example.com,N%d,t%d", i%people, i, i/people)
	}))
	if err != nil || rep.Imported != people || rep.Updated != rows-people {
		t.Fatalf("%+v, %v", rep, err)
	}
	for i, l := range m.all(t) {
		if l.FirstName != fmt.Sprint("N", rows-people+i) || len(l.Tags) != rows/people || l.Tags[3] != "t3" {
			t.Errorf("%s is %s with the tags %v", l.Email, l.FirstName, l.Tags)
		}
	}
	if len(m.batches) != rows/20 || len(m.batches[0].Emails) != 20 || m.batches[0].Importer != m.batches[1].Importer {
		t.Errorf("%d batches, the first with %d rows", len(m.batches), len(m.batches[0].Emails))
	}
	mustImport(t, svc, lead.CSV, "email,phone,company\nnew@example.com,+1,A\n,+1,B\nNEW@example.com,,\n")
	if l := m.one(t, "NEW@example.com"); l.Company != "B" || l.Phone != "+1" {
		t.Errorf("a lead of the same batch: %+v", l)
	}
}

// The report describes the first hundred rejected rows of the file, in its order, and counts the others.
func TestImportReportsTheFirstRejectedRows(t *testing.T) {
	for _, rows := range []int{100, 101, 450} {
		svc, _ := inMemory()
		rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, csvFile("email", rows, func(int) string { return "a@x.y,b" }))
		if err != nil || rep.Rejected != rows || len(rep.Errors) != 100 || rep.Errors[0].Line != 2 || rep.Errors[99].Line != 101 {
			t.Errorf("%d rows: %d rejected, %d reported, %v", rows, rep.Rejected, len(rep.Errors), err)
		}
	}
}

// refusing is a store whose database refuses batches with a value of a company, as it would refuse a value that validation
// does not know.
type refusing struct {
	*memory
	calls int
}

func (r *refusing) MergeLeads(ctx context.Context, b lead.Batch) error {
	r.calls++
	_, _ = b.Merge(nil) // a call whose result is dropped, as after a lost answer
	refused := false
	merge := b.Merge
	b.Merge = func(stored []message.Lead) (created, updated []message.Lead) {
		created, updated = merge(stored)
		for _, l := range slices.Concat(created, updated) {
			refused = refused || l.Company == "refused"
		}
		if refused {
			return nil, nil
		}
		return created, updated
	}
	if err := r.memory.MergeLeads(ctx, b); err != nil || !refused {
		return err
	}
	return &message.Error{Code: message.CodeInvalid, Message: "the database refuses a value"}
}

// A row that only the database refuses is rejected alone, and the rows of its batch take effect in their order.
func TestARefusedRowIsRejectedAlone(t *testing.T) {
	_, m := inMemory()
	r := &refusing{memory: m}
	svc := lead.NewService(r, nil, nil)
	rep := mustImport(t, svc, lead.CSV, "email,company,first_name,tags\n"+
		"a@x.y,c,A,1\nb@x.y,refused,B,1\nc@x.y,c,C,1\nq@x.y,c,Q,first\nq@x.y,refused,never,never\nq@x.y,,,last\nd@x.y,c,D,1\n")
	if rep.Imported != 4 || rep.Updated != 1 || rep.Rejected != 2 || rep.Errors[0].Line != 3 || rep.Errors[1].Line != 6 ||
		rep.Errors[0].Msg != "the database refuses a value of this row" {
		t.Errorf("%+v", rep)
	}
	if q := m.one(t, "q@x.y"); q.FirstName != "Q" || q.Company != "c" || !slices.Equal(q.Tags, []string{"first", "last"}) || len(m.leads) != 4 {
		t.Errorf("%+v, %d leads", q, len(m.leads))
	}
}

// failing is a store whose first batches succeed and whose others fail.
type failing struct {
	*memory
	mu   sync.Mutex
	left int
}

func (f *failing) MergeLeads(ctx context.Context, b lead.Batch) error {
	f.mu.Lock()
	f.left--
	ok := f.left >= 0
	f.mu.Unlock()
	if !ok {
		return errors.New("disk full")
	}
	return f.memory.MergeLeads(ctx, b)
}

func TestAStoreThatFailsEndsTheImport(t *testing.T) {
	_, m := inMemory()
	svc := lead.NewService(&failing{memory: m, left: 2}, nil, nil)
	svc.SetBatchSize(10)
	read := 0
	rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, csvFile("email", 50_000, func(i int) string { read = i; return fmt.Sprintf("p%d@example.com", i) }))
	if err == nil || err.Error() != "disk full" || rep.Imported != 20 || len(m.leads) != 20 || read > 45_000 {
		t.Errorf("%+v, %v, %d rows read", rep, err, read)
	}
}

// Rows that were read before an upload breaks off are kept, in full batches and in the last one, and the error says how many.
func TestAFileThatBreaksOff(t *testing.T) {
	lost := errors.New("connection lost")
	cut := message.InvalidField(message.SlugJSON, "the body broke off", "body")
	large := message.Errorf(message.CodeTooLarge, "the body is too large")
	for name, c := range map[string]struct {
		rows, known int
		err         error
		says        string
	}{
		"one batch, not full":      {3, 0, lost, "read the import: connection lost"},
		"a full batch":             {20, 0, cut, "the body broke off; rows that were read before are kept: 20 imported, 0 updated"},
		"full batches and a rest":  {43, 0, cut, "the body broke off; rows that were read before are kept: 43 imported, 0 updated"},
		"leads that are known":     {5, 3, large, "the body is too large; rows that were read before are kept: 2 imported, 3 updated"},
		"only leads that are":      {3, 3, large, "the body is too large; rows that were read before are kept: 0 imported, 3 updated"},
		"nothing before the break": {0, 0, cut, "the body broke off"},
	} {
		svc, m := inMemory()
		svc.SetBatchSize(20)
		for i := range c.known {
			l := message.Lead{ID: uuid.New(), Email: fmt.Sprintf("p%d@example.com", i)}
			m.leads[l.ID] = l
		}
		file := io.MultiReader(csvFile("email,first_name", c.rows, func(i int) string { return fmt.Sprintf("p%d@example.com,N", i) }),
			strings.NewReader("cut@exam"), iotest.ErrReader(c.err))
		rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, file)
		said := fmt.Sprint(err)
		var e *message.Error
		if errors.As(err, &e) {
			if said = e.Message; len(e.Fields) > 0 {
				said = e.Fields[0].Msg
			}
		}
		if said != c.says || rep.Imported != c.rows-c.known || rep.Updated != c.known || len(m.leads) != c.rows {
			t.Errorf("%s: %+v, %q, %d leads", name, rep, said, len(m.leads))
		}
	}
	if cut.Error() != message.InvalidField(message.SlugJSON, "the body broke off", "body").Error() {
		t.Errorf("the reader's error was changed: %v", cut)
	}
}

// An import whose caller has gone stops reading and keeps what it read.
func TestAnImportWhoseCallerHasGone(t *testing.T) {
	svc, m := inMemory()
	svc.SetBatchSize(10)
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	rep, err := svc.Import(ctx, lead.ImportOptions{Format: lead.CSV}, csvFile("email", 1_000, func(i int) string {
		if read = i; i == 15 {
			cancel()
		}
		return fmt.Sprintf("p%d@example.com", i)
	}))
	if !errors.Is(err, context.Canceled) || rep.Imported != len(m.leads) || len(m.leads)%10 != 0 || len(m.leads) < 10 || read > 999 {
		t.Errorf("%+v, %v, %d leads, %d rows read", rep, err, len(m.leads), read)
	}
}

// waiting is a store that writes nothing and holds each batch until it is told to go on.
type waiting struct {
	lead.Store
	mu            sync.Mutex
	inFlight      map[string]int // by the first email address
	goOn          chan struct{}
	failingEmails string
	fail          chan struct{}
}

func newWaiting() *waiting {
	return &waiting{inFlight: map[string]int{}, goOn: make(chan struct{}), fail: make(chan struct{})}
}

func (w *waiting) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.inFlight {
		n += k
	}
	return n
}

func (w *waiting) MergeLeads(_ context.Context, b lead.Batch) error {
	key := slices.Concat(b.Emails, b.Phones)[0]
	w.mu.Lock()
	w.inFlight[key]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inFlight[key]--
	}()
	if key == w.failingEmails {
		<-w.fail
		return errors.New("disk full")
	}
	<-w.goOn
	return nil
}

// importing runs imports of a service and collects their errors.
func importing(t *testing.T, svc *lead.Service, files ...string) chan error {
	ends := make(chan error, len(files))
	for _, file := range files {
		go func() {
			_, err := svc.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader(file))
			ends <- err
		}()
		synctest.Wait()
	}
	return ends
}

// An import writes three batches at once, all imports of a process six.
func TestBatchesInFlightAreBounded(t *testing.T) {
	for files, want := range map[int]int{1: 3, 2: 6, 3: 6} {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiting()
			svc := lead.NewService(w, nil, nil)
			svc.SetBatchSize(1)
			var texts []string
			for f := range files {
				text := "email\n"
				for i := range 9 {
					text += fmt.Sprintf("f%d-%d@example.com\n", f, i)
				}
				texts = append(texts, text)
			}
			ends := importing(t, svc, texts...)
			if n := w.total(); n != want {
				t.Errorf("%d imports: %d batches in flight, want %d", files, n, want)
			}
			close(w.goOn)
			for range files {
				if err := <-ends; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Batches with an id, an email address or a phone in common are written one after the other, also those of two imports.
func TestBatchesThatShareAKeyWait(t *testing.T) {
	id := uuid.NewString()
	for name, c := range map[string]struct {
		first, second string
		wait          bool
	}{
		"email":           {",shared@example.com,", ",Shared@Example.com,", true},
		"phone":           {",a@example.com,+1", ",b@example.com,+1", true},
		"id":              {id + ",a@example.com,", id + ",b@example.com,", true},
		"nothing":         {",a@example.com,+1", ",b@example.com,+2", false},
		"email and phone": {",+1,", ",b@example.com,+1", false}, // one string, two keys
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWaiting()
			svc := lead.NewService(w, nil, nil)
			ends := importing(t, svc, "id,email,phone\n"+c.first+"\n", "id,email,phone\n"+c.second+"\n")
			if n := w.total(); (n == 1) != c.wait {
				t.Errorf("%s: %d batches in flight", name, n)
			}
			for range 2 {
				w.goOn <- struct{}{}
				if err := <-ends; err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// An import that waits for another import's batch ends when one of its batches fails. The keys of ended batches are unlocked.
func TestAWaitingImportEndsWithItsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaiting()
		w.failingEmails = "other@example.com"
		svc := lead.NewService(w, nil, nil)
		svc.SetBatchSize(1)
		first := importing(t, svc, "email\nshared@example.com\n")
		second := importing(t, svc, "email\nother@example.com\nshared@example.com\n")
		close(w.fail)
		synctest.Wait()
		select {
		case err := <-second:
			if err == nil || err.Error() != "disk full" {
				t.Errorf("%v", err)
			}
		default:
			t.Error("it still waits")
		}
		close(w.goOn)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-importing(t, svc, "email\nshared@example.com\n"); err != nil {
			t.Error(err)
		}
	})
}

// A batch that is merged again, with other leads stored, writes what its rows say and nothing of the first merge.
func TestABatchMayBeMergedAgain(t *testing.T) {
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	ann := message.Lead{ID: uuid.New(), Email: "ann@example.com", CreatedAt: old.AddDate(1, 0, 0)}
	bob := message.Lead{ID: uuid.New(), Phone: "+14155550101", CustomFields: map[string]any{"z": "b"}, CreatedAt: old}
	_, m := inMemory()
	m.leads[ann.ID], m.leads[bob.ID] = ann, bob
	rep := mustImport(t, lead.NewService(&refusing{memory: m}, nil, nil), lead.CSV,
		"email,phone,tags,x,y\nann@example.com,+14155550101,t1;t2;t3,1,\n,+14155550101,t4,2,2\n")
	if rep.Imported != 0 || rep.Updated != 2 {
		t.Fatalf("%+v", rep)
	}
	for id, want := range map[uuid.UUID]string{ann.ID: "[t1 t2 t3] map[x:1]", bob.ID: "[t4] map[x:2 y:2 z:b]"} {
		if l := m.leads[id]; fmt.Sprint(l.Tags, " ", l.CustomFields) != want {
			t.Errorf("%v %v, want %s", l.Tags, l.CustomFields, want)
		}
	}
	if bob.CustomFields["x"] != nil {
		t.Error("the stored lead that was passed to the merge was changed")
	}
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{"email\na@example.com\n", "a,b\n\"x", "id,tags\n,;;\n", "\xff\n", "email,email\n", `{"email":"x"}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, isCSV bool) {
		format := lead.NDJSON
		if isCSV {
			format = lead.CSV
		}
		svc, m := inMemory()
		rep, err := svc.Import(t.Context(), lead.ImportOptions{Format: format}, strings.NewReader(string(b)))
		if err != nil && !message.IsCode(err, message.CodeInvalid) && !message.IsCode(err, message.CodeMediaType) {
			t.Errorf("%v", err)
		}
		if rep.Rejected < len(rep.Errors) || rep.Imported != len(m.leads) {
			t.Errorf("%+v, %d leads", rep, len(m.leads))
		}
	})
}
