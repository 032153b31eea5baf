package lead_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

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

// database is a connection of a test's own to PostgreSQL.
func database(t *testing.T, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, db *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// awaitLock waits until a statement waits for a lock, which the connection must hold.
func awaitLock(t *testing.T, db *pgx.Conn) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, "a statement waits for a lock", func() bool {
		var n int
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
}

// An import that found people and waits for the erasure of one, or for another write, merges with what is there after it.
func TestFaultAnImportThatWaits(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	p := processOn(t, databaseURL)
	importCSV(t, p, "email,last_name,company\nann@example.com,Old,Old\nbob@example.com,Old,Old\ncat@example.com,Old,Old\n")
	ids := map[string]uuid.UUID{}
	for _, l := range everyLead(t, p.store) {
		ids[l.Email] = l.ID
	}
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "DELETE FROM leads WHERE email = 'ann@example.com'")
	exec(t, db, "UPDATE leads SET company = 'Theirs', tags = '[\"theirs\"]' WHERE email = 'bob@example.com'")
	exec(t, db, "UPDATE leads SET email = 'dan@example.com', email_fold = 'dan@example.com' WHERE email = 'cat@example.com'")
	done := make(chan lead.Report)
	go func() {
		done <- importCSV(t, p, "email,first_name,tags\nann@example.com,New,ours\nbob@example.com,New,ours\ncat@example.com,New,ours\n")
	}()
	awaitLock(t, db)
	exec(t, db, "COMMIT")
	if rep := <-done; rep.Imported != 2 || rep.Updated != 1 {
		t.Errorf("%+v", rep)
	}
	for _, l := range everyLead(t, p.store) {
		known := ids[l.Email] == l.ID
		switch l.Email {
		case "ann@example.com", "cat@example.com": // cat's lead is dan's by now
			if known || l.LastName != "" || l.Company != "" || l.FirstName != "New" {
				t.Errorf("%+v", l)
			}
		case "bob@example.com":
			if !known || l.Company != "Theirs" || l.FirstName != "New" || len(l.Tags) != 2 {
				t.Errorf("%+v", l)
			}
		case "dan@example.com":
			if l.ID != ids["cat@example.com"] || l.FirstName != "" || l.LastName != "Old" {
				t.Errorf("%+v", l)
			}
		}
	}
}

// An id that is taken while an import waits to insert it is that lead's: the row updates it, and all others are stored.
func TestFaultAnImportWhoseIDIsTaken(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	p := processOn(t, databaseURL)
	id := uuid.New()
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "INSERT INTO leads (id, company, created_at, updated_at) VALUES ($1, 'Theirs', now(), now())", id)
	done := make(chan lead.Report)
	go func() {
		done <- importCSV(t, p, "id,email,first_name\n,a@example.com,A\n"+id.String()+",b@example.com,B\n")
	}()
	awaitLock(t, db)
	exec(t, db, "COMMIT")
	if rep := <-done; rep.Imported != 1 || rep.Updated != 1 {
		t.Errorf("%+v", rep)
	}
	if l, err := p.Get(t.Context(), id); err != nil || l.Company != "Theirs" || l.FirstName != "B" || len(everyLead(t, p.store)) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

// The process whose lease another takes waits its turn and goes on; rows that it writes meanwhile are not written beside the
// other's.
func TestFaultAProcessThatLosesTheLease(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	a, b := twoOn(t, databaseURL)
	importCSV(t, a, "email\na@example.com\n")
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "LOCK TABLE import_lease IN ROW SHARE MODE") // a batch of a's is under way
	importCSV(t, a, "email\nbeside@example.com\n")           // its other batches run beside it
	done := make(chan lead.Report, 2)
	go func() { done <- importCSV(t, b, "email\nx@example.com\n") }()
	awaitLock(t, db) // b waits for it
	go func() { done <- importCSV(t, a, "email\nx@example.com\n") }()
	testenv.Eventually(t, 20*time.Second, "a waits behind b", func() bool {
		var n int
		err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE relation = 'import_lease'::regclass AND NOT granted").Scan(&n)
		return err == nil && n == 2
	})
	exec(t, db, "COMMIT")
	first, second := <-done, <-done
	if first.Imported+second.Imported != 1 || first.Updated+second.Updated != 1 || len(everyLead(t, a.store)) != 3 {
		t.Errorf("%+v, %+v, %d leads", first, second, len(everyLead(t, a.store)))
	}
}

// An import whose commit's answer is lost writes its rows once, also those that nothing would recognise again.
func TestFaultAnImportWhoseAnswerIsLost(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	seen := processOn(t, databaseURL)
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.StartProxy(t, u.Host)
	u.Host = proxy.Addr
	p := processOn(t, u.String())
	db := database(t, databaseURL)
	// A commit that writes leads waits for a lock of the test.
	exec(t, db, "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END'")
	exec(t, db, "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON leads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()")
	people := 0
	for name, file := range map[string]string{
		"nothing to recognise": "first_name,company\nAnn,Acme\nAnn,Acme\nAnn,Acme\n",
		"an email":             "email\na@example.com\nb@example.com\nb@example.com\n",
		"an id of the file":    "id,first_name\n" + uuid.NewString() + ",Ann\n,Bob\n,Bob\n",
	} {
		exec(t, db, "SELECT pg_advisory_lock(1)")
		done := make(chan lead.Report)
		go func() { done <- importCSV(t, p, file) }()
		awaitLock(t, db)
		before := proxy.Lost()
		proxy.LoseAnswers(1)
		exec(t, db, "SELECT pg_advisory_unlock(1)")
		rep := <-done
		if proxy.Lost() != before+1 {
			t.Fatalf("%s: no answer was lost", name)
		}
		people += rep.Imported
		if n := len(everyLead(t, seen.store)); rep.Imported+rep.Updated != 3 || rep.Imported < 2 || n != people {
			t.Errorf("%s: %+v, %d leads, want %d", name, rep, n, people)
		}
	}
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

// held is a store that writes nothing: a batch with the key waits, and another fails when it is told to.
type held struct {
	lead.Store
	goOn, fail chan struct{}
}

func (h held) MergeLeads(_ context.Context, b lead.Batch) error {
	if b.Emails[0] == "shared@example.com" {
		<-h.goOn
		return nil
	}
	<-h.fail
	return errors.New("disk full")
}

// An import that waits for another's batch of the same people ends when one of its own batches fails.
func TestFaultAnImportThatWaitsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := held{goOn: make(chan struct{}), fail: make(chan struct{})}
		svc := lead.NewService(h, nil, nil)
		first, second := make(chan error, 1), make(chan error, 1)
		run := func(file string, end chan<- error) {
			_, err := svc.Import(t.Context(), lead.CSV, strings.NewReader("email\n"+file))
			end <- err
		}
		go run("shared@example.com\n", first)
		synctest.Wait()
		go run(strings.Repeat("other@example.com\n", 2_000)+"shared@example.com\n", second)
		synctest.Wait() // its second batch waits for the first import
		close(h.fail)
		synctest.Wait()
		select {
		case err := <-second:
			if err == nil || !strings.Contains(err.Error(), "disk full") {
				t.Errorf("%v", err)
			}
		default:
			t.Error("it waits on")
		}
		close(h.goOn)
		if err := <-first; err != nil {
			t.Error(err)
		}
		go run("shared@example.com\n", first) // its keys are free again
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
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
