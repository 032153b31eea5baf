package lead_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// process is one process's part of a Herald: a service on connections of its own.
type process struct {
	*lead.Service
	store *store.Store
}

func processOn(t *testing.T, databaseURL string) process {
	t.Helper()
	s := storetest.Open(t, databaseURL, store.Options{})
	return process{lead.NewService(s, s, s), s}
}

// twoOn returns two processes on a database; on SQLite, which belongs to one process, two services over one connection.
func twoOn(t *testing.T, databaseURL string) (process, process) {
	t.Helper()
	a := processOn(t, databaseURL)
	if a.store.Dialect() == testenv.SQLite {
		return a, process{lead.NewService(a.store, a.store, a.store), a.store}
	}
	return a, processOn(t, databaseURL)
}

// together runs functions at the same time.
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

func everyLead(t *testing.T, s *store.Store) []message.Lead {
	t.Helper()
	leads, err := s.Leads(t.Context(), uuid.Nil, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return leads
}

func importCSV(t *testing.T, p process, file string) lead.Report {
	t.Helper()
	rep, err := p.Import(t.Context(), lead.CSV, strings.NewReader(file))
	if err != nil {
		t.Errorf("import: %v", err)
	}
	return rep
}

// Imports of the same new people at the same time, in one process and in two, make each of them once, whichever key a file
// knows them by, and in whichever order.
func TestFaultImportsOfTheSameNewPeople(t *testing.T) {
	const people, files = 500, 4
	for name, row := range map[string]func(file, i int) string{
		"by email":             func(_, i int) string { return fmt.Sprintf(",p%d@example.com,,", i) },
		"by email, other case": func(file, i int) string { return fmt.Sprintf(",%s%d@Example.com,,", []string{"p", "P"}[file%2], i) },
		"by phone":             func(_, i int) string { return fmt.Sprintf(",,+1415%07d,", i) },
		"by id": func(_, i int) string {
			return uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(i), byte(i >> 8)}).String() + ",,,x"
		},
		"by one or the other": func(file, i int) string { return fmt.Sprintf(",p%d@example.com,+1415%07d,f%d", i, i, file) },
		"in opposite orders":  func(file, i int) string { return fmt.Sprintf(",p%d@example.com,,", []int{i, people - 1 - i}[file%2]) },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
				a, b := twoOn(t, databaseURL)
				processes := []process{a, b}
				var imports []func()
				var imported, updated atomic.Int64
				for f := range files {
					imports = append(imports, func() {
						var file strings.Builder
						file.WriteString("id,email,phone,first_name\n")
						for i := range people {
							file.WriteString(row(f, i) + "\n")
						}
						rep := importCSV(t, processes[f/2], file.String())
						imported.Add(int64(rep.Imported))
						updated.Add(int64(rep.Updated))
					})
				}
				together(imports...)
				if n := len(everyLead(t, processes[0].store)); n != people {
					t.Errorf("%d leads of %d people", n, people)
				}
				if imported.Load() != people || updated.Load() != (files-1)*people {
					t.Errorf("%d imported, %d updated", imported.Load(), updated.Load())
				}
			})
		})
	}
}

// Files of many batches that hold the same people in opposite orders end without an error, and every row of each takes
// effect, whichever processes they come to.
func TestFaultImportsInOppositeOrders(t *testing.T) {
	const people, batch = 2_600, 2_000
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		processes := []process{a, b}
		file := func(f int) string {
			var b strings.Builder
			fmt.Fprintf(&b, "email,phone,tags,c%d\n", f)
			for i := range people {
				at := i
				if f%2 == 1 {
					at = people - 1 - i
				}
				fmt.Fprintf(&b, "p%d@example.com,+1415%07d,t%d,v\n", at, at, f)
			}
			return b.String()
		}
		importCSV(t, processes[0], "email\np17@example.com\np2417@example.com\n") // some are known
		together(
			func() { importCSV(t, processes[0], file(0)) }, func() { importCSV(t, processes[1], file(1)) },
			func() { importCSV(t, processes[0], file(2)) }, func() { importCSV(t, processes[0], file(3)) },
		)
		leads := everyLead(t, processes[0].store)
		if len(leads) != people {
			t.Errorf("%d leads of %d people, in batches of %d", len(leads), people, batch)
		}
		for _, l := range leads {
			if len(l.Tags) != 4 || len(l.CustomFields) != 4 || l.Phone == "" {
				t.Fatalf("some rows took no effect: %+v", l)
			}
		}
	})
}

// People who are erased beside an import of their file do not come back: their ids never exist again, and what a file makes
// of them is made of its own cells only.
func TestFaultAnImportBesideErasures(t *testing.T) {
	const people, rounds = 60, 3
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
					t.Fatalf("an erased person is there: %+v", l)
				}
			}
		}
	})
}

// What has an id takes the lead with that id or makes one, whoever else has its email; a known lead keeps its time of creation
// and the fields that a file does not name.
func TestFaultAnImportRecognisesLeads(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		p := processOn(t, databaseURL)
		old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		ann := message.Lead{Email: "ann@example.com", FirstName: "Ann", Tags: []string{"a"}, CustomFields: map[string]any{"a": "1"}, CreatedAt: old}
		if err := p.Create(t.Context(), &ann); err != nil {
			t.Fatal(err)
		}
		fresh := uuid.New()
		rep := importCSV(t, p, "id,email,last_name,tags,created_at,b\n"+
			fresh.String()+",ann@example.com,New,,,\n"+ // an id that is not known
			ann.ID.String()+",other@example.com,ById,b,2024-01-02T03:04:05Z,2\n")
		if rep.Imported != 1 || rep.Updated != 1 {
			t.Fatalf("%+v", rep)
		}
		got, err := p.Get(t.Context(), ann.ID)
		if err != nil || got.LastName != "ById" || got.Email != "other@example.com" || got.FirstName != "Ann" || len(got.Tags) != 2 ||
			got.CustomFields["a"] != "1" || got.CustomFields["b"] != "2" || !got.CreatedAt.Equal(old) || !got.UpdatedAt.After(old) {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := p.Get(t.Context(), fresh); err != nil || got.LastName != "New" || got.FirstName != "" {
			t.Errorf("%+v, %v", got, err)
		}
		patched, err := p.Update(t.Context(), ann.ID, func(l *message.Lead) error {
			l.City = "Oslo"
			return nil
		})
		if err != nil || !patched.CreatedAt.Equal(old) || patched.UpdatedAt.Before(got.UpdatedAt) {
			t.Errorf("%+v, %v", patched, err)
		}
	})
}

// Of several that share an address an import updates the oldest, as it is under the lock.
func TestFaultTheOldestWins(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		p := processOn(t, databaseURL)
		var ids []uuid.UUID
		for i, year := range []int{2022, 2020, 2021} {
			l := message.Lead{Email: "shared@example.com", Phone: "+14155550101", CreatedAt: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), City: fmt.Sprint(i)}
			if err := p.Create(t.Context(), &l); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, l.ID)
		}
		importCSV(t, p, "email,phone,company\nShared@example.com,,E\n,+14155550101,P\n")
		if l, err := p.Get(t.Context(), ids[1]); err != nil || l.Company != "P" || l.Email != "Shared@example.com" || len(everyLead(t, p.store)) != 3 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

// Of two that create one id one is told so and the other is a conflict that names it.
func TestFaultOneIDIsCreatedOnce(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
		a, b := twoOn(t, databaseURL)
		for range 40 {
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

// An import whose caller is gone stops reading and keeps what it read.
func TestFaultAnImportThatIsLeft(t *testing.T) {
	p := processOn(t, testenv.Database(t, testenv.SQLite))
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	file := rows(20_000, func(i int) string {
		if read++; i == 3_000 {
			cancel()
		}
		return fmt.Sprintf("p%d@example.com,N,t\n", i)
	})
	rep, err := p.Import(ctx, lead.CSV, file)
	if n := len(everyLead(t, p.store)); !errors.Is(err, context.Canceled) || n != rep.Imported || n == 0 || n > 8_000 {
		t.Errorf("%+v, %v, %d leads", rep, err, n)
	}
}

// repeated is a store that has every batch merged twice, with different leads stored.
type repeated struct {
	lead.Store
	stored  [2][]message.Lead
	updated []message.Lead
}

func (r *repeated) MergeLeads(_ context.Context, b lead.Batch) error {
	for _, stored := range r.stored {
		var created []message.Lead
		if created, r.updated = b.Merge(stored); len(created)+len(r.updated) == 0 {
			return errors.New("nothing is written")
		}
	}
	return nil
}

// A batch that is merged again writes what its rows say, and nothing that the first time put together.
func TestFaultABatchMayBeMergedAgain(t *testing.T) {
	a, b := uuid.New(), uuid.New()
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &repeated{}
	s.stored[1] = []message.Lead{
		{ID: a, Email: "ann@example.com", CreatedAt: old.AddDate(1, 0, 0)}, {ID: b, Phone: "+14155550101", CustomFields: map[string]any{"z": "b"}, CreatedAt: old},
	}
	file := "email,phone,tags,x,y\nann@example.com,+14155550101,t1;t2;t3,1,\n,+14155550101,t4,2,2\n"
	rep, err := lead.NewService(s, nil, nil).Import(t.Context(), lead.CSV, strings.NewReader(file))
	if err != nil || rep.Imported != 0 || rep.Updated != 2 || len(s.updated) != 2 {
		t.Fatalf("%+v, %v, %+v", rep, err, s.updated)
	}
	for _, l := range s.updated {
		want := map[uuid.UUID]string{a: "[t1 t2 t3] map[x:1]", b: "[t4] map[x:2 y:2 z:b]"}[l.ID]
		if got := fmt.Sprintf("%v %v", l.Tags, l.CustomFields); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
