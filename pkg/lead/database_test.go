package lead_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// process stands for one process of a deployment: a service with its own connections.
type process struct {
	*lead.Service
	store *storetest.Store
}

func processOn(t *testing.T, databaseURL string) process {
	t.Helper()
	s := storetest.Open(t, databaseURL, storetest.Options{})
	return processOver(s)
}

// processOver makes a process whose imports write small batches.
func processOver(s *storetest.Store) process {
	svc := lead.NewService(s, s, s)
	svc.SetBatchSize(batchRows)
	return process{svc, s}
}

// batchRows keeps the tests short: a few hundred rows make many batches.
const batchRows = 40

// twoOn returns two processes on a database. A SQLite database belongs to one process: there it is two services over one
// connection.
func twoOn(t *testing.T, databaseURL string) (process, process) {
	t.Helper()
	a := processOn(t, databaseURL)
	if a.store.Dialect() == testenv.SQLite {
		return a, processOver(a.store)
	}
	return a, processOn(t, databaseURL)
}

// together starts functions at the same time and waits for them.
func together(all ...func()) {
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for _, do := range all {
		wg.Go(func() {
			<-begin
			do()
		})
	}
	close(begin)
	wg.Wait()
}

func everyLead(t *testing.T, s *storetest.Store) []message.Lead {
	t.Helper()
	leads, err := s.Leads(t.Context(), nil, uuid.Nil, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return leads
}

func importCSV(t *testing.T, p process, file string) lead.Report {
	t.Helper()
	rep, err := p.Import(t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader(file))
	if err != nil {
		t.Errorf("import: %v", err)
	}
	return rep
}

// Concurrent imports of the same new people, in one process and in two, create each of them once, by whichever key the files
// name them and in whichever order.
func TestFaultImportsOfTheSameNewPeople(t *testing.T) {
	const people, files = 90, 4
	cases := map[string]func(file, i int) string{
		"by email":             func(_, i int) string { return fmt.Sprintf(",a%d@example.com,,", i) },
		"by email, other case": func(file, i int) string { return fmt.Sprintf(",%s%d@Example.com,,", []string{"b", "B"}[file%2], i) },
		"by phone":             func(_, i int) string { return fmt.Sprintf(",,+1415%07d,", i) },
		"by id": func(_, i int) string {
			return uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(i), byte(i >> 8)}).String() + ",,,x"
		},
		"by one or the other": func(file, i int) string { return fmt.Sprintf(",c%d@example.com,+1416%07d,f%d", i, i, file) },
		"in opposite orders":  func(file, i int) string { return fmt.Sprintf(",d%d@example.com,,", []int{i, people - 1 - i}[file%2]) },
	}
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		processes := []process{a, b}
		leads := 0
		for name, row := range cases {
			var imports []func()
			var imported, others atomic.Int64
			for f := range files {
				imports = append(imports, func() {
					var file strings.Builder
					file.WriteString("id,email,phone,first_name\n")
					for i := range people {
						file.WriteString(row(f, i) + "\n")
					}
					rep := importCSV(t, processes[f/2], file.String())
					imported.Add(int64(rep.Imported))
					others.Add(int64(rep.Updated + rep.Unchanged))
				})
			}
			together(imports...)
			before := leads
			if leads = len(everyLead(t, a.store)); leads-before != people {
				t.Errorf("%s: %d leads of %d people", name, leads-before, people)
			}
			if imported.Load() != people || others.Load() != (files-1)*people {
				t.Errorf("%s: %d imported, %d updated or unchanged", name, imported.Load(), others.Load())
			}
		}
	})
}

// Files of many batches that hold the same people in opposite orders end without an error, and every row of each takes
// effect, whichever processes import them.
func TestFaultImportsInOppositeOrders(t *testing.T) {
	const people = 3*batchRows + 10
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		file := func(f int) string {
			var b strings.Builder
			fmt.Fprintf(&b, "email,phone,tags,c%d\n", f)
			for i := range people {
				if f%2 == 1 {
					i = people - 1 - i
				}
				fmt.Fprintf(&b, "p%d@example.com,+1415%07d,t%d,v\n", i, i, f)
			}
			return b.String()
		}
		importCSV(t, a, "email\np17@example.com\np127@example.com\n") // some are known
		together(
			func() { importCSV(t, a, file(0)) }, func() { importCSV(t, b, file(1)) },
			func() { importCSV(t, a, file(2)) }, func() { importCSV(t, a, file(3)) },
		)
		leads := everyLead(t, a.store)
		if len(leads) != people {
			t.Errorf("%d leads of %d people", len(leads), people)
		}
		for _, l := range leads {
			if len(l.Tags) != 4 || len(l.CustomFields) != 4 || l.Phone == "" {
				t.Fatalf("some rows took no effect: %+v", l)
			}
		}
	})
}

// A lead that is erased while a file with its person is imported does not come back: its id never exists again, and a lead
// that the file creates instead has the file's values only.
func TestFaultAnImportBesideErasures(t *testing.T) {
	const people, rounds = 45, 2
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		for round := range rounds {
			var known, file strings.Builder
			known.WriteString("email,last_name,company,secret\n")
			file.WriteString("email,first_name\n")
			for i := range people {
				fmt.Fprintf(&known, "r%dp%d@example.com,Old,Old,old\n", round, i)
				fmt.Fprintf(&file, "r%dp%d@example.com,New\n", round, i)
			}
			importCSV(t, a, known.String())
			var erasures []func()
			erased := map[uuid.UUID]bool{}
			for _, l := range everyLead(t, a.store) {
				if l.LastName == "Old" {
					erased[l.ID] = true
					erasures = append(erasures, func() {
						if err := b.Erase(t.Context(), l.ID); err != nil {
							t.Errorf("erase: %v", err)
						}
					})
				}
			}
			if len(erased) != people {
				t.Fatalf("%d people are known", len(erased))
			}
			together(append(erasures, func() { importCSV(t, a, file.String()) }, func() { importCSV(t, b, file.String()) })...)
			for _, l := range everyLead(t, a.store) {
				if erased[l.ID] || l.LastName != "" || l.Company != "" || len(l.CustomFields) != 0 {
					t.Fatalf("an erased lead came back: %+v", l)
				}
			}
		}
	})
}

// An import finds leads by id, email and phone in the database, updates the oldest of several and keeps what it does not
// name. The rules are those of TestImportFindsTheLead; this test holds both databases to them.
func TestFaultAnImportRecognisesLeads(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		p := processOn(t, databaseURL)
		old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		ann := message.Lead{Email: "ann@example.com", FirstName: "Ann", Tags: []string{"a"}, CustomFields: map[string]any{"a": "1"}, CreatedAt: old}
		create(t, p, &ann)
		var shared []uuid.UUID
		for i, year := range []int{2022, 2020, 2021} {
			l := message.Lead{Email: "shared@example.com", Phone: "+14155550101", CreatedAt: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), City: fmt.Sprint(i)}
			create(t, p, &l)
			shared = append(shared, l.ID)
		}
		fresh := uuid.New()
		rep := importCSV(t, p, "id,email,phone,last_name,company,tags,created_at,b\n"+
			fresh.String()+",ann@example.com,,New,,,,\n"+ // an unknown id
			ann.ID.String()+",other@example.com,,ById,,b,2024-01-02T03:04:05Z,2\n"+
			",Shared@example.com,,,E,,,\n,,+14155550101,,P,,,\n")
		if rep.Imported != 1 || rep.Updated != 3 || len(everyLead(t, p.store)) != 5 {
			t.Fatalf("%+v", rep)
		}
		if l := get(t, p, ann.ID); l.LastName != "ById" || l.Email != "other@example.com" || l.FirstName != "Ann" || len(l.Tags) != 2 ||
			l.CustomFields["a"] != "1" || l.CustomFields["b"] != "2" || !l.CreatedAt.Equal(old) || !l.UpdatedAt.After(old) {
			t.Errorf("by id: %+v", l)
		}
		if l := get(t, p, fresh); l.LastName != "New" || l.FirstName != "" {
			t.Errorf("an unknown id: %+v", l)
		}
		if l := get(t, p, shared[1]); l.Company != "P" || l.Email != "Shared@example.com" {
			t.Errorf("the oldest: %+v", l)
		}
		patched, err := p.Update(t.Context(), ann.ID, func(l *message.Lead) error { l.City = "Oslo"; return nil })
		if err != nil || !patched.CreatedAt.Equal(old) || patched.City != "Oslo" {
			t.Errorf("%+v, %v", patched, err)
		}
	})
}

func create(t *testing.T, p process, l *message.Lead) {
	t.Helper()
	if err := p.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, p process, id uuid.UUID) *message.Lead {
	t.Helper()
	l, err := p.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Of several concurrent requests that create one id, one succeeds and the others get a conflict that names the id.
func TestFaultOneIDIsCreatedOnce(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		for range 12 {
			id := uuid.New()
			errs := make([]error, 4)
			var creates []func()
			for i := range errs {
				creates = append(creates, func() {
					errs[i] = []process{a, b}[i%2].Create(t.Context(), &message.Lead{ID: id, FirstName: fmt.Sprint(i)})
				})
			}
			together(creates...)
			won := -1
			for i, err := range errs {
				switch {
				case err == nil && won < 0:
					won = i
				case !message.IsCode(err, message.CodeConflict) || !strings.Contains(err.Error(), id.String()):
					t.Fatalf("%v", errs)
				}
			}
			if l, err := a.Get(t.Context(), id); won < 0 || err != nil || l.FirstName != fmt.Sprint(won) {
				t.Fatalf("%v: %+v, %v", errs, l, err)
			}
		}
	})
}

// Import refuses every value that a database would refuse, and stores the rows beside it.
func TestFaultValuesImportBounds(t *testing.T) {
	clef := "\U0001D11E" // four bytes
	// wide makes text of four bytes per character without a pattern, so that PostgreSQL cannot compress it in an index.
	wide := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteRune(rune(0x10400 + (i*7919)%0x5000))
		}
		return b.String()
	}
	cases := map[string]struct {
		format    lead.Format
		row, want string
	}{
		"number":               {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":1e200000}}`, "40 digits"},
		"infinite":             {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":1e309}}`, "40 digits"},
		"deep number":          {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"a":[{"b":[-1e-999]}]}}`, "custom_fields a 0 b 0"},
		"many digits":          {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"n":` + strings.Repeat("9", 41) + `}}`, "40 digits"},
		"wide email":           {lead.NDJSON, `{"email":"` + wide(1_000) + `"}`, "2000 bytes"},
		"wide phone":           {lead.NDJSON, `{"phone":"` + wide(501) + `"}`, "2000 bytes"},
		"wide assignee in CSV": {lead.CSV, "email,assignee_id\nx@y.z," + wide(700) + "\n", "2000 bytes"},
		"wide when folded":     {lead.NDJSON, `{"email":"` + strings.Repeat("\u0958", 400) + `"}`, "2000 bytes"},
		"no name":              {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"":1}}`, "name of a custom field"},
		"long name":            {lead.NDJSON, `{"email":"x@y.z","custom_fields":{"` + strings.Repeat(clef, 201) + `":1}}`, "name of a custom field"},
	}
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		p := processOn(t, databaseURL)
		for name, c := range cases {
			before := len(everyLead(t, p.store))
			first, last := uuid.NewString()+"@y.z", uuid.NewString()+"@y.z"
			file, line := `{"email":"`+first+`"}`+"\n"+c.row+"\n"+`{"email":"`+last+`"}`, 2
			if c.format == lead.CSV {
				header, row, _ := strings.Cut(c.row, "\n")
				file, line = header+"\n"+first+",\n"+row+last+",\n", 3
			}
			rep, err := p.Import(t.Context(), lead.ImportOptions{Format: c.format}, strings.NewReader(file))
			if err != nil || rep.Imported != 2 || rep.Rejected != 1 || rep.Errors[0].Line != line || !strings.Contains(rep.Errors[0].Msg, c.want) {
				t.Errorf("%s: %+v, %v", name, rep, err)
			}
			if n := len(everyLead(t, p.store)) - before; n != 2 {
				t.Errorf("%s: %d leads are stored, want 2", name, n)
			}
		}
	})
}

// Rows with one address in several spellings mean one lead, also one that an earlier version stored in its spelling.
func TestCaseSpellingsOfOneAddress(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		p := processOn(t, url)
		for _, file := range []string{
			"phone,first_name\n+44 20 7946 0018,a\n+442079460018,b\n0044 20 7946 0018,c\n+44 (0)20 7946 0018,d\n",
			"email,first_name\nAnn@X.test,a\nann@x.test,b\nAnn <ann@x.test>,c\nmailto:ann@x.test,d\n",
			"phone,first_name\n+5215512345678,a\n+52 55 1234 5678,d\n",
			"phone,first_name\n(415) 555-0101,a\n415-555-0101,d\n",
		} {
			for range 2 { // within one batch, and with what is stored
				importCSV(t, p, file)
			}
		}
		leads := everyLead(t, p.store)
		if len(leads) != 4 {
			t.Fatalf("%d leads, want 4", len(leads))
		}
		for _, l := range leads {
			if l.FirstName != "d" {
				t.Errorf("%+v has not taken the last row", l)
			}
		}
		db := storetest.Raw(t, url)
		_, err := db.ExecContext(t.Context(), "UPDATE leads SET phone = '+44 20 7946 0018', phone_fold = '+44 20 7946 0018' WHERE phone_fold = '+442079460018'")
		storetest.Must(t, err)
		if rep := importCSV(t, p, "phone,company\n+44 20 7946 0018,Acme\n"); rep.Updated != 1 {
			t.Errorf("a lead of an earlier version: %+v", rep)
		}
	})
}
